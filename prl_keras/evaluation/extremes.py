"""The pictures that say most of a model: surely wrong, undecided, typical of their class and strange in it."""

import numpy as np

from prl_keras.evaluation.directions import unit
from prl_keras.labels import checked_labels

_BLOCK = 2_000  # pictures whose similarities are in memory together


def surely_wrong(probabilities: np.ndarray, labels: np.ndarray, most: int) -> np.ndarray:
    """Rows of the wrong answers of (n, classes) probabilities, the most confident first."""
    labels = checked_labels(labels)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:most]


def least_sure(probabilities: np.ndarray, most: int) -> np.ndarray:
    """Rows whose two most likely classes are closest to each other, the closest first."""
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    return np.argsort(first - second, kind="stable")[:most]


def typical_and_strange(
    features: np.ndarray, labels: np.ndarray, num_classes: int, most: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each class the rows of its pictures nearest to its prototype, the nearest first, and of those farthest from
    it, the farthest first; no picture is both.

    Distances are Euclidean, between features (n, dim) and the mean of their class.
    """
    labels = checked_labels(labels)
    found = []
    for k in range(num_classes):
        rows = np.flatnonzero(labels == k)
        distances = np.linalg.norm(features[rows] - features[rows].mean(axis=0), axis=1) if len(rows) else np.zeros(0)
        order = rows[np.argsort(distances, kind="stable")]
        near = order[: min(most, -(-len(order) // 2))]
        found.append((near, order[len(near) :][::-1][:most]))
    return found


def nearest_pictures(
    features: np.ndarray, among: np.ndarray, count: int, itself: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` rows of `among` (m, dim) most like each of (n, dim) features by cosine: rows and similarities,
    (n, count) each, the most similar first; fewer columns if `among` is short.

    Args:
        itself: (n,) the row that a picture has in `among`, which is no neighbour of it; -1: it is not there.
    """
    itself = np.full(len(features), -1) if itself is None else itself
    count = min(count, len(among) - int((itself >= 0).any()))
    others, rows, similarities = unit(among.astype("float32")).T, [], []
    for start in range(0, len(features), _BLOCK):
        block = unit(features[start : start + _BLOCK].astype("float32")) @ others
        own = itself[start : start + _BLOCK]
        block[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
        best = np.argpartition(-block, range(count), axis=1)[:, :count] if count else np.empty((len(block), 0), int)
        rows.append(best)
        similarities.append(np.take_along_axis(block, best, axis=1))
    return np.concatenate(rows), np.concatenate(similarities)
