"""The augmentation layer against slow NumPy, colorsys and Pillow references, and its random stream."""

import colorsys
import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from prl_keras.data import augment
from prl_keras.data.augment import RECIPES, Recipe, augmentation, recipe_for, sample_shifts
from prl_keras.errors import InputError

LUMA = np.array([0.299, 0.587, 0.114])
STILL = Recipe(area=(1.0, 1.0), aspect=(1.0, 1.0), flip_probability=0.0)  # changes nothing


@pytest.fixture
def policy():
    before = keras.mixed_precision.global_policy()
    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy(before)


def noise(count=4, size=(16, 16), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3)).astype("uint8")


def copies(count=1000, size=(16, 16)):
    return np.repeat(noise(1, size), count, axis=0)


def augmented(images, recipe, monkeypatch, seed=0):
    """What a recipe of our own does to the images, through the layer."""
    monkeypatch.setitem(RECIPES, "probe", recipe)
    return augmentation("probe", images.shape[1:3], seed)(images, training=True).numpy()


def planes_of(images):
    return np.transpose(images, (0, 3, 1, 2)).reshape(len(images), 3, -1).astype("float32")


def images_of(planes, size):
    return np.transpose(np.reshape(planes, (-1, 3, *size)), (0, 2, 3, 1))


def assert_share(hits, total, probability):
    """Within 4 standard deviations of the binomial distribution."""
    assert abs(hits - total * probability) < 4 * math.sqrt(total * probability * (1 - probability))


# ---------------------------------------------------------------- contract


@pytest.mark.parametrize("name", ["none", "light", "simclr"])
@pytest.mark.parametrize("size", [(32, 32), (8, 8), (12, 20), (33, 9), (2, 2), (1, 5)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "bfloat16"])
def test_output_is_float32_of_the_same_size_between_0_and_255(name, size, dtype):
    images = tf.cast(noise(16, size), dtype)
    out = augmentation(name, size, 0)(images, training=True)
    assert out.dtype == tf.float32
    assert out.shape == images.shape
    assert np.isfinite(out).all()
    assert np.min(out) >= 0
    assert np.max(out) <= 255
    changed = bool(np.any(out.numpy() != tf.cast(images, tf.float32).numpy()))
    assert changed == (name != "none")


@pytest.mark.parametrize("name", ["light", "simclr"])
def test_rounding_does_not_leave_the_range(name):
    white = np.full((500, 32, 32, 3), 255, "uint8")
    assert np.max(augmentation(name, (32, 32), 0)(white, training=True)) <= 255


@pytest.mark.parametrize("name", ["none", "light", "simclr"])
def test_without_training_only_the_dtype_changes(name):
    images = noise()
    layer = augmentation(name, (16, 16), 0)
    for out in (layer(images, training=False), layer(images)):
        assert out.dtype == tf.float32
        np.testing.assert_array_equal(out, images)
    assert layer.generator.state.numpy().tolist() == [0, 0]


def test_an_unknown_name_is_one_line_with_the_names():
    with pytest.raises(InputError) as error:
        augmentation("moco", (32, 32), 0)
    names = "none, light, simclr, strong, strong-noflip, trivial"
    assert str(error.value) == f"unknown augmentation 'moco'; choose one of: {names}"


@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (2, 32, 32, 1), (32, 32, 3)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"expects images of shape \(32, 32, 3\), received"):
        augmentation("light", (32, 32), 0)(np.zeros(shape, "uint8"), training=True)


