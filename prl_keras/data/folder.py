"""Image folders: PATH/train/<class>/* and PATH/test/<class>/*. Used by the catalog only."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np

from prl_keras.data.images import IMAGE_EXTENSIONS, check_size, image_shape, load_image
from prl_keras.data.splits import RawData, Split
from prl_keras.errors import InputError
from prl_keras.records import is_text

DEFAULT_SIZE = 96
# What cameras, systems and annotation tools leave beside the pictures.
_COMPANIONS = (".txt", ".csv", ".json", ".xml", ".md", ".db", ".ini")
_MEMORY_LIMIT = 8 * 2**30


def read_folder(root: Path, image_size: int | None = None) -> RawData:
    """All images, in sorted order. Without `image_size`: in their common size, or 96 if they differ."""
    if image_size is not None:
        check_size(image_size)
    train, test = _class_folders(root / "train"), _class_folders(root / "test")
    for name, folder in test.items():
        if name not in train:
            raise InputError(f"{folder}: class {name!r} is in test but not in train; add it to train or remove it")
    if len(train) < 2:
        raise InputError(f"{root / 'train'}: only the class {next(iter(train))!r}, at least 2 class folders are needed")
    class_names = tuple(train)
    train_files = _labelled_files(train, class_names)
    test_files = _labelled_files(test, class_names)
    files = [path for path, _ in train_files + test_files]
    shape = (image_size, image_size) if image_size else _common_shape(files)
    needed = len(files) * shape[0] * shape[1] * 3
    if needed > _MEMORY_LIMIT:
        raise InputError(
            f"{root}: {len(files)} images of {shape[1]}x{shape[0]} need {needed / 2**30:.0f} GB of memory; "
            f"pass an image size, for example --image-size {DEFAULT_SIZE}"
        )
    return RawData(_read(train_files, shape), _read(test_files, shape), class_names)


def _class_folders(split: Path) -> dict[str, Path]:
    if not split.is_dir():
        raise InputError(f"{split}: no such folder; put images into train/<class>/ and test/<class>/ of {split.parent}")
    # One system stores an accent as its own character, another does not: compare the composed form.
    folders: dict[str, Path] = {}
    for path in sorted(split.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        name = unicodedata.normalize("NFC", path.name)
        if not is_text(name):
            raise InputError(f"{split}: the folder name {path.name!a} is not UTF-8; rename it")
        if name in folders:
            raise InputError(f"{split}: two folders have the name {name!r}, written differently; merge them")
        folders[name] = path
    if not folders:
        raise InputError(f"{split}: no class folders; put every image into {split}/<class>/")
    return folders


def _labelled_files(folders: dict[str, Path], class_names: tuple[str, ...]) -> list[tuple[Path, int]]:
    return [(path, class_names.index(name)) for name, folder in folders.items() for path in _image_files(folder)]


def _image_files(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() in _COMPANIONS or path.is_dir():
            continue
        if path.suffix.lower() not in IMAGE_EXTENSIONS:
            raise InputError(
                f"{path}: not a known image type ({', '.join(IMAGE_EXTENSIONS)}); convert it or move it away"
            )
        found.append(path)
    if not found:
        raise InputError(f"{folder}: the class folder holds no images (subfolders are not read); add some or remove it")
    return found


def _common_shape(files: list[Path]) -> tuple[int, int]:
    shapes = {image_shape(path) for path in files}
    return shapes.pop() if len(shapes) == 1 else (DEFAULT_SIZE, DEFAULT_SIZE)


def _read(files: list[tuple[Path, int]], shape: tuple[int, int]) -> Split:
    images = np.empty((len(files), *shape, 3), dtype=np.uint8)
    for i, (path, _) in enumerate(files):
        images[i] = load_image(path, shape)
    return Split(images, np.array([label for _, label in files], dtype=np.int64))
