"""Everything of a data set looked at once, and all that is found together."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prl_keras.data import checks, near
from prl_keras.data.catalog import is_folder, load_dataset
from prl_keras.data.checks import Finding
from prl_keras.data.duplicates import duplicates, names_of
from prl_keras.data.folder import READABLE_NOW, UnreadableError, names_below
from prl_keras.data.images import PADDING, Header, header, load_image, pillow_ready
from prl_keras.data.litter import shown
from prl_keras.data.parallel import in_order
from prl_keras.data.splits import Dataset, Split
from prl_keras.errors import InputError
from prl_keras.screen.progress import with_progress

_BLOCK_BYTES = 8 * 2**20  # of images that are read together


@dataclass(frozen=True)
class Report:
    """dataset: what could be read of it; None: too little for one, and `problem` says why.

    findings: what spoils a result first; passed: what was looked for and not found.
    """

    dataset: Dataset | None
    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    problem: str | None = None

    @property
    def spoilt(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "spoils")


class _Measures(NamedTuple):
    """Of each image of a split: least and largest value of each channel (n, 3), thumbnails (n, 256); all uint8."""

    low: np.ndarray
    high: np.ndarray
    thumbs: np.ndarray


def examined(request: dict[str, Any]) -> Report:
    """`request`: the arguments of `load_dataset`; damaged files are skipped, and found.

    Raises:
        InputError: it is no data set, and damaged files are not why; images of a store are not what was stored.
    """
    accepted = request.get("damaged") == "skip"
    try:
        dataset = _loaded(request)
    except UnreadableError as error:
        paths, reasons = zip(*error.files, strict=True)
        names = list(zip(names_below(Path(request["name"]), map(str, paths)), reasons, strict=True))
        why = error.__context__ if isinstance(error.__context__, InputError) else "no picture can be read"
        return Report(None, (checks.unreadable(names, False),), (), f"what can be read is no data set: {why}")
    found: dict[str, list[Finding | None]] = {}
    if is_folder(request["name"]):
        found["unreadable files"] = [checks.unreadable(_reasons(dataset, request), accepted)]
    found["duplicates"] = [checks.duplicated(each, dataset.class_names) for each in duplicates(dataset)]
    found |= _of_pixels(dataset, request.get("resize", "crop"), headers := _headers(dataset, request))
    found |= _of_counts(dataset) | _of_headers(headers, dataset, request.get("resize", "crop"))
    findings = [finding for each in found.values() for finding in each if finding is not None]
    findings.sort(key=lambda finding: finding.severity != "spoils")
    passed = tuple(what for what, each in found.items() if not any(each))
    return Report(dataset, tuple(findings), passed)


def _loaded(request: dict[str, Any]) -> Dataset:
    if not is_folder(request["name"]):
        return load_dataset(**request)
    try:
        return load_dataset(**request | {"damaged": "skip"})
    except UnreadableError:
        raise
    except InputError:
        load_dataset(**request | {"damaged": "refuse"})  # if damaged files are why, it names them
        raise


def _reasons(dataset: Dataset, request: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, what is wrong) of each file that was skipped: asked of the files again, as they are few."""
    reasons = []
    options = {"size": dataset.image_shape, "bits": dataset.bits, "max_megapixels": request.get("max_megapixels")}
    for name in dataset.skipped:
        path = Path(request["name"], _as_written(name))
        try:
            load_image(path, **options)
            reason = READABLE_NOW
        except InputError as error:
            reason = str(error).removeprefix(f"{path}: ")
        reasons.append((name, reason))
    return reasons


def _as_written(name: str) -> str:
    """Of the name of a file that was `shown`."""
    with suppress(SyntaxError, ValueError):
        written = ast.literal_eval(name)
        if isinstance(written, str) and shown(written) == name:
            return written
    return name