@pytest.mark.parametrize(("side", "square", "shift"), [(28, 12, 2), (63, 27, 4), (64, 21, 8), (96, 32, 12)])
def test_strong_shifts_and_squares_are_those_of_the_size(side: int, square: int, shift: int) -> None:
    """At 96 pixels as in Cutout's paper, below 64 as measured at 28."""
    recipe = recipe_for("strong", (side, side))
    assert round(recipe.cutout * side) == square
    moved = sample_shifts(tf.constant([[0.0, 0.999]]), (side, side), recipe.shift)
    np.testing.assert_array_equal(moved, [[-shift, shift]])
    black = augmentation("strong", (side, side), 0)(np.full((200, side, side, 3), 255, "uint8"), training=True)
    assert np.max(np.sum(np.all(black == 0, axis=-1), axis=(1, 2))) == square**2


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_policy_changes_nothing(policy, name):
    images = noise().astype("float32") * 0.999  # not representable in 16 bits
    expected = augmentation("simclr", (16, 16), 3)(images, training=True)
    policy(name)
    out = augmentation("simclr", (16, 16), 3)(images, training=True)
    assert out.dtype == tf.float32
    np.testing.assert_array_equal(out, expected)


# ---------------------------------------------------------------- crop and flip


def crop(images, boxes, flip):
    columns = [tf.constant(column, tf.float32) for column in np.transpose(boxes)]
    return augment.crop_and_flip(tf.cast(images, tf.float32), *columns, tf.constant(flip)).numpy()


@pytest.mark.parametrize("size", [(96, 96), (28, 28), (7, 13), (2, 2), (1, 1)])
def test_the_full_box_is_the_identity_and_its_flip_the_mirror(size):
    images = noise(2, size)
    boxes = [(0, 0, *size)] * 2
    out = crop(images, boxes, [False, True])
    np.testing.assert_allclose(out[0], images[0], atol=1e-3)
    np.testing.assert_allclose(out[1], images[1, :, ::-1], atol=1e-3)


def test_a_flipped_crop_is_the_mirror_of_the_crop():
    image = noise(1, (24, 24))
    boxes = [(3, 5, 11, 14), (0, 0, 9, 24), (15, 20, 9, 4)]
    out = crop(np.repeat(image, 6, 0), boxes * 2, [False] * 3 + [True] * 3)
    np.testing.assert_allclose(out[3:], out[:3, :, ::-1], atol=0.05)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 130), st.integers(1, 130), st.integers(0, 2**31))
