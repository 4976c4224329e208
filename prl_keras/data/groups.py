"""Draws that part no group: the pictures of one patient, of one scene, or of one file that is there twice."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from prl_keras.errors import InputError


def by_digests(groups: Iterable[str], digests: Sequence[bytes]) -> list[np.ndarray]:
    """The rows of each group, in an order that the digests (n,) of its images decide, and no name."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows[group].append(row)
    return [np.array(each) for each in sorted(rows.values(), key=lambda each: _digest(digests[row] for row in each))]


def whole_groups(
    labels: np.ndarray,
    groups: Sequence[np.ndarray],
    fraction: float,
    class_names: Sequence[str],
    fewest_left: int = 1,
) -> np.ndarray:
    """Ascending rows of groups that together have about `fraction` of every class, at least one image of each.

    In the order of the groups each is taken that brings the numbers nearer to what is wanted.

    Args:
        labels: (n,) class numbers.
        groups: the rows of each.
        fewest_left: as many images of each class are not taken.

    Raises:
        InputError: a class cannot be parted so; it is named.
    """
    counts = Counter(labels.tolist())
    wanted = {label: min(max(round(fraction * count), 1), count - fewest_left) for label, count in counts.items()}
    held = [Counter(labels[rows].tolist()) for rows in groups]
    taken: Counter[int] = Counter()
    chosen: set[int] = set()

    def take(number: int) -> None:
        chosen.add(number)
        taken.update(held[number])

    def spare(number: int) -> bool:
        left = (counts[label] - taken[label] - n for label, n in held[number].items())
        return number not in chosen and all(count >= fewest_left for count in left)

    for number, group in enumerate(held):
        gain = sum(abs(taken[k] - wanted[k]) - abs(taken[k] + n - wanted[k]) for k, n in group.items())
        if gain > 0 and spare(number):
            take(number)
    for label in sorted(counts):
        if not taken[label]:
            able = [number for number, group in enumerate(held) if label in group and spare(number)]
            if not able:
                raise InputError(
                    f"class {class_names[label]!r} has {counts[label]} images, too few or of too few groups to set "
                    f"some aside and keep {fewest_left}; add some, or leave the class out"
                )
            take(min(able, key=lambda number: groups[number].size))
    return np.sort(np.concatenate([groups[number] for number in chosen]))


def _digest(digests: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"".join(sorted(digests))).digest()
