"""Supervised training of a classifier: on images, or of a head on features that were encoded once."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from prl_keras.config import Baseline, Finetune, TrainingOptions
from prl_keras.data import Dataset
from prl_keras.data.augment import augmentation
from prl_keras.data.batches import Batches, steps_per_epoch, to_validate_on
from prl_keras.data.rows import Rows
from prl_keras.data.semi_batches import SemiBatches
from prl_keras.data.splits import joined_splits
from prl_keras.embedding_loss import check_smoothing
from prl_keras.errors import InputError
from prl_keras.models import build_classifier, classification_head
from prl_keras.models.encode import encode
from prl_keras.models.layer_types import FAST
from prl_keras.models.storage import copy_as
from prl_keras.runs import Run
from prl_keras.strategies import check_batch, check_classifier, check_last_batch, strategy_of
from prl_keras.training import shared
from prl_keras.training.average import adam_of, recalibrate_batch_norm
from prl_keras.training.callbacks import TestAccuracy
from prl_keras.training.cross_entropy import SmoothedCrossEntropy, chance
from prl_keras.training.fit import fit
from prl_keras.training.fitted import fitted
from prl_keras.training.fixmatch import FixMatchClassifier
from prl_keras.training.limits import check_call
from prl_keras.training.mixed import MixedClassifier, SharedClassifier, mixing_of
from prl_keras.training.precision import with_precision
from prl_keras.training.scratch import as_command, scratch_run, through_a_file


def finetune(encoder: keras.Model, dataset: Dataset, run: Run | None = None, **options: Any) -> keras.Model:
    """Train a classification head on an encoder: the weights of `python main.py finetune`, bit for bit.

        classifier = prl_keras.finetune(encoder, dataset, head="linear", freeze=True)

    Args:
        encoder: raw images -> features, as of `pretrain` or `load_encoder`; it is not changed.
        dataset: from `load_dataset`.
        run: a folder to log into, and to continue from; None: a temporary one.
        options: fields of `config.Finetune` but for those about data, folders and the encoder.

    Returns:
        The classifier: raw uint8 images (batch, height, width, channels) -> float32 logits (batch, classes).

    Raises:
        InputError: options that contradict each other or the data.
    """
    settings, _ = fitted(with_precision(Finetune(**options)), dataset.train.labels)
    check_call(settings, len(dataset.train), whole_batches=False)
    strategy = strategy_for(settings, dataset)
    with as_command(settings), scratch_run("finetune", settings, dataset, run) as run:
        encoder = through_a_file(encoder)  # where a command has it from: reading it draws from the same seed
        with strategy.scope():
            encoder = copy_as(encoder, settings.precision, FAST)
        return copy_as(train(encoder, dataset, settings, run), "float32")


def strategy_for(options: TrainingOptions, dataset: Dataset) -> Any:
    """The `tf.distribute.Strategy` in whose scope what is trained has to be made.

    Raises:
        InputError: there are no such devices, or they cannot share this training.
    """
    check_classifier(options)
    strategy, size = strategy_of(options.strategy), options.batch_size
    images = len(dataset.train) + (len(dataset.validation) if getattr(options, "include_validation", False) else 0)
    check_batch(size, strategy.num_replicas_in_sync)
    check_last_batch(images - size * (steps_per_epoch(images, size) - 1), strategy.num_replicas_in_sync)
    return strategy


def train(encoder: keras.Model, dataset: Dataset, options: Finetune, run: Run) -> keras.Model:
    """Train a head (and, unless frozen, the encoder) and return the classifier: raw images -> logits.

    Unfrozen, the encoder itself is trained; frozen, the classifier has a copy of it. A frozen encoder without
    augmentation gives the same features every epoch, so each image is encoded once and the head is trained on features.

    Args:
        encoder: made in the scope of `strategy_for`.
    """
    if options.include_validation:
        dataset = with_validation(dataset)
    features = encoder.output_shape[-1]
    with encoder.distribute_strategy.scope():
        head = classification_head(options.head, dataset.num_classes, features, options.dropout)
        classifier = build_classifier(encoder, dataset.num_classes, head, options.freeze)
    if not (options.freeze and on_features(options)):
        return train_classifier(classifier, dataset, options, run)
    train_head(encoder, head, dataset, options, run)
    return classifier


def with_validation(dataset: Dataset) -> Dataset:
    """Train and validation as one train split. The validation split stays as it is: no longer independent."""
    return replace(dataset, train=joined_splits([dataset.train, dataset.validation]))


def train_head(
    encoder: keras.Model, head: keras.Model, dataset: Dataset, options: Finetune | Baseline, run: Run
) -> None:
    """Encode train and validation once; train the head on the features."""
    validation = _validation_of(dataset, options)
    if validation is not None:
        validation = (encode(encoder, validation[0]), validation[1])
    batches = Batches(encode(encoder, dataset.train.images), dataset.train.labels, options.batch_size, options.seed)
    compile_classifier(head, options, len(batches) * options.epochs)
    monitors = (
        [TestAccuracy(encode(encoder, dataset.test.images), dataset.test.labels)] if options.test_each_epoch else []
    )
    fit(
        head,
        batches,
        options.epochs,
        run,
        validation,
        monitors,
        checkpoint_steps=options.checkpoint_steps,
        chance=chance(dataset.train.labels, dataset.num_classes, options.label_smoothing),
        track=options.track,
        verbose=options.verbose,
    )


def train_classifier(
    classifier: keras.Model,
    dataset: Dataset,
    options: Finetune | Baseline,
    run: Run,
    unlabelled: np.ndarray | Rows | None = None,
) -> keras.Model:
    """Train end to end on images, augmented if the options say so; whatever is frozen stays fixed.

    Args:
        classifier: made in the scope of `strategy_for`.
        unlabelled: images to learn from beside the data set's, by FixMatch.

    Returns:
        The classifier itself, or if several devices have trained it, a copy on one.

    Raises:
        InputError: fewer of these than a step takes, or no augmentation, which FixMatch needs.
    """
    trained, batches = planned(classifier, dataset, options, unlabelled)
    shared.set_batch_norm(trained, options.local_batch_norm)
    with trained.distribute_strategy.scope():
        compile_classifier(trained, options, len(batches) * options.epochs)
    watched = shared.twin(trained)
    validation, monitors = _validation_of(dataset, options), []
    validation = validation and to_validate_on(*validation)
    if watched is not trained:
        validation, monitors = None, [shared.Follow(watched, validation)]
    if options.test_each_epoch:
        monitors.append(TestAccuracy(dataset.test.images, dataset.test.labels, watched))
    fit(
        trained,
        batches,
        options.epochs,
        run,
        validation,
        monitors,
        checkpoint_steps=options.checkpoint_steps,
        chance=chance(dataset.train.labels, dataset.num_classes, options.label_smoothing),
        track=options.track,
        verbose=options.verbose,
    )
    layer = None if trained is classifier else trained.get_layer("augmentation")
    if watched is not trained:
        shared.copy_weights(trained, watched)
        classifier = watched.classifier
    if options.average:
        encoder = next(part for part in classifier.layers if isinstance(part, keras.Model))  # whatever its name
        recalibrate_batch_norm(encoder, batches, layer)
    return classifier


def planned(
    classifier: keras.Model, dataset: Dataset, options: TrainingOptions, unlabelled: np.ndarray | Rows | None = None
) -> tuple[keras.Model, Batches]:
    """What is trained, see `train_classifier`, and on which batches."""
    images, labels = dataset.train.images, dataset.train.labels
    if unlabelled is None:
        batches = Batches(images, labels, options.batch_size, options.seed)
        return augmented(classifier, dataset.image_shape, options), batches
    if options.augment == "none":
        raise InputError("--unlabelled compares two views of an image: use another --augment than none")
    ratio = options.unlabelled_ratio
    batches = SemiBatches(images, labels, options.batch_size, options.seed, unlabelled, ratio)
    return augmented(classifier, dataset.image_shape, options, options.unlabelled_weight), batches


def on_features(options: TrainingOptions) -> bool:
    """Whether a frozen encoder would give the same features every epoch."""
    return options.augment == "none" and options.mix == "none"


def augmented(
    classifier: keras.Model,
    image_shape: tuple[int, ...],
    options: TrainingOptions,
    unlabelled_weight: float | None = None,
) -> keras.Model:
    """The classifier itself, or behind the augmentation and the mixing that the options ask for.

    unlabelled_weight: of the images that FixMatch learns from beside the labelled ones; None: there are none.
    """
    several = classifier.distribute_strategy.num_replicas_in_sync > 1
    if on_features(options) and not several:
        return classifier
    with classifier.distribute_strategy.scope():
        layer = augmentation(options.augment, image_shape[:2], options.seed)
        if unlabelled_weight is not None:
            trained = FixMatchClassifier(classifier, layer, mixing_of(options), unlabelled_weight)
        elif several:
            trained = SharedClassifier(classifier, layer, mixing_of(options))
        elif options.mix != "none":
            trained = MixedClassifier(classifier, layer, mixing_of(options))
        else:
            return keras.Sequential([keras.Input(image_shape), layer, classifier])
        trained.build((None, *image_shape))
    return trained


def _validation_of(dataset: Dataset, options: Finetune | Baseline) -> tuple[np.ndarray | Rows, np.ndarray] | None:
    """Validation images and labels; None if they are trained on."""
    if getattr(options, "include_validation", False):
        return None
    return dataset.validation.images, dataset.validation.labels


def compile_classifier(model: keras.Model, options: TrainingOptions, steps: int) -> None:
    """Adam for `steps` steps in all, cross-entropy on logits (see `SmoothedCrossEntropy`), accuracy.

    Raises:
        InputError: a smoothing outside 0..1.
    """
    label_smoothing = options.label_smoothing
    check_smoothing(label_smoothing)
    model.compile(
        adam_of(options, steps),
        loss=SmoothedCrossEntropy(label_smoothing)
        if label_smoothing
        else keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