def test_no_crop_reaches_beyond_the_image(rows, columns, seed):
    """crop_and_resize fills with black there; on a white image that would show."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, rows + 1, 64), rng.integers(1, columns + 1, 64)
    # half of the boxes touch the far border, where rounding is worst
    top = np.where(rng.random(64) < 0.5, rows - height, rng.integers(0, rows - height + 1))
    left = np.where(rng.random(64) < 0.5, columns - width, rng.integers(0, columns - width + 1))
    white = np.full((64, rows, columns, 3), 255.0, "float32")
    out = crop(white, np.stack([top, left, height, width], 1), rng.random(64) < 0.5)
    np.testing.assert_allclose(out, 255, atol=1e-3)


def test_a_crop_is_pillows_bilinear_resize():
    image_module = pytest.importorskip("PIL.Image")
    image = noise(1, (32, 32))
    boxes = [(4, 6, 10, 17), (1, 1, 30, 30), (9, 2, 21, 5)]
    out = crop(np.repeat(image, 3, 0), boxes, [False] * 3)
    for got, (top, left, height, width) in zip(out, boxes, strict=True):
        # Pillow repeats the crop's border pixels, we see beyond them: compare what lies between their centres
        rows = (np.arange(32) + 0.5) * height / 32 - 0.5
        columns = (np.arange(32) + 0.5) * width / 32 - 0.5
        inside = ((rows >= 0) & (rows <= height - 1))[:, None] & ((columns >= 0) & (columns <= width - 1))
        for channel in range(3):
            source = image_module.fromarray(image[0, ..., channel].astype("float32"))
            box = (left, top, left + width, top + height)
            expected = np.array(source.resize((32, 32), image_module.Resampling.BILINEAR, box=box))
            np.testing.assert_allclose(got[..., channel][inside], expected[inside], atol=0.02)


def torchvision_crop(area_draws, aspect_draws, position, size, area, aspect):
    """RandomResizedCrop.get_params, with the random numbers handed in."""
    height, width = size
    for area_draw, aspect_draw in zip(area_draws, aspect_draws, strict=True):
        target = height * width * (area[0] + (area[1] - area[0]) * area_draw)
        ratio = math.exp(math.log(aspect[0]) + (math.log(aspect[1]) - math.log(aspect[0])) * aspect_draw)
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(position[0] * (height - h + 1)), int(position[1] * (width - w + 1)), h, w
    if width / height < min(aspect):
        w, h = width, round(width / min(aspect))
    elif width / height > max(aspect):
        w, h = round(height * max(aspect)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("size", [(96, 96), (28, 28), (8, 8), (40, 13), (13, 40)])
@pytest.mark.parametrize(
    "recipe",
    [
        RECIPES["simclr"],
        RECIPES["light"],
        Recipe(area=(0.9, 1.0), aspect=(1.9, 2.1)),  # seldom fits a square: the fallback
        Recipe(area=(0.9, 1.0), aspect=(0.45, 0.5)),
    ],
)
def test_crops_are_those_of_torchvision(size, recipe):
    rng = np.random.default_rng(0)
    areas, aspects, positions = (rng.random((500, n), "float32") for n in (10, 10, 2))
    got = np.stack(augment.sample_crops(areas, aspects, positions, size, recipe), 1)
    draws = zip(areas.astype(float), aspects.astype(float), positions.astype(float), strict=True)
    expected = np.array([torchvision_crop(*d, size, recipe.area, recipe.aspect) for d in draws])
    # float32 may round a length on a tie the other way
    assert (got == expected).all(axis=1).mean() > 0.995
    assert (got[:, 2:] >= 1).all()
    assert (got[:, :2] >= 0).all()
    assert (got[:, :2] + got[:, 2:] <= size).all()


@pytest.mark.parametrize("name", ["simclr", "light"])
def test_crop_areas_and_aspects_fill_their_ranges(name):
    recipe, layer = RECIPES[name], augmentation(name, (96, 96), 1)
    draws = layer.draw(4000)
    crops = augment.sample_crops(draws["area"], draws["aspect"], draws["position"], (96, 96), recipe)
    _, _, height, width = (np.array(value) for value in crops)
    area, log_aspect = height * width / 96**2, np.log(width / height)
    low, high = recipe.area
    assert area.min() > low * 0.96
    assert area.min() < low + 0.05 * (high - low)
    assert area.max() > high - 0.05 * (high - low)
    # lengths are whole pixels: at 27 pixels, rounding moves an aspect by up to 4 percent
    narrowest, widest = np.log(recipe.aspect)
    assert narrowest - 0.05 < log_aspect.min() < 0.9 * narrowest
    assert 0.9 * widest < log_aspect.max() < widest + 0.05
    assert log_aspect.mean() == pytest.approx((narrowest + widest) / 2, abs=0.05 * (widest - narrowest))


# ---------------------------------------------------------------- colour and blur


def blended(image, factors, order):
    """torchvision's adjust_brightness, adjust_contrast, adjust_saturation on one float image."""
    for operation in order:
        gray = (image * LUMA).sum(-1, keepdims=True)
        other = [0.0, gray.mean(), gray][operation]
        image = np.clip(factors[operation] * image + (1 - factors[operation]) * other, 0, 255)
    return image


def test_blends_equal_the_slow_reference_in_every_order():
    orders = np.array(list(itertools.permutations(range(3))))
    images, factors = noise(6, (5, 7)), np.random.default_rng(1).uniform(0.5, 1.5, (6, 3))
    got = augment.blend(planes_of(images), tf.constant(factors, tf.float32), tf.constant(orders))
    expected = [blended(*values) for values in zip(images.astype(float), factors, orders, strict=True)]
    np.testing.assert_allclose(images_of(got, (5, 7)), expected, atol=1e-3)


@pytest.mark.parametrize("operation", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.5])
def test_blends_agree_with_pillow(operation, factor):
    enhance = pytest.importorskip("PIL.ImageEnhance")
    image_module = pytest.importorskip("PIL.Image")
    image = noise(1, (9, 9))
    factors = np.ones((1, 3), "float32")
    factors[0, operation] = factor
    got = augment.blend(planes_of(image), factors, tf.constant([[0, 1, 2]]))
    tool = [enhance.Brightness, enhance.Contrast, enhance.Color][operation]
    expected = np.array(tool(image_module.fromarray(image[0])).enhance(factor), float)
    np.testing.assert_allclose(images_of(got, (9, 9))[0], expected, atol=2)  # Pillow rounds, twice


