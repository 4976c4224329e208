"""Pre-training from data to encoder: what `python main.py pretrain` does between its options and its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from prl_keras.applications import Application
from prl_keras.config import Pretrain
from prl_keras.data import Dataset
from prl_keras.data.batches import Batches, steps_per_epoch
from prl_keras.data.rows import Rows
from prl_keras.data.semi_batches import SemiBatches
from prl_keras.models.begun import encoder_to_begin_with
from prl_keras.models.storage import copy_as
from prl_keras.runs import Run
from prl_keras.strategies import check_batch, check_pretraining, strategy_of
from prl_keras.training import outlook, shared
from prl_keras.training.average import adam_of, recalibrate_batch_norm
from prl_keras.training.begin import begins_with, trained_on
from prl_keras.training.build import build_pretrainer
from prl_keras.training.callbacks import finite
from prl_keras.training.fit import fit
from prl_keras.training.fitted import fitted
from prl_keras.training.limits import check_call
from prl_keras.training.monitor import RepresentationMonitor
from prl_keras.training.precision import with_precision
from prl_keras.training.scratch import as_command, scratch_run
from prl_keras.training.tensorboard import log_views


@dataclass(frozen=True)
class Plan:
    """A training before its first step: the model, its batches, and what these can teach."""

    pretrainer: keras.Model
    batches: Batches
    validation: Batches
    ahead: outlook.Outlook
    warning: str | None


@dataclass(frozen=True)
class Trained:
    """encoder: float32, raw images -> features, of Keras's own layers; figures: the monitor's, of this encoder;
    answers: (n,) classes of the validation images by the nearest prototype, and (n,) their labels; None of images that
    have no classes."""

    encoder: keras.Model
    figures: dict[str, float | None]
    answers: tuple[np.ndarray, np.ndarray] | None


def pretrain(
    dataset: Dataset, run: Run | None = None, *, unlabelled: np.ndarray | Rows | None = None, **options: Any
) -> keras.Model:
    """Pre-train an encoder: the weights of `python main.py pretrain` with the same options, bit for bit.

        encoder = prl_keras.pretrain(prl_keras.load_dataset("digits"), variant="query", epochs=5, seed=0)

    Args:
        dataset: from `load_dataset`; its train split is trained on, its validation split watched, test not used.
        run: a folder to log into, and to continue from; None: a temporary one.
        unlabelled: more images, of the data set's size, for the variants "prl" (beside its own) and "simclr" (instead).
        options: fields of `config.Pretrain` but for those about data and folders.

    Returns:
        The encoder: raw uint8 images (batch, height, width, channels) -> float32 features.

    Raises:
        InputError: options that contradict each other or the data.
    """
    asked = with_precision(Pretrain(**options, unlabelled=unlabelled is not None))
    images, labels = trained_on(dataset, asked, unlabelled)
    source, (settings, _) = begins_with(asked), fitted(asked, labels)
    check_call(settings, len(images), whole_batches=True)
    with as_command(settings), scratch_run("pretrain", settings, dataset, run) as run:
        return train(plan(dataset, settings, unlabelled, source), dataset, settings, run).encoder


def plan(
    dataset: Dataset,
    options: Pretrain,
    unlabelled: np.ndarray | Rows | None = None,
    source: Run | Path | Application | None = None,
) -> Plan:
    """Build the model and the batches, and see whether they can teach anything.

    Args:
        unlabelled: images to train on beside the data set's; by SimCLR instead of them.
        source: of the encoder to begin with, as `begins_with` gives it.

    Raises:
        InputError: they cannot, or options that contradict each other.
    """
    validation = dataset.validation
    images, labels = trained_on(dataset, options, unlabelled)
    size = options.batch_size
    each = options.classes_per_batch and min(options.classes_per_batch, dataset.num_classes)
    steps = steps_per_epoch(len(labels), size, drop_remainder=True)
    shape, total = dataset.image_shape, steps * options.epochs
    check_pretraining(options)
    strategy = strategy_of(options.strategy)
    check_batch(options.batch_size, strategy.num_replicas_in_sync)
    with strategy.scope():
        encoder = None if source is None else encoder_to_begin_with(source, shape, options.precision)
        pretrainer = build_pretrainer(options, shape, dataset.num_classes, labels, total, encoder)
    shared.set_batch_norm(pretrainer, options.local_batch_norm)
    how = {"drop_remainder": True, "classes_per_batch": each, "with_rows": pretrainer.takes_rows}
    if unlabelled is None or images is unlabelled:
        batches = Batches(images, labels, size, options.seed, **how)
    else:
        batches = SemiBatches(images, labels, size, options.seed, unlabelled, options.unlabelled_ratio, **how)
    ahead = outlook.expected(pretrainer.embedding_loss, batches, options.epochs, _embedding_dim(pretrainer))
    warning = outlook.check(ahead, options.variant, options.batch_size, len(labels))
    # of the same size, where there are as many images, and whole: only so is the loss comparable to that of training
    size = min(options.batch_size, len(validation))
    watched = Batches(validation.images, validation.labels, size, options.seed, drop_remainder=True)
    return Plan(pretrainer, batches, watched, ahead, warning)


def _embedding_dim(pretrainer: keras.Model) -> int:
    return pretrainer.projection_head.output_shape[-1]


def train(plan: Plan, dataset: Dataset, options: Pretrain, run: Run) -> Trained:
    """Train, or continue the training in `run`; average; measure the encoder that will be kept.

    Raises:
        Stopped: Ctrl-C or SIGTERM came; the state is saved.
        InputError: the loss or a gradient is not finite; a checkpoint of another training.
    """
    pretrainer, batches = plan.pretrainer, plan.batches
    watched = shared.twin(pretrainer)
    there = outlook.expected(pretrainer.embedding_loss, plan.validation, dim=_embedding_dim(pretrainer))
    monitor = RepresentationMonitor(
        watched,
        (dataset.train.images, dataset.train.labels),
        (dataset.validation.images, dataset.validation.labels),
        dataset.num_classes,
        batches=plan.validation,
    )
    if getattr(pretrainer.augmentation, "recipe", "none") != "none":
        log_views(run, pretrainer.augmentation, dataset.train.images[:12])
    with pretrainer.distribute_strategy.scope():
        pretrainer.compile(adam_of(options, len(batches) * options.epochs))
    validation, monitors = monitor.unjudged, [monitor]
    if watched is not pretrainer:
        follow = shared.Follow(watched, validation)
        validation, monitors = None, [follow, monitor]
    constants = outlook.constants(plan.ahead, there)
    fit(
        pretrainer,
        batches,
        options.epochs,
        run,
        validation,
        monitors,
        constants,
        options.checkpoint_steps,
        track=options.track,
        verbose=options.verbose,
    )
    shared.copy_weights(pretrainer, watched)
    if options.average:
        recalibrate_batch_norm(watched.encoder, batches, watched.augmentation)
    figures = {key: finite(value) for key, value in monitor.figures().items()}
    return Trained(copy_as(watched.encoder, "float32"), figures, monitor.answers)
