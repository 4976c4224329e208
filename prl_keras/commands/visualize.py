"""`python main.py visualize`: a run's representations in TensorBoard's projector and as t-SNE pictures."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prl_keras.commands.common import check_encoder, run_argument, source_run
from prl_keras.config import RunDataOptions, RunPictureOptions, Visualize, check_least, check_seed
from prl_keras.data import Dataset, Split
from prl_keras.data.request import data_request_of_run, data_words, file_suffix, open_data, warn_of_seen
from prl_keras.data.splits import SPLITS
from prl_keras.errors import InputError
from prl_keras.runs import Run, find_run, gives_features, has_classifier, has_encoder, is_kept, is_taught
from prl_keras.screen.console import console, print_end, tensorboard_command
from prl_keras.startup import start_keras
from prl_keras.training.begin import source_of
from prl_keras.visualization.sample import MOST, drawn_rows, shown_classes

if TYPE_CHECKING:
    from prl_keras.visualization.figures import MapPanel


@dataclass(frozen=True, eq=False)
class Sample:
    """The images to look at: (n, height, width, 3) uint8, labels (n,), split and row of each, and its domain."""

    images: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    rows: np.ndarray
    domains: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Stage:
    """One encoder's view: features (n, dim), prototypes (classes, dim), predicted labels and confidence (n,)."""

    name: str
    features: np.ndarray
    prototypes: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray


def run(options: Visualize) -> None:
    check_seed(options.seed)
    check_least(options, samples_per_class=2)
    run = find_run(options.run, options.runs_dir, gives_features, "run with an encoder")
    if options.before and is_kept(run):
        raise InputError(f"run {run.name!r} is an encoder as it is: leave out --before, nothing was trained")
    if options.before and run.result is not None and run.result.get("encoder_frozen"):
        source = f"{run_argument(source_run(run), options.runs_dir)}{data_words(_data_options(options))}"
        raise InputError(
            f"run {run.name!r} left its encoder as it was: use `python main.py visualize {source} --before`"
        )
    dataset = open_data(data_request_of_run(run, _data_options(options)), run)
    check_encoder(tuple(run.part("data")["image_shape"]), dataset, run.name)
    warn_of_seen(run, dataset)
    sample = draw_sample(dataset, options)
    start_keras(run.part("options", "seed"))
    stages = [_after(run, dataset, sample)]
    if options.before:
        stages.insert(0, _before(run, dataset, sample))
    _write(run, stages, dataset, sample, options)


def _data_options(options: Visualize) -> RunDataOptions:
    same = ("dataset", "data_dir", "cache_dir", *(field.name for field in fields(RunPictureOptions)))
    return RunDataOptions(**{name: getattr(options, name) for name in same})


def draw_sample(dataset: Dataset, options: Visualize) -> Sample:
    """At most `samples_per_class` images of each class and split, and `MOST` of a split, drawn by seed."""
    chosen = SPLITS if options.split == "all" else (options.split,)
    parts, asked, domains = [], 0, []
    for split_name in chosen:
        split = getattr(dataset, split_name)
        rows = drawn_rows(split.labels, options.samples_per_class, options.seed, SPLITS.index(split_name))
        parts.append((split.images[rows], split.labels[rows], np.full(len(rows), split_name), rows))
        domains += [] if split.domains is None else split.domains[rows].tolist()
        asked += int(np.minimum(np.bincount(split.labels), options.samples_per_class).sum())
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    sample = Sample(*columns, np.array(domains, dtype=object) if domains else None)
    if len(sample.rows) < asked:
        console.print(
            f"Showing {len(sample.rows):,} of the {asked:,} images that --samples-per-class "
            f"{options.samples_per_class} asks for: at most {MOST:,} of a split, alike of each class"
        )
    return sample


def _after(run: Run, dataset: Dataset, sample: Sample) -> Stage:
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_encoder, load_model

    stage = _stage("after", load_encoder(run), dataset, sample)
    if not has_classifier(run) or run.part("data")["class_names"] != list(dataset.class_names):
        return stage
    logits = encode(load_model(run.classifier_file), sample.images)
    return Stage(stage.name, stage.features, stage.prototypes, *_answers(logits))


def _before(run: Run, dataset: Dataset, sample: Sample) -> Stage:
    """The encoder that a fine-tuned run, or one with --init, began with; of others the network with its first weights.

    Raises:
        InputError: that encoder is not there any more, or another one in its place.
    """
    import keras

    from prl_keras.models.begun import encoder_to_begin_with
    from prl_keras.models.storage import load_encoder, weights_sha256
    from prl_keras.training.untrained import untrained_encoder

    if is_taught(run):
        raise InputError(f"run {run.name!r} was taught, which leaves its encoder as it was: leave out --before")
    if run.part("command") == "finetune":
        source = source_run(run)
        encoder, recorded = load_encoder(source), run.result.get("encoder_sha256_before")
    elif run.part("options").get("init"):
        source = source_of(run)
        keras.utils.set_random_seed(run.part("options", "seed"))  # of random weights
        shape = tuple(run.part("data", "image_shape"))
        encoder, recorded = encoder_to_begin_with(source, shape, "float32"), run.part("data").get("init_sha256")
    else:
        return _stage("before", untrained_encoder(run), dataset, sample)
    if recorded not in (None, weights_sha256(encoder)):
        file = source
        if isinstance(source, Run):
            file = source.encoder_file if has_encoder(source) else source.classifier_file
        raise InputError(
            f"{file} is not the encoder that run {run.name!r} began with: restore that one, or leave out --before"
        )
    return _stage("before", encoder, dataset, sample)


