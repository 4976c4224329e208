"""`python main.py teach`: classes of the user's own on a run's encoder, one by one and without training."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import numpy as np

from prl_keras.commands import stream
from prl_keras.commands.common import check_encoder, run_argument
from prl_keras.config import RunDataOptions, Teach
from prl_keras.data.formats import IMAGE_EXTENSIONS
from prl_keras.data.layout import SPLIT_OF, UNLABELLED, natural, picture_files
from prl_keras.data.litter import is_litter, shown, speaks_to_terminals
from prl_keras.data.request import data_request_of_run, open_data, reading_of, warn_of_seen
from prl_keras.data.seen import record_seen, seen_by, short_digests
from prl_keras.data.stream import all_picture_files, decoded, equal_batches
from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.runs import Run, create_run, find_run, gives_features, is_taught, reference_to
from prl_keras.runs.card import write_card
from prl_keras.runs.lifecycle import NOT_RECORDED, run_config
from prl_keras.runs.locks import locked, working_on
from prl_keras.runs.names import check_new_name, free_name
from prl_keras.screen.console import console, in_words, print_end, say
from prl_keras.screen.progress import with_progress
from prl_keras.startup import start_keras

if TYPE_CHECKING:
    import keras

    from prl_keras.evaluation.taught import Examples, Taught

_MOST_NAMED = 20  # classes of a lesson that get a line of their own
_FIRST_LESSON = ("name", "only_mine", *(f.name for f in fields(RunDataOptions) if f.name != "max_megapixels"))


def run(options: Teach) -> int:
    classes = _lesson(options.lesson)
    if not classes and not options.forget:
        raise InputError("nothing to teach: name a class and its pictures, python main.py teach RUN NAME IMAGE...")
    if options.false_alarms is not None and not 0 < options.false_alarms < 1:
        raise InputError(f"--false-alarms is {options.false_alarms}; expected a number above 0 and below 1")
    source = find_run(options.run, options.runs_dir, gives_features, "run with an encoder")
    reading = reading_of(source, options.max_megapixels)  # a damaged record is said before TensorFlow starts
    pictures = _Pictures([(file, name) for name, files in classes.items() for file in files])
    if is_taught(source):
        given = next((name for name in _FIRST_LESSON if getattr(options, name) not in (None, False)), None)
        if given:
            raise InputError(
                f"--{given.replace('_', '-')} is for the first lesson, and run {source.name!r} was taught: leave it out"
            )
        with locked(source):
            return _next_lesson(source, pictures, reading, options)
    return _first_lesson(source, pictures, reading, options)


def _lesson(words: Sequence[str]) -> dict[str, list[str]]:
    """Class name -> files of its pictures."""
    if not words:
        return {}
    first = Path(words[0])
    if len(words) > 1:
        if first.suffix.lower() in IMAGE_EXTENSIONS and first.is_file():
            raise InputError(f"{first} is a picture: name its class first, python main.py teach RUN NAME IMAGE...")
        name, given = _class_name(words[0]), list(map(Path, words[1:]))
        _check_no_class_is_lost(first, given)
        return {name: all_picture_files(given)}
    if not first.is_dir():
        raise InputError(f"{words[0]}: name its pictures too, or a folder with a folder of pictures for each class")
    folders = [path for path in first.iterdir() if path.is_dir() and not is_litter(path)]
    if not folders:
        raise InputError(f"{first} has no folders, one a class: name the class, python main.py teach RUN NAME {first}")
    splits = {SPLIT_OF.get(path.name.lower()): path for path in folders}
    if None not in splits:
        to_name = splits.get("train", folders[0])
        raise InputError(f"{first}: {to_name.name} is the name of a split, not of a class: name {to_name}")
    named: dict[str, Path] = {}
    for path in sorted(folders, key=lambda path: natural(path.name)):
        if (name := _class_name(path.name)) in named:
            raise InputError(f"{first}: two folders have the name {name!r}, written differently; merge them")
        named[name] = path
    return {name: all_picture_files([path]) for name, path in named.items()}


def _check_no_class_is_lost(first: Path, given: Sequence[Path]) -> None:
    """`cat dog`, two folders of pictures, is meant as two classes, and not as dogs that are called cat. Pictures of
    `cat`, or of another folder of that name, may be called so."""
    own = [path for path in given if path.name == first.name or path.resolve().is_relative_to(first.resolve())]
    other = next((path for path in given if path.is_dir()), None)
    if first.is_dir() and other and not own and picture_files(first):
        raise InputError(
            f"{first} and {other} are both folders of pictures: name the class first, python main.py teach RUN NAME "
            f"FOLDER, or one folder with a folder for each class; if those of {other} are {first.name}, name the files"
        )


def _class_name(name: str) -> str:
    """With its accents composed, as the names of a data set's classes are."""
    name = normalize("NFC", name)
    if not name.strip() or speaks_to_terminals(name) or "/" in name or os.sep in name:
        raise InputError(f"a class cannot be called {name!a:.60}; choose a name that can be printed, without slashes")
    return name