def test_hue_shift_equals_colorsys():
    grays = np.repeat([[0], [37], [128], [255]], 3, axis=1)
    pure = np.array(list(itertools.product([0, 128, 255], repeat=3)))
    colours = np.concatenate([grays, pure, noise(1, (20, 20)).reshape(-1, 3)]).astype("float32")
    for turns in (-1 / 6, -0.1, 0.0, 0.03, 0.1, 1 / 6):
        got = augment.shift_hue(colours.T[None], tf.constant([[turns]], tf.float32)).numpy()[0].T
        for colour, shifted in zip(colours, got, strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(colour / 255.0))
            expected = np.multiply(colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value), 255)
            np.testing.assert_allclose(shifted, expected, atol=1e-2)


def test_grayscale_takes_the_luma_where_chosen():
    images = noise(2, (4, 4))
    got = images_of(augment.grayscale(planes_of(images), tf.constant([[True], [False]])), (4, 4))
    np.testing.assert_allclose(got[0], np.repeat((images[0] * LUMA).sum(-1, keepdims=True), 3, -1), atol=1e-3)
    np.testing.assert_array_equal(got[1], images[1])


@pytest.mark.parametrize(("size", "kernel"), [((12, 10), 9), ((5, 8), 3), ((2, 3), 3), ((4, 4), 9)])
def test_blur_equals_the_slow_reference(size, kernel):
    images, sigmas = noise(4, size).astype(float), np.array([0.1, 0.7, 1.3, 2.0])
    planes = images.transpose(0, 3, 1, 2).astype("float32")
    got = augment.gaussian_blur(planes, tf.constant(sigmas[:, None], tf.float32), kernel, size)
    reach = kernel // 2
    for image, sigma, blurred in zip(images, sigmas, np.transpose(got, (0, 2, 3, 1)), strict=True):
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        weights = np.outer(weights, weights) / weights.sum() ** 2
        padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
        for row, column in itertools.product(*map(range, size)):
            window = padded[row : row + kernel, column : column + kernel]
            expected = (weights[..., None] * window).sum((0, 1))
            np.testing.assert_allclose(blurred[row, column], expected, atol=1e-2)


@pytest.mark.parametrize(
    ("side", "kernel", "sigma"),
    [
        (224, 23, 2),
        (128, 13, 2),
        (100, 11, 2),
        (96, 9, 2),
        (80, 7, 5 / 3),
        (64, 7, 4 / 3),
        (32, 3, 2 / 3),
        (8, 3, 1 / 6),
    ],
)
def test_the_blur_fits_the_image(side, kernel, sigma):
    got_kernel, (_, high) = augment.blur_settings((side, side + 5), (0.1, 2.0))
    assert got_kernel == kernel
    assert high == pytest.approx(sigma)


# ---------------------------------------------------------------- one draw per image


def distinct(images):
    return len({image.tobytes() for image in images})


def test_half_of_the_images_are_flipped(monkeypatch):
    images = copies()
    out = augmented(images, replace(STILL, flip_probability=0.5), monkeypatch)
    mirrored = np.abs(out - images[:, :, ::-1]).max((1, 2, 3)) < 1e-3
    kept = np.abs(out - images).max((1, 2, 3)) < 1e-3
    assert (mirrored ^ kept).all()
    assert_share(mirrored.sum(), 1000, 0.5)


def test_every_image_has_its_own_crop(monkeypatch):
    out = augmented(copies(size=(32, 32)), replace(STILL, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)), monkeypatch)
    assert distinct(out) > 900  # boxes are whole pixels, and few large ones exist


