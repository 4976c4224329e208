"""`python main.py data`: what is on this machine; prepare or verify a data set; decoded images that are kept."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from prl_keras.config import typed
from prl_keras.data import Dataset, load_dataset
from prl_keras.data.cache import NOTHING, cache_of, clear, stores
from prl_keras.data.catalog import CATALOG, TFDS_PREFIX, is_ready
from prl_keras.data.duplicates import duplicates
from prl_keras.data.folder import UnreadableError
from prl_keras.data.litter import shown
from prl_keras.data.request import data_request
from prl_keras.data.rows import Rows
from prl_keras.data.stl10 import fold_indices, is_present, load_unlabelled
from prl_keras.errors import InputError
from prl_keras.screen.console import Terminal
from prl_keras.terminal import quoted

if TYPE_CHECKING:
    from prl_keras.config import Data

_MOST_CLASSES_SHOWN = 20


def run(options: Data) -> None:
    if options.action == "list":
        _list(options.data_dir)
        return
    if options.action == "cache":
        _cache(options)
        return
    request = data_request(options, options.seed)
    name, data_dir = request["name"], request["data_dir"]
    options = replace(options, data_dir=data_dir and Path(data_dir))  # none for the built-in set, if nobody named one
    if options.action == "verify" and not is_ready(name, options.data_dir):
        raise InputError(f"{name} is not prepared; type: {_command('data prepare', name, options)}")
    _verify(request)
    print(f"Next: {_command('pretrain --variant query', name, options)}")


def _list(data_dir: Path | None) -> None:
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


def _verify(request: dict[str, Any]) -> None:
    name, data_dir = request["name"], request["data_dir"]
    if name.startswith(TFDS_PREFIX) or name == "stl10":
        from prl_keras.startup import start_keras

        start_keras()  # tensorflow-datasets would import TensorFlow with all its noise
    try:
        dataset = load_dataset(**request)
    except UnreadableError as error:
        for path, reason in error.files:
            print(f"{shown(str(path))}: {reason}")
        raise
    _report(dataset)
    if name == "stl10" and data_dir and is_present(Path(data_dir)):
        _report_extras(Path(data_dir))


def _report(dataset: Dataset) -> None:
    print(f"{dataset.name}: images {' x '.join(map(str, dataset.image_shape))}, {dataset.num_classes} classes")
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    counts = {name: np.bincount(split.labels, minlength=dataset.num_classes) for name, split in splits.items()}
    for name, split in splits.items():
        low, high = counts[name].min(), counts[name].max()
        print(f"  {name:<11}{len(split):>7} images, {low if low == high else f'{low} to {high}'} a class")
    if dataset.num_classes <= _MOST_CLASSES_SHOWN:
        table = Table("class", *splits)
        for label, class_name in enumerate(dataset.class_names):
            table.add_row(Text(class_name), *(str(count[label]) for count in counts.values()))
        Terminal().print(table)
    else:
        print(f"  classes: {', '.join(dataset.class_names[:_MOST_CLASSES_SHOWN])}, ...")
    for name in dataset.skipped:
        print(f"left out: {name}")
    for split in splits.values():
        if isinstance(split.images, Rows):
            split.images.check()
    for line in (*dataset.notes, *(f"duplicates: {found}" for found in duplicates(dataset))):
        print(line)
    print(f"fingerprint {dataset.fingerprint}")


def _report_extras(data_dir: Path) -> None:
    try:
        print(f"unlabelled: {len(load_unlabelled(data_dir))} images")
        folds = fold_indices(data_dir)
        print(f"folds: {len(folds)} of {', '.join(sorted({str(len(fold)) for fold in folds}))} images")
    except InputError as error:  # neither is needed for the labelled images
        print(f"not usable: {error}")


def _command(command: str, name: str, options: Data) -> str:
    """The command to type, with every data option that was not left at its default."""
    words = ["python", "main.py", *command.split(), "--dataset", name]
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name not in ("action", "dataset") and value != field.default:
            words += [f"--{field.name.replace('_', '-')}", typed(value)]
    return quoted(words)
