"""The screen of a training: one aligned line an epoch, and on a terminal a bar within the epoch.

Knows figures by their names in metrics.jsonl, and nothing of models: whoever trains says what happened.
"""

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prl_keras.screen.columns import GAP, Column, all_figures, layout, taken
from prl_keras.screen.console import BAR, console, is_watched
from prl_keras.screen.pace import Usual

_IN_A_FILE = 80  # characters a line
_FREE = 3  # characters: Ctrl-C writes "^C" behind the bar, which must not wrap
_LEAST_BAR = 8
_BETWEEN = 0.1  # seconds: the bar moves so often at most


class TrainingScreen:
    """A context: the bar is gone after it, however the training ended. See `training.screen` for who tells it what.

    Args:
        keys: of the figures that an epoch will have.
        epochs, steps, images: epochs in all, and steps and images of one.
        constants: figures that are the same in every epoch, such as chance_loss.
        earlier: lines of metrics.jsonl of a training that is continued: the best so far may be among them.
        verbose: all figures of each epoch, not only those that have a column.
        title: one line above the names of the columns.
        stays: whether the lines do; otherwise a terminal shows the last one above the bar, and a file gets none.
        validated: the epochs, from 1, after which validation is looked at; None: all.
    """

    def __init__(
        self,
        keys: Collection[str],
        epochs: int,
        steps: int,
        images: int,
        constants: Mapping[str, float | None] | None = None,
        earlier: Sequence[Mapping[str, Any]] = (),
        verbose: bool = False,
        title: str | None = None,
        stays: bool = True,
        validated: Collection[int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.epochs, self.steps, self.images = epochs, steps, images
        self.constants = {key: value for key, value in (constants or {}).items() if value is not None}
        self.verbose, self.stays, self.clock = verbose, stays, clock
        self.watched = is_watched(console)
        self.width = (console.width if self.watched else _IN_A_FILE) - _FREE
        keys = {*keys, *self.constants, "images_per_second", "left"}
        self.first = max(len("epoch"), len(f"{epochs}/{epochs}"))
        self.columns, self.main = layout(keys, self.width - self.first - len(GAP))
        some = any(key.startswith("val_") for key in keys)
        self.validated = () if not some else range(1, epochs + 1) if validated is None else validated
        self.best = max((line.get(self.main) or 0.0 for line in earlier), default=-1.0)
        titles = [column.title.rjust(column.width) for column in self.columns]
        self.head = [Text(title)] if title else []
        self.head.append(Text(GAP.join(["epoch".rjust(self.first), *titles]), "bold"))
        self.step_seconds, self.end_seconds = Usual(), {True: Usual(), False: Usual()}  # with validation, and without
        self.epoch, self.done, self.loss = 0, 0, None
        self.moved = self.drawn = 0.0
        self.last: list[Text] = []
        self.live = Live(console=console, auto_refresh=False, transient=True, redirect_stderr=_error_is_terminal())

    def __enter__(self) -> "TrainingScreen":
        if self.watched:
            self.live.start()
        if self.stays:
            self._print(self.head)
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def begin_epoch(self, epoch: int) -> None:
        """epoch: from 1."""
        now = self.clock()
        if self.epoch:
            self.end_seconds[self.epoch in self.validated].add(now - self.moved)
        self.epoch, self.done, self.loss, self.moved = epoch, 0, None, now
        self._draw(now)

    def step(self, done: int, loss: Callable[[], float] | None) -> None:
        """done: steps of this epoch so far; loss: their mean, asked for only when it is shown; None: a step that a
        continued training had taken before."""
        now = self.clock()
        if loss is not None:
            self.step_seconds.add(now - self.moved)
        self.done, self.moved = done, now
        if done == self.steps or now - self.drawn >= _BETWEEN:
            self.loss = loss() if loss else None
            self._draw(now)

    def end_epoch(self, line: Mapping[str, Any]) -> None:
        """line: as of metrics.jsonl; figures without a column are shown only if asked for."""
        left = self._left(self.clock() - self.moved)
        values = {**self.constants, "left": left, **line}
        first_epoch = all(each.first is None for each in self.end_seconds.values())
        if first_epoch:  # its own figure has the building of what is computed in it
            values["images_per_second"] = self._speed() or line.get("images_per_second")
        rows = [self._row(values)]
        self.best = max(self.best, values.get(self.main) or 0.0)
        if self.verbose:
            rows += [Text(text, "dim") for text in all_figures({**self.constants, **line}, self.width)]
        self.last = rows
        self.live.update(Group(*self._above()), refresh=self.watched)  # no bar until the next epoch begins
        if self.stays:
            self._print(rows)

    def _row(self, values: Mapping[str, Any]) -> Text:
        parts = [(f"{self.epoch}/{self.epochs}".rjust(self.first), "")]
        parts += [(column.cell(values.get(column.key)), self._style(column, values)) for column in self.columns]
        return Text(GAP).join(Text(*part) for part in parts)

    def _style(self, column: Column, values: Mapping[str, Any]) -> str:
        """Colour only where it tells: the best so far, and a loss that is no better than chance."""
        value = values.get(column.key)
        if column.key == self.main and (value or 0.0) > self.best:
            return "bold green"
        if column.key == "loss" and (value is None or value >= values.get("chance_loss", float("inf"))):
            return "yellow"
        return ""

    def _left(self, end_so_far: float = 0.0) -> float | None:
        """Steps and ends of epochs (validation, monitors, files). Most of the first end is work that is done once."""
        after = self.epochs - self.epoch
        steps = after * self.steps + self.steps - self.done
        if steps and self.step_seconds.value is None:
            return None
        seconds, ends = steps * (self.step_seconds.value or 0.0), after + (self.done < self.steps)
        with_validation = sum(self.epochs - ends < epoch <= self.epochs for epoch in self.validated)
        seconds += with_validation * self._end(True, end_so_far)
        return seconds + (ends - with_validation) * self._end(False, end_so_far)

    def _end(self, validated: bool, so_far: float) -> float:
        """Seconds that the end of an epoch takes, with validation or without. so_far: of the one under way."""
        usual, is_this = self.end_seconds[validated], validated == (self.epoch in self.validated)
        if usual.value is not None:
            return usual.value
        if is_this and (usual.first is not None or not validated):
            return so_far
        return usual.first or 0.0

    def _speed(self) -> float | None:
        seconds = self.step_seconds.value
        return self.images / self.steps / seconds if seconds else None

    def _print(self, lines: Sequence[Text]) -> None:
        for line in lines:
            if self.watched:
                console.print(line)
            else:
                print(line.plain, flush=True)

    def _draw(self, now: float) -> None:
        if self.watched:
            self.drawn = now
            self.live.update(Group(*self._above(), self._moving()), refresh=True)

    def _above(self) -> list[Text]:
        return [] if self.stays else [*self.head, *self.last]

    def _moving(self) -> RenderableType:
        """The line of the epoch under way: a bar where its late figures will be."""
        values = {"loss": self.loss, "images_per_second": self._speed(), "left": self._left(), **self.constants}
        early, late = ([column for column in self.columns if column.late is late] for late in (False, True))
        cells = {column.key: column.cell(values.get(column.key)) for column in early}
        before = [f"{self.epoch}/{self.epochs}".rjust(self.first)]
        before += [cells.pop(key) for key in ("loss", "chance_loss") if key in cells]
        line = Table.grid(padding=0)
        parts = [f"{GAP.join(before)}{GAP}", *self._bar(taken(late)), *(f"{GAP}{cell}" for cell in cells.values())]
        for _ in parts:
            line.add_column(no_wrap=True)
        line.add_row(*parts)
        return line

    def _bar(self, width: int) -> list[RenderableType]:
        if self.step_seconds.first is None:
            return ["preparing".ljust(width)]
        if self.done == self.steps and self.epoch in self.validated:
            return ["validating".ljust(width)[:width]]
        count = f" {str(self.done).rjust(len(str(self.steps)))}/{self.steps}"
        if width - len(count) < _LEAST_BAR:
            count = ""
        return [ProgressBar(self.steps, self.done, width - len(count), **BAR), count]


def _error_is_terminal() -> bool:
    """Else what is written there goes where the user sent it."""
    return sys.stderr is not None and sys.stderr.isatty()