@pytest.mark.parametrize("index", range(4))
def test_four_images_in_five_are_jittered_each_with_its_own_factor(monkeypatch, index):
    images = copies()
    *jitter, hue = (np.eye(4)[index] * [0.5, 0.5, 0.5, 0.1]).tolist()
    recipe = replace(STILL, jitter_probability=0.8, jitter=tuple(jitter), hue=hue)
    out = augmented(images, recipe, monkeypatch)
    changed = np.abs(out - images).max((1, 2, 3)) > 1e-2
    assert_share(changed.sum(), 1000, 0.8)
    assert distinct(out[changed]) > 0.98 * changed.sum()


def test_jitter_factors_span_half_to_one_and_a_half(monkeypatch):
    images = np.full((1000, 2, 2, 3), 100, "uint8")
    recipe = replace(STILL, jitter_probability=1.0, jitter=(0.5, 0.0, 0.0))
    factors = augmented(images, recipe, monkeypatch)[:, 0, 0, 0] / 100
    assert 0.5 <= factors.min() < 0.51
    assert 1.49 < factors.max() <= 1.5
    assert factors.mean() == pytest.approx(1, abs=4 * 0.289 / math.sqrt(1000))


def test_one_image_in_five_is_gray(monkeypatch):
    images = copies()
    out = augmented(images, replace(STILL, grayscale_probability=0.2), monkeypatch)
    gray = np.ptp(out, axis=-1).max((1, 2)) < 1e-3
    np.testing.assert_allclose(out[~gray], images[~gray], atol=1e-3)
    assert_share(gray.sum(), 1000, 0.2)


def test_every_image_has_its_own_blur(monkeypatch):
    out = augmented(copies(200, (96, 96)), replace(STILL, blur_sigma=(0.1, 2.0)), monkeypatch)
    sharpness = np.abs(np.diff(out, axis=2)).mean((1, 2, 3))
    assert distinct(out) > 180  # the smallest sigmas all leave the image as it is
    assert sharpness.max() > 5 * sharpness.min()


def test_jitter_orders_are_all_equally_likely():
    draws = augmentation("simclr", (8, 8), 0).draw(3000)
    orders, counts = np.unique(np.argsort(draws["order"], axis=1), axis=0, return_counts=True)
    assert len(orders) == 6
    for count in counts:
        assert_share(count, 3000, 1 / 6)


def test_the_jitter_order_does_not_depend_on_the_factors(monkeypatch):
    seen = {}
    monkeypatch.setattr(augment, "blend", lambda planes, *given: seen.update(given=given) or planes)
    augmentation("simclr", (4, 4), 0)(copies(3000, (4, 4)), training=True)
    factors, order = seen["given"]
    together = np.corrcoef(np.concatenate([factors, order], axis=1).T)
    assert np.abs(together[:3, 3:]).max() < 0.1


def test_the_draws_of_an_image_are_independent_of_each_other_and_of_the_next_image():
    draws = np.concatenate(list(augmentation("simclr", (8, 8), 0).draw(3000).values()), axis=1)
    pairs = np.corrcoef(np.concatenate([draws[:-1], draws[1:]], axis=1).T)
    np.testing.assert_allclose(pairs, np.eye(len(pairs)), atol=0.1)


# ---------------------------------------------------------------- the random stream


@pytest.mark.parametrize("name", ["light", "simclr"])
def test_two_views_in_one_traced_function_differ(name):
    keras.utils.set_random_seed(0)  # with a global seed, stateful random ops would repeat themselves
    layer, images = augmentation(name, (16, 16), 0), noise(8)
    views = tf.function(lambda x: (layer(x, training=True), layer(x, training=True)))
    first, second = views(images)
    third, fourth = views(images)
    for one, other in itertools.combinations([first, second, third, fourth], 2):
        assert (np.abs(one - other).max((1, 2, 3)) > 1).all()


def test_graph_and_eager_mode_draw_the_same_stream():
    images = noise(8)
    eager, traced = (augmentation("simclr", (16, 16), 5) for _ in range(2))
    call = tf.function(lambda x: traced(x, training=True))
    for _ in range(3):
        np.testing.assert_allclose(call(images), eager(images, training=True), atol=1e-2)


