"""Small fake data sets in exactly the true formats, for the tests of every module; the memory that reading takes."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASS_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


@dataclass
class FakeStl10:
    """What was written: images uint8 (n, 96, 96, 3), labels 0..9, folds as rows of train."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    unlabelled: np.ndarray
    folds: list[np.ndarray]

    def files(self) -> dict[str, bytes]:
        return {
            "test_X.bin": to_binary(self.test_images),
            "test_y.bin": (self.test_labels + 1).astype(np.uint8).tobytes(),
            "train_X.bin": to_binary(self.train_images),
            "train_y.bin": (self.train_labels + 1).astype(np.uint8).tobytes(),
            "unlabeled_X.bin": to_binary(self.unlabelled),
            "class_names.txt": "".join(f"{name}\n" for name in CLASS_NAMES).encode(),
            "fold_indices.txt": "".join(" ".join(map(str, fold)) + " \n" for fold in self.folds).encode(),
        }


def fake_stl10(train_per_class: int = 4, test_per_class: int = 2, unlabelled: int = 5, seed: int = 0) -> FakeStl10:
    """Coloured squares: the class decides the hue, so a model can learn them; small when compressed."""
    rng = np.random.default_rng(seed)
    train_labels = rng.permutation(np.repeat(np.arange(10), train_per_class))
    test_labels = rng.permutation(np.repeat(np.arange(10), test_per_class))
    fold_size = max(2, len(train_labels) // 2)
    folds = [rng.permutation(len(train_labels))[:fold_size] for _ in range(10)]
    return FakeStl10(
        _pictures(train_labels, rng),
        train_labels,
        _pictures(test_labels, rng),
        test_labels,
        _pictures(rng.integers(0, 10, unlabelled), rng),
        folds,
    )


def to_binary(images: np.ndarray) -> bytes:
    """NHWC -> STL-10's order: channels first, and within a channel column after column."""
    return np.ascontiguousarray(images.transpose(0, 3, 2, 1)).tobytes()


def write_stl10_folder(parent: Path, files: dict[str, bytes]) -> Path:
    folder = parent / "stl10_binary"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_stl10_archive(
    parent: Path, files: dict[str, bytes], extra: list[tuple[tarfile.TarInfo, bytes]] | None = None
) -> Path:
    """stl10_binary.tar.gz as Stanford packs it; `extra` members come first."""
    parent.mkdir(parents=True, exist_ok=True)
    path = parent / "stl10_binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for member, content in extra or []:
            tar.addfile(member, io.BytesIO(content))
        folder = tarfile.TarInfo("stl10_binary/")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(f"stl10_binary/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_fashion(folder: Path, train_per_class: int = 6, test_per_class: int = 3, seed: int = 0) -> Path:
    """Fashion-MNIST's four files, grey 28x28."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, per_class in (("train", train_per_class), ("t10k", test_per_class)):
        labels = rng.permutation(np.repeat(np.arange(10), per_class)).astype(np.uint8)
        images = rng.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        for name, magic, array in (("images-idx3", 0x803, images), ("labels-idx1", 0x801, labels)):
            header = b"".join(number.to_bytes(4, "big") for number in (magic, *array.shape))
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes(), 1))
    return folder


def write_image_folder(
    root: Path, classes: tuple[str, ...] = ("cat", "dog"), train: int = 4, test: int = 2, size: int = 32
) -> Path:
    """root/train/<class>/<i>.png and root/test/<class>/<i>.png."""
    shutil.rmtree(root, ignore_errors=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def write_png16(path: Path, values: np.ndarray, kind: int, *extra: bytes) -> Path:
    """A PNG of 16 bits a value; Pillow writes only grey ones. `kind`: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), 16, kind, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def asymmetric_picture() -> np.ndarray:
    """96x96: red top-left block, green top edge towards the right, blue low on the left; every flip shows."""
    image = Image.new("RGB", (96, 96), "black")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 20, 10), fill=(255, 0, 0))
    draw.rectangle((60, 0, 95, 5), fill=(0, 255, 0))
    draw.rectangle((0, 70, 8, 95), fill=(0, 0, 255))
    return np.array(image)


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory that Python and NumPy held at once during the call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _pictures(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A background in the colour of the class, a random grey square on it."""
    images = np.zeros((len(labels), 96, 96, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:] = Image.new("HSV", (1, 1), (int(label) * 25, 200, 200)).convert("RGB").getpixel((0, 0))
        top, left = rng.integers(0, 72, 2)
        image[top : top + 24, left : left + 24] = rng.integers(0, 256)
        image[0, 0] = rng.integers(0, 256, 3)  # no two images are equal
    return images
