"""The fifteen corruptions are what their definitions say, one pixel at a time, and the same bits however they are asked
for."""

import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_image

from prl_keras.data import weather
from prl_keras.data.blurs import disk, enlargement, streaked
from prl_keras.data.corruptions import corrupt
from prl_keras.data.disturbances import _affine, _at, _mirrored, _reflected
from prl_keras.data.severities import NAMES, SEVERITIES, constants
from prl_keras.errors import InputError


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Twenty parts of one, 32 x 32."""
    image = load_sample_image("china.jpg")
    return np.stack([image[80 * i : 80 * i + 32, 120 * j : 120 * j + 32] for i in range(4) for j in range(5)])


def drawn(name: str, severity: int, place: int = 0, seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState([seed, NAMES.index(name), severity, place])


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Rounded once, of numbers in float32."""
    assert np.abs(found - np.clip(expected, 0, 255)).max() <= 0.52


def test_the_constants_are_the_published_ones_at_their_sizes_and_between_them_in_between():
    assert constants("motion_blur", 5, 32) == constants("motion_blur", 5, 8) == (9, 2.5)
    assert constants("motion_blur", 5, 64) == (12, 3)
    assert constants("motion_blur", 5, 224) == constants("motion_blur", 5, 500) == (20, 15)
    assert constants("motion_blur", 5, 144) == (16, 9)
    assert constants("jpeg_compression", 1, 48) == (72.5,)
    assert constants("zoom_blur", 3, 96)[0] == pytest.approx(1.16)
    for name in NAMES:
        for side in (28, 96, 224):
            assert len({len(constants(name, severity, side)) for severity in SEVERITIES}) == 1
    for name, severity in (("owl", 1), ("fog", 6), ("fog", -1)):
        with pytest.raises(InputError, match=r"unknown corruption 'owl'; choose one of: gaussian_noise|severity is"):
            constants(name, severity, 32)


@pytest.fixture
def coarse_frost(monkeypatch):
    """It takes a second to grow for each size."""
    weather.frosts.cache_clear()
    monkeypatch.setattr(weather, "_DRAWN", 8)
    yield
    weather.frosts.cache_clear()


@pytest.mark.parametrize("shape", [(28, 28), (32, 32), (96, 96), (20, 28), (28, 9), (3, 2), (1, 1)])
def test_any_size_keeps_its_shape_and_severity_0_is_the_picture(shape, coarse_frost):
    images = np.random.RandomState(0).randint(0, 256, (1, *shape, 3)).astype(np.uint8)
    for name in NAMES:
        for severity in (0, 1, 5):
            found = corrupt(images, name, severity)
            assert found.shape == images.shape
            assert found.dtype == np.uint8
            if min(shape) > 5:
                assert (severity == 0) == np.array_equal(found, images), name
    assert not np.shares_memory(images, corrupt(images, "fog", 0))
    with pytest.raises(InputError, match="severity is 7; expected a whole number from 1 to 5, or 0"):
        corrupt(images, "fog", 7)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits_whatever_is_beside_a_picture(name, photographs, coarse_frost, monkeypatch):
    whole = corrupt(photographs, name, 3, seed=5)
    assert np.array_equal(whole[7:10], corrupt(photographs[7:10], name, 3, seed=5, first=7))
    monkeypatch.setattr("prl_keras.data.corruptions._PIXELS", 3 * 32 * 32)
    assert np.array_equal(whole, corrupt(photographs, name, 3, seed=5))
    fixed = name in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
    assert np.array_equal(whole, corrupt(photographs, name, 3, seed=6)) == fixed
    twins = corrupt(np.stack([photographs[0]] * 2), name, 3)
    assert np.array_equal(twins[0], twins[1]) == fixed, "each picture has numbers of its own"


def test_the_bits_are_those_of_the_first_version():
    """Figures of two runs are compared picture by picture: they must have seen the same ones. Of what rests on NumPy's
    promise and on exact arithmetic alone."""
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    found = {name: int(corrupt(images, name, 4, seed=1).sum()) for name in ("impulse_noise", "contrast")}
    assert found == {"impulse_noise": 40_864, "contrast": 40_770}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("glass_blur", "frost", "elastic_transform")])
