"""What lies in image folders beside the pictures: litter, which is passed over, and pictures that are not read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from prl_keras.data.images import HEIF_EXTENSIONS, IMAGE_EXTENSIONS
from prl_keras.runs.records import is_text

# What network storage (Synology, QNAP), systems, archives and editors put into every folder; in small letters.
_LITTER = {
    "#recycle", "#snapshot", "__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder",
    "icon\r", "$recycle.bin", "system volume information", "lost+found", "__pycache__", "_gsdata_", "~snapshot",
    "paxheaders",
}  # fmt: skip
_LITTER_FOLDERS = re.compile(r"@|found\.\d{3}$|\$windows\.~")  # how their names begin; @: Synology's and QNAP's own
# Names that a class may have too -> what only the system's own folder holds.
_SYSTEMS_OWN = {"cvs": r"entries$", "recycled": r"info2$", "recycler": r"s-1-\d"}
# What cameras, systems, editors, downloads and annotation tools leave beside the pictures; a folder may be a class.
_COMPANIONS = (
    ".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".log", ".db", ".ini", ".xmp", ".aae",
    ".thm", ".lnk", ".url", ".md5", ".sha1", ".sha256", ".sha512", ":zone.identifier", "@synoeastream",
    "@synoresource", "~", ".part", ".tmp", ".bak", ".tfw", ".pgw", ".pp3",
)  # fmt: skip
_COMPANION_NAMES = {"readme", "license", "copying", "zbthumbnail.info", "pspbrwse.jbf"}
_MOST = 100_000  # entries that are looked at to count pictures, a group: nobody waits for more


def is_litter(path: Path) -> bool:
    """By its name; hidden files and folders too, as `.DS_Store`, `._0.png`, `.ipynb_checkpoints`."""
    name = path.name.lower()
    if name in _LITTER or name.startswith((".", "~$", "paxheaders.")):
        return True
    if name in _SYSTEMS_OWN:
        return path.is_dir() and any(re.match(_SYSTEMS_OWN[name], entry.lower()) for entry in os.listdir(path))
    if name == "_macosx":  # misspelt; holds shadows of files and folders, and no file of its own
        return path.is_dir() and all(entry.startswith(".") or (path / entry).is_dir() for entry in os.listdir(path))
    companion = name in _COMPANION_NAMES or name.endswith(_COMPANIONS)
    if _LITTER_FOLDERS.match(name):
        return companion or path.is_dir()
    return companion and not path.is_dir()


def unread(root: Path, classes: Iterable[Path]) -> tuple[str, ...]:
    """One line with the number of pictures below `root` that are in no class folder; nothing if there are none."""
    classes, splits = list(classes), [root / "train", root / "test"]
    groups = {
        "in folders below a class": _files_below(
            path for folder in classes for path in _entries(folder) if path.is_dir()
        ),
        "outside of class folders": (path for folder in (root, *splits) for path in _entries(folder) if path.is_file()),
        "in folders beside train and test": _files_below(
            path for path in _entries(root) if path.is_dir() and path not in splits
        ),
    }
    found = [_counted(root, paths, where) for where, paths in groups.items()]
    return (f"Not read: {', '.join(filter(None, found))}",) if any(found) else ()


def shown(name: str) -> str:
    """A file's name as it can be printed on one line."""
    return name if is_text(name) and name.isprintable() else ascii(name)


def _counted(root: Path, paths: Iterator[Path], where: str) -> str:
    looked_at, count, example = 0, 0, None
    for path in islice(paths, _MOST):
        looked_at += 1
        if path.suffix.lower() in IMAGE_EXTENSIONS + HEIF_EXTENSIONS:
            count, example = count + 1, example or path.relative_to(root).as_posix()
    least = "at least " if looked_at == _MOST else ""
    return example and f"{least}{count:,} image{'s' * (count != 1)} {where} ({shown(example)})"


def _files_below(folders: Iterable[Path]) -> Iterator[Path]:
    """All files below, each folder's in sorted order."""
    for top in folders:
        for folder, below, files in os.walk(top):
            below[:] = sorted(name for name in below if not is_litter(Path(folder, name)))
            yield from (path for name in sorted(files) if not is_litter(path := Path(folder, name)))


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_litter(path))
