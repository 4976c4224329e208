"""Class prototypes and distances to them: pure ops shared by losses and evaluation.

Everything is computed in float32, or in float64 where the input is float64.
Source: Snell et al. 2017, eq. 1 and 2; the Euclidean distance is PRL's.
"""

import math
import numbers
from typing import Literal

from keras import KerasTensor, ops

from prl_keras.errors import InputError
from prl_keras.labels import check_form, checked_labels
from prl_keras.replicas import all_sum

Distance = Literal["euclidean", "squared", "cosine"]
DISTANCES = ("euclidean", "squared", "cosine")

_LARGEST_ONE_HOT = 1 << 24  # values; beyond it, sums are gathered: an evaluation of 1.3 million x 1,000 would take 5 GB
_TINY = 1e-12  # below float32 resolution of any real distance; keeps sqrt and division differentiable at 0


def check_distance(distance: str, temperature: float) -> None:
    """Raise InputError unless `distance` is known and `temperature` is a positive number."""
    if distance not in DISTANCES:
        raise InputError(f"distance is {distance!r}; expected one of {', '.join(DISTANCES)}")
    if not isinstance(temperature, numbers.Real) or not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"temperature is {temperature!r}; expected a number above 0")


def as_float(values: KerasTensor) -> KerasTensor:
    """At least float32: bfloat16 distances would lose the digits that the loss needs."""
    values = ops.convert_to_tensor(values)
    return values if values.dtype == "float64" else ops.cast(values, "float32")


def l2_normalise(vectors: KerasTensor) -> KerasTensor:
    """Scale rows to length 1; a row of length 0 becomes zero with gradient 0 (not 1e6, as with a clamped length)."""
    squares = ops.sum(vectors * vectors, axis=-1, keepdims=True)
    positive = squares > _TINY
    return ops.where(positive, vectors * ops.rsqrt(ops.where(positive, squares, 1.0)), 0.0)


def safe_sqrt(squares: KerasTensor) -> KerasTensor:
    """Square root with value 0 and gradient 0 (not infinity) at 0."""
    positive = squares > _TINY
    return ops.where(positive, ops.sqrt(ops.where(positive, squares, 1.0)), 0.0)


def class_numbers(labels: KerasTensor) -> KerasTensor:
    """(batch,) or (batch, 1) class numbers of any number type -> (batch,) int32.

    Within a `tf.function` the values are not known, and a fraction is cut off.

    Raises:
        InputError: another shape, such as one-hot rows; text; a fraction, where the values are known.
    """
    if not ops.is_tensor(labels):
        labels = checked_labels(labels)
    labels = ops.convert_to_tensor(labels)
    rank_is_known = getattr(labels.shape, "rank", 0) is not None
    check_form(tuple(labels.shape) if rank_is_known else None, labels.dtype.name)
    if labels.dtype.is_floating and hasattr(labels, "numpy"):  # Keras's losses make floats of any labels
        labels = ops.convert_to_tensor(checked_labels(labels))
    return ops.cast(ops.reshape(labels, (-1,)), "int32")


def paired_numbers(labels: KerasTensor, features: KerasTensor) -> KerasTensor:
    """`class_numbers` of labels that belong to the rows of `features` (batch, dim).

    Raises:
        InputError: there are more of the one than of the other.
    """
    labels = class_numbers(labels)
    counts = labels.shape[0], features.shape[0]
    if None not in counts and counts[0] != counts[1]:
        raise InputError(f"there are {counts[0]} labels for {counts[1]} embeddings; expected one label each")
    return labels


def one_hot_labels(labels: KerasTensor, num_classes: int, dtype: str = "float32") -> KerasTensor:
    """(batch,) integer labels -> (batch, num_classes). Labels outside the range give a zero row."""
    return ops.one_hot(class_numbers(labels), num_classes, dtype=dtype)


