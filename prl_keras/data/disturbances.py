"""The noises and the digital corruptions of ImageNet-C; see `corruptions`."""

import io
from collections.abc import Callable, Iterable

import numpy as np

Randoms = Iterable[np.random.RandomState]


def gaussian_noise(x: np.ndarray, strength: tuple[float, ...], randoms: Randoms) -> np.ndarray:
    return x + strength[0] * np.stack([r.standard_normal(x.shape[1:]).astype(np.float32) for r in randoms])


def shot_noise(x: np.ndarray, strength: tuple[float, ...], randoms: Randoms) -> np.ndarray:
    """Photons are counted."""
    photons = strength[0]
    counts = [r.poisson(photons * image.astype(np.float64)) for image, r in zip(x, randoms, strict=True)]
    return np.stack(counts).astype(np.float32) / np.float32(photons)


def impulse_noise(x: np.ndarray, strength: tuple[float, ...], randoms: Randoms) -> np.ndarray:
    """Salt and pepper, alike often, of each channel for itself."""
    drawn = np.stack([r.random_sample(x.shape[1:]).astype(np.float32) for r in randoms])
    half = strength[0] / 2
    return np.where(drawn < half, 0, np.where(drawn < 2 * half, 1, x))


def brightness(x: np.ndarray, strength: tuple[float, ...], randoms: Randoms) -> np.ndarray:
    """Adds to HSV's value: its hue and saturation stay, so all channels are multiplied; black becomes grey."""
    value = x.max(axis=-1, keepdims=True)
    brighter = np.minimum(value + np.float32(strength[0]), 1)
    return np.where(value > 0, x * (brighter / np.where(value > 0, value, 1)), brighter)


def contrast(x: np.ndarray, strength: tuple[float, ...], randoms: Randoms) -> np.ndarray:
    """Towards the mean of each channel."""
    mean = x.mean(axis=(1, 2), dtype=np.float64, keepdims=True).astype(np.float32)
    return mean + np.float32(strength[0]) * (x - mean)


def elastic_transform(x: np.ndarray, strength: tuple[float, ...], randoms: Randoms) -> np.ndarray:
    """An affine map by three points that are shifted, then a smooth field of displacements (Simard et al. 2003).

    The mean absolute displacement is of a few pixels at most; beyond the border the picture is mirrored.
    """
    from scipy.ndimage import gaussian_filter

    height, width = x.shape[1:3]
    factor, sigma, most = (min(height, width) * share for share in strength)
    drawn = [(r.uniform(-most, most, (3, 2)), r.uniform(-1, 1, (2, height, width))) for r in randoms]
    shifts, noise = (np.stack(part) for part in zip(*drawn, strict=True))
    rows, columns = _affine(shifts, height, width)
    x = _at(x, _mirrored(rows, height), _mirrored(columns, width))
    if not factor:
        return x
    moves = factor * gaussian_filter(noise, sigma, axes=(2, 3), mode="reflect", truncate=3)
    rows, columns = np.mgrid[:height, :width][:, None] + moves.swapaxes(0, 1)
    return _at(x, _reflected(rows, height), _reflected(columns, width))


def _affine(shifts: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel comes from: rows and columns (n, height, width), if three points of a square move by (n, 3, 2)
    pixels, (right, down)."""
    middle, side = np.array([width // 2, height // 2]), min(height, width) // 3
    points = middle + side * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = np.concatenate([points + shifts, np.ones((len(shifts), 3, 1))], axis=2)
    back = np.linalg.solve(moved, np.broadcast_to(points.astype(np.float64), (len(shifts), 3, 2)))
    down, right = np.mgrid[:height, :width]
    columns, rows = (
        back[:, 0, k, None, None] * right + back[:, 1, k, None, None] * down + back[:, 2, k, None, None] for k in (0, 1)
    )
    return rows, columns


def _mirrored(places: np.ndarray, size: int) -> np.ndarray:
    """Into 0..size - 1, mirrored at the outermost pixels' centres."""
    last = max(size - 1, 1)
    return np.minimum(last - np.abs(last - np.mod(places, 2 * last)), size - 1)


def _reflected(places: np.ndarray, size: int) -> np.ndarray:
    """Into 0..size - 1, mirrored at the outermost pixels' edges."""
    within = np.mod(places + 0.5, 2 * size)
    return np.clip(size - np.abs(size - within) - 0.5, 0, size - 1)


def _at(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The pictures at places between the pixels, (n, height, width) each, bilinear."""
    n, height, width, channels = x.shape
    pixels, base = x.reshape(-1, channels), np.arange(n)[:, None, None] * (height * width)
    top, left = (np.minimum(np.floor(p).astype(np.intp), max(s - 2, 0)) for p, s in ((rows, height), (columns, width)))
    down, right = ((p - q).astype(np.float32)[..., None] for p, q in ((rows, top), (columns, left)))
    corner, below, beside = base + top * width + left, width * (height > 1), int(width > 1)
    upper = pixels[corner] * (1 - right) + pixels[corner + beside] * right
    lower = pixels[corner + below] * (1 - right) + pixels[corner + below + beside] * right
    return upper * (1 - down) + lower * down


def pixelate(x: np.ndarray, strength: tuple[float, ...], randoms: Randoms) -> np.ndarray:
    """Fewer pixels, each shown as a box."""
    from PIL import Image

    height, width = x.shape[1:3]
    small = max(1, int(strength[0] * width)), max(1, int(strength[0] * height))
    return _by_pillow(x, lambda image: image.resize(small, Image.Resampling.BOX).resize((width, height), Image.BOX))


def jpeg_compression(x: np.ndarray, strength: tuple[float, ...], randoms: Randoms) -> np.ndarray:
    """Written and read again."""
    from PIL import Image

    def again(image: "Image.Image") -> "Image.Image":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=round(strength[0]))
        return Image.open(file)

    return _by_pillow(x, again)


def _by_pillow(x: np.ndarray, change: Callable) -> np.ndarray:
    from PIL import Image

    images = np.rint(255 * x).astype(np.uint8)
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images]).astype(np.float32) / 255
