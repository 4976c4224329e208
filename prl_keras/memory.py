"""Prototypes of a memory: queries are classified by the class means of all images, with their own image left out.

A batch's prototypes are means of a few images of its own, as noisy and as augmented as they are. Here every image of
the training set has a row in a memory, an embedding of the image as it is; the prototypes are sums of rows, and the
loss is the leave-one-out error of the nearest-mean classifier of the whole set. Online class means: Guerriero et al.
2018 (DeepNCM). Leaving out: Goldberger et al. 2004 (NCA). As the queries are no part of the prototypes, they may be
augmented and mixed (Zhang et al. 2018) as strongly as they can bear.

Pure functions. Everything is computed in float32, or in float64 where the queries are float64. The partner that a
query is mixed with is always the row before it in the batch, and the last one for the first.
"""

import math
import numbers
from collections import Counter
from typing import NamedTuple

import numpy as np
from keras import KerasTensor, ops

from prl_keras.bounds import least_loss
from prl_keras.embedding_loss import NEVER, Outlook, check_smoothing, masked_mean
from prl_keras.errors import InputError
from prl_keras.labels import checked_labels
from prl_keras.prototypes import (
    as_float,
    check_distance,
    class_numbers,
    class_sums,
    l2_normalise,
    one_hot_labels,
    prototype_logits,
)


class MemoryEpisode(NamedTuple):
    """A batch of queries that are classified by the prototypes of a memory.

    logits: (batch, classes), -1e30 where a class has no support; targets: (batch, classes), 0 there, rows sum to 1;
    answerable: (batch,) bool, the queries whose own class has support, and another class too; only these are learned
    from.
    """

    logits: KerasTensor
    targets: KerasTensor
    answerable: KerasTensor


def memory_prototypes(memory: KerasTensor, labels: KerasTensor, num_classes: int) -> tuple[KerasTensor, KerasTensor]:
    """Sum of the rows of each class: the direction of its mean.

    Args:
        memory: (n, dim) rows of length 1; zero: not visited yet, counts for nothing.
        labels: (n,) integers. Labels outside 0..num_classes-1 take no part.
        num_classes: static number of classes.

    Returns:
        sums (num_classes, dim), zero for a class without visited rows, and counts (num_classes,) of these, float.
    """
    memory = as_float(memory)
    return class_sums(ops.where(_visited(memory), class_numbers(labels), -1), memory, num_classes)


def leave_out(
    queries: KerasTensor,
    prototypes: tuple[KerasTensor, KerasTensor],
    labels: KerasTensor,
    own: KerasTensor,
    mixed: KerasTensor | None = None,
    temperature: float | KerasTensor = 1.0,
) -> KerasTensor:
    """Logits: cosine similarity of each query to every class's sum, from which the query's own sources are taken out.

    Args:
        queries: (batch, dim), any float dtype; normalised here.
        prototypes: sums (classes, dim) and counts (classes,), from `memory_prototypes`.
        labels: (batch,) integers, the class of each query.
        own: (batch, dim), each query's row of the memory, subtracted from the sum of its class. Zero: nothing is.
        mixed: (batch,) bool, which queries are mixed with the one before: its row is taken out as well, also of the
            query's own class where both are of one. None: none is.
        temperature: positive; logits are divided by it.

    Returns:
        (batch, classes); -1e30 where nothing is left of a class.
    """
    queries = l2_normalise(as_float(queries))
    sums, counts, own = (ops.cast(values, queries.dtype) for values in (*prototypes, own))
    labels, classes = class_numbers(labels), sums.shape[0]
    partner_labels, partner = ops.roll(labels, 1, axis=0), ops.roll(own, 1, axis=0)
    partner = ops.zeros_like(own) if mixed is None else ops.where(mixed[:, None], partner, 0.0)
    same_class = ops.cast(labels == partner_labels, queries.dtype)[:, None]

    logits = prototype_logits(queries, sums, "cosine")
    support = ops.broadcast_to(counts, ops.shape(logits))
    for label, source, other in ((partner_labels, partner, own), (labels, own, partner)):
        members = one_hot_labels(label, classes, queries.dtype)
        left = ops.matmul(members, sums) - source - same_class * other
        gone = ops.cast(_visited(source), queries.dtype) + same_class[:, 0] * ops.cast(_visited(other), queries.dtype)
        similarity = ops.sum(queries * l2_normalise(left), axis=-1)
        logits = ops.where(members > 0, similarity[:, None], logits)
        support = ops.where(members > 0, counts - gone[:, None], support)
    return ops.where(support > 0, logits / _scalar(temperature, logits.dtype), NEVER)


