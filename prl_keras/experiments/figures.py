"""The pictures of the report, drawn from an `Analysis`. Imports `visualization.figures`; Matplotlib inside."""

from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.data import Dataset
from prl_keras.experiments.analysis import Analysis, RowFigures
from prl_keras.experiments.table import ENCODERS, SUPERVISED, TITLES, encoder_run
from prl_keras.visualization.figures import new_figure, save_figure

REPORTED = "paper (STL-10, best epoch on 1,000 test images)"


def draw_all(analysis: Analysis, dataset: Dataset, folder: Path) -> dict[str, Path]:
    """Name -> file; a picture that the rows do not allow is left out."""
    folder.mkdir(exist_ok=True)
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
        if axes.lines:
            axes.legend(fontsize=7, loc="lower right")
    return save_figure(figure, file) if sources or ends else None


def _band(axes: Any, metrics: list[list[dict]], key: str, label: str, colour: Any, style: str = "-") -> None:
    """Mean over the runs, and their range."""
    values = 100 * np.array([[line[key] for line in lines] for lines in metrics])
    epochs = [line["epoch"] for line in metrics[0]]
    axes.plot(
        epochs,
        values.mean(axis=0),
        style,
        color=colour,
        linewidth=1.4,
        label=label,
        marker="." if len(epochs) < 3 else "",
    )
    if len(values) > 1:
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)


def _classes(analysis: Analysis, dataset: Dataset, file: Path) -> Path:
    values = 100 * np.stack([f.per_class for f in analysis.rows])
    figure, axes = new_figure(min(4.5 + 0.62 * dataset.num_classes, 18), 0.3 * len(values) + 2)
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    axes.set_yticks(range(len(values)), [f.row.short for f in analysis.rows], fontsize=8)
    if dataset.num_classes <= 40:
        axes.set_xticks(range(dataset.num_classes), dataset.class_names, rotation=45, ha="right", fontsize=8)
    if dataset.num_classes <= 20:
        middle = (values.min() + values.max()) / 2
        for (row, column), value in np.ndenumerate(values):
            colour = "black" if value > middle else "white"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_title("Test accuracy of each class, %", fontsize=10)
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
    for axes, f in zip(np.atleast_1d(grid), shown, strict=True):
        share = 100 * f.confusion / np.maximum(f.confusion.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        if dataset.num_classes <= 30:
            axes.set_xticks(range(dataset.num_classes), dataset.class_names, rotation=60, ha="right", fontsize=8)
            axes.set_yticks(range(dataset.num_classes), dataset.class_names, fontsize=8)
            for (row, column), value in np.ndenumerate(share):
                if value >= 0.5:
                    colour = "white" if value > 50 else "black"
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=7)
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_title(f"{f.row.short}, % of the true class", fontsize=9)
    return save_figure(figure, file)


def _reliability(analysis: Analysis, file: Path) -> Path:
    """At most eight rows: confidence against accuracy."""
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
        label = f"{f.row.short}: ECE {100 * np.mean(f.calibration['eces']):.1f} %"
        axes.plot(*zip(*points, strict=True), marker=".", color=colour, linewidth=1.2, label=label)
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
