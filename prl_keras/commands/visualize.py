"""`python main.py visualize`: a run's representations in TensorBoard's projector and as t-SNE pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.commands.common import (
    console,
    data_request_of_run,
    open_data,
    print_end,
    tensorboard_command,
    warn_of_seen,
)
from prl_keras.commands.continuing import recorded_options
from prl_keras.commands.finetune import check_encoder
from prl_keras.config import Baseline, Pretrain, RunDataOptions, Visualize
from prl_keras.data import Dataset
from prl_keras.errors import InputError
from prl_keras.runs import Run, find_run, has_classifier, has_encoder
from prl_keras.startup import start_keras

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Sample:
    """The images to look at: (n, height, width, 3) uint8, labels (n,), split and row of each."""

    images: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class Stage:
    """One encoder's view: features (n, dim), prototypes (classes, dim), predicted labels and confidence (n,)."""

    name: str
    features: np.ndarray
    prototypes: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray


def run(options: Visualize) -> None:
    if not 0 <= options.seed < 2**32:
        raise InputError(f"--seed is {options.seed}; expected a whole number from 0 to {2**32 - 1}")
    if options.samples_per_class < 2:
        raise InputError(f"--samples-per-class is {options.samples_per_class}; expected at least 2")
    run = find_run(options.run, options.runs_dir, lambda run: has_encoder(run) or has_classifier(run), "finished run")
    if options.before and run.result is not None and run.result.get("encoder_frozen"):
        source = run.result["encoder_run"]
        raise InputError(f"run {run.name!r} left its encoder as it was: use `visualize {source} --before`")
    request = data_request_of_run(run, RunDataOptions(dataset=options.dataset, data_dir=options.data_dir))
    dataset = open_data(request, run)
    check_encoder(tuple(run.part("data")["image_shape"]), dataset, run.name)
    warn_of_seen(run, dataset)
    sample = draw_sample(dataset, options)
    start_keras(run.part("options", "seed"))
    stages = [_after(run, dataset, sample)]
    if options.before:
        stages.insert(0, _before(run, dataset, sample, options.runs_dir))
    _write(run, stages, dataset, sample, options)


def draw_sample(dataset: Dataset, options: Visualize) -> Sample:
    """At most `samples_per_class` images of each class and split, drawn by seed."""
    chosen = SPLITS if options.split == "all" else (options.split,)
    parts = []
    for split_name in chosen:
        split = getattr(dataset, split_name)
        order = np.random.default_rng((options.seed, SPLITS.index(split_name))).permutation(len(split))
        per_class = [order[split.labels[order] == k][: options.samples_per_class] for k in range(dataset.num_classes)]
        rows = np.sort(np.concatenate(per_class))
        parts.append((split.images[rows], split.labels[rows], np.full(len(rows), split_name), rows))
    return Sample(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _after(run: Run, dataset: Dataset, sample: Sample) -> Stage:
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_encoder, load_model

    stage = _stage("after", load_encoder(run), dataset, sample)
    if not has_classifier(run) or run.part("data")["class_names"] != list(dataset.class_names):
        return stage
    logits = encode(load_model(run.classifier_file), sample.images)
    return Stage(stage.name, stage.features, stage.prototypes, *_answers(logits))


def _before(run: Run, dataset: Dataset, sample: Sample, runs_dir: Path) -> Stage:
    """The encoder that a fine-tuned run started from; for other runs the same network with its first weights."""
    from prl_keras.models.storage import load_encoder

    command = run.part("command")
    if command == "finetune":
        encoder = load_encoder(find_run(run.result["encoder_run"], runs_dir, has_encoder, "pre-trained encoder"))
    else:
        encoder = _untrained(run, dataset)
    return _stage("before", encoder, dataset, sample)


def _untrained(run: Run, dataset: Dataset) -> Any:
    """Built as in training, after the same seed, so the weights are those that training began with."""
    from prl_keras.models import mlp_encoder, resnet18
    from prl_keras.training.recipes import build_pretrainer

    start_keras(run.part("options", "seed"))
    if run.part("command") == "pretrain":
        options = recorded_options(run, Pretrain)
        return build_pretrainer(options, dataset.image_shape, len(run.part("data")["class_names"])).encoder
    options = recorded_options(run, Baseline)
    if options.model == "pca":
        raise InputError(f"run {run.name!r} is a PCA, which has no state before training: leave out --before")
    return mlp_encoder(dataset.image_shape) if options.model == "mlp" else resnet18(dataset.image_shape, options.stem)


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
    from prl_keras.visualization.embeddings import map_quality, tsne_map
    from prl_keras.visualization.figures import MapPanel, plot_maps

    stem = "" if dataset.name == run.part("data")["request"]["name"] else f"-{dataset.name.replace(':', '-')}"
    suffix = f"{stem}-{options.split}"
    written, rows = [], []
    for stage in stages:
        with console.status(f"t-SNE of {len(sample.labels):,} images ({stage.name})"):
            positions = tsne_map(np.concatenate([stage.features, stage.prototypes]), options.seed)
        written.append(_write_projector(run, stage, dataset, sample, f"{stage.name}{suffix}"))
        panels = []
        for split in SPLITS:
            part = sample.splits == split
            if (split == "validation" and options.split == "all") or not part.any():
                continue  # as the paper: train and test
            placed = positions[: len(part)][part]
            quality = map_quality(stage.features[part], sample.labels[part], placed)
            panels.append(
                MapPanel(
                    f"{stage.name} training, {split} (n = {part.sum():,})",
                    placed,
                    sample.labels[part],
                    positions[len(part) :],
                    quality,
                )
            )
        rows.append(panels)
    title = f"{run.name} on {dataset.name}: t-SNE of the features, one map a row"
    written.append(plot_maps(rows, dataset.class_names, title, run.path / "plots" / f"tsne{suffix}.png"))
    print_end(written, [tensorboard_command(run.path / "logs")])
    console.print(
        "then open http://localhost:6006/#projector and choose an embedding on the left; "
        'the bookmark at the lower right, "t-SNE, coloured by class", runs t-SNE'
    )


def _write_projector(run: Run, stage: Stage, dataset: Dataset, sample: Sample, name: str) -> Path:
    """The class prototypes, shown as the mean image of their class, then the sampled images."""
    from prl_keras.visualization.figures import class_colours
    from prl_keras.visualization.projector import write_projector

    # A name that is a number would make TensorBoard colour by a scale.
    names = np.array([f"class {name}" if name.isdecimal() else name for name in dataset.class_names], object)
    classes = np.arange(dataset.num_classes)
    means = [dataset.train.images[dataset.train.labels == k].mean(axis=0).astype(np.uint8) for k in classes]
    labels = np.concatenate([classes, sample.labels])
    no_answer = [""] * len(classes)
    metadata = {
        "class": names[labels],
        "kind": [*["prototype"] * len(classes), *["image"] * len(sample.labels)],
        "split": [*["train"] * len(classes), *sample.splits],
        "predicted": [*no_answer, *names[stage.predicted]],
        "correct": [*no_answer, *np.where(stage.predicted == sample.labels, "yes", "no")],
        "confidence": [*no_answer, *(f"{value:.3f}" for value in stage.confidence)],
        "index": [*no_answer, *sample.rows],
    }
    return write_projector(
        run.path / "logs" / "projector" / name,
        np.concatenate([stage.prototypes, stage.features]),
        metadata,
        np.concatenate([np.stack(means), sample.images]),
        class_colours(dataset.num_classes)[labels],
        np.arange(len(labels)) < len(classes),
    )
