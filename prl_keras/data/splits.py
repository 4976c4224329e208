"""Labelled images, in memory or in a store, and every random choice among them. NumPy only.

Which images are drawn depends on the seed and on the images, not on their order: STL-10 from its binary files
and STL-10 from tensorflow-datasets (which shuffles) give the same splits and the same fingerprint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path

import numpy as np

from prl_keras.data.groups import by_digests, connected, whole_groups
from prl_keras.data.rows import Rows, joined
from prl_keras.errors import InputError
from prl_keras.labels import checked_labels

SPLITS = ("train", "validation", "test")  # of a `Dataset`, by their names
# One number for each kind of draw, so that two draws with the same seed are independent.
_VALIDATION, _SUBSET, _TEST, _HOLD_OUT, CLASSES = range(5)
_BLOCK = 1000  # images that are read together


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 (n, height, width, 3), labels int64 (n,), and if they have some, the names (n,) of their files, and
    the groups (n,), as text, that no draw may part, and the domains (n,), as text, where they are from (a camera, a
    hospital, a style).

    Images may be `Rows` of a store, of which a part, such as `images[:250]`, is read when it is asked for.
    Labels may come in as (n, 1) and of any number type, see `checked_labels`.
    """

    images: np.ndarray | Rows
    labels: np.ndarray
    files: np.ndarray | None = None
    groups: np.ndarray | None = None
    domains: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", checked_labels(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: slice | np.ndarray) -> Split:
        images = self.images.take(rows) if isinstance(self.images, Rows) else self.images[rows]
        more = (None if each is None else each[rows] for each in (self.files, self.groups, self.domains))
        return Split(images, self.labels[rows], *more)

    def parted(self, rows: np.ndarray) -> tuple[Split, Split]:
        """(the others, those of `rows`)."""
        others = np.ones(len(self), bool)
        others[rows] = False
        return self.take(np.flatnonzero(others)), self.take(rows)

    @cached_property
    def digests(self) -> np.ndarray:
        """`digests_of` the images, which are read once however often they are asked for."""
        return digests_of(self.images)

    def sha256(self) -> str:
        """Of the images and labels, in their order."""
        digest = hashlib.sha256()
        for start in range(0, len(self), _BLOCK):
            digest.update(np.ascontiguousarray(self.images[start : start + _BLOCK]))
        digest.update(self.labels.astype("<i8"))
        return digest.hexdigest()


def joined_splits(parts: Sequence[Split]) -> Split:
    """One after the other, with the columns that all of them have."""
    columns = {name: [getattr(part, name) for part in parts] for name in ("files", "groups", "domains")}
    more = {n: None if any(c is None for c in each) else np.concatenate(each) for n, each in columns.items()}
    return Split(reduce(joined, (part.images for part in parts)), np.concatenate([p.labels for p in parts]), **more)


@dataclass(frozen=True, eq=False)
class RawData:
    """What a source yields before it is split: images may still be grey, (n, height, width[, 1]).

    validation: of a source that has its own; None: it is drawn from train.
    `order`, `notes`, `bits`, `skipped`: see `Dataset`.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    order: str = "file"
    notes: tuple[str, ...] = ()
    bits: int | None = None
    validation: Split | None = None
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images in three splits, and what is to be known of them.

    name: what `load_dataset` was asked for; of a folder its absolute path.
    order: of the images. "file": the source's own; "content": by their digests, where the source's own means nothing
        (file names, shards), so that equal images make equal batches.
    notes: lines for the user: what was not read, what was read in a way that is to be known.
    bits: of the values in files with more than 8 (see `load_image`); None: there are none.
    skipped: names of the files that could not be read and were left out; a part of the fingerprint.
    held_out: classes that it lacks, see `load_dataset`.
    validation_drawn: from train, by the seed; False: it is the data set's own.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    fingerprint: str
    order: str = "file"
    notes: tuple[str, ...] = ()
    bits: int | None = None
    skipped: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    validation_drawn: bool = True

    @property
    def label(self) -> str:
        """For people: of a folder the last part of its path, else the name."""
        return dataset_label(self.name)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return tuple(int(side) for side in self.train.images.shape[1:])


def dataset_label(name: str) -> str:
    """The last part of a folder's path; any other name as it is."""
    path = Path(name)
    return path.name or "data" if path.is_absolute() else name


def by_content(split: Split) -> Split:
    """The same images in the order of their digests, equal ones by label."""
    return split.take(_sorted(split.digests, split.labels))


def check_split(split: Split, class_names: Sequence[str], where: str) -> None:
    """Refuse labels that do not fit the images or the class names."""
    if len(split.images) != len(split.labels):
        raise InputError(f"{where}: {len(split.images)} images but {len(split.labels)} labels; each image needs one")
    if not len(split):
        raise InputError(f"{where}: no images; a train and a test split with images are needed")
    if split.images.dtype != np.uint8:
        raise InputError(f"{where}: images are {split.images.dtype}, expected uint8 (0..255); convert them first")
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= len(class_names):
        raise InputError(
            f"{where}: labels {low}..{high}, expected 0..{len(class_names) - 1} (the classes); repair them"
        )


