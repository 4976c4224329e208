"""STL-10 in its binary form: images, labels, folds, unlabelled images.

Format: `*_X.bin` is uint8 (n, 3, 96, 96), column by column; `*_y.bin` a uint8 label 1..10 an image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from prl_keras.data import archive
from prl_keras.data.cache import Cache, file_facts, store_name
from prl_keras.data.images import Resize, as_shape, check_size, resize_images
from prl_keras.data.parallel import in_order
from prl_keras.data.rows import Rows
from prl_keras.data.splits import RawData, Split
from prl_keras.errors import InputError

CLASS_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
SIDE = 96
IMAGE_BYTES = 3 * SIDE * SIDE
NUM_FOLDS = 10
_LARGEST_TEXT = 2**20  # bytes; the true ones have 54 kB and less

_AGAIN = "move the folder away and unpack the archive again"


def is_present(data_dir: Path) -> bool:
    """Whether data_dir holds (or is) the archive or the unpacked folder; opens nothing."""
    return _unpacked(data_dir) is not None or _packed(data_dir) is not None


def find_binary(data_dir: Path) -> Path:
    """The folder with train_X.bin; the archive is unpacked when only that is there."""
    folder = _unpacked(data_dir)
    if folder is not None:
        return folder
    packed = _packed(data_dir)
    if packed is None:
        raise InputError(
            f"{data_dir}: neither {archive.FOLDER}/ nor {archive.FOLDER}.tar.gz is there; "
            f"fetch {archive.URL} (2.6 GB) into that folder"
        )
    return archive.extract(packed)


def read_binary(data_dir: Path, fold: int | None = None) -> RawData:
    """Train and test; `fold` (0..9) keeps only the training images of that predefined fold."""
    folder = find_binary(data_dir)
    train, test = _read_split(folder, "train"), _read_split(folder, "test")
    if fold is not None:
        if not 0 <= fold < NUM_FOLDS:
            raise InputError(f"fold is {fold}: STL-10 has the folds 0..{NUM_FOLDS - 1}")
        train = train.take(fold_indices(folder)[fold])
    return RawData(train, test, _class_names(folder), order="content")


def load_unlabelled(
    data_dir: Path,
    image_size: int | Sequence[int] | None = None,
    resize: Resize = "crop",
    cache: Cache | None = None,
) -> np.ndarray | Resized | Rows:
    """The unlabelled images, uint8 (n, height, width, 3), read as they are indexed.

    Many are kept in the cache, row by row, where the file has columns, and resized; else a read-only view of the file.
    """
    path = find_binary(Path(data_dir)) / "unlabeled_X.bin"
    images = _images(path)
    if image_size not in (None, SIDE):
        images = Resized(images, image_size, resize)
    if cache is None or not cache.takes(len(images), images.shape[1:]):
        return images

    def read(start: int, stop: int) -> Iterable[tuple[np.ndarray, int]]:
        return ((image, -1) for image in in_order(images.__getitem__, range(start, stop)))

    name = store_name(["stl10 unlabelled", file_facts(path)], image_size, resize)
    if (kept := cache.opened(name)) is not None:
        return kept
    facts = {"file_sha256": unlabelled_sha256(data_dir)}
    return cache.kept(name, images.shape[1:], len(images), read, "stl10 (unlabelled)", facts)


class Resized:
    """Images (n, height, width, 3) that are resized as they are indexed: 0.2 ms each; all would take gigabytes."""

    def __init__(self, images: np.ndarray, image_size: int | Sequence[int], resize: Resize = "crop"):
        check_size(image_size)
        self._images, self._resize = images, resize
        self.shape, self.dtype = (len(images), *as_shape(image_size), 3), images.dtype

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        chosen = self._images[rows]
        resized = resize_images(chosen.reshape(-1, *self._images.shape[1:]), self.shape[1:3], self._resize)
        return resized.reshape(*chosen.shape[:-3], *self.shape[1:])


def unlabelled_sha256(data_dir: Path, images: np.ndarray | Resized | Rows | None = None) -> str:
    """Hash of the unlabelled images' file; half a minute for the complete one, if its `images` are not in a store."""
    if isinstance(images, Rows):
        return images.store.facts["file_sha256"]
    with (find_binary(Path(data_dir)) / "unlabeled_X.bin").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fold_indices(data_dir: Path) -> list[np.ndarray]:
    """The ten predefined folds, each the rows of the training images it contains."""
    folder = find_binary(Path(data_dir))
    path = folder / "fold_indices.txt"
    lines = _text_lines(path)
    if len(lines) != NUM_FOLDS:
        raise InputError(f"{path}: {len(lines)} lines, expected {NUM_FOLDS}, one a fold; {_AGAIN}")
    count = len(_images(folder / "train_X.bin"))
    return [_parse_fold(line, count, f"{path} line {number}") for number, line in enumerate(lines, 1)]


