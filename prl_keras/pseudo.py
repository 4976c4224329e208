"""Pseudo-labels by the prototypes of a memory: aligned, and weighted by how sure they are.

A slow teacher's answer for an unlabelled image is taken for its label (Lee 2013), and the student is asked for it on a
hard view (FixMatch: Sohn et al. 2020). Answers are first brought to the shares that the classes should have
(distribution alignment: Berthelot et al. 2020, ReMixMatch), and then weighted, all of them, instead of cut off at a
threshold: 1 above the mean confidence, and below it as a Gaussian falls (SoftMatch: Chen et al. 2023).

Pure functions, in float32 or in the float64 of their arguments.
"""

import numbers

from keras import KerasTensor, ops

from prl_keras.errors import InputError
from prl_keras.memory import MemoryEpisode, answered, leave_out, query_losses
from prl_keras.prototypes import as_float

SHARPNESS = 2.0  # deviations of the confidence that make one of the Gaussian: SoftMatch's n_sigma
FIXMATCH_THRESHOLD = 0.95
_TINY = 1e-6  # share of a class that no image was given yet


def check_weight(weight: float) -> None:
    """Raise InputError unless it is a finite number of at least 0."""
    if not isinstance(weight, numbers.Real) or not 0 <= weight < float("inf"):
        raise InputError(f"unlabelled_weight is {weight!r}; expected a number of 0 or more")


def posterior(
    embeddings: KerasTensor, prototypes: tuple[KerasTensor, KerasTensor], temperature: float | KerasTensor
) -> KerasTensor:
    """Probability of each class: softmax of the cosines to the prototypes, divided by the temperature.

    Args:
        embeddings: (batch, dim), any float dtype; normalised here.
        prototypes: sums (classes, dim) and counts (classes,), from `memory.memory_prototypes`.

    Returns:
        (batch, classes), 0 for a class without support.
    """
    return ops.softmax(_all_logits(embeddings, prototypes, temperature), axis=-1)


def moved(old: KerasTensor, new: KerasTensor, momentum: float, steps: KerasTensor) -> KerasTensor:
    """An exponential average after one more value: momentum * old + (1 - momentum) * new.

    After k `steps` the momentum is at most (1 + k) / (10 + k): a short training forgets what the average began with.
    (The papers' 0.999 from the first step on needs thousands of steps for that.)
    """
    steps = ops.cast(steps, old.dtype)
    momentum = ops.minimum(momentum, (1.0 + steps) / (10.0 + steps))
    return old + (1.0 - momentum) * (ops.cast(new, old.dtype) - old)


def aligned(probabilities: KerasTensor, running: KerasTensor, prior: KerasTensor) -> KerasTensor:
    """p(k) * prior(k) / running(k), divided by their sum: (batch, classes).

    Args:
        probabilities: (batch, classes), rows sum to 1.
        running: (classes,) average of such rows over the last batches.
        prior: (classes,) shares that the classes should have.
    """
    scaled = probabilities * (prior + _TINY) / (running + _TINY)
    return scaled / ops.sum(scaled, axis=-1, keepdims=True)


def confidence_weights(confidence: KerasTensor, mean: KerasTensor, variance: KerasTensor) -> KerasTensor:
    """SoftMatch's eq. 7: exp(-(c - mean)^2 / (2 variance / 4)) where the confidence c is below the mean, else 1.

    Args:
        confidence: (batch,) largest probability of each image.
        mean, variance: scalars, of the confidence over the last batches; of variance 0 what is below weighs 0.

    Returns:
        (batch,), 0..1.
    """
    confidence = as_float(confidence)
    mean, variance = (ops.cast(each, confidence.dtype) for each in (mean, variance))
    below = ops.minimum(confidence - mean, 0.0)
    narrow = ops.maximum(variance / SHARPNESS**2, 1e-12)
    return ops.exp(-(below * below) / (2.0 * narrow))


def pseudo_episode(
    queries: KerasTensor,
    prototypes: tuple[KerasTensor, KerasTensor],
    pseudo_labels: KerasTensor,
    temperature: float | KerasTensor,
    label_smoothing: float = 0.0,
) -> MemoryEpisode:
    """Queries that are asked for their pseudo-labels among the prototypes, of which none has a row of theirs.

    The prototypes are constants to the gradient, which reaches queries and temperature only.

    Args:
        queries: (batch, dim), any float dtype.
        pseudo_labels: (batch,) class numbers.
        others: as of `memory.memory_episode`.
    """
    prototypes = tuple(ops.stop_gradient(each) for each in prototypes)
    logits = _all_logits(queries, prototypes, temperature)
    return answered(logits, pseudo_labels, label_smoothing)


def weighted_cross_entropy(episode: MemoryEpisode, weights: KerasTensor) -> KerasTensor:
    """Mean over all queries, not over those with weight (FixMatch's eq. 4): scalar.

    Args:
        weights: (batch,), constants to the gradient. What is not answerable counts as weighing 0.
    """
    losses = query_losses(episode)
    weights = ops.cast(ops.stop_gradient(weights), losses.dtype)
    return ops.mean(ops.where(episode.answerable, weights * losses, 0.0))


def fixmatch(
    asked: KerasTensor, told: KerasTensor, threshold: float = FIXMATCH_THRESHOLD
) -> tuple[KerasTensor, KerasTensor]:
    """FixMatch's loss of unlabelled images (eq. 4), with a classifier's logits, for comparison.

    Args:
        asked: (batch, classes) logits of the hard views.
        told: (batch, classes) of the weak views, constants to the gradient: the most probable class is the pseudo-label
            where its probability reaches the threshold.

    Returns:
        The cross-entropy of those, as a mean over all images: scalar; and which they are: (batch,), 1 or 0.
    """
    told, asked = ops.stop_gradient(as_float(told)), as_float(asked)
    used = ops.cast(ops.max(ops.softmax(told, axis=-1), axis=-1) >= threshold, asked.dtype)
    targets = ops.one_hot(ops.argmax(told, axis=-1), asked.shape[-1], dtype=asked.dtype)
    losses = -ops.sum(targets * ops.log_softmax(asked, axis=-1), axis=-1)
    return ops.mean(used * losses), used


def _all_logits(
    embeddings: KerasTensor, prototypes: tuple[KerasTensor, KerasTensor], temperature: float | KerasTensor
) -> KerasTensor:
    """(batch, classes); as of images without a row in the memory: nothing is left out."""
    embeddings = as_float(embeddings)
    no_class = ops.full((ops.shape(embeddings)[0],), -1, "int32")
    return leave_out(embeddings, prototypes, no_class, ops.zeros_like(embeddings), temperature=temperature)
