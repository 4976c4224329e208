"""Commands of a campaign side by side, each in a process of its own with its share of the cores."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from prl_keras.processors import cores

_PAUSE = 1.0  # seconds
Key = TypeVar("Key")


def done_side_by_side(
    commands: Mapping[Key, list[str]], jobs: int, cwd: Path | None = None
) -> Iterator[tuple[Key, int, int]]:
    """Each as it ends: its key, its exit code, and how many are still to begin; whatever is stopped here is stopped
    there."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threads = str(max(1, cores() // jobs))  # more would wait for each other
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, threads)}
    todo = list(commands)
    under_way: dict[Key, subprocess.Popen] = {}

    def begin() -> None:
        while todo and len(under_way) < jobs:
            key = todo.pop(0)
            under_way[key] = subprocess.Popen(commands[key], cwd=cwd, stdout=subprocess.DEVNULL, env=environment)

    try:
        begin()
        while under_way:
            time.sleep(_PAUSE)
            for key in [each for each, process in under_way.items() if process.poll() is not None]:
                code = under_way.pop(key).returncode
                if code == 0:
                    begin()
                yield key, code, len(todo)
    finally:
        for process in under_way.values():
            process.terminate()
        for process in under_way.values():
            process.wait()