def test_a_higher_severity_is_farther_from_the_picture(name, photographs):
    """Of the other three the published constants change several things at once."""
    distances = [
        np.abs(corrupt(photographs, name, severity).astype(int) - photographs).mean() for severity in SEVERITIES
    ]
    assert (np.diff(distances) > 0).all()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_of_one_grey_stays_one_where_nothing_is_added(value):
    images = np.full((2, 28, 28, 3), value, np.uint8)
    for name in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "contrast", "elastic_transform", "pixelate"):
        for severity in SEVERITIES:
            assert np.abs(corrupt(images, name, severity).astype(int) - value).max() <= 1, name
    for severity in SEVERITIES:
        brighter = min(value + round(255 * constants("brightness", severity, 28)[0]), 255)
        assert np.abs(corrupt(images, "brightness", severity).astype(int) - brighter).max() <= 1


def test_the_noises_have_the_moments_of_their_definitions():
    images = np.full((30, 32, 32, 3), 102, np.uint8)
    for severity in SEVERITIES:
        (sigma,), (photons,) = (constants(name, severity, 32) for name in ("gaussian_noise", "shot_noise"))
        found = corrupt(images, "gaussian_noise", severity) / 255
        assert found.mean() == pytest.approx(0.4, abs=0.002)
        assert found.std() == pytest.approx(sigma, rel=0.02)
        found = corrupt(images, "shot_noise", severity) / 255
        assert found.mean() == pytest.approx(0.4, abs=0.002)
        assert found.std() == pytest.approx(math.sqrt(0.4 / photons), rel=0.02)
        found = corrupt(images, "impulse_noise", severity)
        share = constants("impulse_noise", severity, 32)[0] / 2
        assert set(np.unique(found)) == {0, 102, 255}
        for value in (0, 255):
            assert (found == value).mean() == pytest.approx(share, rel=0.1)
        assert (found.min(axis=-1) != found.max(axis=-1)).any(), "each channel for itself"


@pytest.mark.parametrize("radius", [0.3, 1, 1.5, 3, 10])
def test_a_defocused_point_is_a_disk(radius):
    kernel = disk(radius, 1e-3)
    half = len(kernel) // 2
    inside = [[math.hypot(i - half, j - half) <= radius for j in range(2 * half + 1)] for i in range(2 * half + 1)]
    assert np.array_equal(kernel > 0, inside)
    assert kernel[kernel > 0] == pytest.approx(1 / np.sum(inside))
    soft = disk(radius, 0.5)
    assert soft.sum() == pytest.approx(1)
    assert (soft > 0).sum() > (kernel > 0).sum()


def test_defocus_is_its_kernel_at_every_pixel(photographs):
    image, kernel = photographs[0].astype(float), disk(*constants("defocus_blur", 5, 32)).astype(float)
    half, expected = len(kernel) // 2, np.zeros((32, 32, 3))
    for i in range(32):
        for j in range(32):
            for a in range(len(kernel)):
                for b in range(len(kernel)):
                    row, column = (31 - abs(31 - abs(place)) for place in (i + a - half, j + b - half))
                    expected[i, j] += kernel[a, b] * image[row, column]
    same(corrupt(photographs[:1], "defocus_blur", 5)[0], expected)


def test_glass_takes_each_pixel_from_one_near_it(photographs):
    """The loop of the definition, at 96 pixels, where pixels move by two."""
    image = np.asarray(Image.fromarray(photographs[0]).resize((96, 96)))
    sigma, most, times = constants("glass_blur", 4, 96)
    most, times = round(most), round(times)
    assert (most, times) == (2, 1)
    moves = drawn("glass_blur", 4).randint(-most, most, (times, 96 - 2 * most, 96 - 2 * most, 2), np.int8)
    x = ndimage.gaussian_filter(image / 255, (sigma, sigma, 0), mode="nearest")
    for i, row in enumerate(range(96 - most, most, -1)):
        for j, column in enumerate(range(96 - most, most, -1)):
            down, right = moves[0, i, j]
            x[row, column] = x[row + down, column + right]
    expected = 255 * ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")
    same(corrupt(image[None], "glass_blur", 4)[0], expected)


