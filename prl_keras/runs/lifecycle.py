"""The run that a command works on: a new one, or the unfinished one that it continues if all is the same."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any

from prl_keras.config import DataOptions, RunOptions, unused_options
from prl_keras.data import Dataset, resolved
from prl_keras.data.request import WHERE
from prl_keras.data.splits import dataset_label
from prl_keras.errors import InputError
from prl_keras.runs import Run, create_run, find_run, is_finished, list_runs
from prl_keras.runs.locks import locked
from prl_keras.runs.names import check_new_name, check_usable_name, free_name
from prl_keras.runs.recorded import as_json, as_resolved
from prl_keras.runs.versions import package_versions
from prl_keras.screen.console import console

HASHED = {  # in a record -> the options that then only say where it lies
    "encoder_sha256": ("encoder",),
    "init_sha256": ("init", "weights"),
    "unlabelled_sha256": ("unlabelled",),
}
NOT_RECORDED = ("resume", "name", "runs_dir", "verbose", "track")  # options that decide nothing about a run's result


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
            "order": dataset.order,
            "bits": dataset.bits,
            **({"skipped": list(dataset.skipped)} if dataset.skipped else {}),
            **({"held_out": list(dataset.held_out)} if dataset.held_out else {}),
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
    config = deciding(command, options, request, dataset, inputs)
    run = to_continue(command, options) or _repeated(config, options)
    if run is None:
        name = options.name or free_name(options.runs_dir, stem)
        return create_run(options.runs_dir, name, config)
    check_same(run, config)
    warn_of_versions(run, config["versions"])
    return run


def deciding(
    command: str, options: RunOptions, request: dict[str, Any], dataset: Dataset, inputs: dict[str, str] | None = None
) -> dict[str, Any]:
    """The `run_config` of a training: the options that decide its result; see `start_run`."""
    elsewhere = {*NOT_RECORDED, "checkpoint_steps", *(field.name for field in fields(DataOptions))}
    config = run_config(command, options, elsewhere, request, dataset)
    config["data"] |= inputs or {}
    return config


def _repeated(config: dict[str, Any], options: RunOptions) -> Run | None:
    """The newest unfinished run of just this command, if nobody works on it."""
    if options.name is not None or config["command"] == "tune":  # a search names itself
        return None
    for run in reversed(list_runs(options.runs_dir)):
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
        check_usable_name(options.name, new=False)
    if options.resume:
        return unfinished_run(command, options)
    if not options.name or command == "tune":  # a search may be at work in several processes: only --resume
        return None
    run = Run(options.runs_dir / options.name)
    if not (run.path / "config.json").is_file() or is_finished(run) or run.config.get("command") != command:
        return None
    return run


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
        make=command,
    )
    if is_finished(run):
        raise InputError(f"run {run.name!r} is finished; nothing to resume")
    return run


def check_same(run: Run, config: dict[str, Any], may_differ: Sequence[str] = ()) -> None:
    """A resumed run with other options would be neither the old run nor the new one.

    An option that did not exist when the run began had its default. Data are the same if their images and their
    splits are, wherever they lie and however they were asked for; so are unlabelled images, and an encoder if its
    weights are. How many devices share the training is no part of it, as the figures are those of one (but for
    statistics that each has by itself).

    Raises:
        InputError: an option or something about the data differs; names it and both values.
    """
    may_differ = {*may_differ, *unused_options(config["command"], config["options"])}
    old, new = run.part("data"), config["data"]
    for digest, options in HASHED.items():
        if new.get(digest) is not None and new[digest] == old.get(digest):
            may_differ |= set(options)
    recorded = run.part("options")
    if not (recorded.get("local_batch_norm") or config["options"].get("local_batch_norm")):
        may_differ |= {"strategy"}
    was = as_resolved(config["command"], recorded)
    was = {name: value for name, value in was.items() if name in recorded or name in config["options"]}
    _compare(run, was, config["options"], may_differ)
    if old["fingerprint"] != new["fingerprint"]:
        _compare(run, old["request"], new["request"], WHERE)
        asked_for = (dataset_label(resolved(old["request"]["name"])), dataset_label(new["request"]["name"]))
        raise InputError(
            f"the images of {asked_for[1]} are not those that run {run.name!r} was started with"
            f"{'' if asked_for[0] == asked_for[1] else f' ({asked_for[0]})'}: restore them, or start a new run"
        )
    if old.get("order", "file") != new.get("order", "file"):
        raise InputError(
            f"run {run.name!r} was begun by an older version, which read these images in another order: start a new run"
        )
    _compare(run, old, new, ("request", "order", "bits"))


def _compare(run: Run, old: dict[str, Any], new: dict[str, Any], may_differ: Collection[str]) -> None:
    for key in {**old, **new}:
        was = old.get(key)
        if key not in may_differ and was != as_json(new.get(key)):
            raise InputError(
                f"run {run.name!r} was started with {key} = {was}, not {new.get(key)}: "
                "resume it with the same options, or start a new run"
            )
