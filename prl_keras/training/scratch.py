"""Training from Python as a command does it: its seed and precision, and a run folder, a temporary one if need be."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from prl_keras.config import Finetune, Pretrain
from prl_keras.data import Dataset
from prl_keras.models.storage import load_model, save_model
from prl_keras.runs import Run, create_run
from prl_keras.runs.lifecycle import NOT_RECORDED, run_config


@contextmanager
def as_command(options: Pretrain | Finetune) -> Iterator[None]:
    """Seed everything as a command does, and compute in its precision; the precision of before comes back. Where
    deterministic operations are asked for, the process keeps them."""
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(options.precision)
    keras.utils.set_random_seed(options.seed)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def through_a_file(model: keras.Model) -> keras.Model:
    """The model as it is after it was saved and loaded."""
    with tempfile.TemporaryDirectory(prefix="prl-keras-") as folder:
        save_model(model, Path(folder) / "model.keras")
        return load_model(Path(folder) / "model.keras")


@contextmanager
def scratch_run(command: str, options: Any, dataset: Dataset, run: Run | None) -> Iterator[Run]:
    """The given run, or one that is gone afterwards."""
    if run is not None:
        yield run
        return
    with tempfile.TemporaryDirectory(prefix="prl-keras-") as folder:
        config = run_config(command, options, NOT_RECORDED, {"name": dataset.name}, dataset)
        yield create_run(Path(folder), "run", config)