def pairwise_squared_distances(first: KerasTensor, second: KerasTensor) -> KerasTensor:
    """(n, dim), (m, dim) -> (n, m) squared Euclidean distances, never negative.

    Both sides are moved to the common mean first: ||a||^2 + ||b||^2 - 2ab cancels badly far from the origin.
    """
    first, second = as_float(first), as_float(second)
    centre = ops.stop_gradient(ops.mean(first, axis=0, keepdims=True))
    first, second = first - centre, second - centre
    squares = (
        ops.sum(first * first, axis=-1, keepdims=True)
        + ops.sum(second * second, axis=-1)
        - 2.0 * ops.matmul(first, ops.transpose(second))
    )
    return ops.maximum(squares, 0.0)


def pairwise_distances(first: KerasTensor, second: KerasTensor, distance: Distance = "euclidean") -> KerasTensor:
    """(n, dim), (m, dim) -> (n, m). "cosine" is 1 - cosine similarity."""
    check_distance(distance, 1.0)
    if distance == "cosine":
        return 1.0 - _cosine_similarity(first, second)
    squares = pairwise_squared_distances(first, second)
    return squares if distance == "squared" else safe_sqrt(squares)


def class_prototypes(labels: KerasTensor, features: KerasTensor, num_classes: int) -> tuple[KerasTensor, KerasTensor]:
    """Mean feature vector of each class (Snell et al. 2017, eq. 1); on several replicas, of the rows of all.

    Args:
        labels: (batch,) or (batch, 1) integers. Labels outside 0..num_classes-1 take no part.
        features: (batch, dim), any float dtype.
        num_classes: static number of classes.

    Returns:
        prototypes (num_classes, dim), zero for a class without samples, and counts (num_classes,), float.

    Raises:
        InputError: labels of another shape.
    """
    sums, counts = (all_sum(value) for value in class_sums(labels, features, num_classes))
    return sums / ops.maximum(counts, 1.0)[:, None], counts


def class_sums(labels: KerasTensor, features: KerasTensor, num_classes: int) -> tuple[KerasTensor, KerasTensor]:
    """The sums (num_classes, dim) that `class_prototypes` divides by the counts (num_classes,); same arguments."""
    features = as_float(features)
    labels = paired_numbers(labels, features)
    if (features.shape[0] or 0) * num_classes > _LARGEST_ONE_HOT:
        return _gathered_sums(labels, features, num_classes)
    members = one_hot_labels(labels, num_classes, features.dtype)
    return ops.matmul(ops.transpose(members), features), ops.sum(members, axis=0)


def _gathered_sums(labels: KerasTensor, features: KerasTensor, num_classes: int) -> tuple[KerasTensor, KerasTensor]:
    """`class_sums` without the matrix of who is in which class: sums in another order, memory of the result."""
    known = ops.logical_and(labels >= 0, labels < num_classes)
    labels = ops.where(known, labels, num_classes)  # one row more, for those that take no part
    sums = ops.segment_sum(features, labels, num_classes + 1)[:num_classes]
    counts = ops.segment_sum(ops.cast(known, features.dtype), labels, num_classes + 1)[:num_classes]
    return sums, counts


def prototype_logits(
    features: KerasTensor,
    prototypes: KerasTensor,
    distance: Distance = "euclidean",
    temperature: float = 1.0,
) -> KerasTensor:
    """Logit of each class: minus the distance to its prototype (Snell et al. 2017, eq. 2).

    Args:
        features: (batch, dim), any float dtype.
        prototypes: (classes, dim), any float dtype.
        distance: "euclidean" (PRL), "squared" (Snell et al.), or "cosine", where the logit is the
            similarity and prototypes are normalised here.
        temperature: positive; logits are divided by it.

    Returns:
        (batch, classes).

    Raises:
        InputError: unknown distance, or a temperature that is not a positive number.
    """
    check_distance(distance, temperature)
    if distance == "cosine":
        return _cosine_similarity(features, prototypes) / temperature
    return -pairwise_distances(features, prototypes, distance) / temperature


def _cosine_similarity(first: KerasTensor, second: KerasTensor) -> KerasTensor:
    return ops.matmul(l2_normalise(as_float(first)), ops.transpose(l2_normalise(as_float(second))))
