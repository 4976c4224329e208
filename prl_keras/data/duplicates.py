"""Images that are there twice: in two splits, or with two classes. Equal means equal in every pixel, as read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from prl_keras.data.splits import Dataset, Split


@dataclass(frozen=True)
class Image:
    """name: of its file, or its place, as `test[12]`."""

    digest: bytes
    label: int
    name: str


@dataclass(frozen=True)
class Duplicates:
    """what: in words, with {s} and {are} for one or many; pairs: each image that is there again, and its twin."""

    kind: str
    what: str
    pairs: list[tuple[Image, Image]]

    @property
    def contradictions(self) -> list[tuple[Image, Image]]:
        return [(image, twin) for image, twin in self.pairs if image.label != twin.label]


def duplicates(dataset: Dataset) -> list[Duplicates]:
    """Each kind of duplicate that there is; validation was a part of train."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    train, validation, test = (_images(split, name) for name, split in splits.items())
    known = train + validation
    found = [
        Duplicates("test-in-train", "test image{s} {are} also in train", _twins(test, known)),
        Duplicates(
            "validation-in-train",
            "validation image{s} {are} also among the training images",
            _twins(validation, train),
        ),
        Duplicates(
            "twice-in-train",
            "image{s} of train (validation included) {are} in it more than once",
            _twins(known, known),
        ),
        Duplicates("twice-in-test", "image{s} of test {are} in it more than once", _twins(test, test)),
    ]
    return [each for each in found if each.pairs]


def names_of(split: Split, name: str) -> list[str]:
    """Of its files; without files `name[row]`."""
    return [f"{name}[{row}]" for row in range(len(split))] if split.files is None else list(split.files)


def _images(split: Split, name: str) -> list[Image]:
    return list(map(Image, map(bytes, split.digests), split.labels.tolist(), names_of(split, name)))


def _twins(images: list[Image], among: list[Image]) -> list[tuple[Image, Image]]:
    """Each image that is also in `among`, and its twin there: one of another class if there is one."""
    found: dict[bytes, dict[int, list[Image]]] = defaultdict(lambda: defaultdict(list))
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
