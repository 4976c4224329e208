"""Colour operations with given strengths, on planes (batch, 3, pixels) of 0..255."""

import tensorflow as tf

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL; they sum to 1, so that grey stays grey


def blend(planes, factors, order):
    """Brightness, contrast and saturation (factors' columns 0, 1, 2), in each image's own order.

    Each is factor * image + (1 - factor) * other, clipped: other = black | the mean of the grey image | the
    grey image. So one (3, 3) matrix and one offset per image serve for all three.
    """
    luma = tf.constant(LUMA)
    for step in range(3):
        operation = order[:, step, None, None]
        factor = tf.gather(factors, order[:, step], batch_dims=1)[:, None, None]
        to_mean = tf.where(operation == 1, 1.0 - factor, 0.0)
        to_grey = tf.where(operation == 2, 1.0 - factor, 0.0)
        mean = tf.reduce_sum(tf.reduce_mean(planes, axis=2) * luma, axis=1)[:, None, None]
        planes = tf.matmul(factor * tf.eye(3) + to_grey * luma, planes) + to_mean * mean
        planes = tf.clip_by_value(planes, 0.0, 255.0)
    return planes


def shift_hue(planes, turns):
    """Rotates HSV's hue by `turns` (batch, 1), |turns| <= 1/6. tf.image's way and back: 3 times slower."""
    red, green, blue = tf.unstack(planes, axis=1)
    high, low = tf.maximum(red, tf.maximum(green, blue)), tf.minimum(red, tf.minimum(green, blue))
    is_red, is_green = red == high, green == high
    difference = tf.where(is_red, green - blue, tf.where(is_green, blue - red, red - green))
    sector = tf.where(is_red, 0.0, tf.where(is_green, 2.0, 4.0))
    chroma = high - low
    hue = sector + tf.math.divide_no_nan(difference, chroma) + 6.0 * turns  # sixths of a turn, -2..6

    def channel(centre: float):
        # 3 - | |hue - centre| - 3 | is the distance on the circle; floormod would be the slowest op of all
        return low + chroma * tf.clip_by_value(tf.abs(tf.abs(hue - centre) - 3.0) - 1.0, 0.0, 1.0)

    return tf.stack([channel(0.0), channel(2.0), channel(4.0)], axis=1)


def grayscale(planes, chosen):
    """The grey image in all three channels, where `chosen` (batch, 1)."""
    to_grey = tf.tile(tf.constant([LUMA]), (3, 1))
    return tf.matmul(tf.where(chosen[:, :, None], to_grey, tf.eye(3)), planes)
