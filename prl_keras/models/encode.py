"""Encode images once, outside training."""

import keras
import numpy as np

from prl_keras.data.rows import Rows

_BATCH, _PIXELS = 250, 250 * 96 * 96  # at 224 px, 250 images would take 800 MB in the first layer alone


def images_a_batch(height: int, width: int) -> int:
    return max(1, min(_BATCH, _PIXELS // (height * width)))


def encode(model: keras.Model, images: np.ndarray | Rows, batch_size: int | None = None) -> np.ndarray:
    """Raw images (n, height, width, channels), or features (n, dim) -> outputs (n, ...) float32, in inference mode.

    Batches are cut from `images` one by one, so those of a store are never in memory as a whole.

    Args:
        batch_size: None: 250, or fewer for images above 96 x 96 pixels.
    """
    if batch_size is None:
        batch_size = images_a_batch(*images.shape[1:3]) if images.ndim == 4 else _BATCH
    batches = (
        model.predict_on_batch(np.asarray(images[start : start + batch_size]))
        for start in range(0, len(images), batch_size)
    )
    return np.concatenate([np.asarray(batch, "float32") for batch in batches])
