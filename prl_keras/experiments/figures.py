"""The pictures of the report, drawn from an `Analysis`."""

from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.data import Dataset
from prl_keras.experiments.analysis import Analysis, RowFigures
from prl_keras.experiments.cells import encoder_run
from prl_keras.experiments.table import ENCODERS, SUPERVISED, TITLES
from prl_keras.files import make_folder
from prl_keras.visualization.canvas import add_legend, new_figure, save_figure
from prl_keras.visualization.confusion import draw_confusion, left_out, most_confused
from prl_keras.visualization.figures import column
from prl_keras.visualization.text import class_labels

MOST_CLASSES = 40  # columns of the picture of classes; more names cannot be read
REPORTED = "paper (STL-10, best epoch on 1,000 test images)"


def draw_all(analysis: Analysis, dataset: Dataset, folder: Path) -> dict[str, Path]:
    """Name -> file; a picture that the rows do not allow is left out."""
    make_folder(folder)
    drawn = {
        "intervals": _intervals(analysis, dataset, folder / "intervals.svg"),
        "curves": _curves(analysis, folder / "curves.svg"),
        "classes": _classes(analysis, dataset, folder / "classes.svg"),
        "confusion": _confusion(analysis, dataset, folder / "confusion.svg"),
        "reliability": _reliability(analysis, folder / "reliability.svg"),
        "labels": _labels(analysis, folder / "labels.svg"),
    }
    return {name: file for name, file in drawn.items() if file}


def _colours(number: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab10"](np.arange(number) % 10)


def _intervals(analysis: Analysis, dataset: Dataset, file: Path) -> Path:
    rows = analysis.rows
    figure, axes = new_figure(10, 0.34 * len(rows) + 1.6)
    base = analysis.row(SUPERVISED)
    if base is not None:
        axes.axvspan(100 * base.over_images["low"], 100 * base.over_images["high"], color="0.92", zorder=0)
    for place, f in enumerate(rows):
        test = f.accuracy["test"]
        low, high = 100 * f.over_images["low"], 100 * f.over_images["high"]
        axes.plot([low, high], [place, place], color="tab:blue", linewidth=5, alpha=0.35, solid_capstyle="butt")
        if test["low"] is not None:
            axes.plot([100 * test["low"], 100 * test["high"]], [place, place], color="tab:blue", linewidth=1.2)
        axes.plot([100 * v for v in test["values"]], [place] * len(f.runs), ".", color="0.35", markersize=4)
        axes.plot(100 * test["mean"], place, "o", color="tab:blue", markersize=6)
        if f.row.paper and dataset.name == "stl10":
            axes.plot(f.row.paper[1], place, "x", color="tab:red", markersize=6)
    shown = [
        100 * value
        for f in rows
        for value in (f.over_images["low"], f.over_images["high"], *f.accuracy["test"]["values"])
    ]
    margin = 0.08 * (max(shown) - min(shown)) + 0.3
    axes.set(xlim=(min(shown) - margin, min(max(shown) + margin, 100.2)), ylim=(len(rows) - 0.4, -0.6))
    axes.set_yticks(range(len(rows)), [f.row.short for f in rows], fontsize=9)
    axes.set_xlabel(f"test accuracy, %  (n = {analysis.n:,} images, {_repeated(analysis)})")
    axes.set_title(
        "Mean (dot), 95 % over test images (band), 95 % over seeds (line, may leave the picture)", fontsize=10
    )
    axes.grid(axis="x", alpha=0.3)
    if dataset.name == "stl10":
        axes.plot([], [], "x", color="tab:red", label=REPORTED)
        axes.legend(loc="lower left", fontsize=8)
    return save_figure(figure, file)


def _repeated(analysis: Analysis) -> str:
    count = len(analysis.replicates)
    folds = analysis.replicates[0].fold is not None
    return f"{count} {'fold' if folds else 'seed'}{'' if count == 1 else 's'}"


def _curves(analysis: Analysis, file: Path) -> Path | None:
    """Validation accuracy by epoch: of the encoders (nearest prototype) and of what is trained end to end."""
    sources = list(dict.fromkeys(f.row.source for f in analysis.rows if f.row.source in ENCODERS))
    ends = [f for f in analysis.rows if not f.row.freeze and all(run.metrics for run in f.runs)]
    figure, (left, right) = new_figure(11, 4.4, columns=2)
    for source, colour in zip(sources, _colours(len(sources)), strict=True):
        runs = [encoder_run(analysis.folder, source, replicate) for replicate in analysis.replicates]
        _band(left, [run.metrics for run in runs], "val_prototype_accuracy", TITLES[source], colour)
    for place, (f, colour) in enumerate(zip(ends, _colours(len(ends)), strict=True)):
        style = "-" if place < 10 else "--" if place < 20 else ":"  # ten colours
        _band(right, [run.metrics for run in f.runs], "val_accuracy", f.row.short, colour, style)
    left.set(title="Pre-training: nearest prototype", xlabel="epoch", ylabel="validation accuracy, %")
    right.set(title="Trained end to end: the classifier", xlabel="epoch", ylabel="validation accuracy, %")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        add_legend(axes, fontsize=7, loc="lower right")
    return save_figure(figure, file) if sources or ends else None


def _band(axes: Any, metrics: list[list[dict]], key: str, label: str, colour: Any, style: str = "-") -> None:
    """Mean over the runs, and their range, of the epochs that were looked at; a gap where a run has no figure, nothing
    if there is none."""
    looked = [all(key in line for line in lines) for lines in zip(*metrics, strict=True)]
    values = 100 * np.array([column(lines, key) for lines in metrics])[:, looked]
    if not np.isfinite(values.mean(axis=0)).any():
        return
    epochs = column(metrics[0], "epoch")[looked]
    marker = "." if len(epochs) < 3 else ""
    axes.plot(epochs, values.mean(axis=0), style, color=colour, linewidth=1.4, label=label, marker=marker)
    if len(values) > 1:
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)


