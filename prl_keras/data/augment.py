"""Random augmentation of an image batch, as one Keras layer that runs inside the training step.

Raw images in (uint8 or float, 0..255), float32 0..255 of the same size out; with training=False only the
cast.

Every random number is drawn per image, in one call, from one SeedGenerator, whose state is saved.
What the operations mean is torchvision's definition (ColorJitter, RandomResizedCrop, GaussianBlur on PIL
images), with these differences: values stay float between the steps (PIL rounds to integers); the hue shift
is always the last of the four jitter steps (the order of the other three is drawn per image); a crop's outer
half pixel blends with its neighbour outside the crop, or is cut off where the image ends.

Keras 3.15 has layers for most of this. Why they are not used, measured on a CPU (ms per batch of 256, 96x96):
  all random layers   the SeedGenerator's state is not written to `.keras` nor to `.weights.h5`
  RandomFlip          correct, per image; 46 ms, where a mirrored crop box costs nothing
  RandomCrop          one crop for the whole batch, and no resize
  RandomColorJitter   223 ms; no probability per image; brightness adds instead of multiplying; contrast
                      factor 0.5 draws from 1.0..1.5 only and uses the channel's mean; saturation gives
                      values down to -496, which a clip then hides; fixed order
  RandomGrayscale     correct, per image; 35 ms; its seed is missing from its config
  RandomGaussianBlur  one sigma (two, in fact: x and y) for the whole batch; zeros beyond the border, so that
                      the corner of a constant 200 becomes 89; factor=1.0 blurs only half of the images
"""

import math
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from prl_keras.errors import InputError

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL; they sum to 1, so that grey stays grey
CROP_ATTEMPTS = 10  # torchvision's number, before it falls back to a central crop


@dataclass(frozen=True)
class Recipe:
    """Ranges and probabilities. A strength s means a factor from 1 - s to 1 + s; hue is in turns."""

    area: tuple[float, float]
    aspect: tuple[float, float]
    flip_probability: float = 0.5
    jitter_probability: float = 0.0
    jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)  # brightness, contrast, saturation
    hue: float = 0.0  # at most 1/6, see shift_hue
    grayscale_probability: float = 0.0
    blur_sigma: tuple[float, float] | None = None  # at 96 pixels and above


RECIPES: dict[str, Recipe | None] = {
    "none": None,
    "light": Recipe(area=(0.8, 1.0), aspect=(0.9, 1.1)),
    "simclr": Recipe(
        area=(0.08, 1.0),
        aspect=(3 / 4, 4 / 3),
        jitter_probability=0.8,
        jitter=(0.5, 0.5, 0.5),
        hue=0.1,
        grayscale_probability=0.2,
        blur_sigma=(0.1, 2.0),
    ),
}

# Uniform numbers an image needs, drawn together: one random op a call, and the same stream for every recipe.
DRAWS = {"area": CROP_ATTEMPTS, "aspect": CROP_ATTEMPTS, "position": 2, "flip": 1}
DRAWS |= {"jitter": 1, "order": 3, "factors": 3, "hue": 1, "grayscale": 1, "sigma": 1}


def augmentation(name: str, image_size: tuple[int, int], seed: int) -> keras.Layer:
    """The layer for one of RECIPES, for images of (height, width) pixels."""
    return Augmentation(name, image_size, seed, name="augmentation")


