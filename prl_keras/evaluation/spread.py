"""What the spread of features comes from: their classes, their domains. NumPy only."""

from __future__ import annotations

import numpy as np


def explained(features: np.ndarray, groups: np.ndarray) -> float | None:
    """Share of the features' variance, all dimensions together, that lies between the means of the groups.

    Adjusted for the number of groups (Ezekiel 1930), so that groups that mean nothing have 0 on average.

    Args:
        features: (n, dim). groups: (n,), what each picture belongs to.

    Returns:
        At most 1, of chance groups around 0; None: fewer than two groups, or no more pictures than groups, or features
        that are all the same.
    """
    features = np.asarray(features, np.float64)
    _, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    n, k = len(features), len(counts)
    centred = features - features.mean(axis=0)
    total = np.square(centred).sum()
    if k < 2 or n <= k or not total > 0:
        return None
    sums = np.zeros((k, features.shape[1]))
    np.add.at(sums, place, centred)
    within = total - (np.square(sums).sum(axis=1) / counts).sum()
    return float(1 - (within / (n - k)) / (total / (n - 1)))
