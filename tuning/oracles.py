"""What decides which configuration is tried next, and keeps what was tried.

Keras Tuner 1.4.8 writes its state in place (a kill can leave half a file), may forget a trial that was killed
while its state was written, and takes seed 0 for "no seed". Its GridSearch does not save its queue: resumed
between two trials it stops at once, resumed in a trial it fails with a KeyError. Hence one mixin for all four,
and a grid that counts.
"""

import warnings
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path
from typing import Any

import keras_tuner as kt

from prl_keras.files import write_json
from prl_keras.tuning.hypermodel import OBJECTIVE
from prl_keras.tuning.space import declare_space, paper_configurations, rounded
from prl_keras.tuning.together import Sharing

RUNNING, STOPPED, COMPLETED = "RUNNING", "STOPPED", "COMPLETED"


class SafeOracle:
    """Mixin: begins with given configurations, saves atomically, resumes exactly, reports each finished trial.

    Attributes:
        first: configurations of the first trials.
        announce: called with every trial that ended.
        failure: why the search was given up, for whoever is not the caller of `end_trial`.
        sharing: with other processes, by the files alone; None: this process, or the chief's, is alone.
    """

    first: tuple[dict[str, Any], ...] = ()
    announce: Callable[[Any], None] | None = None
    failure: str | None = None
    sharing: Sharing | None = None

    def create_trial(self, tuner_id: str) -> Any:
        if self.sharing is None:
            return super().create_trial(tuner_id)
        with self.sharing.state(self):
            return self.sharing.next_trial(self, tuner_id, super().create_trial)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """`start_order` is saved and kept by the chief, so this holds after a resume and with workers."""
        number = len(self.start_order)
        if number < len(self.first):
            return {"status": RUNNING, "values": dict(self.first[number])}
        answer = super().populate_space(trial_id)
        return {**answer, "values": rounded(answer["values"])} if answer.get("values") else answer

    def end_trial(self, trial: Any) -> None:
        if self.sharing is None:
            self._end(trial)
            return
        with self.sharing.state(self):
            self._end(trial)
        self.sharing.free(trial.trial_id)

    def _end(self, trial: Any) -> None:
        # A worker's message holds the values as float32, which are none of a Choice's values any more.
        trial.hyperparameters = self.trials[trial.trial_id].hyperparameters
        try:
            super().end_trial(trial)
        except RuntimeError as error:
            self.failure = str(error)
            raise
        if self.announce:
            self.announce(self.trials[trial.trial_id])

    def save(self) -> None:
        write_json(Path(self._get_oracle_fname()), self.get_state())

    def _save_trial(self, trial: Any) -> None:
        write_json(Path(self._get_trial_dir(trial.trial_id)) / "trial.json", trial.get_state())

    def reload(self) -> None:
        """Also puts right what a kill between the writing of two files leaves behind."""
        super().reload()
        self.trials = dict(sorted(self.trials.items()))
        ended = {key for key, trial in self.trials.items() if trial.status in (COMPLETED, "FAILED")}
        self.end_order += sorted(ended - set(self.end_order))
        self.start_order += sorted(set(self.trials) - set(self.start_order))
        # What others may be at is for `sharing` to find out.
        self._retry_queue = [] if self.sharing else sorted(set(self.trials) - ended, reverse=True)


class RandomOracle(SafeOracle, kt.oracles.RandomSearchOracle):
    pass


class BayesianOracle(SafeOracle, kt.oracles.BayesianOptimizationOracle):
    def populate_space(self, trial_id: str) -> dict[str, Any]:
        with warnings.catch_warnings():  # of scikit-learn, on the length scale of so few points
            warnings.simplefilter("ignore")
            return super().populate_space(trial_id)


class HyperbandOracle(SafeOracle, kt.oracles.HyperbandOracle):
    pass


class GridOracle(SafeOracle, kt.Oracle):
    """All combinations, defaults first, the last-declared hyperparameter varying fastest."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        space = self.hyperparameters.space
        choices = [sorted(hp.values, key=lambda value, hp=hp: value != hp.default) for hp in space]
        combination = next(islice(product(*choices), len(self.start_order), None), None)
        if combination is None:
            return {"status": STOPPED, "values": None}
        names = [hp.name for hp in space]
        return {"status": RUNNING, "values": dict(zip(names, combination, strict=True))}


def make_oracle(kind: str, encoders: tuple[str, ...], max_trials: int, epochs: int, seed: int) -> kt.Oracle:
    """The oracle of `--tuner kind`, its whole space declared.

    Otherwise the first trial would run on an empty space, and a second worker would find nothing to do.
    """
    space = kt.HyperParameters()
    declare_space(space, encoders, kind == "grid")
    first = tuple(paper_configurations(encoders))
    objective = kt.Objective(OBJECTIVE, "max")
    common = {"objective": objective, "hyperparameters": space, "seed": seed + 1}  # 0 would mean a random seed
    if kind == "hyperband":
        oracle = HyperbandOracle(max_epochs=epochs, **common)
    elif kind == "grid":
        oracle = GridOracle(**common)
    elif kind == "bayesian":
        # The default, three times as many random points as hyperparameters, would be the whole search.
        oracle = BayesianOracle(num_initial_points=len(first) + 4, **common)
    else:
        oracle = RandomOracle(**common)
    oracle.max_trials = max_trials
    oracle.first = first if kind in ("random", "bayesian") else ()
    oracle.verbose = 0
    return oracle
