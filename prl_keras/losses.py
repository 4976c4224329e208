"""The losses: pure functions, and thin `keras.losses.Loss` classes around them.

Every function computes in float32, or in float64 where its input is float64.
"""

import math
import numbers
from typing import Literal, NamedTuple

import keras
import numpy as np
from keras import KerasTensor, ops

from prl_keras.bounds import least_loss
from prl_keras.errors import InputError
from prl_keras.labels import checked_labels
from prl_keras.prototypes import (
    Distance,
    as_float,
    check_distance,
    class_numbers,
    class_prototypes,
    l2_normalise,
    one_hot_labels,
    prototype_logits,
    safe_sqrt,
)

Variant = Literal["standard", "query", "loo"]
VARIANTS = ("standard", "query", "loo")

_ROUNDING = 1e-6  # keeps a fraction such as 0.29 of 100 rows from losing one row
NEVER = -1e30  # a logit that gets no probability; finite, so that 0 * loss stays 0


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
    labels = class_numbers(labels)
    embeddings = as_float(embeddings)
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
) -> KerasTensor:
    """Mean cross-entropy of the answerable queries: Snell et al. 2017, eq. 2, as PRL's pre-training loss.

    Scalar. With no answerable query the loss and its gradient are 0. Arguments: see `prototypical_episode`.
    """
    episode = prototypical_episode(labels, embeddings, num_classes, variant, distance, temperature, query_fraction)
    own_class = one_hot_labels(labels, num_classes, episode.logits.dtype)
    cross_entropy = -ops.sum(own_class * ops.log_softmax(episode.logits, axis=-1), axis=-1)
    return masked_mean(cross_entropy, episode.answerable)


def nt_xent_loss(first_view: KerasTensor, second_view: KerasTensor, temperature: float = 0.1) -> KerasTensor:
    """NT-Xent (Chen et al. 2020, eq. 1), mean over all 2n anchors.

    Args:
        first_view, second_view: (n, dim); row i of both shows the same image. Normalised here.
        temperature: positive.

    Returns:
        Scalar; ln(2n - 1) when nothing is learned, 0 for n = 1.

    Raises:
        InputError: views of different shapes.
    """
    shapes = [tuple(ops.convert_to_tensor(view).shape) for view in (first_view, second_view)]
    if len(shapes[0]) != len(shapes[1]) or any(a != b for a, b in zip(*shapes, strict=True) if None not in (a, b)):
        raise InputError(f"first_view is {shapes[0]}, second_view {shapes[1]}; expected the same images in both")
    labels = ops.arange(ops.shape(first_view)[0], dtype="int32")
    views = ops.concatenate([first_view, second_view], axis=0)
    return supervised_contrastive_loss(ops.concatenate([labels, labels]), views, temperature)


def supervised_contrastive_loss(labels: KerasTensor, embeddings: KerasTensor, temperature: float = 0.1) -> KerasTensor:
    """L_out of SupCon (Khosla et al. 2020, eq. 2), without their base temperature; mean over anchors.

    Args:
        labels: (n,) or (n, 1) integers; rows with equal labels are positives of each other.
        embeddings: (n, dim), all views stacked. Normalised here.
        temperature: positive.

    Returns:
        Scalar. Anchors without a positive are left out; with none left, loss and gradient are 0.

    Raises:
        InputError: labels of another shape, or a temperature that is not a positive number.
    """
    check_distance("cosine", temperature)
    labels = class_numbers(labels)
    embeddings = l2_normalise(as_float(embeddings))
    similarities = ops.matmul(embeddings, ops.transpose(embeddings)) / temperature
    count = ops.shape(labels)[0]
    itself = ops.eye(count, dtype="bool")
    log_probability = ops.log_softmax(ops.where(itself, NEVER, similarities), axis=-1)
    positive = ops.logical_and(labels[:, None] == labels[None, :], ops.logical_not(itself))
    positives = ops.sum(ops.cast(positive, embeddings.dtype), axis=-1)
    per_anchor = -ops.sum(ops.where(positive, log_probability, 0.0), axis=-1)
    return masked_mean(per_anchor / ops.maximum(positives, 1.0), positives > 0)


