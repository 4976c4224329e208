"""A batch as an episode: which rows are queries, by which prototypes they are classified, and who can be answered.

Every function computes in float32, or in float64 where its input is float64.
"""

import math
import numbers
from typing import Literal, NamedTuple

from keras import KerasTensor, ops

from prl_keras.embedding_loss import NEVER
from prl_keras.errors import InputError
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
from prl_keras.replicas import all_sum, own

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
    check_episode(num_classes, variant, distance, temperature, query_fraction)
    embeddings = as_float(embeddings)
    labels = paired_numbers(labels, embeddings)
    if distance == "cosine":
        embeddings = l2_normalise(embeddings)
    own_rows = ops.shape(embeddings)[0]
    batch = all_sum(own_rows)
    is_query = ops.ones_like(labels, dtype="bool")
    support_labels = labels
    if variant == "query":
        queries = ops.cast(ops.floor(ops.cast(batch, "float64") * query_fraction + _ROUNDING), "int32")
        is_query = own(ops.arange(batch, dtype="int32") >= batch - queries, own_rows)
        support_labels = ops.where(is_query, -1, labels)

    support = class_prototypes(support_labels, embeddings, num_classes)
    left_out = embeddings if variant == "loo" else None
    logits, own_count = _answers(embeddings, labels, support, left_out, distance, temperature)
    answerable = ops.logical_and(is_query, _can_be_answered(own_count, support[1]))
    telling = ops.logical_and(answerable, own_count > 1) if variant == "standard" else answerable
    return Episode(logits, is_query, answerable, telling)


def cross_view_episode(
    labels: KerasTensor,
    support: KerasTensor,
    queries: KerasTensor,
    num_classes: int,
    distance: Distance = "cosine",
    temperature: float = 0.1,
) -> Episode:
    """Classify one view of each image by the prototypes of the other views, of all images but its own.

    Args:
        labels: (batch,) or (batch, 1) integers, of the images; one outside 0..num_classes-1 is neither support nor
            answerable.
        support: (batch, dim) embeddings of one view of each image.
        queries: (batch, dim) of the other views, in the same order.

    Raises:
        InputError: an argument out of its range, or labels of another shape.
    """
    check_episode(num_classes, "loo", distance, temperature)
    support, queries = as_float(support), as_float(queries)
    labels = paired_numbers(labels, queries)
    if distance == "cosine":
        support, queries = l2_normalise(support), l2_normalise(queries)
    prototypes = class_prototypes(labels, support, num_classes)
    logits, own_count = _answers(queries, labels, prototypes, support, distance, temperature)
    answerable = _can_be_answered(own_count, prototypes[1])
    return Episode(logits, ops.ones_like(answerable), answerable, answerable)


def _answers(
    queries: KerasTensor,
    labels: KerasTensor,
    support: tuple[KerasTensor, KerasTensor],
    left_out: KerasTensor | None,
    distance: Distance,
    temperature: float,
) -> tuple[KerasTensor, KerasTensor]:
    """Logits (batch, classes) and, for each query, how many images its own class's prototype is the mean of.

    support: prototypes (classes, dim) and counts (classes,); left_out: (batch, dim), each query's own share of the sum
    of its class, which is taken out; None: it has none.
    """
    prototypes, counts = support
    logits = prototype_logits(queries, prototypes, distance, temperature)
    own_class = one_hot_labels(labels, prototypes.shape[0], queries.dtype)
    own_count = ops.matmul(own_class, counts[:, None])[:, 0]
    own_prototype = ops.matmul(own_class, prototypes)
    if left_out is not None:
        others_sum = own_prototype * own_count[:, None] - left_out
        own_count = own_count - 1.0
        own_prototype = others_sum / ops.maximum(own_count, 1.0)[:, None]
    # the distance that matters most, from differences: it is small, where the matmul of all pairs cancels
    own_logit = _paired_logits(queries, own_prototype, distance, temperature)
    logits = ops.where(own_class > 0, own_logit[:, None], logits)
    return ops.where(counts > 0, logits, NEVER), own_count


def _can_be_answered(own_count: KerasTensor, counts: KerasTensor) -> KerasTensor:
    """(batch,) bool: the own class has support, and another one too."""
    return ops.logical_and(own_count > 0, ops.sum(ops.cast(counts > 0, "int32")) > 1)


def queries_of(batch_size: int, query_fraction: float) -> int:
    """How many of the last rows of a batch are queries, in variant "query"."""
    return math.floor(batch_size * query_fraction + _ROUNDING)


def check_episode(
    num_classes: int, variant: str, distance: str, temperature: float, query_fraction: float = 0.25
) -> None:
    """Raise InputError for an argument out of its range."""
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
