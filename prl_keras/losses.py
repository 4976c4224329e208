"""The losses: pure functions, and thin `keras.losses.Loss` classes around them. The contrastive ones are defined in
`prl_keras.contrastive`, what all share in `prl_keras.embedding_loss`.

Every function computes in float32, or in float64 where its input is float64.
"""

import math
from collections import Counter

import keras
import numpy as np
from keras import KerasTensor, ops

from prl_keras.bounds import least_loss, target_entropy
from prl_keras.contrastive import NTXentLoss, SupervisedContrastiveLoss, nt_xent_loss, supervised_contrastive_loss
from prl_keras.embedding_loss import NEVER, EmbeddingLoss, Outlook, check_smoothing, masked_mean
from prl_keras.episodes import (
    VARIANTS,
    Episode,
    Variant,
    check_episode,
    cross_view_episode,
    prototypical_episode,
    queries_of,
)
from prl_keras.labels import checked_labels
from prl_keras.prototypes import Distance, one_hot_labels

__all__ = [
    "VARIANTS",
    "CrossViewLoss",
    "Episode",
    "NTXentLoss",
    "Outlook",
    "PrototypicalLoss",
    "SupervisedContrastiveLoss",
    "Variant",
    "cross_view_loss",
    "nt_xent_loss",
    "prototypical_episode",
    "prototypical_loss",
    "supervised_contrastive_loss",
]


def prototypical_loss(
    labels: KerasTensor,
    embeddings: KerasTensor,
    num_classes: int,
    variant: Variant = "query",
    distance: Distance = "euclidean",
    temperature: float = 1.0,
    query_fraction: float = 0.25,
    label_smoothing: float = 0.0,
) -> KerasTensor:
    """Mean cross-entropy of the answerable queries: Snell et al. 2017, eq. 2, as PRL's pre-training loss.

    Scalar. With no answerable query the loss and its gradient are 0. Arguments: see `prototypical_episode`.

    Args:
        label_smoothing: this part of the target is spread evenly over the classes that have support, the own one
            included, and the rest is on the own class (Szegedy et al. 2016, section 7).

    Raises:
        InputError: an argument out of its range, or labels of another shape.
    """
    check_smoothing(label_smoothing)
    episode = prototypical_episode(labels, embeddings, num_classes, variant, distance, temperature, query_fraction)
    return _cross_entropy(episode, labels, label_smoothing)


def cross_view_loss(
    labels: KerasTensor,
    first_view: KerasTensor,
    second_view: KerasTensor,
    num_classes: int,
    distance: Distance = "cosine",
    temperature: float = 0.1,
    label_smoothing: float = 0.0,
) -> KerasTensor:
    """Each view's prototypes classify the other view, without the image itself: mean of both directions, scalar.

    As in SwAV (Caron et al. 2020) and PAWS (Assran et al. 2021) views are swapped; the prototypes are class means.

    Args:
        labels: (n,) or (n, 1) integers, of the images.
        first_view, second_view: (n, dim) embeddings.
        label_smoothing: see `prototypical_loss`.

    Raises:
        InputError: an argument out of its range, or labels of another shape.
    """
    check_smoothing(label_smoothing)
    there, back = (
        cross_view_episode(labels, support, queries, num_classes, distance, temperature)
        for support, queries in ((first_view, second_view), (second_view, first_view))
    )
    return (_cross_entropy(there, labels, label_smoothing) + _cross_entropy(back, labels, label_smoothing)) / 2


def _cross_entropy(episode: Episode, labels: KerasTensor, label_smoothing: float) -> KerasTensor:
    """Mean over the answerable queries."""
    own_class = one_hot_labels(labels, episode.logits.shape[-1], episode.logits.dtype)
    log_probability = ops.log_softmax(episode.logits, axis=-1)
    cross_entropy = -ops.sum(own_class * log_probability, axis=-1)
    if label_smoothing:
        has_support = episode.logits > NEVER / 2  # NEVER itself is rounded on its way into float64
        of_all = -ops.sum(ops.where(has_support, log_probability, 0.0), axis=-1)
        classes = ops.sum(ops.cast(has_support, log_probability.dtype), axis=-1)
        spread = of_all / ops.maximum(classes, 1.0)
        cross_entropy = (1.0 - label_smoothing) * cross_entropy + label_smoothing * spread
    return masked_mean(cross_entropy, episode.answerable)


