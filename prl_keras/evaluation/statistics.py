"""Figures with their uncertainty, and tests of differences.

Two things are random in a result: the training (another seed gives another model) and the choice of test images.
An interval or a test speaks about one of them; its name says which.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from prl_keras.labels import checked_labels

OWN_SPREAD_FROM = 6  # seeds: enough for a paired t-test of one pair of methods


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Share of correct predictions with its n and 95 % Wilson score interval (Wilson 1927), and what it may hide.

    Args:
        predicted: (n,) integers.
        labels: (n,) or (n, 1) whole numbers.

    Returns:
        value, low, high in 0..1; correct and n; balanced and worst, see `class_figures`.
    """
    predicted, labels = np.asarray(predicted), checked_labels(labels)
    if predicted.shape != labels.shape or not len(labels):
        raise ValueError(f"predictions {predicted.shape} and labels {labels.shape}; expected (n,) twice, n > 0")
    correct = predicted == labels
    classes, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    figures = class_figures(np.bincount(members, correct).astype(int), counts)
    figures["worst"]["class"] = int(classes[figures["worst"]["class"]])
    return proportion(int(correct.sum()), len(labels)) | figures


def class_figures(correct: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """Accuracy with every class weighing the same; a class without images takes no part.

    Args:
        correct, counts: (classes,) images answered right, and images.

    Returns:
        balanced: mean recall of the classes; worst: class, value, correct and n of the one with the lowest recall
        (of equals the one with most images).
    """
    present = np.flatnonzero(counts)
    recall = correct[present] / counts[present]
    at = int(np.lexsort((-counts[present], recall))[0])
    worst = {"class": int(present[at]), "value": float(recall[at])}
    worst |= {"correct": int(correct[present[at]]), "n": int(counts[present[at]])}
    return {"balanced": float(recall.mean()), "worst": worst}


def proportion(correct: int, n: int) -> dict[str, float | int]:
    """value, low and high (Wilson), correct and n, as `accuracy`, from counts."""
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return {
        "value": correct / n,
        "low": float(interval.low),
        "high": float(interval.high),
        "correct": correct,
        "n": n,
    }


def likeliest_temperature(scores: np.ndarray, labels: np.ndarray, temperatures: Iterable[float]) -> float:
    """The one by which (n, classes) scores are to be divided to make (n,) labels most likely; of equals the first."""
    from scipy.special import log_softmax

    rows = np.arange(len(labels))
    return float(max(temperatures, key=lambda each: log_softmax(scores / each, axis=1)[rows, labels].mean()))


def threshold(validation: np.ndarray, false_alarms: float) -> float | None:
    """A picture of known classes reaches it with at most this probability (split conformal prediction, Vovk et al.
    2005); None: too few pictures for that."""
    place = int(false_alarms * (len(validation) + 1))
    return float(np.sort(validation)[-place]) if place else None


def needed(false_alarms: float) -> int:
    """Pictures that `threshold` wants at least."""
    return int(np.ceil(1 / false_alarms)) - 1


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(classes, classes) counts of (n,) or (n, 1) predictions and labels; row: true class, column: predicted class."""
    matrix = np.zeros((num_classes, num_classes), int)
    np.add.at(matrix, (checked_labels(labels), checked_labels(predicted, "predictions")), 1)
    return matrix


def mean_over_seeds(values: np.ndarray) -> dict[str, Any]:
    """(seeds,) figures -> mean, sd (n - 1), and the 95 % t-interval of the mean over trainings.

    sd and interval are None for one seed; the interval also where all seeds agree, which is no certainty.
    """
    from scipy.stats import ttest_1samp

    values = np.asarray(values, "float64")
    figures = {"mean": float(values.mean()), "sd": None, "low": None, "high": None, "n": len(values)}
    if len(values) > 1 and np.ptp(values) < 1e-12:
        figures["sd"] = 0.0
    elif len(values) > 1:
        interval = ttest_1samp(values, 0.0).confidence_interval(0.95)
        figures |= {"sd": float(values.std(ddof=1)), "low": float(interval.low), "high": float(interval.high)}
    return figures


def interval_over_images(correct: np.ndarray) -> dict[str, float]:
    """(seeds, n) right or wrong -> 95 % interval of the accuracy over test images, the trained models as they are.

    Wilson's interval (1927), for one seed as it is. Several seeds on the same images say more than one, and less than
    as many times the images: with the variance v over images of the share of seeds that are right, p (1 - p) / v times
    as many, at most one each seed (an effective sample size, Kish 1965). A few wrong answers tell v badly: half an
    image more counts as answered alike by all seeds. Near 100 % this holds the truth in 95 to 98 % of simulated cases,
    a percentile bootstrap of the images in 89 to 91.
    """
    correct = np.asarray(correct, bool)
    seeds, n = correct.shape
    shares = correct.mean(axis=0)
    p, variance = float(shares.mean()), float(shares.var())
    low, high = _wilson(p, n * min((n * p * (1 - p) + 0.5) / (n * variance + 0.5), seeds))
    return {"low": low, "high": high}


def _wilson(p: float, n: float) -> tuple[float, float]:
    """Of a share p of n, which need not be whole (SciPy's takes counts)."""
    from scipy.stats import norm

    z2 = float(norm.ppf(0.975)) ** 2 / n
    centre, half = p + z2 / 2, np.sqrt(z2 * (p * (1 - p) + z2 / 4))
    return max(float(centre - half) / (1 + z2), 0.0), min(float(centre + half) / (1 + z2), 1.0)


def compare_images(first: np.ndarray, second: np.ndarray) -> float:
    """p-value of "equally accurate on images like these", for (seeds, n) right or wrong of both on the same images.

    One seed: McNemar's exact test (McNemar 1947). Several: its generalisation, the sign-flip permutation test of each
    image's difference in the number of seeds that are right, over all flips: with m images of one difference, their sum
    is that difference times (2 Binomial(m, 1/2) - m).
    """
    from scipy.signal import convolve
    from scipy.stats import binom

    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"{first.shape} and {second.shape}; expected (seeds, images) twice")
    differences = first.sum(axis=0) - second.sum(axis=0)
    chances = np.ones(1)  # of each sum, from the least to the largest
    for size, images in enumerate(np.bincount(np.abs(differences))[1:], 1):
        own = np.zeros(2 * size * images + 1)
        own[:: 2 * size] = binom.pmf(np.arange(images + 1), images, 0.5)
        chances = convolve(chances, own)
    sums = np.arange(len(chances)) - len(chances) // 2
    return float(np.clip(chances[np.abs(sums) >= abs(differences.sum())].sum(), 0, 1))


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
    """Several methods' accuracies against one method's, over the same (seeds,): t-tests, p-values not yet corrected.

    From 6 seeds on each difference is judged by its own spread (`compare_seeds`). Fewer say too little of one pair, so
    the spread is pooled over all methods: the residuals of method + seed (two-way analysis of variance without
    interaction), which assumes that all methods vary alike.

    Returns:
        for each group the difference of the means, its 95 % interval (of this pair alone) and p; interval and p are
        None if there is one seed, or no spread at all.
    """
    from scipy.stats import t

    values = np.stack([np.asarray(group, "float64") for group in (control, *groups)])
    methods, seeds = values.shape
    if seeds >= OWN_SPREAD_FROM:
        return [compare_seeds(group, values[0]) for group in values[1:]]
    differences = values[1:].mean(axis=1) - values[0].mean()
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    if seeds < 2 or np.ptp(residuals) < 1e-12:
        return [{"difference": float(difference), "low": None, "high": None, "p": None} for difference in differences]
    freedom = (methods - 1) * (seeds - 1)
    error = float(np.sqrt(2 * np.square(residuals).sum() / freedom / seeds))
    half = error * float(t.ppf(0.975, freedom))
    return [
        {"difference": d, "low": d - half, "high": d + half, "p": float(2 * t.sf(abs(d) / error, freedom))}
        for d in differences.tolist()
    ]


def corrected(p_values: list[float]) -> list[float]:
    """Adjusted for many comparisons: false discovery rate (Benjamini & Hochberg 1995)."""
    from scipy.stats import false_discovery_control

    return [float(p) for p in false_discovery_control(p_values)] if p_values else []


def with_corrected(tests: list[dict[str, float | None]]) -> list[dict[str, float | None]]:
    """The tests of `compare_seeds`, their p corrected for their number; who has none is not counted."""
    adjusted = iter(corrected([test["p"] for test in tests if test["p"] is not None]))
    return [test | {"p": None if test["p"] is None else next(adjusted)} for test in tests]


def calibration(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict[str, Any]:
    """Expected calibration error (Guo et al. 2017, eq. 3) of (n, classes) logits for (n,) or (n, 1) labels.

    Returns:
        ece in 0..1, and for each bin of equal width its count, mean confidence and accuracy (None if it is empty).
    """
    from scipy.special import softmax

    labels = checked_labels(labels)
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
