"""What a run writes into logs/ for TensorBoard.

logs/train, logs/validation                scalars: one an epoch, and the loss of every step
logs/chance, logs/chance_validation        what embeddings that tell nothing have there
logs/least                                 the least possible loss, where that is not near 0
logs/run                                   the configuration, the augmented views, hyperparameters
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from prl_keras.replicas import number
from prl_keras.runs import Run
from prl_keras.training.callbacks import MetricsLog

# what a key of metrics.jsonl begins with -> the writer of the rest of it; the first that fits
_WRITERS = {
    "val_": "validation",
    "chance_val_": "chance_validation",
    "chance_": "chance",
    "least_": "least",
    "": "train",
}


class TensorBoardLog(keras.callbacks.Callback):
    """The lines of metrics.jsonl as scalars, in charts that hold train, validation and chance together.

    Args:
        run: its logs/ are written to.
        metrics: has written the epoch's line before this callback is called.
    """

    def __init__(self, run: Run, metrics: MetricsLog):
        super().__init__()
        self.metrics = metrics
        self.writers = {name: _writer(run, name) for name in _WRITERS.values()}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.first_step = epoch * self.params["steps"]
        self.seen = self._totals()  # not zero in the middle of an epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """The step's own loss: Keras's logs have the mean since the epoch began."""
        total, count = self._totals()
        if count > self.seen[1]:
            loss = (total - self.seen[0]) / (count - self.seen[1])
            self._scalar("train", "step/loss", loss, self.first_step + batch + 1)
        self.seen = (total, count)

    def _totals(self) -> tuple[float, float]:
        tracker = next(metric for metric in self.model.metrics if metric.name == "loss")
        return number(tracker.total), number(tracker.count)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        for key, value in self.metrics.lines[-1].items():
            if key == "epoch" or value is None:
                continue
            prefix = next(prefix for prefix in _WRITERS if key.startswith(prefix))
            self._scalar(_WRITERS[prefix], f"epoch/{key.removeprefix(prefix)}", value, epoch + 1)
        for writer in self.writers.values():
            writer.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        for writer in self.writers.values():
            writer.close()

    def _scalar(self, name: str, tag: str, value: float, step: int) -> None:
        with self.writers[name].as_default():
            tf.summary.scalar(tag, value, step=step)


def log_config(run: Run) -> None:
    with _writer(run, "run").as_default():
        tf.summary.text("config", f"```json\n{json.dumps(run.config, indent=2)}\n```", step=0)


def log_views(run: Run, augmentation: keras.Layer, images: np.ndarray) -> None:
    """A grid of what the loss sees: some images (top row) and two random views of each.

    A copy of the layer draws the views, so that training sees the random numbers that it would have seen.
    """
    copy = type(augmentation).from_config(augmentation.get_config())
    rows = [images, *np.split(np.asarray(copy(np.concatenate([images, images]), training=True)), 2)]
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    log_image(run, "views: image, first view, second view", np.rint(grid).clip(0, 255).astype(np.uint8))


def log_image(run: Run, tag: str, image: np.ndarray | Path) -> None:
    """(height, width, 3) uint8, or a PNG file."""
    if isinstance(image, Path):
        image = tf.io.decode_png(tf.io.read_file(str(image)), channels=3).numpy()
    with _writer(run, "run").as_default():
        tf.summary.image(tag, image[None], step=0)


def log_hparams(run: Run, options: Mapping[str, Any], validation_accuracy: float) -> None:
    """A row of TensorBoard's HParams tab. No test figure: the tab is for choosing."""
    from tensorboard.plugins.hparams import api

    values = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in options.items()}
    with _writer(run, "run").as_default():
        api.hparams(values, trial_id=run.name)
        tf.summary.scalar("validation_accuracy", validation_accuracy, step=0)


def _writer(run: Run, name: str) -> tf.summary.SummaryWriter:
    return tf.summary.create_file_writer(str(run.path / "logs" / name))
