"""t-SNE of train and test features of the table's encoders."""

from contextlib import suppress
from pathlib import Path

import numpy as np

from prl_keras.arrays import read_arrays
from prl_keras.data import Dataset, Split
from prl_keras.experiments.analysis import Analysis
from prl_keras.experiments.cells import encoder_run
from prl_keras.experiments.table import ENCODERS, TITLES
from prl_keras.files import atomic_path
from prl_keras.models.encode import encode
from prl_keras.models.storage import load_encoder
from prl_keras.prototypes import class_prototypes
from prl_keras.runs import Run
from prl_keras.training.untrained import untrained_encoder
from prl_keras.visualization.embeddings import enough, joint_map, map_quality
from prl_keras.visualization.figures import MapPanel, plot_maps
from prl_keras.visualization.sample import balanced_rows, shown_classes

PER_CLASS = 100  # of train and of test, as the paper
COLUMNS = 3


def draw_maps(analysis: Analysis, dataset: Dataset, folder: Path) -> dict[str, Path]:
    """One joint map of train and test for each encoder of the first replicate and for an untrained one.

    Two pictures, train and test, on the same axes. A map is kept in its run's folder (tsne.npz), so that a report
    that is written again does not compute it again.
    """
    used = {f.row.source for f in analysis.rows}
    runs = [encoder_run(analysis.folder, name, analysis.replicates[0]) for name in ENCODERS if name in used]
    if not runs:
        return {}
    before = next((run for run in runs if run.part("options", "variant") != "simclr"), runs[0])
    maps = {"untrained": _positions(before, dataset, before.path / "untrained.npz", trained=False)}
    for run in runs:
        maps[run.name.rsplit("-", 1)[0]] = _positions(run, dataset, run.path / "tsne.npz", trained=True)
    written = {}
    for split in ("train", "test"):
        panels = [_panel(name, content, split) for name, content in maps.items()]
        columns = min(COLUMNS, len(panels))
        panels += [None] * (-len(panels) % columns)
        rows = [panels[at : at + columns] for at in range(0, len(panels), columns)]
        title = f"t-SNE of the encoders' features, {split} images"
        written[f"tsne_{split}"] = plot_maps(rows, dataset.class_names, title, folder / f"tsne_{split}.png")
    return written


def _positions(run: Run, dataset: Dataset, file: Path, trained: bool) -> dict[str, np.ndarray]:
    """Features, positions and labels of train and test, and the prototypes' positions."""
    with suppress(FileNotFoundError, ValueError):  # what is damaged is made again
        return read_arrays(file)
    encoder = load_encoder(run) if trained else untrained_encoder(run)
    train, test = (_some(split) for split in (dataset.train, dataset.test))
    features = {"train": encode(encoder, train.images), "test": encode(encoder, test.images)}
    prototypes = np.asarray(class_prototypes(train.labels, features["train"], dataset.num_classes)[0])
    shown = shown_classes(np.concatenate([train.labels, test.labels]), dataset.num_classes)
    positions, placed = joint_map(np.concatenate([features["train"], features["test"]]), prototypes, shown)
    content = {"train": positions[: len(train)], "test": positions[len(train) :], "prototypes": placed}
    for name, split in (("train", train), ("test", test)):
        quality = map_quality(features[name], split.labels, content[name])
        content[f"{name}_labels"] = split.labels
        content[f"{name}_quality"] = np.array([np.nan if v is None else v for v in quality.values()])
    with atomic_path(file) as temporary:
        np.savez_compressed(temporary, **content)
    return content


def _some(split: Split) -> Split:
    return split.take(balanced_rows(split.labels, PER_CLASS))


def _panel(name: str, content: dict[str, np.ndarray], split: str) -> MapPanel:
    labels = content[f"{split}_labels"]
    allowed = enough(labels)  # maps of old versions have figures of too few images
    values = dict(zip(("silhouette", "knn_accuracy"), content[f"{split}_quality"].tolist(), strict=False))
    quality = {key: value if allowed[key] and np.isfinite(value) else None for key, value in values.items()}
    return MapPanel(TITLES.get(name, "Untrained"), content[split], labels, content["prototypes"], quality)
