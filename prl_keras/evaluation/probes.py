"""Classifiers on fixed features: linear probe, kNN, nearest prototype. Choices are made on validation."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from prl_keras.evaluation.choice import Choice, cannot_choose, choose, how_chosen
from prl_keras.labels import checked_labels
from prl_keras.prototypes import class_prototypes, prototype_logits

PROBE_C = (0.001, 0.01, 0.1, 1.0, 10.0)
KNN_K = (1, 5, 10, 20, 50)
_ITERATIONS = (50, 500)  # of a regression: as many as _PRODUCTS allow, which is 500 up to 54,000 x 512 x 10
_PRODUCTS = 1.5e11  # images x features x classes x iterations
_DISTANCES_MB = 256  # of kNN's distances at a time
_ROWS = 10_000  # of the distances to prototypes at a time


@dataclass(frozen=True)
class Features:
    """One split, encoded: features (n, dim) float32 and labels (n,) int64. A test split needs no labels here.

    Labels may come in as (n, 1) and of any number type, see `checked_labels`.
    """

    features: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.labels is not None:
            object.__setattr__(self, "labels", checked_labels(self.labels))


@dataclass(frozen=True)
class ProbeResult:
    """Predictions on test (n,), accuracy 0..1 on validation, what was chosen by it, and scikit-learn's model.

    choice: how; None where there was nothing to choose.
    neighbours: of kNN, the labels (n, k) of the nearest of validation's and of test's images.
    """

    predicted: np.ndarray
    validation_accuracy: float
    chosen: dict[str, Any]
    model: Any = None
    validation_images: int = 0
    choice: Choice | None = None
    neighbours: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def how(self) -> str:
        """What was chosen, by how many images; empty if there was no choice."""
        return how_chosen(self.chosen, self.validation_images) if self.chosen else ""

    @property
    def warning(self) -> str | None:
        if self.choice is None:
            return None
        return cannot_choose(self.chosen, self.choice.n, self.choice.tied, self.choice.others)


def linear_probe(train: Features, validation: Features, test: Features) -> ProbeResult:
    """Multinomial logistic regression on standardised features; C chosen on validation."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    iterations = int(np.clip(_PRODUCTS / (train.features.size * (train.labels.max() + 1)), *_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the probe is compared, not interpreted
        models = [
            make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=iterations)).fit(
                train.features, train.labels
            )
            for c in PROBE_C
        ]
    correct = [model.predict(validation.features) == validation.labels for model in models]
    choice = choose(correct, [_log_likelihood(model, validation) for model in models])
    model = models[choice.place]
    predicted = model.predict(test.features)
    return ProbeResult(predicted, choice.accuracy, {"C": PROBE_C[choice.place]}, model, choice.n, choice)


def _log_likelihood(model: Any, split: Features) -> float:
    """Mean log-probability of the right classes."""
    columns = np.searchsorted(model.classes_, split.labels).clip(max=len(model.classes_) - 1)
    right = model.predict_proba(split.features)[np.arange(len(columns)), columns]
    right = np.where(model.classes_[columns] == split.labels, right, 0.0)
    return float(np.log(np.maximum(right, np.finfo("float32").tiny)).mean())


def knn(train: Features, validation: Features, test: Features) -> ProbeResult:
    """k nearest training features by cosine distance; k chosen on validation.

    Likelihood: of the right class with one vote more for each (Laplace), else one neighbour would always be sure.
    """
    candidates = [k for k in KNN_K if k <= len(train.labels)]
    neighbours = nearest_labels(train, validation.features, candidates[-1])
    classes = len(np.unique(train.labels))
    correct = [_vote(neighbours[:, :k]) == validation.labels for k in candidates]
    votes = [(neighbours[:, :k] == validation.labels[:, None]).sum(axis=1) for k in candidates]
    likelihood = [np.log((v + 1) / (k + classes)).mean() for k, v in zip(candidates, votes, strict=True)]
    choice = choose(correct, likelihood)
    k = candidates[choice.place]
    wanted = nearest_labels(train, test.features, k)
    found = neighbours[:, :k], wanted
    return ProbeResult(_vote(wanted), choice.accuracy, {"k": k}, None, choice.n, choice, found)


def nearest_labels(train: Features, features: np.ndarray, k: int) -> np.ndarray:
    """(n, k) labels of the k nearest, the nearest first."""
    import sklearn
    from sklearn.neighbors import NearestNeighbors

    with sklearn.config_context(working_memory=_DISTANCES_MB):
        index = NearestNeighbors(n_neighbors=k, metric="cosine").fit(train.features)
        return train.labels[index.kneighbors(features, return_distance=False)]


def _vote(labels: np.ndarray) -> np.ndarray:
    """(n, k) -> (n,) the most frequent, of equals the smallest."""
    from scipy.stats import mode

    return mode(labels, axis=1).mode


def nearest_prototype(train: Features, validation: Features, test: Features, num_classes: int) -> ProbeResult:
    """Nearest class mean of the training features, Euclidean distance; nothing to choose."""
    prototypes, counts = class_prototypes(train.labels, train.features, num_classes)
    there = np.asarray(counts) > 0

    known, wanted = (
        np.concatenate(
            [np.where(there, block, -np.inf).argmax(axis=-1) for block in minus_distances(split.features, prototypes)]
        )
        for split in (validation, test)
    )
    correct = known == validation.labels
    return ProbeResult(wanted, float(np.mean(correct)), {}, None, len(correct))


def minus_distances(features: np.ndarray, prototypes: Any) -> Iterator[np.ndarray]:
    """Minus the Euclidean distance of each row to each prototype, (rows, classes) for a part of the rows at a time."""
    for start in range(0, len(features), _ROWS):
        yield np.asarray(prototype_logits(features[start : start + _ROWS], prototypes))
