"""Images of one size in a few large files, read as the rows of one array.

A store is a folder of the cache, named by a key of its source:

    00000.bin, 00001.bin, ...    uint8 images one after another, about 64 MB a file
    00000.rows, 00001.rows, ...  of each image its SHA-256, CRC-32 and label; at the end a SHA-256 of all these
    index.json                   shape and number of images, a checksum of each file, facts about them

Opening compares sizes and the checksums of the .rows files; an image is compared with its CRC-32 when a process first
reads it, a small part of the time of the SHA-256 of every image that a set in memory costs at each start.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.errors import InputError

FORMAT = 1
INDEX = "index.json"
ROW = np.dtype([("sha256", "V32"), ("crc32", "<u4"), ("label", "<i8")])
_SHARD_BYTES = 64 * 2**20
_BLOCK = 1000  # images that are compared with their checksums together


class Rows:
    """Images (n, height, width, channels) uint8 of a store, in any order; indexing copies just those that it names.

    `images[3]`, `images[10:20]`, `images[indices or mask]` give arrays, `take(rows)` other `Rows` without reading any;
    `np.asarray(images)` reads them all.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, store: Store, rows: np.ndarray):
        self.store, self.rows = store, rows
        self.shape = (len(rows), *store.shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: int | slice | np.ndarray) -> np.ndarray:
        chosen = self.rows[which]
        return self.store.read(chosen) if np.ndim(chosen) else self.store.read(chosen[None])[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("the images are in files: an array of them is a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def take(self, which: slice | np.ndarray) -> Rows:
        return Rows(self.store, self.rows[which])

    @property
    def digests(self) -> np.ndarray:
        """(n, 32) uint8: the SHA-256 of each image, as it was stored."""
        return np.ascontiguousarray(self.store.table["sha256"][self.rows]).view(np.uint8).reshape(-1, 32)

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64, as the source gave them."""
        return self.store.table["label"][self.rows].astype(np.int64)

    def check(self) -> None:
        """Read all of them. Raises InputError if one is not what was stored."""
        for start in range(0, len(self), _BLOCK):
            self[start : start + _BLOCK]


def joined(first: np.ndarray | Rows, second: np.ndarray | Rows) -> np.ndarray | Rows:
    """One after the other; `Rows` of one store stay in it."""
    if isinstance(first, Rows) and isinstance(second, Rows) and first.store is second.store:
        return Rows(first.store, np.concatenate([first.rows, second.rows]))
    return np.concatenate([first, second])


@dataclass(frozen=True, eq=False)
class Store:
    """shape: of an image; facts: what the source said of them; table: (n,) `ROW`; checked: (n,) whether an image was
    compared with its CRC-32 since the store was opened."""

    path: Path
    shape: tuple[int, ...]
    facts: dict[str, Any]
    table: np.ndarray
    checked: np.ndarray

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), *shape). Raises InputError: an image is not what was stored, or the store is gone.

        Read, not mapped: of many files that takes a third of the time, and a bad sector is an error, not a crash.
        """
        images, each = np.empty((len(rows), *self.shape), np.uint8), _a_shard(self.shape)
        shards, within = rows // each, rows % each
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            self._read_into(images, places.tolist(), shard, within[places].tolist())
        for place in np.flatnonzero(~self.checked[rows]).tolist():
            if zlib.crc32(images[place]) != self.table["crc32"][rows[place]]:
                raise self._damaged(file_of(self.path, int(shards[place])))
        self.checked[rows] = True
        return images

    def _read_into(self, images: np.ndarray, places: list[int], shard: int, rows: list[int]) -> None:
        """images[place] = the row of the shard, for each."""
        file, size = file_of(self.path, shard), math.prod(self.shape)
        try:
            with file.open("rb", buffering=0) as opened:
                for place, row in zip(places, rows, strict=True):
                    opened.seek(row * size)
                    if opened.readinto(images[place]) != size:
                        raise self._damaged(file)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EIO):
                raise
            raise self._damaged(file) from error

    def _damaged(self, file: Path) -> InputError:
        return InputError(
            f"{file}: not as it was stored (removed, or a damaged disk); type: "
            f"python main.py data cache --clear {self.path.name}, and repeat the command"
        )


def opened(name: str, cache_dir: Path) -> Rows | None:
    """All rows of the store; None if there is none, or it is not whole."""
    folder = cache_dir / name
    try:
        index = json.loads((folder / INDEX).read_bytes())
        shape, count = tuple(index["shape"]), index["count"]
        bounds = bounds_of(count, shape)
        if index["format"] != FORMAT or len(index["sha256"]) != len(bounds):
            return None
        tables = [table_of(folder, number, shape, stop - start) for number, (start, stop) in enumerate(bounds)]
        if any(table is None or checksum(table) != sha for table, sha in zip(tables, index["sha256"], strict=True)):
            return None
        facts = index["facts"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with suppress(OSError):  # a cache that may only be read
        os.utime(folder / INDEX)  # when it was last used
    table = np.concatenate([np.zeros(0, ROW), *tables])
    return Rows(Store(folder, shape, facts, table, np.zeros(count, bool)), np.arange(count))


def table_of(folder: Path, number: int, shape: tuple[int, ...], count: int) -> np.ndarray | None:
    """What .rows says of a shard; None if that, or the size of the images' file, is not right."""
    content = file_of(folder, number, ".rows").read_bytes()
    body, own = content[:-32], content[-32:]
    if len(body) != count * ROW.itemsize or hashlib.sha256(body).digest() != own:
        return None
    if file_of(folder, number).stat().st_size != count * math.prod(shape):
        return None
    return np.frombuffer(body, ROW)


def _a_shard(shape: tuple[int, ...]) -> int:
    return max(1, _SHARD_BYTES // math.prod(shape))


def bounds_of(count: int, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    each = _a_shard(shape)
    return [(start, min(start + each, count)) for start in range(0, count, each)]


def file_of(folder: Path, number: int, suffix: str = ".bin") -> Path:
    return folder / f"{number:05}{suffix}"


def checksum(table: np.ndarray) -> str:
    return hashlib.sha256(table).hexdigest()
