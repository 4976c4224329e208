"""Classifiers on fixed features: linear probe, kNN, nearest prototype. Choices are made on validation.

Imports `prototypes`; scikit-learn inside the functions.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from prl_keras.prototypes import class_prototypes, prototype_logits

PROBE_C = (0.001, 0.01, 0.1, 1.0, 10.0)
KNN_K = (1, 5, 10, 20, 50)


@dataclass(frozen=True)
class Features:
    """One split, encoded: features (n, dim) float32 and labels (n,) integers."""

    features: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class ProbeResult:
    """Predictions on test (n,), validation accuracy 0..1, what was chosen by it, and scikit-learn's model."""

    predicted: np.ndarray
    validation_accuracy: float
    chosen: dict[str, Any]
    model: Any = None


def linear_probe(train: Features, validation: Features, test: Features) -> ProbeResult:
    """Multinomial logistic regression on standardised features; C chosen on validation."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def make(c: float) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the probe is compared, not interpreted
        return _best(make, "C", PROBE_C, train, validation, test)


def knn(train: Features, validation: Features, test: Features) -> ProbeResult:
    """k nearest training features by cosine distance; k chosen on validation."""
    from sklearn.neighbors import KNeighborsClassifier

    def make(k: int) -> Any:
        return KNeighborsClassifier(k, metric="cosine")

    candidates = [k for k in KNN_K if k <= len(train.labels)]
    return _best(make, "k", candidates, train, validation, test)


def nearest_prototype(train: Features, validation: Features, test: Features, num_classes: int) -> ProbeResult:
    """Nearest class mean of the training features, Euclidean distance; nothing to choose."""
    prototypes, _ = class_prototypes(train.labels, train.features, num_classes)

    def predict(features: np.ndarray) -> np.ndarray:
        return np.argmax(prototype_logits(features, prototypes), axis=-1)

    correct = predict(validation.features) == validation.labels
    return ProbeResult(predict(test.features), float(np.mean(correct)), {})


def _best(make: Any, name: str, candidates: Any, train: Features, validation: Features, test: Features):
    scores, models = [], []
    for candidate in candidates:
        model = make(candidate).fit(train.features, train.labels)
        models.append(model)
        scores.append(model.score(validation.features, validation.labels))
    best = int(np.argmax(scores))  # the first of equals: the smallest
    chosen = {name: candidates[best]}
    return ProbeResult(models[best].predict(test.features), float(scores[best]), chosen, models[best])