@dataclass
class _Pictures:
    """(file, class) of each, and after `encode` what is known of those that could be read."""

    files: Sequence[tuple[str, str]]
    damaged: list[tuple[str, str]] = field(default_factory=list)

    def encoded(self, encoder: keras.Model, reading: Mapping[str, Any]) -> Examples:
        """Raises InputError if none can be read."""
        from prl_keras.evaluation.taught import Examples
        from prl_keras.models.encode import encode, images_a_batch

        files = [file for file, _ in self.files]
        batches = equal_batches(len(files), images_a_batch(*reading["size"]))
        features, digests, rows = [np.zeros((0, encoder.output_shape[-1]), np.float32)], [np.zeros(0, np.uint64)], []
        found = with_progress(decoded(files, batches, reading), len(files), "Pictures", lambda batch: len(batch[0]))
        for batch, images, errors in found:
            self.damaged += [(files[batch[row]], error) for row, error in sorted(errors.items())]
            sound = [row for row in range(len(batch)) if row not in errors]
            if sound:
                features.append(encode(encoder, images)[sound])
                digests.append(short_digests(images[sound]))
                rows += [batch[row] for row in sound]
        stream.check_damaged(self.damaged, len(files))
        labels = np.array([self.files[row][1] for row in rows], dtype=str)
        names = np.array([str(Path(files[row]).absolute()) for row in rows], dtype=str)
        return Examples(np.concatenate(features), labels, names, np.concatenate(digests))


def _first_lesson(source: Run, pictures: _Pictures, reading: Mapping[str, Any], options: Teach) -> int:
    if options.name is not None:
        check_new_name(options.runs_dir, options.name)
    request = data_request_of_run(source, options)
    dataset = open_data(request, source, labelled=False)
    if options.forget and (options.only_mine or dataset.class_names == UNLABELLED):
        raise InputError(f"--forget {options.forget[0]}: there are no classes yet; leave it out")
    start_keras()
    from prl_keras.evaluation.taught import FALSE_ALARMS, of_training
    from prl_keras.models.storage import load_encoder, save_model, weights_sha256

    encoder = load_encoder(source)
    warn_of_seen(source, dataset)
    check_encoder(encoder.input_shape[1:], dataset, source.name)
    with console.status(f"Encoding the images of {dataset.label}"):
        alarms, mine = options.false_alarms or FALSE_ALARMS, options.only_mine or dataset.class_names == UNLABELLED
        taught = of_training(encoder, dataset, source, alarms, with_classes=not mine)
    before = taught.held_out_accuracy(list(dataset.class_names))
    lesson = _Lesson(taught, pictures, options)
    lesson.give(source, encoder, {**reading, "resize": request.get("resize", reading["resize"]), "bits": dataset.bits})
    name = options.name or free_name(options.runs_dir, f"{source.name}-taught")
    left_out = {*NOT_RECORDED, "lesson", "forget", "false_alarms", *(f.name for f in fields(RunDataOptions)), "run"}
    config = run_config("teach", options, left_out, request, dataset)
    config["options"] |= {"encoder": reference_to(source, options.runs_dir), "seed": request.get("seed", 0)}
    facts = {"encoder_run": reference_to(source, options.runs_dir), "encoder_sha256": weights_sha256(encoder)}
    made = create_run(options.runs_dir, name, config)
    with working_on(made):
        record_seen(made, dataset.train.images, source)
        save_model(encoder, made.encoder_file)
        lesson.keep(made, facts)
        return lesson.end(made, before)


