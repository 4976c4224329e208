"""The order of an epoch: a permutation by (seed, epoch), of very many rows one that is computed where it is asked for.

NumPy and hashlib only, and nothing of either that a version may change.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

IN_MEMORY = 1_000_000  # rows: as many are shuffled as an array, as in every earlier version
_ROUNDS = 8
_MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # of splitmix64


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray | Permutation:
    """Rows 0..count-1 in the order of that epoch; slices of it are int64 arrays.

    Up to a million rows it is `np.random.default_rng((seed, epoch)).permutation(count)`, so that trainings of earlier
    versions continue with the same bits; above that a `Permutation`, which takes no memory.
    """
    if count <= IN_MEMORY:
        return np.random.default_rng((seed, epoch)).permutation(count)
    return Permutation(count, seed, epoch)


class Permutation:
    """A permutation of 0..count-1 of which any part can be computed alone.

    A Feistel network (Black & Rogaway 2002, alternating and additive): a row is a place in a rectangle just large
    enough for all, and in turns its column moves by a hash of its line, and its line by a hash of its column. Each step
    can be undone, so no two rows meet. What lands behind the last row moves again until it does not (cycle walking).
    """

    def __init__(self, count: int, seed: int, epoch: int):
        self.count = count
        self.width = np.uint64(math.isqrt(max(count - 1, 0)) + 1)
        self.height = np.uint64(-(-count // int(self.width)) or 1)
        names = (f"{seed} {epoch} {number}" for number in range(_ROUNDS))
        self.keys = [np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], "<u8")[0] for name in names]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
        """The rows at these places of the order, (len(places),) int64; places as of an array, but not negative.

        Raises:
            IndexError: a place outside the order.
        """
        if isinstance(places, slice):
            places = np.arange(*places.indices(self.count))
        places = np.asarray(places)
        if len(places) and not 0 <= places.min() <= places.max() < self.count:
            raise IndexError(f"places {places.min()}..{places.max()} of an order of {self.count} rows")
        rows = self._moved(places.astype(np.uint64))
        while len(outside := np.flatnonzero(rows >= self.count)):
            rows[outside] = self._moved(rows[outside])
        return rows.astype(np.int64)

    def _moved(self, rows: np.ndarray) -> np.ndarray:
        line, column = rows // self.width, rows % self.width
        for first, second in zip(self.keys[::2], self.keys[1::2], strict=True):
            column = (column + _hashed(line, first) % self.width) % self.width
            line = (line + _hashed(column, second) % self.height) % self.height
        return line * self.width + column


def _hashed(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """64 bits of each that look random (splitmix64's finish); products wrap around, as they should."""
    values = values ^ key
    values = (values ^ (values >> np.uint64(30))) * _MULTIPLIERS[0]
    values = (values ^ (values >> np.uint64(27))) * _MULTIPLIERS[1]
    return values ^ (values >> np.uint64(31))
