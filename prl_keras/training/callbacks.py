"""What happens at the edges of an epoch: order, metrics.jsonl, checkpoint. Imports `runs`, `training.checkpoint`."""

import json
import math
import time

import keras
import numpy as np

from prl_keras.data.batches import Batches
from prl_keras.models.encode import encode
from prl_keras.runs import Run, atomic_path
from prl_keras.training.checkpoint import save_checkpoint


class EpochOrder(keras.callbacks.Callback):
    """Tell the batches which epoch it is, so that their order is the same after a resume."""

    def __init__(self, batches: Batches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.batches.epoch = epoch


class TestAccuracy(keras.callbacks.Callback):
    """Add test_accuracy, of the weights at the end of the epoch, to the epoch's logs: the paper's protocol.

    Args:
        inputs, labels: (n, ...) what the trained model takes, and (n,) integers.
    """

    def __init__(self, inputs: np.ndarray, labels: np.ndarray):
        super().__init__()
        self.inputs, self.labels = inputs, labels

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        predicted = encode(self.model, self.inputs).argmax(axis=-1)
        logs["test_accuracy"] = float(np.mean(predicted == self.labels))


class MetricsLog(keras.callbacks.Callback):
    """Keep metrics.jsonl: one line an epoch, the constants first, rewritten atomically."""

    def __init__(self, run: Run, images_per_epoch: int, constants: dict[str, float], first_epoch: int = 0):
        super().__init__()
        self.run = run
        self.images_per_epoch = images_per_epoch
        self.constants = constants
        self.lines = [line for line in run.metrics if line["epoch"] <= first_epoch]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        seconds = time.monotonic() - self.started
        values = {key: finite(value) for key, value in logs.items()}
        values["learning_rate"] = finite(self.model.optimizer.learning_rate)
        self.lines.append(
            {"epoch": epoch + 1, **self.constants, **values, "seconds": round(seconds, 3)}
            | {"images_per_second": round(self.images_per_epoch / seconds, 1)}
        )
        with atomic_path(self.run.path / "metrics.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.lines))


class Checkpoint(keras.callbacks.Callback):
    """Save the complete state of the training after every epoch. Goes last: it also vouches for the rest."""

    def __init__(self, run: Run):
        super().__init__()
        self.run = run

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        save_checkpoint(self.model, self.run, epoch + 1)


def finite(value: float) -> float | None:
    """Rounded for metrics.jsonl; None for NaN and infinity, which JSON lacks."""
    value = float(value)
    return round(value, 6) if math.isfinite(value) else None
