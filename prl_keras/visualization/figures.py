"""PNG figures of a run: learning curves, confusion matrix, maps. Imports `runs`; Matplotlib inside."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.runs import Run, atomic_path


def save_figure(figure: Any, file: Path) -> Path:
    file.parent.mkdir(exist_ok=True)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=130, bbox_inches="tight")
    return file


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def plot_training(run: Run) -> Path:
    """Loss (with its chance level, if known) and accuracies over the epochs -> plots/training.png."""
    lines = run.metrics
    epochs = [line["epoch"] for line in lines]
    figure, (left, right) = new_figure(10, 3.8, columns=2)
    names = {"loss": "train", "val_loss": "validation"}
    for key, label in names.items():
        if key in lines[0]:
            left.plot(epochs, [line[key] for line in lines], marker=".", label=label)
    if "chance_loss" in lines[0]:
        left.axhline(lines[0]["chance_loss"], color="grey", linestyle="--", label="chance")
    left.set(xlabel="epoch", ylabel="loss", title=f"{run.name}: loss", ylim=(0, None))
    names = {
        "accuracy": "train, in its batch",
        "val_accuracy": "validation, in its batch",
        "val_prototype_accuracy": "validation, nearest prototype",
    }
    if "val_prototype_accuracy" not in lines[0]:
        names = {"accuracy": "train", "val_accuracy": "validation"}
    for key, label in names.items():
        if key in lines[0]:
            right.plot(epochs, [100 * line[key] for line in lines], marker=".", label=label)
    right.set(xlabel="epoch", ylabel="accuracy, %", title="accuracy", ylim=(None, 101))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    return save_figure(figure, run.path / "plots" / "training.png")


def plot_confusion(matrix: np.ndarray, class_names: tuple[str, ...], title: str, file: Path) -> Path:
    """Row-normalised confusion matrix with counts."""
    size = max(5.0, 0.55 * len(class_names) + 1.5)
    figure, axes = new_figure(size + 1, size)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(class_names) <= 30:
        axes.set_xticks(range(len(class_names)), class_names, rotation=60, ha="right")
        axes.set_yticks(range(len(class_names)), class_names)
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if share[row, column] > 0.5 else "black"
            if count:
                axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return save_figure(figure, file)


@dataclass(frozen=True, eq=False)
class MapPanel:
    """One panel: positions (n, 2), labels (n,), prototypes' positions (classes, 2), figures below the title."""

    title: str
    positions: np.ndarray
    labels: np.ndarray
    prototypes: np.ndarray
    quality: dict[str, float | None]


def class_colours(num_classes: int) -> np.ndarray:
    """(classes, 3) uint8. Up to ten classes look as in TensorBoard's projector; more than 20 are hard to tell apart."""
    from matplotlib import colormaps

    if num_classes <= 10:  # the projector walks through the same ten colours in steps of three
        colours = colormaps["tab10"](np.arange(num_classes) * 3 % 10)
    elif num_classes <= 20:
        colours = colormaps["tab20"](np.arange(num_classes))
    else:
        colours = colormaps["hsv"](np.arange(num_classes) / num_classes)
    return np.rint(255 * colours[:, :3]).astype(np.uint8)


def plot_maps(rows: list[list[MapPanel | None]], class_names: tuple[str, ...], title: str, file: Path) -> Path:
    """Maps side by side; square, all axes of a row alike, one legend. None leaves a place empty."""
    colours = class_colours(len(class_names)) / 255
    figure, grid = new_figure(4.6 * len(rows[0]) + 1.8, 4.9 * len(rows) + 0.4, len(rows[0]), len(rows))
    for axes_row, panels in zip(np.reshape(grid, (len(rows), -1)), rows, strict=True):
        limit = 1.05 * max(float(np.abs(panel.positions).max(initial=1e-3)) for panel in panels if panel)
        for axes, panel in zip(axes_row, panels, strict=True):
            if panel is None:
                axes.set_axis_off()
                continue
            axes.scatter(*panel.positions.T, s=7, c=colours[panel.labels], linewidths=0)
            axes.scatter(*panel.prototypes.T, s=150, c=colours, marker="*", edgecolors="black", linewidths=0.8)
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")
            axes.set_title(f"{panel.title}\n{_quality_text(panel.quality)}", fontsize=9)
    figure.suptitle(title, fontsize=11)
    if len(class_names) <= 20:
        from matplotlib.lines import Line2D

        style = {"linestyle": "", "marker": "o", "markersize": 5}
        handles = [Line2D([], [], color=c, label=n, **style) for c, n in zip(colours, class_names, strict=True)]
        handles.append(
            Line2D([], [], linestyle="", marker="*", color="white", markeredgecolor="black", label="prototype")
        )
        figure.legend(handles=handles, loc="outside right center", fontsize=9, frameon=False)
    return save_figure(figure, file)


def _quality_text(quality: dict[str, float | None]) -> str:
    formats = {
        "silhouette": ("silhouette {:.2f}", 1),
        "knn_accuracy": ("10-NN accuracy {:.1f} %", 100),
        "trustworthiness": ("trustworthiness {:.3f}", 1),
    }
    return ", ".join(formats[k][0].format(v * formats[k][1]) for k, v in quality.items() if v is not None)
