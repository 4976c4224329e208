"""A test set drawn from the training pictures of a folder that has none: by what is in the files, always the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from prl_keras.data.groups import by_digests, connected, whole_groups
from prl_keras.data.rows import Rows
from prl_keras.data.splits import Split
from prl_keras.files import atomic_path

TEST_FRACTION = 0.2
_DIGEST = 32  # bytes of a SHA-256


def drawn_test(
    train: Split, digests: Callable[[], bytes], validation_too: bool, class_names: Sequence[str]
) -> np.ndarray:
    """(n,) int64 ascending rows of `train`; files that are there twice stay together. Kept beside a store of images.

    Args:
        digests: gives the SHA-256 of each file, one after the other.
        validation_too: whether validation is to be drawn from what is left.
    """
    fewest = 2 if validation_too else 1
    groups = train.groups

    def drawn() -> bytes:
        found = _kept(train, "files", digests, _DIGEST * len(train))
        each = [found[start : start + _DIGEST] for start in range(0, len(found), _DIGEST)]
        whole = by_digests(each if groups is None else connected(groups.tolist(), each), each)
        return whole_groups(train.labels, whole, TEST_FRACTION, class_names, fewest).astype("<i8").tobytes()

    by = "" if groups is None else f"-whole-{hashlib.sha256(repr(groups.tolist()).encode()).hexdigest()[:16]}"
    return np.frombuffer(_kept(train, f"test-{fewest}{by}", drawn), "<i8").astype(np.int64)


def _kept(train: Split, name: str, make: Callable[[], bytes], size: int | None = None) -> bytes:
    """What `make` returns; beside the images of a store it is kept behind its checksum, if it has that size."""
    if not isinstance(train.images, Rows):
        return make()
    file = train.images.store.path / f"{name}.kept"
    with suppress(OSError):
        content = file.read_bytes()
        if hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]:
            return content[_DIGEST:]
    made = make()
    if size in (None, len(made)):
        with suppress(OSError), atomic_path(file) as temporary:  # a cache that may only be read
            temporary.write_bytes(hashlib.sha256(made).digest() + made)
    return made
