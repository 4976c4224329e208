"""Classes that no training sees: which they are, and the two parts of a data set. NumPy only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from unicodedata import normalize

import numpy as np

from prl_keras.data.splits import CLASSES, RawData, Split, check_seed, joined_splits
from prl_keras.errors import InputError


def held_out_classes(wanted: Sequence[str], class_names: Sequence[str], seed: int) -> tuple[str, ...]:
    """The names, in the order of `class_names`.

    Args:
        wanted: names; or one number, of classes or below 1 their share, that are drawn with the seed.

    Raises:
        InputError: an unknown name; a number that leaves fewer than two classes to train on.
    """
    words = [normalize("NFC", name) for name in wanted]  # as class names are
    number = _number(words[0]) if len(words) == 1 else None
    if number is None:
        if unknown := [name for name in words if name not in class_names]:
            some = ", ".join(map(str, class_names[:10])) + ", ..." * (len(class_names) > 10)
            raise InputError(f"hold_out_classes: there is no class {unknown[0]!a:.60}; there are {some}")
        chosen = set(words)
    else:
        count = max(1, round(number * len(class_names))) if 0 < number < 1 else number
        if not (count >= 1 and count == int(count)):
            raise InputError(f"hold_out_classes is {words[0]}; expected names, a whole number, or a share below 1")
        check_seed(seed)
        order = np.random.RandomState([seed, CLASSES]).permutation(len(class_names))
        chosen = {class_names[k] for k in order[: int(count)]}
    if len(class_names) - len(chosen) < 2:
        raise InputError(
            f"hold_out_classes takes {len(chosen)} of {len(class_names)} classes; at least two must be left to train on"
        )
    return tuple(name for name in class_names if name in chosen)


def without_classes(raw: RawData, held_out: Sequence[str]) -> RawData:
    """All but their images, in the order in which they were."""
    kept = [k for k, name in enumerate(raw.class_names) if name not in held_out]
    splits = {name: getattr(raw, name) for name in ("train", "validation", "test")}
    splits = {name: None if split is None else _of_classes(split, kept) for name, split in splits.items()}
    return replace(raw, class_names=tuple(raw.class_names[k] for k in kept), **splits)


def all_of_classes(raw: RawData, held_out: Sequence[str]) -> Split:
    """Their images of all splits; a label is the class's place in `held_out`."""
    numbers = [raw.class_names.index(name) for name in held_out]
    splits = [raw.train, raw.test] if raw.validation is None else [raw.train, raw.validation, raw.test]
    return joined_splits([_of_classes(split, numbers) for split in splits])


def one_of_each(split: Split) -> tuple[Split, int, int]:
    """The split with one picture of each content, and how many are left out: copies of one of their class, and pictures
    that two classes have, of which no answer is right."""
    _, content = np.unique(split.digests, axis=0, return_inverse=True)
    content = content.reshape(-1)  # NumPy 2.0 gives it a second axis
    pairs, first = np.unique(np.stack([content, split.labels]), axis=1, return_index=True)
    clear = np.bincount(pairs[0], minlength=1) == 1  # content -> whether it is of one class
    kept = np.sort(first[clear[pairs[0]]])
    in_two = int((~clear[content]).sum())
    return split.take(kept), len(split) - len(kept) - in_two, in_two


def _of_classes(split: Split, numbers: Sequence[int]) -> Split:
    """The images of these classes; a label is the place in `numbers`."""
    place = {number: index for index, number in enumerate(numbers)}
    part = split.take(np.flatnonzero(np.isin(split.labels, numbers)))
    return replace(part, labels=np.array([place[label] for label in part.labels.tolist()], dtype=np.int64))


def _number(word: str) -> float | None:
    """Of words such as 3 and 0.25; others are names."""
    return float(word) if re.fullmatch(r"-?\d{1,6}|-?\d*\.\d+", word) else None
