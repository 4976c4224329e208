"""trials.csv, the table of the best trials, parallel coordinates and importances. Imports `prl_keras`."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from prl_keras.evaluation.statistics import accuracy_of_count
from prl_keras.runs import atomic_path
from prl_keras.visualization.figures import new_figure, save_figure

HYPERPARAMETERS = ("encoder", "head", "freeze", "learning_rate", "weight_decay", "dropout", "augment")
_LOG = {"learning_rate"}


def with_intervals(rows: list[dict[str, Any]], validation_images: int) -> list[dict[str, Any]]:
    """Adds correct, n and the Wilson interval of each trial's validation accuracy."""
    done = []
    for row in rows:
        if row["val_accuracy"] is not None:
            figure = accuracy_of_count(round(row["val_accuracy"] * validation_images), validation_images)
            row = row | {key: figure[key] for key in ("low", "high", "n")}
        done.append(row)
    return done


def write_csv(rows: list[dict[str, Any]], file: Path) -> Path:
    columns = ["trial", "status", *_used(rows), "val_accuracy", "low", "high", "n", "best_epoch", "seconds"]
    with atomic_path(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return file


def describe(values: dict[str, Any]) -> str:
    """A trial's hyperparameters in words; what is as in the paper (none) is left out."""
    parts = [values["encoder"]] if "encoder" in values else []
    parts += [values["head"], "frozen" if values["freeze"] else "unfrozen", f"lr {values['learning_rate']:.2g}"]
    if values["weight_decay"]:
        parts.append(f"weight decay {values['weight_decay']:g}")
    if values["dropout"]:
        parts.append(f"dropout {values['dropout']:g}")
    if values["augment"] != "none":
        parts.append(f"{values['augment']} augmentation")
    return ", ".join(parts)


def best_table(rows: list[dict[str, Any]], most: int = 10) -> Table:
    table = Table(title="Best trials on validation (chosen on it: an optimistic figure)", title_justify="left")
    table.add_column("trial")
    table.add_column("configuration")
    for column in ("validation", "95 % interval", "epoch"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in [row for row in rows if row["val_accuracy"] is not None][:most]:
        interval = f"{100 * row['low']:.1f} - {100 * row['high']:.1f}"
        figures = [f"{100 * row['val_accuracy']:.1f} %", interval, f"{row['best_epoch']:.0f}"]
        table.add_row(str(int(row["trial"]) + 1), describe(row), *figures)
    return table


def plot_parallel(rows: list[dict[str, Any]], file: Path) -> Path:
    """A line a trial through the values of its hyperparameters; colour and last axis: validation accuracy."""
    from matplotlib import colormaps

    rows = [row for row in rows if row["val_accuracy"] is not None]
    names = _used(rows)
    figure, axes = new_figure(2 + 1.6 * (len(names) + 1), 5)
    scores = np.array([row["val_accuracy"] for row in rows])
    span = (scores - scores.min()) / max(np.ptp(scores), 1e-9)
    columns = [_axis(axes, place, name, [row.get(name) for row in rows]) for place, name in enumerate(names)]
    columns.append(span)
    for place, score in ((0.0, scores.min()), (1.0, scores.max())):
        axes.text(len(names) + 0.06, place, f"{100 * score:.1f} %", va="center", fontsize=8)
    rng = np.random.default_rng(0)  # apart a little, so that equal lines do not hide each other
    for i in np.argsort(scores):
        heights = [column[i] + rng.uniform(-0.015, 0.015) for column in columns]
        axes.plot(range(len(heights)), heights, color=colormaps["viridis"](span[i]), alpha=0.8, linewidth=1.5)
    for place in range(len(columns)):
        axes.axvline(place, color="grey", linewidth=0.8)
    axes.set_xticks(range(len(columns)), [*(name.replace("_", " ") for name in names), "validation\naccuracy"])
    axes.set(yticks=[], xlim=(-0.3, len(names) + 0.5), ylim=(-0.08, 1.08), title=f"{len(rows)} trials")
    axes.spines[:].set_visible(False)
    return save_figure(figure, file)


def plot_importance(rows: list[dict[str, Any]], file: Path, seed: int = 0) -> Path | None:
    """How much a random forest's prediction of the validation accuracy suffers when a column is shuffled.

    None with fewer than 10 trials, too few for a forest.
    """
    rows = [row for row in rows if row["val_accuracy"] is not None]
    if len(rows) < 10:
        return None
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    names = _used(rows)
    table = np.stack([_codes(name, [row.get(name) for row in rows]) for name in names], axis=1)
    scores = 100 * np.array([row["val_accuracy"] for row in rows])
    forest = RandomForestRegressor(500, oob_score=True, random_state=seed).fit(table, scores)
    found = permutation_importance(
        forest, table, scores, n_repeats=30, random_state=seed, scoring="neg_mean_absolute_error"
    )
    order = np.argsort(found.importances_mean)
    figure, axes = new_figure(7, 0.5 * len(names) + 1.8)
    axes.barh(
        [names[i].replace("_", " ") for i in order],
        found.importances_mean[order],
        xerr=found.importances_std[order],
        color="steelblue",
    )
    axes.set_xlabel("points of validation accuracy that the forest loses when the column is shuffled")
    warning = "" if forest.oob_score_ > 0 else ": no better than the mean, so read nothing into this"
    axes.set_title(
        f"permutation importance, {len(rows)} trials; the forest's out-of-bag R² is {forest.oob_score_:.2f}{warning}",
        fontsize=9,
    )
    return save_figure(figure, file)


def _used(rows: list[dict[str, Any]]) -> list[str]:
    return [name for name in HYPERPARAMETERS if any(name in row for row in rows)]


def _codes(name: str, values: list[Any]) -> np.ndarray:
    """Numbers keep their order (the learning rate its logarithm); other values are numbered."""
    if name in _LOG:
        return np.log10(np.array(values, float))
    choices = sorted(set(values))
    return np.array([choices.index(value) for value in values], float)


def _axis(axes: Any, place: int, name: str, values: list[Any]) -> np.ndarray:
    """Heights 0..1 of the values on one axis, with their labels."""
    codes = _codes(name, values)
    low, width = codes.min(), np.ptp(codes)
    heights = (codes - low) / width if width else np.full(len(codes), 0.5)
    labelled = range(len(values)) if name not in _LOG else (codes.argmin(), codes.argmax())
    for height, text in {(round(float(heights[i]), 6), _text(values[i])) for i in labelled}:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}
        axes.text(place + 0.04, height + 0.03, text, fontsize=8, bbox=box, zorder=3)
    return heights


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2g}" if isinstance(value, float) else str(value)
