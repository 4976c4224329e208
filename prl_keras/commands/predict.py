"""`python main.py predict`: classify any number of image files with a fine-tuned run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from prl_keras.commands import stream
from prl_keras.config import Predict
from prl_keras.data.litter import shown
from prl_keras.data.request import reading_of
from prl_keras.data.seen import seen_by
from prl_keras.data.stream import all_picture_files
from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.outputs.work import Answers, Work, check_targets
from prl_keras.runs import Run, find_run, has_classifier, has_encoder, list_runs
from prl_keras.screen.console import console
from prl_keras.startup import start_keras

if TYPE_CHECKING:
    import keras
    import pyarrow as pa

_FORMATS = (".csv", ".parquet", ".json")
_FEW = 25  # images that get a row of their own on the screen
_MOST_CLASSES = 20


def run(options: Predict) -> int:
    if not options.images:
        raise InputError("no image to classify: name at least one file or folder, python main.py predict RUN IMAGE...")
    if options.top < 1:
        raise InputError(f"--top is {options.top}; expected at least 1")
    targets = _targets(options.out)
    tunable = any(map(has_encoder, list_runs(options.runs_dir, skip_damaged=True)))
    make = "finetune" if tunable else "baseline"
    run = find_run(options.run, options.runs_dir, has_classifier, "fine-tuned or baseline run", make)
    classes = run.part("data")["class_names"]
    reading = reading_of(run, options.max_megapixels)  # a damaged record is said before TensorFlow starts
    files = all_picture_files(options.images)

    start_keras()
    classifier = _classifier(run)
    seen, tally = seen_by(run), _Tally(files, classes, min(options.top, len(classes)))
    if not targets:
        tally.take(stream.answered(classifier, files, reading, seen))
        stream.check_damaged(tally.damaged, len(files))
    else:
        facts = _about(run, reading, classifier)
        work = Work(targets, stream.identity(facts, files))
        answers = partial(stream.answered, classifier, files, reading, seen, work)
        with work.opened():
            tally.take(answers())
            if len(tally.damaged) == len(files):
                work.discard()
            stream.check_damaged(tally.damaged, len(files))
            facts |= {"files": len(files), "damaged": len(tally.damaged)}
            pieces = (_rows(files, rows, found, classes, tally.top) for rows, found in answers())
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


def _classifier(run: Run) -> keras.Model:
    from prl_keras.models.storage import load_model

    data, classifier = run.part("data"), load_model(run.classifier_file)
    if list(classifier.input_shape[1:3]) != data["image_shape"][:2] or classifier.output_shape[-1] != len(
        data["class_names"]
    ):
        raise InputError(f"{run.path / 'config.json'} and {run.classifier_file.name} do not fit; restore one of them")
    return classifier


def _about(run: Run, reading: Mapping[str, Any], classifier: keras.Model) -> dict[str, Any]:
    from prl_keras.models.storage import weights_sha256

    encoder = next((layer for layer in classifier.layers if layer.name == "encoder"), None)
    more = {"classifier_sha256": weights_sha256(classifier), "class_names": run.part("data")["class_names"]}
    return stream.about(run, reading, "predict", encoder, more)


@dataclass
class _Tally:
    """What is said at the end; of many files only the numbers."""

    files: Sequence[str]
    classes: Sequence[str]
    top: int
    damaged: list[tuple[str, str]] = field(default_factory=list)
    seen: int = 0

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.classes), int)
        self.table = Table("image", *(f"{rank}." for rank in range(1, self.top + 1)))

    def take(self, answers: Any) -> None:
        for rows, found in answers:
            self.damaged += stream.errors_of(self.files, rows, found)
            self.seen += found.seen
            best, shares = _best(found.outputs, self.top)
            for row in set(range(len(rows))) - set(found.errors):
                self.counts[best[row, 0]] += 1
                if len(self.files) <= _FEW:
                    cells = (
                        Text(f"{self.classes[k]} {100 * p:.1f} %") for k, p in zip(best[row], shares[row], strict=True)
                    )
                    self.table.add_row(Text(shown(self.files[rows[row]])), *cells)


def _best(logits: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes (n, top), the likeliest first and the first of equals, and their probabilities."""
    from scipy.special import softmax

    probabilities = softmax(logits, axis=-1)
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
    return best, np.take_along_axis(probabilities, best, axis=-1)


def _rows(files: Sequence[str], rows: range, found: Answers, classes: Sequence[str], top: int) -> pa.Table:
    """path, class, probability, class_2, probability_2, ..., error; of a damaged file only the first and the last."""
    import pyarrow as pa

    best, shares = _best(found.outputs, top)
    sound = np.isin(np.arange(len(rows)), list(found.errors), invert=True)
    columns = {"path": pa.array([stream.as_text(files[i]) for i in rows], pa.string())}
    for rank in range(top):
        number = f"_{rank + 1}" if rank else ""
        names = [classes[k] if ok else None for k, ok in zip(best[:, rank], sound, strict=True)]
        columns[f"class{number}"] = pa.array(names, pa.string())
        columns[f"probability{number}"] = pa.array(shares[:, rank].astype(np.float32), mask=~sound)
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
