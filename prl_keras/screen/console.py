"""What commands print: figures in words and tables, the last lines. Imports nothing that knows of data or models."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prl_keras.terminal import as_started, quoted


class Terminal(Console):
    """Shows a text as it is: no markup, no names of emoji, and in a notebook no HTML."""

    def __init__(self, **kwargs: Any):
        plain = {"highlight": False, "markup": False, "emoji": False, "force_jupyter": False}
        super().__init__(**plain | kwargs)

    @property
    def is_terminal(self) -> bool:
        """A notebook's output says that it is one, and takes no line back."""
        return super().is_terminal and not type(self.file).__module__.startswith("ipykernel")

    def print(self, *objects: Any, **options: Any) -> None:
        """Without styles where standard output has become a file, as the log of `reproduce`: Rich looks only once."""
        if self.color_system is None or self.is_terminal:
            super().print(*objects, **options)
        else:
            plain = Terminal(file=self.file, color_system=None, soft_wrap=self.soft_wrap, width=self.width)
            plain.print(*objects, **options)

    def render_str(self, text: str, **kwargs: Any) -> Text:
        return super().render_str(as_started(text), **kwargs)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # for `cli.main`; Rich would end the process


console = Terminal(soft_wrap=True)
BAR = {"complete_style": "none", "finished_style": "none"}  # colour is for what is good or bad


def is_watched(terminal: Console) -> bool:
    """Whether a line can be drawn again there. A file is no terminal, even where FORCE_COLOR wants colours in it."""
    return terminal.is_interactive and terminal.file.isatty()


def say(text: str) -> None:
    """Wrapped between words where somebody reads it; in a file a line stays a line."""
    console.print(text, soft_wrap=not is_watched(console))


def percent(figure: dict[str, Any]) -> str:
    return f"{100 * figure['value']:.1f} %"


def slim_table(title: str | None = None) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def accuracy_table(title: str, rows: dict[str, dict[str, Any]], class_names: Sequence[str]) -> Table:
    """Rows of `statistics.accuracy` results: value, 95 % interval, n, and the class with the lowest recall.

    Balanced accuracy has a column unless it is the accuracy everywhere, as in classes of one size.
    """
    table = slim_table(title)
    table.add_column("", no_wrap=True)
    balanced = any(not is_balanced(figure) for figure in rows.values())
    for column in ("accuracy", "95 % interval", "correct / n", *(["balanced"] if balanced else [])):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("worst class", overflow="fold")
    for name, figure in rows.items():
        cells = [percent(figure), percent_interval(figure), f"{figure['correct']:,} / {figure['n']:,}"]
        cells += [f"{100 * figure['balanced']:.1f} %"] if balanced else []
        table.add_row(name, *cells, Text(worst_class(figure, class_names)))  # Text: a name is no markup
    return table


def is_balanced(figure: dict[str, Any]) -> bool:
    """Whether balanced accuracy is the accuracy, or unknown: records of older versions have none."""
    return math.isclose(figure.get("balanced", figure["value"]), figure["value"], abs_tol=1e-9)


def in_words(figure: dict[str, Any], class_names: Sequence[str]) -> str:
    """A `statistics.accuracy` within a sentence, with what it may hide."""
    words = [percent(figure)]
    words += [] if is_balanced(figure) else [f"balanced {100 * figure['balanced']:.1f} %"]
    worst = worst_class(figure, class_names)
    return ", ".join([*words, f"worst class {worst}"] if worst else words)


def worst_class(figure: dict[str, Any], class_names: Sequence[str]) -> str:
    """Of a `statistics.accuracy`; empty where all classes are equal, and for a record of an older version."""
    worst = figure.get("worst")
    if not worst or worst["value"] >= figure["balanced"] - 1e-9:
        return ""
    number = worst["class"]
    return f"{percent(worst)} {class_names[number] if 0 <= number < len(class_names) else number}"


def percent_interval(figure: dict[str, Any]) -> str:
    return f"{100 * figure['low']:.1f} - {100 * figure['high']:.1f}"


def mean_and_interval(figure: dict[str, Any]) -> str:
    """A `statistics.mean_over_seeds` in %; without the interval where nothing tells it."""
    ends = "" if figure["low"] is None else f" ({percent_interval(figure)})"
    return f"{100 * figure['mean']:.1f}{ends}"


def signed_interval(test: dict[str, Any]) -> str:
    """Of a `statistics.compare_seeds`, in points and behind a blank; empty where nothing tells it."""
    return "" if test["low"] is None else f" ({100 * test['low']:+.1f} to {100 * test['high']:+.1f})"


def print_end(written: list[Path], next_commands: list[str]) -> None:
    """What was written where, and what to type next; the last line is a command."""
    for path in written:
        console.print(f"wrote {path}")
    console.print("Next:")
    for command in next_commands:
        console.print(f"  {command}")


def tensorboard_command(folder: Path) -> str:
    """Shown to this machine only: TensorBoard has no password."""
    return f"python -m tensorboard.main --logdir {quoted([str(folder)])} --host localhost"