def _next_lesson(run: Run, pictures: _Pictures, reading: Mapping[str, Any], options: Teach) -> int:
    start_keras()
    from prl_keras.evaluation.taught import read_taught
    from prl_keras.models.storage import load_encoder

    lesson = _Lesson(read_taught(run), pictures, options)
    before = lesson.taught.held_out_accuracy(run.part("data", "class_names"))
    lesson.give(run, load_encoder(run) if pictures.files else None, reading)
    lesson.keep(run, {key: value for key, value in (run.result or {}).items() if key.startswith("encoder_")})
    return lesson.end(run, before)


class _Lesson:
    """What is taught and forgotten now, and what is said of it."""

    def __init__(self, taught: Taught, pictures: _Pictures, options: Teach):
        self.taught, self._pictures, self._options = taught, pictures, options
        self._lines: list[str] = []
        self._count, self._begun, self._seconds = 0, 0.0, 0.0
        self._result: dict[str, Any] = {}

    def give(self, run: Run, encoder: keras.Model | None, reading: Mapping[str, Any]) -> None:
        """Raises InputError, and nothing is changed on disk.

        run: the encoder's.
        """
        self._begun = time.monotonic()
        taught, alarms = self.taught, self._options.false_alarms
        for name in dict.fromkeys(normalize("NFC", each) for each in self._options.forget):
            count = _count_of(taught, name)
            taught = taught.forget(name)
            self._lines.append(f"{name}: forgotten ({_pictures(count)})")
        if self._pictures.files:
            examples = self._pictures.encoded(encoder, reading)
            new = _new(examples, taught.examples)
            new = new.take(~taught.holds_from_training(new))
            self._count = len(new.labels)
            self._describe(taught, examples, new)
            seen = seen_by(run)
            if seen is not None and (count := int(np.isin(examples.digests, seen).sum())):
                some = f"{count:,} of these pictures"
                self._lines.append(
                    f"warning: {some} come from the training of the encoder or of its classes: figures on them are not "
                    "of new ones"
                )
            taught = taught.teach(new) if self._count else taught
        self.taught = replace(taught, false_alarms=alarms or taught.false_alarms).calibrate()

    def _describe(self, taught: Taught, examples: Examples, new: Examples) -> None:
        trained = taught.holds_from_training(examples)
        before = np.isin(examples.digests, taught.examples.digests) & ~trained
        names = sorted(set(examples.labels.tolist()), key=natural)
        for name in names[:_MOST_NAMED]:
            known, more = _count_of(taught, name), int((new.labels == name).sum())
            mine = examples.labels == name
            again = {"of the encoder's training": (mine & trained).sum(), "taught before": (mine & before).sum()}
            again["twice in this lesson"] = mine.sum() - more - sum(again.values())
            line = f"a new class of {_pictures(more)}"
            if known:
                line = f"refined by {_pictures(more)}, {known + more:,} in all" if more else "nothing new"
            words = ", ".join(f"{count:,} {what}" for what, count in again.items() if count)
            self._lines.append(f"{name}: {line}" + (f" ({words})" if words else ""))
        if len(names) > _MOST_NAMED:
            self._lines.append(f"and {len(names) - _MOST_NAMED:,} more classes, {_pictures(len(new.labels))} in all")

    def keep(self, run: Run, facts: dict[str, Any]) -> None:
        """prototypes.npz is the run's classifier; what is written after it only says what that is."""
        from prl_keras.evaluation.taught import save_taught

        taught, classifier = self.taught, self.taught.classifier
        save_taught(taught, run.prototypes_file)
        figure = taught.held_out_accuracy(run.part("data", "class_names"))
        names, counts = np.unique(taught.examples.labels[taught.examples.taught], return_counts=True)
        self._result = facts | {
            "epochs": 0,
            "saved_encoder": {} if figure is None else {"val_prototype": figure},
            "classes": len(classifier.classes_),
            "taught": dict(zip(names.tolist(), counts.tolist(), strict=True)),
            "temperature": classifier.temperature_,
            "threshold": classifier.threshold_,
            "false_alarms": taught.measured_false_alarms(),
            "calibration": taught.measured_calibration(),
        }
        write_json(run.path / "result.json", self._result)
        write_card(run)
        self._seconds = time.monotonic() - self._begun

    def end(self, run: Run, before: dict[str, Any] | None) -> int:
        """Say what was done and what it does to the other classes; the exit code."""
        taught, classifier, names = self.taught, self.taught.classifier, run.part("data", "class_names")
        for line in self._lines:
            say(line)
        if self._count:
            say(f"Taught {_pictures(self._count)} in {self._seconds:.2f} s, reading, calibrating and saving included")
        figure = self._result["saved_encoder"].get("val_prototype")
        if figure is not None and before is not None:
            say(
                f"Validation, {figure['n']:,} pictures of the classes that the encoder was trained on, among all "
                f"{len(classifier.classes_):,} classes: {in_words(figure, names)} "
                f"({100 * before['value']:.1f} % before this lesson)"
            )
        say(_threshold_in_words(taught, self._result["calibration"]))
        reference = run_argument(run, self._options.runs_dir)
        print_end(
            [run.prototypes_file],
            [
                f"python main.py teach {reference} NAME IMAGE...",
                f"python main.py export {reference} --format onnx",
                f"python main.py predict {reference} IMAGE...",
            ],
        )
        return stream.say_damaged(self._pictures.damaged, len(self._pictures.files))


