"""Which labels are probably wrong, by predictions of a model that has not seen them: confident learning.

Northcutt, Jiang & Chuang 2021: a picture is counted for another class if that class is predicted as surely as it
usually is for its own pictures.
"""

import numpy as np

from prl_keras.evaluation.closed_form import posteriors, ridge_scores
from prl_keras.evaluation.probes import Features
from prl_keras.labels import checked_labels

FOLDS = 5
FEWEST = 5  # pictures of a class; fewer say nothing of how surely it is usually predicted


def probably_mislabelled(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The off-diagonal entries of the confident joint, those farthest from their label first.

    Args:
        probabilities: (n, classes), out of sample: from a model that was not trained on these pictures.
        labels: (n,) or (n, 1) whole numbers, the labels as they were given.

    Returns:
        rows (m,) and the class (m,) that each probably is. Pictures that are predicted as they are labelled, and those
        of classes with fewer than five pictures, are not among them.
    """
    labels = checked_labels(labels)
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    own = probabilities[rows, labels]
    counts = np.bincount(labels, minlength=classes)
    usual = np.bincount(labels, own, classes) / np.maximum(counts, 1)
    sure = (probabilities >= usual - 1e-9) & (counts >= FEWEST)  # equals may differ by rounding from their mean
    suggested = np.where(sure, probabilities, -1.0).argmax(axis=1)
    wrong = sure.any(axis=1) & (suggested != labels) & (probabilities.argmax(axis=1) != labels)
    found = np.flatnonzero(wrong & (counts[labels] >= FEWEST))
    margin = own[found] - probabilities[found, suggested[found]]
    found = found[np.argsort(margin, kind="stable")]
    return found, suggested[found]


def cross_validated(train: Features, num_classes: int, alpha: float = 100.0, seed: int = 0) -> np.ndarray:
    """(n, classes) probabilities of each training picture by a linear probe that was fitted without it.

    Five folds, alike in every class; the probe is `closed_form.ridge_scores`, at the temperature at which the labels
    are most likely.
    """
    folds = folds_of(train.labels, seed)
    scores = np.zeros((len(folds), num_classes))
    for fold in range(FOLDS):
        inside = folds == fold
        if inside.any() and not inside.all():
            rest = Features(train.features[~inside], train.labels[~inside])
            scores[inside] = ridge_scores(rest, num_classes, alpha)(train.features[inside])
    return posteriors(scores, scores, train.labels)[0]


def folds_of(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n,) the fold of each picture, 0..4: the pictures of every class are dealt out in a random order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), int)
    folds[by_class] = np.arange(len(labels)) % FOLDS
    return folds
