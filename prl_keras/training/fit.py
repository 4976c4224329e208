"""Run `model.fit` inside a run folder: continue from its checkpoint, log every epoch, keep the state."""

import shutil
from collections.abc import Sequence

import keras
import numpy as np

from prl_keras.data.augment import RECIPES, Augmentation, blur_settings, recipe_for
from prl_keras.data.batches import Batches
from prl_keras.errors import InputError
from prl_keras.runs import Run
from prl_keras.runs.interruption import StopRequest, noted
from prl_keras.screen.training import TrainingScreen
from prl_keras.tracking import tracking
from prl_keras.training.callbacks import (
    Checkpoint,
    EpochOrder,
    FiniteGuard,
    MetricsLog,
    SomeEpochs,
    TestAccuracy,
    TrackLog,
)
from prl_keras.training.checkpoint import Position, average_every, restore_checkpoint, state
from prl_keras.training.looks import LOOKS, looked_at
from prl_keras.training.screen import EpochScreen, figures_ahead
from prl_keras.training.tensorboard import TensorBoardLog, log_config
from prl_keras.training.workers import fit_on_workers, from_chief, of_workers
from prl_keras.training.writer import CheckpointWriter


def fit(
    model: keras.Model,
    batches: Batches,
    epochs: int,
    run: Run,
    validation: tuple[np.ndarray, np.ndarray] | Batches | None = None,
    monitors: Sequence[keras.callbacks.Callback] = (),
    constants: dict[str, float | None] | None = None,
    checkpoint_steps: int | None = None,
    track: str | None = None,
    chance: float | None = None,
    verbose: bool = False,
) -> None:
    """Train a built, compiled model for `epochs` epochs in all, those of an earlier, interrupted call included.

    Args:
        validation: (inputs, labels) or batches, evaluated after `looked_at` epochs.
        monitors: callbacks; those that add figures, which `adds` names, are asked after these epochs.
        constants: values to repeat on each line of metrics.jsonl, such as the loss's chance level; None: no such value.
        checkpoint_steps: keep the state every so many steps too, not only after each epoch.
        track: also send the lines there, see `Tracking`.
        chance: what the screen shows beside the loss where the constants have no chance_loss.
        verbose: show all figures of each epoch.

    Raises:
        Stopped: Ctrl-C or SIGTERM came; the state is saved.
        InputError: the loss or a gradient is not finite; a checkpoint of another training.
    """
    create_variables(model, batches)
    start = restore_checkpoint(model, run)
    if of_workers(model):
        start = from_chief(model, start, state(model))
    _check_continues(start, epochs, batches, model, run)
    if start.epoch or start.step:
        within = f", step {start.step} of {len(batches)} of the next" if start.step else ""
        print(f"Continuing {run.name} after epoch {start.epoch} of {epochs}{within}.")
    else:
        log_config(run)
    constants = {key: value for key, value in (constants or {}).items() if value is not None}
    metrics = MetricsLog(run, batches.images, constants, start)
    order = EpochOrder(batches, start)
    keys = figures_ahead(model, validation is not None, monitors) | {"learning_rate"}
    shown = {"chance_loss": chance} | constants
    looks = looked_at(epochs, each=any(isinstance(monitor, TestAccuracy) for monitor in monitors))
    size = len(batches), batches.images
    screen = TrainingScreen(keys, epochs, *size, shown, metrics.lines, verbose, validated=looks)
    with noted() as request, tracking(run, track) as tracker, screen, CheckpointWriter(run) as writer:
        agreed = StopRequest() if of_workers(model) else request
        callbacks = [
            order,
            FiniteGuard(writer, batches),
            *(SomeEpochs(each, looks) if hasattr(each, "adds") else each for each in monitors),
            metrics,
            TensorBoardLog(run, metrics),
            EpochScreen(screen, lambda: metrics.lines[-1]),
            TrackLog(tracker, metrics),
            Checkpoint(order, metrics, writer, agreed, checkpoint_steps),
        ]
        if of_workers(model):
            fit_on_workers(model, batches, epochs, start.epoch, callbacks, request, agreed)
            return
        model.fit(
            batches,
            validation_data=validation,
            validation_freq=looks,
            epochs=epochs,
            initial_epoch=start.epoch,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )


def _check_continues(start: Position, epochs: int, batches: Batches, model: keras.Model, run: Run) -> None:
    """Raise InputError unless the rest of the training would be what it was when the checkpoint was left."""
    if not (start.epoch or start.step):
        return
    if start.steps_per_epoch not in (None, len(batches)):
        difference = f"took {start.steps_per_epoch} steps an epoch, this one takes {len(batches)}"
    elif start.steps_per_epoch is None and not batches.drop_remainder and len(batches.labels) % batches.batch_size:
        difference = "counted an incomplete last batch as a whole one"
    elif start.steps_per_epoch is None and any(map(_wider_blur, model.layers)):
        difference = "blurred images of this size less"
    elif start.edition < 2 and epochs >= 2 * LOOKS and hasattr(model, "two_views"):
        difference = "looked at two views of the validation images more often, which draws random numbers"
    elif start.edition < 2 and any(map(_less_shifted, model.layers)):
        difference = "shifted and cut images of this size otherwise"
    elif start.average_every != average_every(model):
        before = "every step" if start.average_every == 1 else f"one step in {start.average_every}"
        difference = f"averaged the weights of {before}, this one those of one in {average_every(model)}"
    elif start.epoch > epochs or start.step >= len(batches):
        raise InputError(f"the checkpoint of run {run.name!r} is of a longer training; start a new run")
    else:
        return
    raise InputError(
        f"run {run.name!r} was begun by another version of the program, which {difference}: "
        f"remove {run.path}, or start a new run under another --name"
    )


def _wider_blur(layer: keras.Layer) -> bool:
    """Whether the first version's kernel, of 9 pixels at most, was smaller."""
    recipe = RECIPES[layer.recipe] if isinstance(layer, Augmentation) else None
    return bool(recipe and recipe.blur_sigma) and blur_settings(layer.image_size, recipe.blur_sigma)[0] > 9


def _less_shifted(layer: keras.Layer) -> bool:
    """Whether images of this size have shifts and squares of their own, as they had not at first."""
    return isinstance(layer, Augmentation) and recipe_for(layer.recipe, layer.image_size) != RECIPES[layer.recipe]


def create_variables(model: keras.Model, batches: Batches) -> None:
    """Of the optimizer and the metrics: to be restored, and as else the first step would be traced twice."""
    if not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
    rows = batches.rows(0)
    images, labels = batches.inputs[rows], batches.labels[rows]
    model.compute_metrics(images, labels, keras.ops.zeros(model.compute_output_shape(images.shape)))
    model.reset_metrics()


def forget_checkpoints(run: Run) -> None:
    """A finished run needs none; they are three times the size of its model."""
    shutil.rmtree(run.path / "checkpoint", ignore_errors=True)
