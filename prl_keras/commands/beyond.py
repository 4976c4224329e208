"""`python main.py reproduce --rows beyond`: every trained encoder is measured on what it never saw, then the page."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from prl_keras.commands import evaluate
from prl_keras.config import Evaluate, Reproduce
from prl_keras.data import Dataset
from prl_keras.experiments.beyond import FEW_SHOT, SHIFT, UNKNOWN
from prl_keras.experiments.table import STRONG_SUPERVISED, Cell, Replicate, encoder_run, replicates
from prl_keras.files import write_json, write_text
from prl_keras.runs import Run
from prl_keras.screen.console import print_end, say
from prl_keras.startup import start_keras
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
    found = together(table.path, replicates(options))
    file, page = table.path / "result.json", table.path / "beyond.md"
    picture = draw(found, table.path / "beyond.png")
    write_text(page, as_markdown(found, dataset.label, command))
    write_json(file, facts | found)
    for sentence in sentences(found):
        say(sentence)
    print_end([page, picture, file], [f"python main.py runs --runs-dir {quoted([str(table.path)])}"])


def _measure(table: Run, cells: list[Cell], options: Reproduce) -> None:
    """What is missing; what the measurements print goes into reproduce.log."""
    to_do = [(cell, name) for cell in cells for name in _KINDS if not (cell.run.path / name).exists()]
    with (table.path / "reproduce.log").open("a", buffering=1, encoding="utf-8") as log:
        for number, (cell, name) in enumerate(to_do, start=1):
            say(f"measuring {number} of {len(to_do)}: {cell.name}, {name.removesuffix('.json').replace('_', ' ')}")
            with redirect_stdout(log), redirect_stderr(log):
                evaluate.run(_asked(cell, name, options))


def _asked(cell: Cell, name: str, options: Reproduce) -> Evaluate:
    kind, wanted = _KINDS[name]
    given: dict[str, Any] = {key: getattr(options, key) for key in wanted}
    reference = encoder_run(cell.run.path.parent, STRONG_SUPERVISED, Replicate(cell.options.seed)).name
    if name == SHIFT and cell.name != reference:
        given["relative_to"] = reference
    return Evaluate(run=cell.name, runs_dir=cell.options.runs_dir, **{kind: True}, **given)