def split_validation(split: Split, fraction: float, seed: int, class_names: Sequence[str]) -> tuple[Split, Split]:
    """(train, validation): `fraction` of every class, with at least one image of each class on both sides.

    scikit-learn's splitters may leave a rare class without a validation image, hence a draw a class.
    """
    if not 0 < fraction < 1:
        raise InputError(f"validation_fraction is {fraction}: choose a number between 0 and 1, for example 0.1")
    return _part(split, fraction, seed, _VALIDATION, class_names)


def split_test(split: Split, fraction: float, seed: int, class_names: Sequence[str]) -> tuple[Split, Split]:
    """(train, test) for a data set that comes without a test split."""
    return _part(split, fraction, seed, _HOLD_OUT, class_names)


def balanced_train(split: Split, per_class: int, seed: int, class_names: Sequence[str]) -> Split:
    """`per_class` training images a class; a larger subset of the same seed contains the smaller one."""
    hint = " (validation images are set aside first)"
    return _balanced(split, per_class, seed, _SUBSET, class_names, "samples_per_class", hint)


def balanced_test(split: Split, per_class: int, seed: int, class_names: Sequence[str]) -> Split:
    """`per_class` test images a class (the paper: 100)."""
    return _balanced(split, per_class, seed, _TEST, class_names, "test_per_class")


def fingerprint(class_names: Sequence[str], splits: dict[str, Split], skipped: Sequence[str] = ()) -> str:
    """SHA-256 over class names and each split's name, shape, dtypes, images and labels, in any order.

    Files that were skipped count by their names, so that it is noticed when one of them is repaired.
    """
    total = hashlib.sha256(repr(tuple(class_names)).encode())
    for name, split in splits.items():
        total.update(repr((name, split.images.shape, split.images.dtype.str, split.labels.dtype.str)).encode())
        order = _sorted(split.digests, split.labels)
        labels = split.labels[order].astype("<i8").view(np.uint8).reshape(-1, 8)
        total.update(np.hstack([split.digests[order], labels]))
    if skipped:
        total.update(repr(sorted(skipped)).encode())
    return total.hexdigest()


def image_digests(images: np.ndarray) -> list[bytes]:
    """SHA-256 of each image's pixels: equal for equal images of one size, wherever they come from."""
    return [hashlib.sha256(np.ascontiguousarray(image)).digest() for image in images]


def digests_of(images: np.ndarray | Rows) -> np.ndarray:
    """(n, 32) uint8: SHA-256 of each image's pixels; a store has them, without a look at the images."""
    if isinstance(images, Rows):
        return images.digests
    return np.frombuffer(b"".join(image_digests(images)), np.uint8).reshape(-1, 32)


def _sorted(digests: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows in the order of their digests, equal ones by label."""
    words = digests.view(">u8")
    first = words[:, 0].astype(np.uint64)
    order = np.argsort(first)
    if (np.diff(first[order]) != 0).all():  # as of any images that differ: a tenth of the time
        return order
    return np.lexsort((labels, *words.T[::-1]))


def _part(split: Split, fraction: float, seed: int, purpose: int, class_names: Sequence[str]) -> tuple[Split, Split]:
    counts = np.bincount(split.labels, minlength=len(class_names))
    if counts.min() < 2:
        name, count = class_names[int(counts.argmin())], counts.min()
        raise InputError(f"class {name!r} has {count} training images, at least 2 are needed (1 to validate); add some")
    if split.groups is None:
        second = np.clip(np.rint(fraction * counts).astype(int), 1, counts - 1)
        chosen = _draw(split, second, seed, purpose)
    else:
        digests = [digest.tobytes() for digest in split.digests]
        groups = by_digests(connected(split.groups.tolist(), digests), digests)
        check_seed(seed)
        order = np.random.RandomState([seed, purpose]).permutation(len(groups))
        chosen = whole_groups(split.labels, [groups[i] for i in order], fraction, class_names)
    return split.parted(chosen)


def _balanced(
    split: Split,
    per_class: int,
    seed: int,
    purpose: int,
    class_names: Sequence[str],
    option: str,
    hint: str = "",
) -> Split:
    if per_class < 1:
        raise InputError(f"{option} is {per_class}: choose 1 or more")
    counts = np.bincount(split.labels, minlength=len(class_names))
    if counts.min() < per_class:
        name, count = class_names[int(counts.argmin())], counts.min()
        advice = f"choose {count} or less{hint}" if count else f"add some, or leave {option} out"
        raise InputError(f"{option} is {per_class} but class {name!r} has only {count} images to draw from: {advice}")
    return split.take(_draw(split, np.full(len(class_names), per_class), seed, purpose))


def _draw(split: Split, counts: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """Ascending rows: `counts[k]` random images of every class k."""
    check_seed(seed)
    chosen = []
    for label, count in enumerate(counts):
        rows = np.flatnonzero(split.labels == label)
        rows = rows[_sorted(split.digests[rows], split.labels[rows])]
        # RandomState, not default_rng: NumPy promises never to change its numbers.
        order = np.random.RandomState([seed, purpose, label]).permutation(len(rows))
        chosen.append(rows[order[:count]])
    return np.sort(np.concatenate(chosen))


def check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}: choose a whole number from 0 to {2**32 - 1}")
