"""The losses: pure functions, and thin `keras.losses.Loss` classes around them. The contrastive ones are defined in
`prl_keras.contrastive`, what all share in `prl_keras.embedding_loss`.

Every function computes in float32, or in float64 where its input is float64.
"""

import math
import numbers
from collections import Counter
from typing import Literal, NamedTuple

import keras
import numpy as np
from keras import KerasTensor, ops

from prl_keras.bounds import least_loss, target_entropy
from prl_keras.contrastive import NTXentLoss, SupervisedContrastiveLoss, nt_xent_loss, supervised_contrastive_loss
from prl_keras.embedding_loss import NEVER, EmbeddingLoss, Outlook, check_smoothing, masked_mean
from prl_keras.errors import InputError
from prl_keras.labels import checked_labels
from prl_keras.prototypes import (
    Distance,
    as_float,
    check_distance,
    class_prototypes,
    l2_normalise,
    one_hot_labels,
    paired_numbers,
    prototype_logits,
    safe_sqrt,
)

__all__ = [
    "VARIANTS",
    "Episode",
    "NTXentLoss",
    "Outlook",
    "PrototypicalLoss",
    "SupervisedContrastiveLoss",
    "Variant",
    "nt_xent_loss",
    "prototypical_episode",
    "prototypical_loss",
    "supervised_contrastive_loss",
]

Variant = Literal["standard", "query", "loo"]
VARIANTS = ("standard", "query", "loo")

_ROUNDING = 1e-6  # keeps a fraction such as 0.29 of 100 rows from losing one row


class Episode(NamedTuple):
    """A batch seen as queries that are classified by the prototypes of its support.

    logits: (batch, num_classes); is_query: (batch,) bool, the rows that should receive the loss;
    answerable: (batch,) bool, the queries whose class has support, and another class too, so that there is a question;
    only these do receive it;
    telling: (batch,) bool, those of them that do not make up their class's support all alone (standard only).
    """

    logits: KerasTensor
    is_query: KerasTensor
    answerable: KerasTensor
    telling: KerasTensor


def prototypical_episode(
    labels: KerasTensor,
    embeddings: KerasTensor,
    num_classes: int,
    variant: Variant = "query",
    distance: Distance = "euclidean",
    temperature: float = 1.0,
    query_fraction: float = 0.25,
) -> Episode:
    """Classify the queries of a batch by their distance to the prototypes of its support.

    standard: every sample is support and query. query: the last `query_fraction` of the rows are the
    queries, the rest is the support. loo: every sample is a query and is left out of its own class's
    prototype, (S_k - z_i) / (n_k - 1).

    Args:
        labels: (batch,) or (batch, 1) integers; a label outside 0..num_classes-1 is neither support nor answerable.
        embeddings: (batch, dim), any float dtype.

    Raises:
        InputError: an argument out of its range, or labels of another shape.
    """
    _check_options(num_classes, variant, distance, temperature, query_fraction)
    embeddings = as_float(embeddings)
    labels = paired_numbers(labels, embeddings)
    if distance == "cosine":
        embeddings = l2_normalise(embeddings)
    batch = ops.shape(embeddings)[0]
    is_query = ops.ones_like(labels, dtype="bool")
    support_labels = labels
    if variant == "query":
        queries = ops.cast(ops.floor(ops.cast(batch, "float64") * query_fraction + _ROUNDING), "int32")
        is_query = ops.arange(batch, dtype="int32") >= batch - queries
        support_labels = ops.where(is_query, -1, labels)

    prototypes, counts = class_prototypes(support_labels, embeddings, num_classes)
    logits = prototype_logits(embeddings, prototypes, distance, temperature)
    own_class = one_hot_labels(labels, num_classes, embeddings.dtype)
    own_count = ops.matmul(own_class, counts[:, None])[:, 0]
    own_prototype = ops.matmul(own_class, prototypes)
    if variant == "loo":
        others_sum = own_prototype * own_count[:, None] - embeddings
        own_count = own_count - 1.0
        own_prototype = others_sum / ops.maximum(own_count, 1.0)[:, None]
    # the distance that matters most, from differences: it is small, where the matmul of all pairs cancels
    own_logit = _paired_logits(embeddings, own_prototype, distance, temperature)
    logits = ops.where(own_class > 0, own_logit[:, None], logits)
    logits = ops.where(counts > 0, logits, NEVER)
    is_choice = ops.sum(ops.cast(counts > 0, "int32")) > 1
    answerable = ops.logical_and(ops.logical_and(is_query, own_count > 0), is_choice)
    telling = ops.logical_and(answerable, own_count > 1) if variant == "standard" else answerable
    return Episode(logits, is_query, answerable, telling)


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
    own_class = one_hot_labels(labels, num_classes, episode.logits.dtype)
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
        _check_options(num_classes, variant, distance, temperature, query_fraction)
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
        return math.floor(batch_size * self.query_fraction + _ROUNDING) if self.variant == "query" else 0

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


def _check_options(num_classes: int, variant: str, distance: str, temperature: float, query_fraction: float) -> None:
    if not isinstance(num_classes, numbers.Integral) or num_classes < 1:
        raise InputError(f"num_classes is {num_classes!r}; expected a whole number, at least 1")
    if variant not in VARIANTS:
        raise InputError(f"variant is {variant!r}; expected one of {', '.join(VARIANTS)}")
    if not isinstance(query_fraction, numbers.Real) or not 0 < query_fraction < 1:
        raise InputError(f"query_fraction is {query_fraction!r}; expected a number between 0 and 1")
    check_distance(distance, temperature)


def _paired_logits(
    features: KerasTensor, prototypes: KerasTensor, distance: Distance, temperature: float
) -> KerasTensor:
    """Logit of row i of `features` for row i of `prototypes`: (n, dim), (n, dim) -> (n,)."""
    if distance == "cosine":
        return ops.sum(l2_normalise(features) * l2_normalise(prototypes), axis=-1) / temperature
    squares = ops.sum(ops.square(features - prototypes), axis=-1)
    return -(squares if distance == "squared" else safe_sqrt(squares)) / temperature
