"""Snow, frost and fog of ImageNet-C; see `corruptions`."""

from collections.abc import Iterable
from functools import cache

import numpy as np

from prl_keras.data.blurs import enlargement, streaked

Randoms = Iterable[np.random.RandomState]
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FROSTS = 3  # pictures of it
_FROST_SIDE = 4  # of such a picture, in sides of the picture that it covers
_DRAWN = 192  # pixels of the covered side in which they are drawn at least, so that ice is as dense at any size
_ICE = np.array([0.86, 0.95, 1.0], np.float32)  # colour


def snow(x: np.ndarray, strength: tuple[float, ...], randoms: Randoms) -> np.ndarray:
    """Flakes that fall steeply, over a picture that pales: a layer of noise, cut off and blurred by motion, twice, once
    turned upside down."""
    mean, deviation, zoom, threshold, radius, sigma, kept = strength
    height, width = x.shape[1:3]
    drawn = [(r.normal(mean, deviation, (height, width)), r.uniform(-135, -45)) for r in randoms]
    layer, degrees = (np.stack(part) for part in zip(*drawn, strict=True))
    layer = enlargement(height, zoom) @ layer @ enlargement(width, zoom).T
    layer = np.where(layer < threshold, 0, np.clip(layer, 0, 1)).astype(np.float32)
    layer = streaked(layer[..., None], radius, sigma, degrees)
    paler = np.maximum(x, (x * _LUMA).sum(axis=-1, keepdims=True) * 1.5 + 0.5)
    return np.float32(kept) * x + np.float32(1 - kept) * paler + layer + layer[:, ::-1, ::-1]


def fog(x: np.ndarray, strength: tuple[float, ...], randoms: Randoms) -> np.ndarray:
    """A plasma is added, and the whole brought back to the brightest value that the picture had."""
    thickness, decay = strength
    height, width = x.shape[1:3]
    size = 1 << (max(height, width) - 1).bit_length()
    haze = plasma(np.stack([r.uniform(-1, 1, size * size) for r in randoms]), decay)[:, :height, :width, None]
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return (x + np.float32(thickness) * haze.astype(np.float32)) * (brightest / (brightest + np.float32(thickness)))


def plasma(numbers: np.ndarray, decay: float) -> np.ndarray:
    """(n, size, size) of 0..1 from (n, size * size) uniform numbers of -1..1, size a power of two: the diamond-square
    algorithm on a torus (Fournier et al. 1982); the random part of a step is the square of `decay` weaker than before.
    """
    n, size = len(numbers), round(numbers.shape[1] ** 0.5)
    maps, step, spread, used = np.zeros((n, size, size)), size, 100.0**2, 0

    def around(*four: np.ndarray) -> np.ndarray:
        nonlocal used
        shape = four[0].shape
        count = shape[1] * shape[2]
        random = numbers[:, used : used + count].reshape(shape)
        used += count
        return sum(four) / 4 + spread * random

    while step >= 2:
        half = step // 2
        corners = maps[:, ::step, ::step]
        right, below = np.roll(corners, -1, 2), np.roll(corners, -1, 1)
        middles = around(corners, right, below, np.roll(right, -1, 1))
        maps[:, half::step, half::step] = middles
        maps[:, ::step, half::step] = around(middles, np.roll(middles, 1, 1), corners, right)
        maps[:, half::step, ::step] = around(middles, np.roll(middles, 1, 2), corners, below)
        step, spread = half, spread / decay**2
    maps -= maps.min(axis=(1, 2), keepdims=True)
    return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)


def frost(x: np.ndarray, strength: tuple[float, ...], randoms: Randoms) -> np.ndarray:
    """Ice is laid over the picture: a part of one of three pictures of it, at random.

    Not the original's: that pastes photographs of frost, here crystals are grown (`frosts`).
    """
    height, width = x.shape[1:3]
    ice = frosts(max(height, width))
    room = len(ice[0]) - max(height, width) + 1
    places = [r.randint(0, (len(ice), room, room)) for r in randoms]
    layers = np.stack([ice[which, top : top + height, left : left + width] for which, top, left in places])
    return np.float32(strength[0]) * x + np.float32(strength[1]) * layers


@cache
def frosts(side: int) -> np.ndarray:
    """(3, 4 side, 4 side, 3) float32 of 0..1: ferns of ice on a pane with a haze of it. Always the same."""
    size, finer = _FROST_SIDE * side, -(-_DRAWN // side)
    pictures = []
    for number in range(_FROSTS):
        random = np.random.RandomState([_FROSTS, number])
        lines = _ferns(random, finer * side).reshape(size, finer, size, finer).mean(axis=(1, 3))
        power = 1 << (size - 1).bit_length()
        haze = plasma(random.uniform(-1, 1, (1, power * power)), 1.6)[0, :size, :size]
        pictures.append(np.clip(0.2 + 0.4 * haze + 1.1 * lines, 0, 1))
    return np.stack(pictures).astype(np.float32)[..., None] * _ICE


def _ferns(random: np.random.RandomState, side: int) -> np.ndarray:
    """(4 side, 4 side) of 0..1: needles with needles at 60 degrees on both sides, which have some too, as ice grows."""
    size = _FROST_SIDE * side
    pane = np.zeros((size, size))
    count = 9 * _FROST_SIDE**2
    starts, angles = random.uniform(0, size, (count, 2)), random.uniform(0, 2 * np.pi, count)
    lengths = side * random.uniform(0.3, 1.0, count)
    for generation in range(3):
        parts = np.linspace(0, 1, max(int(1.2 * lengths.max()), 2))
        ways = np.stack([np.sin(angles), np.cos(angles)], axis=1) * lengths[:, None]
        places = (starts[:, None] + parts[:, None] * ways[:, None]).astype(int) % size
        bright = (1 - 0.25 * generation) * (1 - 0.6 * parts)
        np.maximum.at(pane, (places[..., 0], places[..., 1]), np.broadcast_to(bright, places.shape[:2]))
        along = np.arange(1, 8) / 8
        starts = (starts[:, None] + along[:, None] * ways[:, None]).reshape(-1, 2).repeat(2, axis=0)
        angles = (angles[:, None, None] + np.zeros((7, 1)) + np.array([1, -1]) * np.pi / 3).ravel()
        lengths = (lengths[:, None, None] * (0.4 * (1 - along))[:, None] * np.ones(2)).ravel()
    return pane
