"""Vectors of length 1. NumPy only, so that what asks of episodes before it computes anything needs no TensorFlow."""

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, dim) -> rows of length 1; a zero stays one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
