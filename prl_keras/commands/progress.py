"""What `reproduce` shows while it trains: a live table in a terminal, else a line a run."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prl_keras.config import Reproduce
from prl_keras.data import Dataset
from prl_keras.experiments import estimate
from prl_keras.experiments.cells import Cell, replicates, row_run
from prl_keras.experiments.table import choose_rows
from prl_keras.runs import Run
from prl_keras.screen.console import Terminal, in_words, is_balanced


class Progress:
    """What is finished, what is under way, and how long the rest will take; a table where it can be redrawn."""

    def __init__(self, table: Run, cells: list[Cell], options: Reproduce, dataset: Dataset, jobs: int = 1):
        self.folder, self.cells = table.path, cells
        self.rows, self.replicates = choose_rows(options.rows), replicates(options)
        self.class_names = dataset.class_names
        self.work = {id(cell): estimate.relative(cell, dataset) for cell in cells}
        self.terminal = Terminal(file=sys.stdout)
        self.jobs = jobs
        self.under_way: dict[Cell, float] = {}  # and when it was begun
        self.seconds = self.worked = 0.0
        self.figures: dict[Path, dict[str, Any]] = {}  # of test

    @contextlib.contextmanager
    def shown(self, log: Any) -> Iterator[None]:
        live: Any = contextlib.nullcontext()
        if self.terminal.is_terminal:
            live = Live(console=self.terminal, get_renderable=self.render, redirect_stdout=False, redirect_stderr=False)
        with live, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            yield

    def begin(self, cell: Cell) -> None:
        self.under_way[cell] = time.monotonic()

    def end(self, cell: Cell) -> None:
        seconds = time.monotonic() - self.under_way.pop(cell)
        self.seconds += seconds
        self.worked += self.work[id(cell)]
        if not self.terminal.is_terminal:
            self.terminal.print(
                f"{self._done()} of {len(self.cells)}: {cell.description}{self._result(cell)}, {duration(seconds)}; "
                f"{self._rest()}",
                soft_wrap=True,
            )

    def leave(self, cell: Cell) -> None:
        """It turned out that another process has it."""
        del self.under_way[cell]

    def render(self) -> Group:
        grid = Table(title=f"{self.folder}", title_justify="left")
        grid.add_column("test accuracy, %", overflow="ellipsis", no_wrap=True)
        for replicate in self.replicates:
            grid.add_column(replicate.suffix, justify="right")
        for row in self.rows:
            grid.add_row(row.short, *(self._state(row_run(self.folder, row, r)) for r in self.replicates))
        lines = [*self._under_way(), f"{self._done()} of {len(self.cells)} runs; {self._rest()}"]
        if not all(map(is_balanced, self.figures.values())):
            lines.insert(0, "in brackets: balanced accuracy, every class weighing the same")
        return Group(grid, Text("\n".join(lines)))

    def _state(self, run: Run) -> str:
        if any(cell.run.path == run.path and not cell.labels for cell in list(self.under_way)):
            return "now"
        if run.path not in self.figures:
            if not (run.path / "result.json").exists():
                return ""
            self.figures[run.path] = run.result["accuracy"]["test"]
        figure = self.figures[run.path]
        balanced = "" if is_balanced(figure) else f" ({100 * figure['balanced']:.1f})"
        return f"{100 * figure['value']:.1f}{balanced}"

    def _under_way(self) -> Iterator[str]:
        for cell, started in list(self.under_way.items()):  # at once: the other thread may end a run meanwhile
            lines = cell.run.metrics
            epoch = f", epoch {lines[-1]['epoch']} of {cell.options.epochs}" if lines else ""
            yield f"now {cell.description}{epoch}, {duration(time.monotonic() - started)}"

    def _done(self) -> int:
        return sum(cell.done for cell in self.cells)

    def _rest(self) -> str:
        if not self.worked:
            return "the rest is estimated after the first run"
        left = [self.work[id(cell)] for cell in self.cells if not cell.done]
        at_once = max(1, min(self.jobs, len(left)))
        return f"about {duration(sum(left) * self.seconds / self.worked / at_once)} left"

    def _result(self, cell: Cell) -> str:
        accuracy = None if cell.labels else cell.run.result.get("accuracy")
        return f", test {in_words(accuracy['test'], self.class_names)}" if accuracy else ""


def duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
