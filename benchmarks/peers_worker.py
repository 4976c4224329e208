"""A process of its own for each side of a comparison, which works only when it is told to.

Thread pools of two libraries in one process would disturb each other, as would two sides that compute at a time. A
worker reads one question a line, [kind, arguments] as JSON, and answers each with one line.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

OURS, THEIRS = "peers_ours.py", "peers_torch.py"
CLASSES = 10
TWO_VIEWS = ("simclr", "supcon", "views")
TEMPERATURES = {"simclr": 0.07, "supcon": 0.1}  # of both sides; prototypes: 1
WARM = 2  # calls that nobody times: tracing, compiling, caches


class WorkerError(RuntimeError):
    """What a worker failed with, in one line; or that it ended."""


class Worker:
    """The parent's end. A worker whose `with` block ends is gone."""

    def __init__(self, file: str):
        # a pool's settings are what its library makes of this machine, not what some shell had
        usual = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "TF_NUM_", "MKL_"))}
        command = [sys.executable, str(Path(__file__).with_name(file))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        self.process = subprocess.Popen(command, env=usual, **pipes)

    def ask(self, kind: str, /, **arguments: Any) -> Any:
        """Raises WorkerError."""
        self.process.stdin.write(json.dumps([kind, arguments]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"the worker ended at {kind} with exit code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["answer"]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def serve(jobs: dict[str, Callable[..., tuple]], answers: dict[str, Callable[..., Any]]) -> None:
    """The worker's end, until the parent closes the pipe.

    jobs: kind -> function of the settings that makes (what is to be timed, facts about it). What is to be timed takes
    nothing, and gives its own seconds, or None: those of the call count. answers: kind -> function that answers now.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    prepared: dict[str, Callable[[], float | None]] = {}

    def prepare(name: str, kind: str, warm: int = WARM, **settings: Any) -> dict[str, Any]:
        prepared[name], facts = jobs[kind](**settings)
        started = time.perf_counter()
        for _ in range(warm):
            prepared[name]()
        return facts | {"seconds_to_warm": round(time.perf_counter() - started, 2)}

    def timed(name: str, calls: int) -> list[float]:
        return [_seconds(prepared[name]) for _ in range(calls)]

    known = {"prepare": prepare, "time": timed, "memory": most_megabytes, **answers}
    for line in sys.stdin:
        kind, arguments = json.loads(line)
        try:
            answer = {"answer": known[kind](**arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        out.write(json.dumps(answer) + "\n")
        out.flush()


def _seconds(job: Callable[[], float | None]) -> float:
    started = time.perf_counter()
    own = job()
    return time.perf_counter() - started if own is None else own


def most_megabytes() -> float:
    """Of resident memory, that this process had at any time."""
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def made_up(size: int, batch: int, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (batch, size, size, 3) and labels int64 (batch,), the same on both sides.

    Squares and noise: of noise alone all embeddings are alike, and what tells them apart is lost in rounding.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 224, (batch, 4, 4, 3)).repeat(-(-size // 4), 1).repeat(-(-size // 4), 2)
    images = coarse[:, :size, :size] + rng.integers(0, 32, (batch, size, size, 3))
    return images.astype(np.uint8), rng.integers(0, classes, batch)


def embedded(batch: int, classes: int, dim: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """float32 (batch, dim) and labels (batch,), for a loss alone."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, dim)).astype("float32"), rng.integers(0, classes, batch)


def best_rate(multiply: Callable[[int], Callable[[], Any]], sizes: Iterable[int], calls: int = 5) -> dict[str, float]:
    """Multiply-adds a second of a product of two square matrices, by size; the best of some calls each."""
    rates = {}
    for size in sizes:
        product = multiply(size)
        product()  # caches, threads
        started = [time.perf_counter()]
        for _ in range(calls):
            product()
            started.append(time.perf_counter())
        rates[str(size)] = size**3 / min(after - before for before, after in pairwise(started))
    return rates
