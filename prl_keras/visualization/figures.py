"""PNG figures of a run: learning curves and confusion matrix. Imports `runs`; Matplotlib inside."""

from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.runs import Run, atomic_path


def save_figure(figure: Any, file: Path) -> Path:
    file.parent.mkdir(exist_ok=True)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=130, bbox_inches="tight")
    return file


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


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
