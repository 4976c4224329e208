"""Have a run's folder to oneself, and leave it in order. Imports `errors`, `interruption` and `runs`."""

import errno
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from prl_keras.errors import InputError
from prl_keras.interruption import Stopped, stopped
from prl_keras.runs import Run


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
        (run.path / ".lock").unlink(missing_ok=True)  # whoever opened it meanwhile finds the run finished


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Keep other processes off the run's folder; the system frees the lock even after SIGKILL.

    Where the system or the file system has no such locks (Windows, some network disks), nothing is locked.

    Raises:
        InputError: another process has it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with _lock_file(run.path / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise InputError(f"run {run.name!r} is being written by {owner}: wait for it, or stop it") from error
        except OSError:
            pass  # no locks here
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def _lock_file(path: Path) -> IO[str]:
    """A link in its place would have us write elsewhere."""
    try:
        return open(path, "a+", opener=lambda file, flags: os.open(file, flags | os.O_NOFOLLOW, 0o644))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path} is a link: remove it") from error
        raise


def remove_leftovers(run: Run) -> None:
    """Temporary files of a process that was killed while it wrote; the run must be locked."""
    for file in (*run.path.glob(".tmp-*"), *run.path.glob("*/.tmp-*")):
        file.unlink(missing_ok=True)
