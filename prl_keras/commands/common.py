"""What several commands do: open the data, print figures and the next step."""

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prl_keras.config import DataOptions, RunDataOptions
from prl_keras.data import Dataset, default_dataset, load_dataset, resolved
from prl_keras.data.catalog import is_folder, takes_data_dir
from prl_keras.data.seen import count_seen
from prl_keras.data.splits import dataset_label
from prl_keras.errors import InputError
from prl_keras.runs import Run, find_run, has_encoder, in_folder, reference_to, usable
from prl_keras.startup import start_keras
from prl_keras.terminal import quoted


class Terminal(Console):
    """Shows a text as it is: no markup, no names of emoji."""

    def __init__(self, **kwargs: Any):
        super().__init__(**{"highlight": False, "markup": False, "emoji": False} | kwargs)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # for `cli.main`; Rich would end the process


console = Terminal(soft_wrap=True)
WHERE = ("name", "data_dir")  # of a request: where the images are, not which


def data_request(options: DataOptions, seed: int) -> dict[str, Any]:
    """The arguments of `load_dataset` that the options ask for.

    Raises:
        InputError: `--data-dir` for a data set that has its files elsewhere.
    """
    name, data_dir = options.dataset, _absolute(options.data_dir)
    if name is None:
        name, why = default_dataset(options.data_dir)
        console.print(why)
        data_dir = data_dir if takes_data_dir(name) else None
    name = resolved(name)
    _check_data_dir(name, data_dir)
    return {
        "name": name,
        "data_dir": data_dir,
        "seed": seed if options.split_seed is None else options.split_seed,
        "validation_fraction": options.validation_fraction,
        "samples_per_class": options.samples_per_class,
        "test_per_class": options.test_per_class,
        "image_size": options.image_size,
        "fold": options.fold,
    }


def data_request_of_run(run: Run, options: RunDataOptions) -> dict[str, Any]:
    """The run's own data, changed where the options say so; its validation images stay validation images.

    Another data set is taken whole, unless it is a copy of the run's own that lies elsewhere.
    """
    request = dict(run.part("data")["request"])
    request["name"] = resolved(request["name"])
    if options.dataset is not None and resolved(options.dataset) != request["name"]:
        request |= {"name": resolved(options.dataset), "data_dir": None}
        whole = dict.fromkeys(("fold", "samples_per_class", "test_per_class", "image_size"))
        if whole.items() - request.items() and not _is_copy(request, run):
            request |= whole
    for key in ("samples_per_class", "test_per_class", "image_size"):
        if getattr(options, key) is not None:
            request[key] = getattr(options, key)
    if options.data_dir is not None:
        request["data_dir"] = _absolute(options.data_dir)
        _check_data_dir(request["name"], request["data_dir"])
    return request


def data_words(options: RunDataOptions) -> str:
    """What makes the next command work on the data that were given, which the run itself does not name."""
    given = {field.name: getattr(options, field.name) for field in fields(RunDataOptions)}
    words = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items() if value is not None]
    return "".join(f" {quoted(pair)}" for pair in words)


def _is_copy(request: dict[str, Any], run: Run) -> bool:
    """Whether the request gives just the images that the run was trained on."""
    with suppress(InputError):
        return load_dataset(**request).fingerprint == run.part("data")["fingerprint"]
    return False


def _absolute(path: Path | None) -> str | None:
    return None if path is None else os.path.abspath(path.expanduser())


def _check_data_dir(name: str, data_dir: str | None) -> None:
    if data_dir is not None and not takes_data_dir(name):
        raise InputError(f"--data-dir {data_dir}: {dataset_label(name)} does not use it; leave it out")


def open_data(request: dict[str, Any], run: Run | None = None) -> Dataset:
    """Load, say what it is, and make sure that the data of a run did not change since."""
    if request["name"] == "stl10" or request["name"].startswith("tfds:"):
        start_keras()  # tensorflow-datasets would import TensorFlow with all its noise
    if run is not None:
        _check_still_there(request, run)
    dataset = load_dataset(**request)
    height, width, _ = dataset.image_shape
    console.print(
        f"Data: {dataset.label}, {dataset.num_classes} classes, {height}x{width} px, "
        f"{len(dataset.train):,} train / {len(dataset.validation):,} validation / {len(dataset.test):,} test"
    )
    for note in dataset.notes:
        console.print(note)
    if run is not None:
        _check_unchanged(request, run, dataset)
    return dataset


def _check_still_there(request: dict[str, Any], run: Run) -> None:
    """Raise InputError if the folder that the run's own data were read from is gone."""
    own = run.part("data")["request"]
    if is_folder(request["name"]):
        flag, place, recorded = "--dataset", request["name"], resolved(own["name"])
    else:
        flag, place, recorded = "--data-dir", request.get("data_dir"), own.get("data_dir")
    if place is not None and place == recorded and not Path(place).is_dir():
        raise InputError(
            f"{place}: no such folder, but the images of run {run.name!r} were there: if they were moved, "
            f"add {flag} NEWPATH"
        )


def _check_unchanged(request: dict[str, Any], run: Run, dataset: Dataset) -> None:
    """Raise InputError if what was asked for as the run's own data has other images now, or others another white."""
    bits = run.part("data").get("bits")
    if None not in (bits, dataset.bits) and bits != dataset.bits:
        raise InputError(
            f"the images of {dataset.label} use {dataset.bits} bits a value, those of run {run.name!r} {bits}: "
            "one white would be another; convert them to 8 bits"
        )
    own, recorded = run.part("data")["request"], run.part("data")["fingerprint"]
    asked_for_own = resolved(own["name"]) == request["name"] and all(
        own.get(key) == value for key, value in request.items() if key not in WHERE
    )
    if asked_for_own and recorded != dataset.fingerprint:
        moved = "add --dataset NEWPATH if they were moved, " if is_folder(request["name"]) else ""
        raise InputError(
            f"the images of {dataset.label} are not those that run {run.name!r} was trained on "
            f"(fingerprint {dataset.fingerprint[:12]}, recorded {recorded[:12]}): restore them, {moved}or train anew"
        )


