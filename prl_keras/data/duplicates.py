"""Images that are there twice: in two splits, or with two classes. Equal means equal in every pixel, as read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from prl_keras.data.litter import shown
from prl_keras.data.splits import Dataset, Split

_MOST_EXAMPLES = 3


def duplicates(dataset: Dataset) -> list[str]:
    """A line for each kind of duplicate that there is; validation was a part of train."""
    train, validation, test = map(_hashed, (dataset.train, dataset.validation, dataset.test))
    known = train + validation
    lines = [
        _line(test, known, "test images are also in train"),
        _line(validation, train, "validation images are also among the training images"),
        _line(known, known, "images of train (validation included) are in it more than once"),
        _line(test, test, "images of test are in it more than once"),
    ]
    return [line for line in lines if line] or ["no image is in two splits, or twice in one"]


@dataclass(frozen=True)
class _Image:
    digest: bytes
    label: int
    file: str | None


def _hashed(split: Split) -> list[_Image]:
    files = [None] * len(split) if split.files is None else split.files
    return list(map(_Image, map(bytes, split.digests), split.labels.tolist(), files))


def _twins(images: list[_Image], among: list[_Image]) -> list[tuple[_Image, _Image]]:
    """Each image that is also in `among`, and its twin there: one of another class if there is one."""
    found: dict[bytes, dict[int, list[_Image]]] = defaultdict(lambda: defaultdict(list))
    for image in among:
        same = found[image.digest][image.label]
        if len(same) < 2:  # the image itself and one more
            same.append(image)
    pairs = []
    for image in images:
        by_label = found.get(image.digest, {})
        others = [same[0] for label, same in by_label.items() if label != image.label]
        others += [twin for twin in by_label.get(image.label, []) if twin is not image]
        if others:
            pairs.append((image, others[0]))
    return pairs


def _line(images: list[_Image], among: list[_Image], what: str) -> str | None:
    pairs = _twins(images, among)
    if not pairs:
        return None
    contradictions = [(image, twin) for image, twin in pairs if image.label != twin.label]
    line = f"{len(pairs):,} {what}, {len(contradictions):,} with another class"
    names = sorted(f"{shown(image.file)} = {shown(twin.file)}" for image, twin in contradictions or pairs if image.file)
    return line + (f": {', '.join(names[:_MOST_EXAMPLES])}{', ...' * (len(names) > _MOST_EXAMPLES)}" if names else "")
