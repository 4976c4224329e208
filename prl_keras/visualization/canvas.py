"""New figures, bounded in size, and their files; whatever text a figure has is written as it is."""

import warnings
from pathlib import Path
from typing import Any

from prl_keras.files import atomic_path, make_folder
from prl_keras.visualization.text import font_families

LARGEST = 20.0  # inches of a side


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    """A figure of at most `LARGEST` inches a side, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((min(width, LARGEST), min(height, LARGEST)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def save_figure(figure: Any, file: Path) -> Path:
    """No text is read as a formula or as TeX, whatever the user's matplotlibrc says: class names have dollars."""
    from matplotlib import rc_context
    from matplotlib.text import Text

    make_folder(file.parent)
    for text in figure.findobj(Text):
        text.set(parse_math=False, usetex=False, fontfamily=list(font_families()))
    as_it_is = {"text.parse_math": False, "text.usetex": False, "font.family": list(font_families())}
    with atomic_path(file) as temporary, rc_context(as_it_is), warnings.catch_warnings():  # drawing makes more ticks
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(temporary, dpi=130, bbox_inches="tight")
    return file


def add_legend(axes: Any, **style: Any) -> None:
    """Of what has a label, if anything has."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**style)