def _classes(analysis: Analysis, dataset: Dataset, file: Path) -> Path:
    """A line a row, a column a class: all of them, or the hardest. Grey: no test images."""
    from matplotlib import colormaps

    values = 100 * np.stack([f.per_class for f in analysis.rows])
    chosen, note = np.arange(values.shape[1]), ""
    if len(chosen) > MOST_CLASSES:
        chosen = np.argsort(values.mean(axis=0), kind="stable")[:MOST_CLASSES]  # NaN last
        note = f"; the {MOST_CLASSES} hardest of {dataset.num_classes:,} classes, hardest first"
    values = values[:, chosen]
    figure, axes = new_figure(4.5 + 0.35 * max(len(chosen), 10), 0.3 * len(values) + 2.5)
    image = axes.imshow(values, cmap=colormaps["viridis"].with_extremes(bad="0.85"), aspect="auto")
    axes.set_yticks(range(len(values)), [f.row.short for f in analysis.rows], fontsize=8)
    names = [class_labels(dataset.class_names)[k] for k in chosen]
    axes.set_xticks(range(len(chosen)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, place), value in np.ndenumerate(values):
        text = "-" if np.isnan(value) else f"{value:.0f}"
        colour = "white" if value <= middle else "black"
        axes.text(place, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_title(f"Test accuracy of each class, %{note}", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return save_figure(figure, file)


def best_on_validation(rows: list[RowFigures]) -> RowFigures:
    return max(rows, key=lambda f: f.accuracy["validation"]["mean"])


def _confusion(analysis: Analysis, dataset: Dataset, file: Path) -> Path:
    """The row that is best on validation, beside the supervised ResNet-18."""
    shown = [best_on_validation(analysis.rows)]
    base = analysis.row(SUPERVISED)
    if base is not None and base is not shown[0]:
        shown.append(base)
    figure, grid = new_figure(6.2 * len(shown), 5.6, columns=len(shown))
    chosen = most_confused(sum(f.confusion for f in shown))
    for axes, f in zip(np.atleast_1d(grid), shown, strict=True):
        draw_confusion(axes, f.confusion, dataset.class_names, chosen, 4.2, percent=True)
        title = [f"{f.row.short}, % of the true class", *left_out(len(chosen), dataset.num_classes)]
        axes.set_title("\n".join(title), fontsize=9)
    return save_figure(figure, file)


def _reliability(analysis: Analysis, file: Path) -> Path | None:
    """At most eight rows: confidence against accuracy. No picture if no bin has images enough."""
    wanted = ("pca", "mlp", "resnet18", "simclr-unfrozen-linear", "standard-frozen-linear", "query-frozen-linear")
    wanted += ("loo-frozen-linear", "supcon-frozen-linear")
    rows = [f for f in analysis.rows if f.row.key in wanted] or analysis.rows[:8]
    figure, axes = new_figure(7.2, 5)
    axes.plot([0, 100], [0, 100], color="0.6", linestyle="--", linewidth=1)
    for f, colour in zip(rows, _colours(len(rows)), strict=True):
        points = [
            (100 * c, 100 * a)
            for c, a, count in zip(*(f.calibration[key] for key in ("confidence", "accuracy", "counts")), strict=True)
            if count >= 20  # fewer say nothing
        ]
        if not points:
            continue
        label = f"{f.row.short}: ECE {100 * np.mean(f.calibration['eces']):.1f} %"
        axes.plot(*zip(*points, strict=True), marker=".", color=colour, linewidth=1.2, label=label)
    if len(axes.lines) == 1:  # the diagonal
        return None
    axes.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 101), ylim=(0, 101))
    axes.set_title("Reliability on test; below the diagonal: overconfident", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return save_figure(figure, file)


def _labels(analysis: Analysis, file: Path) -> Path | None:
    if not analysis.labels:
        return None
    figure, axes = new_figure(7.6, 4.8)
    for (name, files), colour in zip(analysis.labels.items(), _colours(len(analysis.labels)), strict=True):
        sizes = [point["labels_per_class"] for point in files[0]["points"]]
        values = 100 * np.array([[point["test"]["value"] for point in file["points"]] for file in files])
        style = {"linestyle": "--"} if name == SUPERVISED else {}
        axes.plot(sizes, values.mean(axis=0), marker=".", color=colour, label=f"{TITLES[name]} features", **style)
        if len(values) > 1:
            axes.fill_between(sizes, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(sizes, sizes)
    axes.minorticks_off()
    axes.set(xlabel="labels a class for the linear probe", ylabel="test accuracy, %")
    axes.set_title("Linear probe on frozen features (mean and range of the runs)", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return save_figure(figure, file)
