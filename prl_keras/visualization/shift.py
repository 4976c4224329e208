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


def plot_shift(picture: np.ndarray, place: int, seed: int, figures: dict[str, Any], title: str, file: Path) -> Path:
    """A picture under the 15 corruptions, and accuracy by severity.

    Args:
        picture: (height, width, 3) uint8; place: in its data set; seed: of the corruptions.
        figures: of `evaluation.shift.figures`.
    """
    figure, (left, right) = new_figure(12.5, 6.2, columns=2)
    shown = {"clean": picture}
    shown |= {name: corrupt(picture[None], name, SHOWN, seed, place)[0] for name in NAMES}
    height, width = picture.shape[:2]
    rows = -(-len(shown) // _COLUMNS)
    band, gap = 0.2 * height, 0.05 * width
    for number, (name, image) in enumerate(shown.items()):
        top, start = number // _COLUMNS * (height + band), number % _COLUMNS * (width + gap)
        left.imshow(image, extent=(start, start + width, top + height, top), interpolation="nearest")
        left.text(start + width / 2, top - 0.04 * height, name.replace("_", " "), ha="center", va="bottom", fontsize=8)
    left.set(xlim=(0, _COLUMNS * (width + gap) - gap), ylim=(rows * (height + band) - band, -band), aspect="equal")
    left.set_axis_off()
    left.set_title(f"a test picture at severity {SHOWN}", fontsize=10)
    severities = range(6)
    clean, by_name = figures["clean"]["value"], figures["by_corruption"]
    for group, names in GROUPS.items():
        means = [np.mean([by_name[name][str(severity)]["value"] for name in names]) for severity in severities[1:]]
        right.plot(severities, 100 * np.array([clean, *means]), marker=".", label=group)
    whole = [figures["clean"], *(figures["by_severity"][str(severity)] for severity in severities[1:])]
    value, low, high = (100 * np.array([each[end] for each in whole]) for end in ("value", "low", "high"))
    right.plot(severities, value, color="black", marker=".", linewidth=2, label="all, 95 % over images")
    right.fill_between(severities, low, high, color="black", alpha=0.15, linewidth=0)
    right.set(xlabel="severity, 0: clean", ylabel="test accuracy, %", ylim=(None, 101))
    right.grid(alpha=0.3)
    add_legend(right)
    figure.suptitle(drawable(title, 120), fontsize=11)
    return save_figure(figure, file)
