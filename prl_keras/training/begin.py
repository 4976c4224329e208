"""What a pre-training begins with, found before TensorFlow is imported."""

import hashlib
from pathlib import Path

import numpy as np

from prl_keras.applications import PREFIX, Application, application
from prl_keras.config import Pretrain
from prl_keras.data import Dataset
from prl_keras.data.rows import Rows
from prl_keras.errors import InputError
from prl_keras.runs import Run, find_run, gives_features, reference_to
from prl_keras.runs.lifecycle import to_continue


def begins_with(options: Pretrain) -> Run | Path | Application | None:
    """The run, the file or the network that `init` names; options as the user gave them.

    Raises:
        InputError: there is none, or an option that then does nothing was given.
    """
    init = None if options.init is None else str(options.init)  # a Path, as Python's callers may give
    if options.weights is not None and not str(init).startswith(PREFIX):
        raise InputError(f"--weights does nothing without --init {PREFIX}NAME: leave it out")
    if init is None:
        return None
    continued = to_continue("pretrain", options) if init == "latest" else None
    if continued is not None:  # "latest" is what it was when the run began
        return source_of(continued)
    if idle := {"stem", "width"} & options.given:
        raise InputError(f"--{min(idle)} does nothing with --init {options.init}: leave it out")
    if init.startswith(PREFIX):
        return application(init, None if options.weights is None else Path(options.weights))
    if init.endswith(".keras"):
        if not Path(init).is_file():
            raise InputError(f"--init {init}: no such file; check its path")
        return Path(init)
    return find_run(init, Path(options.runs_dir), gives_features, "run with an encoder")


def init_reference(source: Run | Path | Application, options: Pretrain) -> str:
    """How the run's record names it, whatever was typed."""
    if isinstance(source, Application):
        return str(source)
    return str(source.absolute()) if isinstance(source, Path) else reference_to(source, options.runs_dir)


def source_digest(source: Run | Path | Application) -> str:
    """What tells two of them apart without TensorFlow: the weights that a run recorded, or files; no paths."""
    if isinstance(source, Run) and "encoder_sha256" in (source.result or {}):
        return source.result["encoder_sha256"]
    if isinstance(source, Run):
        files = [file for file in (source.encoder_file, source.classifier_file) if file.exists()]
    else:
        files = [source.weights] if isinstance(source, Application) and source.weights else []
        files = [source] if isinstance(source, Path) else files
    digest = hashlib.sha256(str(source).encode() if isinstance(source, Application) else b"")
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def from_elsewhere(source: Run | Path | Application | None) -> str | None:
    """What has seen images that nothing tells of: a network of the user's own, or weights of it."""
    if isinstance(source, Application):
        return None if source.weights is None else source.weights.name
    return source.name if isinstance(source, Path) else None


def source_of(run: Run) -> Run | Path | Application:
    """What a run with `init` began with, as seen from the folder that it was made in.

    Raises:
        InputError: it is not there any more.
    """
    init = run.part("options", "init")
    if str(init).startswith(PREFIX):
        weights = run.part("options").get("weights")
        return application(str(init), None if weights is None else Path(weights))
    if str(init).endswith(".keras"):
        return Path(init)
    return find_run(str(init), run.path.absolute().parent, gives_features, "run with an encoder")


def trained_on(
    dataset: Dataset, options: Pretrain, unlabelled: np.ndarray | Rows | None
) -> tuple[np.ndarray | Rows, np.ndarray]:
    """Images and labels of an epoch: the data set's; for SimCLR the unlabelled ones instead, if there are some."""
    if unlabelled is None or options.variant != "simclr":
        return dataset.train.images, dataset.train.labels
    return unlabelled, np.full(len(unlabelled), -1)
