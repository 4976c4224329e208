"""`python main.py tune`: search on validation, train the winner on train + validation, test it once."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prl_keras.commands.common import check_encoder, find_encoder, on_this_machine
from prl_keras.config import Tune, check_least, check_seed
from prl_keras.data import Dataset
from prl_keras.data.request import data_request_of_run, open_data, warn_of_seen
from prl_keras.data.seen import count_seen, not_recorded
from prl_keras.errors import InputError
from prl_keras.runs import Run, is_finished, reference_to
from prl_keras.runs.interruption import Stopped, stopped
from prl_keras.runs.leases import LEASES, end_process, wait_for
from prl_keras.runs.lifecycle import check_name, start_run, unfinished_run
from prl_keras.runs.locks import locked
from prl_keras.runs.names import check_new_name, free_name
from prl_keras.runs.records import read_json
from prl_keras.screen.console import console
from prl_keras.startup import device, start_keras
from prl_keras.training.limits import check_training
from prl_keras.tuning.data import search_data
from prl_keras.tuning.parallel import Role, process_name, process_role, wait_until
from prl_keras.tuning.space import finetune_options, winner_name


def run(options: Tune) -> None:
    role = "together" if options.shared else process_role()
    options = on_this_machine("tune", options)
    _check(options, role)
    sources = _sources(options)
    options = replace(options, encoder=tuple(sources))
    first = next(iter(sources.values()))
    request = data_request_of_run(first, options)
    dataset = open_data(request, first)
    check_training(finetune_options({}, options), len(dataset.train), whole_batches=False)
    for source in sources.values():
        check_encoder(tuple(source.part("data")["image_shape"]), dataset, source.name)
        _check_unseen(source, dataset)
        warn_of_seen(source, dataset)  # of test: the winner's figure would come too late to choose other encoders

    start_keras(options.seed, options.precision)
    console.print(device(options.precision))
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # many models in one process: no advice on retracing
    from prl_keras.tuning.finish import finish
    from prl_keras.tuning.search import load_encoders, search

    encoders = load_encoders(sources, dataset, options.precision)
    run = _start(options, role, request, dataset)
    data = search_data(dataset)
    del dataset  # until the winner is trained, nothing here holds the test split
    if role == "together":
        _finish_once(run, search(run, data, encoders, options, role), options)
        return
    if role == "worker":  # of a search that its chief has locked
        search(run, data, encoders, options, role)
        console.print(f"worker {process_name()}: no trials left; the chief trains the winner")
        return
    with locked(run), _kept_if_useful(run, role):
        rows = search(run, data, encoders, options, role)
        finish(run, rows, options)


def _check(options: Tune, role: Role) -> None:
    check_least(options, max_trials=1, patience=1, worker_timeout=1, lease_seconds=1)
    check_seed(options.seed, 2**31)
    if not options.encoder:
        raise InputError("--encoder is empty; name at least one run with an encoder")
    if role == "together" and process_role() != "alone":
        raise InputError("--shared needs no chief and no workers: leave it out, or the variables of Keras Tuner")
    if role in ("alone", "together") and options.worker_timeout != Tune.worker_timeout:
        raise InputError("--worker-timeout does nothing in a single process (docs/tuning.md): leave it out")
    if role != "alone" and not options.name:
        raise InputError("several processes search together only under one name: add --name to each of them")
    joins = role == "together" and (options.runs_dir / options.name / "config.json").is_file()
    if role != "worker" and not joins:
        check_name("tune", options)
        if options.name and not options.resume:
            check_new_name(options.runs_dir, winner_name(options.name))
        if options.resume:
            unfinished_run("tune", options)  # raises before any work is done


def _sources(options: Tune) -> dict[str, Run]:
    """How a later command can name each encoder's run -> the run."""
    sources = {}
    for reference in options.encoder:
        source = find_encoder(reference, options.runs_dir)
        key = reference_to(source, options.runs_dir)
        if key in sources:
            raise InputError(f"--encoder names the run {source.name!r} twice")
        sources[key] = source
    return sources


def _check_unseen(source: Run, dataset: Dataset) -> None:
    """An encoder that was trained on the validation images cannot be chosen by them.

    Raises:
        InputError: it was, or nothing is known of the images that it was trained on and they were others.
    """
    seen = count_seen(source, dataset, ("validation",))
    complete = seen is not None and not_recorded(source) is None
    if not complete and source.part("data")["fingerprint"] != dataset.fingerprint:
        raise InputError(
            f"encoder {source.name!r} was trained on other images than these and kept no record of all of them: "
            f"whether {dataset.label}'s validation images are among them is not known; pre-train it again"
        )
    if seen and seen["validation"]:
        raise InputError(
            f"encoder {source.name!r} was trained on {seen['validation']:,} of the {len(dataset.validation):,} "
            f"validation images of {dataset.label}, so they cannot choose it: use encoders that were pre-trained with "
            "the same data options and --split-seed"
        )


def _start(options: Tune, role: Role, request: dict[str, Any], dataset: Dataset) -> Run:
    """The search's run: new, continued with --resume, or, for a worker, the chief's."""
    timeout = options.worker_timeout
    how = {name: getattr(Tune, name) for name in ("worker_timeout", "shared", "lease_seconds")}
    options = replace(options, **how)  # may be others when resumed
    if role == "worker":
        folder = options.runs_dir / options.name
        complaint = f"there is no search {options.name!r} in {options.runs_dir}: start the chief"
        wait_until((folder / "config.json").exists, timeout, complaint)
        return start_run("tune", replace(options, resume=True), "", request, dataset)
    if role == "together":
        return _joined(options, request, dataset)
    if not options.name and not options.resume:
        name = free_name(options.runs_dir, f"tune-{options.tuner}-{Path(options.encoder[0]).name}")
        check_new_name(options.runs_dir, winner_name(name))
        options = replace(options, name=name)
    return start_run("tune", options, "", request, dataset)


def _joined(options: Tune, request: dict[str, Any], dataset: Dataset) -> Run:
    """The search of this name; of several processes that begin at once one makes it."""
    record = options.runs_dir / options.name / "config.json"
    if not record.is_file():
        try:
            return start_run("tune", options, "", request, dataset)
        except InputError:
            if not record.is_file():
                raise
    return start_run("tune", replace(options, resume=True), "", request, dataset)


def _finish_once(run: Run, rows: list[Any], options: Tune) -> None:
    """By the first of the processes that finds all trials ended; the others wait for it."""
    from prl_keras.tuning.finish import finish
    from prl_keras.tuning.search import forget

    with wait_for(run.path / LEASES, "winner", options.lease_seconds).kept(end_process):
        if run.result is None:
            forget(run)
            finish(run, rows, options)
            return
    console.print(f"All trials are done, and the winner is trained: {run.result['winner_run']}")


@contextmanager
def _kept_if_useful(run: Run, role: Role) -> Iterator[None]:
    """A search that ends before its first trial did leaves nothing to continue from."""
    try:
        yield
    except BaseException as error:
        files = (run.path / "trials").glob("trial_*/trial.json")
        kept = role == "chief" or is_finished(run) or any(read_json(f)["status"] == "COMPLETED" for f in files)
        if not kept:
            shutil.rmtree(run.path, ignore_errors=True)
        if kept and isinstance(error, KeyboardInterrupt | Stopped):
            raise stopped(error, run.name) from error
        raise
