"""Which picture files are in which split with which class, as their folders tell it; nothing is decoded."""

from __future__ import annotations

import os
import re
from pathlib import Path

from prl_keras.data.formats import is_picture
from prl_keras.data.litter import is_litter

_DIGITS = re.compile("([0-9]+)")


def picture_files(root: Path) -> list[Path]:
    """All pictures below `root`, however deep, in natural order; litter is passed over. Links to folders are not."""
    return _files(root)[0]


def natural(name: str) -> tuple:
    """A key that sorts the numbers in names as numbers, 2 before 10; names without digits as `sorted` does."""
    parts: list = _DIGITS.split(name)
    parts[1::2] = [(len(digits := part.lstrip("0")), digits) for part in parts[1::2]]
    return parts, name


def _files(root: Path) -> tuple[list[Path], list[Path]]:
    """(pictures, other files) below `root`."""
    found: tuple[list[Path], list[Path]] = ([], [])
    for folder, below, files in os.walk(root):
        below[:] = sorted((name for name in below if not is_litter(Path(folder, name))), key=natural)
        for name in sorted(files, key=natural):
            if not is_litter(path := Path(folder, name)):
                found[not is_picture(path)].append(path)
    return found
