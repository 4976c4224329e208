"""Figures of a run: learning curves and maps of its features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.labels import checked_labels
from prl_keras.runs import Run
from prl_keras.visualization.canvas import add_legend, new_figure, save_figure
from prl_keras.visualization.embeddings import NEIGHBOURS
from prl_keras.visualization.text import class_labels, drawable

MOST_NAMED = 20  # classes in a legend; more colours are hard to tell apart
_IN_BATCH = {"accuracy": "train, in its batch", "val_accuracy": "validation, in its batch"}
_PROTOTYPE = {"val_prototype_accuracy": "validation, nearest prototype"}


def column(lines: list[dict[str, Any]], key: str) -> np.ndarray:
    """(epochs,) float of the lines of metrics.jsonl; NaN where a line says nothing."""
    return np.array([line.get(key) for line in lines], "float64")


def plot_training(run: Run) -> Path:
    """Loss and accuracies over the epochs, with their chance levels if known -> plots/training.png."""
    lines = run.metrics
    figure, (left, right) = new_figure(10, 3.8, columns=2)
    _curves(left, lines, {"loss": "train", "val_loss": "validation"}, 1)
    name = drawable(run.name, 50)
    left.set(xlabel="epoch", ylabel="loss", title=f"{name}: loss", ylim=(0, None))
    pretrained = np.isfinite(column(lines, "val_prototype_accuracy")).any()
    names = _IN_BATCH | _PROTOTYPE if pretrained else {"accuracy": "train", "val_accuracy": "validation"}
    _curves(right, lines, names, 100)
    right.set(xlabel="epoch", ylabel="accuracy, %", title="accuracy", ylim=(None, 101))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        add_legend(axes)
    return save_figure(figure, run.path / "plots" / "training.png")


def _curves(axes: Any, lines: list[dict[str, Any]], names: dict[str, str], scale: float) -> None:
    """What was measured, over the epochs; dashed, the level of chance of each, or one if they are equal."""
    epochs, levels = column(lines, "epoch"), {}
    for key, label in names.items():
        values, chance = scale * column(lines, key), scale * column(lines, f"chance_{key}")
        if not np.isfinite(values).any():
            continue
        looked = [key in line for line in lines]  # an epoch without it is passed over, one that it diverged in is a gap
        (curve,) = axes.plot(epochs[looked], values[looked], marker=".", label=label)
        if np.isfinite(chance).any():
            split, _, how = label.partition(", ")
            levels[split] = float(np.nanmean(chance)), curve.get_color(), how
    if len({level for level, *_ in levels.values()}) == 1:
        level, _, how = next(iter(levels.values()))
        levels = {how: (level, "grey", how)}
    for name, (level, colour, _) in levels.items():
        axes.axhline(level, color=colour, linestyle="--", alpha=0.7, label=f"chance, {name}" if name else "chance")


@dataclass(frozen=True, eq=False)
class MapPanel:
    """One panel: positions (n, 2), labels (n,) or (n, 1), prototypes' positions (classes, 2), figures below the title.

    A prototype at NaN is not drawn.
    """

    title: str
    positions: np.ndarray
    labels: np.ndarray
    prototypes: np.ndarray
    quality: dict[str, float | None]

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", checked_labels(self.labels))


def class_colours(num_classes: int) -> np.ndarray:
    """(classes, 3) uint8. Up to ten classes look as in TensorBoard's projector; more than 20 are hard to tell apart."""
    from matplotlib import colormaps
    from matplotlib.colors import hsv_to_rgb

    k = np.arange(num_classes)
    if num_classes <= 10:  # the projector walks through the same ten colours in steps of three
        colours = colormaps["tab10"](k * 3 % 10)[:, :3]
    elif num_classes <= 20:
        colours = colormaps["tab20"](k)[:, :3]
    else:  # hues a golden section apart, so that neighbours differ
        colours = hsv_to_rgb(np.stack([k * 0.618034 % 1, 0.95 - 0.15 * (k % 4), 0.95 - 0.15 * (k // 4 % 4)], axis=1))
    return np.rint(255 * colours).astype(np.uint8)


def plot_maps(rows: list[list[MapPanel | None]], class_names: tuple[str, ...], title: str, file: Path) -> Path:
    """Maps side by side; square, all axes of a row alike, one legend. None leaves a place empty."""
    colours = class_colours(len(class_names)) / 255
    figure, grid = new_figure(4.6 * len(rows[0]) + 1.8, 4.9 * len(rows) + 0.4, len(rows[0]), len(rows))
    star = max(150 * min(1, MOST_NAMED / len(class_names)), 10)
    for axes_row, panels in zip(np.reshape(grid, (len(rows), -1)), rows, strict=True):
        limit = 1.05 * max(float(np.abs(panel.positions).max(initial=1e-3)) for panel in panels if panel)
        for axes, panel in zip(axes_row, panels, strict=True):
            if panel is None:
                axes.set_axis_off()
                continue
            axes.scatter(*panel.positions.T, s=7, c=colours[panel.labels], linewidths=0)
            width = 0.8 if star > 50 else 0.3
            axes.scatter(*panel.prototypes.T, s=star, c=colours, marker="*", edgecolors="black", linewidths=width)
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")
            axes.set_title(f"{drawable(panel.title, 60)}\n{_quality_text(panel.quality)}", fontsize=9)
    unnamed = len(class_names) > MOST_NAMED
    note = f"\n{len(class_names):,} classes: too many to name, and some colours are nearly alike" if unnamed else ""
    figure.suptitle(f"{drawable(title, 120)}{note}", fontsize=11)
    if not unnamed:
        _name_classes(figure, colours, class_names)
    return save_figure(figure, file)


def _name_classes(figure: Any, colours: np.ndarray, class_names: tuple[str, ...]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="", marker="o", markersize=5, color=colour) for colour in colours]
    handles.append(Line2D([], [], linestyle="", marker="*", color="white", markeredgecolor="black"))
    names = [*class_labels(class_names, 30), "prototype"]
    legend = figure.legend(handles, [""] * len(names), loc="outside right center", fontsize=9, frameon=False)
    for text, name in zip(legend.get_texts(), names, strict=True):  # as a label "_name" would be hidden
        text.set_text(name)


def _quality_text(quality: dict[str, float | None]) -> str:
    formats = {
        "silhouette": ("silhouette {:.2f}", 1),
        "knn_accuracy": (f"{NEIGHBOURS}-NN accuracy {{:.1f}} %", 100),
        "trustworthiness": ("trustworthiness {:.3f}", 1),
    }
    return ", ".join(formats[k][0].format(v * formats[k][1]) for k, v in quality.items() if v is not None)
