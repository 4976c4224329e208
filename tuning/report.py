"""Trials as rows: progress lines, the table of the best, trials.csv.

Imports `commands.common`, `evaluation`, `runs` and its siblings in `tuning`.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from prl_keras.commands.common import percent
from prl_keras.evaluation.statistics import proportion
from prl_keras.runs import atomic_path
from tuning.parallel import last_line
from tuning.space import PAPER, complete_values, is_paper


@dataclass(frozen=True)
class Row:
    """One finished trial; `validation` is a `statistics.proportion` at its best epoch."""

    number: int
    values: dict[str, Any]
    validation: dict[str, Any]
    best_epoch: int
    epochs: int
    seconds: float

    @property
    def paper(self) -> bool:
        """Whether it is one of the paper's four configurations."""
        return is_paper(self.values)


def finished_rows(trials: list[Any], encoders: tuple[str, ...], validation_images: int) -> list[Row]:
    """Keras Tuner's completed trials, in the order in which they began."""
    done = [trial for trial in trials if trial.status == "COMPLETED"]
    rows = [_row(trial, encoders, validation_images) for trial in done]
    return sorted(rows, key=lambda row: row.number)


def best_first(rows: list[Row]) -> list[Row]:
    """By validation accuracy; of equals the one tried first, so that the paper's win over what is no better."""
    return sorted(rows, key=lambda row: (-row.validation["correct"], row.number))


def _row(trial: Any, encoders: tuple[str, ...], n: int) -> Row:
    metric = trial.metrics.get_last_value
    return Row(
        number=int(trial.trial_id) + 1,
        values=complete_values(trial.hyperparameters.values, encoders),
        validation=proportion(round(trial.score * n), n),
        best_epoch=int(metric("best_epoch")),
        epochs=int(metric("epochs")),
        seconds=round(float(metric("seconds")), 1),
    )


def describe(values: dict[str, Any], with_encoder: bool) -> str:
    """One configuration in words; what is as in the paper and seldom looked at is left out."""
    parts = [values["encoder"]] if with_encoder else []
    parts += [f"{values['head']} head", "frozen" if values["freeze"] else "unfrozen", f"lr {values['learning_rate']:g}"]
    seldom = {"weight_decay": "decay", "dropout": "dropout", "augment": "augment"}
    parts += [f"{word} {values[name]}" for name, word in seldom.items() if values[name] != PAPER[name]]
    return ", ".join(parts)


def progress_line(trial: Any, best: float | None, max_trials: int, encoders: tuple[str, ...]) -> str:
    """What a user reads when a trial ended."""
    values = complete_values(trial.hyperparameters.values, encoders)
    start = f"trial {int(trial.trial_id) + 1} of {max_trials}: {describe(values, len(encoders) > 1)}: "
    if trial.status != "COMPLETED":
        return f"{start}failed ({last_line(trial.message or '')})"
    metric = trial.metrics.get_last_value
    score = f"validation {100 * trial.score:.1f} % after {metric('best_epoch'):.0f} of {metric('epochs'):.0f} epochs"
    return f"{start}{score}, best so far {100 * max(best or 0, trial.score):.1f} %, {metric('seconds'):.0f} s"


def best_table(rows: list[Row], most: int = 10) -> Table:
    """The best trials with their intervals; the paper's configurations are marked."""
    title = f"The best of {len(rows)} trials on validation (n = {rows[0].validation['n']}); * the paper's settings"
    table = Table(title=title, title_justify="left")
    for column in ("trial", "configuration"):
        table.add_column(column, overflow="fold")
    for column in ("epochs", "validation", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    several = len({row.values["encoder"] for row in rows}) > 1
    for row in best_first(rows)[:most]:
        interval = f"{100 * row.validation['low']:.1f} - {100 * row.validation['high']:.1f}"
        number = f"{row.number}{'*' if row.paper else ''}"
        table.add_row(number, describe(row.values, several), str(row.best_epoch), percent(row.validation), interval)
    return table


def write_csv(rows: list[Row], file: Path) -> Path:
    """One line a finished trial, in the order of the trials."""
    with atomic_path(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        facts = ["best_epoch", "epochs", "seconds", "paper"]
        figures = ["correct", "n", "value", "low", "high"]
        writer.writerow(["trial", *rows[0].values, *facts, *(f"validation_{name}" for name in figures)])
        for row in rows:
            numbers = [row.validation[name] for name in figures]
            writer.writerow([row.number, *row.values.values(), *(getattr(row, name) for name in facts), *numbers])
    return file