@keras.saving.register_keras_serializable("prl_keras")
class Augmentation(keras.Layer):
    """Applies a recipe to raw images (batch, height, width, 3) when training."""

    def __init__(self, recipe: str, image_size: tuple[int, int], seed: int, **kwargs):
        if recipe not in RECIPES:
            raise InputError(f"unknown augmentation {recipe!r}; choose one of: {', '.join(RECIPES)}")
        kwargs.setdefault("dtype", "float32")  # also under a mixed policy: bfloat16 has no 256 grey levels
        super().__init__(**kwargs)
        self.recipe = recipe
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.seed = int(seed)
        self.generator = keras.random.SeedGenerator(self.seed)
        self.supports_jit = False  # crop_and_resize has no XLA kernel

    def build(self, input_shape):
        received, expected = tuple(input_shape)[1:], (*self.image_size, 3)
        unknown_or_equal = [got in (None, want) for got, want in zip(received, expected, strict=False)]
        if len(received) != 3 or not all(unknown_or_equal):
            raise InputError(f"augmentation expects images of shape {expected}, received {received}")
        self.built = True

    def call(self, images, training=None):
        images = tf.cast(images, tf.float32)
        recipe = RECIPES[self.recipe]
        if not training or recipe is None:
            return images
        return augment(images, self.draw(tf.shape(images)[0]), recipe, self.image_size)

    def draw(self, batch_size) -> dict[str, tf.Tensor]:
        """The next uniform numbers of the stream: name -> (batch, count)."""
        seed, replica = self.generator.next(), tf.distribute.get_replica_context()
        if replica is not None:  # each replica has the same state, and must not draw the same views
            seed += [0, tf.cast(replica.replica_id_in_sync_group, seed.dtype) * 2**32]
        numbers = tf.random.stateless_uniform((batch_size, sum(DRAWS.values())), seed)
        return dict(zip(DRAWS, tf.split(numbers, list(DRAWS.values()), axis=1), strict=True))

    def compute_output_spec(self, images, training=None):
        return keras.KerasTensor(images.shape, dtype="float32")

    # Keras saves weights but no seed state: a reloaded model would repeat its first views.
    def save_own_variables(self, store):
        store["seed_state"] = keras.ops.convert_to_numpy(self.generator.state)

    def load_own_variables(self, store):
        self.generator.state.assign(np.array(store["seed_state"]))

    def get_config(self):
        config = {"recipe": self.recipe, "image_size": list(self.image_size), "seed": self.seed}
        return {**super().get_config(), **config}


def augment(images, draws: dict[str, tf.Tensor], recipe: Recipe, size: tuple[int, int]):
    """Crop and flip, jitter, grayscale, blur: the recipe with given uniform numbers."""
    crops = sample_crops(draws["area"], draws["aspect"], draws["position"], size, recipe)
    images = crop_and_flip(images, *crops, draws["flip"][:, 0] < recipe.flip_probability)
    if recipe.jitter_probability or recipe.grayscale_probability or recipe.blur_sigma:
        # Channels first: colour becomes (3, 3) matrices, blur (height, height) and (width, width) ones.
        planes = tf.reshape(tf.transpose(images, (0, 3, 1, 2)), (-1, 3, size[0] * size[1]))
        jittered = tf.cast(draws["jitter"] < recipe.jitter_probability, tf.float32)
        factors = 1.0 + jittered * tf.constant(recipe.jitter, tf.float32) * (2.0 * draws["factors"] - 1.0)
        planes = blend(planes, factors, tf.argsort(draws["order"], axis=1))
        planes = shift_hue(planes, jittered * recipe.hue * (2.0 * draws["hue"] - 1.0))
        planes = grayscale(planes, draws["grayscale"] < recipe.grayscale_probability)
        planes = tf.reshape(planes, (-1, 3, *size))
        if recipe.blur_sigma:
            kernel, (low, high) = blur_settings(size, recipe.blur_sigma)
            planes = gaussian_blur(planes, low + (high - low) * draws["sigma"], kernel, size)
        images = tf.transpose(planes, (0, 2, 3, 1))
    return tf.clip_by_value(images, 0.0, 255.0)  # rounding may leave the range by a hair


