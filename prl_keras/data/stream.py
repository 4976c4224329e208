"""Any number of picture files, decoded on all cores ahead of whoever takes them, a few batches at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.data.formats import IMAGE_EXTENSIONS
from prl_keras.data.images import decode, pillow_ready
from prl_keras.data.layout import natural, picture_files
from prl_keras.data.parallel import in_order
from prl_keras.errors import InputError

_AHEAD = 2  # batches that wait for the model


def all_picture_files(paths: Iterable[Path]) -> list[str]:
    """The files themselves, and the `picture_files` of folders; each once, in natural order, folder by folder.

    Raises:
        InputError: no such file or folder, or a folder without pictures.
    """
    found: set[str] = set()
    for path in paths:
        files = picture_files(path) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path}: no pictures in it ({', '.join(IMAGE_EXTENSIONS)})")
        if files == [path] and not path.exists():
            raise InputError(f"{path}: no such image file or folder; check the path")
        found.update(file.as_posix() for file in files)
    return sorted(found, key=lambda file: list(map(natural, file.split("/"))))


def equal_batches(count: int, most: int) -> list[range]:
    """As few as hold `count` files, at most `most` each, of sizes that differ by one at most."""
    number = -(-count // most)
    ends = [count * i // number for i in range(number + 1)]
    return [range(*pair) for pair in pairwise(ends)]


def decoded(
    files: Sequence[str], batches: Iterable[range], reading: Mapping[str, Any]
) -> Iterator[tuple[range, np.ndarray, dict[int, str]]]:
    """For each batch, the range of its files: itself, images uint8 (n, *size, 3), and what is wrong: row -> line.

    The row of a file that cannot be read is black.

    Args:
        reading: as `load_image` takes it, with size (height, width).
    """
    batches = list(batches)
    ahead = _AHEAD * max(map(len, batches), default=0) + 1
    loaded = in_order(lambda row: _load(files[row], reading), chain.from_iterable(batches), ahead=ahead)
    with pillow_ready(), closing(loaded):
        for rows in batches:
            yield _collected(rows, islice(loaded, len(rows)), reading["size"])


def _load(file: str, reading: Mapping[str, Any]) -> np.ndarray | str:
    try:
        return decode(Path(file), **reading)
    except (InputError, OSError) as error:
        return str(error).removeprefix(f"{Path(file)}: ")


def _collected(
    rows: range, loaded: Iterable[np.ndarray | str], size: tuple[int, int]
) -> tuple[range, np.ndarray, dict[int, str]]:
    images, errors = np.zeros((len(rows), *size, 3), np.uint8), {}
    for row, result in enumerate(loaded):
        if isinstance(result, str):
            errors[row] = result
        else:
            images[row] = result
    return rows, images, errors
