"""The run folder: create, open, list, find."""

import errno
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prl_keras.errors import InputError
from prl_keras.files import patiently, write_json
from prl_keras.runs.names import check_new_name, name_taken
from prl_keras.runs.records import CONFIG, METRICS, RESULT, damaged, read_lines, read_record
from prl_keras.terminal import quoted, warn

_DAY = 86_400.0  # seconds
_SETTLED = 2.0  # seconds after which another write would show in a file's time; FAT counts in twos


@dataclass(frozen=True)
class Run:
    """A folder with config.json; finished when it has result.json."""

    path: Path
    _read: dict[str, tuple[Any, Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> dict[str, Any]:
        """Raises InputError if the file is damaged."""
        return self._record("config.json", read_record, CONFIG)

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
        """None while the run is unfinished. Raises InputError if the file is damaged."""
        return self._record("result.json", read_record, RESULT) if (self.path / "result.json").exists() else None

    @property
    def encoder_file(self) -> Path:
        return self.path / "encoder.keras"

    @property
    def classifier_file(self) -> Path:
        return self.path / "classifier.keras"

    @property
    def prototypes_file(self) -> Path:
        """What `teach` keeps; the run's encoder is beside it."""
        return self.path / "prototypes.npz"

    @property
    def predictions_file(self) -> Path:
        """Logits and labels of validation and test, for tables and tests without running again."""
        return self.path / "predictions.npz"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dict an epoch. Raises InputError if the file is damaged."""
        return self._record("metrics.jsonl", read_lines, METRICS) if (self.path / "metrics.jsonl").exists() else []

    def _record(self, name: str, read: Callable[..., Any], check: Any) -> Any:
        """What is in the file; read again only if it changed, or so lately that its time may not tell."""
        file, state, now = self.path / name, None, time.time()
        with suppress(OSError):
            stat = file.stat()
            state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if self._read.get(name, (None,))[0] == state:
                return self._read[name][1]
        content = read(file, check)
        if state and now - stat.st_mtime > _SETTLED:
            self._read[name] = state, content
        return content


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
            patiently(lambda: draft.rename(runs_dir / name))
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):  # another process was faster
            raise name_taken(runs_dir, name) from error
        raise InputError(f"cannot create run {name!r} in {runs_dir}: {error.strerror}") from error
    return Run(runs_dir / name)


def _created(runs_dir: Path) -> str:
    """Now, or right after the newest run if the clock was set back: "latest" is what came last."""
    now = datetime.now(UTC)
    with suppress(IndexError, ValueError, TypeError, OverflowError):  # no run, or no time
        newest = datetime.fromisoformat(list_runs(runs_dir)[-1].config["created"])
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


def list_runs(runs_dir: Path) -> list[Run]:
    """All runs whose config.json can be read, oldest first."""
    return scan_runs(runs_dir)[0]


def scan_runs(runs_dir: Path) -> tuple[list[Run], list[InputError]]:
    """The runs whose config.json can be read, oldest first, and what is wrong with the others."""
    created: dict[Run, str] = {}
    complaints = []
    for file in sorted(runs_dir.glob("*/config.json")) if runs_dir.is_dir() else ():
        if not file.parent.name.startswith("."):
            run = Run(file.parent)
            try:
                created[run] = run.config["created"]
            except InputError as error:
                complaints.append(error)
    return sorted(created, key=lambda run: (created[run], run.name)), complaints


def find_run(
    reference: str,
    runs_dir: Path,
    accept: Callable[[Run], bool] = lambda run: True,
    wanted: str = "run",
    make: str = "pretrain",
) -> Run:
    """The run that a name, a folder or "latest" refers to; damaged ones are passed over with a warning.

    Args:
        accept: which runs will do; `wanted` names them in messages, and `make` the command that makes one.

    Raises:
        InputError: no such run, or it will not do.
    """
    cure = f"make one with `python main.py {make}{in_folder(runs_dir)}`"
    if reference != "latest":
        for path in (runs_dir / reference, Path(reference)):
            if (path / "config.json").is_file():
                run = Run(path.resolve() if path.name in ("", ".", "..") else path)
                if not accept(run):
                    raise InputError(f"run {reference!r} is no {wanted}: {_instead(run) or cure}")
                return run
    newest, complaints = _newest(runs_dir, accept)
    if newest is None:
        unread = f" (passed over: {complaints[0]})" if complaints else ""
        nor = "" if reference == "latest" else f", nor a run {reference!r}"
        raise InputError(f"there is no {wanted} in {runs_dir} yet{nor}: {cure}{unread}")
    if reference != "latest":
        listed = f"`python main.py runs{in_folder(runs_dir)}`"
        raise InputError(f"no run {reference!r} in {runs_dir}: choose one that {listed} shows, its folder, or latest")
    for complaint in complaints:
        warn(f"{complaint} (passed over)")
    return newest


def _newest(runs_dir: Path, accept: Callable[[Run], bool]) -> tuple[Run | None, list[InputError]]:
    """The newest run that will do, and what is wrong with those that cannot be read."""
    runs, complaints = scan_runs(runs_dir)
    for run in reversed(runs):
        try:
            if accept(run):
                return run, complaints
        except InputError as error:
            complaints.append(error)
    return None, complaints


def _instead(run: Run) -> str | None:
    """What to do with a run that has not what is wanted; None: make another."""
    command = run.config.get("command")
    if run.result is None:
        return f"it is an unfinished {command} run; repeat the command that began it"
    if command == "tune":
        return f"it is a search; what it found is the run {run.name + '-winner'!r}"
    if command == "reproduce":
        return f"it is a table; `python main.py runs{in_folder(run.path)}` shows its runs"
    return None


def reference_to(run: Run, runs_dir: Path) -> str:
    """How a later command can name the run, whatever was typed: its name if it is in the folder, else its full path."""
    inside = (runs_dir / run.name).resolve() == run.path.resolve()
    return run.name if inside else str(run.path.absolute())


def in_folder(runs_dir: Path) -> str:
    """The words that make a command work on runs in this folder."""
    return "" if runs_dir == Path("saved_models") else f" --runs-dir {quoted([str(runs_dir)])}"


def is_finished(run: Run) -> bool:
    return run.result is not None


def has_encoder(run: Run) -> bool:
    return run.encoder_file.exists()


def is_kept(run: Run) -> bool:
    """An encoder as it was made elsewhere: nothing was trained."""
    return run.config.get("command") == "pretrain" and run.config.get("options", {}).get("epochs") == 0


def has_classifier(run: Run) -> bool:
    return run.classifier_file.exists()


def is_taught(run: Run) -> bool:
    return run.prototypes_file.exists()


def names_classes(run: Run) -> bool:
    """By a head, or by prototypes."""
    return has_classifier(run) or is_taught(run)


def gives_features(run: Run) -> bool:
    """A classifier has its encoder inside."""
    return has_encoder(run) or has_classifier(run)
