"""Domains: where pictures are from, and a split that tests on one that no training saw. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import normalize

import numpy as np

from prl_keras.data.splits import Split, joined_splits
from prl_keras.errors import InputError

_MOST_NAMED = 10


def domain_names(splits: Sequence[Split | None]) -> tuple[str, ...]:
    """Of all pictures, sorted; none where they have no domains."""
    return tuple(sorted({name for split in splits if split is not None for name in _of(split)}))


def without_domain(
    data: dict[str, Split], name: str, class_names: Sequence[str]
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The splits for leave-one-domain-out (Gulrajani & Lopez-Paz 2021), and lines for the user.

    test: all pictures of the domain, whatever split they were meant for. train, and validation where there is one:
    those of the other domains. Test pictures of the other domains are left unused.

    Raises:
        InputError: there is no such domain, or a class of it is in no other one's training pictures.
    """
    known, name = domain_names(list(data.values())), normalize("NFC", name)
    if name not in known:
        some = ", ".join(known[:_MOST_NAMED]) + ", ..." * (len(known) > _MOST_NAMED)
        raise InputError(f"hold_out_domain: there is no domain {name!a:.60}; there are {some}")
    inside = {part: _of(split) == name for part, split in data.items()}
    test = joined_splits([split.take(np.flatnonzero(inside[part])) for part, split in data.items()])
    others = {part: split.take(np.flatnonzero(~inside[part])) for part, split in data.items()}
    missing = np.setdiff1d(test.labels, others["train"].labels)
    if len(missing):
        raise InputError(
            f"hold_out_domain {name!r}: class {class_names[missing[0]]!r} has training pictures in no other domain; "
            "add some, or hold out another domain"
        )
    unused = others.pop("test", None)
    notes = [f"Test: all {len(test):,} images of the domain {name!r}, none of which is trained on or validated on"]
    if unused is not None and len(unused):
        notes.append(f"Not used: {len(unused):,} test images of the other domains")
    if parted := _groups(test) & {group for split in others.values() for group in _groups(split)}:
        count = f"{len(parted):,} group{'s' * (len(parted) != 1)}"
        notes.append(
            f"warning: pictures of {count}, as of {min(parted)!r}, are in the domain {name!r} and in others: "
            "test is not new in that"
        )
    return others | {"test": test}, tuple(notes)


def _groups(split: Split) -> set[str]:
    return set() if split.groups is None else set(split.groups.tolist())


def _of(split: Split) -> np.ndarray:
    return np.array([], dtype=object) if split.domains is None else split.domains
