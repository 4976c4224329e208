"""The run folder: create, open, list, and write into it atomically. Imports `errors` and `records`."""

import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

from prl_keras.errors import InputError
from prl_keras.records import CONFIG, METRICS, RESULT, damaged, read_lines, read_record

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DAY = 86_400.0  # seconds
_PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "keras-tuner",
    "tensorflow-datasets",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
)


@dataclass(frozen=True)
class Run:
    """A folder with config.json; finished when it has result.json."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> dict[str, Any]:
        """Raises InputError if the file is damaged."""
        return read_record(self.path / "config.json", CONFIG)

    def part(self, *names: str) -> Any:
        """A part of the config, such as "data", "request". Raises InputError if it is missing."""
        part: Any = self.config
        for name in names:
            if name not in part:
                raise damaged(self.path / "config.json", f"{'.'.join(names)} is missing")
            part = part[name]
        return part

    @property
    def result(self) -> dict[str, Any] | None:
        file = self.path / "result.json"
        return read_record(file, RESULT) if file.exists() else None

    @property
    def encoder_file(self) -> Path:
        return self.path / "encoder.keras"

    @property
    def classifier_file(self) -> Path:
        return self.path / "classifier.keras"

    @property
    def predictions_file(self) -> Path:
        """Logits and labels of validation and test, for tables and tests without running again."""
        return self.path / "predictions.npz"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dict an epoch. Raises InputError if the file is damaged."""
        file = self.path / "metrics.jsonl"
        return read_lines(file, METRICS) if file.exists() else []


def check_usable_name(name: str) -> None:
    """Raise InputError for a name that no run can have."""
    if not _NAME.fullmatch(name) or name == "latest":
        raise InputError(
            f"run name {name!r} is not usable: up to 100 letters, digits, '.', '_' and '-', "
            "starting with a letter or digit, and not 'latest'"
        )


def check_new_name(runs_dir: Path, name: str) -> None:
    """Raise InputError unless a run of this name can be created."""
    check_usable_name(name)
    if (runs_dir / name).exists():
        raise InputError(
            f"a run named {name!r} already exists in {runs_dir}: choose another --name, "
            "or continue it with --resume if it is unfinished"
        )


def usable(name: str) -> str:
    """What a run's name can keep of a text; perhaps nothing."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:80]


def free_name(runs_dir: Path, stem: str) -> str:
    """`stem`-1, or the first number that is free."""
    stem = usable(stem)
    number = 1
    while (runs_dir / f"{stem}-{number}").exists():
        number += 1
    return f"{stem}-{number}"


def create_run(runs_dir: Path, name: str, config: dict[str, Any]) -> Run:
    """Make the folder with its config.json in one step: a run folder without one is never seen.

    Raises:
        InputError: the name is taken or not usable, or the folder cannot be written.
    """
    check_new_name(runs_dir, name)
    config = {"created": _created(runs_dir), **config}
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(runs_dir)
        draft = Path(tempfile.mkdtemp(prefix=".new-", dir=runs_dir))
        try:
            draft.chmod(0o755)
            write_json(draft / "config.json", config)
            draft.rename(runs_dir / name)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except OSError as error:
        raise InputError(f"cannot create run {name!r} in {runs_dir}: {error.strerror}") from error
    return Run(runs_dir / name)


def _created(runs_dir: Path) -> str:
    """Now, or right after the newest run if the clock was set back: "latest" is what came last."""
    now = datetime.now(UTC)
    with suppress(IndexError, ValueError, TypeError, OverflowError):  # no run, or no time
        newest = datetime.fromisoformat(list_runs(runs_dir, skip_damaged=True)[-1].config["created"])
        now = max(now, newest + timedelta(microseconds=1))
    return now.isoformat(timespec="microseconds")


def _remove_leftovers(runs_dir: Path) -> None:
    """Of processes that were killed while they created a run, or between its result and its checkpoints' removal.

    A young draft may be at work, and gone a moment later.
    """
    for state in runs_dir.glob("*/checkpoint"):
        if (state.parent / "result.json").exists():
            shutil.rmtree(state, ignore_errors=True)
    for draft in runs_dir.glob(".new-*"):
        with suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > _DAY:
                shutil.rmtree(draft, ignore_errors=True)


def list_runs(runs_dir: Path, skip_damaged: bool = False) -> list[Run]:
    """All runs, oldest first.

    Raises:
        InputError: one's config.json is damaged, and those are not to be skipped.
    """
    files = runs_dir.glob("*/config.json") if runs_dir.is_dir() else ()
    created = {}
    for file in files:
        if not file.parent.name.startswith("."):
            with suppress(InputError) if skip_damaged else nullcontext():
                created[file.parent] = Run(file.parent).config["created"]
    return [Run(path) for path in sorted(created, key=lambda path: (created[path], path.name))]


def find_run(
    reference: str, runs_dir: Path, accept: Callable[[Run], bool] = lambda run: True, wanted: str = "run"
) -> Run:
    """The run that a name, a folder or "latest" refers to.

    Args:
        accept: which runs will do; `wanted` names them in messages.

    Raises:
        InputError: no such run, or it will not do.
    """
    if reference == "latest":
        accepted = [run for run in list_runs(runs_dir) if accept(run)]
        if not accepted:
            raise InputError(
                f"there is no {wanted} in {runs_dir} yet: make one with `python main.py pretrain` "
                "(see `python main.py runs`)"
            )
        return accepted[-1]
    for path in (runs_dir / reference, Path(reference)):
        if (path / "config.json").is_file():
            run = Run(path.resolve() if path.name in ("", ".", "..") else path)
            if not accept(run):
                raise InputError(f"run {reference!r} is no {wanted} (see `python main.py runs`)")
            return run
    raise InputError(
        f"no run {reference!r} in {runs_dir}: give a name from `python main.py runs`, a run's folder, or latest"
    )


def is_finished(run: Run) -> bool:
    return run.result is not None


def has_encoder(run: Run) -> bool:
    return run.encoder_file.exists()


def has_classifier(run: Run) -> bool:
    return run.classifier_file.exists()


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary sibling (same suffix) to write to; it replaces `target` only if all went well."""
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        error.filename = error.filename or str(target)  # of a full disk the system names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(target: Path, content: Any) -> None:
    """Atomic; paths become strings."""
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str, allow_nan=False) + "\n")


def package_versions() -> dict[str, str]:
    """Versions of what decides a result to the last bit: Python, packages, processors, and TensorFlow's kernels."""
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    versions = {"python": platform.python_version(), "processors": str(len(mine))}
    versions["oneDNN"] = "off" if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0" else "on"
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
