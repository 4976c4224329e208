"""A flat map of an embedding (t-SNE), and figures that say how far to trust it."""

from contextlib import nullcontext

import numpy as np

from prl_keras.labels import checked_labels

NEIGHBOURS = 10  # of the kNN accuracy and of the trustworthiness
_ITERATIONS = 1_000  # of t-SNE
_SQUARED_IN_FLOAT32 = (1e-15, 1e15)  # distances whose squares are neither 0 nor infinite
_FEW = 2_000  # points, up to which t-SNE's threads wait for each other more than they work (docs/results/threads.json)


def tsne_map(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n, dim) features, n > 3 -> (n, 2) float32 t-SNE map (van der Maaten & Hinton 2008), the same for the same seed.

    Perplexity 30 (less for under 91 points), started from the first two principal
    components if there are two, the middle of its bounding box at 0.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    features = np.asarray(features, "float32")
    spread = float(np.ptp(features, axis=0).max())
    if spread == 0:  # a collapsed encoder: nothing to map
        return np.zeros((len(features), 2), "float32")
    if not _SQUARED_IN_FLOAT32[0] < spread < _SQUARED_IN_FLOAT32[1]:
        features = (features - features.mean(axis=0, dtype="float64")).astype("float64") / spread
    perplexity = min(30.0, (len(features) - 1) / 3)
    init = "pca" if features.shape[1] > 1 else "random"
    method = TSNE(perplexity=perplexity, max_iter=_ITERATIONS, init=init, random_state=seed)
    with threadpool_limits(1) if len(features) <= _FEW else nullcontext():
        positions = method.fit_transform(features)
    return positions - (positions.max(axis=0) + positions.min(axis=0)) / 2


def joint_map(
    features: np.ndarray, prototypes: np.ndarray, shown: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """One map of (n, dim) features and (classes, dim) prototypes: (n, 2), and (classes, 2), NaN but for those shown."""
    positions = tsne_map(np.concatenate([features, prototypes[shown]]), seed)
    placed = np.full((len(prototypes), 2), np.nan, "float32")
    placed[shown] = positions[len(features) :]
    return positions[: len(features)], placed


def map_quality(features: np.ndarray, labels: np.ndarray, positions: np.ndarray) -> dict[str, float | None]:
    """What the picture cannot tell: how separate the classes are before the map, and how true the map is.

    Args:
        features: (n, dim); labels: (n,) or (n, 1) whole numbers; positions: (n, 2), the map of the features.
            Memory: 25 bytes x n^2.

    Returns:
        silhouette (-1..1, of the features; Rousseeuw 1987), knn_accuracy (0..1, leave-one-out vote of the 10 nearest
        features), trustworthiness (0..1, share of the map's neighbours that are true ones; Venna & Kaski 2001).
        None where too few points or classes make a figure meaningless (`enough`).
    """
    from sklearn.manifold import trustworthiness
    from sklearn.metrics import silhouette_score

    labels = checked_labels(labels)
    possible = enough(labels)
    return {
        "silhouette": float(silhouette_score(features, labels)) if possible["silhouette"] else None,
        "knn_accuracy": _leave_one_out_knn(features, labels) if possible["knn_accuracy"] else None,
        "trustworthiness": float(trustworthiness(features, positions, n_neighbors=NEIGHBOURS))
        if possible["trustworthiness"]
        else None,
    }


def enough(labels: np.ndarray) -> dict[str, bool]:
    """Which figures of quality (n,) labels allow.

    A silhouette takes two classes, and in each an image beside the one that is looked at. A vote of the 10 nearest
    takes 10 of them: with fewer, the other classes fill the vote however clear the classes are.
    """
    counts = np.unique(labels, return_counts=True)[1]
    smallest = int(counts.min()) if len(counts) > 1 else 0
    return {
        "silhouette": smallest > 1,
        "knn_accuracy": smallest > NEIGHBOURS,
        "trustworthiness": len(labels) > 2 * NEIGHBOURS,
    }


def _leave_one_out_knn(features: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(features)
    neighbours = labels[index.kneighbors(return_distance=False)]  # without a query, a point is not its own neighbour
    votes = np.stack([(neighbours == k).sum(axis=1) for k in range(labels.max() + 1)], axis=1)
    return float(np.mean(votes.argmax(axis=1) == labels))
