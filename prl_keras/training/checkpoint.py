"""A training's complete state in one file: weights, optimizer slots, metrics, random generators, epoch.

`.keras` files leave out the states of random generators (Dropout, augmentation), so a resumed training
would differ; this file has every variable.
"""

import hashlib
import json
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np

from prl_keras.errors import InputError
from prl_keras.files import atomic_path
from prl_keras.runs import Run

KEEP = 2
EDITION = 2  # 1: validation after every epoch of many, small shifts and squares of large images


@dataclass(frozen=True, eq=False)
class Position:
    """Complete epochs, steps of the next one, its metrics and the seconds of its steps so far.

    steps_per_epoch: of the training that left the checkpoint; None in those of the first version, which took a step
    for every last batch, however small.
    average_every: steps from one to the next whose weights the moving average takes in.
    edition: of what a training computes beyond that; see `fit`, which tells what it may not continue.
    """

    epoch: int = 0
    step: int = 0
    metrics: tuple[np.ndarray, ...] = ()
    seconds: float = 0.0
    steps_per_epoch: int | None = None
    average_every: int = 1
    edition: int = EDITION


class _DamagedError(Exception):
    pass


@dataclass(frozen=True, eq=False)
class Taken:
    """A copy of the state after `epoch` complete epochs and `step` steps of the next: nothing changes it any more."""

    epoch: int
    step: int
    arrays: dict[str, np.ndarray]


def taken(
    model: keras.Model, epoch: int, step: int = 0, seconds: float = 0.0, steps_per_epoch: int | None = None
) -> Taken:
    """Args: see `Position`."""
    values = [keras.ops.convert_to_numpy(variable) for variable in state(model)]
    metrics = [keras.ops.convert_to_numpy(variable) for variable in model.metrics_variables] if step else []
    arrays = {f"v{i:05d}": v for i, v in enumerate(values)} | {f"metric{i:05d}": v for i, v in enumerate(metrics)}
    arrays["seconds"] = np.array(seconds)
    if steps_per_epoch is not None:
        arrays["steps_per_epoch"] = np.array(steps_per_epoch)
    arrays["average_every"] = np.array(average_every(model))
    arrays["edition"] = np.array(EDITION)
    return Taken(epoch, step, arrays)


def write(run: Run, taken: Taken) -> Path:
    """Write a state atomically; keep the last two.

    Raises:
        InputError: a weight is not finite; the checkpoints before stay.
    """
    epoch, step, arrays = taken.epoch, taken.step, taken.arrays
    folder = run.path / "checkpoint"
    folder.mkdir(exist_ok=True)
    if not all(np.isfinite(v).all() for name, v in arrays.items() if name.startswith("v") and v.dtype.kind == "f"):
        raise InputError(
            f"after epoch {epoch}, step {step} of the next, some weights of run {run.name!r} are not finite: "
            f"no checkpoint was written; {advice(run)}"
        )
    header = {"epoch": epoch, "step": step, "crc32": _crc32(epoch, step, arrays)}
    target = folder / _name(epoch, step)
    with atomic_path(target) as temporary:
        np.savez(temporary, header=np.array(json.dumps(header)), **arrays)
    for old in _files(run)[:-KEEP]:
        old.unlink()
    return target


def restore_checkpoint(model: keras.Model, run: Run) -> Position:
    """Load the newest undamaged checkpoint into a built, compiled model; metrics are left to the caller.

    Returns:
        Where the training stands; epoch 0, step 0 if there is no checkpoint.

    Raises:
        InputError: there are checkpoints, but none can be used for this model.
        OSError: one cannot be opened, which says nothing about what is in it.
    """
    files = _files(run)
    for file in reversed(files):
        try:
            position, values = _read(file)
        except _DamagedError as error:
            warnings.warn(f"checkpoint {file} is damaged ({error}); using the one before", stacklevel=2)
            file.replace(file.with_suffix(".damaged"))  # else it would count as one of those that are kept
            continue
        variables = state(model)
        if [v.shape for v in values] != [tuple(v.shape) for v in variables]:
            raise InputError(f"{file} is the state of another model; start a new run with another --name")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return position
    if any((run.path / "checkpoint").glob("epoch-*")):  # set aside, now or before
        raise InputError(f"all checkpoints in {run.path / 'checkpoint'} are damaged; start a new run")
    return Position()


