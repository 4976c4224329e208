"""Folders of pictures: the files of a layout, decoded on all cores."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.config import option_words
from prl_keras.data.cache import Cache, file_facts, store_name
from prl_keras.data.deep import BITS, bits_for
from prl_keras.data.domains import without_domain
from prl_keras.data.drawn import TEST_FRACTION, drawn_test
from prl_keras.data.images import (
    SMALLEST_SIDE,
    as_shape,
    check_size,
    decode,
    largest_value,
    look,
    pillow_ready,
)
from prl_keras.data.layout import Layout, Pictures, domain_layout, folder_layout, plain_layout
from prl_keras.data.litter import shown
from prl_keras.data.parallel import in_order
from prl_keras.data.reading import NO_LABELS, Reading
from prl_keras.data.rows import Rows
from prl_keras.data.splits import RawData, Split
from prl_keras.data.table import table_layout
from prl_keras.errors import InputError
from prl_keras.screen.progress import with_progress
from prl_keras.terminal import quoted

DEFAULT_SIZE = 96
READABLE_NOW = "could not be read when the images were decoded; touch the file to try again"
_MEMORY_LIMIT = 8 * 2**30
_MOST_NAMED, _FEW_NAMED = 10, 3


class UnreadableError(InputError):
    """files: (path, what is wrong with it) of each."""

    def __init__(self, message: str, files: Sequence[tuple[Path, str]]):
        super().__init__(message)
        self.files = files


def read_folder(root: Path, reading: Reading = Reading(), cache: Cache | None = None) -> RawData:  # noqa: B008 - frozen
    """All images, by class. Without an image size: in their common size, or 96 if they differ.

    cache: where many of them are kept; None: nowhere.

    Raises:
        UnreadableError: files are damaged, and `reading` does not skip them.
        InputError: the folder's layout is none; the images would not fit into memory.
    """
    if reading.image_size is not None:
        check_size(reading.image_size)
    with pillow_ready():
        return _read(_layout(root, reading), reading, cache or Cache())


def _layout(root: Path, reading: Reading) -> Layout:
    if reading.labels == NO_LABELS:
        return plain_layout(root)
    if reading.labels is not None:
        return table_layout(reading.labels, root, reading.domains)
    return domain_layout(root) if reading.domains else folder_layout(root)


def _read(layout: Layout, reading: Reading, cache: Cache) -> RawData:
    parts = {"train": layout.train, "validation": layout.validation, "test": layout.test}
    parts = {split: part for split, part in parts.items() if part is not None}
    work = _Work([file for part in parts.values() for file in part.files])
    labels = np.concatenate([np.array(part.labels, np.int64) for part in parts.values()])
    names = np.array(names_below(layout.root, work.paths), dtype=object)
    images, rows, facts = _decoded(work, labels, names, layout.root, reading, cache)
    notes = _note_of_bits(facts["deep"], len(rows), facts["bits"])
    if work.wrong and (reading.damaged == "refuse" or not rows):
        raise _unreadable(work, layout.root, reading)
    skipped = tuple(shown(names[row]) for row in sorted(work.wrong))
    if skipped:
        some = ", ".join(skipped[:_FEW_NAMED]) + ", ..." * (len(skipped) > _FEW_NAMED)
        notes += (f"Left out: {len(skipped):,} of {len(names):,} pictures, which cannot be read: {some}",)
    whole = Split(images, labels[rows], names[rows], _groups(parts.values(), rows), _domains(parts.values(), rows))
    ends = np.searchsorted(rows, np.cumsum([0, *map(len, parts.values())])).tolist()
    data = {split: whole.take(slice(*pair)) for split, pair in zip(parts, pairwise(ends), strict=True)}
    if reading.hold_out_domain is not None:
        data, more = without_domain(data, reading.hold_out_domain, layout.class_names)
        notes += more
    elif layout.test is None:
        train = data["train"]

        def digests() -> bytes:
            return b"".join(work.each(_file_digest, rows[: len(train)], "Drawing test pictures").values())

        test = drawn_test(train, digests, layout.validation is None, layout.class_names)
        data["train"], data["test"] = train.parted(test)
        notes += (
            f"Test: {len(test):,} of {len(train):,} images, {TEST_FRACTION:.0%} of each class, drawn by what is in the "
            "files and not by --seed: always the same ones",
        )
    more = {"notes": layout.notes + notes, "bits": facts["bits"], "skipped": skipped}
    return RawData(**data, class_names=layout.class_names, order="content", **more)


class _Work:
    """Calls for the files of `paths` on all cores; what is wrong with one is kept in `wrong`, by its row."""

    def __init__(self, paths: Sequence[str]):
        self.paths, self.wrong = paths, dict[int, str]()

    def each(self, call: Callable[[Path], Any], rows: Sequence[int], what: str) -> dict[int, Any]:
        """{row: what the call returns for its path}, in the order of the rows, without those where it fails."""
        found = {}
        for row, result in zip(rows, with_progress(self._results(call, rows), len(rows), what), strict=True):
            if isinstance(result, InputError):
                self.wrong[row] = str(result).removeprefix(f"{self.paths[row]}: ")
            else:
                found[row] = result
        return found

    def _results(self, call: Callable[[Path], Any], rows: Sequence[int]) -> Iterator[Any]:
        def result(row: int) -> Any:
            try:
                return call(Path(self.paths[row]))
            except InputError as error:
                return error

        return in_order(result, rows)


def _decoded(
    work: _Work, labels: np.ndarray, names: Sequence[str], root: Path, reading: Reading, cache: Cache
) -> tuple[np.ndarray | Rows, list[int], dict[str, Any]]:
    """(images, their rows in `work.paths`, facts): `bits`, see `RawData`, and how many images have more than 8, `deep`.

    What a store has been made from is known by names, sizes and times. Which images they are, pixels tell.
    """
    facts = chain.from_iterable(map(_facts, work.paths))
    whole = (fact % 2**64 for fact in facts)  # a time may lie after the year 2262
    known = "\0".join(names).encode(errors="surrogatepass"), labels, np.fromiter(whole, np.uint64)
    source = (reading.max_megapixels, *(hashlib.sha256(each).hexdigest() for each in known))
    name = store_name(source, reading.image_size, reading.resize)
    if (kept := cache.opened(name)) is not None:
        return _kept(kept, work, reading)
    limit = reading.max_megapixels
    heads = work.each(partial(look, max_megapixels=limit), range(len(work.paths)), "Looking at pictures")
    deep = [row for row, (_, is_deep) in heads.items() if is_deep]
    largest = work.each(partial(largest_value, max_megapixels=limit), deep, "Looking at 16-bit pictures")
    facts = {"deep": len(largest), "bits": bits_for(max(largest.values())) if largest else None}
    rows = [row for row in heads if row not in work.wrong]
    size = reading.image_size
    shape = _common_shape(heads[row][0] for row in rows) if size is None else as_shape(size)
    decoded = partial(decode, size=shape, bits=facts["bits"], resize=reading.resize, max_megapixels=limit)
    if rows and cache.takes(len(rows), (*shape, 3)):
        read = partial(_rows_of, work, labels, decoded, (*shape, 3))
        return _kept(cache.kept(name, (*shape, 3), len(work.paths), read, root.name, facts), work, reading)
    _check_memory(root, len(rows), shape)

    images = np.empty((len(rows), *shape, 3), dtype=np.uint8)
    places = {Path(work.paths[row]): place for place, row in enumerate(rows)}

    def read_one(path: Path) -> None:
        images[places[path]] = decoded(path)

    good = list(work.each(read_one, rows, "Reading pictures"))
    if len(good) < len(rows):
        images = images[np.isin(rows, good)]
    return images, good, facts


def _rows_of(
    work: _Work, labels: np.ndarray, decoded: Callable[[Path], np.ndarray], shape: tuple, start: int, stop: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Images and labels for a store; of a damaged file a black one without a label."""

    def image(row: int) -> np.ndarray | None:
        if row in work.wrong:
            return None
        try:
            return decoded(Path(work.paths[row]))
        except InputError:
            return None

    for row, found in zip(range(start, stop), in_order(image, range(start, stop)), strict=True):
        yield (np.zeros(shape, np.uint8), -1) if found is None else (found, labels[row])


