"""Figures of an epoch as aligned cells: which fit into a line, and how each is written. Pure functions."""

import math
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prl_keras.screen.pace import duration

GAP = "  "

# What a figure may look like, the form that is preferred first.
_FORMS: dict[str, Callable[[float], tuple[str, ...]]] = {
    "loss": lambda x: (f"{x:.3f}" if x == 0 or abs(x) >= 0.001 else f"{x:.1e}", f"{x:.1f}", f"{x:.1e}", f"{x:.0e}"),
    "share": lambda x: (f"{100 * x:.1f} %", f"{x:.0e}"),
    "rate": lambda x: (f"{x:.2e}", f"{x:.0e}"),
    "speed": lambda x: (f"{x:,.0f}" if x >= 10 else f"{x:.1f}", f"{x:.0e}"),
    "time": lambda x: (duration(x),),
}


@dataclass(frozen=True)
class Column:
    """`need`: those with the smallest are shown first, and those with 0 always; `late`: its figure is known only at the
    end of an epoch."""

    title: str
    key: str
    width: int
    form: str
    need: int
    late: bool = False

    def cell(self, value: Any) -> str:
        """The first form that fits, on the right; a dash for what is unknown or not finite."""
        known = isinstance(value, int | float) and math.isfinite(value)
        forms = _FORMS[self.form](value) if known else ("-",)
        return next((form for form in forms if len(form) <= self.width), "...").rjust(self.width)


# In the order in which they are shown. Late ones stand together: until they are known the bar has their place.
_FIRST = (
    Column("loss", "loss", 8, "loss", 0),
    Column("chance", "chance_loss", 8, "loss", 0),
    Column("val loss", "val_loss", 8, "loss", 3, late=True),
)
_PRETRAINING = (
    Column("val proto", "val_prototype_accuracy", 9, "share", 0, late=True),
    Column("val kNN", "val_knn_accuracy", 7, "share", 4, late=True),
    Column("batch acc", "accuracy", 9, "share", 5, late=True),
    Column("rank", "val_effective_rank", 8, "loss", 7, late=True),
)
_CLASSIFIER = (
    Column("val acc", "val_accuracy", 7, "share", 0, late=True),
    Column("test acc", "test_accuracy", 8, "share", 1, late=True),
    Column("train acc", "accuracy", 9, "share", 5, late=True),
)
_LAST = (
    Column("rate", "learning_rate", 8, "rate", 6, late=True),
    Column("images/s", "images_per_second", 9, "speed", 2),
    Column("left", "left", 8, "time", 1),
)


def layout(keys: Collection[str], width: int) -> tuple[tuple[Column, ...], str | None]:
    """Columns of those figures, as many as fit behind each other; loss, chance and the accuracy that matters always.

    Returns:
        The columns, and the key of that accuracy: of pre-training by the prototypes on validation, of a classifier on
        validation; of both on the training images where that is not known.
    """
    accuracies = _PRETRAINING if "val_effective_rank" in keys else _CLASSIFIER
    main = next((key for key in (accuracies[0].key, "accuracy") if key in keys), None)
    there = [each for each in (*_FIRST, *accuracies, *_LAST) if each.key in keys]
    there = [replace(each, need=0) if each.key == main else each for each in there]
    chosen: list[Column] = []
    for column in sorted(there, key=lambda column: column.need):
        if not column.need or taken((*chosen, column)) <= width:
            chosen.append(column)
    return tuple(column for column in there if column in chosen), main


def taken(columns: Sequence[Column]) -> int:
    """Characters, with the gaps between them."""
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def all_figures(line: Mapping[str, Any], width: int) -> list[str]:
    """Every figure of an epoch with its name, in lines of at most that width."""
    items = (f"{key}\xa0{'nan' if value is None else value}" for key, value in line.items() if key != "epoch")
    lines = textwrap.wrap(GAP.join(items), width - 4, break_long_words=False, break_on_hyphens=False)
    return [f"    {each}".replace("\xa0", " ") for each in lines]
