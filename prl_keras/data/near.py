"""Pictures that are nearly certainly the same one: saved again, resized, slightly brightened. NumPy only.

Each is made grey and small, 16x16. Two of the same pattern (correlation) and of nearly the same values are a pair. What
was turned, mirrored or cropped is none, and a flat picture has no pattern to know it by.
"""

from __future__ import annotations

import numpy as np

SIDE = 16  # of a thumbnail
ALIKE = 0.999  # least correlation of two thumbnails; of Fashion-MNIST's trousers many reach 0.998
DIFFERENCE = 13.0  # most mean absolute difference, of 255: 5 % brighter
FLAT = 4.0  # least standard deviation of a thumbnail, of 255
_COARSE = 0.995  # least correlation at a quarter of the pixels: what is compared in full
_MOST = 8  # candidates of an image in a block that are compared in full
_ROWS, _COLUMNS = 500, 10_000  # of a block


def thumbnails(images: np.ndarray) -> np.ndarray:
    """RGB uint8 (n, height, width, 3) -> grey uint8 (n, 256), each pixel the mean of its area."""
    count, height, width, channels = images.shape
    across = np.repeat(_areas(width), channels, axis=0) / channels
    columns = images.reshape(count * height, width * channels).astype(np.float32) @ across
    small = _areas(height).T @ columns.reshape(count, height, SIDE)
    return np.rint(small).astype(np.uint8).reshape(count, -1)


def twins(thumbs: np.ndarray, among: np.ndarray) -> list[tuple[int, int]]:
    """(row of thumbs, row of among) of each thumbnail (n, 256) that is alike one among (m, 256): the one most alike.

    Two patterns at a distance d differ by no more than d in any direction: only those are compared that are so near in
    the direction in which patterns differ most.
    """
    (rows, patterns), (others, known) = _patterns(thumbs), _patterns(among)
    if not len(rows) or not len(others):
        return []
    axis = np.linalg.eigh(known.T @ known)[1][:, -1]
    (rows, patterns, places), (others, known, where) = _sorted(rows, patterns, axis), _sorted(others, known, axis)
    reach = np.sqrt(2 - 2 * _COARSE) + 1e-3
    best: dict[int, tuple[float, int]] = {}
    for start in range(0, len(rows), _ROWS):
        block = slice(start, start + _ROWS)
        low, high = np.searchsorted(where, (places[block][0] - reach, places[block][-1] + reach))
        for first in range(low, high, _COLUMNS):
            columns = slice(first, min(first + _COLUMNS, high))
            left, right = _candidates(patterns[block], known[columns])
            left, right = rows[block][left], others[columns][right]
            for row, other, alike in zip(left, right, _alike(thumbs[left], among[right]), strict=True):
                if alike >= ALIKE:
                    best[int(row)] = max(best.get(int(row), (0.0, 0)), (float(alike), int(other)))
    return sorted((row, other) for row, (_, other) in best.items())


def _patterns(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows that are not flat, float32 (those, 64): their quartered thumbnails without mean and length)."""
    quarters = thumbs.reshape(len(thumbs), SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4), dtype=np.float32)
    coarse = quarters.reshape(len(thumbs), (SIDE // 2) ** 2)
    rows = np.flatnonzero(coarse.std(axis=1) >= FLAT)
    return rows, _unit(coarse[rows])


def _sorted(rows: np.ndarray, patterns: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, ...]:
    places = patterns @ axis
    order = np.argsort(places, kind="stable")
    return rows[order], patterns[order], places[order]


def _candidates(patterns: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(left, right): rows of patterns, and of known the few that are most like them."""
    likeness = patterns @ known.T
    left = np.flatnonzero((likeness >= _COARSE).any(axis=1))
    most = min(_MOST, len(known))
    right = np.argpartition(-likeness[left], most - 1, axis=1)[:, :most].ravel()
    left = np.repeat(left, most)
    near = likeness[left, right] >= _COARSE
    return left[near], right[near]


def _alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The correlation of thumbnails (n, 256), (n, 256); 0 where they are not of nearly the same values."""
    first, second = first.astype(np.float32), second.astype(np.float32)
    near = np.abs(first - second).mean(axis=1) <= DIFFERENCE
    return near * (_unit(first) * _unit(second)).sum(axis=1)


def _unit(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def _areas(side: int) -> np.ndarray:
    """(side, SIDE): the share of each pixel in each of SIDE equal parts of the side; columns sum to 1."""
    edges = np.linspace(0, side, SIDE + 1)
    pixels = np.arange(side)[:, None]
    overlap = np.minimum(pixels + 1, edges[1:]) - np.maximum(pixels, edges[:-1])
    return (np.clip(overlap, 0, None) / (side / SIDE)).astype(np.float32)
