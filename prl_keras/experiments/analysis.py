"""From the rows' figures to what the report says: comparisons, families of tests, result.json."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.config import Reproduce
from prl_keras.evaluation import statistics
from prl_keras.experiments.cells import Cell, Replicate, encoder_run, replicates
from prl_keras.experiments.checks import check_cells, check_same_images, read_labels
from prl_keras.experiments.rows import Comparison, RowFigures, read_row, row_run
from prl_keras.experiments.table import SELF_SUPERVISED, STRONG_OURS, STRONG_SUPERVISED, SUPERVISED, choose_rows
from prl_keras.files import atomic_path
from prl_keras.runs import Run

REFERENCES = (SUPERVISED, SELF_SUPERVISED, STRONG_SUPERVISED, STRONG_OURS, "pca")
CONFUSIONS = "confusion.npz"
# question, and what in a row's name is replaced by what to get the row that it is compared with
FAMILIES = (
    ("Query against standard", "query-", "standard-"),
    ("Leave-one-out against query", "loo-", "query-"),
    ("With light augmentation against without", "-light", ""),
)


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
        InputError: a run does not belong to the table, see `check_cells`, or was tested on other images than the rest.
    """
    check_cells(cells, folder)
    repeated = replicates(options)
    chosen = choose_rows(options.rows)
    check_same_images([row_run(folder, row, replicate) for row in chosen for replicate in repeated])
    rows = [read_row(row, folder, repeated) for row in chosen]
    for reference in REFERENCES:
        compare_all(rows, reference)
    return Analysis(folder, rows, repeated, rows[0].correct.shape[1], _label_curves(cells), _families(rows))


def _label_curves(cells: list[Cell]) -> dict[str, list[dict[str, Any]]]:
    """A file a replicate, with the sizes that all files have: in a small fold the rarest class has fewer images."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        if cell.labels:
            curves.setdefault(cell.name.rsplit("-", 1)[0], []).append(read_labels(cell))
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
    over_seeds = statistics.with_corrected(over_seeds)
    p_images = statistics.corrected([statistics.compare_images(a.correct, b.correct) for a, b in pairs])
    return [
        Comparison(test["difference"], test["low"], test["high"], by_images, test["p"])
        for test, by_images in zip(over_seeds, p_images, strict=True)
    ]


def _values(figures: RowFigures) -> np.ndarray:
    return np.array(figures.accuracy["test"]["values"])


def as_json(analysis: Analysis) -> dict[str, Any]:
    """result.json of the table: every figure of the report with the runs that it comes from.

    Confusions (rows: true class, columns: predicted) stand beside it: a thousand classes would make 200 MB of text.
    """
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
                **f.by_class,  # balanced, and the worst class, of test
                "per_class": [None if np.isnan(recall) else float(recall) for recall in f.per_class],
                "cost": f.cost,
                "against": {k: {**asdict(c), "significant": c.significant} for k, c in f.against.items()},
            }
        )
    return {
        "test_images": analysis.n,
        "replicates": [r.suffix for r in analysis.replicates],
        "rows": rows,
        "confusions": {"file": CONFUSIONS, "arrays": "a row's name: (true class, predicted class), all runs together"},
        "pairs": {
            title: [{"row": name, **asdict(c), "significant": c.significant} for name, c in family]
            for title, family in analysis.families.items()
        },
        "encoders": {run.name: _encoder(run) for run in encoder_runs(analysis)},
        "label_efficiency": analysis.labels,
    }


def write_confusions(analysis: Analysis) -> Path:
    """confusion.npz beside result.json: an array (classes, classes) of counts for each row, by its key."""
    file = analysis.folder / CONFUSIONS
    with atomic_path(file) as temporary:
        np.savez_compressed(temporary, **{f.row.key: f.confusion for f in analysis.rows})
    return file


def encoder_runs(analysis: Analysis) -> list[Run]:
    """Every encoder of the table, a replicate each."""
    names = dict.fromkeys(figures.row.source for figures in analysis.rows if figures.row.head)
    return [encoder_run(analysis.folder, name, replicate) for name in names for replicate in analysis.replicates]


def _encoder(run: Run) -> dict[str, Any]:
    return {key: run.result[key] for key in ("saved_encoder", "seconds", "encoder_sha256")}
