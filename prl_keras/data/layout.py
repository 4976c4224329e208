"""Which picture files are in which split with which class, as their folders tell it; nothing is decoded."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import NamedTuple

from prl_keras.data.formats import IMAGE_EXTENSIONS, is_picture
from prl_keras.data.litter import is_litter, shown, speaks_to_terminals
from prl_keras.errors import InputError
from prl_keras.runs.records import is_text

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval"),
}
SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
LAYOUTS = "<class>/*, or train/<class>/* and test/<class>/*, or any pictures and a table of their classes (--labels)"
DOMAINS = "<domain>/<class>/*"
UNLABELLED = ("unlabelled",)  # class names of pictures that have no classes
_MOST = 100_000  # entries that are looked at to count pictures that are not read: nobody waits for more
_MOST_NAMED = 3
_DIGITS = re.compile("([0-9]+)")
_ZEROED = bytes.maketrans(b"123456789", b"0" * 9)
# Of most files one look at the name is enough: neither litter, however it lies there, nor of another type.
_PLAIN = re.compile(rf"(?!pax)\w.*({'|'.join(map(re.escape, IMAGE_EXTENSIONS))})", re.ASCII | re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Pictures:
    """Columns, not objects: of hundreds of thousands of files those, and `Path` objects, would take seconds.

    files: (n,) paths, as text. labels: (n,) class numbers.
    groups: (n,), pictures of one group are never in two splits of a draw, one of None is alone; or none has one.
    domains: (n,), see `Split`; or none has one.
    """

    files: tuple[str, ...]
    labels: tuple[int, ...]
    groups: tuple[str | None, ...] | None = None
    domains: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class Layout:
    """Files, not yet read.

    root: the names of files are told as seen from it.
    validation, test: None: to be drawn from train.
    notes: lines for the user, such as what is not read.
    """

    root: Path
    class_names: tuple[str, ...]
    train: Pictures
    validation: Pictures | None = None
    test: Pictures | None = None
    notes: tuple[str, ...] = ()


class Members(NamedTuple):
    """Of one class in one split: its files, and of each its group and its domain."""

    files: Sequence[str]
    groups: Sequence[str | None] | None = None
    domains: Sequence[str] | None = None


Classes = dict[str, Members]  # by name


def folder_layout(root: Path) -> Layout:
    """Of a folder of class folders, or of train/, val/ and test/ with class folders in them.

    Raises:
        InputError: it is neither, or a split has a class that train lacks; one line that says what to do.
    """
    splits = _split_folders(root)
    if splits:
        found = {split: _named(folder) for split, folder in splits.items()}
        for split, folders in found.items():
            if not folders:
                raise InputError(f"{splits[split]}: no class folders; put every image into {splits[split]}/<class>/")
            _check_known(folders, found["train"], split, splits[split])
        beside = [path for path in _folders(root) if path not in splits.values()]
        names = f"in folders beside {', '.join(path.name for path in splits.values())}"
    else:
        found, beside, names = {"train": _named(root)}, [], ""
    read, left, empty = _read_folders(found)
    if splits and empty:
        raise InputError(f"{empty[0]}: the class folder holds no images; add some or move it")
    full = [folder for folder in found["train"].values() if folder not in empty]
    if not splits and len(full) == 1 and _folders(full[0]):
        raise InputError(
            f"{root}: only the class {full[0].name!r}, at least 2 are needed; if it holds them, pass {full[0]}"
        )
    if not full:
        raise InputError(_no_classes(root))
    loose = [path for folder in dict.fromkeys((root, *splits.values())) for path in _loose(folder)]
    outside = {
        ("image", "outside of class folders"): loose,
        ("image", names): (path for folder in beside for path in _files(folder)[0]),
    }
    notes = _not_read(root, left | outside)
    classes = {
        split: {name: Members(files) for name, files in folders.items() if files} for split, folders in read.items()
    }
    return arranged(root, classes, notes, splits.get("train", root))


def domain_layout(root: Path) -> Layout:
    """Of PATH/<domain>/<class>/*: everything is for train, from which the rest is drawn.

    Raises:
        InputError: fewer than two domains, one without class folders, or splits in their place; one line that says
            what to do.
    """
    domains = _named(root)
    if len(domains) < 2:
        raise InputError(f"{root}: {len(domains)} folders, at least 2 are needed; with domains, it holds {DOMAINS}")
    found = {domain: _named(folder) for domain, folder in domains.items()}
    for domain, folders in found.items():
        if not folders:
            raise InputError(f"{domains[domain]}: no class folders; with domains, a data set holds {DOMAINS}")
    for what, names in (("domains", domains), ("classes", set().union(*found.values()))):
        if all(name.lower() in SPLIT_OF for name in names):
            some = ", ".join(sorted(names, key=natural))
            raise InputError(
                f"{root}: its {what} would be {some}, which are names of splits; with domains, a data set holds "
                f"{DOMAINS}, or a table with the columns split and domain tells them (--labels)"
            )
    read, left, _ = _read_folders(found)
    train: Classes = {}
    for domain, classes in read.items():
        for name, files in classes.items():
            if files:
                members = train.setdefault(name, Members([], domains=[]))
                members.files.extend(files)
                members.domains.extend([domain] * len(files))
    if not train:
        raise InputError(f"{root}: no pictures; with domains, a data set holds {DOMAINS}")
    loose = [path for folder in (root, *domains.values()) for path in _loose(folder)]
    return arranged(
        root, {"train": train}, _not_read(root, left | {("image", "outside of class folders"): loose}), root
    )


def _read_folders(
    found: dict[str, dict[str, Path]],
) -> tuple[dict[str, dict[str, list[str]]], dict[tuple[str, str], list], list[Path]]:
    """Of {part: {class name: its folder}} the pictures, what in these folders is not read, and those without any."""
    read = {part: {name: _files(path) for name, path in folders.items()} for part, folders in found.items()}
    each = [files for classes in read.values() for files in classes.values()]
    empty = [found[part][name] for part, classes in read.items() for name, files in classes.items() if not files[0]]
    left = {
        ("file", "of no known picture type"): [path for files, others, _ in each if files for path in others],
        ("link", "to a folder"): [path for *_, links in each for path in links],
        ("folder", "without pictures"): empty,
    }
    pictures = {part: {name: files for name, (files, *_) in classes.items()} for part, classes in read.items()}
    return pictures, left, empty


def arranged(root: Path, splits: dict[str, Classes], notes: tuple[str, ...], source: Path) -> Layout:
    """The layout of {split: {class name: files}}, as `source` tells it; classes are numbered in natural order.

    Raises:
        InputError: fewer than two classes, or a split has a class that train lacks.
    """
    names = sorted(splits["train"], key=natural)
    for split, classes in splits.items():
        _check_known(classes, names, split, source)
    if len(names) < 2:
        raise InputError(f"{source}: only the class {names[0]!r}, at least 2 are needed; a data set holds {LAYOUTS}")
    return Layout(root, tuple(names), **{split: _pictures(names, each) for split, each in splits.items()}, notes=notes)


def _pictures(names: Sequence[str], classes: Classes) -> Pictures:
    there = [(label, classes[name]) for label, name in enumerate(names) if name in classes]
    more = [
        tuple(chain.from_iterable(getattr(each, column) for _, each in there))
        if any(getattr(each, column) is not None for _, each in there)
        else None
        for column in ("groups", "domains")
    ]
    return Pictures(
        tuple(chain.from_iterable(each.files for _, each in there)),
        tuple(chain.from_iterable(repeat(label, len(each.files)) for label, each in there)),
        *more,
    )


def plain_layout(root: Path) -> Layout:
    """All pictures below `root`, as one class that is none; nothing is for test.

    Raises:
        InputError: there are none.
    """
    files, others, links = _files(root)
    if not files:
        raise InputError(f"{root}: no pictures, also not in its folders")
    notes = _not_read(root, {("file", "of no known picture type"): others, ("link", "to a folder"): links})
    return Layout(root, UNLABELLED, Pictures(tuple(files), (0,) * len(files)), test=Pictures((), ()), notes=notes)


def picture_files(root: Path) -> list[Path]:
    """All pictures below `root`, however deep, in natural order; litter is passed over, links to folders too."""
    return list(map(Path, _files(root)[0]))


def natural(name: str) -> str:
    """A key that sorts the numbers in names as numbers, 2 before 10; names without digits as `sorted` does.

    One string, which is compared in a quarter of the time of a list of parts: what no name can hold ends each part, and
    of a number its length comes first.
    """
    return f"{_counted(name)}\0\0{name}"


def _counted(text: str) -> str:
    """With numbers such that the larger one comes later; neither `/` nor NUL begins one."""
    parts = _DIGITS.split(text)
    parts[1::2] = [chr(len(digits := part.lstrip("0")) + ord("0")) + digits for part in parts[1::2]]
    return "\0".join(parts)


def _in_order(names: Sequence[str]) -> list[str]:
    """Names of a folder, sorted by `natural`; all at once, which takes a tenth to a third of the time."""
    text = "/".join(names)  # no name holds it
    if len(set(text.encode(errors="surrogatepass").translate(_ZEROED).split(b"/"))) == 1:
        return sorted(names)  # as IMG_0001.jpg: digits in the same places
    keys = _counted(text).split("/") if names else []
    return [name for _, name in sorted(zip(keys, names, strict=True))]


def _split_folders(root: Path) -> dict[str, Path]:
    """Split -> its folder; none if the folders of `root` are classes, of which one may be called `train` too."""
    folders = _folders(root)
    found: dict[str, list[Path]] = {}
    for path in folders:
        if split := SPLIT_OF.get(path.name.lower()):
            found.setdefault(split, []).append(path)
    paths = [path for each in found.values() for path in each]
    if not found or (len(paths) < len(folders) and not any(_folders(path) for path in paths)):
        return {}
    for split, each in found.items():
        if len(each) > 1:
            raise InputError(f"{root}: {each[0].name}/ and {each[1].name}/ are both for {split}; merge or move one")
    if "train" not in found:
        raise InputError(
            f"{root}: {paths[0].name}/ is there, train/ is not; put images to train on into {root / 'train'}/<class>/"
        )
    return {split: found[split][0] for split in SPLIT_NAMES if split in found}


def _no_classes(root: Path) -> str:
    """What is wrong with a folder that has no folder with pictures."""
    if loose := _loose(root):
        return (
            f"{root}: {len(loose):,} pictures and no class folders: without labels they are for embed, "
            "predict and pretrain --variant simclr --labels none; else move them into <class>/ folders, or name their "
            "classes with --labels FILE (docs/data.md)"
        )
    return f"{root}: no pictures; a data set holds {LAYOUTS}"


def _named(split: Path) -> dict[str, Path]:
    """Class name -> its folder."""
    # One system stores an accent as its own character, another does not: compare, and sort, the composed form.
    folders: dict[str, Path] = {}
    for path in _folders(split):
        name = unicodedata.normalize("NFC", path.name)
        if not is_text(name):
            raise InputError(f"{split}: the folder name {path.name!a} is not UTF-8; rename it")
        if speaks_to_terminals(name):
            raise InputError(f"{split}: the folder name {path.name!a} cannot be printed; rename it")
        if name in folders:
            raise InputError(f"{split}: two folders have the name {name!r}, written differently; merge them")
        folders[name] = path
    return folders


def _check_known(names: Iterable[str], train: Iterable[str], split: str, where: Path) -> None:
    for name in names:
        if name not in train:
            raise InputError(f"{where}: class {name!r} is in {split} but not in train; add it there or move it away")


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        found = [entry.name for entry in entries if entry.is_dir() and not is_litter(entry.path)]
    return [folder / name for name in sorted(found, key=natural)]


def _loose(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.path for e in entries if is_picture(e.path) and not is_litter(e.path) and e.is_file())


def _files(root: Path) -> tuple[list[str], list[str], list[str]]:
    """(pictures, other files, links to folders, which may lead in a circle and are not followed) below `root`."""
    found: tuple[list[str], list[str], list[str]] = ([], [], [])
    for folder, below, files in os.walk(root, onerror=_raise):
        above = os.path.join(folder, "")
        below[:] = _in_order([name for name in below if not is_litter(above + name)])
        found[2].extend(above + name for name in below if os.path.islink(above + name))
        for name in _in_order(files):
            if _PLAIN.fullmatch(name):
                found[0].append(above + name)
            elif not is_litter(path := above + name):
                found[not is_picture(path)].append(path)
    return found


def _raise(error: OSError) -> None:
    """Of a folder that cannot be looked into: `os.walk` would pass it over."""
    raise error


def _not_read(root: Path, groups: dict[tuple[str, str], Iterable[str | Path]]) -> tuple[str, ...]:
    """One line with the number of files that are not read, and the first of each kind; nothing if there are none."""
    words = []
    for (what, where), group in groups.items():
        paths = list(islice(group, _MOST))
        if paths:
            some = ", ".join(shown(Path(path).relative_to(root).as_posix()) for path in paths[:_MOST_NAMED])
            least, more = "at least " * (len(paths) == _MOST), ", ..." * (len(paths) > _MOST_NAMED)
            words.append(f"{least}{len(paths):,} {what}{'s' * (len(paths) != 1)} {where} ({some}{more})")
    return (f"Not read: {', '.join(words)}",) if words else ()
