"""Images without labels, for a training to learn from: a data set's own, a folder of pictures, or another data set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.data import stl10
from prl_keras.data.cache import Cache, cache_of
from prl_keras.data.catalog import is_folder, load_train_images, resolved
from prl_keras.data.deep import check_white
from prl_keras.data.fashion import read_beside_fashion_500
from prl_keras.data.reading import NO_LABELS
from prl_keras.data.rows import Rows
from prl_keras.data.seen import short, short_digests
from prl_keras.data.splits import Dataset, dataset_label, digests_of
from prl_keras.errors import InputError
from prl_keras.screen.console import say

_OF_FILES = ("damaged", "max_megapixels")


class Chosen:
    """Some of the images (n, height, width, channels), read as they are indexed; never more than those."""

    def __init__(self, images: np.ndarray | stl10.Resized, rows: np.ndarray):
        self._images, self._rows = images, rows
        self.shape, self.dtype = (len(rows), *images.shape[1:]), images.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: int | slice | np.ndarray) -> np.ndarray:
        return self._images[self._rows[which]]


Images = np.ndarray | Rows | stl10.Resized | Chosen


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """images: uint8 (n, height, width, 3), in memory, in a store, or read as they are indexed; sha256: says which they
    are and in which order; source: their name for people; notes: lines for the user."""

    images: Images
    sha256: str
    source: str
    notes: tuple[str, ...] = ()


def open_unlabelled(chosen: bool | str, dataset: Dataset, request: Mapping[str, Any]) -> Unlabelled | None:
    """The images that `--unlabelled` asks for, at the size of the data set's; says what they are. None: of none.

    Those that are in validation or test of the data set are left out: equal pixels at that size.

    Args:
        chosen: True: the data set's own; the path of a folder, or the name of a data set; False: none.
        request: the arguments of `load_dataset` that gave the data set.

    Raises:
        InputError: there are none; they may be of classes that the data set holds out.
    """
    if not chosen:
        return None
    found = _own(dataset, request) if chosen is True else _other(chosen, dataset, request)
    if not len(found.images):
        raise InputError(f"--unlabelled: {found.source} are all in validation or test of {dataset.label}")
    say(f"Unlabelled: {len(found.images):,} images of {found.source}")
    for note in found.notes:
        say(note)
    return found


def unlabelled_reference(chosen: bool | str) -> bool | str:
    """How a run's record names them, whatever was typed."""
    return resolved(chosen) if isinstance(chosen, str) else chosen


def _own(dataset: Dataset, request: Mapping[str, Any]) -> Unlabelled:
    data_dir = request.get("data_dir")
    if dataset.name == "fashion_500":
        return _beside_fashion_500(dataset, request)
    if dataset.name != "stl10" or data_dir is None:
        raise InputError(
            f"--unlabelled: {dataset.label} has no unlabelled images of its own; name a folder of pictures or another "
            "data set behind it (fashion_500 has some, and stl10 with --data-dir, whose binary files hold them)"
        )
    _check_none_held_out(dataset, "stl10's")
    cache, resize = cache_of(request.get("cache_dir")), request.get("resize", "crop")
    images = stl10.load_unlabelled(Path(data_dir), request["image_size"], resize, cache)
    found = _without_known(images, dataset, "stl10")
    # as earlier versions recorded it, so that their runs can be continued; with images left out it is another set
    sha256 = stl10.unlabelled_sha256(Path(data_dir), images)
    return found if found.notes else Unlabelled(images, sha256, found.source)


def _beside_fashion_500(dataset: Dataset, request: Mapping[str, Any]) -> Unlabelled:
    """Their labels are looked at for one purpose: that no class that is held out comes in."""
    from prl_keras.data.fashion import CLASS_NAMES

    data_dir, resize = request.get("data_dir"), request.get("resize", "crop")
    _, others = read_beside_fashion_500(data_dir and Path(data_dir))
    held_out = [CLASS_NAMES.index(name) for name in dataset.held_out]
    others = others.take(np.flatnonzero(~np.isin(others.labels, held_out)))
    images = Cache().converted(others.images, dataset.image_shape[:2], resize)
    return _without_known(images, dataset, "Fashion-MNIST that fashion_500 and its development set do not have")


def _other(chosen: str, dataset: Dataset, request: Mapping[str, Any]) -> Unlabelled:
    name = resolved(chosen)
    _check_none_held_out(dataset, f"{chosen}'s")
    how: dict[str, Any] = {"image_size": dataset.image_shape[:2], "resize": request.get("resize", "crop")}
    if is_folder(name):
        how |= {"labels": NO_LABELS} | {key: request[key] for key in _OF_FILES if key in request}
    where = request.get("data_dir") if name == dataset.name else None
    raw = load_train_images(name, where, cache_dir=request.get("cache_dir"), **how)
    check_white(f"--unlabelled {chosen}", raw.bits, dataset.label, dataset.bits)
    found = _without_known(raw.train.images, dataset, dataset_label(name))
    return Unlabelled(found.images, found.sha256, found.source, (*raw.notes, *found.notes))


def _check_none_held_out(dataset: Dataset, whose: str) -> None:
    if dataset.held_out:
        raise InputError(
            f"--unlabelled: nobody knows the classes of {whose} images, which may be those of --hold-out-classes: "
            "leave one of the two out"
        )


def _without_known(images: Images, dataset: Dataset, source: str) -> Unlabelled:
    """Without those that are in validation or test."""
    known = np.concatenate([short_digests(part.images) for part in (dataset.validation, dataset.test)])
    digests = digests_of(images)
    new = ~np.isin(short(digests), known)
    sha256 = hashlib.sha256(repr(images.shape[1:]).encode() + digests[new].tobytes()).hexdigest()
    if new.all():
        return Unlabelled(images, sha256, source)
    rows, count = np.flatnonzero(new), int((~new).sum())
    images = images.take(rows) if isinstance(images, Rows) else Chosen(images, rows)
    note = f"Left out: {count:,} unlabelled images that are in validation or test of {dataset.label}"
    return Unlabelled(images, sha256, source, (note,))
