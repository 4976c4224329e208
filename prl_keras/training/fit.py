"""Run `model.fit` inside a run folder: continue from its checkpoint, log every epoch, keep the state.

Imports `data.batches`, `runs` and its siblings in `training`.
"""

import shutil
import sys
from collections.abc import Sequence

import keras
import numpy as np

from prl_keras.data.batches import Batches
from prl_keras.errors import InputError
from prl_keras.interruption import noted
from prl_keras.runs import Run
from prl_keras.training.callbacks import Checkpoint, EpochOrder, FiniteGuard, MetricsLog
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
    checkpoint_steps: int | None = None,
) -> None:
    """Train a built, compiled model for `epochs` epochs in all, those of an earlier, interrupted call included.

    Args:
        validation: (inputs, labels) or batches, evaluated every epoch.
        monitors: callbacks that add to the epoch's logs.
        constants: values to repeat on each line of metrics.jsonl, such as the loss's chance level.
        checkpoint_steps: keep the state every so many steps too, not only after each epoch.

    Raises:
        Stopped: Ctrl-C or SIGTERM came; the state is saved.
        InputError: the loss or a gradient is not finite.
    """
    create_variables(model, batches)
    start = restore_checkpoint(model, run)
    if start.epoch > epochs or start.step >= len(batches):
        raise InputError(f"the checkpoint of run {run.name!r} is of a longer training; start a new run")
    if start.epoch or start.step:
        within = f", step {start.step} of {len(batches)} of the next" if start.step else ""
        print(f"Continuing {run.name} after epoch {start.epoch} of {epochs}{within}.")
    else:
        log_config(run)
    images = len(batches) * batches.batch_size if batches.drop_remainder else len(batches.labels)
    metrics = MetricsLog(run, images, constants or {}, start.epoch)
    order = EpochOrder(batches, start)
    with noted() as request:
        model.fit(
            batches,
            validation_data=validation,
            epochs=epochs,
            initial_epoch=start.epoch,
            shuffle=False,
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                order,
                FiniteGuard(run, batches),
                *monitors,
                metrics,
                TensorBoardLog(run, metrics),
                Checkpoint(order, run, request, checkpoint_steps),
            ],
        )


def create_variables(model: keras.Model, batches: Batches) -> None:
    """Of the optimizer and the metrics: to be restored, and as else the first step would be traced twice."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    images, labels = batches[0]
    model.compute_metrics(images, labels, keras.ops.zeros(model.compute_output_shape(images.shape)))
    model.reset_metrics()


def forget_checkpoints(run: Run) -> None:
    """A finished run needs none; they are three times the size of its model."""
    shutil.rmtree(run.path / "checkpoint", ignore_errors=True)
