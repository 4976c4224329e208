"""The best epoch of a trial on validation: its accuracy, its loss, and what the accuracy may hide."""

from typing import Any

import keras
import numpy as np

from prl_keras.evaluation.statistics import accuracy
from prl_keras.models.encode import encode

OBJECTIVE = "val_accuracy"


class BestEpoch(keras.callbacks.Callback):
    """Keeps the figures of the most accurate epoch; of equals that with the lowest loss, then the first.

    figures: numbers only, as Keras Tuner keeps them: val_accuracy, val_loss, best_epoch (from 1), balanced, and of
    the class with the lowest recall worst_class, worst_correct and worst_n.

    Args:
        inputs, labels: of validation; what the model takes, and (n,) or (n, 1) whole numbers.
    """

    def __init__(self, inputs: np.ndarray, labels: np.ndarray):
        super().__init__()
        self.inputs, self.labels = inputs, labels
        self.figures: dict[str, float] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value, loss = float(logs[OBJECTIVE]), float(logs["val_loss"])
        if self.figures and (value, -loss) <= (self.figures[OBJECTIVE], -self.figures["val_loss"]):
            return
        figure = accuracy(encode(self.model, self.inputs).argmax(axis=-1), self.labels)
        worst = {f"worst_{key}": figure["worst"][key] for key in ("class", "correct", "n")}
        self.figures = {OBJECTIVE: value, "val_loss": loss, "best_epoch": epoch + 1, "balanced": figure["balanced"]}
        self.figures |= worst