def answered(
    logits: KerasTensor,
    labels: KerasTensor,
    label_smoothing: float = 0.0,
    lam: KerasTensor | None = None,
    soft_targets: KerasTensor | None = None,
    soft_weight: float | KerasTensor = 0.0,
) -> MemoryEpisode:
    """Logits and what they should have been: (1 - w) * smooth(lam * y_i + (1 - lam) * y_j) + w * soft.

    Classes without support have no share of a target: smoothing is spread over the others, and of a mixed query whose
    partner's class has none the own class is the whole target.

    Args: see `memory_episode`; logits from `leave_out`, labels (batch,) of the queries.
    """
    supported = ops.cast(logits > NEVER / 2, logits.dtype)
    own_class = one_hot_labels(labels, logits.shape[-1], logits.dtype)
    hard = _shares(own_class if lam is None else mix(own_class, lam), supported)
    targets = (1.0 - label_smoothing) * hard + label_smoothing * _shares(ops.ones_like(hard), supported)
    if soft_targets is not None:
        soft = _shares(ops.cast(ops.stop_gradient(soft_targets), logits.dtype), supported)
        weight = _scalar(soft_weight, logits.dtype)
        targets = (1.0 - weight) * targets + weight * soft
    own_support = ops.sum(own_class * supported, axis=-1) > 0
    return MemoryEpisode(logits, targets, ops.logical_and(own_support, ops.sum(supported, axis=-1) > 1))


def memory_episode(
    queries: KerasTensor,
    rows: KerasTensor,
    memory: KerasTensor,
    memory_labels: KerasTensor,
    num_classes: int,
    temperature: float | KerasTensor,
    label_smoothing: float = 0.0,
    lam: KerasTensor | None = None,
    soft_targets: KerasTensor | None = None,
    soft_weight: float | KerasTensor = 0.0,
) -> MemoryEpisode:
    """Classify queries by the prototypes of a memory that has a row of each of them, which is left out.

    The memory and the soft targets are constants to the gradient, which reaches queries and temperature only. With the
    queries of a whole set, not mixed, and their normalised embeddings as memory, its `cross_entropy` is the "loo" loss
    of `losses.prototypical_loss` with distance "cosine".

    Args:
        queries: (batch, dim), any float dtype.
        rows: (batch,) integers: which row of the memory is of the query's image.
        memory: (n, dim), rows of length 1, or zero if not visited yet.
        memory_labels: (n,) integers; a label outside 0..num_classes-1 is neither support nor answerable.
        temperature: positive; logits are divided by it.
        label_smoothing: share of the target that is spread over all classes with support.
        lam: (batch,) share of the query's own image where it is mixed with the one before; None, or 1: it is not.
        soft_targets: (batch, classes) probabilities to be mixed into the target; None: none.
        soft_weight: their share.

    Raises:
        InputError: an argument out of its range.
    """
    _check_options(num_classes, temperature, label_smoothing)
    queries = as_float(queries)
    memory = ops.cast(ops.stop_gradient(ops.convert_to_tensor(memory)), queries.dtype)
    rows, memory_labels = class_numbers(rows), class_numbers(memory_labels)
    labels, own = ops.take(memory_labels, rows, axis=0), ops.take(memory, rows, axis=0)
    mixed = None
    if lam is not None:  # with another image than itself
        lam = ops.cast(ops.reshape(lam, (-1,)), queries.dtype)
        mixed = ops.logical_and(lam < 1.0, rows != ops.roll(rows, 1, axis=0))
    prototypes = memory_prototypes(memory, memory_labels, num_classes)
    logits = leave_out(queries, prototypes, labels, own, mixed, temperature)
    return answered(logits, labels, label_smoothing, lam, soft_targets, soft_weight)


