"""Run commands as on Windows, as far as Linux can play it; one JSON list of words a line of standard input.

No `fcntl`, `O_NOFOLLOW` or `sched_getaffinity`; only what is open for writing is synced;
what is open, in this process, cannot be moved or removed, nor a folder that it is in; a move replaces no folder and
`rename` nothing; text without an encoding is an error in our modules.
"""

import errno
import fcntl
import json
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def open_files() -> set[str]:
    """Paths of this process's open and mapped files; native code's too."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return found | {line.split(maxsplit=5)[5].strip() for line in maps if line.count("/")}


def refuse_open(path: Any) -> None:
    path = os.path.abspath(path)
    if path in (files := open_files()) or any(file.startswith(path + os.sep) for file in files):
        error = PermissionError(errno.EACCES, "The process cannot access the file: it is being used", path)
        error.winerror = 32
        raise error


def guarded(usual: Callable, check: Callable[..., None]) -> Callable:
    def call(*arguments: Any, **options: Any) -> Any:
        check(*arguments)
        return usual(*arguments, **options)

    return call


def check_rename(source: Any, target: Any) -> None:
    check_replace(source, target)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", str(source))


def check_replace(source: Any, target: Any) -> None:
    refuse_open(source)
    refuse_open(target)
    if os.path.isdir(target):
        raise PermissionError(errno.EACCES, "Access is denied", str(source))


def check_sync(descriptor: int) -> None:
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")


def become_windows() -> None:
    os.fsync = guarded(os.fsync, check_sync)
    for name in ("unlink", "remove", "rmdir"):
        setattr(os, name, guarded(getattr(os, name), refuse_open))
    os.rename = guarded(os.rename, check_rename)
    os.replace = guarded(os.replace, check_replace)
    shutil._use_fd_functions = False
    sys.modules["fcntl"] = None
    del os.O_NOFOLLOW, os.sched_getaffinity
    signal.SIGBREAK = signal.SIGUSR1
    warnings.filterwarnings("error", category=EncodingWarning, module=r"(prl_keras|tuning)\.")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    become_windows()
    from conftest import small_network

    from prl_keras.cli import main

    with small_network():
        codes = [main(json.loads(line)) for line in sys.stdin.buffer.readlines()]
    print("CODES", *codes)
