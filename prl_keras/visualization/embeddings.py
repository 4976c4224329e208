"""A flat map of an embedding (t-SNE), and figures that say how far to trust it.

Imports nothing of this package; scikit-learn inside the functions.
"""

import numpy as np

NEIGHBOURS = 10  # of the kNN accuracy and of the trustworthiness


def tsne_map(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n, dim) features, n > 3 -> (n, 2) float32 t-SNE map (van der Maaten & Hinton 2008), the same for the same seed.

    Perplexity 30 (less for under 91 points), started from the first two principal
    components, the middle of its bounding box at 0.
    """
    from sklearn.manifold import TSNE

    features = np.asarray(features, "float32")
    if np.ptp(features, axis=0).max() == 0:  # a collapsed encoder: nothing to map
        return np.zeros((len(features), 2), "float32")
    perplexity = min(30.0, (len(features) - 1) / 3)
    positions = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(features)
    return positions - (positions.max(axis=0) + positions.min(axis=0)) / 2


def map_quality(features: np.ndarray, labels: np.ndarray, positions: np.ndarray) -> dict[str, float | None]:
    """What the picture cannot tell: how separate the classes are before the map, and how true the map is.

    Args:
        features: (n, dim); labels: (n,) integers; positions: (n, 2), the map of the features.

    Returns:
        silhouette (-1..1, of the features; Rousseeuw 1987), knn_accuracy (0..1, leave-one-out vote of the 10 nearest
        features), trustworthiness (0..1, share of the map's neighbours that are true ones; Venna & Kaski 2001).
        None where too few points or classes make a figure meaningless.
    """
    from sklearn.manifold import trustworthiness
    from sklearn.metrics import silhouette_score

    n, classes = len(labels), len(np.unique(labels))
    enough = n > 2 * NEIGHBOURS
    return {
        "silhouette": float(silhouette_score(features, labels)) if 2 <= classes < n else None,
        "knn_accuracy": _leave_one_out_knn(features, labels) if enough else None,
        "trustworthiness": float(trustworthiness(features, positions, n_neighbors=NEIGHBOURS)) if enough else None,
    }


def _leave_one_out_knn(features: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(features)
    neighbours = labels[index.kneighbors(return_distance=False)]  # without a query, a point is not its own neighbour
    votes = np.stack([(neighbours == k).sum(axis=1) for k in range(labels.max() + 1)], axis=1)
    return float(np.mean(votes.argmax(axis=1) == labels))
