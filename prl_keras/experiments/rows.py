"""One row of the table: the runs that it is made of, and what they say together."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.data.splits import SPLITS
from prl_keras.evaluation import statistics
from prl_keras.evaluation.choice import LEVEL
from prl_keras.experiments.cells import Replicate, encoder_run, row_run
from prl_keras.experiments.checks import read_predictions
from prl_keras.experiments.table import ENCODERS, Row
from prl_keras.recipes import VIEWS
from prl_keras.runs import Run


@dataclass(frozen=True)
class Comparison:
    """A row minus another on the same images and seeds. The p-values are corrected for the number of rows.

    low, high: 95 % interval over seeds, of this pair alone. A difference is `significant` if it holds over test images
    and over seeds; one seed cannot say the second.
    """

    difference: float
    low: float | None
    high: float | None
    p_images: float
    p_seeds: float | None

    @property
    def over_images(self) -> bool:
        return self.p_images < LEVEL

    @property
    def significant(self) -> bool:
        return self.over_images and self.p_seeds is not None and self.p_seeds < LEVEL


@dataclass(frozen=True, eq=False)
class RowFigures:
    """One row: its runs, a replicate each, and what they say. Accuracies are 0..1.

    correct: (seeds, n) right or wrong on test; confusion: (classes, classes), summed over the runs.
    """

    row: Row
    runs: list[Run]
    accuracy: dict[str, dict[str, Any]]  # split -> statistics.mean_over_seeds, and "values"
    correct: np.ndarray
    over_images: dict[str, float]
    confusion: np.ndarray
    calibration: dict[str, Any]  # of all runs together; "eces" of each
    cost: dict[str, float]  # mean over the runs: images, passes, seconds
    maximum: dict[str, Any] | None  # paper protocol: the best epoch on test
    against: dict[str, Comparison] = field(default_factory=dict)

    @property
    def per_class(self) -> np.ndarray:
        """(classes,) recall on test; NaN for a class without test images."""
        with np.errstate(invalid="ignore"):
            return np.diag(self.confusion) / self.confusion.sum(axis=1)

    @property
    def by_class(self) -> dict[str, Any]:
        """`statistics.class_figures` of test, all runs together."""
        return statistics.class_figures(np.diag(self.confusion), self.confusion.sum(axis=1))


def read_row(row: Row, folder: Path, repeated: list[Replicate]) -> RowFigures:
    runs = [row_run(folder, row, replicate) for replicate in repeated]
    results = [run.result for run in runs]
    answers = [read_predictions(run) for run in runs]
    labels = answers[0]["test_labels"]
    predicted = [answer["test_logits"].argmax(axis=-1) for answer in answers]
    classes = answers[0]["test_logits"].shape[1]
    correct = np.stack([p == labels for p in predicted])
    accuracy = {}
    for split in SPLITS:
        values = [result["accuracy"][split]["value"] for result in results]
        accuracy[split] = {**statistics.mean_over_seeds(values), "values": values}
    all_logits = np.concatenate([answer["test_logits"] for answer in answers])
    calibration = statistics.calibration(all_logits, np.tile(labels, len(runs)))
    calibration["eces"] = [statistics.calibration(a["test_logits"], labels)["ece"] for a in answers]
    return RowFigures(
        row,
        runs,
        accuracy,
        correct,
        statistics.interval_over_images(correct),
        sum(statistics.confusion_matrix(p, labels, classes) for p in predicted),
        calibration,
        _mean([_cost(row, run, folder, r) for run, r in zip(runs, repeated, strict=True)]),
        _maximum(results),
    )


def _maximum(results: list[dict[str, Any]]) -> dict[str, Any] | None:
    if any("maximum_over_epochs_on_test" not in result for result in results):
        return None
    values = [result["maximum_over_epochs_on_test"]["value"] for result in results]
    return {**statistics.mean_over_seeds(values), "values": values}


def _cost(row: Row, run: Run, folder: Path, replicate: Replicate) -> dict[str, float]:
    """Images drawn, the encoder's forward passes on training images, seconds of the training epochs.

    An encoder's pre-training counts in full for each of its rows.
    """
    n = run.result["accuracy"]["train"]["n"]
    epochs = run.result["epochs"]
    once = row.freeze or not epochs  # frozen: encoded once
    cost = {"images": n * max(epochs, 1), "passes": n if once else n * epochs, "seconds": run.result["seconds"]}
    if row.source in ENCODERS:
        source = encoder_run(folder, row.source, replicate)
        options, result = source.part("options"), source.result
        drawn = result["epochs"] * (n // options["batch_size"]) * options["batch_size"]
        views = 2 if options["variant"] in VIEWS else 1
        cost["images"] += drawn
        cost["passes"] += views * drawn
        cost["seconds"] += result["seconds"]
    return cost


def _mean(costs: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([cost[key] for cost in costs])) for key in costs[0]}
