"""The four blurs of ImageNet-C: defocus, glass, motion, zoom; see `corruptions`."""

from collections.abc import Iterable

import numpy as np

_NEGLIGIBLE = 1e-4  # a tap that weighs less moves no pixel by a tenth of a grey level


def defocus_blur(x: np.ndarray, strength: tuple[float, ...], randoms: Iterable[np.random.RandomState]) -> np.ndarray:
    """Every point becomes a disk."""
    kernel = disk(*strength)
    half = len(kernel) // 2
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)), mode="reflect")
    blurred = np.zeros_like(x)
    for down, right in np.argwhere(kernel > 0):
        blurred += kernel[down, right] * padded[:, down : down + height, right : right + width]
    return blurred


def disk(radius: float, sigma: float) -> np.ndarray:
    """(2 k + 1, 2 k + 1) float32, sum 1: the pixels within the radius, softened by a Gaussian of 3 taps a side (of 5
    for a radius above 8)."""
    from scipy.ndimage import correlate1d

    reach = 1 if radius <= 8 else 2
    offsets = np.arange(-int(radius) - reach, int(radius) + reach + 1)
    kernel = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float64)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    for axis in (0, 1):
        kernel = correlate1d(kernel, taps / taps.sum(), axis, mode="constant")
    return (kernel / kernel.sum()).astype(np.float32)


def glass_blur(x: np.ndarray, strength: tuple[float, ...], randoms: Iterable[np.random.RandomState]) -> np.ndarray:
    """Pixels from the last to the first each take the value of one near them, between two Gaussian blurs.

    The original means to exchange the two, but what it does with NumPy's views is this, and so are its data sets.
    """
    (sigma, most, times), (height, width) = strength, x.shape[1:3]
    most, times = round(most), round(times)
    rows, columns = range(height - most, most, -1), range(width - most, most, -1)
    moves = np.stack([r.randint(-most, most, (times, len(rows), len(columns), 2), np.int8) for r in randoms])
    x, each = _smooth(x, sigma), np.arange(len(x))
    for time in range(times):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                down, right = moves[:, time, i, j].T.astype(np.intp)
                x[:, row, column] = x[each, row + down, column + right]
    return _smooth(x, sigma)


def _smooth(x: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(x, sigma, axes=(1, 2), mode="nearest")


def motion_blur(x: np.ndarray, strength: tuple[float, ...], randoms: Iterable[np.random.RandomState]) -> np.ndarray:
    """The camera moved, within 45 degrees of level."""
    return streaked(x, *strength, np.array([r.uniform(-45, 45) for r in randoms]))


def streaked(x: np.ndarray, radius: float, sigma: float, degrees: np.ndarray) -> np.ndarray:
    """(n, height, width, channels) along each picture's own direction (n,): one half of a Gaussian, over 2 radius + 1
    pixels, as ImageMagick's motion blur; borders go on as they end."""
    taps = np.exp(-0.5 * (np.arange(2 * round(radius) + 1) / sigma) ** 2)
    taps = taps[taps > _NEGLIGIBLE * taps.sum()]
    taps, reach = (taps / taps.sum()).astype(x.dtype), len(taps)
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    directions = np.stack([np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))], axis=1)
    blurred = np.zeros_like(x)
    for distance, weight in enumerate(taps):
        steps = np.ceil(distance * directions - 0.5).astype(int)
        for down, right in np.unique(steps, axis=0) + reach:  # pictures that move alike go together
            alike = np.flatnonzero((steps + reach == (down, right)).all(axis=1))
            blurred[alike] += weight * padded[alike, down : down + height, right : right + width]
    return blurred


def zoom_blur(x: np.ndarray, strength: tuple[float, ...], randoms: Iterable[np.random.RandomState]) -> np.ndarray:
    """Mean of the picture and its enlargements; one sparse matrix, the same for all."""
    from scipy import sparse

    (largest, count), (n, height, width, channels) = strength, x.shape
    factors = np.linspace(1, largest, round(count))
    total = sparse.identity(height * width, format="csr")
    for factor in factors:
        total = total + sparse.kron(enlargement(height, factor), enlargement(width, factor), format="csr")
    matrix = (total / (len(factors) + 1)).astype(x.dtype)
    pixels = matrix @ x.reshape(n, -1, channels).swapaxes(0, 1).reshape(height * width, -1)
    return pixels.reshape(-1, n, channels).swapaxes(0, 1).reshape(x.shape)


def enlargement(size: int, factor: float) -> np.ndarray:
    """(size, size): takes a row of pixels to its middle part, enlarged linearly, as the original's `clipped_zoom`."""
    part = int(np.ceil(size / factor))
    grown = round(part * factor)
    places = (np.arange(size) + (grown - size) // 2) * (part - 1) / max(grown - 1, 1) + (size - part) // 2
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(size)))
