"""After the search: what it found, the winner's training and its one test."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from prl_keras.commands.common import run_argument
from prl_keras.commands.finetune import train_and_test
from prl_keras.config import Finetune, Tune, option_words, unused_options
from prl_keras.files import write_json
from prl_keras.runs import Run, is_finished
from prl_keras.runs.lifecycle import NOT_RECORDED
from prl_keras.screen.console import console, print_end, say, tensorboard_command
from prl_keras.terminal import quoted
from prl_keras.tuning.figures import FEWEST, plot_importance, plot_parallel
from prl_keras.tuning.report import Row, best_first, best_table, cannot_choose, write_csv
from prl_keras.tuning.space import finetune_options, winner_name


def finish(run: Run, rows: list[Row], options: Tune) -> None:
    """Report, train the winner, write result.json. All of it can be repeated after an interruption."""
    class_names = run.part("data", "class_names")
    written = [write_csv(rows, class_names, run.path / "trials.csv")]
    console.print()
    console.print(best_table(rows, class_names))
    best = best_first(rows)[0]
    if warning := cannot_choose(rows):
        console.print(f"warning: {warning}")
    settings = winner_settings(best, run, options)
    say(
        f"\nTraining the winner, trial {best.number} by {best.validation['n']:,} validation images, "
        f"on train + validation with seed {settings.seed}"
    )
    winner = _trained(settings)
    write_json(run.path / "result.json", _result(run, rows, best, winner, settings))
    written += _pictures(run, rows)  # last: one that cannot be drawn loses nothing
    reference = run_argument(winner, options.runs_dir)
    print_end(
        [*written, run.path / "result.json", winner.classifier_file],
        [
            f"{tensorboard_command(run.path / 'logs')}   # its HParams tab compares the trials",
            f"python main.py predict {reference} IMAGE...",
            f"python main.py evaluate {reference}",
        ],
    )


def winner_settings(best: Row, run: Run, options: Tune) -> Finetune:
    """An ordinary fine-tuning on train + validation: as many epochs as were best, another seed.

    A trial's best epoch is the luckiest of several draws; the average of the weights is what can be repeated.
    """
    return finetune_options(
        best.values,
        options,
        epochs=best.best_epoch,
        seed=options.seed + 1,
        include_validation=True,
        average=True,
        name=winner_name(run.name),
    )


def command_line(settings: Finetune) -> str:
    """The `finetune` command that trains the same again; name and folder of the run are left to the reader."""
    words, idle = ["python", "main.py", "finetune"], unused_options("finetune", vars(settings))
    for field in fields(Finetune):
        value = getattr(settings, field.name)
        if field.name in NOT_RECORDED or field.name in idle or (value == field.default and field.name != "encoder"):
            continue
        words += option_words(field.name, value)
    return quoted(words)


def _pictures(run: Run, rows: list[Row]) -> list[Path]:
    plots = run.path / "plots"
    parallel = plot_parallel(rows, run.name, plots / "parallel.png")
    importance = plot_importance(rows, run.name, plots / "importance.png")
    if importance is None:
        console.print(f"No picture of importances: it takes {FEWEST} trials that differ in accuracy")
    return [parallel] if importance is None else [parallel, importance]


def _trained(settings: Finetune) -> Run:
    """The winner's run: new, continued, or finished already when the search was interrupted after it."""
    winner = Run(settings.runs_dir / settings.name)
    started = (winner.path / "config.json").exists()
    if started and is_finished(winner):
        return winner
    return train_and_test(replace(settings, resume=started))[0]


def _result(run: Run, rows: list[Row], best: Row, winner: Run, settings: Finetune) -> dict[str, Any]:
    test = winner.result["accuracy"]["test"]
    return {
        "trials": len(rows),
        "seconds": round(sum(row.seconds for row in rows), 1),
        "best": {"trial": best.number, **best.values, "epochs": best.best_epoch, "validation": best.validation},
        "paper_configurations": [
            {"trial": row.number, **row.values, "epochs": row.best_epoch, "validation": row.validation}
            for row in rows
            if row.paper
        ],
        "winner_run": winner.name,
        "winner_command": command_line(settings),
        "accuracy": {"validation": best.validation, "test": test},
    }