def sample_crops(area_draws, aspect_draws, position_draws, size: tuple[int, int], recipe: Recipe):
    """Top, left, height, width (batch,), whole pixels: the first attempt that fits, else a central crop."""
    rows, columns = size
    area = rows * columns * (recipe.area[0] + (recipe.area[1] - recipe.area[0]) * area_draws)
    log_low, log_high = math.log(recipe.aspect[0]), math.log(recipe.aspect[1])
    aspect = tf.exp(log_low + (log_high - log_low) * aspect_draws)
    heights, widths = tf.round(tf.sqrt(area / aspect)), tf.round(tf.sqrt(area * aspect))
    fits = (heights >= 1) & (heights <= rows) & (widths >= 1) & (widths <= columns)
    found, first = tf.reduce_any(fits, axis=1), tf.argmax(tf.cast(fits, tf.int32), axis=1)

    fallback_width = min(columns, round(rows * recipe.aspect[1]))
    fallback_height = min(rows, round(columns / recipe.aspect[0]))
    height = tf.where(found, tf.gather(heights, first, batch_dims=1), float(fallback_height))
    width = tf.where(found, tf.gather(widths, first, batch_dims=1), float(fallback_width))
    top = tf.floor(position_draws[:, 0] * (rows - height + 1))
    left = tf.floor(position_draws[:, 1] * (columns - width + 1))
    top = tf.where(found, top, float((rows - fallback_height) // 2))
    left = tf.where(found, left, float((columns - fallback_width) // 2))
    return top, left, height, width


def crop_and_flip(images, top, left, height, width, flip):
    """Cuts each image's own box, mirrors it where `flip`, and scales it bilinearly to the whole size."""
    rows, columns = images.shape[1:3]
    (y1, y2), (x1, x2) = _span(top, height, rows), _span(left, width, columns)
    boxes = tf.stack([y1, tf.where(flip, x2, x1), y2, tf.where(flip, x1, x2)], axis=1)
    return tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), (rows, columns))


def _span(start, length, pixels: int):
    """Where the first and last output pixel's centres fall in the source, in crop_and_resize's units."""
    last = max(pixels - 1, 1)
    half_step = 0.5 * length / pixels - 0.5
    # A hair inside the border: float32 rounding past it makes the op fill with black. A full span is exact.
    hair = 1e-6 * pixels
    low = tf.clip_by_value(start + half_step, hair, last - hair) / last
    high = tf.clip_by_value(start + length - 1 - half_step, hair, last - hair) / last
    whole = length >= pixels
    return tf.where(whole, 0.0, low), tf.where(whole, 1.0, high)


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


def blur_settings(size: tuple[int, int], sigma: tuple[float, float]) -> tuple[int, tuple[float, float]]:
    """Kernel size and sigma range. The kernel: a tenth of the side as in SimCLR (9 at 96 pixels, 23 at 224), odd, at
    least 3. The range: that of the recipe, smaller below 96 pixels."""
    scale = min(1.0, min(size) / 96)
    half = min(size) // 20 if scale == 1.0 else int(9 * scale / 2)
    return 2 * max(half, 1) + 1, (sigma[0] * scale, sigma[1] * scale)


def gaussian_blur(planes, sigma, kernel: int, size: tuple[int, int]):
    """Blurs (batch, 3, height, width) with each image's own sigma (batch, 1), reflecting at the border."""
    offsets = tf.range(kernel, dtype=tf.float32) - kernel // 2
    weights = tf.exp(-0.5 * tf.square(offsets / sigma))
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    down, across = (tf.reshape(tf.matmul(weights, _taps(kernel, n)), (-1, 1, n, n)) for n in size)
    return tf.matmul(tf.matmul(down, planes), across, transpose_b=True)


def _taps(kernel: int, pixels: int) -> np.ndarray:
    """(kernel, pixels * pixels): for each tap, the 0/1 matrix that fetches the pixel it looks at."""
    source = np.pad(np.arange(pixels), kernel // 2, mode="reflect")
    fetched = np.stack([source[tap : tap + pixels] for tap in range(kernel)])
    return np.eye(pixels, dtype="float32")[fetched].reshape(kernel, -1)
