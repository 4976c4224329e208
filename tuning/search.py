"""The search itself: trials until none are left, alone, as chief or as worker. Never sees a test split."""

import shutil

import keras
import keras_tuner as kt

from prl_keras.commands.common import check_encoder
from prl_keras.config import Tune
from prl_keras.data import Dataset
from prl_keras.errors import InputError
from prl_keras.models.layer_types import FAST
from prl_keras.models.storage import copy_as, load_encoder
from prl_keras.runs import Run
from prl_keras.runs.leases import LEASES, end_process
from prl_keras.screen.console import console, is_watched, say
from prl_keras.tuning.data import SearchData
from prl_keras.tuning.features import FeatureCache
from prl_keras.tuning.hypermodel import FineTuning
from prl_keras.tuning.oracles import make_oracle
from prl_keras.tuning.parallel import Role, chief_answers, last_line, process_name, serve
from prl_keras.tuning.report import Row, finished_rows, trial_header, trial_line
from prl_keras.tuning.together import Sharing, own_name
from prl_keras.tuning.tuner import SearchTuner, forget_checkpoints

FEATURES = "features"  # in the search's folder


def load_encoders(sources: dict[str, Run], dataset: Dataset, precision: str) -> dict[str, keras.Model]:
    """Raises InputError for a file that is no encoder, or not for the data set's images."""
    encoders = {}
    for name, source in sources.items():
        encoder = load_encoder(source)
        check_encoder(encoder.input_shape[1:], dataset, name)
        encoders[name] = copy_as(encoder, precision, FAST)
    return encoders


def search(
    run: Run, data: SearchData, encoders: dict[str, keras.Model], options: Tune, role: Role = "alone"
) -> list[Row]:
    """Run the trials that are left of the search in `run`; return all finished ones (a worker: none).

    Raises:
        InputError: three trials in a row failed, none succeeded, or the other processes are gone.
    """
    names = tuple(encoders)
    oracle = make_oracle(options.tuner, names, options.max_trials, options.epochs, options.seed)
    cache = FeatureCache(run.path / FEATURES, data, options.precision)
    hypermodel = FineTuning(data, encoders, cache, options)

    header = iter([trial_header(options.max_trials)])
    width = console.width - 1 if is_watched(console) else None

    def announce(trial: kt.engine.trial.Trial) -> None:
        for line in header:  # once, above the first
            console.print(line)
        best = next((t.score for t in tuner.oracle.get_best_trials() if t.status == "COMPLETED"), None)
        console.print(trial_line(trial, best, options.max_trials, names, width))

    if role == "together":
        with Sharing(run.path / LEASES, end_process, options.lease_seconds) as oracle.sharing:
            tuner = SearchTuner(run, oracle, hypermodel, announce)
            tuner.tuner_id, oracle.announce = own_name(), announce
            _introduce(run, oracle, options)
            _search_alone(tuner, run)
        return _rows(run, oracle, names, data)
    if role == "worker":
        with chief_answers(options.worker_timeout):
            tuner = SearchTuner(run, oracle, hypermodel, announce)
            console.print(f"worker {process_name()} joins {run.name}")
            tuner.search(callbacks=[_tensorboard(run)])
        return []
    tuner = SearchTuner(run, oracle, hypermodel, announce)
    oracle.announce = announce
    _introduce(run, oracle, options)
    for encoder in encoders.values():
        cache.features(encoder)
    if role == "chief":
        _search_as_chief(tuner, options.worker_timeout)
    else:
        _search_alone(tuner, run)
    rows = _rows(run, oracle, names, data)
    forget(run)
    return rows


def forget(run: Run) -> None:
    """What only trials need; of a search that several share, when the last has ended."""
    forget_checkpoints(run)
    shutil.rmtree(run.path / FEATURES, ignore_errors=True)


def _rows(run: Run, oracle: kt.Oracle, names: tuple[str, ...], data: SearchData) -> list[Row]:
    rows = finished_rows(list(oracle.trials.values()), names, len(data.validation))
    if not rows:
        raise InputError(f"no trial of {run.name!r} succeeded: {_last_failure(oracle)}")
    return rows


def _search_as_chief(tuner: SearchTuner, timeout: float) -> None:
    tuner.save()
    serve(tuner.oracle, timeout)


def _last_failure(oracle: kt.Oracle) -> str:
    reasons = [last_line(trial.message or "") for trial in oracle.trials.values()]
    return reasons[-1] if reasons else "none was run"


def _search_alone(tuner: SearchTuner, run: Run) -> None:
    try:
        tuner.search(callbacks=[_tensorboard(run)])
    except RuntimeError as error:
        if tuner.oracle.failure is None:
            raise
        raise InputError(f"the search was given up, three trials in a row failed: {last_line(str(error))}") from error


def _tensorboard(run: Run) -> keras.callbacks.TensorBoard:
    """Keras Tuner copies it for each trial and adds the trial's values, for the HParams tab. Scalars only."""
    return keras.callbacks.TensorBoard(str(run.path / "logs"), write_graph=False, update_freq="epoch")


def _introduce(run: Run, oracle: kt.Oracle, options: Tune) -> None:
    done = sum(trial.status == "COMPLETED" for trial in oracle.trials.values())
    start = f"Continuing {run.name} after {done} trials" if done else f"Searching in {run.name}"
    say(
        f"{start}: {options.tuner}, at most {options.max_trials} trials of at most {options.epochs} epochs, "
        f"compared on validation; encoder{'s' if len(options.encoder) > 1 else ''} {', '.join(options.encoder)}"
    )
