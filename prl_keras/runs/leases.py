"""Who works on what, among processes of any number of machines that share a folder and nothing else.

A lease of `name` is a file `name.0001` that is created exclusively, which network disks do as well as local ones. Its
holder touches it again and again; one that has not been touched for a while belongs to a process that died or was cut
off, and whoever then creates `name.0002`, exclusively too, has it: of several that try one succeeds. The old holder, if
it lives after all, sees the next number at its next touch, and ends.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prl_keras.errors import InputError
from prl_keras.files import make_folder

SECONDS = 60.0  # without a touch, after which a lease is lost; tables on slow disks may want more
LEASES = "leases"  # in the folder that is shared
_TOUCHES = 4  # while it lasts
_PAUSE = 0.1  # seconds


class Lease:
    """What this process has: `held` until it is released, or lost to another."""

    def __init__(self, file: Path, token: str, seconds: float):
        self.file, self.token, self.seconds = file, token, seconds
        self.held = True
        self._over = threading.Event()

    @contextmanager
    def kept(self, lost: Callable[[Lease], None]) -> Iterator[None]:
        """Touch it from a thread until the block ends, then release it.

        lost: called in that thread if another process took it over.
        """
        thread = threading.Thread(target=self._keep, args=(lost,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            self.release()

    def release(self) -> None:
        """Whoever wants it next need not wait."""
        if self.held:
            self.held = False
            with suppress(OSError):
                self.file.unlink()

    def _keep(self, lost: Callable[[Lease], None]) -> None:
        while not self._over.wait(self.seconds / _TOUCHES):
            with suppress(OSError):  # a disk that does not answer for a moment
                if _next(self.file).exists() or _read(self.file) != self.token:
                    self.held = False
                    lost(self)
                    return
                os.utime(self.file)


def take(folder: Path, name: str, seconds: float = SECONDS) -> Lease | None:
    """The lease of `name`, if nobody has it or its holder is dead; None: somebody works on it.

    Raises:
        InputError: nothing can be written there.
    """
    make_folder(folder)
    try:
        last = _last(folder, name)
        if last is not None and not _is_stale(last, seconds):
            return None
        file = folder / f"{name}.0001" if last is None else _next(last)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return None  # another process was faster
    except OSError as error:
        raise InputError(f"{folder}: cannot keep leases there ({error.strerror}); make it writable") from error
    token = f"process {os.getpid()} on {platform.node()}, {uuid.uuid4().hex[:12]}"
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(token)
    lease = Lease(file, token, seconds)
    *before, last = _all(folder, name) or [file]
    if last != file:  # this process slept between the look and the file, and somebody has a later one
        lease.release()
        return None
    for old in before:
        with suppress(OSError):
            old.unlink()
    return lease


def wait_for(folder: Path, name: str, seconds: float = SECONDS, pause: float = _PAUSE) -> Lease:
    """The lease of `name`, when nobody has it any more; looks again after each `pause`."""
    while (lease := take(folder, name, seconds)) is None:
        time.sleep(pause)
    return lease


def end_process(lease: Lease) -> None:
    """For who lost a lease: nothing more may be written, as another process does it now."""
    line = f"error: {lease.file.stem} was taken over by another process, as this one was not heard of; start it again"
    print(line, file=sys.__stderr__, flush=True)
    os._exit(2)


def _read(file: Path) -> str | None:
    """What it says; None: it is gone."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")[:200]
    except FileNotFoundError:
        return None


def _all(folder: Path, name: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"{name}.*") if path.suffix[1:].isdigit() and path.stem == name)


def _last(folder: Path, name: str) -> Path | None:
    return next(reversed(_all(folder, name)), None)


def _next(file: Path) -> Path:
    return file.with_suffix(f".{int(file.suffix[1:]) + 1:04}")


def _is_stale(file: Path, seconds: float) -> bool:
    """By the disk's own clock, which the clocks of two machines may differ from."""
    try:
        with tempfile.TemporaryFile(dir=file.parent) as probe:
            now = os.fstat(probe.fileno()).st_mtime
        return now - file.stat().st_mtime > seconds
    except FileNotFoundError:  # released a moment ago
        return False
