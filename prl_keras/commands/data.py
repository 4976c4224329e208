"""`python main.py data`: what is on this machine; prepare or verify a data set; decoded images that are kept."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from prl_keras.commands import verify
from prl_keras.config import option_words
from prl_keras.data.cache import NOTHING, cache_of, clear, stores
from prl_keras.data.catalog import CATALOG, is_ready
from prl_keras.data.layout import UNLABELLED
from prl_keras.data.request import data_request
from prl_keras.data.verify import Report
from prl_keras.errors import InputError
from prl_keras.screen.console import Terminal, console
from prl_keras.terminal import quoted

if TYPE_CHECKING:
    from prl_keras.config import Data

_NOT_OF_DATA = ("action", "path", "dataset", "json")  # of the options: what the next command does not take


def run(options: Data) -> int:
    """The exit code: 1 if `verify` found what would spoil a result."""
    options = _with_dataset(options)
    if options.action in ("list", "cache"):
        (_list if options.action == "list" else _cache)(options)
        return 0
    if options.json is not None:
        verify.check_target(options.json)
    request = data_request(options, options.seed)
    name, data_dir = request["name"], request["data_dir"]
    options = replace(options, data_dir=data_dir and Path(data_dir))  # none for the built-in set, if nobody named one
    if options.action == "verify" and not is_ready(name, options.data_dir):
        raise InputError(f"{name} is not prepared; type: {_command('data prepare', name, options)}")
    report = verify.run(request, options.json)
    console.print(_next(report, name, options))
    return int(options.action == "verify" and bool(report.spoilt))


def _with_dataset(options: Data) -> Data:
    """With `data verify PATH` as `data verify --dataset PATH`."""
    if options.path is None:
        return options
    if options.action in ("list", "cache"):
        raise InputError(f"{options.path} does nothing with {options.action}: leave it out")
    if options.dataset is not None:
        raise InputError(f"{options.path} and --dataset {options.dataset}: name one data set")
    return replace(options, dataset=options.path)


def _next(report: Report, name: str, options: Data) -> str:
    """The last line: what to type, after what has to be done first."""
    kinds = {finding.kind for finding in report.spoilt}
    if kinds - {"unreadable"} or report.dataset is None:
        return f"Next: repair what spoils results, then {_command('data verify', name, options)}"
    pretrain = f"pretrain --variant {'simclr' if report.dataset.class_names == UNLABELLED else 'query'}"
    if not kinds:
        return f"Next: {_command(pretrain, name, options)}"
    return f"Next: repair these files, or without them: {_command(pretrain, name, replace(options, damaged='skip'))}"


def _list(options: Data) -> None:
    data_dir = options.data_dir
    table = Table(title=Text(f"Data sets in {data_dir}" if data_dir else "Data sets"), show_lines=True)
    for heading in ("name", "what it is", "ready", "how to get it"):
        table.add_column(heading, no_wrap=heading == "name", overflow="fold")
    for name, entry in CATALOG.items():
        ready = "yes" if entry.is_ready(data_dir) else "no"
        table.add_row(name, entry.summary, ready, entry.how_to_get)
    table.add_row("tfds:NAME", "any image classification set of tensorflow-datasets", "-", "downloaded when used")
    table.add_row("PATH", "a folder of pictures: <class>/*, or train/<class>/* and test/<class>/*", "-", "your own")
    Terminal().print(table)


def _cache(options: Data) -> None:
    folder = cache_of(options.cache_dir).folder
    if folder is None:
        raise InputError(f"--cache-dir {NOTHING} keeps no images: name a folder, or leave it out")
    if options.clear is not None:
        removed = clear(folder, options.clear)
        print(f"removed {len(removed)} from {folder}: {sum(kept.size for kept in removed) / 1e6:,.1f} MB")
        return
    found = stores(folder)
    table = Table(title=Text(f"Decoded images in {folder}"))
    for heading in ("name", "of", "images", "size", "MB", "last used"):
        justify = "right" if heading in ("images", "MB") else "left"
        table.add_column(heading, no_wrap=heading == "name", overflow="fold", justify=justify)
    for kept in found:
        shape = "" if kept.shape is None else "x".join(map(str, kept.shape[:2]))
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(kept.used))
        count = f"{kept.count:,}" if kept.shape else "?"
        table.add_row(kept.name, Text(kept.source), count, shape, f"{kept.size / 1e6:,.1f}", used)
    Terminal().print(table)
    print(f"{len(found)} in all, {sum(kept.size for kept in found) / 1e6:,.1f} MB")


def _command(command: str, name: str, options: Data) -> str:
    """The command to type, with every data option that was not left at its default."""
    words = ["python", "main.py", *command.split(), "--dataset", name]
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name not in _NOT_OF_DATA and value != field.default:
            words += option_words(field.name, value)
    return quoted(words)
