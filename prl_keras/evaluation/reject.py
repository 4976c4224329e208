"""What a model gains by leaving the pictures it is least sure of to a person: risk and coverage."""

import numpy as np

from prl_keras.evaluation.statistics import proportion


def coverage_curve(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of the answers that are kept, by the share that is kept (El-Yaniv & Wiener 2010).

    Args:
        confidence: (n,) of the answers; correct: (n,) right or wrong.

    Returns:
        coverage (m,) ascending to 1, and accuracy (m,): a point for each confidence that occurs, since a threshold
        keeps or rejects equally confident answers together.
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    sorted_confidence, right = np.asarray(confidence)[order], np.asarray(correct, bool)[order]
    ends = np.flatnonzero(np.append(sorted_confidence[1:] != sorted_confidence[:-1], True)) + 1
    return ends / len(order), np.cumsum(right)[ends - 1] / ends


def area_under_risk(coverage: np.ndarray, accuracy: np.ndarray) -> float:
    """AURC: mean error over all coverages, 0 at best; each step of the curve counts with its width."""
    return float(np.sum((1 - accuracy) * np.diff(coverage, prepend=0.0)))


def thresholds(
    chosen_on: np.ndarray, confidence: np.ndarray, correct: np.ndarray, keep: tuple[float, ...] = (0.95, 0.9, 0.8)
) -> list[dict[str, float]]:
    """Thresholds that keep these shares of validation, and what they do on test.

    Args:
        chosen_on: (v,) confidences on validation; confidence, correct: (n,) of test, which choose nothing.

    Returns:
        for each its threshold, the share of test that it answers, and their accuracy as `statistics.proportion`; none
        where nothing would be answered.
    """
    rows = []
    for share in keep:
        threshold = float(np.quantile(chosen_on, 1 - share, method="lower"))
        kept = np.asarray(confidence) >= threshold
        if kept.any():
            figure = proportion(int(np.sum(kept & correct)), int(kept.sum()))
            rows.append({"keep": share, "threshold": threshold, "coverage": float(kept.mean()), **figure})
    return rows