class _EmbeddingLoss(keras.losses.Loss):
    """A loss of a whole batch: a scalar, which no weight of a single image could enter any more."""

    def __call__(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: KerasTensor | None = None):
        if sample_weight is not None:
            raise InputError(f"{self.name} takes no sample or class weights: all images of a batch count alike")
        return super().__call__(y_true, y_pred)


@keras.saving.register_keras_serializable("prl_keras")
class PrototypicalLoss(_EmbeddingLoss):
    """`loss(labels, embeddings)` -> scalar: PRL's loss. See `prototypical_episode` for the variants.

    Args:
        num_classes: number of classes of the data set; a batch need not contain all.
        variant: "standard", "query" or "loo".
        distance: "euclidean" (the paper), "squared" (Snell et al.) or "cosine".
        temperature: positive; logits are divided by it. With cosine, 1 is much too high (see `bounds.least_loss`): 0.1.
        query_fraction: share of the batch that is queried; used by variant "query" only.

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
    ):
        super().__init__(name=name, reduction=None)
        _check_options(num_classes, variant, distance, temperature, query_fraction)
        self.num_classes = num_classes
        self.variant = variant
        self.distance = distance
        self.temperature = temperature
        self.query_fraction = query_fraction

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        return prototypical_loss(y_true, y_pred, **self._options())

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
        of_class = dict(zip(*(part.tolist() for part in np.unique(answered, return_counts=True)), strict=True))
        cosine = self.distance == "cosine"
        least = float(least_loss(1, classes - 1, classes, self.temperature, dim)) if cosine and classes else 0.0
        chance = (math.log(classes), 1 / classes) if classes and self.variant != "standard" else (None, None)
        return Outlook(len(asked), len(answered), *chance, least, of_class)

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
        return {"name": self.name, **self._options()}


class _ContrastiveLoss(_EmbeddingLoss):
    """What NT-Xent and SupCon share: two stacked views, and a temperature."""

    def __init__(self, temperature: float = 0.1, name: str | None = None):
        super().__init__(name=name, reduction=None)
        check_distance("cosine", temperature)
        self.temperature = temperature

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
        least = least_loss(positives, others - positives, len(counts), self.temperature, dim)
        answerable = len(labels) if len(labels) > 1 else 0  # the only other view is the right one
        return Outlook(len(labels), answerable, self.chance(len(labels)), 1 / others, float(np.mean(least)), {})

    def get_config(self) -> dict:
        return {"name": self.name, "temperature": self.temperature}


@keras.saving.register_keras_serializable("prl_keras")
class NTXentLoss(_ContrastiveLoss):
    """`loss(labels, views)`: `nt_xent_loss` of the two halves of `views` (2n, dim); labels are ignored."""

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        first_view, second_view = ops.split(y_pred, 2, axis=0)
        return nt_xent_loss(first_view, second_view, self.temperature)

    def _classes(self, labels: np.ndarray) -> np.ndarray:
        return np.arange(len(labels))


@keras.saving.register_keras_serializable("prl_keras")
class SupervisedContrastiveLoss(_ContrastiveLoss):
    """`loss(labels, views)`: `supervised_contrastive_loss` of `views` (2n, dim) with labels (2n,)."""

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        return supervised_contrastive_loss(y_true, y_pred, self.temperature)

    def _classes(self, labels: np.ndarray) -> np.ndarray:
        return labels


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


def masked_mean(values: KerasTensor, mask: KerasTensor) -> KerasTensor:
    """Of (n,) values where mask (n,) bool; 0, with gradient 0, where it is nowhere."""
    count = ops.sum(ops.cast(mask, values.dtype))
    return ops.sum(ops.where(mask, values, 0.0)) / ops.maximum(count, 1.0)
