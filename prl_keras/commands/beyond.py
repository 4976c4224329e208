"""`python main.py reproduce --rows beyond`: every trained encoder is measured on what it never saw, then the page."""

from __future__ import annotations

import itertools
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prl_keras.commands import evaluate
from prl_keras.commands.cells import log_files, own_log
from prl_keras.commands.few_shot import check_episodes
from prl_keras.commands.unknown import check_far, load_far
from prl_keras.config import Evaluate, Reproduce
from prl_keras.data import Dataset
from prl_keras.data.catalog import held_out_draws
from prl_keras.data.held_out import one_of_each
from prl_keras.errors import InputError
from prl_keras.experiments import jobs, shared
from prl_keras.experiments.beyond import FEW_SHOT, SHIFT, UNKNOWN
from prl_keras.experiments.cells import Cell, Replicate, encoder_run, replicates
from prl_keras.experiments.table import of_beyond
from prl_keras.files import write_json, write_text
from prl_keras.runs import Run
from prl_keras.runs.leases import end_process
from prl_keras.screen.console import print_end, say
from prl_keras.startup import forget_models, start_keras
from prl_keras.terminal import quoted

_KINDS = {  # file -> how `evaluate` is asked for it, and with which of the options
    FEW_SHOT: ("few_shot", ("ways", "shots", "queries", "episodes")),
    UNKNOWN: ("unknown", ("far",)),
    SHIFT: ("shift", ()),  # with errors relative to those of cross-entropy, which comes first
}


def run(
    table: Run, cells: list[Cell], options: Reproduce, dataset: Dataset, command: str, facts: dict[str, Any]
) -> None:
    """facts: what the result says besides."""
    start_keras(0)
    from prl_keras.experiments.beyond import as_markdown, draw, sentences, together

    _measure(table, cells, options)
    found = together(table.path, replicates(options), sources=of_beyond(options.recipe))
    file, page = table.path / "result.json", table.path / "beyond.md"
    picture = draw(found, table.path / "beyond.png")
    write_text(page, as_markdown(found, dataset.label, command))
    write_json(file, facts | found)
    for sentence in sentences(found):
        say(sentence)
    print_end([page, picture, file], [f"python main.py runs --runs-dir {quoted([str(table.path)])}"])


def check(options: Reproduce, request: dict[str, Any], dataset: Dataset) -> None:
    """Raise InputError, before anything is trained, if the encoders could not be measured afterwards."""
    check_far(options.far, request)
    for name in options.far:
        load_far(name, request, dataset)
    seeds = sorted({each.seed for each in replicates(options)})
    for novel in held_out_draws(seeds, **request):
        check_episodes(one_of_each(novel)[0], options)


def check_recipe(table: Run, recipe: str) -> None:
    """Raise InputError if the table has encoders of the other one: a folder has one page."""
    other = "strong" if recipe == "open" else "open"
    if next(table.path.glob(f"{other}-*-s*/config.json"), None):
        raise InputError(f"{table.path} has encoders by --recipe {other}: choose another --name")


def files(cells: list[Cell], options: Reproduce) -> list[Path]:
    """What the measurements are."""
    return [each.file for each in _measurements(cells, options)]


def _measure(table: Run, cells: list[Cell], options: Reproduce) -> None:
    """What is missing, or was measured in another way; what the measurements print goes into reproduce.log."""
    todo = [each for each in _measurements(cells, options) if not each.done]
    number = itertools.count(1)

    def begin(measurement: Measurement) -> None:
        say(f"measuring {next(number)} of {len(todo)}: {measurement.description}")

    count = min(options.jobs or jobs.automatic(), len(todo))
    if count > 1:
        jobs.run_all(todo, measure, log_files(table, count), begin, lambda _: None)
        return
    with log_files(table, 1)[0].open("a", buffering=1, encoding="utf-8") as log:
        for each in todo:
            begin(each)
            with redirect_stdout(log), redirect_stderr(log):
                measure(each)


def measure_together(table: Run, cells: list[Cell], options: Reproduce) -> None:
    """What nobody else measures, until nothing is missing."""

    def quietly(measurement: Measurement) -> None:
        with redirect_stdout(log), redirect_stderr(log):
            measure(measurement)

    with own_log(table).open("a", buffering=1, encoding="utf-8") as log:
        shared.work_together(
            _measurements(cells, options),
            table.path,
            quietly,
            lambda task: say(f"measuring {task.description}"),
            *[lambda _: None] * 2,
            end_process,
            options.lease_seconds,
        )


@dataclass(frozen=True)
class Measurement:
    """One file of a run; a `shared.SharedTask`.

    how: what `evaluate` is asked for.
    """

    how: Evaluate
    file: Path

    @property
    def description(self) -> str:
        return f"{self.how.run}, {self.file.stem.replace('_', ' ')}"

    @property
    def lease(self) -> str:
        return f"{self.how.run}-{self.file.stem}"

    @property
    def gives(self) -> Path:
        return self.file

    @property
    def needs(self) -> Path | None:
        """Errors are relative to those of another run."""
        return None if self.how.relative_to is None else self.how.runs_dir / self.how.relative_to / SHIFT

    @property
    def done(self) -> bool:
        """Whether the file is what `evaluate` would write now. What is damaged is told by who reads it."""
        how = self.how
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
            if how.few_shot:
                numbers = [content[name] == getattr(how, name) for name in ("ways", "queries", "episodes")]
                return all(numbers) and set(content["accuracy"]) == set(map(str, how.shots)) and "drawn_from" in content
            if how.unknown:
                return content["far"] == list(how.far)
            same = content["corruptions"]["seed"] == how.seed and "by_classifier" in content
            return same and content.get("relative_to", {}).get("run") == how.relative_to
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, TypeError, AttributeError):
            return True


def measure(measurement: Measurement) -> None:
    start_keras(0)
    forget_models()
    evaluate.run(measurement.how)


def _measurements(cells: list[Cell], options: Reproduce) -> list[Measurement]:
    found = []
    for cell in cells:
        reference = encoder_run(
            cell.run.path.parent, f"{cell.options.recipe}-resnet18", Replicate(cell.options.seed)
        ).name
        for name, (kind, wanted) in _KINDS.items():
            given: dict[str, Any] = {key: getattr(options, key) for key in wanted}
            if name == SHIFT and cell.name != reference:
                given["relative_to"] = reference
            how = Evaluate(run=cell.name, runs_dir=cell.options.runs_dir, **{kind: True}, **given)
            found.append(Measurement(how, cell.run.path / name))
    return found
