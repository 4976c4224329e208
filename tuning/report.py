"""Trials as rows: progress lines, the table of the best, trials.csv."""

import csv
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from prl_keras.evaluation.statistics import proportion
from prl_keras.files import atomic_path
from prl_keras.screen.console import is_balanced, percent, percent_interval, slim_table, worst_class
from prl_keras.screen.pace import duration
from prl_keras.tuning.parallel import last_line
from prl_keras.tuning.space import PAPER, complete_values, is_paper


@dataclass(frozen=True)
class Row:
    """One finished trial; `validation` is a `statistics.accuracy` at its best epoch, and `loss` the loss there.

    Trials of older versions have no loss, and of the accuracy no classes.
    """

    number: int
    values: dict[str, Any]
    validation: dict[str, Any]
    best_epoch: int
    epochs: int
    seconds: float
    loss: float | None = None

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
    """By validation accuracy; of equals by loss, where all trials know theirs; then the one that was tried first."""
    known = all(row.loss is not None for row in rows)
    return sorted(rows, key=lambda row: (-row.validation["correct"], row.loss if known else 0.0, row.number))


def cannot_choose(rows: list[Row]) -> str | None:
    """One line if the best trial's interval holds others."""
    best, *others = (row.validation for row in best_first(rows))
    tied = sum(other["value"] >= best["low"] for other in others)
    if not tied:
        return None
    which = f"all {len(rows)}" if tied == len(others) else f"{tied} of the {len(others)} others"
    return (
        f"validation cannot choose a trial: {which} are within the best one's interval on {best['n']:,} "
        f"image{'' if best['n'] == 1 else 's'}"
    )


def _row(trial: Any, encoders: tuple[str, ...], n: int) -> Row:
    values = {name: trial.metrics.get_last_value(name) for name in trial.metrics.metrics}
    return Row(
        number=int(trial.trial_id) + 1,
        values=complete_values(trial.hyperparameters.values, encoders),
        validation=proportion(round(trial.score * n), n) | _classes(values),
        best_epoch=int(values["best_epoch"]),
        epochs=int(values["epochs"]),
        seconds=round(float(values["seconds"]), 1),
        loss=None if values.get("val_loss") is None else float(values["val_loss"]),
    )


def _classes(values: dict[str, float | None]) -> dict[str, Any]:
    """What `prl_keras.tuning.best` kept, in the words of `statistics.accuracy`."""
    if values.get("balanced") is None:
        return {}
    worst = {key: int(values[f"worst_{key}"]) for key in ("class", "correct", "n")}
    return {"balanced": float(values["balanced"]), "worst": worst | {"value": worst["correct"] / worst["n"]}}


def describe(values: dict[str, Any], with_encoder: bool) -> str:
    """One configuration in words; what is as in the paper and seldom looked at is left out."""
    parts = [values["encoder"]] if with_encoder else []
    parts += [f"{values['head']} head", "frozen" if values["freeze"] else "unfrozen", f"lr {values['learning_rate']:g}"]
    seldom = {"weight_decay": "decay", "dropout": "dropout", "augment": "augment"}
    parts += [f"{word} {values[name]}" for name, word in seldom.items() if values[name] != PAPER[name]]
    return ", ".join(parts)


def trial_header(max_trials: int) -> Text:
    """The names of what stands in a `trial_line`."""
    return Text(f"{'':{len(_number(1, max_trials))}}  validation     epoch     time  configuration", "bold")


def trial_line(trial: Any, best: float | None, max_trials: int, encoders: tuple[str, ...], width: int | None) -> Text:
    """What a user reads when a trial ended: its best epoch and how many there were, its time, what it was.

    width: fold the last column so that no line is longer; None: one line.
    """
    configuration = describe(complete_values(trial.hyperparameters.values, encoders), len(encoders) > 1)
    metric = trial.metrics.get_last_value
    is_best = trial.status == "COMPLETED" and trial.score >= (best or 0.0)
    if trial.status == "COMPLETED":
        score = f"{100 * trial.score:.1f} %{' best' if is_best else ''}"
        epochs, seconds = f"{metric('best_epoch'):.0f} of {metric('epochs'):.0f}", duration(metric("seconds"))
        configuration += _beside(trial)
    else:
        score, epochs, seconds = "failed", "", ""
        configuration += f": {last_line(trial.message or '')}"
    before = [
        (f"{_number(int(trial.trial_id) + 1, max_trials)}  ", ""),
        (f"{score:12}", "bold green" if is_best else ""),
    ]
    start = Text.assemble(*before, f"{epochs:>8}{seconds:>9}  ")
    lines = [configuration] if width is None else textwrap.wrap(configuration, max(width - len(start), 20))
    return start + Text(("\n" + " " * len(start)).join(lines))


def trial_title(number: int, values: dict[str, Any], max_trials: int, encoders: tuple[str, ...]) -> str:
    return f"{_number(number, max_trials)}: {describe(complete_values(values, encoders), len(encoders) > 1)}"


def _number(number: int, max_trials: int) -> str:
    return f"trial {number:{len(str(max_trials))}} of {max_trials}"


def _beside(trial: Any) -> str:
    """Balanced accuracy, where it shows that it is another."""
    balanced = {name: trial.metrics.get_last_value(name) for name in trial.metrics.metrics}.get("balanced")
    if balanced is None or f"{100 * balanced:.1f}" == f"{100 * trial.score:.1f}":
        return ""
    return f" (balanced {100 * balanced:.1f} %)"


def best_table(rows: list[Row], class_names: Sequence[str], most: int = 10) -> Table:
    """The best trials with their intervals; the paper's configurations are marked."""
    title = f"The best of {len(rows)} trials on validation (n = {rows[0].validation['n']}); * the paper's settings"
    table = slim_table(title)
    shown = best_first(rows)[:most]
    balanced = any(not is_balanced(row.validation) for row in shown)
    for column in ("trial", "configuration"):
        table.add_column(column, overflow="fold")
    for column in ("epochs", "validation", "95 % interval", *(["balanced"] if balanced else [])):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("worst class", overflow="fold")
    several = len({row.values["encoder"] for row in rows}) > 1
    for row in shown:
        figure = row.validation
        cells = [f"{row.number}{'*' if row.paper else ''}", describe(row.values, several), str(row.best_epoch)]
        cells += [percent(figure), percent_interval(figure)]
        cells += [f"{100 * figure['balanced']:.1f} %" if "balanced" in figure else ""] if balanced else []
        table.add_row(*cells, Text(worst_class(figure, class_names)))
    return table


def write_csv(rows: list[Row], class_names: Sequence[str], file: Path) -> Path:
    """One line a finished trial, in the order of the trials."""
    with atomic_path(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        facts = ["best_epoch", "epochs", "seconds", "paper"]
        figures = ["correct", "n", "value", "low", "high", "balanced"]
        worst = ["class", "correct", "n", "value"]
        names = [*figures, *(f"worst_{name}" for name in worst)]
        writer.writerow(
            ["trial", *rows[0].values, *facts, "validation_loss", *(f"validation_{name}" for name in names)]
        )
        for row in rows:
            numbers = [row.validation.get(name, "") for name in figures]
            last = dict(row.validation.get("worst", {}))
            if last:
                last["class"] = class_names[last["class"]]
            numbers += [last.get(name, "") for name in worst]
            loss = "" if row.loss is None else row.loss
            writer.writerow([row.number, *row.values.values(), *(getattr(row, name) for name in facts), loss, *numbers])
    return file
