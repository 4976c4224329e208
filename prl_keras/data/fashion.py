"""Fashion-MNIST from four IDX files: given, of Debian, or fetched by Keras."""

from __future__ import annotations

import gzip
import math
import os
import sys
import zlib
from pathlib import Path

import numpy as np

from prl_keras.data.images import grey_to_rgb
from prl_keras.data.network import require_reachable
from prl_keras.data.splits import RawData, Split, balanced_test, balanced_train, check_split
from prl_keras.errors import InputError

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/train-images-idx3-ubyte.gz"
_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_LARGEST = 64 * 2**20  # bytes; the training images take 47 million
_IMAGES_MAGIC, _LABELS_MAGIC = 0x803, 0x801
# Never to be changed: everyone's fashion_500 holds the same images.
_FASHION_500_SEED, _TRAIN_PER_CLASS, _TEST_PER_CLASS = 20200, 500, 800
_DEVELOPMENT, _DEVELOPMENT_SEED = 10_000, 7


def is_present(data_dir: Path | None) -> bool:
    return any(_complete(folder) for folder in _places(data_dir))


def read_fashion(data_dir: Path | None) -> RawData:
    folder = next((place for place in _places(data_dir) if _complete(place)), None)
    if folder is None and data_dir is not None:
        name = next(name for pair in _FILES.values() for name in pair if not (data_dir / name).is_file())
        raise InputError(
            f"{data_dir / name}: no such file; put Fashion-MNIST's .gz files there or leave out --data-dir"
        )
    folder = folder or _download()
    return RawData(_read_split(folder, "train"), _read_split(folder, "test"), CLASS_NAMES)


def read_fashion_500(data_dir: Path | None) -> RawData:
    """500 train and 800 test images a class, the same for everyone: STL-10's numbers."""
    return _fashion_500(read_fashion(data_dir))


def read_beside_fashion_500(data_dir: Path | None) -> tuple[Split, Split]:
    """(development, others): the 55,000 training images that fashion_500 does not have, grey (n, 28, 28).

    development: 10,000 of them, the same for everyone, for choices that must not touch the test set. others: the
    45,000 that are left, fashion_500's unlabelled images. No image is in two of these sets.
    """
    raw = read_fashion(data_dir)
    taken = np.isin(_digests(raw.train), _digests(_fashion_500(raw).train))
    # RandomState, not default_rng: NumPy promises never to change its numbers.
    draw = np.random.RandomState(_DEVELOPMENT_SEED)
    development = draw.choice(np.flatnonzero(~taken), _DEVELOPMENT, replace=False)
    others = np.setdiff1d(np.flatnonzero(~taken), development)
    return raw.train.take(development), raw.train.take(others)


def development_set(data_dir: Path | None = None) -> Split:
    """The 10,000 images of `read_beside_fashion_500`, (10000, 28, 28, 3)."""
    development, _ = read_beside_fashion_500(data_dir)
    return Split(grey_to_rgb(development.images), development.labels)


def _fashion_500(raw: RawData) -> RawData:
    for split, where in ((raw.train, "fashion_mnist, train"), (raw.test, "fashion_mnist, test")):
        check_split(split, CLASS_NAMES, where)
    return RawData(
        balanced_train(raw.train, _TRAIN_PER_CLASS, _FASHION_500_SEED, CLASS_NAMES),
        balanced_test(raw.test, _TEST_PER_CLASS, _FASHION_500_SEED, CLASS_NAMES),
        CLASS_NAMES,
    )


def _digests(split: Split) -> np.ndarray:
    """(n,) text, of which equal ones are equal images."""
    return np.array([digest.tobytes().hex() for digest in split.digests])


def _places(data_dir: Path | None) -> list[Path]:
    return [data_dir] if data_dir is not None else [DEBIAN_DIR, _keras_dir()]


def _keras_dir() -> Path:
    home = os.environ.get("KERAS_HOME") or os.path.expanduser(os.path.join("~", ".keras"))
    return Path(home) / "datasets" / "fashion-mnist"


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for pair in _FILES.values() for name in pair)


def _download() -> Path:
    instead = f"install Debian's package {DEBIAN_PACKAGE}, or pass --data-dir PATH with the four .gz files"
    require_reachable(_URL, "Fashion-MNIST (30 MB)", instead)
    print(f"Downloading Fashion-MNIST (30 MB) into {_keras_dir()}", file=sys.stderr)
    import keras

    try:
        keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # the network may fail in any way
        raise InputError(f"cannot download Fashion-MNIST: {str(error).splitlines()[0]}; {instead}") from error
    return _keras_dir()


def _read_split(folder: Path, split: str) -> Split:
    image_name, label_name = _FILES[split]
    images = _read_idx(folder / image_name, _IMAGES_MAGIC)
    labels = _read_idx(folder / label_name, _LABELS_MAGIC)
    return Split(images, labels.astype(np.int64))


def _read_idx(path: Path, magic: int) -> np.ndarray:
    """IDX: magic number, the sizes as big-endian 32-bit numbers, then the bytes."""
    try:
        with gzip.open(path) as file:
            data = file.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be unpacked ({str(error).splitlines()[0]}); replace the file") from error
    dims = magic & 0xFF
    if len(data) < 4 + 4 * dims or int.from_bytes(data[:4], "big") != magic:
        raise InputError(f"{path}: not an IDX file that begins with {magic:#010x}; replace the file")
    shape = tuple(int.from_bytes(data[4 * i : 4 * i + 4], "big") for i in range(1, dims + 1))
    values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dims)
    if len(values) != math.prod(shape) or len(data) > _LARGEST:
        raise InputError(
            f"{path}: {len(values)} bytes of data, expected {math.prod(shape)} for {shape}; replace the file"
        )
    return values.reshape(shape)
