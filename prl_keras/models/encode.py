"""Encode images once, outside training. Imports nothing of this package."""

import keras
import numpy as np


def encode(model: keras.Model, images: np.ndarray, batch_size: int = 250) -> np.ndarray:
    """Raw images (n, height, width, channels) -> outputs (n, ...) float32, in inference mode.

    Batches are cut from `images` one by one, so a memory-mapped array is never read as a whole.
    """
    batches = (
        model.predict_on_batch(np.asarray(images[start : start + batch_size]))
        for start in range(0, len(images), batch_size)
    )
    return np.concatenate([np.asarray(batch, "float32") for batch in batches])
