"""Supervised training of a classifier: on images, or of a head on features that were encoded once.

Imports `data`, `models`, `runs` and `training.fit`.
"""

import keras

from prl_keras.config import Baseline, Finetune
from prl_keras.data import Dataset
from prl_keras.data.augment import augmentation
from prl_keras.data.batches import Batches
from prl_keras.models import build_classifier, classification_head
from prl_keras.models.encode import encode
from prl_keras.runs import Run
from prl_keras.training.average import adam, recalibrate_batch_norm
from prl_keras.training.fit import fit


def finetune(encoder: keras.Model, dataset: Dataset, options: Finetune, run: Run) -> keras.Model:
    """Train a head (and, unless frozen, the encoder) and return the classifier: raw images -> logits.

    A frozen encoder without augmentation gives the same features every epoch, so each image is encoded
    once and the head is trained on features.
    """
    features = encoder.output_shape[-1]
    head = classification_head(options.head, dataset.num_classes, features, options.dropout)
    classifier = build_classifier(encoder, dataset.num_classes, head, options.freeze)
    if options.freeze and options.augment == "none":
        train_head(encoder, head, dataset, options, run)
    else:
        train_classifier(classifier, dataset, options, run)
    return classifier


def train_head(
    encoder: keras.Model, head: keras.Model, dataset: Dataset, options: Finetune | Baseline, run: Run
) -> None:
    """Encode train and validation once; train the head on the features."""
    train, validation = dataset.train, dataset.validation
    batches = Batches(encode(encoder, train.images), train.labels, options.batch_size, options.seed)
    _compile(head, batches, options)
    watched = (encode(encoder, validation.images), validation.labels) if len(validation) else None
    fit(head, batches, options.epochs, run, watched)


def train_classifier(classifier: keras.Model, dataset: Dataset, options: Finetune | Baseline, run: Run) -> None:
    """Train end to end on images, augmented if the options say so; whatever is frozen stays fixed."""
    train, validation = dataset.train, dataset.validation
    trained, layer = classifier, None
    if options.augment != "none":
        layer = augmentation(options.augment, dataset.image_shape[:2], options.seed)
        trained = keras.Sequential([keras.Input(dataset.image_shape), layer, classifier])
    batches = Batches(train.images, train.labels, options.batch_size, options.seed)
    _compile(trained, batches, options)
    watched = (validation.images, validation.labels) if len(validation) else None
    fit(trained, batches, options.epochs, run, watched)
    if options.average:
        recalibrate_batch_norm(classifier.get_layer("encoder"), batches, layer)


def _compile(model: keras.Model, batches: Batches, options: Finetune | Baseline) -> None:
    model.compile(
        adam(options.learning_rate, len(batches) * options.epochs, options.average, options.weight_decay),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
