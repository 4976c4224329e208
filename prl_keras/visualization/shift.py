"""What corruptions do to a picture, and to a run's accuracy."""

from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.data.corruptions import corrupt
from prl_keras.data.severities import NAMES
from prl_keras.visualization.canvas import add_legend, new_figure, save_figure
from prl_keras.visualization.text import drawable

SHOWN = 3  # severity of the pictures
GROUPS = {"noise": NAMES[:3], "blur": NAMES[3:7], "weather": NAMES[7:11], "digital": NAMES[11:]}  # as its authors
_COLUMNS = 4


def plot_shift(images: np.ndarray, seed: int, figures: dict[str, Any], title: str, file: Path) -> Path:
    """A picture under the 15 corruptions, and accuracy by severity.

    Args:
        images: (n, height, width, 3) uint8, the first ones of the data set; that which is nearest to a middle grey is
            shown: snow is not seen on white.
        seed: of the corruptions; figures: of `evaluation.shift.figures`.
    """
    figure, (left, right) = new_figure(12.5, 6.2, columns=2)
    _draw_pictures(left, images, seed)
    _draw_accuracies(right, figures)
    figure.suptitle(drawable(title, 120), fontsize=11)
    return save_figure(figure, file)


def _draw_pictures(axes: Any, images: np.ndarray, seed: int) -> None:
    place = int(np.abs(images.mean(axis=(1, 2, 3)) - 128).argmin())
    shown = {"clean": images[place]}
    shown |= {name: corrupt(images[place : place + 1], name, SHOWN, seed, place)[0] for name in NAMES}
    height, width = images.shape[1:3]
    rows = -(-len(shown) // _COLUMNS)
    band, gap = 0.2 * height, 0.05 * width
    for number, (name, image) in enumerate(shown.items()):
        top, start = number // _COLUMNS * (height + band), number % _COLUMNS * (width + gap)
        axes.imshow(image, extent=(start, start + width, top + height, top), interpolation="nearest")
        axes.text(start + width / 2, top - 0.04 * height, name.replace("_", " "), ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(0, _COLUMNS * (width + gap) - gap), ylim=(rows * (height + band) - band, -band), aspect="equal")
    axes.set_axis_off()
    axes.set_title(f"a test picture at severity {SHOWN}", fontsize=10)


def _draw_accuracies(axes: Any, figures: dict[str, Any]) -> None:
    severities = range(6)
    clean, by_name = figures["clean"]["value"], figures["by_corruption"]
    for group, names in GROUPS.items():
        means = [np.mean([by_name[name][str(severity)]["value"] for name in names]) for severity in severities[1:]]
        axes.plot(severities, 100 * np.array([clean, *means]), marker=".", label=group)
    whole = [figures["clean"], *(figures["by_severity"][str(severity)] for severity in severities[1:])]
    value, low, high = (100 * np.array([each[end] for each in whole]) for end in ("value", "low", "high"))
    axes.plot(severities, value, color="black", marker=".", linewidth=2, label="all, 95 % over images")
    axes.fill_between(severities, low, high, color="black", alpha=0.15, linewidth=0)
    axes.set(xlabel="severity, 0: clean", ylabel="test accuracy, %", ylim=(None, 101))
    axes.grid(alpha=0.3)
    add_legend(axes)
