"""`python main.py embed`: the feature vectors of any number of image files, by the encoder of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prl_keras.commands import stream
from prl_keras.config import Embed
from prl_keras.data.request import reading_of
from prl_keras.data.stream import all_picture_files
from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.outputs.work import Answers, Work, check_targets
from prl_keras.runs import Run, find_run, gives_features
from prl_keras.screen.console import console
from prl_keras.startup import start_keras

if TYPE_CHECKING:
    import keras
    import pyarrow as pa

_FORMATS = (".parquet", ".npy")


def run(options: Embed) -> int:
    if not options.images:
        raise InputError("no image to encode: name at least one file or folder, python main.py embed RUN FOLDER --out")
    targets = _targets(options.out)
    run = find_run(options.run, options.runs_dir, gives_features, "run with an encoder")
    reading = reading_of(run, options.max_megapixels)  # a damaged record is said before TensorFlow starts
    files = all_picture_files(options.images)

    start_keras()
    encoder = _encoder(run)
    dim = encoder.output_shape[-1]
    facts = stream.about(run, reading, "embed", encoder, {"dim": dim})
    work = Work(targets, stream.identity(facts, files))
    answers = partial(stream.answered, encoder, files, reading, None, work)
    damaged: list[tuple[str, str]] = []
    with work.opened():
        for rows, found in answers():
            damaged += stream.errors_of(files, rows, found)
        if len(damaged) == len(files):
            work.discard()
        stream.check_damaged(damaged, len(files))
        facts |= {"files": len(files), "damaged": len(damaged)}
        work.publish(lambda drafts: _write(drafts, files, answers, damaged, facts))
    console.print(f"{len(files) - len(damaged):,} vectors of {dim} numbers")
    for target in targets:
        console.print(f"wrote {target}")
    return stream.say_damaged(damaged, len(files))


def _targets(out: Path) -> tuple[Path, ...]:
    """The file, and what is written beside it: vectors alone do not say whose they are."""
    if out.suffix not in _FORMATS:
        raise InputError(f"--out {out}: choose a name that ends in {' or '.join(_FORMATS)}")
    beside = (".csv", ".meta.json") if out.suffix == ".npy" else ()
    targets = (out, *(out.with_name(out.name + ending) for ending in beside))
    check_targets(targets)
    return targets


def _encoder(run: Run) -> keras.Model:
    from prl_keras.models.storage import load_encoder

    encoder = load_encoder(run)
    if list(encoder.input_shape[1:3]) != run.part("data")["image_shape"][:2]:
        raise InputError(f"{run.path / 'config.json'} and the encoder beside it do not fit; restore one of them")
    return encoder


def _write(
    drafts: tuple[Path, ...], files: Sequence[str], answers: Any, damaged: Sequence[tuple[str, str]], facts: Any
) -> None:
    """Of .npy the rows are those of the table beside it: damaged files are in neither, but in the .meta.json."""
    from prl_keras.outputs.tables import write_table, write_vectors

    if drafts[0].suffix == ".parquet":
        write_table(drafts[0], (_rows(files, rows, found) for rows, found in answers()), facts)
        return
    vectors = (np.delete(found.outputs, list(found.errors), axis=0) for _, found in answers())
    write_vectors(drafts[0], vectors, len(files) - len(damaged), facts["dim"])
    write_table(drafts[1], _names(files, answers()), facts)
    listed = [{"path": stream.as_text(path), "error": error} for path, error in damaged]
    write_json(drafts[2], facts | {"damaged_files": listed})


def _names(files: Sequence[str], answers: Iterable[tuple[range, Answers]]) -> Iterable[pa.Table]:
    import pyarrow as pa

    for rows, found in answers:
        names = [stream.as_text(files[rows[row]]) for row in range(len(rows)) if row not in found.errors]
        yield pa.table({"path": pa.array(names, pa.string())})


def _rows(files: Sequence[str], rows: range, found: Answers) -> pa.Table:
    """path, vector, error."""
    import pyarrow as pa

    from prl_keras.outputs.tables import vector_column

    return pa.table(
        {
            "path": pa.array([stream.as_text(files[i]) for i in rows], pa.string()),
            "vector": vector_column(found.outputs, found.errors),
            "error": pa.array([found.errors.get(row) for row in range(len(rows))], pa.string()),
        }
    )
