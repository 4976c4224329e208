"""A training's complete state in one file: weights, optimizer slots, metrics, random generators, epoch.

`.keras` files leave out the states of random generators (Dropout, augmentation), so a resumed training
would differ; this file has every variable. Imports `errors` and `runs`.
"""

import hashlib
import json
import warnings
from pathlib import Path

import keras
import numpy as np

from prl_keras.errors import InputError
from prl_keras.runs import Run, atomic_path

KEEP = 2


def save_checkpoint(model: keras.Model, run: Run, epoch: int) -> Path:
    """Write the state after `epoch` complete epochs, atomically; keep the last two."""
    folder = run.path / "checkpoint"
    folder.mkdir(exist_ok=True)
    values = [keras.ops.convert_to_numpy(variable) for variable in _variables(model)]
    header = {"epoch": epoch, "sha256": _sha256(values)}
    target = folder / f"epoch-{epoch:05d}.npz"
    with atomic_path(target) as temporary:
        np.savez(temporary, header=np.array(json.dumps(header)), **{f"v{i:05d}": v for i, v in enumerate(values)})
    for old in _files(run)[:-KEEP]:
        old.unlink()
    return target


def restore_checkpoint(model: keras.Model, run: Run) -> int:
    """Load the newest undamaged checkpoint into a built, compiled model.

    Returns:
        The number of complete epochs; 0 if there is no checkpoint.

    Raises:
        InputError: there are checkpoints, but none can be used for this model.
    """
    files = _files(run)
    for file in reversed(files):
        try:
            epoch, values = _read(file)
        except Exception as error:  # whatever a damaged file makes zipfile, NumPy or JSON raise
            warnings.warn(f"checkpoint {file} is damaged ({error}); using the one before", stacklevel=2)
            continue
        variables = _variables(model)
        if [v.shape for v in values] != [tuple(v.shape) for v in variables]:
            raise InputError(f"{file} is the state of another model; start a new run with another --name")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return epoch
    if files:
        raise InputError(f"all checkpoints in {run.path / 'checkpoint'} are damaged; start a new run")
    return 0


def _files(run: Run) -> list[Path]:
    return sorted((run.path / "checkpoint").glob("epoch-*.npz"))


def _variables(model: keras.Model) -> list[keras.Variable]:
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


def _read(file: Path) -> tuple[int, list[np.ndarray]]:
    with np.load(file, allow_pickle=False) as content:
        header = json.loads(str(content["header"]))
        values = [content[name] for name in sorted(content.files) if name != "header"]
    if _sha256(values) != header["sha256"]:
        raise ValueError("checksum differs")
    return header["epoch"], values


def _sha256(values: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(np.ascontiguousarray(value))
    return digest.hexdigest()
