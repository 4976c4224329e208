"""One table made by any number of processes, on all machines that see its folder, without a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from prl_keras.experiments.jobs import Task
from prl_keras.runs.leases import LEASES, SECONDS, Lease, take
from prl_keras.runs.locks import BusyError

_PAUSE = 2.0  # seconds between two looks, where all that is left is worked on by others


class SharedTask(Task, Protocol):
    """What any process of any machine can do. done: whether it is; lease: its name among those that processes take."""

    done: bool
    lease: str


def work_together(
    tasks: Sequence[SharedTask],
    folder: Path,
    work: Callable[[SharedTask], None],
    begin: Callable[[SharedTask], None],
    end: Callable[[SharedTask], None],
    leave: Callable[[SharedTask], None],
    lost: Callable[[Lease], None],
    seconds: float = SECONDS,
) -> None:
    """Do what nobody does, until all of it is done; what a process died of is taken over after `seconds`. What was done
    once is done for this process, also if another one, which wants it otherwise, undoes it.

    Args:
        folder: of the table.
        work: makes, or continues, one; begin, end: told before and after; leave: instead of end, where
            another process turned out to have it.
        lost: called in another thread when this process was cut off for so long that another one took its task.
    """
    left = list(tasks)
    while left := [task for task in left if not task.done]:
        unfinished = {task.gives for task in left} - {None}
        for task in left:
            if task.needs in unfinished:
                continue
            lease = take(folder / LEASES, task.lease, seconds)
            if lease is None:
                continue
            with lease.kept(lost):
                if task.done:  # since the look
                    break
                begin(task)
                try:
                    work(task)
                except BusyError:  # a process that hangs, or one that knows of no leases: there may be other tasks
                    leave(task)
                    continue
                end(task)
            break
        else:
            time.sleep(_PAUSE)


def alone(
    tasks: Sequence[SharedTask],
    task: SharedTask,
    folder: Path,
    work: Callable[[SharedTask], None],
    lost: Callable[[Lease], None],
    seconds: float = SECONDS,
) -> None:
    """One task of an array of jobs, and what it needs before it; what another process does is waited for."""
    for other in [each for each in tasks if task.needs is not None and each.gives == task.needs] + [task]:
        work_together([other], folder, work, *[lambda _: None] * 3, lost, seconds)
