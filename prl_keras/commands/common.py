"""What several commands do: open the data, start or continue a run, print figures and the next step."""

import math
import shlex
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rich.console import Console
from rich.table import Table

from prl_keras import config as declared
from prl_keras.config import DataOptions, RunDataOptions, RunOptions
from prl_keras.data import Dataset, default_dataset, load_dataset
from prl_keras.errors import InputError
from prl_keras.locks import locked
from prl_keras.records import damaged, is_number, is_text, is_whole
from prl_keras.runs import (
    Run,
    check_new_name,
    check_usable_name,
    create_run,
    find_run,
    free_name,
    is_finished,
    list_runs,
    package_versions,
)
from prl_keras.startup import start_keras


class Terminal(Console):
    """Rich would end the process by itself when the reader of a pipe has gone."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # for `cli.main`


console = Terminal(highlight=False, markup=False, soft_wrap=True)


def data_request(options: DataOptions, seed: int) -> dict[str, Any]:
    """The arguments of `load_dataset` that the options ask for."""
    name = options.dataset
    if name is None:
        name, why = default_dataset(options.data_dir)
        console.print(why)
    return {
        "name": name,
        "data_dir": _absolute(options.data_dir),
        "seed": seed if options.split_seed is None else options.split_seed,
        "validation_fraction": options.validation_fraction,
        "samples_per_class": options.samples_per_class,
        "test_per_class": options.test_per_class,
        "image_size": options.image_size,
        "fold": options.fold,
    }


def data_request_of_run(run: Run, options: RunDataOptions) -> dict[str, Any]:
    """The run's own data, changed where the options say so; its validation images stay validation images."""
    request = dict(run.part("data")["request"])
    if options.dataset is not None and options.dataset != request["name"]:
        request |= {"name": options.dataset, "data_dir": None, "fold": None}
        request |= {"samples_per_class": None, "test_per_class": None, "image_size": None}
    for key in ("samples_per_class", "test_per_class", "image_size"):
        if getattr(options, key) is not None:
            request[key] = getattr(options, key)
    if options.data_dir is not None:
        request["data_dir"] = _absolute(options.data_dir)
    return request


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().absolute())


def open_data(request: dict[str, Any], run: Run | None = None) -> Dataset:
    """Load, say what it is, and make sure that the data of a run did not change since."""
    if request["name"] == "stl10" or request["name"].startswith("tfds:"):
        start_keras()  # tensorflow-datasets would import TensorFlow with all its noise
    dataset = load_dataset(**request)
    height, width, _ = dataset.image_shape
    console.print(
        f"Data: {dataset.name}, {dataset.num_classes} classes, {height}x{width} px, "
        f"{len(dataset.train):,} train / {len(dataset.validation):,} validation / {len(dataset.test):,} test"
    )
    if run and request == run.part("data")["request"]:
        recorded = run.part("data")["fingerprint"]
        if recorded != dataset.fingerprint:
            raise InputError(
                f"the images of {dataset.name} are not those that run {run.name!r} was trained on "
                f"(fingerprint {dataset.fingerprint[:12]}, recorded {recorded[:12]}): restore them, or train anew"
            )
    return dataset


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


def run_config(
    command: str, options: Any, left_out: Collection[str], request: dict[str, Any], dataset: Dataset
) -> dict[str, Any]:
    """What config.json says: the command, its options but for those left out, the data, versions."""
    return {
        "command": command,
        "options": {key: value for key, value in asdict(options).items() if key not in left_out},
        "data": {
            "request": request,
            "fingerprint": dataset.fingerprint,
            "class_names": list(dataset.class_names),
            "image_shape": list(dataset.image_shape),
        },
        "versions": package_versions(),
    }


def start_run(
    command: str,
    options: RunOptions,
    stem: str,
    request: dict[str, Any],
    dataset: Dataset,
    inputs: dict[str, str] | None = None,
) -> Run:
    """Create the run's folder, or find the unfinished one that is to be continued and check that it is the same run.

    Args:
        inputs: hashes of what else is trained on or from, such as the encoder of a fine-tuning.
    """
    elsewhere = {"resume", "name", "runs_dir", "checkpoint_steps"} | {field.name for field in fields(DataOptions)}
    config = run_config(command, options, elsewhere, request, dataset)
    config["data"] |= inputs or {}
    run = to_continue(command, options) or _repeated(config, options)
    if run is None:
        name = options.name or free_name(options.runs_dir, stem)
        return create_run(options.runs_dir, name, config)
    check_same(run, config)
    warn_of_versions(run, config["versions"])
    return run


def _repeated(config: dict[str, Any], options: RunOptions) -> Run | None:
    """The newest unfinished run of just this command, if nobody works on it."""
    if options.name is not None or config["command"] == "tune":  # a search names itself
        return None
    for run in reversed(list_runs(options.runs_dir, skip_damaged=True)):
        with suppress(InputError):
            if run.config.get("command") == config["command"] and not is_finished(run):
                check_same(run, config)
                with locked(run):
                    return run
    return None