def warn_of_seen(run: Run, dataset: Dataset) -> dict[str, int] | None:
    """Say how many validation and test images the run was trained on; the numbers, or None if it kept no record."""
    seen = count_seen(run, dataset)
    if seen is None:
        if run.part("data")["fingerprint"] != dataset.fingerprint:
            console.print(
                f"warning: run {run.name} kept no record of its training images: whether it has seen some of the "
                f"validation and test images of {dataset.label} is not known"
            )
        return None
    if not any(seen.values()):
        return seen
    totals = {"validation": len(dataset.validation), "test": len(dataset.test)}
    counts = " and ".join(f"{seen[split]:,} of {totals[split]:,} {split} images" for split in seen if seen[split])
    console.print(f"warning: run {run.name} was trained on {counts}: figures on these are not of new images")
    return seen


def file_suffix(run: Run, dataset: Dataset) -> str:
    """Behind the names of what a command makes of a run: nothing for its own data, else which other data it was."""
    if dataset.fingerprint == run.part("data")["fingerprint"]:
        return ""
    return f"-{usable(dataset.label)[:40] or 'data'}-{dataset.fingerprint[:6]}"


def check_training(options: Any, images: int, whole_batches: bool) -> None:
    """Raise InputError for numbers that no training can use."""
    if options.epochs < 1:
        raise InputError(f"--epochs is {options.epochs}; expected at least 1")
    if options.batch_size < 2:
        raise InputError(f"--batch-size is {options.batch_size}; expected at least 2")
    if not 0 < options.learning_rate < float("inf"):
        raise InputError(f"--learning-rate is {options.learning_rate}; expected a number above 0")
    if not 0 <= options.seed < 2**32:
        raise InputError(f"--seed is {options.seed}; expected a whole number from 0 to {2**32 - 1}")
    if options.checkpoint_steps is not None and options.checkpoint_steps < 1:
        raise InputError(f"--checkpoint-steps is {options.checkpoint_steps}; expected at least 1")
    for name, value in vars(options).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"--{name.replace('_', '-')} is {value}; expected a finite number")
    if whole_batches and options.batch_size > images:
        raise InputError(
            f"--batch-size {options.batch_size} is larger than the {images} training images: "
            f"use --batch-size {images} or less"
        )


def percent(figure: dict[str, Any]) -> str:
    return f"{100 * figure['value']:.1f} %"


def accuracy_table(title: str, rows: dict[str, dict[str, Any]], class_names: Sequence[str]) -> Table:
    """Rows of `statistics.accuracy` results: value, 95 % interval, n, and the class with the lowest recall.

    Balanced accuracy has a column unless it is the accuracy everywhere, as in classes of one size.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    balanced = any(not is_balanced(figure) for figure in rows.values())
    for column in ("accuracy", "95 % interval", "correct / n", *(["balanced"] if balanced else [])):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("worst class", overflow="fold")
    for name, figure in rows.items():
        cells = [percent(figure), percent_interval(figure), f"{figure['correct']:,} / {figure['n']:,}"]
        cells += [f"{100 * figure['balanced']:.1f} %"] if balanced else []
        table.add_row(name, *cells, Text(worst_class(figure, class_names)))  # Text: a name is no markup
    return table


def is_balanced(figure: dict[str, Any]) -> bool:
    """Whether balanced accuracy is the accuracy, or unknown: records of older versions have none."""
    return math.isclose(figure.get("balanced", figure["value"]), figure["value"], abs_tol=1e-9)


def in_words(figure: dict[str, Any], class_names: Sequence[str]) -> str:
    """A `statistics.accuracy` within a sentence, with what it may hide."""
    words = [percent(figure)]
    words += [] if is_balanced(figure) else [f"balanced {100 * figure['balanced']:.1f} %"]
    worst = worst_class(figure, class_names)
    return ", ".join([*words, f"worst class {worst}"] if worst else words)


def worst_class(figure: dict[str, Any], class_names: Sequence[str]) -> str:
    """Of a `statistics.accuracy`; empty where all classes are equal, and for a record of an older version."""
    worst = figure.get("worst")
    if not worst or worst["value"] >= figure["balanced"] - 1e-9:
        return ""
    number = worst["class"]
    return f"{percent(worst)} {class_names[number] if 0 <= number < len(class_names) else number}"


def percent_interval(figure: dict[str, Any]) -> str:
    return f"{100 * figure['low']:.1f} - {100 * figure['high']:.1f}"


def print_end(written: list[Path], next_commands: list[str]) -> None:
    """What was written where, and what to type next; the last line is a command."""
    for path in written:
        console.print(f"wrote {path}")
    console.print("Next:")
    for command in next_commands:
        console.print(f"  {command}")


def run_argument(run: Run, runs_dir: Path) -> str:
    """How to name the run on the next command line, which works on the same runs' folder."""
    return f"{quoted([reference_to(run, runs_dir)])}{in_folder(runs_dir)}"


def source_run(run: Run) -> Run:
    """The run that a fine-tuned one has its encoder from; it is named as seen from the folder that it was made in.

    Raises:
        InputError: it is not there any more.
    """
    return find_run(run.result["encoder_run"], run.path.absolute().parent, has_encoder, "pre-trained encoder")


def tensorboard_command(folder: Path) -> str:
    """Shown to this machine only: TensorBoard has no password."""
    return f"python -m tensorboard.main --logdir {quoted([str(folder)])} --host localhost"
