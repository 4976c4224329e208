"""What features tell about classes that no training saw: few-shot episodes and retrieval. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prl_keras.errors import InputError
from prl_keras.evaluation.closed_form import unit

CLASSIFIERS = ("nearest prototype", "centred prototype", "nearest neighbour", "ridge")
_ALPHA = 1.0  # of ridge, on vectors of length 1
_BLOCK = 500  # pictures whose similarities to all are held at a time


def episode_accuracies(
    features: np.ndarray,
    labels: np.ndarray,
    centre: np.ndarray,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 2_000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Classifier -> accuracy of each episode (episodes,): `queries` pictures a class are told apart by `shots`.

    All classifiers get the same episodes, and so does any encoder with the same labels and seed: differences can be
    taken episode by episode.

    - nearest prototype: cosine to the mean of the support's directions;
    - centred prototype: the same seen from the centre (Wang et al. 2019, SimpleShot, CL2N);
    - nearest neighbour: of the support, by the cosine from the centre;
    - ridge: least squares from centred directions to one-hot labels, alpha 1 (Bertinetto et al. 2019, R2-D2).

    Args:
        features: (n, dim); labels: (n,); centre: (dim,), the mean of the features that the encoder was trained on.
    """
    rows_of = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    rows_of = [rows for rows in rows_of if len(rows) >= shots + queries]
    if len(rows_of) < ways:
        raise ValueError(f"{len(rows_of)} classes have {shots + queries} pictures; expected at least {ways}")
    plain, centred = unit(np.asarray(features, np.float64)), unit(features - np.asarray(centre, np.float64))
    random = np.random.RandomState([seed, ways, shots])  # default_rng may change its numbers
    truth, found = np.repeat(np.arange(ways), queries), np.zeros((len(CLASSIFIERS), episodes))
    for episode in range(episodes):
        chosen = random.permutation(len(rows_of))[:ways]
        drawn = np.stack([rows_of[k][random.permutation(len(rows_of[k]))[: shots + queries]] for k in chosen])
        support, query = drawn[:, :shots], drawn[:, shots:].ravel()
        scores = (
            plain[query] @ unit(plain[support].mean(axis=1)).T,
            centred[query] @ unit(centred[support].mean(axis=1)).T,
            (centred[query] @ centred[support.ravel()].T).reshape(len(query), ways, shots).max(axis=2),
            _ridge(centred[support.ravel()], np.repeat(np.arange(ways), shots), centred[query]),
        )
        found[:, episode] = [np.mean(each.argmax(axis=1) == truth) for each in scores]
    return dict(zip(CLASSIFIERS, found, strict=True))


def _ridge(support: np.ndarray, labels: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Scores (queries, classes), in the dual form: there are fewer pictures than dimensions."""
    wanted = np.eye(labels.max() + 1)[labels]
    offset = wanted.mean(axis=0)
    return query @ support.T @ np.linalg.solve(support @ support.T + _ALPHA * np.eye(len(support)), wanted - offset)


def retrieval(
    features: np.ndarray, labels: np.ndarray, centre: np.ndarray, ranks: Sequence[int] = (1, 5)
) -> dict[str, Any]:
    """Each picture asks for the others of its class, by the cosine from the centre.

    Returns:
        "recall@k": share of pictures with one of their class among the k nearest; "mAP": mean over pictures of the
        average precision over all others; "n": pictures that have another of their class; others do not ask.
    """
    vectors, labels = unit(features - np.asarray(centre, features.dtype)), np.asarray(labels)
    asking = np.flatnonzero(np.bincount(labels)[labels] > 1)
    if not len(asking):
        raise InputError("no class has two pictures; retrieval needs them")
    hits, precision = np.zeros(len(ranks)), 0.0
    for start in range(0, len(asking), _BLOCK):
        rows = asking[start : start + _BLOCK]
        similar = vectors[rows] @ vectors.T
        similar[np.arange(len(rows)), rows] = -np.inf  # itself comes last, and counts as no other
        order = np.argsort(-similar, axis=1, kind="stable")[:, :-1]
        same = labels[order] == labels[rows][:, None]
        hits += [same[:, :k].any(axis=1).sum() for k in ranks]
        found = np.cumsum(same, axis=1)
        at = np.arange(1, same.shape[1] + 1)
        precision += (np.where(same, found / at, 0).sum(axis=1) / found[:, -1]).sum()
    recalls = {f"recall@{k}": float(hit / len(asking)) for k, hit in zip(ranks, hits, strict=True)}
    return recalls | {"mAP": float(precision / len(asking)), "n": len(asking)}
