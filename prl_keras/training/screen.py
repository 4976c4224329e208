"""Tells the screen what Keras does."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from prl_keras.screen.training import TrainingScreen
from prl_keras.training.callbacks import finite


class EpochScreen(keras.callbacks.Callback):
    """After whoever adds to the epoch's logs or needs its time.

    Args:
        line: the epoch's of metrics.jsonl, asked for at its end; None: there is none, and Keras's logs are shown.
    """

    def __init__(self, screen: TrainingScreen, line: Callable[[], Mapping[str, Any]] | None = None):
        super().__init__()
        self.screen, self.line = screen, line

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.screen.begin_epoch(epoch + 1)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.screen.step(batch + 1, (lambda: float(logs["loss"])) if logs else None)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.screen.end_epoch(self.line() if self.line else {key: finite(value) for key, value in logs.items()})


def figures_ahead(model: keras.Model, validated: bool, monitors: Iterable[keras.callbacks.Callback] = ()) -> set[str]:
    """Names of what the logs of an epoch will hold. The metrics of the model have seen a batch; `adds` of a monitor are
    the names of what it adds."""
    of_training = list(model.get_metrics_result())
    of_validation = [f"val_{name}" for name in of_training if validated]
    return {*of_training, *of_validation, *(name for monitor in monitors for name in getattr(monitor, "adds", ()))}
