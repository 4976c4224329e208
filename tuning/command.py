"""`python main.py tune`: search for the best fine-tuning on validation, then test the winner once."""

import os
import shutil
import time
from dataclasses import replace
from typing import Any

import numpy as np

from prl_keras.commands.common import (
    check_name,
    check_training,
    console,
    data_request_of_run,
    open_data,
    print_end,
    run_argument,
    start_run,
    tensorboard_command,
)
from prl_keras.commands.finetune import check_encoder, train_and_save
from prl_keras.config import Finetune, Tune
from prl_keras.data import Dataset, Split
from prl_keras.errors import InputError
from prl_keras.runs import Run, find_run, has_encoder, write_json
from prl_keras.startup import start_keras

DEFAULT_TRIALS = 20
WAIT_FOR_CHIEF = 120  # seconds until a worker gives up


def run(options: Tune) -> None:
    role = os.environ.get("KERASTUNER_TUNER_ID")  # Keras Tuner's: "chief", another name for a worker, or unset
    if role and not options.name:
        raise InputError("KERASTUNER_TUNER_ID is set: give chief and workers the same --name (see docs/tuning.md)")
    if role in (None, "chief"):
        check_name(options)
    _check(options)
    sources = _sources(options)
    options = replace(options, encoder=tuple(sources))
    first = next(iter(sources.values()))
    request = data_request_of_run(first, options)
    dataset = open_data(request, first)
    check_training(_trial_numbers(options), len(dataset.train), whole_batches=False)
    for name, source in sources.items():
        if data_request_of_run(source, options) != request:
            raise InputError(
                f"encoders {first.name!r} and {name!r} were trained on other data or another validation split "
                "(see --split-seed of pretrain): tune encoders that share them"
            )
        check_encoder(tuple(source.config["data"]["image_shape"]), dataset, name)
    start_keras(options.seed)
    if role not in (None, "chief"):
        _search(_run_of_chief(options), sources, dataset, options)
        console.print("no trials left for this worker; the chief trains the winner")
        return
    run = start_run("tune", options, f"tune-{dataset.name}", request, dataset)
    oracle = _search(run, sources, dataset, options)
    _finish(run, oracle, sources, request, dataset, options)


def _trial_numbers(options: Tune) -> Finetune:
    """The numbers of a trial, for `check_training`."""
    return Finetune(epochs=options.epochs, batch_size=options.batch_size)


def _check(options: Tune) -> None:
    if options.max_trials is not None and options.tuner in ("hyperband", "grid"):
        raise InputError(f"--max-trials plays no part in --tuner {options.tuner}: leave it out")
    if options.max_trials is not None and options.max_trials < 1:
        raise InputError(f"--max-trials is {options.max_trials}; expected at least 1")
    if options.patience < 1:
        raise InputError(f"--patience is {options.patience}; expected at least 1")


def _sources(options: Tune) -> dict[str, Run]:
    runs = [find_run(name, options.runs_dir, has_encoder, "pre-trained encoder") for name in options.encoder]
    sources = {run.name: run for run in runs}
    if len(sources) < len(runs):
        raise InputError(f"--encoder {' '.join(options.encoder)} names a run twice; name each once")
    return sources


def _run_of_chief(options: Tune) -> Run:
    """The chief makes the run; workers may start before it."""
    end = time.monotonic() + WAIT_FOR_CHIEF
    while not (options.runs_dir / options.name / "config.json").exists():
        if time.monotonic() > end:
            raise InputError(f"no chief has made run {options.name!r} in {WAIT_FOR_CHIEF} s: start it first")
        time.sleep(0.5)
    return Run(options.runs_dir / options.name)