def check_name(command: str, options: RunOptions) -> None:
    """Refuse a taken or unusable name before any work is done."""
    if options.name is not None and to_continue(command, options) is None:
        check_new_name(options.runs_dir, options.name)


def to_continue(command: str, options: RunOptions) -> Run | None:
    """The unfinished run that --resume, or the same command with the same --name, continues; None: a new one."""
    if options.name is not None:
        check_usable_name(options.name)
    if options.resume:
        return unfinished_run(command, options)
    if not options.name or command == "tune":  # a search may be at work in several processes: only --resume
        return None
    run = Run(options.runs_dir / options.name)
    if not (run.path / "config.json").is_file() or is_finished(run) or run.config.get("command") != command:
        return None
    return run


def recorded_options(run: Run, kind: type[RunOptions]) -> Any:
    """The run's options as `kind`, the dataclass of its command.

    Raises:
        InputError: the run's config.json has others, or values of other types.
    """
    hints, recorded = get_type_hints(kind), run.part("options")
    for name, value in recorded.items():
        if name not in hints or not _fits(value, hints[name]):
            raise damaged(run.path / "config.json", f"options.{name} is {value!a:.40}")
    return kind(**recorded)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of the type that an option declares."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        return isinstance(value, list) and all(_fits(each, inner[0]) for each in value)
    if inner:  # A | B
        return any(_fits(value, each) for each in inner)
    checks = {float: is_number, int: is_whole, str: is_text, Path: is_text}
    return checks[hint](value) if hint in checks else isinstance(value, hint)


def warn_of_versions(run: Run, versions: dict[str, str]) -> None:
    old = run.part("versions")
    for package in sorted(old):
        if old[package] != versions.get(package):
            console.print(
                f"warning: run {run.name} was started with {package} {old[package]}, this is "
                f"{versions.get(package, '(none)')}: the result may differ from that of an uninterrupted run"
            )


def unfinished_run(command: str, options: RunOptions) -> Run:
    run = find_run(
        "latest" if options.name is None else str((options.runs_dir / options.name).absolute()),
        options.runs_dir,
        lambda run: run.config.get("command") == command and (options.name is not None or not is_finished(run)),
        f"unfinished {command} run",
    )
    if is_finished(run):
        raise InputError(f"run {run.name!r} is finished; nothing to resume")
    return run


def check_same(run: Run, config: dict[str, Any], may_differ: Sequence[str] = ()) -> None:
    """A resumed run with other options would be neither the old run nor the new one.

    An option that did not exist when the run began had its default.

    Raises:
        InputError: an option or something about the data differs; names it and both values.
    """
    defaults = {"options": _defaults(config["command"]), "request": {}, "data": {}}
    for part, default in defaults.items():
        if part == "request":
            old, new = run.part("data")[part], config["data"][part]
        else:
            old, new = run.part(part), config[part]
        for key in {**old, **new}:
            if key in may_differ or key == "request":  # the request is a part of its own
                continue
            was = old.get(key, default.get(key))
            if was != _as_json(new.get(key)):
                raise InputError(
                    f"run {run.name!r} was started with {key} = {was}, not {new.get(key)}: "
                    "resume it with the same options, or start a new run"
                )


def _defaults(command: str) -> dict[str, Any]:
    """The class of a command's options has its name."""
    return {field.name: _as_json(field.default) for field in fields(getattr(declared, command.capitalize()))}


def _as_json(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def percent(figure: dict[str, Any]) -> str:
    return f"{100 * figure['value']:.1f} %"


def accuracy_table(title: str, rows: dict[str, dict[str, Any]], extra: dict[str, str] | None = None) -> Table:
    """Rows of `statistics.accuracy` results: value, 95 % interval, n."""
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for column in ("accuracy", "95 % interval", "correct / n"):
        table.add_column(column, justify="right")
    if extra:
        table.add_column("chosen on validation")
    for name, figure in rows.items():
        cells = [
            name,
            percent(figure),
            f"{100 * figure['low']:.1f} - {100 * figure['high']:.1f}",
            f"{figure['correct']:,} / {figure['n']:,}",
        ]
        table.add_row(*cells, *([extra.get(name, "")] if extra else []))
    return table


def print_end(written: list[Path], next_commands: list[str]) -> None:
    """What was written where, and what to type next; the last line is a command."""
    for path in written:
        console.print(f"wrote {path}")
    console.print("Next:")
    for command in next_commands:
        console.print(f"  {command}")


def run_argument(run: Run, runs_dir: Path) -> str:
    """How to name the run on the next command line."""
    suffix = "" if runs_dir == Path("saved_models") else f" --runs-dir {shlex.quote(str(runs_dir))}"
    return f"{run.name}{suffix}"


def tensorboard_command(folder: Path) -> str:
    """Shown to this machine only: TensorBoard has no password."""
    return f"python -m tensorboard.main --logdir {shlex.quote(str(folder))} --host localhost"
