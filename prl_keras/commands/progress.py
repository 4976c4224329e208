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
from prl_keras.experiments.table import Cell, choose_rows, replicates, row_run
from prl_keras.runs import Run
from prl_keras.screen.console import Terminal


class Progress:
    """What is finished, what is under way, and how long the rest will take; a table where it can be redrawn."""

    def __init__(self, table: Run, cells: list[Cell], options: Reproduce, dataset: Dataset):
        self.folder, self.cells = table.path, cells
        self.rows, self.replicates = choose_rows(options.rows), replicates(options)
        self.work = {id(cell): estimate.relative(cell, dataset) for cell in cells}
        self.terminal = Terminal(file=sys.stdout)
        self.current: Cell | None = None
        self.seconds = self.worked = 0.0
        self.accuracies: dict[Path, float] = {}

    @contextlib.contextmanager
    def shown(self, log: Any) -> Iterator[None]:
        live: Any = contextlib.nullcontext()
        if self.terminal.is_terminal:
            live = Live(console=self.terminal, get_renderable=self.render, redirect_stdout=False, redirect_stderr=False)
        with live, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            yield

    def begin(self, cell: Cell) -> None:
        self.started = time.monotonic()
        self.current = cell

    def end(self, cell: Cell) -> None:
        seconds = time.monotonic() - self.started
        self.seconds += seconds
        self.worked += self.work[id(cell)]
        self.current = None
        if not self.terminal.is_terminal:
            self.terminal.print(
                f"{self._done()} of {len(self.cells)}: {cell.description}{self._result(cell)}, {duration(seconds)}; "
                f"{self._rest()}",
                soft_wrap=True,
            )

    def render(self) -> Group:
        grid = Table(title=f"{self.folder}", title_justify="left")
        grid.add_column("test accuracy, %", overflow="ellipsis", no_wrap=True)
        for replicate in self.replicates:
            grid.add_column(replicate.suffix, justify="right")
        for row in self.rows:
            grid.add_row(row.short, *(self._state(row_run(self.folder, row, r)) for r in self.replicates))
        return Group(grid, Text(f"{self._under_way()}\n{self._done()} of {len(self.cells)} runs; {self._rest()}"))

    def _state(self, run: Run) -> str:
        cell = self.current
        if cell is not None and cell.run.path == run.path and not cell.labels:
            return "now"
        if run.path not in self.accuracies:
            if not (run.path / "result.json").exists():
                return ""
            self.accuracies[run.path] = run.result["accuracy"]["test"]["value"]
        return f"{100 * self.accuracies[run.path]:.1f}"

    def _under_way(self) -> str:
        cell = self.current  # once: the other thread may end the run meanwhile
        if cell is None:
            return ""
        lines = cell.run.metrics
        epoch = f", epoch {lines[-1]['epoch']} of {cell.options.epochs}" if lines else ""
        return f"now {cell.description}{epoch}, {duration(time.monotonic() - self.started)}"

    def _done(self) -> int:
        return sum(cell.done for cell in self.cells)

    def _rest(self) -> str:
        if not self.worked:
            return "the rest is estimated after the first run"
        left = sum(self.work[id(cell)] for cell in self.cells if not cell.done)
        return f"about {duration(left * self.seconds / self.worked)} left"

    @staticmethod
    def _result(cell: Cell) -> str:
        accuracy = None if cell.labels else cell.run.result.get("accuracy")
        return f", test {100 * accuracy['test']['value']:.1f} %" if accuracy else ""


def duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
