"""Where decoded images are kept, which sets are, and what is there."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.data.images import Resize, as_shape, grey_to_rgb, resize_images
from prl_keras.data.parallel import in_order
from prl_keras.data.rows import INDEX, Rows, opened
from prl_keras.data.store import PARTIAL, Read, open_or_build
from prl_keras.errors import InputError
from prl_keras.paths import absolute

VARIABLE = "PRL_KERAS_CACHE"
NOTHING = "none"
MOST_BYTES, MOST_IMAGES = 256 * 2**20, 5000  # in memory, if nobody asked for more

_READING = 1  # of pixels from files, in this version of the program
_NAME = re.compile(r"[0-9a-f]{16}-[\w-]+")


@dataclass(frozen=True)
class Cache:
    """folder: where stores are; None: nothing is kept. always: however few the images."""

    folder: Path | None = None
    always: bool = False

    def opened(self, name: str) -> Rows | None:
        return None if self.folder is None else opened(name, self.folder)

    def takes(self, count: int, shape: tuple[int, ...]) -> bool:
        """Whether so many images of that shape are kept."""
        large = count > MOST_IMAGES or count * math.prod(shape) > MOST_BYTES
        return self.folder is not None and (self.always or large)

    def kept(
        self,
        name: str,
        shape: tuple[int, ...],
        count: int,
        read: Read,
        source: str,
        facts: dict[str, Any] | None = None,
    ) -> Rows:
        """The store `name`, made if it is not there; see `open_or_build`. source: its name for people."""
        from prl_keras.screen.progress import progress

        if (found := self.opened(name)) is not None:
            return found
        title = f"Decoding {count:,} images of {source} once, into {self.folder}"
        with progress(title, count) as done:
            return open_or_build(name, shape, count, read, self.folder, {"source": source} | (facts or {}), done)

    def converted(
        self, images: np.ndarray | Rows, image_size: int | Sequence[int] | None, resize: Resize = "crop"
    ) -> np.ndarray | Rows:
        """RGB images, of that size if one is given; many of a store become rows of another one, of all its images."""
        shape = (*(images.shape[1:3] if image_size is None else as_shape(image_size)), 3)
        if images.shape[1:] == shape:
            return images
        if not isinstance(images, Rows) or not self.takes(len(images), shape):
            return _rgb(images[:], image_size, resize)
        whole = Rows(images.store, np.arange(len(images.store.table)))

        def read(start: int, stop: int) -> Iterable[tuple[np.ndarray, int]]:
            each = in_order(lambda row: _rgb(whole[row : row + 1], image_size, resize)[0], range(start, stop))
            return zip(each, whole.take(slice(start, stop)).labels, strict=True)

        name = f"{images.store.path.name}-{shape[0]}x{shape[1]}{'' if resize == 'crop' else f'-{resize}'}"
        return self.kept(name, shape, len(whole), read, images.store.facts["source"]).take(images.rows)


def cache_of(chosen: str | Path | None) -> Cache:
    """What `--cache-dir` says: a folder, where every set is kept; `none`; or nothing, then only large ones are, in
    the folder that the environment variable PRL_KERAS_CACHE names, or the user's own."""
    if chosen is None:
        return Cache(_user_folder())
    return Cache() if str(chosen) == NOTHING else Cache(Path(absolute(chosen)), always=True)


def _user_folder() -> Path | None:
    """None: nobody knows where the user is at home."""
    if named := os.environ.get(VARIABLE):
        return Path(absolute(named))
    with suppress(RuntimeError):
        return _of_the_system()
    return None


def _of_the_system() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "prl-keras" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "prl-keras"
    # as its specification says: a relative path is to be ignored
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "prl-keras"


def store_name(source: Iterable[Any], image_size: int | Sequence[int] | None, resize: Resize = "crop") -> str:
    """Of a store: what its images were read from, how large they are to be, and what reads them."""
    size = "own" if image_size is None else "x".join(map(str, dict.fromkeys(as_shape(image_size))))
    digest = hashlib.sha256(repr((_READING, version("pillow"), size, resize)).encode())
    for part in source:
        digest.update(repr(part).encode())
    return f"{digest.hexdigest()[:16]}-{size}"


def file_facts(path: str | Path) -> tuple[int, int, int]:
    """What changes with a file's content: the time of the last change too, which nobody can set."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(frozen=True)
class Kept:
    """A store, or what an interrupted conversion left of one: then `shape` is None."""

    name: str
    source: str
    shape: tuple[int, ...] | None
    count: int
    size: int
    used: float


def stores(folder: Path) -> list[Kept]:
    """What is in a cache, the last used first."""
    found = [_described(path) for path in folder.glob("*") if _NAME.fullmatch(path.name.removesuffix(PARTIAL))]
    return sorted(filter(None, found), key=lambda kept: kept.used, reverse=True)


def clear(folder: Path, name: str) -> list[Kept]:
    """Remove the store of that name, or `all`; returns what was removed.

    Raises:
        InputError: there is none of that name, or another process is at it; all others are removed.
    """
    from filelock import FileLock, Timeout

    chosen = [kept for kept in stores(folder) if name in ("all", kept.name, kept.name.removesuffix(PARTIAL))]
    if not chosen and name != "all":
        raise InputError(f"{folder}: no store {name!r}; python main.py data cache lists them")
    removed, busy = [], []
    for kept in chosen:
        lock = FileLock(folder / f"{kept.name.removesuffix(PARTIAL)}.lock", timeout=0)
        try:
            with lock:
                if (folder / kept.name).exists():  # else another process removed it, or finished it
                    shutil.rmtree(folder / kept.name)
                    removed.append(kept)
        except Timeout:
            busy.append(kept)
            continue
        with suppress(OSError):
            Path(lock.lock_file).unlink()
    if busy:
        raise InputError(f"{folder / busy[0].name} is in use by another process: wait for it, then repeat the command")
    return removed


def _described(path: Path) -> Kept | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        size = sum(file.stat().st_size for file in path.iterdir())
        if path.name.endswith(PARTIAL):
            return Kept(path.name, "(an interrupted conversion)", None, 0, size, path.stat().st_mtime)
        index = json.loads((path / INDEX).read_bytes())
        source, shape = str(index["facts"]["source"]), tuple(index["shape"])
        return Kept(path.name, source, shape, index["count"], size, (path / INDEX).stat().st_mtime)
    return None


def _rgb(images: np.ndarray, image_size: int | Sequence[int] | None, resize: Resize) -> np.ndarray:
    images = grey_to_rgb(images)
    return images if image_size is None else resize_images(images, image_size, resize)
