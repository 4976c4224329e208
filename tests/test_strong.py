"""The policies strong, strong-noflip and trivial against slow NumPy, SciPy and Pillow references."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from prl_keras import config
from prl_keras.data import augment, erase, trivial
from prl_keras.data.augment import DRAWS, RECIPES, Recipe, augmentation
from prl_keras.data.trivial import OPERATIONS

NEW = ["strong", "strong-noflip", "trivial"]
SIZES = [(28, 28), (96, 96), (12, 40), (33, 9), (7, 7), (2, 2), (1, 5), (1, 1)]
LUMA = np.array([0.299, 0.587, 0.114])
STILL = Recipe(flip_probability=0.0)  # changes nothing


def noise(count: int = 8, size: tuple[int, int] = (28, 28), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3)).astype("uint8")


def copies(count: int, size: tuple[int, int] = (28, 28)) -> np.ndarray:
    return np.repeat(noise(1, size), count, axis=0)


def assert_share(hits: int, total: int, probability: float) -> None:
    """Within 4 standard deviations of the binomial distribution."""
    assert abs(hits - total * probability) < 4 * math.sqrt(total * probability * (1 - probability))


@pytest.fixture
def augmented(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """What a recipe of our own does to the images, through the layer."""

    def apply(images: np.ndarray, recipe: Recipe, seed: int = 0) -> np.ndarray:
        monkeypatch.setitem(RECIPES, "probe", recipe)
        return augmentation("probe", images.shape[1:3], seed)(images, training=True).numpy()

    return apply


# ---------------------------------------------------------------- contract


def test_the_command_line_offers_every_recipe_and_no_other() -> None:
    assert get_args(config.Augmentation) == tuple(RECIPES)


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "bfloat16"])
def test_output_is_float32_of_the_same_size_between_0_and_255(name: str, size: tuple[int, int], dtype: str) -> None:
    images = tf.cast(noise(32, size), dtype)
    out = augmentation(name, size, 0)(images, training=True)
    assert out.dtype == tf.float32
    assert out.shape == images.shape
    assert np.isfinite(out).all()
    assert np.min(out) >= 0
    assert np.max(out) <= 255
    if min(size) >= 7:
        assert (np.abs(out - tf.cast(images, tf.float32)).max((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("name", NEW)
def test_no_images_at_all_are_no_error(name: str) -> None:
    assert augmentation(name, (28, 28), 0)(noise(0), training=True).shape == (0, 28, 28, 3)


@pytest.mark.parametrize("name", NEW)
def test_a_batch_of_unknown_size_keeps_the_known_shape(name: str) -> None:
    images = keras.Input((28, 20, 3), dtype="uint8")
    assert augmentation(name, (28, 20), 0)(images).shape == (None, 28, 20, 3)
    layer = augmentation(name, (28, 20), 0)
    traced = tf.function(
        lambda x: layer(x, training=True), input_signature=[tf.TensorSpec((None, 28, 20, 3), tf.uint8)]
    )
    assert traced.get_concrete_function().output_shapes.as_list() == [None, 28, 20, 3]
    assert traced(noise(3, (28, 20))).shape == (3, 28, 20, 3)


@pytest.mark.parametrize("name", NEW)
def test_without_training_only_the_dtype_changes(name: str) -> None:
    images = noise()
    layer = augmentation(name, (28, 28), 0)
    for out in (layer(images, training=False), layer(images)):
        assert out.dtype == tf.float32
        np.testing.assert_array_equal(out, images)
    assert layer.generator.state.numpy().tolist() == [0, 0]


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_policy_changes_nothing(restored_dtype_policy: None, name: str, policy: str) -> None:
    images = noise().astype("float32") * 0.999  # not representable in 16 bits
    expected = augmentation(name, (28, 28), 3)(images, training=True)
    keras.config.set_dtype_policy(policy)
    out = augmentation(name, (28, 28), 3)(images, training=True)
    assert out.dtype == tf.float32
    np.testing.assert_array_equal(out, expected)


# ---------------------------------------------------------------- the random stream


def test_the_older_policies_draw_the_numbers_they_always_drew() -> None:
    first = tf.random.stateless_uniform((4, 33), [6, 0]).numpy()
    for name in ("light", "simclr"):
        drawn = augmentation(name, (28, 28), 6).draw(4)
        assert list(drawn) == list(DRAWS)
        np.testing.assert_array_equal(np.concatenate(list(drawn.values()), axis=1), first)


def test_draws_are_independent_of_each_other_and_of_the_next_image() -> None:
    draws = np.concatenate(list(augmentation("trivial", (8, 8), 0).draw(3000).values()), axis=1)
    pairs = np.corrcoef(np.concatenate([draws[:-1], draws[1:]], axis=1).T)
    np.testing.assert_allclose(pairs, np.eye(len(pairs)), atol=0.1)


@pytest.mark.parametrize("name", NEW)
def test_calls_differ_images_differ_and_graph_mode_draws_the_same(name: str) -> None:
    images = copies(64)
    eager, traced = (augmentation(name, (28, 28), 5) for _ in range(2))
    call = tf.function(lambda x: traced(x, training=True))
    views = [eager(images, training=True).numpy() for _ in range(3)]
    for view in views:
        np.testing.assert_allclose(call(images), view, atol=1e-2)
        assert len({image.tobytes() for image in view}) == 64
    assert all(np.abs(a - b).max((1, 2, 3)).min() > 1 for a, b in [views[:2], views[1:], views[::2]])
    other = augmentation(name, (28, 28), 6)(images, training=True)
    assert np.abs(other - views[0]).max((1, 2, 3)).min() > 1


@pytest.mark.parametrize("name", NEW)
def test_a_reloaded_model_continues_the_stream(tmp_path: Path, name: str) -> None:
    images = noise()
    model = keras.Sequential([keras.Input((28, 28, 3), dtype="uint8"), augmentation(name, (28, 28), 9)])
    model(images, training=True)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    expected = model(images, training=True)

    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images, training=True), expected)
    clone = keras.models.clone_model(model)
    clone.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(clone(images, training=True), expected)


# ---------------------------------------------------------------- shift, flip, cutout


def shifted(image: np.ndarray, down: int, right: int, flip: bool) -> np.ndarray:
    """One pixel after the other."""
    rows, columns = image.shape[:2]
    out = np.zeros_like(image)
    for row in range(rows):
        for column in range(columns):
            r, c = row - down, column - right
            r = -r if r < 0 else 2 * (rows - 1) - r if r >= rows else r
            c = -c if c < 0 else 2 * (columns - 1) - c if c >= columns else c
            out[row, columns - 1 - column if flip else column] = image[r, c]
    return out


def blackened(image: np.ndarray, centre: tuple[int, int], side: int) -> np.ndarray:
    image = image.copy()
    top, left = centre[0] - side // 2, centre[1] - side // 2
    for row in range(top, top + side):
        for column in range(left, left + side):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                image[row, column] = 0
    return image


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_shift_and_flip_equal_the_slow_reference(rows: int, columns: int, data: st.DataObject) -> None:
    images = noise(4, (rows, columns))
    down = data.draw(st.lists(st.integers(1 - rows, rows - 1), min_size=4, max_size=4))
    right = data.draw(st.lists(st.integers(1 - columns, columns - 1), min_size=4, max_size=4))
    flip = data.draw(st.lists(st.booleans(), min_size=4, max_size=4))
    shifts = tf.constant(np.stack([down, right], 1), tf.int32)
    got = augment.shift_and_flip(tf.constant(images), shifts, tf.constant(flip))
    for image, *how, out in zip(images, down, right, flip, got.numpy(), strict=True):
        np.testing.assert_array_equal(out, shifted(image, *how))


def test_a_shift_is_a_cut_from_the_image_padded_by_reflection() -> None:
    image = noise(1, (10, 8))
    padded = np.pad(image[0], ((3, 3), (2, 2), (0, 0)), mode="reflect")
    got = augment.shift_and_flip(tf.constant(image), tf.constant([[3, -2]]), tf.constant([False])).numpy()[0]
    np.testing.assert_array_equal(got, padded[0:10, 4:12])


def test_shifts_are_whole_pixels_all_alike_and_without_drift() -> None:
    draws = tf.random.stateless_uniform((9000, 2), [1, 2])
    shifts = augment.sample_shifts(draws, (28, 56), 2 / 28).numpy()
    for axis, most in ((0, 2), (1, 4)):
        values, counts = np.unique(shifts[:, axis], return_counts=True)
        assert values.tolist() == list(range(-most, most + 1))
        for count in counts:
            assert_share(count, 9000, 1 / len(values))
        spread = math.sqrt(most * (most + 1) / 3)
        assert abs(shifts[:, axis].mean()) < 4 * spread / math.sqrt(9000)
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.05
    limits = augment.sample_shifts(tf.constant([[0.0, np.nextafter(np.float32(1), 0)]]), (28, 56), 2 / 28)
    assert limits.numpy().tolist() == [[-2, 4]]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 14), st.integers(0, 2**31))
def test_cutout_equals_the_slow_reference(rows: int, columns: int, side: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, centres = noise(4, (rows, columns)).astype("float32") + 1, rng.random((4, 2), "float32")
    got = erase.cutout(tf.constant(images), tf.constant(centres), side).numpy()
    for image, (y, x), out in zip(images, centres, got, strict=True):
        np.testing.assert_array_equal(out, blackened(image, (int(y * rows), int(x * columns)), side))


def test_the_square_has_its_area_and_hangs_over_the_border_as_often_as_it_should(augmented: Callable) -> None:
    white = np.full((4000, 28, 28, 3), 255, "uint8")
    out = augmented(white, replace(STILL, cutout=12 / 28))
    assert set(np.unique(out)) == {0.0, 255.0}
    black = (out[..., 0] == 0).sum((1, 2))
    assert black.max() == 144
    assert black.min() == 36  # 6 by 6 in the corner of the first pixel
    # the centre leaves room for all 12 rows at 17 of 28 places: rows 6 to 22
    assert_share((black == 144).sum(), 4000, (17 / 28) ** 2)
    heights = [min(c + 6, 28) - max(c - 6, 0) for c in range(28)]
    assert black.mean() == pytest.approx(np.mean(heights) ** 2, abs=4 * black.std() / math.sqrt(4000))


def test_the_centre_of_the_square_is_any_pixel(augmented: Callable) -> None:
    out = augmented(np.full((5000, 5, 10, 3), 9, "uint8"), replace(STILL, cutout=1 / 5))  # one pixel
    assert ((out[..., 0] == 0).sum((1, 2)) == 1).all()
    for count in (out[..., 0] == 0).sum(0).ravel():
        assert_share(count, 5000, 1 / 50)


@pytest.mark.parametrize(("name", "probability"), [("strong", 0.5), ("strong-noflip", 0.0), ("trivial", 0.5)])
def test_how_many_are_flipped(augmented: Callable, name: str, probability: float) -> None:
    images = copies(2000, (6, 9))
    recipe = replace(RECIPES[name], shift=0.0, cutout=0.0, operations=())
    out = augmented(images, recipe)
    flipped, kept = (out == images[:, :, ::-1]).all((1, 2, 3)), (out == images).all((1, 2, 3))
    assert (flipped ^ kept).all()
    assert_share(flipped.sum(), 2000, probability) if probability else None
    assert flipped.any() == (probability > 0)


@pytest.mark.parametrize("name", ["strong", "strong-noflip"])
@pytest.mark.parametrize("size", [(28, 28), (30, 44), (1, 1), (1, 30)])
def test_strong_is_shift_flip_and_cutout_to_the_bit(name: str, size: tuple[int, int]) -> None:
    images, (rows, columns) = noise(24, size), size
    draws = {key: value.numpy() for key, value in augmentation(name, size, 4).draw(24).items()}
    out = augmentation(name, size, 4)(images, training=True).numpy()
    most, side = [round(2 / 28 * pixels) for pixels in size], round(12 / 28 * min(size))
    for i, image in enumerate(images.astype("float32")):
        down, right = (int(u * (2 * m + 1)) - m for u, m in zip(draws["shift"][i], most, strict=True))
        flip = name == "strong" and draws["flip"][i, 0] < 0.5
        centre = int(draws["cutout"][i, 0] * rows), int(draws["cutout"][i, 1] * columns)
        np.testing.assert_array_equal(out[i], blackened(shifted(image, down, right, flip), centre, side))


# ---------------------------------------------------------------- trivial


def warped(image: np.ndarray, matrix: list[list[float]], shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    """By SciPy, in (row, column) order, around the centre."""
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre - np.array(matrix) @ centre - np.array(shift)
    return np.stack(
        [ndimage.affine_transform(image[..., c], matrix, offset, order=1, mode="reflect") for c in range(3)], -1
    )


def turned(image: np.ndarray, strength: float) -> np.ndarray:
    angle = strength * math.pi / 6
    return warped(image, [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def hue_shifted(image: np.ndarray, strength: float) -> np.ndarray:
    import colorsys

    out = np.zeros_like(image)
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] / 255))
        out[place] = np.multiply(colorsys.hsv_to_rgb((hue + 0.1 * strength) % 1, saturation, value), 255)
    return out


def towards(image: np.ndarray, other: np.ndarray | float, strength: float) -> np.ndarray:
    factor = 1 + 0.9 * strength
    return factor * image + (1 - factor) * other


def gray(image: np.ndarray) -> np.ndarray:
    return (image * LUMA).sum(-1, keepdims=True)


REFERENCE: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "identity": lambda image, s: image,
    "brightness": lambda image, s: towards(image, 0, s),
    "contrast": lambda image, s: towards(image, gray(image).mean(), s),
    "saturation": lambda image, s: towards(image, gray(image), s),
    "hue": hue_shifted,
    "grayscale": lambda image, s: np.repeat(gray(image), 3, axis=-1),
    "solarize": lambda image, s: np.where(image < 256 * (1 - abs(s)), image, 255 - image),
    "posterize": lambda image, s: image - image % 2 ** round(4 * abs(s)),
    "translate-x": lambda image, s: warped(image, np.eye(2), (0, round(10 / 32 * image.shape[1] * s))),
    "translate-y": lambda image, s: warped(image, np.eye(2), (round(10 / 32 * image.shape[0] * s), 0)),
    "rotate": turned,
    "shear-x": lambda image, s: warped(image, [[1, 0], [0.3 * s, 1]]),
    "shear-y": lambda image, s: warped(image, [[1, 0.3 * s], [0, 1]]),
}


def test_there_is_a_reference_for_every_operation() -> None:
    assert list(REFERENCE) == list(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [(16, 16), (9, 14), (1, 6), (1, 1)])
def test_operations_equal_the_slow_reference(name: str, size: tuple[int, int]) -> None:
    strengths = np.array([-1.0, -0.63, -0.2, 0.0, 0.11, 0.42, 0.9, 1.0], "float32")
    images = noise(8, size).astype("float32")
    got = OPERATIONS[name](tf.constant(images), tf.constant(strengths)).numpy()
    for image, strength, out in zip(images.astype(float), strengths.astype(float), got, strict=True):
        np.testing.assert_allclose(out, REFERENCE[name](image, strength), atol=0.05)


@pytest.mark.parametrize("name", OPERATIONS)
def test_strength_zero_changes_nothing_but_for_grayscale(name: str) -> None:
    images = noise(2, (9, 14)).astype("float32")
    got = OPERATIONS[name](tf.constant(images), tf.zeros(2)).numpy()
    assert (np.abs(got - images).max() > 1) == (name == "grayscale")


@pytest.mark.parametrize(("strength", "bits"), [(0.2, 7), (-0.5, 6), (1.0, 4)])
def test_posterize_and_solarize_are_pillows(strength: float, bits: int) -> None:
    operations, pillow = pytest.importorskip("PIL.ImageOps"), pytest.importorskip("PIL.Image")
    image = noise(1, (16, 16))
    given = tf.constant(image, tf.float32), tf.constant([strength])
    expected = operations.posterize(pillow.fromarray(image[0]), bits)
    np.testing.assert_array_equal(trivial.posterize(*given)[0], expected)
    expected = operations.solarize(pillow.fromarray(image[0]), 256 * (1 - abs(strength)))
    np.testing.assert_array_equal(trivial.solarize(*given)[0], expected)


@pytest.mark.parametrize("size", [(16, 16), (10, 22)])
def test_trivial_is_one_operation_flip_and_cutout(size: tuple[int, int]) -> None:
    images, (rows, columns) = noise(200, size), size
    draws = {key: value.numpy() for key, value in augmentation("trivial", size, 4).draw(200).items()}
    out = augmentation("trivial", size, 4)(images, training=True).numpy()
    seen = set()
    for i, image in enumerate(images.astype(float)):
        name = list(OPERATIONS)[int(draws["operation"][i, 0] * len(OPERATIONS))]
        seen.add(name)
        expected = np.clip(REFERENCE[name](image, 2 * float(draws["strength"][i, 0]) - 1), 0, 255)
        expected = expected[:, ::-1] if draws["flip"][i, 0] < 0.5 else expected
        centre = int(draws["cutout"][i, 0] * rows), int(draws["cutout"][i, 1] * columns)
        np.testing.assert_allclose(out[i], blackened(expected, centre, round(min(size) / 4)), atol=0.05)
    assert seen == set(OPERATIONS)


def test_every_operation_is_equally_likely_and_its_images_stay_in_their_places(augmented: Callable) -> None:
    images = np.arange(2600, dtype="float32")[:, None, None, None] / 100 + np.full((1, 4, 4, 3), 100, "float32")
    recipe = replace(STILL, operations=("identity", "brightness"))
    out = augmented(images, recipe)
    same = (out == images).all((1, 2, 3))
    assert_share(same.sum(), 2600, 0.5)
    factors = (out / images)[~same]
    assert np.ptp(factors, axis=(1, 2, 3)).max() < 1e-5
    assert 0.1 <= factors.min() < 0.15
    assert 1.85 < factors.max() <= 1.9 + 1e-5
    assert factors.mean() == pytest.approx(1, abs=4 * 0.52 / math.sqrt((~same).sum()))
    choices = augmentation("trivial", (4, 4), 0).draw(2600)["operation"].numpy().ravel()
    for count in np.bincount((choices * len(OPERATIONS)).astype(int), minlength=len(OPERATIONS)):
        assert_share(count, 2600, 1 / len(OPERATIONS))


def test_the_last_operation_is_reached_and_none_beyond() -> None:
    images, largest = tf.constant(noise(2, (4, 4)), tf.float32), np.nextafter(np.float32(1), np.float32(0))
    done = trivial.one_operation(images, tf.fill([2], largest), tf.fill([2], 0.5), tuple(OPERATIONS))
    np.testing.assert_allclose(done, images, atol=1e-3)  # shear-y by nothing; an image without operation would be 0


class Counting(keras.Model):
    """Reports how far its view is from the image."""

    def __init__(self, recipe: str):
        super().__init__()
        self.augmentation = augmentation(recipe, (16, 16), 0)
        self.dense = keras.layers.Dense(3)

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.dense(keras.layers.Flatten()(self.augmentation(images, training=training) / 255))


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_model_trains_behind_it(restored_dtype_policy: None, name: str, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    model = Counting(name)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(noise(20, (16, 16)), np.arange(20) % 3, batch_size=8, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert model.augmentation.generator.state.numpy()[1] >= 6
