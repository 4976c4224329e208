"""What `predict` and `embed` share: the model of a run answers for any number of files."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prl_keras.data.litter import shown
from prl_keras.data.seen import short_digests
from prl_keras.data.stream import decoded, equal_batches
from prl_keras.errors import InputError
from prl_keras.outputs.work import Answers, Work
from prl_keras.runs import Run
from prl_keras.runs.records import is_text
from prl_keras.screen.progress import with_progress

if TYPE_CHECKING:
    import keras

_MOST_SHOWN = 10  # damaged files


def answered(
    model: keras.Model,
    files: Sequence[str],
    reading: Mapping[str, Any],
    seen: np.ndarray | None = None,
    work: Work | None = None,
) -> Iterator[tuple[range, Answers]]:
    """For each batch: the range of its files, and what the model says of them; in order, in constant memory.

    Args:
        reading: as `load_image` takes it.
        seen: digests of the images that the model was trained on.
        work: keep every batch there as soon as it is finished, and do not repeat those that are; a second call only
            reads them.
    """
    from prl_keras.models.encode import images_a_batch

    batches = equal_batches(len(files), images_a_batch(*model.input_shape[1:3]))
    missing = [number for number in range(len(batches)) if work is None or not work.is_done(number)]
    computed = _computed(model, files, batches, missing, reading, seen)
    with closing(computed):
        total = sum(len(batches[number]) for number in missing)
        each = with_progress(computed, total, "Pictures", lambda answers: len(answers.outputs))
        for number, answers in zip(missing, each, strict=True):
            if work is None:
                yield batches[number], answers
            else:
                work.keep(number, answers)
    if work is not None:
        for number, rows in enumerate(batches):
            yield rows, work.answers(number)


def _computed(
    model: keras.Model,
    files: Sequence[str],
    batches: Sequence[range],
    chosen: Sequence[int],
    reading: Mapping[str, Any],
    seen: np.ndarray | None,
) -> Iterator[Answers]:
    """Every batch has the same shape, filled up with black: a shape of its own would be traced anew."""
    from prl_keras.models.encode import encode

    images = np.zeros((max(map(len, batches)), *reading["size"], 3), np.uint8)
    for rows, pictures, errors in decoded(files, (batches[number] for number in chosen), reading):
        images[: len(rows)], images[len(rows) :] = pictures, 0
        outputs = encode(model, images)[: len(rows)]
        sound = np.delete(pictures, list(errors), axis=0)
        known = 0 if seen is None else int(np.isin(short_digests(sound), seen).sum())
        yield Answers(outputs, errors, known)


def about(
    run: Run, reading: Mapping[str, Any], command: str, encoder: keras.Model | None, more: dict[str, Any]
) -> dict[str, Any]:
    """What is to be known of an output, wherever the file goes."""
    from prl_keras import __version__
    from prl_keras.models.storage import weights_sha256

    limit = reading["max_megapixels"]
    return {
        "run": run.name,
        "command": command,
        **({} if encoder is None else {"encoder_sha256": weights_sha256(encoder)}),
        **more,
        "image_shape": list(run.part("data")["image_shape"]),
        "resize": reading["resize"],
        "bits": reading["bits"],
        **({} if limit is None else {"max_megapixels": limit}),
        "prl_keras_version": __version__,
    }


def identity(facts: dict[str, Any], files: Sequence[str]) -> dict[str, Any]:
    """What an unfinished output must have in common with the command that continues it."""
    digest = hashlib.sha256()
    for file in files:
        try:
            stat = os.stat(file)
            digest.update(repr((file, stat.st_size, stat.st_mtime_ns)).encode("utf-8", "backslashreplace"))
        except OSError:
            digest.update(repr(file).encode("utf-8", "backslashreplace"))
    return facts | {"files": f"{len(files)} ({digest.hexdigest()[:12]})"}


def as_text(path: str) -> str:
    """A file's name in a table; what is no UTF-8 in it as `\\udcff`, or no file could hold it."""
    return path if is_text(path) else path.encode("utf-8", "backslashreplace").decode()


def errors_of(files: Sequence[str], rows: range, answers: Answers) -> list[tuple[str, str]]:
    return [(files[rows[row]], error) for row, error in sorted(answers.errors.items())]


def check_damaged(damaged: Sequence[tuple[str, str]], count: int) -> None:
    """Raise InputError if no file could be read: then there is nothing to write."""
    if damaged and len(damaged) == count:
        first = f"{Path(damaged[0][0])}: {damaged[0][1]}"
        raise InputError(first if count == 1 else f"none of {count:,} files can be read; the first: {first}")


def say_damaged(damaged: Sequence[tuple[str, str]], count: int) -> int:
    """List them on standard error; the command's exit code, 1 if there are some: a script is to notice."""
    if not damaged:
        return 0
    lines = [f"{len(damaged):,} of {count:,} files could not be read:"]
    lines += [f"  {shown(path)}: {error}" for path, error in damaged[:_MOST_SHOWN]]
    lines += [f"  and {len(damaged) - _MOST_SHOWN:,} more"] if len(damaged) > _MOST_SHOWN else []
    print("\n".join(lines), file=sys.stderr)
    return 1
