"""Cross-entropy of class numbers with smoothed labels."""

import keras
import numpy as np
from keras import KerasTensor

from prl_keras.embedding_loss import check_smoothing
from prl_keras.labels import checked_labels
from prl_keras.prototypes import one_hot_labels


@keras.saving.register_keras_serializable("prl_keras")
class SmoothedCrossEntropy(keras.losses.Loss):
    """`loss(labels, logits)`: mean over a batch of labels (batch,) or (batch, 1) and logits (batch, classes).

    The target is (1 - label_smoothing) on the own class, and label_smoothing / classes on every class, the own one
    included (Szegedy et al. 2016, section 7): `keras.losses.CategoricalCrossentropy` has it for one-hot labels only.

    Raises:
        InputError: a smoothing outside 0..1; labels that are not class numbers.
    """

    def __init__(
        self,
        label_smoothing: float,
        name: str = "smoothed_cross_entropy",
        reduction: str | None = "sum_over_batch_size",
    ):
        super().__init__(name, reduction)
        check_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        one_hot = one_hot_labels(y_true, y_pred.shape[-1], y_pred.dtype)
        return keras.losses.categorical_crossentropy(one_hot, y_pred, True, self.label_smoothing)

    def get_config(self) -> dict:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def chance(labels: np.ndarray, num_classes: int, label_smoothing: float = 0.0) -> float:
    """The cross-entropy of the best answer that is the same for every image: the entropy of the mean target.

    Args:
        labels: (n,) or (n, 1) whole numbers.
    """
    shares = np.bincount(checked_labels(labels), minlength=num_classes) / len(labels)
    target = (1 - label_smoothing) * shares + label_smoothing / num_classes
    target = target[target > 0]
    return float(-np.sum(target * np.log(target)))
