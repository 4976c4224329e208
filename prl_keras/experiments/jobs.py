"""Runs of a table side by side, each in a process of its own: same threads, same bits, in less time."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from prl_keras.config import Finetune
from prl_keras.errors import InputError
from prl_keras.experiments.table import Cell
from prl_keras.runs.interruption import terminating
from prl_keras.terminal import ready_streams

MOST = 8  # processes, where nobody asks for a number
_MEMORY = 4e9  # bytes: what a training of images of 96 px takes, and its data
_PATIENCE = 120  # seconds that a process without a parent has left to save its state


def automatic() -> int:
    """How many pay off here. On two cores two processes of two threads each train 1.3 to 1.4 times as much as one
    (docs/performance.md): what one leaves idle, the other fills. One where there is a GPU, of which each would take
    all the memory."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, max(2, cores // 2), int(min(_free_memory() / _MEMORY, MOST))))


def _free_memory() -> float:
    """Bytes; without end where the system does not say."""
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return 1024 * float(line.split()[1])
    return float("inf")


def run_all(
    cells: Sequence[Cell],
    jobs: int,
    work: Callable[[Cell], None],
    logs: Sequence[Path],
    begin: Callable[[Cell], None],
    end: Callable[[Cell], None],
) -> None:
    """Do the work of every cell, `jobs` at a time: what needs another run after that, and what others need first.

    Args:
        work: of a module, so that another process finds it.
        logs: a file a process, to which it adds whatever it prints.
        begin, end: told here, in the caller's process.

    Raises:
        What one of them raised, when the others have stopped; an InputError if the system ended a process.
    """
    context = multiprocessing.get_context("spawn")
    places, started = context.SimpleQueue(), context.SimpleQueue()
    for log in logs:
        places.put(log)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_settle, initargs=(places, started))
    waiting, running = sorted(cells, key=lambda cell: -sum(_need(other) == _run(cell) for other in cells)), {}
    try:
        while waiting or running:
            unfinished = {_run(cell) for cell in (*waiting, *running.values())}
            for cell in [cell for cell in waiting if _need(cell) not in unfinished][: jobs - len(running)]:
                waiting.remove(cell)
                begin(cell)
                running[pool.submit(_one, work, cell)] = cell
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(future)
                future.result()
                end(cell)
    except BaseException as error:
        _stop(started, running)
        if isinstance(error, BrokenProcessPool):
            raise InputError(
                "the system ended a process, perhaps for want of memory: repeat the command with --jobs 1"
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _run(cell: Cell) -> Path | None:
    """What others may need of it."""
    return None if cell.labels else cell.run.path


def _need(cell: Cell) -> Path | str:
    """The run that has to be there: of a curve its own, of a head its encoder."""
    if cell.labels:
        return cell.run.path
    return cell.options.runs_dir / cell.options.encoder if isinstance(cell.options, Finetune) else "nothing"


def _stop(started: Any, running: dict[Future, Cell]) -> None:
    """Let the processes save what they are at; a second Ctrl-C ends them at once."""
    processes = []
    while not started.empty():
        processes.append(started.get())
    try:
        _signal(processes, signal.SIGTERM)
        wait(running)
    except BaseException:
        _signal(processes, getattr(signal, "SIGKILL", signal.SIGTERM))
        raise


def _signal(processes: Sequence[int], number: int) -> None:
    for process in processes:
        with contextlib.suppress(OSError):  # it is gone
            os.kill(process, number)


def _settle(places: Any, started: Any) -> None:
    """Once in each process, before its first work."""
    log = os.open(places.get(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):  # also what native code prints
        os.dup2(log, stream)
    ready_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    if hasattr(os, "setsid"):  # a terminal's Ctrl-C is for the parent, which tells its processes
        os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while there is no work to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    started.put(os.getpid())


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE)
    os._exit(1)


def _one(work: Callable[[Cell], None], cell: Cell) -> None:
    with terminating():
        work(cell)
