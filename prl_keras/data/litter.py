"""What systems, archives, cameras and annotation tools leave in image folders beside the pictures."""

from __future__ import annotations

import os
import re
from unicodedata import category

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
    "@synoresource", ".names", ".cache", ".pbtxt", "~", ".part", ".tmp", ".bak", ".tfw", ".pgw", ".pp3",
)  # fmt: skip
_COMPANION_NAMES = {"readme", "license", "copying", "zbthumbnail.info", "pspbrwse.jbf"}
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the direction of text


def is_litter(path: str | os.PathLike) -> bool:
    """By its name; hidden files and folders too, as `.DS_Store`, `._0.png`, `.ipynb_checkpoints`."""
    name = os.path.basename(path).lower()
    if name in _LITTER or name.startswith((".", "~$", "paxheaders.")):
        return True
    if name in _SYSTEMS_OWN:
        return os.path.isdir(path) and any(re.match(_SYSTEMS_OWN[name], entry.lower()) for entry in os.listdir(path))
    if name == "_macosx":  # misspelt; holds shadows of files and folders, and no file of its own
        return os.path.isdir(path) and all(
            entry.startswith(".") or os.path.isdir(os.path.join(path, entry)) for entry in os.listdir(path)
        )
    companion = name in _COMPANION_NAMES or name.endswith(_COMPANIONS)
    if _LITTER_FOLDERS.match(name):
        return companion or os.path.isdir(path)
    return companion and not os.path.isdir(path)


def speaks_to_terminals(name: str) -> bool:
    """Whether it holds control characters, half characters, ends of lines, or what turns the direction of text."""
    return any(category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _TURNS for c in name)


def shown(name: str) -> str:
    """A file's name as it can be printed on one line."""
    return name if is_text(name) and name.isprintable() else ascii(name)
