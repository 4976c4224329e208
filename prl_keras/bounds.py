"""The least loss that cosine similarities allow; imports nothing of the package."""

from functools import lru_cache

import numpy as np

_MOST = 256  # classes that are placed on a sphere by search; more are taken to fit, which errs low


def least_loss(
    positives: int | np.ndarray,
    negatives: int | np.ndarray,
    num_classes: int,
    temperature: float,
    dim: int | None = None,
    label_smoothing: float = 0.0,
) -> float | np.ndarray:
    """The least possible cross-entropy of cosine similarities: what the corners of a simplex give (Graf et al. 2021).

    A query's similarity to its `positives` is 1, to its `negatives` -1 / (num_classes - 1); no better is possible for
    all classes at once. With one prototype a class: ln(1 + (C - 1) exp(-C / (C - 1) / T)), 1.38 for C = 10 and T = 1.

    Args:
        dim: of the embeddings; a simplex needs num_classes - 1 dimensions. With fewer, the classes are placed on the
            sphere as well as a search finds. None: enough.
        label_smoothing: of the targets, evenly over positives and negatives. Then classes may be too far apart: if the
            target asks for no more than the simplex gives, it is met, which leaves its entropy. That takes num_classes
            dimensions; of fewer, this is a bound.
    """
    if num_classes < 2 or dim is None or dim >= num_classes - 1 or num_classes > _MOST:
        gap = 1 + 1 / max(num_classes - 1, 1)
        crowd = np.exp(-gap / temperature)
    else:
        crowd = _crowding(num_classes, dim, temperature)
    if not label_smoothing:
        return np.log(positives + negatives * crowd)
    return _smoothed(positives, negatives, crowd, label_smoothing)


def target_entropy(
    positives: int | np.ndarray, negatives: int | np.ndarray, label_smoothing: float
) -> float | np.ndarray:
    """Of a smoothed target: what cross-entropy comes down to where logits have no limit; ln(positives) without."""
    return _smoothed(positives, negatives, 0.0, label_smoothing) if label_smoothing else np.log(positives)


def _smoothed(
    positives: int | np.ndarray, negatives: int | np.ndarray, least: float, label_smoothing: float
) -> float | np.ndarray:
    """The minimum over c, from `least` to 1, of ln(positives + negatives c) - eps negatives / all ln(c).

    c = exp(-gap / T) is how likely a negative is beside a positive. The function is convex in the gap, and has its
    minimum where c is that of the target: eps / all beside (1 - eps) / positives + eps / all.
    """
    everyone = positives + negatives
    crowd = np.maximum(least, label_smoothing * positives / (everyone - label_smoothing * negatives))
    return np.log(positives + negatives * crowd) - label_smoothing * negatives / everyone * np.log(crowd)


@lru_cache
def _crowding(num_classes: int, dim: int, temperature: float) -> float:
    """exp((s - 1) / T) on average over the similarities s of different classes, of classes placed as well as found."""
    from scipy.optimize import minimize

    others = ~np.eye(num_classes, dtype=bool)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        points = flat.reshape(num_classes, dim)
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        unit = points / norms
        crowd = np.where(others, np.exp((unit @ unit.T - 1) / temperature), 0.0)
        total = 1 + crowd.sum(axis=1)
        pull = crowd / total[:, None] / temperature / num_classes
        slope = (pull + pull.T) @ unit
        slope = (slope - unit * np.sum(slope * unit, axis=1, keepdims=True)) / norms
        return float(np.mean(np.log(total))), slope.ravel()

    if dim == 1:  # two points are all there are
        side = np.arange(num_classes) % 2
        least = np.mean(np.log(np.bincount(side)[side] + np.bincount(side)[1 - side] * np.exp(-2 / temperature)))
    else:
        starts = (np.random.default_rng(seed).normal(size=num_classes * dim) for seed in range(3))
        least = min(minimize(loss, start, jac=True, method="L-BFGS-B").fun for start in starts)
    return float(np.expm1(least) / (num_classes - 1))
