"""Run `model.fit` inside a run folder: continue from its checkpoint, log every epoch, keep the state.

Imports `data.batches`, `runs` and its siblings in `training`.
"""

import shutil
import sys
from collections.abc import Sequence

import keras
import numpy as np

from prl_keras.data.batches import Batches
from prl_keras.runs import Run
from prl_keras.training.callbacks import Checkpoint, EpochOrder, MetricsLog
from prl_keras.training.checkpoint import restore_checkpoint
from prl_keras.training.tensorboard import TensorBoardLog, log_config


def fit(
    model: keras.Model,
    batches: Batches,
    epochs: int,
    run: Run,
    validation: tuple[np.ndarray, np.ndarray] | Batches | None = None,
    monitors: Sequence[keras.callbacks.Callback] = (),
    constants: dict[str, float] | None = None,
) -> None:
    """Train a built, compiled model for `epochs` epochs in all, those of an earlier, interrupted call included.

    Args:
        validation: (inputs, labels) or batches, evaluated every epoch.
        monitors: callbacks that add to the epoch's logs.
        constants: values to repeat on each line of metrics.jsonl, such as the loss's chance level.
    """
    first_epoch = restore_checkpoint(model, run)
    if first_epoch:
        print(f"Continuing {run.name} after epoch {first_epoch} of {epochs}.")
    else:
        log_config(run)
    images = len(batches) * batches.batch_size if batches.drop_remainder else len(batches.labels)
    metrics = MetricsLog(run, images, constants or {}, first_epoch)
    model.fit(
        batches,
        validation_data=validation,
        epochs=epochs,
        initial_epoch=first_epoch,
        shuffle=False,
        verbose=1 if sys.stdout.isatty() else 2,
        callbacks=[
            EpochOrder(batches),
            *monitors,
            metrics,
            TensorBoardLog(run, metrics),
            Checkpoint(run),
        ],
    )


def forget_checkpoints(run: Run) -> None:
    """A finished run needs none; they are three times the size of its model."""
    shutil.rmtree(run.path / "checkpoint", ignore_errors=True)
