"""Figures with their uncertainty. Imports SciPy only."""

import numpy as np


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
