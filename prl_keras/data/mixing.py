"""Mixes each image of a batch with another, as one Keras layer: mixup and CutMix.

Raw images in (uint8 or float, 0..255), float32 0..255 of the same size out, and each image's share of itself, which is
the weight of its own label. The partner of row i is row i - 1 (of row 0: the last): batches are shuffled already.

mixup: Zhang et al. 2018; the whole image, blended. CutMix: Yun et al. 2019; a box of the partner in the image. Unlike
the papers' own programs, which draw one share a batch, every image has its own share and its own box.
"""

import keras
import tensorflow as tf

from prl_keras.data.erase import box
from prl_keras.data.random_layer import RandomLayer
from prl_keras.errors import InputError

KINDS = ("none", "mixup", "cutmix")


@keras.saving.register_keras_serializable("prl_keras")
class Mixing(RandomLayer):
    """Mixes raw images (batch, height, width, channels) when training.

    Args:
        kind: one of KINDS.
        alpha: shares are drawn from Beta(alpha, alpha): near 0 or 1 if it is small, uniform at 1.
        probability: of each image to be mixed; else it stays itself, with share 1.
        seed: of the random numbers.
    """

    def __init__(self, kind: str, alpha: float = 1.0, probability: float = 1.0, seed: int = 0, **kwargs):
        if kind not in KINDS:
            raise InputError(f"unknown mixing {kind!r}; choose one of: {', '.join(KINDS)}")
        if not 0.0 < alpha < float("inf"):
            raise InputError(f"mixing needs an alpha above 0, got {alpha}")
        if not 0.0 <= probability <= 1.0:
            raise InputError(f"the probability of mixing is 0 to 1, got {probability}")
        super().__init__(seed, **kwargs)
        self.kind, self.alpha, self.probability = kind, float(alpha), float(probability)

    def call(self, images, training=None):
        """The mixed images, and each one's share of itself: (batch,) float32."""
        images = tf.cast(images, tf.float32)
        batch = tf.shape(images)[0]
        if not training or self.kind == "none":
            return images, tf.ones((batch,))
        share, centres = self.draw(batch)
        return mixup(images, share) if self.kind == "mixup" else cutmix(images, share, centres)

    def draw(self, batch_size):
        """Shares (batch,), 1 where an image is to stay itself, and centres (batch, 2) of boxes, uniform."""
        for_share, for_rest = tf.unstack(tf.random.split(self.next_seed()))
        share = beta(for_share, self.alpha, batch_size)
        uniform = tf.random.stateless_uniform((batch_size, 3), for_rest)
        return tf.where(uniform[:, 0] < self.probability, share, 1.0), uniform[:, 1:]

    def compute_output_spec(self, images, training=None):
        return keras.KerasTensor(images.shape, dtype="float32"), keras.KerasTensor(images.shape[:1], dtype="float32")

    def get_config(self):
        config = {"kind": self.kind, "alpha": self.alpha, "probability": self.probability, "seed": self.seed}
        return {**super().get_config(), **config}


def beta(seed, alpha: float, count):
    """(count,) numbers from Beta(alpha, alpha): x / (x + y) of two gamma numbers.

    In logarithms, with Gamma(alpha) = Gamma(alpha + 1) U^(1 / alpha) (Marsaglia & Tsang 2000): at a small alpha, both
    x and y may be too small for a float, and 0 / 0.
    """
    for_gamma, for_uniform = tf.unstack(tf.random.split(seed))
    gamma = tf.random.stateless_gamma((2, count), for_gamma, alpha + 1.0)
    uniform = 1.0 - tf.random.stateless_uniform((2, count), for_uniform)  # 0 is not among them
    x, y = tf.unstack(tf.math.log(gamma) + tf.math.log(uniform) / alpha)
    return tf.sigmoid(x - y)


def mixup(images, share):
    """share * image + (1 - share) * partner; and the shares."""
    own = share[:, None, None, None]
    mixed = own * images + (1.0 - own) * tf.roll(images, 1, axis=0)
    return tf.clip_by_value(mixed, 0.0, 255.0), share  # rounding may leave the range by a hair


def cutmix(images, share, centres):
    """The partner's pixels in a box of the image's proportions; and the shares of pixels that are left.

    The box has a share of 1 - share of the area, in whole pixels rounded down; it may hang over the border.

    Args:
        centres: (batch, 2) uniform numbers, 0..1.
    """
    rows, columns = images.shape[1:3]
    side = tf.sqrt(1.0 - share)
    cut = box(centres, tf.floor(rows * side), tf.floor(columns * side), (rows, columns))
    mixed = (1.0 - cut) * images + cut * tf.roll(images, 1, axis=0)
    return mixed, 1.0 - tf.reduce_mean(cut, axis=(1, 2, 3))
