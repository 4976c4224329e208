"""From what is known of a data set's pictures to findings: what would spoil a result, and what deserves a look.

Pure functions of arrays and of facts about files; each gives a `Finding`, or None where there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from prl_keras.data.duplicates import Duplicates
from prl_keras.data.litter import shown

Severity = Literal["spoils", "look"]
LEAST_USED = 0.75  # of a picture's area, by a crop
LEAST_RANGE = 0.05  # of the values from black to white
MOST_IMBALANCE = 5
FEW = 5  # training images of a class
_MOST_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """line: for people, with the first few examples; examples: all of them, as JSON."""

    kind: str
    severity: Severity
    count: int
    line: str
    examples: tuple[dict[str, Any], ...] = ()


def unreadable(files: Sequence[tuple[str, str]], accepted: bool) -> Finding | None:
    """files: (name, what is wrong). accepted: `--damaged skip` was given, so no result is without a word of them."""
    if not files:
        return None
    examples = ({"image": shown(name), "reason": reason} for name, reason in files)
    line = f"{_count(len(files), 'picture')} cannot be read" + " (left out)" * accepted
    return Finding("unreadable", "look" if accepted else "spoils", len(files), line, tuple(examples))


def duplicated(found: Duplicates, class_names: Sequence[str]) -> Finding:
    """A test image in train spoils a result, and an image with two classes too."""
    wrong = found.contradictions
    what = found.what.format(**({"s": "", "are": "is"} if len(found.pairs) == 1 else {"s": "s", "are": "are"}))
    line = f"{len(found.pairs):,} {what}, {len(wrong):,} with another class"
    pairs = sorted(found.pairs, key=lambda pair: (pair[0].label == pair[1].label, pair[0].name, pair[1].name))
    examples = tuple(
        {
            **{"image": shown(image.name), "class": class_names[image.label]},
            **{"twin": shown(twin.name), "twin_class": class_names[twin.label]},
        }
        for image, twin in pairs
    )
    named = [f"{each['image']} = {each['twin']}" for each in examples[: len(wrong) or None]]
    severity = "spoils" if wrong or found.kind == "test-in-train" else "look"
    return Finding(found.kind, severity, len(pairs), line + _some(named), examples)


def nearly_duplicated(pairs: Sequence[tuple[str, str]]) -> Finding | None:
    """pairs: names of a test image and of the one in train that is nearly the same."""
    examples = tuple({"image": shown(image), "twin": shown(twin)} for image, twin in pairs)
    line = f"{_count(len(pairs), 'test image')} nearly the same as one in train (saved again, resized, brighter)"
    return _listed("near-duplicates", line, examples, lambda each: f"{each['image']} ~ {each['twin']}")


def imbalanced(counts: np.ndarray, class_names: Sequence[str]) -> Finding | None:
    """counts: (classes,) images to train on, those for validation included."""
    order = np.argsort(-counts, kind="stable")
    least, most = order[-1], order[0]
    if counts[most] < MOST_IMBALANCE * max(counts[least], 1):
        return None
    line = (
        f"the largest class has {counts[most] / max(counts[least], 1):.0f} times as many images as the smallest: "
        f"{shown(class_names[most])} {counts[most]:,}, {shown(class_names[least])} {counts[least]:,}; "
        "look at balanced accuracy"
    )
    examples = tuple({"class": class_names[label], "images": int(counts[label])} for label in order)
    return Finding("imbalance", "look", len(order), line, examples)


def few(counts: np.ndarray, class_names: Sequence[str]) -> Finding | None:
    """counts: (classes,) training images."""
    rows = np.flatnonzero(counts < FEW)
    examples = tuple({"class": class_names[row], "images": int(counts[row])} for row in rows)
    single = int((counts < 2).sum())
    line = f"{_count(len(rows), 'class', 'classes')} of fewer than {FEW} training images, {single:,} of fewer than 2"
    return _listed("few-images", line, examples, lambda each: f"{shown(each['class'])} ({each['images']})")


def cropped(names: Sequence[str], shapes: np.ndarray, target: tuple[int, int]) -> Finding | None:
    """Pictures of which a crop to the form of `target` leaves little; shapes: (n, 2) heights and widths."""
    if not len(shapes):
        return None
    forms = shapes[:, 1] / shapes[:, 0] / (target[1] / target[0])
    used = np.minimum(forms, 1 / forms)
    rows = np.flatnonzero(used < LEAST_USED)
    rows = rows[np.argsort(used[rows], kind="stable")]
    examples = tuple(
        {"image": shown(names[row]), "used": round(float(used[row]), 4), "size": shapes[row].tolist()} for row in rows
    )
    line = (
        f"{_count(len(rows), 'picture')} of {len(shapes):,} of which the crop to {target[0]}x{target[1]} uses less "
        f"than {LEAST_USED:.0%} (--resize pad uses all)"
    )

    def named(each: dict[str, Any]) -> str:
        return f"{each['image']} ({each['used']:.0%} of {each['size'][0]}x{each['size'][1]})"

    return _listed("crop", line, examples, named)


def constant(names: Sequence[str], low: np.ndarray, high: np.ndarray) -> Finding | None:
    """low, high: (n, 3) uint8, the least and the largest value of each channel of an image."""
    rows = np.flatnonzero((low >= high).all(axis=1))
    line = f"{_count(len(rows), 'picture')} of a single colour"
    return _listed("constant", line, tuple({"image": shown(names[row])} for row in rows))


def narrow(
    names: Sequence[str], low: np.ndarray, high: np.ndarray, deep: Iterable[str] = (), bits: int | None = None
) -> Finding | None:
    """As `constant`; deep: names of files with 16 bits a value, of which 2**bits - 1 is white."""
    spans = (high.astype(int) - low).max(axis=1)
    rows = np.flatnonzero((spans > 0) & (spans < LEAST_RANGE * 255))
    deep = set(deep)
    spans = spans[rows] / 255
    examples = tuple(
        {"image": shown(names[row]), "range": round(float(span), 4), "deep": names[row] in deep}
        for row, span in zip(rows, spans, strict=True)
    )
    line = f"{_count(len(rows), 'picture')} with less than {LEAST_RANGE:.0%} of the range from black to white"
    if count := sum(each["deep"] for each in examples):
        line += f", {count:,} with 16 bits a value, of which {2 ** (bits or 16) - 1:,} is read as white"
    return _listed("range", line, examples)


def animated(names: Sequence[str], frames: Sequence[int]) -> Finding | None:
    examples = tuple(
        {"image": shown(name), "frames": count} for name, count in zip(names, frames, strict=True) if count > 1
    )
    line = f"{_count(len(examples), 'picture')} with more than one frame, of which the first is read"
    return _listed("frames", line, examples, lambda each: f"{each['image']} ({each['frames']})")


def _listed(
    kind: str,
    line: str,
    examples: tuple[dict[str, Any], ...],
    name: Callable[[dict[str, Any]], str] = lambda each: each["image"],
) -> Finding | None:
    """What deserves a look; None without examples."""
    if not examples:
        return None
    return Finding(kind, "look", len(examples), line + _some(map(name, examples)), examples)


def _some(named: Iterable[str]) -> str:
    named = list(named)
    return f": {', '.join(named[:_MOST_EXAMPLES])}{', ...' * (len(named) > _MOST_EXAMPLES)}" if named else ""


def _count(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