def test_the_seed_decides_the_stream():
    images = noise(8)
    first, same, other = (augmentation("simclr", (16, 16), seed)(images, training=True) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1


def test_the_stream_is_the_same_on_every_machine():
    layer = augmentation("simclr", (16, 16), 42)
    layer.draw(3)
    expected = [0.41369, 0.764272, 0.847322, 0.26222, 0.669678, 0.606761]
    np.testing.assert_allclose(np.ravel(layer.draw(2)["factors"]), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["light", "simclr"])
def test_a_reloaded_model_continues_the_stream(tmp_path, name):
    images = noise(8)
    model = keras.Sequential([keras.Input((16, 16, 3), dtype="uint8"), augmentation(name, (16, 16), 9)])
    model(images, training=True)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    expected = model(images, training=True)

    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images, training=True), expected)
    clone = keras.models.clone_model(model)
    clone.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(clone(images, training=True), expected)


def test_the_layer_is_rebuilt_from_its_config():
    layer = augmentation("light", (12, 20), 7)
    config = keras.saving.serialize_keras_object(layer)
    assert config["registered_name"] == "prl_keras>Augmentation"
    again = keras.saving.deserialize_keras_object(config)
    assert (again.name, again.recipe, again.image_size, again.seed) == ("augmentation", "light", (12, 20), 7)
    assert again.get_config() == layer.get_config()


class TwoViews(keras.Model):
    """Reports how far the two views of its last batch are from each other."""

    def __init__(self, recipe):
        super().__init__()
        self.augmentation = augmentation(recipe, (16, 16), 0)
        self.dense = keras.layers.Dense(2)
        self.distance = keras.metrics.Mean(name="distance")

    def call(self, images, training=None):
        return self.dense(keras.layers.Flatten()(self.augmentation(images, training=training) / 255))

    def train_step(self, data):
        images = data[0]
        one, other = (self.augmentation(images, training=True) for _ in range(2))
        self.distance.update_state(tf.reduce_min(tf.reduce_max(tf.abs(one - other), (1, 2, 3))))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.cast(self(images, training=True), tf.float32)))
            scaled = self.optimizer.scale_loss(loss)
        self.optimizer.apply(tape.gradient(scaled, self.trainable_variables), self.trainable_variables)
        return {"loss": loss, "distance": self.distance.result()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_views_differ_inside_fit(policy, name):
    policy(name)
    model = TwoViews("simclr")
    model.compile(keras.optimizers.SGD(1e-3))
    history = model.fit(noise(20), np.zeros(20), batch_size=8, epochs=2, verbose=0).history
    assert min(history["distance"]) > 1
    assert np.isfinite(history["loss"]).all()
    assert not model.jit_compile


FRESH = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from prl_keras.data.augment import augmentation
images = np.arange(8 * 16 * 16 * 3).reshape(8, 16, 16, 3).astype("uint8")
out = augmentation("simclr", (16, 16), 11)(images, training=True)
print(repr(float(tf.reduce_sum(out))))
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    layer = augmentation("simclr", (16, 16), 11)
step = tf.function(lambda: strategy.run(lambda: layer(tf.constant(images), training=True)))
one, other = strategy.experimental_local_results(step())
print(float(tf.reduce_min(tf.reduce_max(tf.abs(one - other), (1, 2, 3)))))
print(float(tf.reduce_max(tf.abs(one - out))))
"""


@pytest.mark.slow
def test_a_fresh_process_draws_the_same_and_replicas_draw_differently():
    images = np.arange(8 * 16 * 16 * 3).reshape(8, 16, 16, 3).astype("uint8")
    expected = float(tf.reduce_sum(augmentation("simclr", (16, 16), 11)(images, training=True)))
    root = Path(augment.__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", FRESH], cwd=root, capture_output=True, encoding="utf-8", check=True)
    total, between_replicas, first_replica = map(float, result.stdout.split())
    assert total == expected
    assert between_replicas > 1
    assert first_replica < 1e-2
