"""Which images a picture shows: some of each class, bounded in all."""

import numpy as np

from prl_keras.labels import checked_labels

MOST = 2_000  # images of one split: t-SNE takes a minute, distances 25 bytes x n^2, and more points hide each other


def balanced_rows(labels: np.ndarray, per_class: int, order: np.ndarray | None = None, most: int = MOST) -> np.ndarray:
    """Ascending rows of `labels`, (n,) or (n, 1): the first images of each class.

    Args:
        per_class: that many of each, or fewer if they were more than `most` in all; with more than `most` classes one
            image of each of the first.
        order: (n,) rows, in which to go through the images.
    """
    labels = checked_labels(labels)
    order = np.arange(len(labels)) if order is None else order
    per_class = max(1, min(per_class, most // max(len(np.unique(labels)), 1)))
    by_class = order[np.argsort(labels[order], kind="stable")]
    place = np.arange(len(labels)) - np.searchsorted(labels[by_class], labels[by_class])
    return np.sort(by_class[place < per_class][:most])


def shown_classes(labels: np.ndarray, num_classes: int, most: int = MOST) -> np.ndarray:
    """Whose prototypes a picture shows: all, or those of the images in it."""
    return np.arange(num_classes) if num_classes <= most else np.unique(labels)


def drawn_rows(labels: np.ndarray, per_class: int, seed: int, split: int, most: int = MOST) -> np.ndarray:
    """`balanced_rows` of a split, by its place among train, validation and test, in a random order."""
    order = np.random.default_rng((seed, split)).permutation(len(labels))
    return balanced_rows(labels, per_class, order, most)