def _search(run: Run, sources: dict[str, Run], dataset: Dataset, options: Tune) -> Any:
    """Run (or serve, or help with) the trials that are left; returns the oracle, which knows them all."""
    from prl_keras.models.storage import load_encoder
    from prl_keras.training.tensorboard import log_hparams
    from tuning.hypermodel import FineTuning, SearchData
    from tuning.report import describe
    from tuning.search import Search, make_oracle
    from tuning.space import declare, paper_configurations

    names = list(sources)
    hypermodel = FineTuning(
        {name: load_encoder(source) for name, source in sources.items()},
        SearchData.of(dataset),  # from here on there is no test split
        run.path / "features",
        options.batch_size,
        options.epochs,
        options.patience,
        options.seed,
    )
    max_trials = options.max_trials or DEFAULT_TRIALS
    given = paper_configurations(names)[:max_trials]
    space = declare(names, grid=options.tuner == "grid")
    oracle = make_oracle(options.tuner, space, given, max_trials, options.epochs, options.seed)
    best = 0.0

    def report(trial: str, values: dict[str, Any], metrics: dict[str, float]) -> None:
        nonlocal best
        best = max(best, metrics["val_accuracy"])
        of = f" of {max_trials}" if options.tuner in ("random", "bayesian") else ""
        console.print(
            f"trial {int(trial) + 1}{of}: {describe(values)}: {100 * metrics['val_accuracy']:.1f} % on validation, "
            f"epoch {metrics['best_epoch']}, {metrics['seconds']:.0f} s (best {100 * best:.1f} %)"
        )
        log_hparams(run.path / "logs" / "trials" / trial, f"{run.name} {trial}", values, metrics["val_accuracy"])

    search = Search(oracle, hypermodel, run.path / "trials", report)
    best = max([0.0, *(trial.score or 0.0 for trial in search.oracle.get_best_trials(1))])
    if os.environ.get("KERASTUNER_TUNER_ID") == "chief":
        console.print(f"{run.name}: waiting for workers")
    search.search(verbose=0)
    return oracle


def _finish(
    run: Run, oracle: Any, sources: dict[str, Run], request: dict[str, Any], dataset: Dataset, options: Tune
) -> None:
    from tuning.report import best_table, plot_importance, plot_parallel, with_intervals, write_csv
    from tuning.search import trial_rows

    rows = with_intervals(trial_rows(oracle), len(dataset.validation))
    if not rows or rows[0]["val_accuracy"] is None:
        reason = next((trial.message.splitlines()[-1] for trial in oracle.trials.values() if trial.message), "")
        raise RuntimeError(f"every trial of {run.name} failed: {reason}")
    written = [
        write_csv(rows, run.path / "trials.csv"),
        plot_parallel(rows, run.path / "plots" / "parallel.png"),
        plot_importance(rows, run.path / "plots" / "importance.png"),
    ]
    console.print()
    console.print(best_table(rows))
    winner = _train_winner(run, rows[0], sources, request, dataset, options)
    result = {
        "trials": len(rows),
        "failed_trials": sum(row["val_accuracy"] is None for row in rows),
        "seconds": round(sum(row["seconds"] or 0 for row in rows), 1),
        "best": rows[0],
        "winner_run": winner.name,
    }
    write_json(run.path / "result.json", result)
    shutil.rmtree(run.path / "features", ignore_errors=True)
    reference = run_argument(winner, options.runs_dir)
    print_end(
        [file for file in [*written, run.path / "result.json"] if file],
        [tensorboard_command(run.path / "logs"), f"python main.py evaluate {reference}"],
    )


def _train_winner(
    run: Run, best: dict[str, Any], sources: dict[str, Run], request: dict[str, Any], dataset: Dataset, options: Tune
) -> Run:
    """The best trial once more, on train + validation with a fresh seed, as an ordinary run; tested once."""
    name = f"{run.name}-best"
    existing = Run(options.runs_dir / name)
    if existing.path.exists() and existing.result is not None:  # a resumed call that had come this far
        return existing
    encoder = best.get("encoder", next(iter(sources)))
    chosen = {key: best[key] for key in ("head", "freeze", "learning_rate", "weight_decay", "dropout", "augment")}
    finetune = Finetune(
        **chosen,
        encoder=encoder,
        epochs=int(best["best_epoch"]),
        batch_size=options.batch_size,
        average=False,  # as the trials
        seed=options.seed + 1,
        name=name,
        runs_dir=options.runs_dir,
        resume=existing.path.exists(),
    )
    both = [
        np.concatenate(pair)
        for pair in zip(*((s.images, s.labels) for s in (dataset.train, dataset.validation)), strict=True)
    ]
    none = Split(dataset.validation.images[:0], dataset.validation.labels[:0])
    dataset = replace(dataset, train=Split(*both), validation=none)
    facts = {"trained_on": "train + validation", "tuned_by": run.name}
    return train_and_save(finetune, sources[encoder], request, dataset, facts)
