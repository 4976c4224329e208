"""t-SNE of train and test features of the table's encoders. Imports `training.recipes`, `models`, `visualization`."""

from pathlib import Path

import keras
import numpy as np

from prl_keras.config import Pretrain
from prl_keras.data import Dataset, Split
from prl_keras.experiments.analysis import Analysis
from prl_keras.experiments.table import ENCODERS, TITLES, encoder_run
from prl_keras.models.encode import encode
from prl_keras.models.storage import load_encoder
from prl_keras.prototypes import class_prototypes
from prl_keras.runs import Run, atomic_path
from prl_keras.visualization.embeddings import map_quality, tsne_map
from prl_keras.visualization.figures import MapPanel, plot_maps

PER_CLASS = 100  # of train and of test, as the paper
MOST = 2_000  # of train and of test: with many classes fewer of each
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
    before = next((run for run in runs if run.part("options")["variant"] != "simclr"), runs[0])
    maps = {"untrained": _positions(before, dataset, analysis.folder / "figures" / "untrained.npz", trained=False)}
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
    if file.exists():
        with np.load(file, allow_pickle=False) as content:
            return dict(content)
    encoder = load_encoder(run) if trained else _untrained(run, dataset)
    train, test = (_some(split, dataset.num_classes) for split in (dataset.train, dataset.test))
    features = {"train": encode(encoder, train.images), "test": encode(encoder, test.images)}
    prototypes = np.asarray(class_prototypes(train.labels, features["train"], dataset.num_classes)[0])
    positions = tsne_map(np.concatenate([features["train"], features["test"], prototypes]))
    ends = np.cumsum([len(train), len(test)])
    content = dict(zip(("train", "test", "prototypes"), np.split(positions, ends), strict=True))
    for name, split in (("train", train), ("test", test)):
        quality = map_quality(features[name], split.labels, content[name])
        content[f"{name}_labels"] = split.labels
        content[f"{name}_quality"] = np.array([np.nan if v is None else v for v in quality.values()])
    with atomic_path(file) as temporary:
        np.savez_compressed(temporary, **content)
    return content


def _some(split: Split, num_classes: int) -> Split:
    count = max(min(PER_CLASS, MOST // num_classes), 1)
    return split.take(np.sort(np.concatenate([np.flatnonzero(split.labels == k)[:count] for k in range(num_classes)])))


def _untrained(run: Run, dataset: Dataset) -> keras.Model:
    from prl_keras.training.recipes import build_pretrainer

    keras.utils.set_random_seed(run.part("options")["seed"])
    return build_pretrainer(Pretrain(**run.part("options")), dataset.image_shape, dataset.num_classes).encoder


def _panel(name: str, content: dict[str, np.ndarray], split: str) -> MapPanel:
    names = ("silhouette", "knn_accuracy", "trustworthiness")
    values = [None if np.isnan(v) else float(v) for v in content[f"{split}_quality"]]
    quality = {key: value for key, value in zip(names, values, strict=True) if key != "trustworthiness"}
    title = TITLES.get(name, "Untrained")
    return MapPanel(title, content[split], content[f"{split}_labels"], content["prototypes"], quality)
