"""One random operation an image, of random strength, as TrivialAugment (Müller & Hutter 2021).

The ranges are those of the paper's "RA" search space, but strengths are continuous. Other differences: no sharpness,
autocontrast and equalize; hue and grayscale instead; rotation and shear around the centre, bilinear; what lies beyond
the border is the mirrored image and not black.

Each operation takes images (batch, height, width, 3) of 0..255 and strengths (batch,) from -1 to 1, and may leave
0..255. Each image is handed to its own operation only, so that a dozen of them cost about as much as one.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from prl_keras.data.colour import LUMA, shift_hue

FACTOR = 0.9  # brightness, contrast and saturation are multiplied by 0.1 to 1.9
HUE = 0.1  # turns
POSTERIZED = 4  # bits that are lost at most
TRANSLATION = 10 / 32  # of the side
ANGLE = math.radians(30)
SHEAR = 0.3

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def _each(values):
    """(batch,) -> (batch, 1, 1, 1)."""
    return values[:, None, None, None]


def _grey(images):
    return tf.reduce_sum(images * tf.constant(LUMA), axis=-1, keepdims=True)


def brightness(images, strength):
    return images * _each(1.0 + FACTOR * strength)


def contrast(images, strength):
    """Towards the mean of the grey image, or away from it."""
    mean = tf.reduce_mean(_grey(images), axis=(1, 2), keepdims=True)
    return mean + (images - mean) * _each(1.0 + FACTOR * strength)


def saturation(images, strength):
    """Towards the grey image, or away from it."""
    grey = _grey(images)
    return grey + (images - grey) * _each(1.0 + FACTOR * strength)


def hue(images, strength):
    planes = shift_hue(tf.transpose(images, (0, 3, 1, 2)), HUE * strength[:, None, None])
    return tf.transpose(planes, (0, 2, 3, 1))


def grayscale(images, strength):
    return tf.repeat(_grey(images), 3, axis=-1)


def solarize(images, strength):
    """Inverts what is bright: nothing at strength 0, everything at 1 or -1."""
    return tf.where(images >= _each(256.0 * (1.0 - tf.abs(strength))), 255.0 - images, images)


def posterize(images, strength):
    """Keeps the first 8 to 4 bits of a pixel."""
    step = _each(2.0 ** tf.round(POSTERIZED * tf.abs(strength)))
    return tf.floor(images / step) * step


def translate_x(images, strength):
    return _warped(images, shift_x=tf.round(TRANSLATION * images.shape[2] * strength))


def translate_y(images, strength):
    return _warped(images, shift_y=tf.round(TRANSLATION * images.shape[1] * strength))


def rotate(images, strength):
    cosine, sine = tf.cos(ANGLE * strength), tf.sin(ANGLE * strength)
    return _warped(images, cosine, -sine, sine, cosine)


def shear_x(images, strength):
    return _warped(images, xy=SHEAR * strength)


def shear_y(images, strength):
    return _warped(images, yx=SHEAR * strength)


def _warped(images, xx=1.0, xy=0.0, yx=0.0, yy=1.0, shift_x=0.0, shift_y=0.0):
    """Pixel (x, y), from the centre, becomes the one at (xx x + xy y - shift_x, yx x + yy y - shift_y).

    Bilinear; mirrored at the border, whose pixels are repeated there. Each argument is (batch,) or one for all.
    """
    rows, columns = images.shape[1:3]
    x, y = (columns - 1) / 2, (rows - 1) / 2
    from_x, from_y = x - xx * x - xy * y - shift_x, y - yx * x - yy * y - shift_y
    batch = tf.shape(images)[:1]
    columns_of_matrix = [xx, xy, from_x, yx, yy, from_y, 0.0, 0.0]
    transforms = tf.stack([tf.broadcast_to(tf.cast(c, tf.float32), batch) for c in columns_of_matrix], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=(rows, columns),
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )


OPERATIONS: dict[str, Operation] = {
    "identity": lambda images, strength: images,
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
    "grayscale": grayscale,
    "solarize": solarize,
    "posterize": posterize,
    "translate-x": translate_x,
    "translate-y": translate_y,
    "rotate": rotate,
    "shear-x": shear_x,
    "shear-y": shear_y,
}


def one_operation(images, choice, strength, names: tuple[str, ...]):
    """Does to each image one of the named operations, all equally likely.

    Args:
        images: (batch, height, width, 3), float32 0..255.
        choice, strength: (batch,) uniform numbers, 0..1.
    """
    chosen = tf.cast(choice * len(names), tf.int32)
    rows = tf.dynamic_partition(tf.range(tf.shape(images)[0]), chosen, len(names))
    strength = 2.0 * strength - 1.0
    done = [OPERATIONS[n](tf.gather(images, r), tf.gather(strength, r)) for n, r in zip(names, rows, strict=True)]
    return tf.ensure_shape(tf.dynamic_stitch(rows, done), images.shape)