def average_every(model: keras.Model) -> int:
    """See `Position`."""
    return getattr(getattr(model.optimizer, "inner_optimizer", model.optimizer), "ema_every", 1)


def last_position(run: Run) -> str:
    """In words, where the newest checkpoint stands."""
    files = _files(run)
    if not files:
        return "there is no checkpoint yet"
    epoch, step = files[-1].stem.removeprefix("epoch-").partition(".step-")[::2]
    return f"the last checkpoint is after epoch {int(epoch)}" + (f", step {int(step)} of the next" if step else "")


def advice(run: Run) -> str:
    """What to do about weights that are not finite."""
    return f"{last_position(run)}; start a new run with a lower --learning-rate, or with --precision float32"


def _name(epoch: int, step: int) -> str:
    """Names sort by time: within an epoch comes after the epoch before."""
    return f"epoch-{epoch:05d}.step-{step:07d}.npz" if step else f"epoch-{epoch:05d}.npz"


def _files(run: Run) -> list[Path]:
    return sorted((run.path / "checkpoint").glob("epoch-*.npz"))


def state(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def _read(file: Path) -> tuple[Position, list[np.ndarray]]:
    with file.open("rb") as stream:
        try:
            return _parsed(stream, file.name)
        except MemoryError:
            raise
        except Exception as error:  # whatever a damaged file makes zipfile, NumPy or JSON raise
            raise _DamagedError(str(error)) from error


def _parsed(stream: BinaryIO, name: str) -> tuple[Position, list[np.ndarray]]:
    with zipfile.ZipFile(stream) as archive:  # as written: not compressed, so no larger in memory than on the disk
        if any(member.file_size != member.compress_size for member in archive.infolist()):
            raise ValueError("it is compressed")
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as content:
        header = json.loads(str(content["header"]))
        arrays = {key: content[key] for key in sorted(content.files) if key != "header"}
    epoch, step = header["epoch"], header["step"]
    if not _agrees(header, arrays) or name != _name(epoch, step):
        raise ValueError("checksum differs")
    values, metrics = ([value for key, value in arrays.items() if key.startswith(prefix)] for prefix in ("v", "metric"))
    seconds, steps = float(arrays.get("seconds", 0.0)), arrays.get("steps_per_epoch")
    every, edition = (int(arrays.get(name, 1)) for name in ("average_every", "edition"))
    steps = None if steps is None else int(steps)
    return Position(epoch, step, tuple(metrics), seconds, steps, every, edition), values


def _agrees(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> bool:
    """Earlier versions took SHA-256, which takes eight times as long and notices damage no better."""
    compute, name = (_crc32, "crc32") if "crc32" in header else (_sha256, "sha256")
    return header[name] == compute(header["epoch"], header["step"], arrays)


def _crc32(epoch: int, step: int, arrays: dict[str, np.ndarray]) -> int:
    checksum = 0
    for part in _parts(epoch, step, arrays):
        checksum = zlib.crc32(part, checksum)
    return checksum


def _sha256(epoch: int, step: int, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for part in _parts(epoch, step, arrays):
        digest.update(part)
    return digest.hexdigest()


def _parts(epoch: int, step: int, arrays: dict[str, np.ndarray]) -> Iterator[bytes | np.ndarray]:
    """Everything in the file; of the arrays also names, types and shapes."""
    yield repr((epoch, step)).encode()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        yield repr((name, value.dtype.str, arrays[name].shape)).encode()
        yield value
