"""`python main.py reproduce`: train every row of the table, then write its report."""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prl_keras.commands.common import check_same, check_training, console, data_request, open_data, print_end
from prl_keras.config import Baseline, DataOptions, Finetune, Pretrain, Reproduce
from prl_keras.data import Dataset
from prl_keras.errors import InputError
from prl_keras.experiments import estimate
from prl_keras.experiments.table import Cell, choose_rows, plan, replicates, row_run
from prl_keras.runs import Run, create_run, package_versions
from prl_keras.startup import start_keras

_PAPER_TEST = 100  # images a class
_PAPER_VALIDATION = 0.002  # one image a class: the report trains on all, we keep one to have a curve
# What may differ when the command is repeated: it changes which runs there are, not what a run is.
_MAY_GROW = ("seeds", "rows", "dry_run", "name", "runs_dir")


def run(options: Reproduce) -> None:
    _check(options)
    request = data_request(_data_options(options), seed=0)
    dataset = open_data(request)
    check_training(replace(Pretrain(), epochs=options.epochs, batch_size=options.batch_size), len(dataset.train), True)
    folder = options.runs_dir / (options.name or _default_name(options, dataset))
    cells = plan(options, request, folder)
    if options.dry_run:
        _dry_run(cells, dataset, folder)
        return
    table = _open_table(folder, options, request, dataset)
    _train(table, cells, options, dataset)
    _report(table, options, dataset, cells)


def _check(options: Reproduce) -> None:
    choose_rows(options.rows)
    if options.seeds is not None and options.seeds < 1:
        raise InputError(f"--seeds is {options.seeds}; expected at least 1")
    if options.folds and options.seeds is not None:
        raise InputError("--folds repeats the table ten times, once a fold: leave out --seeds")


def _data_options(options: Reproduce) -> DataOptions:
    paper = options.protocol == "paper"
    return DataOptions(
        dataset=options.dataset,
        data_dir=options.data_dir,
        samples_per_class=options.samples_per_class,
        test_per_class=_PAPER_TEST if paper and options.test_per_class is None else options.test_per_class,
        image_size=options.image_size,
        fold=0 if options.folds else None,
        validation_fraction=_PAPER_VALIDATION if paper else DataOptions.validation_fraction,
    )


def _default_name(options: Reproduce, dataset: Dataset) -> str:
    name = dataset.name.rstrip("/").replace(":", "-").rsplit("/", 1)[-1]
    return f"table-{name}{'-paper' if options.protocol == 'paper' else ''}{'-folds' if options.folds else ''}"


def _open_table(folder: Path, options: Reproduce, request: dict[str, Any], dataset: Dataset) -> Run:
    """The table's folder, new or as it is."""
    config = {
        "command": "reproduce",
        "options": {key: value for key, value in asdict(options).items() if key not in _MAY_GROW},
        "data": {
            "request": request,
            "fingerprint": dataset.fingerprint,
            "class_names": list(dataset.class_names),
            "image_shape": list(dataset.image_shape),
        },
        "versions": package_versions(),
    }
    if not folder.exists():
        return create_run(folder.parent, folder.name, config)
    table = Run(folder)
    if table.config["command"] != "reproduce":
        raise InputError(f"{folder} is a {table.config['command']} run, not a table: choose another --name")
    check_same(table, config)
    return table


