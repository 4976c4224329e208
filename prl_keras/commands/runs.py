"""`python main.py runs`: the runs with their figures."""

from rich import box
from rich.table import Table

from prl_keras.commands.common import Terminal, console, percent
from prl_keras.config import Runs
from prl_keras.errors import InputError
from prl_keras.runs import Run, list_runs


def run(options: Runs) -> None:
    runs = list_runs(options.runs_dir)
    if not runs:
        console.print(f"No runs in {options.runs_dir} yet. Make one:\n  python main.py pretrain --variant query")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", no_wrap=True)  # to be copied
    table.add_column("command", no_wrap=True)
    table.add_column("data", overflow="fold")
    for column in ("epochs", "valid.", "test (95 % interval)"):
        table.add_column(column, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(*_row(run))
    Terminal(width=max(console.width, 100), highlight=False).print(table)  # rather wide than cut
    console.print("valid.: accuracy of the classifier, or of the nearest prototype for a pre-training run")


def _row(run: Run) -> list[str]:
    config, result = run.config, run.result
    if not {"command", "data", "options"} <= config.keys():
        raise InputError(f"{run.path / 'config.json'} is incomplete; restore it, or remove the run's folder")
    cells = [run.name, config["command"], config["data"]["request"]["name"]]
    total = config["options"].get("epochs", "?")
    if result is None:
        done = run.metrics[-1]["epoch"] if run.metrics else 0
        return [*cells, f"{done}/{total}", "", "unfinished"]
    total = result.get("epochs", total)
    figures = result.get("accuracy")
    if config["command"] == "reproduce":
        return [*cells, str(total), "", "its report.html"]
    if figures is None:
        value = result.get("saved_encoder", {}).get("val_prototype_accuracy")
        return [*cells, str(total), "" if value is None else f"{100 * value:.1f} %", ""]
    test = figures["test"]
    validation = percent(figures["validation"]) if "validation" in figures else "in train"
    interval = f"{percent(test)} ({100 * test['low']:.1f} - {100 * test['high']:.1f})"
    return [*cells, str(total), validation, interval]
