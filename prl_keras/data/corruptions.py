"""Fifteen common corruptions of pictures at five severities (Hendrycks & Dietterich 2019).

Own code by the definitions of ImageNet-C, on NumPy, SciPy and Pillow, in floating point up to one rounding at the end
(the original cuts off). What is not the original's: frost is grown, not photographed (`weather.frost`). The package
`imagecorruptions` is not used: its release calls scikit-image with an argument that was removed, its repairs were never
released, and it wants OpenCV and numba.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from prl_keras.data import blurs, disturbances, weather
from prl_keras.data.severities import NAMES, SEVERITIES, constants

# float32 (n, height, width, 3) of 0..1, constants, and for each picture its random numbers -> the same, unclipped
Corruption = Callable[[np.ndarray, tuple[float, ...], Iterable[np.random.RandomState]], np.ndarray]

_CORRUPTIONS: dict[str, Corruption] = {
    name: getattr(module, name)
    for name, module in zip(NAMES, 3 * [disturbances] + 4 * [blurs] + 3 * [weather] + 5 * [disturbances], strict=True)
}
_VERSION = 1  # the next number whenever a corruption makes other pictures of the same constants
_PIXELS = 2_000_000  # that are held as floating-point numbers at a time


def corrupt(images: np.ndarray, name: str, severity: int, seed: int = 0, first: int = 0) -> np.ndarray:
    """Pictures as they are under a corruption.

    The random numbers of a picture depend on the seed, the corruption, the severity and the picture's place in its data
    set alone: what comes out does not depend on which others are in `images`.

    Args:
        images: (n, height, width, 3) uint8.
        name: one of `severities.NAMES`; severity: 0 (the pictures themselves) to 5.
        first: the place of images[0] in its data set.

    Returns:
        the same shape, uint8.

    Raises:
        InputError: there is no such corruption or severity.
    """
    if severity == 0 and name in NAMES:
        return images.copy()
    strength = constants(name, severity, min(images.shape[1:3]))
    key = (seed, NAMES.index(name), severity)
    corrupted, block = np.empty_like(images), pictures_at_a_time(*images.shape[1:3])
    for start in range(0, len(images), block):
        part = images[start : start + block].astype(np.float32) / 255
        found = _CORRUPTIONS[name](part, strength, _randoms(key, first + start, len(part)))
        corrupted[start : start + block] = np.rint(255 * np.clip(found, 0, 1))
    return corrupted


def pictures_at_a_time(height: int, width: int) -> int:
    return max(1, _PIXELS // (height * width))


def _randoms(key: tuple[int, ...], first: int, count: int) -> Iterator[np.random.RandomState]:
    """For each picture in turn; one object that is seeded anew, so to be used before the next is asked for.

    RandomState, as NumPy promises never to change its numbers.
    """
    random = np.random.RandomState(0)
    for place in range(first, first + count):
        random.seed([*key, place])
        yield random


def rule_sha256(height: int, width: int) -> str:
    """What corrupted pictures of this size are made by: equal where `corrupt` with one seed gives equal ones."""
    of_all = [constants(name, severity, min(height, width)) for name in NAMES for severity in SEVERITIES]
    return hashlib.sha256(json.dumps([_VERSION, of_all]).encode()).hexdigest()