@keras.saving.register_keras_serializable("prl_keras")
class PrototypicalLoss(EmbeddingLoss):
    """`loss(labels, embeddings)` -> scalar: PRL's loss. See `prototypical_episode` for the variants.

        PrototypicalLoss(10, "loo", "cosine", temperature=0.1)(labels, embeddings)

    Args:
        num_classes: number of classes of the data set; a batch need not contain all.
        variant: "standard", "query" or "loo".
        distance: "euclidean" (the paper), "squared" (Snell et al.) or "cosine".
        temperature: positive; logits are divided by it. With cosine, 1 is much too high (see `bounds.least_loss`): 0.1.
        query_fraction: share of the batch that is queried; used by variant "query" only.
        label_smoothing: at least 0 and below 1; see `prototypical_loss`.

    Raises:
        InputError: an argument out of its range; labels that are not class numbers; sample weights.
    """

    def __init__(
        self,
        num_classes: int,
        variant: Variant = "query",
        distance: Distance = "euclidean",
        temperature: float = 1.0,
        query_fraction: float = 0.25,
        name: str = "prototypical_loss",
        label_smoothing: float = 0.0,
    ):
        super().__init__(name=name, reduction=None)
        check_episode(num_classes, variant, distance, temperature, query_fraction)
        check_smoothing(label_smoothing)
        self.num_classes = num_classes
        self.variant = variant
        self.distance = distance
        self.temperature = temperature
        self.query_fraction = query_fraction
        self.label_smoothing = label_smoothing

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        return prototypical_loss(y_true, y_pred, **self._options(), label_smoothing=self.label_smoothing)

    def episode(self, labels: KerasTensor, embeddings: KerasTensor) -> Episode:
        """The classification behind the loss, for metrics."""
        return prototypical_episode(labels, embeddings, **self._options())

    def chance(self, batch_size: int) -> float:
        """The loss of equal embeddings, when as many classes as possible have support; for real batches: `outlook`."""
        return math.log(min(self.num_classes, max(batch_size - self._queries(batch_size), 1)))

    def outlook(self, labels: np.ndarray, dim: int | None = None) -> Outlook:
        """Of a batch with these labels, (batch,) or (batch, 1), and embeddings (batch, dim); None: of any size.

        In "standard" every image is part of its own prototype, so that embeddings without any sense come out well:
        there is no loss and no accuracy of chance.
        """
        labels = checked_labels(labels)
        queries = self._queries(len(labels))
        asked, support = (labels[len(labels) - queries :], labels[:-queries]) if queries else (labels, labels)
        if self.variant == "query" and not queries:
            return Outlook(0, 0, None, None, 0.0, {})
        known = [part[(part >= 0) & (part < self.num_classes)] for part in (asked, support)]
        counts = np.bincount(known[1], minlength=self.num_classes)
        classes = int(np.count_nonzero(counts))
        answered = known[0][(counts[known[0]] > (self.variant != "query")) & (classes > 1)]
        least = self._least_loss(classes, dim) if classes else 0.0
        chance = (math.log(classes), 1 / classes) if classes and self.variant != "standard" else (None, None)
        return Outlook(len(asked), len(answered), *chance, least, dict(Counter(answered.tolist())))

    def _least_loss(self, classes: int, dim: int | None) -> float:
        """Of so many classes that have support. Distances have no limit: any target can be met."""
        if self.distance != "cosine":
            return float(target_entropy(1, classes - 1, self.label_smoothing))
        return float(least_loss(1, classes - 1, classes, self.temperature, dim, self.label_smoothing))

    def _queries(self, batch_size: int) -> int:
        """How many rows are queries and not support."""
        return queries_of(batch_size, self.query_fraction) if self.variant == "query" else 0

    def _options(self) -> dict:
        return {
            "num_classes": self.num_classes,
            "variant": self.variant,
            "distance": self.distance,
            "temperature": self.temperature,
            "query_fraction": self.query_fraction,
        }

    def get_config(self) -> dict:
        return {"name": self.name, **self._options(), "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable("prl_keras")
class CrossViewLoss(EmbeddingLoss):
    """`loss(labels, views)`: `cross_view_loss` of the two halves of `views` (2n, dim); labels (2n,), the same twice.

        CrossViewLoss(10)(labels, views)

    Args:
        num_classes: number of classes of the data set; a batch need not contain all.
        distance, temperature: as in `PrototypicalLoss`.
        label_smoothing: at least 0 and below 1.

    Raises:
        InputError: an argument out of its range; labels that are not class numbers; sample weights.
    """

    def __init__(
        self,
        num_classes: int,
        distance: Distance = "cosine",
        temperature: float = 0.1,
        label_smoothing: float = 0.0,
        name: str = "cross_view_loss",
    ):
        super().__init__(name=name, reduction=None)
        check_episode(num_classes, "loo", distance, temperature)
        check_smoothing(label_smoothing)
        self.num_classes = num_classes
        self.distance = distance
        self.temperature = temperature
        self.label_smoothing = label_smoothing

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        first_view, second_view = ops.split(y_pred, 2, axis=0)
        return cross_view_loss(ops.split(y_true, 2, axis=0)[0], first_view, second_view, **self._options())

    def outlook(self, labels: np.ndarray, dim: int | None = None) -> Outlook:
        """Of a batch of two views of images with these labels, (batch,) or (batch, 1), and embeddings (2 batch, dim);
        accuracy: that the other view is nearest."""
        loo = PrototypicalLoss(
            self.num_classes, "loo", self.distance, self.temperature, label_smoothing=self.label_smoothing
        )
        others = 2 * len(labels) - 1
        return loo.outlook(labels, dim)._replace(accuracy=1 / others if others > 1 else None, of_class={})

    def _options(self) -> dict:
        return {
            "num_classes": self.num_classes,
            "distance": self.distance,
            "temperature": self.temperature,
            "label_smoothing": self.label_smoothing,
        }

    def get_config(self) -> dict:
        return {"name": self.name, **self._options()}
