"""`python main.py runs`: the runs with their figures."""

from typing import Any

from prl_keras.config import Runs
from prl_keras.data.splits import dataset_label
from prl_keras.errors import InputError
from prl_keras.runs import Run, in_folder, scan_runs
from prl_keras.screen.console import Terminal, console, is_balanced, percent, percent_interval, slim_table, worst_class
from prl_keras.terminal import warn

_WIDTH = 120  # at least: rather wide than cut


def run(options: Runs) -> None:
    runs, complaints = scan_runs(options.runs_dir)
    rows = []
    for run in runs:
        try:
            rows.append(_row(run))
        except InputError as error:
            complaints.append(error)
    if rows:
        _show(rows)
    elif not complaints:
        make = f"python main.py pretrain --variant query{in_folder(options.runs_dir)}"
        console.print(f"No runs in {options.runs_dir} yet. Make one:\n  {make}")
    for complaint in complaints:
        warn(f"not listed: {complaint}")


def _show(rows: list[list[str]]) -> None:
    table = slim_table()
    table.add_column("run", no_wrap=True)  # to be copied
    table.add_column("command", no_wrap=True)
    table.add_column("data", overflow="fold")
    for column in ("epochs", "valid.", "test (95 % interval)", "balanced"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("worst class", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Terminal(width=max(console.width, _WIDTH)).print(table)
    console.print("valid.: accuracy of the classifier, or of the nearest prototype for a pre-training run")
    if any(row[-1] for row in rows):
        console.print(
            "balanced: accuracy with every class weighing the same, where that differs; "
            "this and the worst class: of test, for a pre-training run of validation"
        )


def _row(run: Run) -> list[str]:
    command, data, result = run.part("command"), run.part("data"), run.result
    cells = [run.name, command, dataset_label(data["request"]["name"])]
    total = run.part("options").get("epochs", "?")
    if result is None:
        lines = run.metrics
        done = lines[-1]["epoch"] if lines else 0
        return [*cells, f"{done}/{total}", "", "unfinished", "", ""]
    cells.append(str(result.get("epochs", total)))
    figures = result.get("accuracy")
    if command == "reproduce":
        return [*cells, "", "its report.html", "", ""]
    if figures is None:
        saved = result.get("saved_encoder", {})
        if "val_prototype" in saved:
            return [*cells, percent(saved["val_prototype"]), "", *_classes(saved["val_prototype"], data["class_names"])]
        value = saved.get("val_prototype_accuracy")
        return [*cells, "" if value is None else f"{100 * value:.1f} %", "", "", ""]
    validation = percent(figures["validation"]) if "validation" in figures else "in train"
    test = figures["test"]
    return [*cells, validation, f"{percent(test)} ({percent_interval(test)})", *_classes(test, data["class_names"])]


def _classes(figure: dict[str, Any], class_names: list[str]) -> list[str]:
    balanced = "" if is_balanced(figure) else f"{100 * figure['balanced']:.1f} %"
    return [balanced, worst_class(figure, class_names)]
