"""Draws that part no group: the pictures of one patient, of one scene, or of one file that is there twice."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from prl_keras.errors import InputError


def by_digests(groups: Iterable[Hashable], digests: Sequence[bytes]) -> list[list[int]]:
    """The rows of each group, in an order that the digests (n,) of its images decide, and no name."""
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows[group].append(row)
    return sorted(rows.values(), key=lambda each: _digest([digests[row] for row in each]))


def connected(*kinds: Sequence[Hashable]) -> list[int]:
    """(n,) a number for each row: rows have the same one if they share a key of any kind, by way of others too.

    Args:
        kinds: (n,) keys each, such as groups and the digests of files.
    """
    above = list(range(len(kinds[0])))

    def top(row: int) -> int:
        while above[row] != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    for keys in kinds:
        first: dict[Hashable, int] = {}
        for row, key in enumerate(keys):
            above[top(row)] = top(first.setdefault(key, row))
    return [top(row) for row in range(len(above))]


def whole_groups(
    labels: np.ndarray,
    groups: Sequence[Sequence[int]],
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
    of = labels.tolist()
    counts = Counter(of)
    wanted = {label: min(max(round(fraction * count), 1), count - fewest_left) for label, count in counts.items()}
    taken: Counter[int] = Counter()
    chosen: set[int] = set()

    def held(number: int) -> Counter[int]:
        return Counter(of[row] for row in groups[number])

    def take(number: int) -> None:
        chosen.add(number)
        taken.update(held(number))

    def spare(number: int) -> bool:
        left = (counts[label] - taken[label] - n for label, n in held(number).items())
        return number not in chosen and all(count >= fewest_left for count in left)

    def gains(number: int) -> bool:
        return sum(abs(taken[k] - wanted[k]) - abs(taken[k] + n - wanted[k]) for k, n in held(number).items()) > 0

    def fits(number: int) -> bool:
        if len(groups[number]) > 1:
            return gains(number) and spare(number)
        label = of[groups[number][0]]  # of one image, as most are: what the two rules come to, in less time
        return taken[label] < wanted[label]

    for number in range(len(groups)):
        if fits(number):
            take(number)
    for label in sorted(counts):
        if not taken[label]:
            able = [number for number in range(len(groups)) if label in held(number) and spare(number)]
            if not able:
                raise InputError(
                    f"class {class_names[label]!r} has {counts[label]} images, too few or of too few groups to set "
                    f"some aside and keep {fewest_left}; add some, or leave the class out"
                )
            take(min(able, key=lambda number: len(groups[number])))
    return np.sort([row for number in chosen for row in groups[number]])


def _digest(digests: list[bytes]) -> bytes:
    return hashlib.sha256(digests[0] if len(digests) == 1 else b"".join(sorted(digests))).digest()