def _dry_run(cells: list[Cell], dataset: Dataset, folder: Path) -> None:
    """Every run with its share of the time."""
    start_keras(0)
    with console.status("Measuring a few steps of each kind"):
        rates = estimate.measure(cells, dataset)
    table = Table(title=f"{len(cells)} runs in {folder}", title_justify="left")
    for column in ("run", "state"):
        table.add_column(column, overflow="fold")
    table.add_column("estimate", justify="right")
    left = 0.0
    for cell in cells:
        seconds = sum(rates[kind] * images for kind, images in estimate.work(cell, dataset).items())
        left += 0 if cell.done else seconds
        table.add_row(cell.description, "done" if cell.done else "to do", _duration(seconds))
    console.print(table)
    console.print(f"Left to do: {sum(not cell.done for cell in cells)} runs, about {_duration(left)} on this machine")
    console.print("Next: the same command without --dry-run")


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _train(table: Run, cells: list[Cell], options: Reproduce, dataset: Dataset) -> None:
    """Make what is missing; what the runs print goes into reproduce.log."""
    todo = [cell for cell in cells if not cell.done]
    console.print(f"{len(cells)} runs in {table.path}, {len(cells) - len(todo)} of them done")
    if not todo:
        return
    progress = Progress(table, cells, options, dataset)
    with (table.path / "reproduce.log").open("a", buffering=1) as log, progress.shown(log):
        for cell in todo:
            progress.begin(cell)
            _run_cell(cell)
            progress.end(cell)


def _run_cell(cell: Cell) -> None:
    """As the command of this name would, whatever ran before in this process; continued if it was interrupted."""
    from prl_keras.commands import finetune, pretrain

    start_keras()
    import keras

    keras.backend.clear_session()
    if cell.labels:
        _label_efficiency(cell)
        return
    started = (cell.run.path / "config.json").exists()
    command = {Pretrain: pretrain.run, Finetune: finetune.run, Baseline: finetune.run_baseline}[type(cell.options)]
    command(replace(cell.options, resume=started))


def _label_efficiency(cell: Cell) -> None:
    from prl_keras.experiments.labels import label_efficiency
    from prl_keras.models.storage import load_encoder

    start_keras(cell.options.seed)
    dataset = open_data(cell.run.config["data"]["request"], cell.run)
    label_efficiency(load_encoder(cell.run), dataset, cell.options.seed, cell.labels_file)


class Progress:
    """What is finished, what is under way, and how long the rest will take; a table where it can be redrawn."""

    def __init__(self, table: Run, cells: list[Cell], options: Reproduce, dataset: Dataset):
        self.folder, self.cells = table.path, cells
        self.rows, self.replicates = choose_rows(options.rows), replicates(options)
        self.work = {id(cell): estimate.relative(cell, dataset) for cell in cells}
        self.terminal = Console(file=sys.stdout, highlight=False, markup=False)
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
        self.current, self.started = cell, time.monotonic()

    def end(self, cell: Cell) -> None:
        seconds = time.monotonic() - self.started
        self.seconds += seconds
        self.worked += self.work[id(cell)]
        self.current = None
        if not self.terminal.is_terminal:
            self.terminal.print(
                f"{self._done()} of {len(self.cells)}: {cell.description}{self._result(cell)}, {_duration(seconds)}; "
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
        if self.current is not None and self.current.run.path == run.path and not self.current.labels:
            return "now"
        if run.path not in self.accuracies:
            if not (run.path / "result.json").exists():
                return ""
            self.accuracies[run.path] = run.result["accuracy"]["test"]["value"]
        return f"{100 * self.accuracies[run.path]:.1f}"

    def _under_way(self) -> str:
        if self.current is None:
            return ""
        lines = self.current.run.metrics
        epoch = f", epoch {lines[-1]['epoch']} of {self.current.options.epochs}" if lines else ""
        return f"now {self.current.description}{epoch}, {_duration(time.monotonic() - self.started)}"

    def _done(self) -> int:
        return sum(cell.done for cell in self.cells)

    def _rest(self) -> str:
        if not self.worked:
            return "the rest is estimated after the first run"
        left = sum(self.work[id(cell)] for cell in self.cells if not cell.done)
        return f"about {_duration(left * self.seconds / self.worked)} left"

    @staticmethod
    def _result(cell: Cell) -> str:
        accuracy = None if cell.labels else cell.run.result.get("accuracy")
        return f", test {100 * accuracy['test']['value']:.1f} %" if accuracy else ""


def _report(table: Run, options: Reproduce, dataset: Dataset, cells: list[Cell]) -> None:
    console.print("report: not written yet")
    print_end([], [])
