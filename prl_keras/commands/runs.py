"""`python main.py runs`: the runs with their figures."""

from rich import box
from rich.table import Table

from prl_keras.commands.common import Terminal, console, percent
from prl_keras.config import Runs
from prl_keras.errors import InputError
from prl_keras.runs import Run, in_folder, scan_runs
from prl_keras.terminal import warn


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
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", no_wrap=True)  # to be copied
    table.add_column("command", no_wrap=True)
    table.add_column("data", overflow="fold")
    for column in ("epochs", "valid.", "test (95 % interval)"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Terminal(width=max(console.width, 100)).print(table)  # rather wide than cut
    console.print("valid.: accuracy of the classifier, or of the nearest prototype for a pre-training run")


def _row(run: Run) -> list[str]:
    command, result = run.part("command"), run.result
    cells = [run.name, command, run.part("data")["request"]["name"]]
    total = run.part("options").get("epochs", "?")
    if result is None:
        lines = run.metrics
        done = lines[-1]["epoch"] if lines else 0
        return [*cells, f"{done}/{total}", "", "unfinished"]
    total = result.get("epochs", total)
    figures = result.get("accuracy")
    if command == "reproduce":
        return [*cells, str(total), "", "its report.html"]
    if figures is None:
        value = result.get("saved_encoder", {}).get("val_prototype_accuracy")
        return [*cells, str(total), "" if value is None else f"{100 * value:.1f} %", ""]
    test = figures["test"]
    validation = percent(figures["validation"]) if "validation" in figures else "in train"
    interval = f"{percent(test)} ({100 * test['low']:.1f} - {100 * test['high']:.1f})"
    return [*cells, str(total), validation, interval]
