"""Have a run's folder to oneself, and leave it in order."""

import errno
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor  # here: between a run's folder and its lock there is no time for it

from prl_keras.errors import InputError
from prl_keras.files import write_text
from prl_keras.runs import Run
from prl_keras.runs.interruption import Stopped, stopped
from prl_keras.terminal import warn


class BusyError(InputError):
    """Another process has it."""


@contextmanager
def working_on(run: Run) -> Iterator[Run]:
    """Have the run to oneself; remove it if it fails before it had anything to continue from.

    Raises:
        InputError: another process works on it, or has just finished it.
    """
    with locked(run):
        if run.result is not None:
            raise InputError(f"run {run.name!r} is finished; nothing to resume")
        remove_leftovers(run)
        try:
            yield run
        except BaseException as error:
            kept = run.result is not None or any((run.path / "checkpoint").glob("*"))
            if not kept:
                shutil.rmtree(run.path, ignore_errors=True)
            if isinstance(error, KeyboardInterrupt | Stopped) and kept:
                raise stopped(error, run.name) from error
            raise
    with suppress(PermissionError):  # Windows: someone has just opened it, and finds the run finished
        (run.path / ".lock").unlink(missing_ok=True)


@contextmanager
def locked(run: Run, record: str = "config.json", what: str = "run") -> Iterator[None]:
    """Keep other processes off the run's folder; the system frees the lock even after SIGKILL.

    A disk that has no locks (some network disks) is used without, which a warning says.

    Args:
        record: the file that makes the folder what it is; without it, it has been removed.
        what: it is, for people.

    Raises:
        InputError: another process has it, or has just removed it.
    """
    lock = _open(run, what)
    owner = run.path / ".owner"  # beside the lock: on Windows nobody can read a file that is locked
    try:
        if not _taken(lock, run):
            raise BusyError(f"{what} {run.name!r} is being written by {_read(owner)}: wait for it, or stop it")
        if not (run.path / record).exists():
            raise _gone(run, what)
        write_text(owner, f"process {os.getpid()} on {platform.node()}")
        try:
            yield
        finally:
            owner.unlink(missing_ok=True)
    finally:
        os.close(lock)
        if not (run.path / record).exists():  # removed while it was locked: Windows keeps what is open
            with suppress(OSError):
                (run.path / ".lock").unlink()
                run.path.rmdir()


def _open(run: Run, what: str) -> int:
    """A descriptor of the lock's file. A link in its place would have us write elsewhere."""
    file = run.path / ".lock"
    linked = InputError(f"{file} is a link: remove it")
    if file.is_symlink():
        raise linked
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except FileNotFoundError as error:
        raise _gone(run, what) from error
    except OSError as error:
        raise linked if error.errno == errno.ELOOP else error from error


def _taken(lock: int, run: Run) -> bool:
    """Whether the lock is ours now; True also where there are no locks."""
    try:
        return lock_descriptor(lock, blocking=False)
    except OSError as error:
        warn(f"{run.path}: no locks on this disk ({error.strerror}); start no second process on this run")
        return True


def _read(owner: Path) -> str:
    with suppress(OSError):
        return " ".join(owner.read_text(encoding="utf-8", errors="replace").split())[:200] or "another process"
    return "another process"


def _gone(run: Run, what: str) -> InputError:
    return InputError(f"{what} {run.name!r} has just been removed by another process: repeat the command")


def remove_leftovers(run: Run) -> None:
    """Temporary files of a process that was killed while it wrote; the run must be locked."""
    for file in (*run.path.glob(".tmp-*"), *run.path.glob("*/.tmp-*")):
        file.unlink(missing_ok=True)