def _unpacked(data_dir: Path) -> Path | None:
    if data_dir.is_file():  # the archive itself was named
        data_dir = data_dir.parent
    for folder in (data_dir, data_dir / archive.FOLDER):
        if any((folder / name).is_file() for name in archive.REQUIRED):
            return folder
    return None


def _packed(data_dir: Path) -> Path | None:
    name = f"{archive.FOLDER}.tar.gz"
    for path in (data_dir, data_dir / name):
        if path.name == name and path.is_file():
            return path
    return None


def _read_split(folder: Path, split: str) -> Split:
    images, path = _images(folder / f"{split}_X.bin"), folder / f"{split}_y.bin"
    _check_exists(path)
    if path.stat().st_size != len(images):
        raise InputError(
            f"{path}: {path.stat().st_size} labels, expected {len(images)}, the images of {split}_X.bin; {_AGAIN}"
        )
    labels = np.fromfile(path, dtype=np.uint8)
    wrong = np.flatnonzero((labels < 1) | (labels > len(CLASS_NAMES)))
    if len(wrong):
        raise InputError(
            f"{path}: label {labels[wrong[0]]} at byte {wrong[0]}, expected 1..{len(CLASS_NAMES)}; {_AGAIN}"
        )
    return Split(np.ascontiguousarray(images), labels.astype(np.int64) - 1)


def _images(path: Path) -> np.ndarray:
    _check_exists(path)
    size = path.stat().st_size
    if size == 0 or size % IMAGE_BYTES:
        raise InputError(f"{path}: truncated: {size} bytes, expected a multiple of {IMAGE_BYTES} (3x96x96); {_AGAIN}")
    columns = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, 3, SIDE, SIDE)
    return columns.transpose(0, 3, 2, 1)


def _class_names(folder: Path) -> tuple[str, ...]:
    path = folder / "class_names.txt"
    if not path.exists():
        return CLASS_NAMES
    names = tuple(_text_lines(path))
    if len(set(names)) != len(CLASS_NAMES) or len(names) != len(CLASS_NAMES):
        raise InputError(f"{path}: {len(set(names))} different names, expected {len(CLASS_NAMES)}; {_AGAIN}")
    return names


def _parse_fold(line: str, count: int, where: str) -> np.ndarray:
    try:
        rows = np.array([int(word) for word in line.split()], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: not a list of whole numbers ({error}); {_AGAIN}") from error
    if rows.min() < 0 or rows.max() >= count:
        raise InputError(f"{where}: rows {rows.min()}..{rows.max()}, expected 0..{count - 1}; {_AGAIN}")
    if len(np.unique(rows)) != len(rows):
        raise InputError(f"{where}: {len(rows) - len(np.unique(rows))} rows appear twice; {_AGAIN}")
    return rows


def _text_lines(path: Path) -> list[str]:
    _check_exists(path)
    if path.stat().st_size > _LARGEST_TEXT:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes, expected at most {_LARGEST_TEXT:,}; {_AGAIN}")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_AGAIN}, or fetch {archive.URL}")
