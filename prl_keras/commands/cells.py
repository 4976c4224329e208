"""Making the runs of a table: by one process, by several, or together with those of other machines."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path

from prl_keras.commands.progress import Progress
from prl_keras.config import Baseline, Finetune, Pretrain, Reproduce
from prl_keras.data import Dataset
from prl_keras.data.request import WHERE, open_data
from prl_keras.experiments import jobs, shared
from prl_keras.experiments.cells import Cell
from prl_keras.runs import Run
from prl_keras.runs.leases import end_process
from prl_keras.screen.console import console
from prl_keras.startup import forget_models, start_keras


def train(table: Run, cells: list[Cell], options: Reproduce, dataset: Dataset) -> None:
    """Make what is missing; what the runs print goes into reproduce.log."""
    todo = [cell for cell in cells if not cell.done]
    console.print(f"{len(cells)} runs in {table.path}, {len(cells) - len(todo)} of them done")
    if not todo:
        return
    count = min(options.jobs or jobs.automatic(), len(todo))
    logs = log_files(table, count)
    progress = Progress(table, cells, options, dataset, count)
    with logs[0].open("a", buffering=1, encoding="utf-8") as log, progress.shown(log):
        if count > 1:
            jobs.run_all(todo, run_cell, logs, progress.begin, progress.end)
        else:
            for cell in todo:
                progress.begin(cell)
                run_cell(cell)
                progress.end(cell)


def log_files(table: Run, count: int) -> list[Path]:
    """One a process."""
    return [table.path / f"reproduce{'' if number == 0 else f'-{number + 1}'}.log" for number in range(count)]


def train_together(table: Run, cells: list[Cell], options: Reproduce, dataset: Dataset) -> None:
    """Make what nobody else makes, until nothing is missing."""
    console.print(
        f"{len(cells)} runs in {table.path}, {sum(cell.done for cell in cells)} of them done; start the same command "
        "again, here or on other machines, to share the rest"
    )
    progress = Progress(table, cells, options, dataset)
    with own_log(table).open("a", buffering=1, encoding="utf-8") as log, progress.shown(log):
        told = progress.begin, progress.end, progress.leave, end_process
        shared.work_together(cells, table.path, run_cell, *told, options.lease_seconds)


def train_one(table: Run, cells: list[Cell], options: Reproduce) -> None:
    """The cell of the number that was asked for, from 1, for an array of jobs."""
    cell = cells[options.cell - 1]
    if cell.done:
        console.print(f"{cell.description} is done")
        return
    shared.alone(cells, cell, table.path, run_cell, end_process, options.lease_seconds)
    console.print(f"{cell.description} is done, {sum(other.done for other in cells)} of {len(cells)}")


def own_log(table: Run) -> Path:
    """Of this process, among those of all machines."""
    return table.path / f"reproduce-{platform.node().split('.')[0] or 'machine'}-{os.getpid()}.log"


def run_cell(cell: Cell) -> None:
    """As the command of this name would, whatever ran before in this process; continued if it was interrupted."""
    from prl_keras.commands import finetune, pretrain

    start_keras()
    forget_models()
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
    where = {key: cell.request.get(key) for key in WHERE}
    where |= {key: cell.request[key] for key in ("labels",) if key in cell.request}
    dataset = open_data(cell.run.part("data")["request"] | where, cell.run)
    label_efficiency(load_encoder(cell.run), dataset, cell.options.seed, cell.labels_file)