def cross_entropy(episode: MemoryEpisode) -> KerasTensor:
    """Mean over the answerable queries; scalar, 0 with gradient 0 if there are none."""
    return masked_mean(query_losses(episode), episode.answerable)


def query_losses(episode: MemoryEpisode) -> KerasTensor:
    """Cross-entropy of each query, (batch,); of those that are not answerable it says nothing."""
    return -ops.sum(episode.targets * ops.log_softmax(episode.logits, axis=-1), axis=-1)


def matched_temperature(num_classes: int, label_smoothing: float) -> float:
    """The temperature at which prototypes at the corners of a simplex meet smoothed targets exactly.

    There own similarity is 1 and that to all others -1/(C-1), a difference of C/(C-1); the target asks for a difference
    of logits of ln((1 - eps + eps/C) / (eps/C)). A lower temperature is met short of the simplex, a higher one never.

    Raises:
        InputError: fewer than two classes, or a smoothing that is not between 0 and 1.
    """
    if not isinstance(num_classes, numbers.Integral) or num_classes < 2:
        raise InputError(f"num_classes is {num_classes!r}; expected a whole number, at least 2")
    if not isinstance(label_smoothing, numbers.Real) or not 0 < label_smoothing < 1:
        raise InputError(f"label_smoothing is {label_smoothing!r}; expected a number between 0 and 1")
    other = label_smoothing / num_classes
    return num_classes / (num_classes - 1) / math.log((1.0 - label_smoothing + other) / other)


def mix(values: KerasTensor, lam: KerasTensor) -> KerasTensor:
    """lam * own + (1 - lam) * that of the row before: (batch, classes), (batch,) -> (batch, classes)."""
    lam = ops.cast(lam, values.dtype)[:, None]
    return lam * values + (1.0 - lam) * ops.roll(values, 1, axis=0)


def _visited(memory: KerasTensor) -> KerasTensor:
    """(n, dim) -> (n,) bool."""
    return ops.any(memory != 0, axis=-1)


def _shares(weights: KerasTensor, supported: KerasTensor) -> KerasTensor:
    """(batch, classes) weights -> shares of those that are supported, which sum to 1, or are 0 where none is."""
    weights = weights * supported
    total = ops.sum(weights, axis=-1, keepdims=True)
    return weights / ops.where(total > 0, total, 1.0)


def _scalar(value: float | KerasTensor, dtype: str) -> float | KerasTensor:
    """A Python float stays one: a cast of it would round to float32 first."""
    return ops.cast(value, dtype) if ops.is_tensor(value) else value


def _check_options(num_classes: int, temperature: float | KerasTensor, label_smoothing: float) -> None:
    if not isinstance(num_classes, numbers.Integral) or num_classes < 1:
        raise InputError(f"num_classes is {num_classes!r}; expected a whole number, at least 1")
    if not ops.is_tensor(temperature):
        check_distance("cosine", temperature)
    check_smoothing(label_smoothing)


class MemoryTask(NamedTuple):
    """What can be learned from the memory, as far as the classes of its images tell; see `embedding_loss.Outlook`.

    counts: images of each class in the memory.
    """

    counts: tuple[int, ...]
    temperature: float
    label_smoothing: float

    def outlook(self, labels: np.ndarray, dim: int | None = None) -> Outlook:
        """Of queries with these labels, (batch,) or (batch, 1), and embeddings (batch, dim)."""
        labels, counts = checked_labels(labels), np.array(self.counts)
        classes = int(np.count_nonzero(counts))
        answered = labels[(counts[labels] > 1) & (classes > 1)]
        of_class = dict(Counter(answered.tolist()))
        least = least_loss(1, classes - 1, classes, self.temperature, dim, self.label_smoothing)
        return Outlook(len(labels), len(answered), math.log(classes), 1 / classes, float(least), of_class)