def _new(examples: Examples, known: Examples) -> Examples:
    """Those that were not taught before; of equal ones the first.

    Raises:
        InputError: a picture that was taught as another class, or is in two classes of the lesson.
    """
    taught = {int(d): row for row, d in enumerate(known.digests) if d}
    label_of = {d: (str(known.labels[row]), str(known.files[row])) for d, row in taught.items()}
    rows = []
    for row, digest in enumerate(map(int, examples.digests)):
        name, file = str(examples.labels[row]), str(examples.files[row])
        if digest not in label_of:
            label_of[digest] = name, file
            rows.append(row)
        elif label_of[digest][0] != name:
            other, where = label_of[digest]
            raise InputError(
                f"{shown(file)} is to be {name!a:.40}, but the same picture is {other!a:.40} ({shown(where)}): "
                f"leave one out, or forget {other!a:.40} first"
            )
    return examples.take(np.array(rows, dtype=int))


def _count_of(taught: Taught, name: str) -> int:
    """Pictures of the class; 0 if there is none of that name."""
    classes = getattr(taught.classifier, "classes_", np.zeros(0, str))
    at = np.flatnonzero(classes == name)
    return int(taught.classifier.counts_[at[0]]) if len(at) else 0


def _threshold_in_words(taught: Taught, measured: dict[str, float | int] | None) -> str:
    """measured: `Taught.measured_calibration`."""
    if taught.classifier.threshold_ is not None:
        temperature = f"probabilities have temperature {taught.classifier.temperature_:.3g}"
        if measured is not None:
            temperature += (
                f" and a calibration error of {100 * measured['ece']:.1f} % on {measured['n']:,} test pictures"
            )
        return f'`predict` says "none of these" {taught.limit_in_words()}; {temperature}'
    from prl_keras.evaluation.statistics import needed

    pictures = f"{needed(taught.false_alarms):,} validation pictures of known classes"
    why = f"that takes {pictures}, which the encoder was not trained on"
    return f'`predict` says "none of these" of no picture: {why}'


def _pictures(count: int) -> str:
    return f"{count:,} picture{'' if count == 1 else 's'}"
