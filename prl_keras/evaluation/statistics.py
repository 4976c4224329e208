"""Figures with their uncertainty, and tests of differences. Imports SciPy only.

Two things are random in a result: the training (another seed gives another model) and the choice of test images.
An interval or a test speaks about one of them; its name says which.
"""

from typing import Any

import numpy as np

RESAMPLES = 1_999


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float | int]:
    """Share of correct predictions with its n and 95 % Wilson score interval (Wilson 1927).

    Args:
        predicted, labels: (n,) integers.

    Returns:
        value, low, high in 0..1; correct and n.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    if predicted.shape != labels.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(f"predictions {predicted.shape} and labels {labels.shape}; expected (n,) twice, n > 0")
    return proportion(int(np.sum(predicted == labels)), len(labels))


def proportion(correct: int, n: int) -> dict[str, float | int]:
    """As `accuracy`, from counts."""
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return {
        "value": correct / n,
        "low": float(interval.low),
        "high": float(interval.high),
        "correct": correct,
        "n": n,
    }


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(classes, classes) counts; row: true class, column: predicted class."""
    matrix = np.zeros((num_classes, num_classes), int)
    np.add.at(matrix, (np.asarray(labels), np.asarray(predicted)), 1)
    return matrix


def mean_over_seeds(values: np.ndarray) -> dict[str, Any]:
    """(seeds,) figures -> mean, sd (n - 1), and the 95 % t-interval of the mean over trainings; None for one seed."""
    from scipy.stats import ttest_1samp

    values = np.asarray(values, "float64")
    figures = {"mean": float(values.mean()), "sd": None, "low": None, "high": None, "n": len(values)}
    if len(values) > 1 and np.ptp(values) < 1e-12:
        figures |= {"sd": 0.0, "low": figures["mean"], "high": figures["mean"]}
    elif len(values) > 1:
        interval = ttest_1samp(values, 0.0).confidence_interval(0.95)
        figures |= {"sd": float(values.std(ddof=1)), "low": float(interval.low), "high": float(interval.high)}
    return figures


def interval_over_images(correct: np.ndarray, seed: int = 0) -> dict[str, float]:
    """(seeds, n) right or wrong -> 95 % interval of the accuracy over test images, the trained models as they are.

    One seed: Wilson. Several: bootstrap of the images (percentile, Efron 1979).
    """
    from scipy.stats import bootstrap

    correct = np.asarray(correct, bool)
    if len(correct) == 1:
        figure = proportion(int(correct.sum()), correct.shape[1])
        return {"low": figure["low"], "high": figure["high"]}
    shares = correct.mean(axis=0)
    if np.ptp(shares) == 0:
        return {"low": float(shares[0]), "high": float(shares[0])}
    rng = np.random.default_rng(seed)
    result = bootstrap((shares,), np.mean, n_resamples=RESAMPLES, batch=100, method="percentile", rng=rng)
    return {"low": float(result.confidence_interval.low), "high": float(result.confidence_interval.high)}


def compare_images(first: np.ndarray, second: np.ndarray, seed: int = 0) -> float:
    """p-value of "equally accurate on images like these", for (seeds, n) right or wrong of both on the same images.

    One seed: McNemar's exact test (McNemar 1947). Several: its generalisation, a sign-flip permutation test of each
    image's difference in the share of seeds that are right.
    """
    from scipy.stats import binomtest, permutation_test

    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"{first.shape} and {second.shape}; expected (seeds, images) twice")
    differences = first.mean(axis=0) - second.mean(axis=0)
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    if len(first) == 1:
        return float(binomtest(int(np.sum(differences > 0)), len(differences)).pvalue)
    if len(differences) == 1:
        return 1.0
    settings = {"permutation_type": "samples", "n_resamples": RESAMPLES, "batch": 100}
    rng = np.random.default_rng(seed)
    return float(permutation_test((differences,), np.sum, vectorized=True, rng=rng, **settings).pvalue)


def compare_seeds(first: np.ndarray, second: np.ndarray) -> dict[str, float | None]:
    """Paired t-test over (seeds,) accuracies: difference, its 95 % interval, p. None where seeds show no spread."""
    from scipy.stats import ttest_rel

    first, second = np.asarray(first, "float64"), np.asarray(second, "float64")
    figures = {"difference": float(np.mean(first - second)), "low": None, "high": None, "p": None}
    if len(first) < 2 or np.ptp(first - second) < 1e-12:
        return figures
    test = ttest_rel(first, second)
    interval = test.confidence_interval(0.95)
    return figures | {"low": float(interval.low), "high": float(interval.high), "p": float(test.pvalue)}


def compare_with_control(groups: list[np.ndarray], control: np.ndarray) -> list[dict[str, float | None]]:
    """Dunnett's test (1955) of several methods' (seeds,) accuracies against one.

    The spread over seeds is pooled over all groups: three seeds of one method say little about it, three seeds of
    twenty methods do.

    Returns:
        for each group the difference of the means, its 95 % interval and p; interval and p hold for all groups at once,
        and are None if there is one seed, or no spread at all.
    """
    from scipy.stats import dunnett

    groups, control = [np.asarray(group, "float64") for group in groups], np.asarray(control, "float64")
    differences = [float(group.mean() - control.mean()) for group in groups]
    if len(control) < 2 or max(np.ptp(group) for group in (*groups, control)) < 1e-12:
        return [{"difference": difference, "low": None, "high": None, "p": None} for difference in differences]
    test = dunnett(*groups, control=control, rng=np.random.default_rng(0))
    interval = test.confidence_interval(0.95)
    return [
        {"difference": difference, "low": float(low), "high": float(high), "p": float(p)}
        for difference, low, high, p in zip(differences, interval.low, interval.high, test.pvalue, strict=True)
    ]


def corrected(p_values: list[float]) -> list[float]:
    """Adjusted for many comparisons: false discovery rate (Benjamini & Hochberg 1995)."""
    from scipy.stats import false_discovery_control

    return [float(p) for p in false_discovery_control(p_values)] if p_values else []


def calibration(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict[str, Any]:
    """Expected calibration error (Guo et al. 2017, eq. 3) of (n, classes) logits for (n,) labels.

    Returns:
        ece in 0..1, and for each bin of equal width its count, mean confidence and accuracy (None if it is empty).
    """
    from scipy.special import softmax

    probabilities = softmax(np.asarray(logits, "float64"), axis=-1)
    confidence, correct = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # (low, high], as the paper
    counts = np.bincount(place, minlength=bins)
    sums = np.stack([np.bincount(place, weights, bins) for weights in (confidence, correct)])
    ece = float(np.abs(sums[1] - sums[0]).sum() / len(confidence))
    with np.errstate(invalid="ignore"):
        means = sums / counts
    return {
        "ece": ece,
        "counts": counts.tolist(),
        "confidence": [None if count == 0 else float(value) for value, count in zip(means[0], counts, strict=True)],
        "accuracy": [None if count == 0 else float(value) for value, count in zip(means[1], counts, strict=True)],
    }
