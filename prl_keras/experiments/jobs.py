"""Runs of a table side by side, each in a process of its own: same threads, same bits, in less time."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol

from prl_keras.errors import InputError
from prl_keras.processors import cores
from prl_keras.runs.interruption import Stopped, terminating
from prl_keras.terminal import ready_streams

MOST = 8  # processes, where nobody asks for a number
_MEMORY = 4e9  # bytes: what a training of images of 96 px takes, and its data
_GPUS = ("nvidia[0-9]*", "dxg", "kfd")  # in /dev


def automatic() -> int:
    """How many pay off here. On two cores two processes of two threads each train 1.3 to 1.4 times as much as one
    (docs/performance.md): what one leaves idle, the other fills. One where there is a GPU, of which each would take
    all the memory."""
    if any(next(Path("/dev").glob(name), None) for name in _GPUS):
        return 1
    count = cores()
    return max(1, min(count, max(2, count // 2), int(min(_free_memory() / _MEMORY, MOST))))


def _free_memory() -> float:
    """Bytes; enough for two where the system does not say."""
    free = 2 * _MEMORY
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                free = 1024 * float(line.split()[1])
    with contextlib.suppress(OSError, ValueError):  # of a container; "max": no limit
        free = min(free, float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return free


class Task(Protocol):
    """What can be done by any process: a run of the table, or a measurement of one.

    gives: what others may need of it; needs: what has to be there before.
    """

    description: str
    gives: Path | None
    needs: Path | None


class _Job:
    """A process that does one task after the other; `task` is what it is at, `ready` whether it has started."""

    def __init__(self, context: multiprocessing.context.SpawnContext, work: Callable[[Task], None], log: Path):
        self.pipe, its_end = context.Pipe()
        self.task: Task | None = None
        self.ready = False
        self.process = context.Process(target=_work, args=(its_end, work, log))
        with _without_ctrl_c():
            self.process.start()
        its_end.close()  # else nobody would notice that the process has gone

    def begin(self, task: Task) -> None:
        self.task = task
        self.pipe.send(task)

    def hear(self) -> Task | None:
        """What it has done, when it has something to say; None: that it has started.

        Raises:
            What it raised; InputError: it is gone.
        """
        try:
            error = self.pipe.recv()
        except (EOFError, OSError) as gone:
            what = f"ended the process of {self.task.description}" if self.task else "lets no process start"
            raise InputError(
                f"the system {what}, perhaps for want of memory: repeat the command with --jobs 1"
            ) from gone
        self.ready, done, self.task = True, self.task, None
        if error is not None:
            raise error
        return done

    def end(self) -> None:
        """When it has said what it still has to say."""
        if self.task is not None:
            with contextlib.suppress(EOFError, OSError):
                self.pipe.recv()
        self.pipe.close()
        self.process.join()


def run_all(
    tasks: Sequence[Task],
    work: Callable[[Task], None],
    logs: Sequence[Path],
    begin: Callable[[Task], None],
    end: Callable[[Task], None],
) -> None:
    """Do every task, several at a time: what needs another one after that, and what others need first.

    Args:
        work: of a module, so that another process finds it.
        logs: one a process, which adds to it whatever it prints; as many processes as these.
        begin, end: told here, in the caller's process.

    Raises:
        What one of them raised, when the others have stopped; an InputError if the system ended a process.
    """
    context = multiprocessing.get_context("spawn")
    waiting = sorted(tasks, key=lambda task: -sum(task.gives is not None and o.needs == task.gives for o in tasks))
    crew: list[_Job] = []
    try:
        crew += (_Job(context, work, log) for log in logs)
        while waiting or any(job.task for job in crew):
            unfinished = {task.gives for task in (*waiting, *(job.task for job in crew if job.task))} - {None}
            able = [task for task in waiting if task.needs not in unfinished]
            for job, task in zip([job for job in crew if job.ready and not job.task], able, strict=False):
                waiting.remove(task)
                begin(task)
                job.begin(task)
            heard = wait([job.pipe for job in crew if job.task or not job.ready])
            for job in [job for job in crew if job.pipe in heard]:
                if (done := job.hear()) is not None:
                    end(done)
    except BaseException as error:
        _stop(crew, error)
        raise
    finally:
        for job in crew:
            job.end()


def _stop(crew: Sequence[_Job], error: BaseException) -> None:
    """Let the processes save what they are at; a second Ctrl-C ends them at once."""
    by_console = os.name == "nt" and isinstance(error, KeyboardInterrupt)  # it told them; we could only kill them
    try:
        for job in crew if not by_console else ():
            job.process.terminate()
        for job in crew:
            job.end()
    except BaseException:
        for job in crew:
            job.process.kill()
        raise


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """A process that is begun here does not see it before `_settle`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In the processes


def _work(pipe: Connection, work: Callable[[Task], None], log: Path) -> None:
    with contextlib.suppress(EOFError, BrokenPipeError, Stopped), terminating():  # the parent is gone, or has no more
        _settle(log)
        pipe.send(None)
        while True:
            error = _error_of(work, pipe.recv())
            pipe.send(error)
            if error is not None:
                return


def _settle(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):  # also what native code prints
        os.dup2(descriptor, stream)
    ready_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    if hasattr(os, "setsid"):  # a terminal's Ctrl-C is for the parent, which tells its processes
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """At once, as if both had been killed: whoever repeats the command is not to meet this process's locks."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _error_of(work: Callable[[Task], None], task: Task) -> BaseException | None:
    """As it can be sent: what a command understands as it is, all else in words."""
    try:
        work(task)
    except (InputError, OSError, MemoryError, KeyboardInterrupt, Stopped) as error:
        return error
    except BaseException:
        return RuntimeError(traceback.format_exc())
    return None