def _stage(name: str, encoder: Any, dataset: Dataset, sample: Sample) -> Stage:
    from prl_keras.models.encode import encode
    from prl_keras.prototypes import class_prototypes, prototype_logits

    with console.status(f"Encoding the images ({name})"):
        train, features = encode(encoder, dataset.train.images), encode(encoder, sample.images)
    prototypes, _ = class_prototypes(dataset.train.labels, train, dataset.num_classes)
    logits = np.asarray(prototype_logits(features, prototypes))
    return Stage(name, features, np.asarray(prototypes), *_answers(logits))


def _answers(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted labels and the probability (softmax) that they get."""
    from scipy.special import softmax

    return logits.argmax(axis=-1), softmax(logits, axis=-1).max(axis=-1)


def _write(run: Run, stages: list[Stage], dataset: Dataset, sample: Sample, options: Visualize) -> None:
    from prl_keras.visualization.embeddings import joint_map
    from prl_keras.visualization.figures import plot_maps

    suffix = f"{file_suffix(run, dataset)}-{options.split}"
    shown = shown_classes(sample.labels, dataset.num_classes)
    written, rows, placed = [], [], []
    for stage in stages:
        with console.status(f"t-SNE of {len(sample.labels):,} images ({stage.name})"):
            positions, prototypes = joint_map(stage.features, stage.prototypes, shown, options.seed)
        written.append(_write_projector(run, stage, dataset, sample, shown, f"{stage.name}{suffix}"))
        # as the paper: train and test
        splits = ("train", "test") if options.split == "all" else (options.split,)
        rows.append([_panel(stage, is_kept(run), sample, positions, prototypes, split) for split in splits])
        placed.append((stage, positions))
    title = f"{run.name} on {dataset.label}: t-SNE of the features, one map a row"
    written.append(plot_maps(rows, dataset.class_names, title, run.path / "plots" / f"tsne{suffix}.png"))
    if sample.domains is not None:
        file = run.path / "plots" / f"tsne{suffix}-domains.png"
        written.append(_plot_domains(placed, sample.domains, f"{run.name} on {dataset.label}: t-SNE, by domain", file))
    print_end(written, [tensorboard_command(run.path / "logs")])
    console.print(
        "then open http://localhost:6006/#projector and choose an embedding on the left; "
        'the bookmark at the lower right, "t-SNE, coloured by class", runs t-SNE'
    )


def _plot_domains(placed: list[tuple[Stage, np.ndarray]], domains: np.ndarray, title: str, file: Path) -> Path:
    """All pictures of a stage in one map; its figures are of the domains too."""
    from prl_keras.visualization.embeddings import map_quality
    from prl_keras.visualization.figures import MapPanel, plot_maps

    names, numbers = np.unique(domains.astype(str), return_inverse=True)
    nowhere = np.full((len(names), 2), np.nan)
    panels = [
        MapPanel(
            f"{stage.name} training (n = {len(numbers):,})",
            positions,
            numbers,
            nowhere,
            map_quality(stage.features, numbers, positions),
        )
        for stage, positions in placed
    ]
    return plot_maps([panels], tuple(names.tolist()), title, file)


def _panel(
    stage: Stage, kept: bool, sample: Sample, positions: np.ndarray, prototypes: np.ndarray, split: str
) -> "MapPanel":
    from prl_keras.visualization.embeddings import map_quality
    from prl_keras.visualization.figures import MapPanel

    part = sample.splits == split
    labels, placed = sample.labels[part], positions[part]
    title = f"{'as it is' if kept else f'{stage.name} training'}, {split} (n = {part.sum():,})"
    return MapPanel(title, placed, labels, prototypes, map_quality(stage.features[part], labels, placed))


def _mean_image(split: Split, rows: np.ndarray) -> np.ndarray:
    """uint8; a thousand images at a time."""
    total = sum(split.images[rows[at : at + 1000]].sum(axis=0, dtype="int64") for at in range(0, len(rows), 1000))
    return (total / len(rows)).astype(np.uint8)


def _write_projector(run: Run, stage: Stage, dataset: Dataset, sample: Sample, shown: np.ndarray, name: str) -> Path:
    """The prototypes of the classes shown, with the mean image of their class, then the sampled images."""
    from prl_keras.visualization.figures import class_colours
    from prl_keras.visualization.projector import category_names, write_projector

    names = np.array(category_names(dataset.class_names), object)
    means = [_mean_image(dataset.train, np.flatnonzero(dataset.train.labels == k)) for k in shown]
    labels = np.concatenate([shown, sample.labels])
    no_answer, no_number = ["-"] * len(shown), [""] * len(shown)
    metadata = {
        "class": names[labels],
        "kind": [*["prototype"] * len(shown), *["image"] * len(sample.labels)],
        "split": [*["train"] * len(shown), *sample.splits],
        "predicted": [*no_answer, *names[stage.predicted]],
        "correct": [*no_answer, *np.where(stage.predicted == sample.labels, "yes", "no")],
        "confidence": [*no_number, *(f"{value:.3f}" for value in stage.confidence)],
        "index": [*no_number, *sample.rows],
    }
    if sample.domains is not None:
        named = dict(zip(domains := sorted(set(sample.domains)), category_names(domains), strict=True))
        metadata["domain"] = [*no_answer, *(named[name] for name in sample.domains)]
    return write_projector(
        run.path / "logs" / "projector" / name,
        np.concatenate([stage.prototypes[shown], stage.features]),
        metadata,
        np.concatenate([np.stack(means), sample.images]),
        class_colours(dataset.num_classes)[labels],
        np.arange(len(labels)) < len(shown),
    )