def slow_streak(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    taps = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    height, width = image.shape[:2]
    found = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            for i, tap in enumerate(taps):
                down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
                right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
                place = min(max(row + down, 0), height - 1), min(max(column + right, 0), width - 1)
                found[row, column] += tap / sum(taps) * image[place]
    return found


def test_motion_is_half_a_gaussian_along_a_line(photographs):
    photographs = photographs[:2, :, 10:]
    found = corrupt(photographs, "motion_blur", 3)
    for place in (0, 1):
        angle = drawn("motion_blur", 3, place).uniform(-45, 45)
        same(found[place], slow_streak(photographs[place].astype(float), 6, 2, angle))
    many = np.repeat(photographs[:1, :9, :12] / 255, 7, axis=0)
    angles = np.linspace(-135, 45, 7)
    blurred = streaked(many, 6, 2, angles)
    for one, angle in zip(blurred, angles, strict=True):
        assert np.abs(one - slow_streak(many[0], 6, 2, angle)).max() < 1e-3


@pytest.mark.parametrize(("size", "factor"), [(28, 1.0), (28, 1.13), (32, 1.25), (96, 1.06), (31, 2.25), (5, 4.5)])
def test_enlarging_is_what_scipy_does(size, factor):
    row = np.random.RandomState(0).rand(size)
    part = math.ceil(size / factor)
    top = (size - part) // 2
    grown = ndimage.zoom(row[top : top + part], factor, order=1)
    trim = (len(grown) - size) // 2
    assert enlargement(size, factor) @ row == pytest.approx(grown[trim : trim + size])


def test_zoom_is_the_mean_of_enlargements(photographs):
    image = photographs[0][:24] / 255
    total, factors = image.copy(), np.arange(1, 1.111, 0.01)
    for factor in factors:
        rows, columns = enlargement(24, factor), enlargement(32, factor)
        total += np.einsum("ij,jkc,lk->ilc", rows, image, columns)
    same(corrupt(photographs[:1, :24], "zoom_blur", 2)[0], 255 * total / (len(factors) + 1))


def test_plasma_is_the_diamond_square_algorithm():
    size, decay = 8, 1.7
    numbers = np.random.RandomState(0).uniform(-1, 1, size * size)
    field, step, spread, left = np.zeros((size, size)), size, 100.0, iter(numbers)
    while step >= 2:
        half = step // 2
        around = {(half, half): ((-half, -half), (-half, half), (half, -half), (half, half))}
        around |= dict.fromkeys([(0, half), (half, 0)], ((-half, 0), (half, 0), (0, -half), (0, half)))
        for (top, start), neighbours in around.items():
            for i in range(top, size, step):
                for j in range(start, size, step):
                    mean = sum(field[(i + a) % size, (j + b) % size] for a, b in neighbours) / 4
                    field[i, j] = mean + spread**2 * next(left)
        step, spread = half, spread / decay
    field = (field - field.min()) / (field.max() - field.min())
    assert weather.plasma(numbers[None], decay)[0] == pytest.approx(field)


def test_fog_keeps_the_brightest_value_and_black_stays_black(photographs):
    thickness, decay = constants("fog", 3, 32)
    haze = weather.plasma(drawn("fog", 3).uniform(-1, 1, (1, 32 * 32)), decay)[0][..., None]
    most = photographs[0].max() / 255
    expected = (photographs[0] / 255 + thickness * haze) * most / (most + thickness)
    same(corrupt(photographs[:1], "fog", 3)[0], 255 * expected)
    assert corrupt(np.zeros((1, 32, 32, 3), np.uint8), "fog", 5).max() == 0


def test_snow_is_its_definition(photographs):
    mean, deviation, zoom, threshold, radius, sigma, kept = constants("snow", 3, 32)
    random, image = drawn("snow", 3), photographs[0] / 255
    layer = random.normal(mean, deviation, (32, 32))
    matrix = enlargement(32, zoom)
    layer = np.clip(matrix @ layer @ matrix.T, 0, 1)
    layer[layer < threshold] = 0
    layer = slow_streak(layer[..., None], round(radius), sigma, random.uniform(-135, -45))
    grey = (image @ [0.299, 0.587, 0.114])[..., None]
    snowy = kept * image + (1 - kept) * np.maximum(image, 1.5 * grey + 0.5) + layer + np.rot90(layer, 2)
    same(corrupt(photographs[:1], "snow", 3)[0], 255 * snowy)


def test_frost_is_white_and_blue_and_as_dense_at_any_size(photographs):
    for side in (28, 96):
        ice = weather.frosts(side)
        assert ice.shape == (3, 4 * side, 4 * side, 3)
        assert 0 <= ice.min() < 0.3 < 0.99 < ice.max() <= 1
        assert (ice[..., 2] >= ice[..., 0]).all()
        assert ice.mean() == pytest.approx(0.53, abs=0.04)
    black = corrupt(np.zeros((1, 28, 28, 3), np.uint8), "frost", 5)[0]
    which, top, left = drawn("frost", 5).randint(0, (3, 85, 85))
    same(black, 255 * 0.45 * weather.frosts(28)[which, top : top + 28, left : left + 28])


def test_contrast_and_brightness_are_their_definitions(photographs):
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    for severity in SEVERITIES:
        (kept,), (added,) = (constants(name, severity, 32) for name in ("contrast", "brightness"))
        for image, paler, brighter in zip(
            photographs, *(corrupt(photographs, name, severity) for name in ("contrast", "brightness")), strict=True
        ):
            for channel in range(3):
                mean = image[..., channel].mean()
                same(paler[..., channel], kept * (image[..., channel] - mean) + mean)
            hsv = rgb_to_hsv(image / 255)
            hsv[..., 2] = np.minimum(hsv[..., 2] + added, 1)
            same(brighter, 255 * hsv_to_rgb(hsv))


def test_places_between_pixels_are_what_scipy_says():
    random = np.random.RandomState(0)
    x = random.rand(3, 7, 9, 3).astype(np.float32)
    rows, columns = random.uniform(-20, 25, (2, 3, 7, 9))
    for mode, into in (("mirror", _mirrored), ("reflect", _reflected)):
        found = _at(x, into(rows, 7), into(columns, 9))
        for i in range(3):
            for channel in range(3):
                expected = ndimage.map_coordinates(x[i, ..., channel], [rows[i], columns[i]], order=1, mode=mode)
                assert found[i, ..., channel] == pytest.approx(expected, abs=1e-4)


def test_three_points_move_where_they_are_sent():
    shifts = np.random.RandomState(0).uniform(-3, 3, (4, 3, 2))
    shifts[0] = 0
    rows, columns = _affine(np.rint(shifts), 30, 24)
    assert rows[0] == pytest.approx(np.mgrid[:30, :24][0])
    assert columns[0] == pytest.approx(np.mgrid[:30, :24][1])
    for i in range(4):
        for k, (right, down) in enumerate([(20, 23), (20, 7), (4, 7)]):
            x, y = (np.array([right, down]) + np.rint(shifts[i, k])).astype(int)
            assert (columns[i, y, x], rows[i, y, x]) == pytest.approx((right, down))


def test_pixelate_and_jpeg_are_pillows(photographs):
    image = Image.fromarray(photographs[0])
    for severity in SEVERITIES:
        (share,), (quality,) = (constants(name, severity, 32) for name in ("pixelate", "jpeg_compression"))
        small = image.resize((int(32 * share),) * 2, Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
        assert np.array_equal(corrupt(photographs[:1], "pixelate", severity)[0], np.asarray(small))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(quality))
        assert np.array_equal(corrupt(photographs[:1], "jpeg_compression", severity)[0], np.asarray(Image.open(file)))
    wide = corrupt(photographs[:1, :20], "pixelate", 5)[0]
    assert len(np.unique(wide.reshape(20, -1), axis=0)) == int(20 * 0.65)
