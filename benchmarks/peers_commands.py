"""Whole commands as a user types them, timed from outside and, to the first step, from inside."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers_machine import load

ROOT = Path(__file__).parents[1]
_TINY = ("pretrain", "--variant", "query", "--dataset", "digits", "--epochs", "1", "--name", "x")

# The command itself, which says on its last line when it reached what.
_STAMPED = """
import json, sys, time
begun = float(sys.argv[1])
reached = {"python": time.time() - begun}
from prl_keras.startup import start_keras
start_keras(0)
reached["TensorFlow and Keras"] = time.time() - begun
from prl_keras.cli import main
from prl_keras.training.callbacks import FiniteGuard
usual = FiniteGuard.on_train_batch_end
def first(self, batch, logs=None):
    reached.setdefault("first step", time.time() - begun)
    usual(self, batch, logs)
def about_to(self, batch, logs=None):
    reached.setdefault("before the first step", time.time() - begun)
FiniteGuard.on_train_batch_end, FiniteGuard.on_train_batch_begin = first, about_to
code = main(sys.argv[2:])
reached["last line"] = time.time() - begun
print(json.dumps(reached))
sys.exit(code)
"""


def startup(quick: bool) -> dict[str, Any]:
    """Seconds from typing: to help; of one epoch of digits to the points named, medians."""
    began = load()
    helped = [_command("--help") for _ in range(2 if quick else 9)]
    stamped = [_stamped() for _ in range(1 if quick else 3)]
    points = {name: round(statistics.median(run[name] for run in stamped), 2) for name in stamped[0]}
    return {"load": began, "help": round(statistics.median(helped), 3), "digits, one epoch": points}


def whole(quick: bool) -> dict[str, Any]:
    """Seconds of pre-training on digits and of a linear head on its frozen encoder, as typed."""
    began, epochs = load(), ["--epochs", "1"] if quick else []
    with tempfile.TemporaryDirectory() as folder:
        place = ("--runs-dir", folder, "--name")
        pretrained = _command("pretrain", "--variant", "query", "--dataset", "digits", *epochs, *place, "encoder")
        words = ("finetune", "--encoder", "encoder", "--head", "linear", "--freeze", *epochs, *place, "classifier")
        finetuned = _command(*words)
    return {"load": began, "pretrain": round(pretrained, 1), "finetune, frozen": round(finetuned, 1)}


def _command(*words: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "main.py", *words], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def _stamped() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _STAMPED, repr(time.time()), *_TINY, "--runs-dir", folder]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, encoding="utf-8")
    return json.loads(done.stdout.splitlines()[-1])
