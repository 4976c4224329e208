"""How well features tell that a picture is of no known class: scores of strangeness, and how well each parts.

A score is large for what is strange, and needs nothing but training pictures; none is chosen, all are reported.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import norm

from prl_keras.evaluation.closed_form import prototype_scores
from prl_keras.evaluation.directions import unit
from prl_keras.evaluation.probes import Features

NEIGHBOURS = 50  # Sun et al. 2022; fewer where the smallest class has fewer
_BLOCK = 1_000
_FLOOR = 1e-6  # of the mean variance
_Z = float(norm.ppf(0.975))
SCORES = ("nearest prototype", "kNN", "Mahalanobis", "energy", "maximum probability")


def strangeness(
    train: Features, groups: dict[str, tuple[np.ndarray, np.ndarray]], num_classes: int
) -> dict[str, dict[str, np.ndarray]]:
    """Score -> group -> (n,).

    - nearest prototype: minus the largest cosine to a class mean, seen from the mean of all training features;
    - kNN: one minus the cosine to the 50th nearest training picture, seen from there (Sun et al. 2022);
    - Mahalanobis: least squared distance to a class mean under one covariance for all classes (Lee et al. 2018), which
      is shrunk (Ledoit and Wolf 2004);
    - energy: minus the log of the sum of the exponentials of the logits (Liu et al. 2020);
    - maximum probability: minus the largest softmax (Hendrycks and Gimpel 2017).

    Args:
        train: features (n, dim) and labels (n,); groups: name -> features (m, dim), logits (m, classes).
    """
    from scipy.special import logsumexp, softmax

    cosines = prototype_scores(train, num_classes)
    centre, distances = train.features.mean(axis=0), _mahalanobis(train)
    directions = unit(train.features - centre)
    k = int(min(NEIGHBOURS, np.bincount(train.labels, minlength=num_classes).min()))
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in SCORES}
    for name, (features, logits) in groups.items():
        logits = np.asarray(logits, np.float64)
        found["nearest prototype"][name] = -cosines(features).max(axis=1)
        found["kNN"][name] = _to_neighbour(unit(features - centre), directions, max(k, 1))
        found["Mahalanobis"][name] = distances(features)
        found["energy"][name] = -logsumexp(logits, axis=1)
        found["maximum probability"][name] = -softmax(logits, axis=1).max(axis=1)
    return found


def _to_neighbour(asked: np.ndarray, known: np.ndarray, k: int) -> np.ndarray:
    parts = [
        1 - np.partition(asked[start : start + _BLOCK] @ known.T, -k, axis=1)[:, -k]
        for start in range(0, len(asked), _BLOCK)
    ]
    return np.concatenate(parts)


def spread_within(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(dim, dim) covariance within the classes, shrunk as Ledoit and Wolf (2004) do, so that it can be inverted however
    few pictures (n, dim) there are."""
    from sklearn.covariance import LedoitWolf

    features = np.asarray(features, np.float64)
    _, place = np.unique(labels, return_inverse=True)
    covariance = LedoitWolf(assume_centered=True).fit(features - _means(features, place)[place]).covariance_
    floor = _FLOOR * max(float(np.trace(covariance)) / len(covariance), _FLOOR)
    return np.nan_to_num(covariance) + floor * np.eye(len(covariance))  # an encoder may give all pictures one answer


def whitening(covariance: np.ndarray) -> np.ndarray:
    """(dim, dim) W: |(x - y) W| is Mahalanobis's distance."""
    return np.linalg.cholesky(np.linalg.inv(covariance))


def _means(features: np.ndarray, place: np.ndarray) -> np.ndarray:
    sums = np.zeros((place.max() + 1, features.shape[1]))
    np.add.at(sums, place, features)
    return sums / np.bincount(place)[:, None]


def _mahalanobis(train: Features) -> Callable[[np.ndarray], np.ndarray]:
    matrix = whitening(spread_within(train.features, train.labels))
    _, place = np.unique(train.labels, return_inverse=True)
    means = _means(np.asarray(train.features, np.float64), place) @ matrix
    return lambda asked: cdist(np.asarray(asked, np.float64) @ matrix, means, "sqeuclidean").min(axis=1)


def parting(known: np.ndarray, strange: np.ndarray) -> dict[str, float | int | None]:
    """What a score tells apart; what is strange is the positive class.

    Args:
        known, strange: (n,), (m,) scores, larger for what is strange.

    Returns:
        auroc: probability that something strange has the larger score, ties count half; low, high: its 95 % interval
        over pictures (DeLong et al. 1988), None where one side is a single picture; aupr: average precision; fpr95:
        share of known pictures that are taken for strange at the threshold at which 95 % of the strange ones are found;
        n_known, n_strange.
    """
    from sklearn.metrics import average_precision_score

    below, above = _placements(strange, known), _placements(known, strange)
    auroc = float(below.mean())
    low, high = None, None
    if min(len(known), len(strange)) > 1:
        reach = _Z * float(np.sqrt(below.var(ddof=1) / len(strange) + above.var(ddof=1) / len(known)))
        low, high = max(0.0, auroc - reach), min(1.0, auroc + reach)
    labels = np.repeat([0, 1], [len(known), len(strange)])
    threshold = np.sort(strange)[int(np.floor(0.05 * len(strange)))]
    return {
        "auroc": auroc,
        "low": low,
        "high": high,
        "aupr": float(average_precision_score(labels, np.concatenate([known, strange]))),
        "fpr95": float(np.mean(known >= threshold)),
        "n_known": len(known),
        "n_strange": len(strange),
    }


def _placements(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each value the share of the others below it, equal ones half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(others))
