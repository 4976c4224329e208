"""What safety costs: a training step with and without FiniteGuard, and an epoch with and without --deterministic.

    python benchmarks/guards.py docs/results/guards.json

Steps are timed in turn within one round (A B A B), ratios are taken within a round, their median counts. Whether
operations are deterministic is fixed for a process, so that pair is timed as whole processes, also in turn.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

ROUNDS = 9
STEPS = 6


def guard() -> dict[str, float]:
    """Ratio of steps with the guard to steps without it, for the ResNet of fashion_500 and for the MLP."""
    from prl_keras.startup import start_keras

    start_keras(0)
    import keras
    import numpy as np

    from prl_keras.data.batches import Batches
    from prl_keras.models import build_classifier, mlp_encoder, resnet18
    from prl_keras.models.layer_types import FAST
    from prl_keras.runs import Run
    from prl_keras.training.average import adam
    from prl_keras.training.callbacks import FiniteGuard
    from prl_keras.training.writer import CheckpointWriter

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (STEPS * 128, 28, 28, 3), dtype=np.uint8)
    batches = Batches(images, rng.integers(0, 10, len(images)), 128, 0)
    encoders = {"resnet18": resnet18((28, 28, 3), layer_types=FAST), "mlp": mlp_encoder((28, 28, 3))}
    ratios = {}
    for name, encoder in encoders.items():
        model = build_classifier(encoder, 10)
        optimizer = adam(1e-3, 100 * STEPS, average=True)
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        read_loss = keras.callbacks.LambdaCallback(  # TensorBoardLog does so at every step, guard or not
            on_train_batch_end=lambda batch, logs, model=model: float(model.metrics[0].total)
        )
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS + 1):
            for guarded in (False, True):
                callbacks = [read_loss, *([FiniteGuard(CheckpointWriter(Run(Path())), batches)] if guarded else [])]
                timer = Timer(keras)
                model.fit(batches, shuffle=False, verbose=0, callbacks=[*callbacks, timer.callback])
                seconds[guarded].append(statistics.median(timer.steps[1:]))
        ratios[name] = statistics.median(b / a for a, b in list(zip(*seconds.values(), strict=True))[1:])
    return ratios


class Timer:
    """Seconds from the end of a step to the end of the next."""

    def __init__(self, keras):
        self.steps: list[float] = []
        self.last = time.perf_counter()
        self.callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: self.tick())

    def tick(self) -> None:
        now = time.perf_counter()
        self.steps.append(now - self.last)
        self.last = now


def deterministic(dataset: list[str], rounds: int = 3) -> float:
    """Ratio of training seconds with --deterministic to those without it (second epoch of two)."""
    ratios = []
    for _ in range(rounds):
        seconds = []
        for flag in ([], ["--deterministic"]):
            with tempfile.TemporaryDirectory() as folder:
                words = ["pretrain", "--variant", "query", *dataset, "--epochs", "2", "--name", "x", *flag]
                command = [sys.executable, "main.py", *words, "--runs-dir", folder]
                subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
                lines = (Path(folder) / "x" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
                seconds.append(json.loads(lines[-1])["seconds"])
        ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios)


if __name__ == "__main__":
    result = {"guard_step_ratio": guard()}
    result["deterministic_epoch_ratio"] = {
        "digits": deterministic(["--dataset", "digits"]),
        "fashion_500": deterministic(["--dataset", "fashion_500"]),
    }
    print(json.dumps(result, indent=1))
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
