"""What the page of a run shows, section by section, as plain values for JSON. Pictures are numbers of the gallery."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from prl_keras.data import Dataset
from prl_keras.data.splits import SPLITS
from prl_keras.evaluation.answers import Answers
from prl_keras.evaluation.extremes import nearest_pictures
from prl_keras.evaluation.reject import area_under_risk, coverage_curve, thresholds
from prl_keras.evaluation.statistics import calibration, confusion_matrix
from prl_keras.reports.gallery import Gallery
from prl_keras.visualization.confusion import most_confused

NEIGHBOURS = 6
_POINTS = 300  # of a curve
_NAMES = 500_000  # characters of file names
_CURVES = {
    "loss": {"loss": "train", "val_loss": "validation", "chance_loss": "chance", "least_loss": "least possible"},
    "accuracy": {
        "accuracy": "train",
        "val_accuracy": "validation",
        "val_prototype_accuracy": "validation, nearest prototype",
        "val_knn_accuracy": "validation, kNN",
        "test_accuracy": "test (chooses nothing)",
    },
    "effective rank of the embeddings": {"val_effective_rank": "validation"},
    "spread within classes": {"val_class_spread": "validation"},
}
_IN_A_BATCH = {"accuracy": "train, in its batch", "val_accuracy": "validation, in its batch"}


def pictures(
    dataset: Dataset, gallery: Gallery, features: dict[str, np.ndarray], answers: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Of each picture: split, row, label, the two likeliest classes with their probabilities, and its neighbours.

    Neighbours are the training pictures of the gallery that are most like it.

    Args:
        features: of each split (n, dim); answers: of each split probabilities (n, classes), from a model that has not
            seen the picture.
    """
    parts = {split: gallery.of(split) for split in SPLITS}
    labels = np.concatenate([getattr(dataset, split).labels[rows] for split, rows in parts.items()])
    probabilities = np.concatenate([answers[split][rows] for split, rows in parts.items()])
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    shares = np.take_along_axis(probabilities, order, axis=1)
    vectors = np.concatenate([features[split][rows] for split, rows in parts.items()])
    itself = np.where(gallery.splits == 0, np.arange(len(vectors)), -1)  # train comes first in a gallery
    near, similarity = nearest_pictures(vectors, vectors[: len(parts["train"])], NEIGHBOURS, itself)
    return {
        "split": gallery.splits.tolist(),
        "row": gallery.rows.tolist(),
        "label": labels.tolist(),
        "predicted": order[:, 0].tolist(),
        "confidence": _thousandths(shares[:, 0]),
        "second": order[:, 1].tolist(),
        "second_confidence": _thousandths(shares[:, 1]),
        "neighbours": near.tolist(),
        "similarity": np.rint(100 * similarity).astype(int).tolist(),
    }


def file_names(dataset: Dataset, gallery: Gallery, first: Sequence[int]) -> dict[int, str]:
    """Of as many pictures as half a million characters hold, those that are named in `first` before others."""
    names: dict[int, str] = {}
    left = _NAMES
    for number in dict.fromkeys([*first, *range(len(gallery.rows))]):
        files = getattr(dataset, SPLITS[gallery.splits[number]]).files
        name = "" if files is None else str(files[gallery.rows[number]])
        left -= len(name)
        if left < 0:
            break
        if name:
            names[int(number)] = name
    return names


def curves(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Charts of metrics.jsonl: name, epochs and series; what was never measured is left out."""
    charts = []
    pretrained = any("val_prototype_accuracy" in line for line in lines)
    for name, keys in _CURVES.items():
        keys = keys | ({key: _IN_A_BATCH[key] for key in keys if key in _IN_A_BATCH} if pretrained else {})
        columns = {key: [_number(line.get(key)) for line in lines] for key in keys}
        series = [
            {"name": keys[key], "values": values, "dashed": key in ("chance_loss", "least_loss")}
            for key, values in columns.items()
            if any(value is not None for value in values)
        ]
        if series:
            charts.append({"name": name, "epochs": [line["epoch"] for line in lines], "series": series})
    return charts


def confusions(answers: Answers, labels: np.ndarray, num_classes: int) -> dict[str, Any]:
    """The matrix of test, rows true; of many classes the rows and columns that are taken for each other most."""
    matrix = confusion_matrix(answers.test.argmax(axis=1), labels, num_classes)
    chosen = most_confused(matrix)
    return {"classes": chosen.tolist(), "counts": matrix[np.ix_(chosen, chosen)].tolist()}


def calibration_chart(answers: Answers, labels: np.ndarray) -> dict[str, Any]:
    """`statistics.calibration` of test in 10 bins."""
    with np.errstate(divide="ignore"):
        return calibration(np.log(answers.test), labels, bins=10)


def reject_chart(answers: Answers, labels: np.ndarray, choose_on_validation: bool) -> dict[str, Any]:
    """Risk and coverage on test, and the thresholds that validation chooses, if it was not trained on."""
    confidence, correct = answers.test.max(axis=1), answers.test.argmax(axis=1) == labels
    coverage, accuracy = coverage_curve(confidence, correct)
    kept = np.unique(np.linspace(0, len(coverage) - 1, _POINTS).astype(int))
    chosen = thresholds(answers.validation.max(axis=1), confidence, correct) if choose_on_validation else []
    return {
        "coverage": _rounded(coverage[kept]),
        "accuracy": _rounded(accuracy[kept]),
        "aurc": area_under_risk(coverage, accuracy),
        "thresholds": chosen,
    }


def _thousandths(values: np.ndarray) -> list[int]:
    return np.rint(1000 * values).astype(int).tolist()


def _rounded(values: np.ndarray) -> list[float]:
    return np.round(values, 4).tolist()


def _number(value: Any) -> float | None:
    """JSON has no infinity: what is none is not drawn."""
    finite = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if finite else None