def _of_pixels(dataset: Dataset, resize: str, headers: dict[str, Header]) -> dict[str, list[Finding | None]]:
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    measures = {name: _measured(split, resize == "pad", f"Reading {name}") for name, split in splits.items()}
    names = {name: names_of(split, name) for name, split in splits.items()}
    all_names = [name for each in names.values() for name in each]
    low, high = (np.concatenate([each[i] for each in measures.values()]) for i in range(2))
    deep = (name for name, head in headers.items() if head.deep)
    known = names["train"] + names["validation"]
    thumbs = np.concatenate([measures["train"].thumbs, measures["validation"].thumbs])
    new = _not_among(dataset.test, (dataset.train, dataset.validation))
    twins = near.twins(measures["test"].thumbs[new], thumbs)
    pairs = [(names["test"][new[row]], known[twin]) for row, twin in twins]
    return {
        "near-duplicates of train in test": [checks.nearly_duplicated(pairs)],
        "pictures of a single colour": [checks.constant(all_names, low, high)],
        "a narrow range of values": [checks.narrow(all_names, low, high, deep, dataset.bits)],
    }


def _of_counts(dataset: Dataset) -> dict[str, list[Finding | None]]:
    train, validation = (
        np.bincount(split.labels, minlength=dataset.num_classes) for split in (dataset.train, dataset.validation)
    )
    return {
        "imbalance": [checks.imbalanced(train + validation, dataset.class_names)],
        "classes of few images": [checks.few(train, dataset.class_names)],
    }


def _of_headers(headers: dict[str, Header], dataset: Dataset, resize: str) -> dict[str, list[Finding | None]]:
    if not headers:
        return {}
    names, heads = list(headers), list(headers.values())
    found = {"animations": [checks.animated(names, [head.frames for head in heads])]}
    if resize == "crop":
        shapes = np.array([head.shape for head in heads])
        found["pictures that the crop spoils"] = [checks.cropped(names, shapes, dataset.image_shape[:2])]
    return found


def _headers(dataset: Dataset, request: dict[str, Any]) -> dict[str, Header]:
    """Of each file, by its name; of other sources none."""
    splits = (dataset.train, dataset.validation, dataset.test)
    names = [name for split in splits if split.files is not None for name in split.files]
    read = partial(header, max_megapixels=request.get("max_megapixels"))
    with pillow_ready():
        heads = in_order(lambda name: read(Path(request["name"], name)), names)
        return dict(zip(names, with_progress(heads, len(names), "Looking at files"), strict=True))


def _measured(split: Split, padded: bool, what: str) -> _Measures:
    """In blocks on all cores, so that of a store a few are in memory at a time."""
    height, width = split.images.shape[1:3]
    each = max(1, _BLOCK_BYTES // (height * width * 3))
    starts = range(0, len(split), each)
    if not starts:  # test, of pictures without classes
        return _Measures(*(np.zeros((0, size), np.uint8) for size in (3, 3, near.SIDE**2)))
    blocks = in_order(lambda start: _measures(split.images[start : start + each], padded), starts)
    return _Measures(*map(np.concatenate, zip(*with_progress(blocks, len(starts), what), strict=True)))


def _measures(images: np.ndarray, padded: bool) -> _Measures:
    if not padded:
        return _Measures(_folded(images, np.min), _folded(images, np.max), near.thumbnails(images))
    bars = (images == PADDING).all(axis=3)
    bars = (bars.all(axis=1)[:, None, :] | bars.all(axis=2)[:, :, None])[..., None]
    low = _folded(np.where(bars, np.uint8(255), images), np.min)
    return _Measures(low, _folded(np.where(bars, np.uint8(0), images), np.max), near.thumbnails(images))


def _folded(images: np.ndarray, fold: Any) -> np.ndarray:
    """(n, height, width, 3) -> (n, 3); first over the rows, which is fast."""
    count, height, width, channels = images.shape
    return fold(fold(images.reshape(count, height, -1), axis=1).reshape(count, width, channels), axis=1)


def _not_among(split: Split, others: Sequence[Split]) -> np.ndarray:
    """Rows of the split whose image is in none of the others, pixel for pixel."""
    known = {digest.tobytes() for other in others for digest in other.digests}
    return np.array([row for row, digest in enumerate(split.digests) if digest.tobytes() not in known], dtype=int)
