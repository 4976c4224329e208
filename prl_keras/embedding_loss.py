"""What all losses of a batch of embeddings share."""

import numbers
from typing import NamedTuple

import keras
from keras import KerasTensor, ops

from prl_keras.errors import InputError
from prl_keras.replicas import all_sum

NEVER = -1e30  # a logit that gets no probability; finite, so that 0 * loss stays 0


class Outlook(NamedTuple):
    """What can be learned from a batch, as far as the classes of its images tell.

    queries: how many images are asked for their class or for their other view; answerable: how many of these have
    another image of their class, or view, to be found by, and something to be confused with; loss: of embeddings that
    are all equal; accuracy: of a guess among all answers; both None where there is no such figure; least_loss: of the
    best embeddings, exact where all classes are of equal size; of_class: the answerable queries by class.
    """

    queries: int
    answerable: int
    loss: float | None
    accuracy: float | None
    least_loss: float
    of_class: dict[int, int]


def check_smoothing(label_smoothing: float) -> None:
    """Raise InputError unless it is a number of at least 0 and below 1."""
    if not isinstance(label_smoothing, numbers.Real) or not 0 <= label_smoothing < 1:
        raise InputError(f"label_smoothing is {label_smoothing!r}; expected at least 0 and below 1")


def masked_mean(values: KerasTensor, mask: KerasTensor) -> KerasTensor:
    """Mean of `values` (n,) where `mask` (n,) is true; 0 if it is so nowhere.

    On several replicas, this one's share of the mean over the rows of all: the shares add up to it.
    """
    count = all_sum(ops.sum(ops.cast(mask, values.dtype)))
    return ops.sum(ops.where(mask, values, 0.0)) / ops.maximum(count, 1.0)


class EmbeddingLoss(keras.losses.Loss):
    """A loss of a whole batch: a scalar, which no weight of a single image could enter any more."""

    def __call__(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: KerasTensor | None = None):
        if sample_weight is not None:
            raise InputError(f"{self.name} takes no sample or class weights: all images of a batch count alike")
        return super().__call__(y_true, y_pred)
