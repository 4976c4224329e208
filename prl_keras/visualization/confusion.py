"""Confusion matrices as pictures; of many classes only those that are taken for each other most."""

from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.visualization.canvas import new_figure, save_figure
from prl_keras.visualization.text import class_labels, drawable

MOST_CLASSES = 30  # more names and counts than that cannot be read
_NO_IMAGES = "0.85"  # grey


def plot_confusion(matrix: np.ndarray, class_names: tuple[str, ...], title: str, file: Path, figures: str = "") -> Path:
    """Counts (true, predicted), coloured by the share of the true class; at most 12 inches a side.

    Args:
        figures: a line below the title.
    """
    chosen = most_confused(matrix)
    size = float(np.clip(0.55 * len(chosen) + 1.5, 5, 11))
    figure, axes = new_figure(size + 1, size)
    image = draw_confusion(axes, matrix, class_names, chosen, 0.75 * size)
    lines = [drawable(line) for line in (title, figures) if line]
    axes.set_title("\n".join([*lines, *left_out(len(chosen), len(matrix))]), fontsize=11)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return save_figure(figure, file)


def most_confused(matrix: np.ndarray, most: int = MOST_CLASSES) -> np.ndarray:
    """Ascending classes: all, or those of the pairs that are taken for each other most often."""
    classes = len(matrix)
    if classes <= most:
        return np.arange(classes)
    pairs = np.triu(matrix + matrix.T, 1)
    first, second = np.unravel_index(np.argsort(-pairs, axis=None, kind="stable")[: classes * most], pairs.shape)
    found = dict.fromkeys(int(k) for pair in zip(first, second, strict=True) for k in pair if pairs[pair])
    return np.sort(list(found | dict.fromkeys(range(classes)))[:most])


def left_out(shown: int, classes: int) -> list[str]:
    """A line below the title; none if all are shown."""
    return [] if shown == classes else [f"the {shown} of {classes:,} classes that are taken for each other most"]


def draw_confusion(
    axes: Any,
    matrix: np.ndarray,
    class_names: tuple[str, ...],
    chosen: np.ndarray,
    inches: float,
    percent: bool = False,
) -> Any:
    """Draw the chosen classes' rows and columns with counts, or with percent of the true class.

    Args:
        matrix: (classes, classes) counts, rows true; a class without images is grey.
        inches: about the width of the matrix, for the size of what is written into it.
    """
    from matplotlib import colormaps

    totals = matrix.sum(axis=1, keepdims=True)
    inner = np.ix_(chosen, chosen)
    share = np.where(totals > 0, matrix / np.maximum(totals, 1), np.nan)[inner]
    texts = np.where(share >= 0.005, np.char.mod("%.0f", 100 * share), "") if percent else matrix[inner].astype(str)
    image = axes.imshow(share, cmap=colormaps["Blues"].with_extremes(bad=_NO_IMAGES), vmin=0, vmax=1)
    names = [class_labels(class_names)[k] for k in chosen]
    axes.set_xticks(range(len(chosen)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(chosen)), names, fontsize=8)
    size = min(8.0, 72 * inches / len(chosen) / (0.7 * max(np.char.str_len(texts).max(), 2)))
    for (row, column), text in np.ndenumerate(texts):
        if text not in ("", "0"):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true")
    return image
