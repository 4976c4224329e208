"""`python main.py predict`: classify any number of image files with a fine-tuned or a taught run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from prl_keras.commands import stream
from prl_keras.commands.judges import HeadJudge, Judged, PrototypeJudge, judge_of
from prl_keras.config import Predict, RunDataOptions, check_least
from prl_keras.data.litter import shown
from prl_keras.data.request import reading_of
from prl_keras.data.stream import all_picture_files
from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.outputs.work import Answers, Work, check_targets
from prl_keras.runs import Run, find_run, has_encoder, list_runs, names_classes
from prl_keras.screen.console import console
from prl_keras.startup import start_keras

if TYPE_CHECKING:
    import pyarrow as pa

_FORMATS = (".csv", ".parquet", ".json")
_FEW = 25  # images that get a row of their own on the screen
_MOST_CLASSES = 20
NONE = "none of these"  # of a picture that is like no class


def run(options: Predict) -> int:
    if not options.images:
        raise InputError("no image to classify: name at least one file or folder, python main.py predict RUN IMAGE...")
    check_least(options, top=1)
    targets = _targets(options.out)
    tunable = any(map(has_encoder, list_runs(options.runs_dir)))
    make = "finetune" if tunable else "baseline"
    run = find_run(options.run, options.runs_dir, names_classes, "fine-tuned, baseline or taught run", make)
    reading = reading_of(run, options.max_megapixels)  # a damaged record is said before TensorFlow starts
    files = all_picture_files(options.images)

    start_keras()
    judge = judge_of(run, options.reject, RunDataOptions(dataset=options.dataset, data_dir=options.data_dir))
    tally = _Tally(files, judge, min(options.top, len(judge.classes)))
    if not targets:
        tally.take(stream.answered(judge.model, files, reading, judge.seen))
        stream.check_damaged(tally.damaged, len(files))
    else:
        facts = stream.about(run, reading, "predict", judge.encoder, judge.facts)
        work = Work(targets, stream.identity(facts, files))
        answers = partial(stream.answered, judge.model, files, reading, judge.seen, work)
        with work.opened():
            tally.take(answers())
            if len(tally.damaged) == len(files):
                work.discard()
            stream.check_damaged(tally.damaged, len(files))
            facts |= {"files": len(files), "damaged": len(tally.damaged)}
            pieces = (_rows(files, rows, found, judge, tally.top) for rows, found in answers())
            work.publish(lambda drafts: _write(drafts, pieces, facts))
    _print(tally, run, targets)
    return stream.say_damaged(tally.damaged, len(files))


def _targets(out: Path | None) -> tuple[Path, ...]:
    """The file, and what is written beside it: CSV has no place for what is to be known of it."""
    if out is None:
        return ()
    if out.suffix not in _FORMATS:
        raise InputError(f"--out {out}: choose a name that ends in {', '.join(_FORMATS)}")
    targets = (out, out.with_name(f"{out.name}.meta.json")) if out.suffix == ".csv" else (out,)
    check_targets(targets)
    return targets


@dataclass
class _Tally:
    """What is said at the end; of many files only the numbers."""

    files: Sequence[str]
    judge: HeadJudge | PrototypeJudge
    top: int
    damaged: list[tuple[str, str]] = field(default_factory=list)
    seen: int = 0

    def __post_init__(self) -> None:
        self.classes = [*self.judge.classes, NONE]
        self.counts = np.zeros(len(self.classes), int)
        looks_like = ["looks most like"] if self.judge.examples else []
        self.table = Table()
        for title in ("image", *(f"{rank}." for rank in range(1, self.top + 1)), *looks_like):
            self.table.add_column(title, overflow="fold")

    def take(self, answers: Any) -> None:
        for rows, found in answers:
            self.damaged += stream.errors_of(self.files, rows, found)
            self.seen += found.seen
            judged = self.judge.judged(found.outputs, self.top)
            for row in set(range(len(rows))) - set(found.errors):
                known = judged.known is None or judged.known[row]
                self.counts[judged.best[row, 0] if known else -1] += 1
                if len(self.files) <= _FEW:
                    self.table.add_row(*map(Text, self._cells(self.files[rows[row]], judged, row)))

    def _cells(self, file: str, judged: Judged, row: int) -> list[str]:
        pairs = zip(judged.best[row], judged.shares[row], strict=True)
        cells = [f"{self.classes[k]} {100 * p:.1f} %" for k, p in pairs]
        if judged.known is not None and not judged.known[row]:
            cells[0] = f"{NONE} (nearest: {cells[0]})"
        if judged.nearest is not None:
            files, labels = self.judge.examples
            cells.append("\n".join(f"{labels[k]}: {shown(_near_here(files[k]))}" for k in judged.nearest[row]))
        return [shown(file), *cells]


def _near_here(file: str) -> str:
    """As seen from the working folder, if that is shorter."""
    with suppress(ValueError):  # on another drive
        return min(file, os.path.relpath(file), key=len) if os.path.isabs(file) else file
    return file


def _rows(files: Sequence[str], rows: range, found: Answers, judge: HeadJudge | PrototypeJudge, top: int) -> pa.Table:
    """path, class, probability, class_2, probability_2, ..., error; of a damaged file only the first and the last.
    Before the error come, where it is told, known, and the most similar examples with their classes: most_like,
    most_like_class, most_like_2, ..."""
    import pyarrow as pa

    best, shares, known, nearest = judge.judged(found.outputs, top)
    sound = np.isin(np.arange(len(rows)), list(found.errors), invert=True)
    columns = {"path": pa.array([stream.as_text(files[i]) for i in rows], pa.string())}
    for rank in range(top):
        number = f"_{rank + 1}" if rank else ""
        names = [judge.classes[k] if ok else None for k, ok in zip(best[:, rank], sound, strict=True)]
        columns[f"class{number}"] = pa.array(names, pa.string())
        columns[f"probability{number}"] = pa.array(shares[:, rank].astype(np.float32), mask=~sound)
    if known is not None:
        columns["known"] = pa.array(known, mask=~sound)
    for rank in range(0 if nearest is None else nearest.shape[1]):
        number = f"_{rank + 1}" if rank else ""
        for name, values in zip(("most_like", "most_like_class"), judge.examples, strict=True):
            like = [stream.as_text(values[i]) if ok else None for i, ok in zip(nearest[:, rank], sound, strict=True)]
            columns[f"{name}{number}"] = pa.array(like, pa.string())
    columns["error"] = pa.array([found.errors.get(row) for row in range(len(rows))], pa.string())
    return pa.table(columns)


def _write(drafts: tuple[Path, ...], pieces: Any, facts: dict[str, Any]) -> None:
    from prl_keras.outputs.tables import write_table

    write_table(drafts[0], pieces, facts)
    if len(drafts) > 1:
        write_json(drafts[1], facts)


def _print(tally: _Tally, run: Run, targets: tuple[Path, ...]) -> None:
    sound = len(tally.files) - len(tally.damaged)
    if len(tally.files) <= _FEW and not targets:
        console.print(tally.table)
    else:
        console.print(f"{sound:,} images by their likeliest class:")
        order = np.argsort(-tally.counts, kind="stable")[:_MOST_CLASSES]
        for k in order[tally.counts[order] > 0]:
            console.print(f"  {tally.counts[k]:>8,}  {100 * tally.counts[k] / sound:5.1f} %  {shown(tally.classes[k])}")
        if rest := sound - int(tally.counts[order].sum()):
            console.print(f"  {rest:>8,}  {100 * rest / sound:5.1f} %  other classes")
    if tally.seen:
        are = "is" if tally.seen == 1 else "are"
        console.print(
            f"{tally.seen:,} of {sound:,} images {are} among those that {run.name} was trained on: "
            "its answers to these say nothing about new images"
        )
    for target in targets:
        console.print(f"wrote {target}")
    if not targets and len(tally.files) > _FEW:
        console.print("The answer for every image: add --out FILE.csv, .parquet or .json")
