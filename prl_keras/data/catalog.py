"""Name -> Dataset. The one place that knows every data set by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.data import archive, digits, fashion, folder, stl10, tfds_source
from prl_keras.data.cache import Cache, cache_of
from prl_keras.data.held_out import all_of_classes, held_out_classes, without_classes
from prl_keras.data.images import Resize, check_size
from prl_keras.data.layout import LAYOUTS, UNLABELLED
from prl_keras.data.reading import Damaged, Reading
from prl_keras.data.splits import (
    Dataset,
    RawData,
    Split,
    balanced_test,
    balanced_train,
    by_content,
    check_split,
    fingerprint,
    split_validation,
)
from prl_keras.errors import InputError
from prl_keras.paths import absolute, expanded

TFDS_PREFIX = "tfds:"
VALIDATION_FRACTION = 0.1
_MOST_NAMED = 3
_TEST_SEED = 0  # whatever the run's seed: runs are compared on the same test images
_FASHION_LICENCE = "MIT (Zalando SE, 2017)"
_STL10_MANUAL = f"fetch it by hand and pass --data-dir PATH of the folder that holds {archive.FOLDER}.tar.gz"


@dataclass(frozen=True)
class Entry:
    """One line of `python main.py data`. `is_ready` imports nothing heavy; `licence`: of the images."""

    summary: str
    how_to_get: str
    is_ready: Callable[[Path | None], bool]
    read: Callable[[Path | None, int | None, Cache], RawData]
    licence: str
    takes_data_dir: bool = True


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    seed: int = 0,
    *,
    validation_fraction: float = VALIDATION_FRACTION,
    samples_per_class: int | None = None,
    test_per_class: int | None = None,
    image_size: int | Sequence[int] | None = None,
    fold: int | None = None,
    resize: Resize = "crop",
    labels: str | Path | None = None,
    damaged: Damaged = "refuse",
    max_megapixels: float | None = None,
    domains: bool = False,
    hold_out_domain: str | None = None,
    cache_dir: str | Path | None = None,
    hold_out_classes: Sequence[str] = (),
) -> Dataset:
    """Load a data set: a catalog name, `tfds:NAME`, or a folder of pictures (docs/data.md).

        dataset = prl_keras.load_dataset("digits", samples_per_class=20, seed=0)
        dataset.train.images.shape, dataset.validation.labels, dataset.class_names

    `seed` decides which training images become validation images and which ones a subset keeps.
    `samples_per_class` shrinks train only (validation stays), `test_per_class` shrinks test (to the same images for
    every seed); `fold` (0..9) takes one of STL-10's predefined parts of train.

    `image_size` is a side or (height, width), to which images are cropped around their centre, padded with grey bars or
    stretched, as `resize` says. Of folders only: `labels`, a table of the pictures' classes, or "none"; whether
    `damaged` files end it or are skipped; `max_megapixels` of a picture, 89 if None; `domains`, whether it is
    PATH/<domain>/<class>/*, or the table has a column for them, and `hold_out_domain`, the one whose pictures are test,
    all of them, while the others are trained on.

    `cache_dir`: where the decoded images of folders and of tensorflow-datasets are kept, however few; "none": nowhere;
    None: large sets only, in the folder that PRL_KERAS_CACHE names or the user's own. Images that are kept come as
    `rows.Rows` instead of an array.

    `hold_out_classes`: names of classes that the data set then lacks, or one number, of classes or below 1 their share,
    that `seed` draws; `load_held_out` has their images.
    """
    files = {"labels": labels, "damaged": damaged, "max_megapixels": max_megapixels, "domains": domains}
    how = {"image_size": image_size, "resize": resize, "hold_out_domain": hold_out_domain, **files}
    name, raw, finish = _opened(name, data_dir, fold, cache_dir, **how)
    held_out = _held_out(raw, hold_out_classes, seed)
    raw = without_classes(raw, held_out) if held_out else raw
    names, order, notes, facts = raw.class_names, raw.order, raw.notes, {"bits": raw.bits, "skipped": raw.skipped}
    if raw.validation is not None:
        notes += _lacking("validation", raw.validation, names)
    splits = _drawn(raw, name, seed, validation_fraction, samples_per_class, test_per_class)
    facts["validation_drawn"] = raw.validation is None
    del raw  # or all images would be in memory twice while they are converted
    for part in splits:  # after the draws, so that only the images that are kept are converted
        splits[part] = finish(splits[part])
    if names != UNLABELLED:
        notes += _lacking("test", splits["test"], names)
    digest = fingerprint(names, splits, facts["skipped"])
    return Dataset(
        name, **splits, class_names=names, fingerprint=digest, order=order, notes=notes, held_out=held_out, **facts
    )


def load_held_out(
    name: str,
    data_dir: str | Path | None = None,
    seed: int = 0,
    *,
    hold_out_classes: Sequence[str],
    **others: Any,
) -> tuple[Split, tuple[str, ...]]:
    """The images that `load_dataset` with the same arguments leaves out, of all splits, and their classes' names.

    others: what else `load_dataset` takes; only how images are read says something about these.
    """
    _, raw, finish = _opened(name, data_dir, **others)
    held_out = _held_out(raw, hold_out_classes, seed)
    return finish(all_of_classes(raw, held_out)), held_out


def held_out_draws(
    seeds: Sequence[int],
    name: str,
    data_dir: str | Path | None = None,
    *,
    hold_out_classes: Sequence[str],
    **others: Any,
) -> Iterator[Split]:
    """What `load_held_out` gives with each of the seeds, whatever `seed` is among the others, of images as they were
    read, of any size."""
    _, raw, _ = _opened(name, data_dir, **others)
    return (all_of_classes(raw, _held_out(raw, hold_out_classes, seed)) for seed in seeds)


def load_train_images(
    name: str, data_dir: str | Path | None = None, *, cache_dir: str | Path | None = None, **others: Any
) -> RawData:
    """All training images of a data set, those included that `load_dataset` would set aside for validation.

    others: of what `load_dataset` takes, how images are read. Test and validation images of the answer are as they
    were read, of any size.
    """
    name, raw, finish = _opened(name, data_dir, cache_dir=cache_dir, **others)
    check_split(raw.train, raw.class_names, f"{name}, train")
    return replace(raw, train=finish(raw.train))


def _opened(
    name: str,
    data_dir: str | Path | None,
    fold: int | None = None,
    cache_dir: str | Path | None = None,
    **others: Any,
) -> tuple[str, RawData, Callable[[Split], Split]]:
    """The name in its one spelling, the images as they were read, and what brings a split to the size asked for."""
    name, cache, reading = resolved(name), cache_of(cache_dir), _reading(**others)
    _check_reading(name, reading)
    raw = _read(name, _checked_dir(data_dir), reading, fold, cache)
    return name, raw, partial(_finish, reading=reading, order=raw.order, cache=cache)


def _reading(**given: Any) -> Reading:
    """Of the arguments of `load_dataset` those that say how images are read."""
    how = {each.name: given[each.name] for each in fields(Reading) if each.name in given}
    if how.get("image_size") is not None:
        check_size(how["image_size"])
    if how.get("labels"):
        how["labels"] = Path(expanded(how["labels"]))
    return Reading(**how)


def _held_out(raw: RawData, wanted: Sequence[str], seed: int) -> tuple[str, ...]:
    if wanted and raw.class_names == UNLABELLED:
        raise InputError("hold_out_classes: these pictures have no classes; leave it out")
    return held_out_classes(wanted, raw.class_names, seed) if wanted else ()


def _drawn(
    raw: RawData,
    name: str,
    seed: int,
    validation_fraction: float,
    samples_per_class: int | None,
    test_per_class: int | None,
) -> dict[str, Split]:
    names = raw.class_names
    for where, split in (("train", raw.train), ("validation", raw.validation), ("test", raw.test)):
        if split is not None and not (names == UNLABELLED and where == "test"):
            check_split(split, names, f"{name}, {where}")
    train, validation = raw.train, raw.validation
    if validation is None:
        train, validation = split_validation(train, validation_fraction, seed, names)
    elif validation_fraction != VALIDATION_FRACTION:
        raise InputError(
            f"validation_fraction is {validation_fraction}, but {name} has validation images of its own; leave it out"
        )
    if samples_per_class is not None:
        train = balanced_train(train, samples_per_class, seed, names)
    if (counts := np.bincount(train.labels, minlength=len(names))).min() == 0:
        raise InputError(f"class {names[counts.argmin()]!r} has no training images; add some, or leave the class out")
    test = raw.test if test_per_class is None else balanced_test(raw.test, test_per_class, _TEST_SEED, names)
    return {"train": train, "validation": validation, "test": test}


def _finish(split: Split, reading: Reading, order: str, cache: Cache) -> Split:
    split = replace(split, images=cache.converted(split.images, reading.image_size, reading.resize))
    return by_content(split) if order == "content" else split


def _check_reading(name: str, reading: Reading) -> None:
    """Raise InputError for what does nothing with this data set."""
    of_folders = {"labels": None, "damaged": "refuse", "max_megapixels": None, "domains": False}
    idle = {} if is_folder(name) else of_folders
    idle |= {} if is_folder(name) or reading.image_size is not None else {"resize": "crop"}
    for option, default in idle.items():
        if getattr(reading, option) != default:
            needs = "without an image size" if option == "resize" else "which has no picture files of yours"
            raise InputError(f"{option} {getattr(reading, option)} does nothing with {name}, {needs}; leave it out")


def _lacking(part: str, split: Split, names: tuple[str, ...]) -> tuple[str, ...]:
    counts = np.bincount(split.labels, minlength=len(names))
    missing = [name for name, count in zip(names, counts, strict=True) if not count]
    if not missing:
        return ()
    some = ", ".join(map(repr, missing[:_MOST_NAMED])) + ", ..." * (len(missing) > _MOST_NAMED)
    return (
        f"No {part} images of {len(missing):,} of {len(names):,} classes: {some}; {part} figures do not speak of them",
    )


def resolved(name: str) -> str:
    """A data set's name in its one spelling: a folder's path absolute and without `..`, other names as they are."""
    if name in CATALOG or name.startswith(TFDS_PREFIX):
        return name
    looks_like_one = name.startswith((".", "~")) or any(mark in name for mark in ("/", os.sep))
    return absolute(name) if looks_like_one or Path(expanded(name)).is_dir() else name


def default_dataset(data_dir: str | Path | None = None) -> tuple[str, str]:
    """(name, one line that says why): STL-10 if it is prepared on this machine, else digits."""
    path = _checked_dir(data_dir)
    option = f" --data-dir {path}" if path else ""
    if _stl10_ready(path):
        return (
            "stl10",
            f"Data set: stl10{f' from {path}' if path else ''}; for the built-in one add --dataset digits",
        )
    place = str(path) if path else "this machine"
    return "digits", (
        f"Data set: digits (built in), because STL-10 is not on {place}; "
        f"to get it: python main.py data prepare --dataset stl10{option}"
    )


def is_ready(name: str, data_dir: Path | None = None) -> bool:
    """Whether load_dataset would find it without a download; imports nothing heavy."""
    if name in CATALOG:
        return CATALOG[name].is_ready(data_dir)
    return is_folder(name) or tfds_source.is_prepared(name.removeprefix(TFDS_PREFIX), data_dir)


def is_folder(name: str) -> bool:
    """Whether the data set's name is the path of a folder of images."""
    return name not in CATALOG and not name.startswith(TFDS_PREFIX)


def takes_data_dir(name: str) -> bool:
    """Whether `data_dir` says where this data set's files are; a folder is where its path says."""
    return CATALOG[name].takes_data_dir if name in CATALOG else name.startswith(TFDS_PREFIX)


def _read(name: str, data_dir: Path | None, reading: Reading, fold: int | None, cache: Cache) -> RawData:
    if fold is not None and not (name == "stl10" and data_dir and stl10.is_present(data_dir)):
        raise InputError(f"fold is {fold}, only stl10 from binary files has folds; use --dataset stl10 --data-dir PATH")
    if name in CATALOG:
        return CATALOG[name].read(data_dir, fold, cache)
    if name.startswith(TFDS_PREFIX):
        instead = "connect to a network, or pass --data-dir PATH of a tensorflow-datasets folder that holds it"
        return tfds_source.read_tfds(name.removeprefix(TFDS_PREFIX), data_dir, reading, name, instead, cache)
    root = Path(name)
    if not root.is_absolute():
        raise InputError(_unknown(name))
    if root.is_file():
        raise InputError(f"{root}: a file; name the folder of the pictures, and a table of their classes with --labels")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; a data set folder holds {LAYOUTS}")
    return folder.read_folder(root, reading, cache)


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), CATALOG, n=1)
    hint = f" did you mean {close[0]!r}?" if close else ""
    known = ", ".join(CATALOG)
    return f"unknown data set {name!r};{hint} known: {known}, tfds:NAME, or a folder of pictures"


def _read_stl10(data_dir: Path | None, fold: int | None, cache: Cache) -> RawData:
    if data_dir and (stl10.is_present(data_dir) or not tfds_source.is_prepared("stl10", data_dir)):
        return stl10.read_binary(data_dir, fold)
    return tfds_source.read_tfds("stl10", data_dir, Reading(), "STL-10 (2.6 GB)", _STL10_MANUAL, cache)


def _stl10_ready(data_dir: Path | None) -> bool:
    return bool(data_dir and stl10.is_present(data_dir)) or tfds_source.is_prepared("stl10", data_dir)


def _checked_dir(data_dir: str | Path | None) -> Path | None:
    if data_dir is None:
        return None
    path = Path(absolute(data_dir))
    if not path.exists():
        raise InputError(f"{path}: no such folder; --data-dir names the folder that holds the data set's files")
    return path


CATALOG: dict[str, Entry] = {
    "stl10": Entry(
        "10 classes of photographs, 96x96; 500 train and 800 test images a class, 100,000 unlabelled",
        "data prepare --dataset stl10 (2.6 GB), or --data-dir PATH with stl10_binary.tar.gz or stl10_binary/",
        _stl10_ready,
        _read_stl10,
        "none stated; its images are from ImageNet, whose terms allow non-commercial research and education",
    ),
    "fashion_mnist": Entry(
        "10 classes of clothing, 28x28 grey; 6,000 train and 1,000 test images a class",
        f"data prepare --dataset fashion_mnist (30 MB), or Debian's package {fashion.DEBIAN_PACKAGE}",
        fashion.is_present,
        lambda data_dir, fold, cache: fashion.read_fashion(data_dir),
        _FASHION_LICENCE,
    ),
    "fashion_500": Entry(
        "Fashion-MNIST with STL-10's numbers: 500 train and 800 test images a class, drawn once for everyone",
        "as fashion_mnist",
        fashion.is_present,
        lambda data_dir, fold, cache: fashion.read_fashion_500(data_dir),
        _FASHION_LICENCE,
    ),
    "digits": Entry(
        "10 handwritten digits, enlarged to 32x32; about 144 train and 36 test images a class",
        "built in (scikit-learn)",
        lambda data_dir: True,
        lambda data_dir, fold, cache: digits.read_digits(),
        "CC BY 4.0 (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998)",
        takes_data_dir=False,
    ),
}
