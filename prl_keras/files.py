"""Write a file whole or not at all, in UTF-8 and with the same bytes on every system."""

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prl_keras.errors import InputError

# Of a disk or of the system: no fault of the file that was read.
OF_THE_SYSTEM = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_PAUSES = (0.01, 0.05, 0.2, 0.5, 1.0)  # seconds


def patiently(step: Callable[[], Any]) -> None:
    """Windows moves nothing that a virus scanner, an indexer or a reader has open; most let go of it in a moment."""
    for pause in _PAUSES:
        try:
            step()
            return
        except PermissionError:
            time.sleep(pause)
    step()


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary sibling (same suffix) to write to; it replaces `target` only if all went well."""
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:  # Windows syncs only what is open for writing
            os.fsync(file.fileno())
        with suppress(PermissionError):  # a disk without permissions
            temporary.chmod(0o644)
        patiently(lambda: temporary.replace(target))
    except OSError as error:
        error.filename = error.filename or str(target)  # of a full disk the system names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary empty sibling to fill; it takes the place of `target` only if all went well.

    No system exchanges two folders in one step: for a moment there is none.
    """
    draft = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    old = draft.with_name(f"{draft.name}-old")
    try:
        yield draft
        with suppress(PermissionError):
            draft.chmod(0o755)
        if target.exists():
            patiently(lambda: target.rename(old))
        try:
            patiently(lambda: draft.rename(target))
        except BaseException:  # a signal too
            if old.exists() and not target.exists():
                old.rename(target)
            raise
    finally:
        for folder in (draft, old) if target.exists() else (draft,):
            shutil.rmtree(folder, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """With its parents. Raises InputError where a file, or a link that leads nowhere, has the name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder}: a file, or a link to no folder, is in the way; move it away") from error


def write_text(target: Path, content: str) -> None:
    """Atomic, and the same bytes on every system."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content.encode())


def write_json(target: Path, content: Any) -> None:
    """Atomic; paths become strings."""
    write_text(target, json.dumps(content, indent=2, default=str, allow_nan=False) + "\n")
