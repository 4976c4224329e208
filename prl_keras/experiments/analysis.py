"""From finished runs to figures: what the report says is computed here, and nothing else is.

Imports `evaluation.statistics`, `runs`, `checks` and `table`.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.config import Reproduce
from prl_keras.errors import InputError
from prl_keras.evaluation import statistics
from prl_keras.experiments.checks import check_encoder, check_options, check_same_images, read_predictions
from prl_keras.experiments.table import (
    ENCODERS,
    SELF_SUPERVISED,
    SUPERVISED,
    Cell,
    Replicate,
    Row,
    choose_rows,
    encoder_run,
    replicates,
    row_run,
)
from prl_keras.records import read_json
from prl_keras.runs import Run

REFERENCES = (SUPERVISED, SELF_SUPERVISED, "pca")
LEVEL = 0.05
# question, and what in a row's name is replaced by what to get the row that it is compared with
FAMILIES = (
    ("Query against standard", "query-", "standard-"),
    ("Leave-one-out against query", "loo-", "query-"),
    ("With light augmentation against without", "-light", ""),
)


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
        return np.diag(self.confusion) / np.maximum(self.confusion.sum(axis=1), 1)


@dataclass(frozen=True, eq=False)
class Analysis:
    folder: Path
    rows: list[RowFigures]
    replicates: list[Replicate]
    n: int
    labels: dict[str, list[dict[str, Any]]]  # encoder or resnet18 -> a label-efficiency file a replicate
    families: dict[str, list[tuple[str, Comparison]]]  # question -> (row minus row, comparison)

    def row(self, key: str) -> RowFigures | None:
        return next((figures for figures in self.rows if figures.row.key == key), None)


def analyse(options: Reproduce, folder: Path, cells: list[Cell]) -> Analysis:
    """Read every run of the table.

    Raises:
        InputError: a run was made with other options than the table's, from another encoder than the one that is
            there, or on other images than the rest.
    """
    for cell in cells:
        check_options(cell)
        check_encoder(cell)
    repeated = replicates(options)
    rows = [_row(row, folder, repeated) for row in choose_rows(options.rows)]
    check_same_images([run for figures in rows for run in figures.runs])
    for reference in REFERENCES:
        compare_all(rows, reference)
    return Analysis(folder, rows, repeated, rows[0].correct.shape[1], _label_curves(cells), _families(rows))


def _label_curves(cells: list[Cell]) -> dict[str, list[dict[str, Any]]]:
    """A file a replicate, with the sizes that all files have: in a small fold the rarest class has fewer images."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        if cell.labels:
            curves.setdefault(cell.name.rsplit("-", 1)[0], []).append(read_json(cell.labels_file))
    files = [file for group in curves.values() for file in group]
    sizes = [{point["labels_per_class"] for point in file["points"]} for file in files]
    common = set.intersection(*sizes) if sizes else set()
    for file in files:
        file["points"] = [point for point in file["points"] if point["labels_per_class"] in common]
    return curves if common else {}


def _families(rows: list[RowFigures]) -> dict[str, list[tuple[str, Comparison]]]:
    """Pairs of rows that differ in one thing, a family of tests for each question."""
    by_key = {figures.row.key: figures for figures in rows}
    families = {}
    for title, source, other in FAMILIES:
        pairs = [
            (figures, by_key[key.replace(source, other, 1)])
            for key, figures in by_key.items()
            if source in key and ("-light" in source or "-light" not in key) and key.replace(source, other, 1) in by_key
        ]
        if pairs:
            titles = [figures.row.title for figures, _ in pairs]
            families[title] = list(zip(titles, compare_pairs(pairs), strict=True))
    return families


def compare_all(rows: list[RowFigures], reference: str) -> None:
    """Compare every row with the reference row, if it is there; p-values corrected for the number of rows."""
    base = next((figures for figures in rows if figures.row.key == reference), None)
    others = [figures for figures in rows if figures is not base]
    if base is None or not others:
        return
    over_seeds = statistics.compare_with_control([_values(figures) for figures in others], _values(base))
    found = _compare([(figures, base) for figures in others], over_seeds)
    for figures, comparison in zip(others, found, strict=True):
        figures.against[reference] = comparison


