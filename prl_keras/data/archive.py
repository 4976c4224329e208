"""Unpacks stl10_binary.tar.gz safely, completely or not at all."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
import time
import zlib
from contextlib import suppress
from pathlib import Path

from prl_keras.errors import InputError
from prl_keras.files import patiently

URL = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"
FULL_SIZE = 2_640_397_119
SIZE_LIMIT = 4 * 2**30
FOLDER = "stl10_binary"
REQUIRED = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")
OPTIONAL = ("unlabeled_X.bin", "class_names.txt", "fold_indices.txt")

_CHUNK = 4 * 2**20
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LARGEST_HEADER = 2**20
_STALE = 600  # seconds
_SHOW_PROGRESS = 50 * 2**20
_SPACE_FACTOR = 1.25  # the true archive holds 1.18 times its own size


def extract(archive: Path) -> Path:
    """Unpack beside the archive and return the folder. It appears under its name only once it is complete."""
    target = archive.parent / FOLDER
    _remove_stale(archive.parent)
    free, needed = shutil.disk_usage(archive.parent).free, int(archive.stat().st_size * _SPACE_FACTOR)
    if free < needed:
        raise InputError(f"{archive.parent}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed; free some space")
    try:
        partial = Path(tempfile.mkdtemp(prefix=f"{FOLDER}.partial.", dir=archive.parent))
    except OSError as error:
        raise InputError(
            f"{archive.parent}: cannot write there ({error.strerror}); unpack elsewhere with "
            f"`tar xzf {archive} -C FOLDER` and pass --data-dir FOLDER"
        ) from error
    try:
        _unpack(archive, partial)
        partial.chmod(0o755)  # mkdtemp makes it private
        _rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _rename(partial: Path, target: Path) -> None:
    try:
        patiently(lambda: partial.rename(target))
    except OSError as error:
        # Another process may have finished first; its copy is as good.
        if not all((target / name).is_file() for name in REQUIRED):
            raise InputError(f"{target}: in the way of the unpacked archive; move it or rename it") from error


def _unpack(archive: Path, folder: Path) -> None:
    from rich import progress
    from rich.console import Console

    shown = {
        "console": Console(stderr=True),
        "disable": archive.stat().st_size < _SHOW_PROGRESS,
        "transient": True,
    }
    try:
        with progress.open(archive, "rb", description=f"Unpacking {archive.name}", **shown) as packed:
            unzipped = gzip.GzipFile(fileobj=packed)
            with tarfile.open(fileobj=unzipped, mode="r|", tarinfo=_Member) as tar:
                _copy_members(tar, folder, archive)
            while unzipped.read(_CHUNK):  # only reading to the end verifies gzip's checksum
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
        raise InputError(
            f"{archive}: truncated or damaged ({archive.stat().st_size:,} bytes; the complete archive has "
            f"{FULL_SIZE:,}); fetch it again from {URL}"
        ) from error
    except OSError as error:
        raise InputError(
            f"{folder.parent}: unpacking stopped ({error.strerror}); free space or use another folder"
        ) from error
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{archive}: holds no {FOLDER}/{missing[0]}; fetch the right archive from {URL}")


class _Member(tarfile.TarInfo):
    """Refuses what tarfile would read into memory whole: long extended headers, maps of sparse files."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _HEADERS and member.size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse file")
        return member

    def _proc_gnusparse_10(self, *_: object) -> None:  # a map in front of the data; other PAX maps are in the header
        raise tarfile.ReadError("a sparse file")


def _remove_stale(folder: Path) -> None:
    """What a killed process left half-unpacked, up to 3 GB; one that is at work has just written."""
    for partial in folder.glob(f"{FOLDER}.partial.*"):
        with suppress(OSError):
            newest = max(path.stat().st_mtime for path in (partial, *partial.iterdir()))
            if time.time() - newest > _STALE:
                shutil.rmtree(partial, ignore_errors=True)


def _copy_members(tar: tarfile.TarFile, folder: Path, archive: Path) -> None:
    """Only names on our list are written, each under that fixed name: the archive chooses no path."""
    wanted = {f"{FOLDER}/{name}": name for name in REQUIRED + OPTIONAL}
    total = 0
    for member in tar:
        name = wanted.get(member.name.removeprefix("./"))
        if name is None:
            continue
        if not member.isreg():
            raise InputError(f"{archive}: {member.name} is not a regular file; fetch the archive again from {URL}")
        total += member.size
        if total > SIZE_LIMIT:
            raise InputError(f"{archive}: unpacks to more than {SIZE_LIMIT / 2**30:.0f} GiB; fetch it again from {URL}")
        with tar.extractfile(member) as source, open(folder / name, "wb") as destination:
            shutil.copyfileobj(source, destination, _CHUNK)
            os.fsync(destination.fileno())
