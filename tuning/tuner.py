"""Runs trials: Keras Tuner's loop, without its noise and its leftovers."""

import contextlib
import io
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner as kt
from keras_tuner.src import config

from prl_keras.files import write_json
from prl_keras.runs import Run
from prl_keras.tuning.hypermodel import FineTuning
from prl_keras.tuning.report import trial_title

TRIALS = "trials"  # in the run's folder


def forget_checkpoints(run: Run) -> None:
    """Only Hyperband makes them, and only for its later rounds."""
    for file in (run.path / TRIALS).glob("trial_*/*"):
        if file.name != "trial.json":
            file.unlink()


class SearchTuner(kt.Hyperband):
    """Keras Tuner's Hyperband runs any oracle's trials; only those that continue another are special.

    Args:
        run: the tuning run; trials are kept in its trials/, event files for TensorBoard in its logs/.
        oracle: see `prl_keras.tuning.oracles`.
        announce: called with every trial that a worker process finished.
    """

    def __init__(self, run: Run, oracle: kt.Oracle, hypermodel: FineTuning, announce: Callable[[Any], None]):
        self.run, self.announce = run, announce
        self._waiting = False
        config.DEBUG = False  # else each failed trial prints its traceback; its trial.json keeps it anyway
        with contextlib.redirect_stdout(io.StringIO()):  # "Reloading Tuner from ..."
            kt.Tuner.__init__(self, oracle=oracle, hypermodel=hypermodel, directory=run.path, project_name=TRIALS)

    def run_trial(self, trial: Any, *args: Any, callbacks: Sequence[Any] = (), **kwargs: Any) -> Any:
        """Without saving weights every time they improve, unless a later trial may continue from them."""
        values, model = trial.hyperparameters.values, self.hypermodel
        number = int(trial.trial_id) + 1
        kwargs["title"] = trial_title(number, values, model.options.max_trials, tuple(model.encoders))
        if "tuner/epochs" in values:
            return super().run_trial(trial, *args, callbacks=list(callbacks), **kwargs)
        callbacks = self._deepcopy_callbacks(list(callbacks))
        self._configure_tensorboard_dir(callbacks, trial)
        beat = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self.on_epoch_end(trial, None, epoch))
        return [self._build_and_fit_model(trial, *args, callbacks=[*callbacks, beat], **kwargs)]

    def on_epoch_end(self, trial: Any, model: keras.Model | None, epoch: int, logs: dict | None = None) -> None:
        """A worker's sign of life."""
        if self._is_worker():
            self.oracle.get_trial(trial.trial_id)

    def pre_create_trial(self) -> None:
        """Ask at most once a second while the oracle waits for others' results."""
        if self._waiting:
            time.sleep(1)
        self._waiting = True

    def on_trial_begin(self, trial: Any) -> None:
        self._waiting = False
        shutil.rmtree(self.run.path / "logs" / trial.trial_id, ignore_errors=True)  # of a trial that was killed

    def on_trial_end(self, trial: Any) -> None:
        super().on_trial_end(trial)
        if self._is_worker():
            told = self.oracle.get_trial(trial.trial_id)
            told.message = trial.message  # stays in this process
            self.announce(told)

    def save(self) -> None:
        if not self._is_worker() and self.oracle.sharing is None:  # which saves under its own lease
            self.oracle.save()
        write_json(Path(self._get_tuner_fname()), self.get_state())

    def _get_tuner_fname(self) -> str:
        """One name for a chief and for a single process, so that one may continue what the other began."""
        name = self.tuner_id if self._is_worker() else "search"
        return str(Path(self.project_dir) / f"{name}.json")
