"""The contrastive losses, NT-Xent and SupCon: pure functions, and classes around them. Public by `prl_keras.losses`.

Every function computes in float32, or in float64 where its input is float64.
"""

import math

import keras
import numpy as np
from keras import KerasTensor, ops

from prl_keras.bounds import least_loss
from prl_keras.embedding_loss import NEVER, EmbeddingLoss, Outlook, check_smoothing, masked_mean
from prl_keras.errors import InputError
from prl_keras.labels import checked_labels
from prl_keras.prototypes import as_float, check_distance, l2_normalise, paired_numbers
from prl_keras.replicas import all_gather, all_sum, own


def nt_xent_loss(
    first_view: KerasTensor, second_view: KerasTensor, temperature: float = 0.1, label_smoothing: float = 0.0
) -> KerasTensor:
    """NT-Xent (Chen et al. 2020, eq. 1), mean over all 2n anchors.

    Args:
        first_view, second_view: (n, dim); row i of both shows the same image. Normalised here.
        temperature: positive.
        label_smoothing: see `supervised_contrastive_loss`.

    Returns:
        Scalar; ln(2n - 1) when nothing is learned, 0 for n = 1.

    Raises:
        InputError: views of different shapes, a temperature that is not a positive number, or a smoothing outside 0..1.
    """
    shapes = [tuple(ops.convert_to_tensor(view).shape) for view in (first_view, second_view)]
    if len(shapes[0]) != len(shapes[1]) or any(a != b for a, b in zip(*shapes, strict=True) if None not in (a, b)):
        raise InputError(f"first_view is {shapes[0]}, second_view {shapes[1]}; expected the same images in both")
    images = ops.shape(first_view)[0]
    labels = own(ops.arange(all_sum(images), dtype="int32"), images)
    views = ops.concatenate([first_view, second_view], axis=0)
    return supervised_contrastive_loss(ops.concatenate([labels, labels]), views, temperature, label_smoothing)


def supervised_contrastive_loss(
    labels: KerasTensor, embeddings: KerasTensor, temperature: float = 0.1, label_smoothing: float = 0.0
) -> KerasTensor:
    """L_out of SupCon (Khosla et al. 2020, eq. 2), without their base temperature; mean over anchors.

    Args:
        labels: (n,) or (n, 1) integers; rows with equal labels are positives of each other.
        embeddings: (n, dim), all views stacked. Normalised here.
        temperature: positive.
        label_smoothing: this part of the target is spread evenly over all other samples, positives included, and the
            rest evenly over the positives, as in L_out (after Szegedy et al. 2016, section 7).

    Returns:
        Scalar. Anchors without a positive are left out; with none left, loss and gradient are 0.

    Raises:
        InputError: labels of another shape, a temperature that is not a positive number, or a smoothing outside 0..1.
    """
    check_distance("cosine", temperature)
    check_smoothing(label_smoothing)
    embeddings = l2_normalise(as_float(embeddings))
    labels = paired_numbers(labels, embeddings)
    others, their_labels = all_gather(embeddings), all_gather(labels)
    similarities = ops.matmul(embeddings, ops.transpose(others)) / temperature
    count = ops.shape(their_labels)[0]
    rows = ops.arange(count)
    itself = own(rows, ops.shape(labels)[0])[:, None] == rows[None, :]
    log_probability = ops.log_softmax(ops.where(itself, NEVER, similarities), axis=-1)
    positive = ops.logical_and(labels[:, None] == their_labels[None, :], ops.logical_not(itself))
    positives = ops.sum(ops.cast(positive, embeddings.dtype), axis=-1)
    per_anchor = -ops.sum(ops.where(positive, log_probability, 0.0), axis=-1)
    per_anchor = per_anchor / ops.maximum(positives, 1.0)
    if label_smoothing:
        of_all = -ops.sum(ops.where(itself, 0.0, log_probability), axis=-1)
        rest = ops.cast(ops.maximum(count - 1, 1), embeddings.dtype)
        per_anchor = (1.0 - label_smoothing) * per_anchor + label_smoothing * of_all / rest
    return masked_mean(per_anchor, positives > 0)


class _ContrastiveLoss(EmbeddingLoss):
    """What NT-Xent and SupCon share: two stacked views, a temperature, and label smoothing."""

    def __init__(self, temperature: float = 0.1, name: str | None = None, label_smoothing: float = 0.0):
        super().__init__(name=name, reduction=None)
        check_distance("cosine", temperature)
        check_smoothing(label_smoothing)
        self.temperature = temperature
        self.label_smoothing = label_smoothing

    def chance(self, batch_size: int) -> float:
        """The loss when all embeddings are equally similar: ln(2 * batch_size - 1)."""
        return math.log(2 * batch_size - 1)

    def outlook(self, labels: np.ndarray, dim: int | None = None) -> Outlook:
        """Of a batch of two views of images with these labels, (batch,) or (batch, 1), and embeddings (2 batch, dim);
        accuracy: that the other view is nearest."""
        labels = checked_labels(labels)
        others = 2 * len(labels) - 1
        _, own, counts = np.unique(self._classes(labels), return_inverse=True, return_counts=True)
        positives = 2 * counts[own] - 1
        least = least_loss(positives, others - positives, len(counts), self.temperature, dim, self.label_smoothing)
        answerable = len(labels) if len(labels) > 1 else 0  # the only other view is the right one
        return Outlook(len(labels), answerable, self.chance(len(labels)), 1 / others, float(np.mean(least)), {})

    def get_config(self) -> dict:
        return {"name": self.name, "temperature": self.temperature, "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable("prl_keras")
class NTXentLoss(_ContrastiveLoss):
    """`loss(labels, views)`: `nt_xent_loss` of the two halves of `views` (2n, dim); labels are ignored.

        NTXentLoss(temperature=0.07)(labels, views)

    Args:
        temperature: positive; similarities are divided by it.
        label_smoothing: at least 0 and below 1.

    Raises:
        InputError: an argument out of its range; sample weights.
    """

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        first_view, second_view = ops.split(y_pred, 2, axis=0)
        return nt_xent_loss(first_view, second_view, self.temperature, self.label_smoothing)

    def _classes(self, labels: np.ndarray) -> np.ndarray:
        return np.arange(len(labels))


@keras.saving.register_keras_serializable("prl_keras")
class SupervisedContrastiveLoss(_ContrastiveLoss):
    """`loss(labels, views)`: `supervised_contrastive_loss` of `views` (2n, dim) with labels (2n,).

        SupervisedContrastiveLoss(temperature=0.1)(labels, views)

    Args:
        temperature: positive; similarities are divided by it.
        label_smoothing: at least 0 and below 1.

    Raises:
        InputError: an argument out of its range; sample weights.
    """

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        return supervised_contrastive_loss(y_true, y_pred, self.temperature, self.label_smoothing)

    def _classes(self, labels: np.ndarray) -> np.ndarray:
        return labels