def compare_pairs(pairs: list[tuple[RowFigures, RowFigures]]) -> list[Comparison]:
    """One family of comparisons, first minus second of each pair; over seeds by paired t-tests."""
    return _compare(pairs, [statistics.compare_seeds(_values(first), _values(second)) for first, second in pairs])


def _compare(pairs: list[tuple[RowFigures, RowFigures]], over_seeds: list[dict[str, Any]]) -> list[Comparison]:
    """With p-values corrected for the number of pairs."""
    adjusted = iter(statistics.corrected([test["p"] for test in over_seeds if test["p"] is not None]))
    over_seeds = [test | {"p": None if test["p"] is None else next(adjusted)} for test in over_seeds]
    p_images = statistics.corrected([statistics.compare_images(a.correct, b.correct) for a, b in pairs])
    return [
        Comparison(test["difference"], test["low"], test["high"], by_images, test["p"])
        for test, by_images in zip(over_seeds, p_images, strict=True)
    ]


def _values(figures: RowFigures) -> np.ndarray:
    return np.array(figures.accuracy["test"]["values"])


def _row(row: Row, folder: Path, repeated: list[Replicate]) -> RowFigures:
    runs = [row_run(folder, row, replicate) for replicate in repeated]
    results = [run.result for run in runs]
    answers = [read_predictions(run) for run in runs]
    labels = answers[0]["test_labels"]
    if any(len(answer["test_labels"]) != len(labels) for answer in answers):
        raise InputError(f"the runs of {row.key!r} in {folder} were tested on different numbers of images")
    predicted = [answer["test_logits"].argmax(axis=-1) for answer in answers]
    classes = answers[0]["test_logits"].shape[1]
    correct = np.stack([p == labels for p in predicted])
    accuracy = {}
    for split in ("train", "validation", "test"):
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
        views = 2 if options["variant"] in ("simclr", "supcon") else 1
        cost["images"] += drawn
        cost["passes"] += views * drawn
        cost["seconds"] += result["seconds"]
    return cost


def _mean(costs: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([cost[key] for cost in costs])) for key in costs[0]}


def as_json(analysis: Analysis) -> dict[str, Any]:
    """result.json of the table: every figure of the report with the runs that it comes from."""
    rows = []
    for f in analysis.rows:
        rows.append(
            {
                "row": f.row.key,
                "title": f.row.title,
                "paper": f.row.paper
                and dict(zip(("number", "test_percent", "train_percent"), f.row.paper, strict=True)),
                "runs": [run.name for run in f.runs],
                "accuracy": f.accuracy,
                "test_over_images": f.over_images,
                "maximum_over_epochs_on_test": f.maximum,
                "calibration": f.calibration,
                "per_class": f.per_class.tolist(),
                "confusion_rows_true_columns_predicted": f.confusion.tolist(),
                "cost": f.cost,
                "against": {k: {**asdict(c), "significant": c.significant} for k, c in f.against.items()},
            }
        )
    return {
        "test_images": analysis.n,
        "replicates": [r.suffix for r in analysis.replicates],
        "rows": rows,
        "pairs": {
            title: [{"row": name, **asdict(c), "significant": c.significant} for name, c in family]
            for title, family in analysis.families.items()
        },
        "encoders": {run.name: _encoder(run) for run in encoder_runs(analysis)},
        "label_efficiency": analysis.labels,
    }


def encoder_runs(analysis: Analysis) -> list[Run]:
    """Every encoder of the table, a replicate each."""
    names = dict.fromkeys(figures.row.source for figures in analysis.rows if figures.row.head)
    return [encoder_run(analysis.folder, name, replicate) for name in names for replicate in analysis.replicates]


def _encoder(run: Run) -> dict[str, Any]:
    return {key: run.result[key] for key in ("saved_encoder", "seconds", "encoder_sha256")}
