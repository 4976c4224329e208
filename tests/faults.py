"""Run the program, kill it at a chosen moment, and read what it left without any of its own code."""

import hashlib
import io
import random
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PATIENCE = 300  # seconds for one process
PHASES = ("data preparation", "first epoch", "checkpoint writing", "last epoch", "saving")


def program(words: Sequence[str]) -> list[str]:
    return [sys.executable, "main.py", *words]


def run_program(words: Sequence[str], expected: int | None = 0, **kwargs) -> subprocess.CompletedProcess:
    done = subprocess.run(program(words), cwd=ROOT, capture_output=True, encoding="utf-8", timeout=PATIENCE, **kwargs)
    assert expected in (None, done.returncode), (done.returncode, done.stderr[-2000:])
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    return done


def kill_after(words: Sequence[str], happened: Callable[[], bool], delay: float) -> bool:
    """Start the program, SIGKILL it `delay` seconds after something happened; False if it ended before."""
    process = subprocess.Popen(program(words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: happened() or process.poll() is not None)
        time.sleep(delay)
    finally:
        process.kill()
    return process.wait() == -signal.SIGKILL


def wait_until(happened: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def weights(file: Path) -> str:
    """SHA-256 over the name, shape, type and bytes of every weight in a `.keras` file."""
    digest = hashlib.sha256()

    def add(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(f"{name}{item.shape}{item.dtype}".encode() + np.ascontiguousarray(item[()]).tobytes())

    with zipfile.ZipFile(file) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as content:
        content.visititems(add)
    return digest.hexdigest()


def checkpoints(run: Path) -> set[str]:
    return {path.name for path in (run / "checkpoint").glob("epoch-*.npz")}


def half_written(run: Path) -> bool:
    return any((run / "checkpoint").glob(".tmp-*"))


def moments(run: Path, epochs: int) -> dict[str, tuple[Callable[[], bool], float]]:
    """Phase of a run's life -> (has it begun, how many seconds after that to kill at the latest)."""
    lines = run / "metrics.jsonl"
    return {
        "data preparation": (lambda: True, 4.0),
        "first epoch": (lambda: (run / "config.json").exists(), 3.0),
        "checkpoint writing": (lambda: len(checkpoints(run)) == 2 and half_written(run), 0.3),  # the third
        "last epoch": (lambda: lines.exists() and lines.read_text(encoding="utf-8").count("\n") == epochs - 1, 1.0),
        "saving": (lambda: f"epoch-{epochs:05d}.npz" in checkpoints(run), 2.0),
    }


def draw_delay(seed: int, longest: float) -> float:
    return random.Random(seed).uniform(0, longest)


def stop_after_first_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C would, in this process, when the state after an epoch is saved."""
    from prl_keras.training.writer import CheckpointWriter

    save = CheckpointWriter.save

    def save_then_stop(writer: Any, *arguments: object) -> None:
        save(writer, *arguments)
        writer.wait()
        raise KeyboardInterrupt

    patch.setattr(CheckpointWriter, "save", save_then_stop)


def save_checkpoint(model: Any, run: Any, *more: Any, **named: Any) -> Path:
    """The file of a model's state as it is now; `more`: see `taken`."""
    from prl_keras.training.checkpoint import taken, write

    return write(run, taken(model, *more, **named))
