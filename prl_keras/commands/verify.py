"""What `python main.py data verify` prints and writes; `data/verify.py` finds it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from prl_keras.data import Dataset
from prl_keras.data.catalog import TFDS_PREFIX
from prl_keras.data.checks import Finding
from prl_keras.data.layout import UNLABELLED
from prl_keras.data.stl10 import fold_indices, is_present, load_unlabelled
from prl_keras.data.verify import Report, examined
from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.screen.console import Terminal

_MADE_BY = "prl-keras data verify"
_MOST_CLASSES_SHOWN = 20
_WORDS = {"spoils": "SPOILS RESULTS", "look": "worth a look"}


def run(request: dict[str, Any], file: Path | None) -> Report:
    """Verify the data set of `load_dataset`'s arguments; print what was found, and write it."""
    name, data_dir = request["name"], request["data_dir"]
    if name.startswith(TFDS_PREFIX) or name == "stl10":
        from prl_keras.startup import start_keras

        start_keras()  # tensorflow-datasets would import TensorFlow with all its noise
    report = examined(request)
    counts = {} if report.dataset is None else _counts(report.dataset)
    if report.dataset is not None:
        _print_dataset(report.dataset, counts)
    for finding in report.findings:
        _print_finding(finding, name)
    if report.passed:
        print(f"nothing found: {', '.join(report.passed)}")
    print(f"fingerprint {report.dataset.fingerprint}" if report.dataset else report.problem)
    if name == "stl10" and data_dir and is_present(Path(data_dir)):
        _print_extras(Path(data_dir))
    if file is not None:
        write_json(file, _record(name, report, counts))
        print(f"wrote {file}")
    return report


def check_target(file: Path) -> None:
    """Raise InputError, before anything is read, if the findings cannot be written there."""
    if not file.parent.is_dir():
        raise InputError(f"--json {file}: there is no folder {file.parent}; make it first")
    if not file.exists() and not file.is_symlink():
        return
    try:
        own = json.loads(file.read_bytes())["made_by"] == _MADE_BY
    except (OSError, ValueError, KeyError, TypeError):
        own = False
    if not own:
        raise InputError(f"{file} is there already: move it away, or choose another --json")


def _counts(dataset: Dataset) -> dict[str, np.ndarray]:
    """Split -> (classes,) images."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: np.bincount(split.labels, minlength=dataset.num_classes) for name, split in splits.items()}


def _print_dataset(dataset: Dataset, counts: dict[str, np.ndarray]) -> None:
    classes = "no classes" if dataset.class_names == UNLABELLED else f"{dataset.num_classes} classes"
    print(f"{dataset.name}: images {' x '.join(map(str, dataset.image_shape))}, {classes}")
    for name, count in counts.items():
        low, high = count.min(), count.max()
        print(f"  {name:<11}{count.sum():>7} images, {low if low == high else f'{low} to {high}'} a class")
    if dataset.num_classes <= _MOST_CLASSES_SHOWN:
        table = Table("class", *counts)
        for label, class_name in enumerate(dataset.class_names):
            table.add_row(Text(class_name), *(str(count[label]) for count in counts.values()))
        Terminal().print(table)
    else:
        print(f"  classes: {', '.join(dataset.class_names[:_MOST_CLASSES_SHOWN])}, ...")
    for note in dataset.notes:
        print(note)


def _print_finding(finding: Finding, root: str) -> None:
    print(f"{_WORDS[finding.severity]}: {finding.line}")
    for example in finding.examples if finding.kind == "unreadable" else ():  # all: each has to be seen to
        print(f"  {Path(root, example['image'])}: {example['reason']}")


def _print_extras(data_dir: Path) -> None:
    try:
        print(f"unlabelled: {len(load_unlabelled(data_dir))} images")
        folds = fold_indices(data_dir)
        print(f"folds: {len(folds)} of {', '.join(sorted({str(len(fold)) for fold in folds}))} images")
    except InputError as error:  # neither is needed for the labelled images
        print(f"not usable: {error}")


def _record(name: str, report: Report, counts: dict[str, np.ndarray]) -> dict[str, Any]:
    """JSON; fields of the data set are null where too little could be read for one."""
    dataset = report.dataset
    classes = [] if dataset is None else dataset.class_names
    return {
        "made_by": _MADE_BY,
        "dataset": name,
        "fingerprint": dataset and dataset.fingerprint,
        "image_shape": dataset and dataset.image_shape,
        "classes": {
            each: {split: int(count[label]) for split, count in counts.items()} for label, each in enumerate(classes)
        },
        "notes": [] if dataset is None else dataset.notes,
        "spoilt": bool(report.spoilt),
        "findings": [asdict(finding) for finding in report.findings],
        "nothing_found": report.passed,
    }
