"""`python main.py runs`: the runs with their figures."""

from typing import Any

from rich import box
from rich.table import Table

from prl_keras.commands.common import Terminal, console, is_balanced, percent, percent_interval, worst_class
from prl_keras.config import Runs
from prl_keras.data.splits import dataset_label
from prl_keras.errors import InputError
from prl_keras.runs import Run, list_runs

_WIDTH = 120  # at least: rather wide than cut


def run(options: Runs) -> None:
    runs = list_runs(options.runs_dir, skip_damaged=True)
    rows, faults = [], _unreadable(options, runs)
    for run in runs:
        try:
            rows.append(_row(run))
        except InputError as error:
            faults.append((run.name, error))
    if rows:
        _print(rows)
    if faults:
        names = ", ".join(name for name, _ in faults)
        raise InputError(f"{'not listed: ' if rows else ''}{names}: {faults[0][1]}")
    if not runs:
        console.print(f"No runs in {options.runs_dir} yet. Make one:\n  python main.py pretrain --variant query")


def _unreadable(options: Runs, listed: list[Run]) -> list[tuple[str, InputError]]:
    """Folders whose config.json cannot be read, and why."""
    faults = []
    names = {run.name for run in listed}
    for file in sorted(options.runs_dir.glob("[!.]*/config.json")):
        if file.parent.name not in names:
            try:
                _ = Run(file.parent).config
            except InputError as error:
                faults.append((file.parent.name, error))
    return faults


def _print(rows: list[list[str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", no_wrap=True)  # to be copied
    table.add_column("command", no_wrap=True)
    table.add_column("data", overflow="fold")
    for column in ("epochs", "valid.", "test (95 % interval)", "balanced"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("worst class", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Terminal(width=max(console.width, _WIDTH), highlight=False, markup=False, emoji=False).print(table)
    console.print("valid.: accuracy of the classifier, or of the nearest prototype for a pre-training run")
    if any(row[-1] for row in rows):
        console.print(
            "balanced: test accuracy with every class weighing the same, where that differs; worst class: of test"
        )


def _row(run: Run) -> list[str]:
    config, result = run.config, run.result
    if not {"command", "data", "options"} <= config.keys():
        raise InputError(f"{run.path / 'config.json'} is incomplete; restore it, or remove the run's folder")
    cells = [run.name, config["command"], dataset_label(config["data"]["request"]["name"])]
    total = config["options"].get("epochs", "?")
    if result is None:
        done = run.metrics[-1]["epoch"] if run.metrics else 0
        return [*cells, f"{done}/{total}", "", "unfinished", "", ""]
    cells.append(str(result.get("epochs", total)))
    figures = result.get("accuracy")
    if config["command"] == "reproduce":
        return [*cells, "", "its report.html", "", ""]
    if figures is None:
        value = result.get("saved_encoder", {}).get("val_prototype_accuracy")
        return [*cells, "" if value is None else f"{100 * value:.1f} %", "", "", ""]
    validation = percent(figures["validation"]) if "validation" in figures else "in train"
    return [*cells, validation, *_test_cells(figures["test"], config["data"]["class_names"])]


def _test_cells(test: dict[str, Any], class_names: list[str]) -> list[str]:
    balanced = "" if is_balanced(test) else f"{100 * test['balanced']:.1f} %"
    return [f"{percent(test)} ({percent_interval(test)})", balanced, worst_class(test, class_names)]
