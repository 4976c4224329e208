"""Decode images once and keep them: the writing of what `rows` reads.

A store that is being made is called NAME.partial, and takes its name when all is written, the index last. A conversion
that was stopped, or met a full disk, leaves its whole files there, and the next one goes on behind them.
"""

from __future__ import annotations

import errno
import hashlib
import math
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.data.parallel import in_order
from prl_keras.data.rows import FORMAT, INDEX, ROW, Rows, bounds_of, checksum, file_of, opened, table_of
from prl_keras.errors import InputError
from prl_keras.files import atomic_path, write_json
from prl_keras.terminal import warn

Read = Callable[[int, int], Iterable[tuple[np.ndarray, int]]]

PARTIAL = ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def open_or_build(
    name: str,
    shape: tuple[int, ...],
    count: int,
    read: Read,
    cache_dir: Path,
    facts: dict[str, Any] | None = None,
    progress: Callable[[int], Any] = lambda done: None,
) -> Rows:
    """All rows of the store `name`, which is made first if it is not there; of two processes one makes it.

    Args:
        shape, count: of an image, and how many there are.
        read: (start, stop) -> that many images uint8 of that shape and their labels, the same ones every time.
        facts: to be kept with them, as JSON.
        progress: is called with the number of images that are done.

    Raises:
        InputError: the disk is full (what is whole is kept, and the next call goes on), or an error of `read`, after
            which nothing is left.
    """
    if (found := opened(name, cache_dir)) is not None:
        return found
    with _writing(name, cache_dir):
        if (found := opened(name, cache_dir)) is not None:  # another process was faster
            return found
        partial = _partial(name, cache_dir)
        _check_room(partial, count * math.prod(shape))
        try:
            sums = []
            for number, (start, stop) in enumerate(bounds_of(count, shape)):
                table = _kept(partial, number, shape, stop - start)
                if table is None:
                    table = _written(partial, number, shape, start, stop, read, progress)
                sums.append(checksum(table))
                progress(stop)
            index = {"format": FORMAT, "shape": shape, "count": count, "sha256": sums, "facts": facts or {}}
            write_json(partial / INDEX, index)
            partial.rename(cache_dir / name)
        except InputError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    if (found := opened(name, cache_dir)) is None:
        raise InputError(f"{cache_dir / name}: just written, and not readable; see that its disk works")
    return found


@contextmanager
def _writing(name: str, cache_dir: Path) -> Iterator[None]:
    """Alone, where the disk has locks; without them, two processes write the same bytes into the same files."""
    from filelock import FileLock

    try:
        cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(cache_dir / f"{name}.lock")
        try:
            lock.acquire()
        except NotImplementedError:
            warn(f"{cache_dir}: no locks on this disk; do not convert the same images twice at a time")
    except OSError as error:
        raise InputError(
            f"{cache_dir}: cannot keep decoded images there ({error.strerror}); choose another folder with "
            "--cache-dir PATH (none: keep them in memory)"
        ) from error
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _full(cache_dir, error.strerror) from error
    finally:
        lock.release()
        with suppress(OSError):  # Windows: another process waits for it
            Path(lock.lock_file).unlink()


def _full(cache_dir: Path, why: str) -> InputError:
    return InputError(
        f"{cache_dir}: {why}; make room and repeat the command, which goes on where it was, or choose another disk "
        "with --cache-dir PATH (none: keep the images in memory)"
    )


def _partial(name: str, cache_dir: Path) -> Path:
    """The folder to write in: with what an earlier attempt left, or a store that is not whole any more."""
    partial, whole = cache_dir / f"{name}{PARTIAL}", cache_dir / name
    if whole.exists():
        shutil.rmtree(partial, ignore_errors=True)
        whole.rename(partial)
    partial.mkdir(exist_ok=True)
    for left in partial.glob(".tmp-*"):
        left.unlink(missing_ok=True)
    return partial


def _check_room(partial: Path, needed: int) -> None:
    needed -= sum(file.stat().st_size for file in partial.iterdir())
    free = shutil.disk_usage(partial).free
    if needed > free:
        with suppress(OSError):
            partial.rmdir()  # if nothing is in it
        raise _full(partial.parent, f"{free / 1e9:.1f} GB free, the decoded images take {needed / 1e9:.1f} GB more")


def _written(
    folder: Path, number: int, shape: tuple[int, ...], start: int, stop: int, read: Read, progress: Callable[[int], Any]
) -> np.ndarray:
    """The table of the shard that was written: first the images, then what vouches for them."""
    images, table = np.empty((stop - start, *shape), np.uint8), np.empty(stop - start, ROW)
    done = 0
    for image, label in read(start, stop):
        if image.shape != shape or image.dtype != np.uint8 or done == len(images):
            raise ValueError(f"row {start + done}: {image.dtype} {image.shape}, expected uint8 {shape}, to row {stop}")
        images[done] = image
        table[done] = np.void(hashlib.sha256(images[done]).digest()), zlib.crc32(images[done]), label
        done += 1
        progress(start + done)
    if done < len(images):
        raise ValueError(f"{done} images from row {start} on, expected {len(images)}")
    with atomic_path(file_of(folder, number)) as temporary:
        temporary.write_bytes(images.reshape(-1).data)  # `tofile` says nothing of a full disk
    with atomic_path(file_of(folder, number, ".rows")) as temporary:
        temporary.write_bytes(table.tobytes() + hashlib.sha256(table).digest())
    return table


def _kept(folder: Path, number: int, shape: tuple[int, ...], count: int) -> np.ndarray | None:
    """The table of a shard that an earlier attempt left whole."""
    try:
        table = table_of(folder, number, shape, count)
        if table is None:
            return None
        images = np.fromfile(file_of(folder, number), np.uint8).reshape(count, *shape)
        found = b"".join(in_order(lambda image: hashlib.sha256(image).digest(), images))
        return table if found == table["sha256"].tobytes() else None
    except OSError:
        return None
