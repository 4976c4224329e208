"""A long work whose output is a file: what is finished of it lies in FILE.partial/ until the file is whole.

Every finished batch is a file of its own there, written atomically; the output is made of them at the end, in one
pass, and moved to its place. So a kill at any moment costs the batches that were under way, and what is continued has
the bytes of what was never interrupted. It takes the output's room twice, for a moment.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.arrays import read_arrays
from prl_keras.errors import InputError
from prl_keras.files import atomic_path, patiently, write_json
from prl_keras.runs import Run
from prl_keras.runs.locks import locked, remove_leftovers
from prl_keras.runs.records import read_json

_RECORD, _FINISHED = "work.json", "finished"


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model said of a batch of files: `outputs` float32 (n, dim), a row a file.

    errors: row -> why the file could not be read; such a row of `outputs` means nothing.
    seen: how many of the images the model was trained on.
    """

    outputs: np.ndarray
    errors: dict[int, str]
    seen: int = 0


@dataclass(frozen=True)
class Work:
    """`targets`: what is to be made, the file that the user named first, then what goes beside it."""

    targets: tuple[Path, ...]
    identity: dict[str, Any]

    @property
    def folder(self) -> Path:
        return partial_folder(self.targets[0])

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Begin it, or go on with what was begun.

        Raises:
            InputError: what is there is something else, or another process is at it.
        """
        record, new = self.folder / _RECORD, json.loads(json.dumps(self.identity))
        self.folder.mkdir(exist_ok=True)
        if not record.exists():
            if _is_foreign(self.folder):
                raise InputError(f"{self.folder} is there already and is no unfinished output: move it away")
            _begin(record, new)
        if (old := read_json(record)) != new:
            raise InputError(
                f"{self.folder} is an unfinished output with {_difference(old, new)}: "
                "finish that first, remove the folder to begin anew, or choose another --out"
            )
        with locked(Run(self.folder), _RECORD, "unfinished output"):
            remove_leftovers(Run(self.folder))
            shutil.rmtree(self._draft, ignore_errors=True)
            try:
                if _holds_nothing(self.folder, self.targets[0]):
                    self.discard()
                yield
            finally:
                if _holds_nothing(self.folder, self.targets[0]):
                    self.discard()
                    record.unlink()  # last: with it what a kill leaves is still known

    def is_done(self, number: int) -> bool:
        return self._part(number).exists()

    def keep(self, number: int, answers: Answers) -> None:
        with atomic_path(self._part(number)) as temporary:
            np.savez(temporary, outputs=answers.outputs, errors=np.array(json.dumps(answers.errors)), seen=answers.seen)

    def answers(self, number: int) -> Answers:
        """Raises InputError if the file is damaged."""
        file = self._part(number)
        try:
            part = read_arrays(file)
            errors = {int(row): line for row, line in json.loads(str(part["errors"])).items()}
            return Answers(part["outputs"], errors, int(part["seen"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{file} is damaged ({error}): remove it and repeat the command") from error

    def publish(self, write: Callable[[tuple[Path, ...]], None]) -> None:
        """Have `write` make the files, and move them to their places, that which the user named last.

        Raises:
            InputError: something lies there by now; it is kept.
        """
        if self._finished.exists() and not any(target.exists() for target in self.targets):
            shutil.rmtree(self._finished)  # nothing of it is in its place, and other columns may be asked for now
        if not self._finished.exists():
            self._draft.mkdir()
            write(tuple(self._draft / target.name for target in self.targets))
            patiently(lambda: self._draft.rename(self._finished))
        for target in self.targets:
            if (self._finished / target.name).exists():
                _refuse_existing(target)
        for target in reversed(self.targets):
            if (made := self._finished / target.name).exists():
                patiently(lambda made=made, target=target: made.replace(target))

    def discard(self) -> None:
        """Forget all that is finished."""
        for part in self.folder.glob("*.npz"):
            part.unlink()
        for folder in (self._draft, self._finished):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def _draft(self) -> Path:
        return self.folder / "draft"

    @property
    def _finished(self) -> Path:
        return self.folder / _FINISHED

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:08d}.npz"


def partial_folder(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def check_targets(targets: tuple[Path, ...]) -> None:
    """Before anything is begun.

    Raises:
        InputError: a place is taken, or its folder is not there.
    """
    file, folder = targets[0], partial_folder(targets[0])
    if not file.parent.is_dir():
        raise InputError(f"--out {file}: there is no folder {file.parent}; make it first")
    if file.exists() and folder.is_dir() and not _is_foreign(folder) and _holds_nothing(folder, file):
        shutil.rmtree(folder, ignore_errors=True)  # left by a kill after the output was moved to its place
    moving = (folder / _FINISHED).is_dir()  # a kill between two moves leaves the first target in its place
    for target in targets[:1] if moving else targets:
        _refuse_existing(target)


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise InputError(f"{target} is there already: move it away, or choose another --out")


def _begin(record: Path, content: Any) -> None:
    """Write it, if no other process has just done so: what is done beside it would be taken for another's."""
    draft = record.with_name(f".tmp-{os.getpid()}{record.suffix}")  # whose like `remove_leftovers` knows
    write_json(draft, content)
    try:
        os.link(draft, record)
    except FileExistsError:
        pass
    except OSError:  # a disk without links
        draft.replace(record)
    finally:
        draft.unlink(missing_ok=True)


def _is_foreign(folder: Path) -> bool:
    """A kill leaves no more than hidden files without their record."""
    return not (folder / _RECORD).exists() and any(not path.name.startswith(".") for path in folder.iterdir())


def _holds_nothing(folder: Path, target: Path) -> bool:
    """No finished batch, or those of an output that is in its place."""
    finished = folder / _FINISHED
    return not (finished / target.name).exists() if finished.exists() else not any(folder.glob("*.npz"))


def _difference(old: Any, new: dict[str, Any]) -> str:
    old = old if isinstance(old, dict) else {}
    name = next((name for name in new if old.get(name) != new[name]), None)
    return f"{name} = {old.get(name)!a:.60}, not {new[name]!a:.60}" if name else "other options"
