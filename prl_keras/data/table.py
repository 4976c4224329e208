"""A table of pictures, CSV or TSV: columns path and label, and if one wants split, group and domain."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prl_keras.data.layout import SPLIT_NAMES, SPLIT_OF, Layout, Members, arranged
from prl_keras.data.litter import speaks_to_terminals
from prl_keras.errors import InputError

_NEEDED, _OPTIONAL = ("path", "label"), ("split", "group", "domain")
_DELIMITERS = ",;\t"  # spreadsheets of many countries write semicolons


class _Row(NamedTuple):
    line: int
    path: str
    label: str
    split: str
    group: str | None
    domain: str | None


def table_layout(file: Path, root: Path, domains: bool = False) -> Layout:
    """Of the files that a table names, as seen from `root` or from the table's own folder.

    Without a column split, or without test rows, test is left to be drawn from train; without validation rows,
    validation is. An empty cell of group: the picture is alone. Files that are not there are found when they are read.

    domains: take the column domain, or without one the column group, for the domain of each picture.

    Raises:
        InputError: the table cannot be read, a row lacks a cell or names a picture that another one names; one line
            with the row's number.
    """
    rows = _rows(file, root, domains)
    if not rows:
        raise InputError(f"{file}: no rows below the first line; each picture needs one")
    seen: dict[str, int] = {}
    same = os.path.realpath if any(os.pardir in row.path for row in rows) else str
    for row in rows:
        path = same(row.path)
        if (first := seen.setdefault(path, row.line)) != row.line:
            raise InputError(f"{file}: lines {first} and {row.line} name the same picture, {row.path}; keep one")
    splits: dict[str, dict[str, Members]] = {
        split: defaultdict(lambda: Members([], [], [] if domains else None)) for split in SPLIT_NAMES
    }
    for row in rows:
        members = splits[row.split][row.label]
        members.files.append(row.path)
        members.groups.append(row.group)
        if domains:
            members.domains.append(row.domain)
    if not splits["train"]:
        raise InputError(f"{file}: no row of the split train; at least 2 classes of it are needed")
    return arranged(root, {split: classes for split, classes in splits.items() if classes}, _parted(rows), file)


def _rows(file: Path, root: Path, domains: bool) -> list[_Row]:
    if not file.is_file():
        raise InputError(f"{file}: no such file; --labels names a CSV or TSV with the columns path and label")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            stream.seek(0)
            table = csv.DictReader(stream, delimiter=max(_DELIMITERS, key=header.count), strict=True)
            names = _columns(file, table.fieldnames or (), domains)
            rows = []
            for cells in table:
                if any(cell.strip() for cell in cells.get(None) or ()):
                    raise InputError(
                        f"{file}: line {table.line_num} has more cells than the first line has columns; "
                        "put a cell that holds the separator into double quotes"
                    )
                rows.append(_row(file, root, table.line_num, {name: cells[own] for name, own in names.items()}))
            return rows
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 (byte {error.start}); save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{file}: line {table.line_num}: {error}; repair it") from error


def _columns(file: Path, header: Sequence[str], domains: bool) -> dict[str, str]:
    """Of our names those that are there -> as they are written."""
    written = [(name or "").strip().lower() for name in header]
    for name in (*_NEEDED, *_OPTIONAL):
        if name in _NEEDED and name not in written:
            found = ", ".join(map(repr, filter(None, written))) or "none"
            raise InputError(
                f"{file}: no column {name!r} in its first line; its columns are {found}, "
                "needed are path and label, possible split, group and domain"
            )
        if written.count(name) > 1:
            raise InputError(f"{file}: two columns {name!r} in its first line; keep one, or rename the other")
    found = {name: own for name, own in zip(written, header, strict=True) if name in (*_NEEDED, *_OPTIONAL)}
    if domains and "domain" not in found:
        if "group" not in found:
            raise InputError(f"{file}: no column 'domain' or 'group' in its first line; --domains needs one")
        found["domain"] = found.pop("group")
    return found if domains else {name: own for name, own in found.items() if name != "domain"}


def _row(file: Path, root: Path, line: int, cells: dict[str, str | None]) -> _Row:
    path = (cells["path"] or "").strip()
    cells = {name: unicodedata.normalize("NFC", (cell or "").strip()) for name, cell in cells.items()}
    for name in ("path", "label", *(name for name in ("split", "domain") if name in cells)):
        if not cells[name]:
            raise InputError(f"{file}: line {line} has no {name}; fill it in or leave the row out")
    if "\0" in path:
        raise InputError(f"{file}: line {line}: the path {path!a:.60} holds a zero byte; repair it")
    for name in ("label", "domain"):
        if speaks_to_terminals(cells.get(name, "")):
            raise InputError(f"{file}: line {line}: the {name} {cells[name]!a:.40} cannot be printed; write another")
    split = SPLIT_OF.get(cells.get("split", "train").lower())
    if split is None:
        raise InputError(f"{file}: line {line}: unknown split {cells['split']!a:.40}; write train, val or test")
    found = _found(path, (root, file.parent))
    return _Row(line, found, cells["label"], split, cells.get("group") or None, cells.get("domain"))


def _found(name: str, folders: tuple[Path, ...]) -> str:
    """The file; of several or no candidates the first."""
    path = os.path.join(folders[0], name)
    if os.sep == "/" and "//" not in path and "./" not in path and os.path.isfile(path):  # `Path` would spell it so
        return path  # most are, and this takes a third of the time
    accents = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    spellings = dict.fromkeys((name, *accents, name.replace("\\", "/")))
    candidates = [folder / spelling for spelling in spellings for folder in dict.fromkeys(folders)]
    return str(next((path for path in candidates if path.is_file()), candidates[0]))


def _parted(rows: list[_Row]) -> tuple[str, ...]:
    """A line if the table itself parts groups."""
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.group is not None:
            splits[row.group].add(row.split)
    parted = [group for group, each in splits.items() if len(each) > 1]
    if not parted:
        return ()
    count = f"{len(parted):,} group{'s' * (len(parted) != 1)}"
    return (f"warning: the table itself has pictures of one group in two splits: of {count}, as of {parted[0]!r}",)
