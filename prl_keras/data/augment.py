"""Random augmentation of an image batch, as one Keras layer that runs inside the training step.

Raw images in (uint8 or float, 0..255), float32 0..255 of the same size out; with training=False only the
cast.

Every random number is drawn per image, in one call, from one SeedGenerator, whose state is saved.
What the operations mean is torchvision's definition (ColorJitter, RandomResizedCrop, GaussianBlur on PIL
images), with these differences: values stay float between the steps (PIL rounds to integers); the hue shift
is always the last of the four jitter steps (the order of the other three is drawn per image); a crop's outer
half pixel blends with its neighbour outside the crop, or is cut off where the image ends. Cutout is that of DeVries &
Taylor 2017; `data/trivial.py` has the operations of "trivial".

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

from prl_keras.data.colour import blend, grayscale, shift_hue
from prl_keras.data.erase import cutout
from prl_keras.data.random_layer import RandomLayer
from prl_keras.data.trivial import OPERATIONS, one_operation
from prl_keras.errors import InputError

CROP_ATTEMPTS = 10  # torchvision's number, before it falls back to a central crop


@dataclass(frozen=True)
class Recipe:
    """Ranges and probabilities. A strength s means a factor from 1 - s to 1 + s; hue is in turns."""

    area: tuple[float, float] | None = None  # None: no crop, but a shift
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    shift: float = 0.0  # at most this share of each side, in whole pixels; beyond the border the image is mirrored
    flip_probability: float = 0.5
    jitter_probability: float = 0.0
    jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)  # brightness, contrast, saturation
    hue: float = 0.0  # at most 1/6, see shift_hue
    grayscale_probability: float = 0.0
    blur_sigma: tuple[float, float] | None = None  # at 96 pixels and above
    operations: tuple[str, ...] = ()  # of trivial.OPERATIONS; one of them for each image, before everything else
    cutout: float = 0.0  # side of the black square, as a share of the image's shorter side; after everything else

    @property
    def draws(self) -> dict[str, int]:
        """How many uniform numbers an image needs, by name."""
        cropped_only = self.area and not (self.operations or self.cutout)
        return DRAWS if cropped_only else DRAWS | MORE_DRAWS


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
    "strong": Recipe(shift=2 / 28, cutout=12 / 28),
    "strong-noflip": Recipe(shift=2 / 28, cutout=12 / 28, flip_probability=0.0),  # where left and right differ
    "trivial": Recipe(operations=tuple(OPERATIONS), cutout=1 / 4),
}

# From 64 pixels on: the shifts and the square that Cutout's authors used at 96. Not measured here.
_LARGE = 64
_OF_LARGE = {
    "strong": Recipe(shift=12 / 96, cutout=32 / 96),
    "strong-noflip": Recipe(shift=12 / 96, cutout=32 / 96, flip_probability=0.0),
}

# Uniform numbers an image needs, drawn together: one random op a call, and the same stream for every recipe that only
# crops and colours. More numbers in that call would be another stream, so only recipes that use them draw them.
DRAWS = {"area": CROP_ATTEMPTS, "aspect": CROP_ATTEMPTS, "position": 2, "flip": 1}
DRAWS |= {"jitter": 1, "order": 3, "factors": 3, "hue": 1, "grayscale": 1, "sigma": 1}
MORE_DRAWS = {"shift": 2, "operation": 1, "strength": 1, "cutout": 2}


def recipe_for(name: str, image_size: tuple[int, int]) -> Recipe | None:
    """One of RECIPES, as it is for images of (height, width) pixels."""
    return _OF_LARGE.get(name, RECIPES[name]) if min(image_size) >= _LARGE else RECIPES[name]


def augmentation(name: str, image_size: tuple[int, int], seed: int) -> keras.Layer:
    """The layer for one of RECIPES, for images of (height, width) pixels."""
    return Augmentation(name, image_size, seed, name="augmentation")


@keras.saving.register_keras_serializable("prl_keras")
class Augmentation(RandomLayer):
    """Applies a recipe to raw images (batch, height, width, 3) when training."""

    def __init__(self, recipe: str, image_size: tuple[int, int], seed: int, **kwargs):
        if recipe not in RECIPES:
            raise InputError(f"unknown augmentation {recipe!r}; choose one of: {', '.join(RECIPES)}")
        super().__init__(seed, **kwargs)
        self.recipe = recipe
        self.image_size = (int(image_size[0]), int(image_size[1]))

    def build(self, input_shape):
        received, expected = tuple(input_shape)[1:], (*self.image_size, 3)
        unknown_or_equal = [got in (None, want) for got, want in zip(received, expected, strict=False)]
        if len(received) != 3 or not all(unknown_or_equal):
            raise InputError(f"augmentation expects images of shape {expected}, received {received}")
        self.built = True

    def call(self, images, training=None):
        images = tf.cast(images, tf.float32)
        recipe = recipe_for(self.recipe, self.image_size)
        if not training or recipe is None:
            return images
        return augment(images, self.draw(tf.shape(images)[0]), recipe, self.image_size)

    def draw(self, batch_size) -> dict[str, tf.Tensor]:
        """The next uniform numbers of the stream: name -> (batch, count)."""
        recipe = RECIPES[self.recipe]
        counts = recipe.draws if recipe else DRAWS
        numbers = tf.random.stateless_uniform((batch_size, sum(counts.values())), self.next_seed())
        return dict(zip(counts, tf.split(numbers, list(counts.values()), axis=1), strict=True))

    def compute_output_spec(self, images, training=None):
        return keras.KerasTensor(images.shape, dtype="float32")

    def get_config(self):
        config = {"recipe": self.recipe, "image_size": list(self.image_size), "seed": self.seed}
        return {**super().get_config(), **config}


def augment(images, draws: dict[str, tf.Tensor], recipe: Recipe, size: tuple[int, int]):
    """One operation, crop or shift, flip, jitter, grayscale, blur, cutout: the recipe with given uniform numbers."""
    flip = draws["flip"][:, 0] < recipe.flip_probability
    if recipe.operations:
        images = one_operation(images, draws["operation"][:, 0], draws["strength"][:, 0], recipe.operations)
    if recipe.area:
        crops = sample_crops(draws["area"], draws["aspect"], draws["position"], size, recipe)
        images = crop_and_flip(images, *crops, flip)
    else:
        images = shift_and_flip(images, sample_shifts(draws["shift"], size, recipe.shift), flip)
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
    images = tf.clip_by_value(images, 0.0, 255.0)  # rounding may leave the range by a hair
    return cutout(images, draws["cutout"], round(recipe.cutout * min(size))) if recipe.cutout else images


def sample_shifts(draws, size: tuple[int, int], share: float):
    """How many pixels down and to the right (batch, 2) int32, uniform over -most..most of each axis."""
    most = np.array([round(share * side) for side in size], "float32")
    return tf.cast(tf.floor(draws * (2 * most + 1)) - most, tf.int32)


def shift_and_flip(images, shifts, flip):
    """Moves each image by whole pixels, mirrored at its border as np.pad's "reflect" (black bars would be features of
    their own), and then mirrors it where `flip`."""
    rows, columns = images.shape[1:3]
    across = tf.range(columns)
    across = tf.where(flip[:, None], across[::-1], across)
    down = _reflected(tf.range(rows) - shifts[:, :1], rows)
    across = _reflected(across - shifts[:, 1:], columns)
    return tf.gather(tf.gather(images, down, axis=1, batch_dims=1), across, axis=2, batch_dims=1)


def _reflected(index, pixels: int):
    """Into 0..pixels - 1, where it is off by less than `pixels`."""
    last = pixels - 1
    return last - tf.abs(last - tf.abs(index))


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
