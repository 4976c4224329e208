"""Boxes within images: cutout, and what CutMix cuts.

Masks are multiplied with: tf.where takes twice to four times as long on a CPU.
"""

import tensorflow as tf


def box(centres, height, width, size: tuple[int, int]):
    """1 inside each image's own box, else 0: (batch, rows, columns, 1) float32.

    The box may hang over the border.

    Args:
        centres: (batch, 2) uniform numbers, 0..1: the centre is any pixel, all alike.
        height, width: whole pixels, (batch,) or one for all.
    """
    rows, columns = size
    top = tf.floor(centres[:, 0] * rows) - height // 2
    left = tf.floor(centres[:, 1] * columns) - width // 2
    down = _between(top, top + height, rows)[:, :, None, None]
    return down * _between(left, left + width, columns)[:, None, :, None]


def _between(first, end, pixels: int):
    """1 where first <= pixel < end, else 0: (batch, pixels) float32."""
    pixel = tf.range(pixels, dtype=tf.float32)
    return tf.cast((pixel >= first[:, None]) & (pixel < end[:, None]), tf.float32)


def cutout(images, centres, side: int):
    """Blackens one square of `side` pixels in each image (DeVries & Taylor 2017); less where it hangs over the border.

    Args:
        images: (batch, rows, columns, channels).
        centres: (batch, 2) uniform numbers, see `box`.
    """
    return images * (1.0 - box(centres, float(side), float(side), images.shape[1:3]))
