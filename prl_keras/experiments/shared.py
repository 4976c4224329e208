"""One table made by any number of processes, on all machines that see its folder, without a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from prl_keras.experiments.table import Cell
from prl_keras.runs.leases import LEASES, SECONDS, Lease, take
from prl_keras.runs.locks import BusyError

_PAUSE = 2.0  # seconds between two looks, where all that is left is worked on by others


def work_together(
    cells: Sequence[Cell],
    folder: Path,
    work: Callable[[Cell], None],
    begin: Callable[[Cell], None],
    end: Callable[[Cell], None],
    leave: Callable[[Cell], None],
    lost: Callable[[Lease], None],
    seconds: float = SECONDS,
) -> None:
    """Make what nobody makes, until all cells are done; a cell whose process died is taken over after `seconds`.

    Args:
        folder: of the table.
        work: makes, or continues, one; begin, end: told before and after; leave: instead of end, where
            another process turned out to have it.
        lost: called in another thread when this process was cut off for so long that another one took its cell.
    """
    while left := [cell for cell in cells if not cell.done]:
        unfinished = {cell.gives for cell in left} - {None}
        for cell in left:
            if cell.needs in unfinished:
                continue
            lease = take(folder / LEASES, cell.lease, seconds)
            if lease is None:
                continue
            with lease.kept(lost):
                if cell.done:  # since the look
                    break
                begin(cell)
                try:
                    work(cell)
                except BusyError:  # a process that hangs, or one that knows of no leases: there may be other cells
                    leave(cell)
                    continue
                end(cell)
            break
        else:
            time.sleep(_PAUSE)


def alone(
    cells: Sequence[Cell],
    cell: Cell,
    folder: Path,
    work: Callable[[Cell], None],
    lost: Callable[[Lease], None],
    seconds: float = SECONDS,
) -> None:
    """One cell of an array of jobs, and what it needs before it; what another process makes is waited for."""
    for other in [each for each in cells if cell.needs is not None and each.gives == cell.needs] + [cell]:
        work_together([other], folder, work, *[lambda _: None] * 3, lost, seconds)
