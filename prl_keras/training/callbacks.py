"""What happens at the edges of an epoch: order, monitoring, metrics.jsonl, checkpoint.

Imports `prototypes`, `models`, `runs` and `training.checkpoint`.
"""

import json
import math
import time

import keras
import numpy as np

from prl_keras.data.batches import Batches
from prl_keras.models.encode import encode
from prl_keras.prototypes import class_prototypes, prototype_logits
from prl_keras.runs import Run, atomic_path
from prl_keras.training.checkpoint import save_checkpoint


class EpochOrder(keras.callbacks.Callback):
    """Tell the batches which epoch it is, so that their order is the same after a resume."""

    def __init__(self, batches: Batches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.batches.epoch = epoch


class RepresentationMonitor(keras.callbacks.Callback):
    """Log `val_prototype_accuracy`: validation features classified by the prototypes of train features.

    Args:
        encoder: raw images -> features.
        train_images, train_labels, val_images, val_labels: the splits.
        num_classes: of the data set.
        support_per_class: prototypes are means of this many training images; enough for a stable mean
            at a small part of an epoch's cost.
    """

    def __init__(
        self,
        encoder: keras.Model,
        train: tuple[np.ndarray, np.ndarray],
        validation: tuple[np.ndarray, np.ndarray],
        num_classes: int,
        support_per_class: int = 50,
    ):
        super().__init__()
        self.encoder = encoder
        self.num_classes = num_classes
        rows = [np.flatnonzero(train[1] == k)[:support_per_class] for k in range(num_classes)]
        rows = np.sort(np.concatenate(rows))
        self.support = train[0][rows], train[1][rows]
        self.validation = validation

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs["val_prototype_accuracy"] = self.accuracy()

    def accuracy(self) -> float:
        images, labels = self.support
        prototypes, _ = class_prototypes(labels, encode(self.encoder, images), self.num_classes)
        images, labels = self.validation
        logits = prototype_logits(encode(self.encoder, images), prototypes)
        return float(np.mean(np.argmax(logits, axis=-1) == labels))


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
        values = {key: _number(value) for key, value in logs.items()}
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


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    value = float(value)
    return round(value, 6) if math.isfinite(value) else None
