"""The search: Keras Tuner's oracles, the paper's configurations first, one line a trial. Imports its siblings."""

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner

from tuning.hypermodel import FineTuning

OBJECTIVE = keras_tuner.Objective("val_accuracy", "max")


class _PaperFirst:
    """Mixed into an oracle: its first trials are given configurations."""

    given: list[dict[str, Any]]

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        number = len(self.trials)
        if number < len(self.given):
            return {"status": keras_tuner.engine.trial.TrialStatus.RUNNING, "values": dict(self.given[number])}
        return super().populate_space(trial_id)


class _RandomOracle(_PaperFirst, keras_tuner.oracles.RandomSearchOracle):
    pass


class _BayesianOracle(_PaperFirst, keras_tuner.oracles.BayesianOptimizationOracle):
    pass


def make_oracle(
    kind: str, space: Any, given: list[dict[str, Any]], max_trials: int, epochs: int, seed: int
) -> keras_tuner.Oracle:
    """Args:
    kind: random or bayesian (both try `given` first), hyperband or grid (`max_trials` plays no part).
    """
    common = {"objective": OBJECTIVE, "hyperparameters": space, "seed": seed, "allow_new_entries": False}
    if kind == "grid":
        return keras_tuner.oracles.GridSearchOracle(max_trials=None, **common)
    if kind == "hyperband":
        return keras_tuner.oracles.HyperbandOracle(max_epochs=epochs, **common)
    if kind == "random":
        oracle = _RandomOracle(max_trials=max_trials, **common)
    else:  # the given ones and a few random ones before the model of the space is asked
        oracle = _BayesianOracle(max_trials=max_trials, num_initial_points=len(given) + 3, **common)
    oracle.given = given
    return oracle


class Search(keras_tuner.Tuner):
    """Runs trials of a `FineTuning`; keeps no weights, because the winner is trained again.

    Args:
        report: called after every trial with its id, values and metrics.
    """

    def __init__(self, oracle: keras_tuner.Oracle, hypermodel: FineTuning, folder: Path, report: Callable[..., None]):
        self.report = report
        with contextlib.redirect_stdout(io.StringIO()):  # "Reloading Tuner from ..."
            super().__init__(oracle, hypermodel, directory=str(folder.parent), project_name=folder.name)

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        started = time.monotonic()
        values = trial.hyperparameters.values
        model = self.hypermodel.build(trial.hyperparameters)
        history = self.hypermodel.fit(trial.hyperparameters, model, values.get("tuner/epochs")).history["val_accuracy"]
        best = max(range(len(history)), key=history.__getitem__)
        metrics = {
            "val_accuracy": float(history[best]),
            "best_epoch": best + 1,
            "seconds": round(time.monotonic() - started, 1),
        }
        self.report(trial.trial_id, values, metrics)
        return metrics


def trial_rows(oracle: keras_tuner.Oracle) -> list[dict[str, Any]]:
    """One dict a trial, best first: trial, status, hyperparameters, val_accuracy, best_epoch, seconds."""
    rows = []
    for trial in oracle.trials.values():
        row = {"trial": trial.trial_id, "status": trial.status}
        row |= {key: value for key, value in trial.hyperparameters.values.items() if not key.startswith("tuner/")}
        for name in ("val_accuracy", "best_epoch", "seconds"):
            row[name] = trial.metrics.get_best_value(name) if trial.metrics.exists(name) else None
        rows.append(row)
    return sorted(rows, key=lambda row: (-(row["val_accuracy"] or -1), row["trial"]))