def _kept(images: Rows, work: _Work, reading: Reading) -> tuple[Rows, list[int], dict[str, Any]]:
    """As `_decoded`; why a file has no label is asked of the file again."""
    unread = np.flatnonzero(images.labels < 0)
    asked = [row for row in unread.tolist() if row not in work.wrong]
    again = partial(decode, size=images.shape[1:3], bits=None, resize=reading.resize)
    for row in work.each(partial(again, max_megapixels=reading.max_megapixels), asked, "Looking at pictures"):
        work.wrong[row] = READABLE_NOW
    good = np.flatnonzero(images.labels >= 0)
    return (images.take(good) if len(unread) else images), good.tolist(), images.store.facts


def _facts(path: str) -> tuple[int, int, int]:
    try:
        return file_facts(path)
    except OSError:  # it will be named when it is read
        return -1, -1, -1


def _groups(parts: Iterable[Pictures], rows: Sequence[int]) -> np.ndarray | None:
    """(len(rows),) groups of those pictures; of one that is alone a name that no table can hold. None: all are."""
    if all(part.groups is None for part in parts):
        return None
    groups = list(chain.from_iterable(part.groups or (None,) * len(part) for part in parts))
    if not any(groups[row] for row in rows):
        return None
    return np.array([groups[row] or f"\0{place}" for place, row in enumerate(rows)], dtype=object)


def _domains(parts: Iterable[Pictures], rows: Sequence[int]) -> np.ndarray | None:
    if any(part.domains is None for part in parts):
        return None
    return np.array(list(chain.from_iterable(part.domains for part in parts)), dtype=object)[rows]


def names_below(root: Path, paths: Iterable[str]) -> list[str]:
    """Of each file its name as seen from `root`, with slashes; a tenth of the time of `relative_to`."""
    above = str(root / "x")[:-1]
    return "\0".join(["", *paths]).replace(f"\0{above}", "\0").replace(os.sep, "/").split("\0")[1:]


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _unreadable(work: _Work, root: Path, reading: Reading) -> UnreadableError:
    files = [(Path(work.paths[row]), work.wrong[row]) for row in sorted(work.wrong)]
    path, reason = files[0]
    if len(files) == 1:
        return UnreadableError(f"{path}: {reason} (--damaged skip goes on without it)", files)
    some = names_below(root, (str(path) for path, _ in files[:_MOST_NAMED]))
    names = ", ".join(map(shown, some)) + ", ..." * (len(files) > _MOST_NAMED)
    words = ["python", "main.py", "data", "verify", "--dataset", str(root)]
    for name in ("labels", "domains", "max_megapixels"):
        if (value := getattr(reading, name)) not in (None, False):
            words += option_words(name, value)
    verify = quoted(words)
    line = (
        f"{root}: {len(files):,} of {len(work.paths):,} pictures cannot be read: {names}; the first: {reason}; "
        f"--damaged skip goes on without them, and all are named by: {verify}"
    )
    return UnreadableError(line, files)


def _common_shape(shapes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    found = set(shapes)
    return found.pop() if len(found) == 1 else (DEFAULT_SIZE, DEFAULT_SIZE)


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
