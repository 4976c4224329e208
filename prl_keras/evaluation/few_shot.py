"""What features tell about classes that no training saw: few-shot episodes and retrieval. NumPy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from prl_keras.errors import InputError
from prl_keras.evaluation.directions import unit

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
    domains: np.ndarray | None = None,
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
        domains: (n,) where each picture is from: support is then of one domain, queries of all others; None: of any.

    Raises:
        ValueError: fewer classes than `ways` have enough pictures for an episode.
    """
    plain, centred = unit(np.asarray(features, np.float64)), unit(features - np.asarray(centre, np.float64))
    truth, found = np.repeat(np.arange(ways), queries), np.zeros((len(CLASSIFIERS), episodes))
    drawn = _draws(pools(labels, domains, shots, queries, ways), ways, shots, queries, seed)
    for episode, (support, query) in enumerate(islice(drawn, episodes)):
        scores = (
            plain[query] @ unit(plain[support].mean(axis=1)).T,
            centred[query] @ unit(centred[support].mean(axis=1)).T,
            (centred[query] @ centred[support.ravel()].T).reshape(len(query), ways, shots).max(axis=2),
            _ridge(centred[support.ravel()], np.repeat(np.arange(ways), shots), centred[query]),
        )
        found[:, episode] = [np.mean(each.argmax(axis=1) == truth) for each in scores]
    return dict(zip(CLASSIFIERS, found, strict=True))


class Pool(NamedTuple):
    """Where episodes may be drawn from, of each class: its rows for the support, and for the queries those of other
    domains; None: the same rows as for the support, without these."""

    support: list[np.ndarray]
    queries: list[np.ndarray] | None


def pools(labels: np.ndarray, domains: np.ndarray | None, shots: int, queries: int, ways: int) -> list[Pool]:
    """One, or one for each domain that the support may be of; only classes with enough pictures are in them.

    Raises:
        ValueError: none has `ways` of them.
    """
    classes, found = [np.flatnonzero(labels == k) for k in np.unique(labels)], []
    if domains is None:
        found = [Pool([rows for rows in classes if len(rows) >= shots + queries], None)]
    for domain in () if domains is None else np.unique(domains):
        inside = domains == domain
        pairs = [(rows[inside[rows]], rows[~inside[rows]]) for rows in classes]
        pairs = [(own, others) for own, others in pairs if len(own) >= shots and len(others) >= queries]
        found.append(Pool([own for own, _ in pairs], [others for _, others in pairs]))
    enough = [pool for pool in found if len(pool.support) >= ways]
    if not enough:
        most = max((len(pool.support) for pool in found), default=0)
        raise ValueError(
            f"{most} classes have the {shots} + {queries} pictures that an episode takes, and it takes {ways}"
        )
    return enough


def _draws(
    from_: list[Pool], ways: int, shots: int, queries: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of the support (ways, shots) and of the queries (ways * queries,), class by class."""
    random = np.random.RandomState([seed, ways, shots])  # default_rng may change its numbers

    def some(rows: np.ndarray, count: int) -> np.ndarray:
        return rows[random.permutation(len(rows))[:count]]

    while True:
        pool = from_[random.randint(len(from_))] if len(from_) > 1 else from_[0]
        chosen = random.permutation(len(pool.support))[:ways]
        if pool.queries is None:
            drawn = np.stack([some(pool.support[k], shots + queries) for k in chosen])
            yield drawn[:, :shots], drawn[:, shots:].ravel()
        else:
            support = np.stack([some(pool.support[k], shots) for k in chosen])
            yield support, np.concatenate([some(pool.queries[k], queries) for k in chosen])


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
