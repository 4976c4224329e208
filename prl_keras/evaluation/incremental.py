"""Classes that are taught to an encoder without training: what it then knows of all, old and new."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np

from prl_keras.evaluation.statistics import mean_over_seeds
from prl_keras.evaluation.taught import Examples, Taught
from prl_keras.labels import balanced_accuracy

DRAWS = 10


def taught_accuracies(
    known: Taught, features: np.ndarray, labels: np.ndarray, shots: int, draws: int = DRAWS
) -> dict[str, Any] | None:
    """All new classes are taught with `shots` pictures each, by what `teach` does; the others, and the test pictures of
    the old classes, are then told apart among all.

    Args:
        known: with the old classes; `tested` has pictures of theirs.
        features: (n, dim) of the new classes' pictures; labels: (n,) whole numbers.

    Returns:
        old, new: accuracy on their pictures; mean: with every class weighing alike; each `mean_over_seeds` over draws
        of the taught pictures. classes: how many have more than `shots` pictures, and are taught. None: none has, or
        none of the old ones is tested.
    """
    classes = [rows for k in np.unique(labels) if len(rows := np.flatnonzero(labels == k)) > shots]
    if not classes or not len(known.tested.labels):
        return None
    found = [_one_draw(known, features, classes, shots, np.random.RandomState([draw, shots])) for draw in range(draws)]
    figures = {part: mean_over_seeds(np.array([each[part] for each in found])) for part in found[0]}
    return figures | {"classes": len(classes)}


def _one_draw(
    known: Taught, features: np.ndarray, classes: list[np.ndarray], shots: int, random: np.random.RandomState
) -> dict[str, float]:
    drawn = [random.permutation(rows) for rows in classes]
    taught, others = (np.concatenate([rows[part] for rows in drawn]) for part in (slice(shots), slice(shots, None)))
    names = np.array([f"\0{place}" for place in range(len(drawn))])  # as no class is called
    labels = np.repeat(names, shots)
    lesson = Examples(features[taught], labels, np.full(len(labels), ""), taught.astype(np.uint64) + 1)
    classifier = deepcopy(known).teach(lesson).classifier
    asked = [known.tested.labels, np.repeat(names, [len(rows) - shots for rows in drawn])]
    answers = classifier.predict(np.concatenate([known.tested.features, features[others]]))
    truth = np.concatenate(asked)
    right, old = answers == truth, len(known.tested.labels)
    return {"old": right[:old].mean(), "new": right[old:].mean(), "mean": balanced_accuracy(answers, truth)}
