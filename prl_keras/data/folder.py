"""Image folders: PATH/train/<class>/* and PATH/test/<class>/*."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.data.cache import Cache, file_facts, store_name
from prl_keras.data.images import (
    BITS,
    HEIF_CURE,
    HEIF_EXTENSIONS,
    IMAGE_EXTENSIONS,
    SMALLEST_SIDE,
    bits_for,
    check_size,
    image_shape,
    is_deep,
    largest_value,
    load_image,
)
from prl_keras.data.litter import is_litter, shown, unread
from prl_keras.data.parallel import in_order
from prl_keras.data.rows import Rows
from prl_keras.data.splits import RawData, Split
from prl_keras.errors import InputError
from prl_keras.runs.records import is_text

DEFAULT_SIZE = 96
_MEMORY_LIMIT = 8 * 2**30


def read_folder(root: Path, image_size: int | None = None, cache: Cache | None = None) -> RawData:
    """All images, in sorted order. Without `image_size`: in their common size, or 96 if they differ.

    cache: where many of them are kept; None: nowhere.
    """
    cache = cache or Cache()
    if image_size is not None:
        check_size(image_size)
    train, test = _class_folders(root / "train"), _class_folders(root / "test")
    for name, folder in test.items():
        if name not in train:
            raise InputError(f"{folder}: class {name!r} is in test but not in train; add it there or move it away")
    if len(train) < 2:
        raise InputError(f"{root / 'train'}: only the class {next(iter(train))!r}, at least 2 class folders are needed")
    labels = {name: label for label, name in enumerate(train)}
    splits = [
        [(path, labels[name]) for name, folder in folders.items() for path in _image_files(folder)]
        for folders in (train, test)
    ]
    files = [file for split in splits for file in split]
    images, facts = _images(files, root, image_size, cache)
    notes = unread(root, [*train.values(), *test.values()]) + _note_of_bits(facts["deep"], len(files), facts["bits"])
    names = np.array(_below(root, files), dtype=object)
    every = Split(images, np.array([label for _, label in files], dtype=np.int64), names)
    parts = (every.take(part) for part in (slice(len(splits[0])), slice(len(splits[0]), None)))
    return RawData(*parts, tuple(train), order="content", notes=notes, bits=facts["bits"])


def _class_folders(split: Path) -> dict[str, Path]:
    if not split.is_dir():
        raise InputError(f"{split}: no such folder; put images into train/<class>/ and test/<class>/ of {split.parent}")
    # One system stores an accent as its own character, another does not: compare, and sort, the composed form.
    folders: dict[str, Path] = {}
    for path in split.iterdir():
        if is_litter(path) or not path.is_dir():
            continue
        name = unicodedata.normalize("NFC", path.name)
        if not is_text(name):
            raise InputError(f"{split}: the folder name {path.name!a} is not UTF-8; rename it")
        if name in folders:
            raise InputError(f"{split}: two folders have the name {name!r}, written differently; merge them")
        folders[name] = path
    if not folders:
        raise InputError(f"{split}: no class folders; put every image into {split}/<class>/")
    return dict(sorted(folders.items()))


def _image_files(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if is_litter(path) or path.is_dir():
            continue
        kind = path.suffix.lower()
        if kind in HEIF_EXTENSIONS:
            raise InputError(f"{folder / shown(path.name)}: {kind} pictures are not read; {HEIF_CURE}")
        if kind not in IMAGE_EXTENSIONS:
            raise InputError(
                f"{folder / shown(path.name)}: not a known image type ({', '.join(IMAGE_EXTENSIONS)}); "
                "convert it or move it away"
            )
        found.append(path)
    if not found:
        raise InputError(f"{folder}: the class folder holds no images (subfolders are not read); add some or move it")
    return found


def _common_shape(files: Iterable[Path]) -> tuple[int, int]:
    shapes = {image_shape(path) for path in files}
    return shapes.pop() if len(shapes) == 1 else (DEFAULT_SIZE, DEFAULT_SIZE)


def _check_memory(root: Path, count: int, shape: tuple[int, int]) -> None:
    needed = count * shape[0] * shape[1] * 3
    if needed > _MEMORY_LIMIT:
        side = min(DEFAULT_SIZE, math.isqrt(_MEMORY_LIMIT // (3 * count)))
        cure = f"pass an image size, for example --image-size {side}" if side >= SMALLEST_SIDE else "use fewer images"
        raise InputError(
            f"{root}: {count} images of {shape[1]}x{shape[0]} need {needed / 2**30:.0f} GB of memory; {cure}"
        )


def _note_of_bits(deep: int, count: int, bits: int | None) -> tuple[str, ...]:
    if bits is None:
        return ()
    how = "all bits are used" if bits == BITS[-1] else f"no value needs more than {bits} bits"
    return (f"{deep:,} of {count:,} images have 16 bits or more a value; {how}: {2**bits - 1:,} is read as white",)


def _below(root: Path, files: Iterable[tuple[Path, int]]) -> list[str]:
    """Of each file its name as seen from `root`, with slashes; a tenth of the time of `relative_to`."""
    start = len(str(root / "x")) - 1
    return [str(path)[start:].replace(os.sep, "/") for path, _ in files]


def _images(
    files: list[tuple[Path, int]], root: Path, image_size: int | None, cache: Cache
) -> tuple[np.ndarray | Rows, dict[str, Any]]:
    """Of the files, in their order; and their `bits`, and how many have more than 8 (`deep`).

    What a store has been made from is known by names, sizes and times. Which images they are, pixels tell.
    """
    known = ((name, label, file_facts(path)) for name, (path, label) in zip(_below(root, files), files, strict=True))
    name = store_name(known, image_size)
    if (kept := cache.opened(name)) is not None:
        return kept, kept.store.facts
    paths = [path for path, _ in files]
    shape = (image_size, image_size) if image_size else _common_shape(paths)
    deep = [path for path in paths if is_deep(path)]
    bits = bits_for(max(map(largest_value, deep))) if deep else None
    facts = {"deep": len(deep), "bits": bits}

    def read(start: int, stop: int) -> Iterable[tuple[np.ndarray, int]]:
        images = in_order(lambda path: load_image(path, shape, bits), paths[start:stop])
        return zip(images, (label for _, label in files[start:stop]), strict=True)

    if cache.takes(len(files), (*shape, 3)):
        return cache.kept(name, (*shape, 3), len(files), read, root.name, facts), facts
    _check_memory(root, len(files), shape)
    images = np.empty((len(files), *shape, 3), dtype=np.uint8)
    for row, (image, _) in enumerate(read(0, len(files))):
        images[row] = image
    return images, facts
