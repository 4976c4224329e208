"""One trial: build a classifier from hyperparameters and train it. Imports `prl_keras`."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import keras
import keras_tuner
import numpy as np

from prl_keras.data import Dataset, Split
from prl_keras.data.augment import augmentation
from prl_keras.data.batches import Batches
from prl_keras.models import build_classifier, classification_head
from prl_keras.models.batch_norm import FusedBatchNormalization
from prl_keras.models.encode import encode
from prl_keras.models.storage import copy_as, weights_sha256
from prl_keras.runs import atomic_path
from prl_keras.training.callbacks import EpochOrder


@dataclass(frozen=True, eq=False)
class SearchData:
    """All that a search may see. There is no test split, so no trial can reach one."""

    train: Split
    validation: Split
    num_classes: int
    image_shape: tuple[int, int, int]

    @classmethod
    def of(cls, dataset: Dataset) -> "SearchData":
        return cls(dataset.train, dataset.validation, dataset.num_classes, dataset.image_shape)


class FineTuning(keras_tuner.HyperModel):
    """Classifiers on pre-trained encoders.

    A frozen encoder without augmentation encodes each image once for all trials, and the trial trains a head.

    Args:
        encoders: name -> model, raw images -> features; never changed.
        data: the splits.
        cache: folder for the features, shared with other processes and with a later call.
        batch_size, epochs, patience: a trial ends after `epochs`, or after `patience` epochs without a better
            validation accuracy.
        seed: the same for each trial, so that trials differ by their hyperparameters only.
    """

    def __init__(
        self,
        encoders: dict[str, keras.Model],
        data: SearchData,
        cache: Path,
        batch_size: int = 128,
        epochs: int = 25,
        patience: int = 4,
        seed: int = 0,
    ):
        super().__init__()
        self.encoders, self.data, self.cache = encoders, data, cache
        self.batch_size, self.epochs, self.patience, self.seed = batch_size, epochs, patience, seed
        self._features: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """A compiled model: on features if they can be shared, else on raw images."""
        keras.utils.set_random_seed(self.seed)
        values = hp.values
        encoder = self.encoders[self._encoder_name(hp)]
        head = classification_head(values["head"], self.data.num_classes, encoder.output_shape[-1], values["dropout"])
        model = head if self._on_features(hp) else self._on_images(hp, encoder, head)
        model.compile(
            keras.optimizers.Adam(values["learning_rate"], weight_decay=values["weight_decay"] or None),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        return model

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, epochs: int | None = None
    ) -> keras.callbacks.History:
        """Train until validation stops improving; the history holds an entry an epoch."""
        train, validation = self.data.train.images, self.data.validation.images
        if self._on_features(hp):
            train, validation = self.features(self._encoder_name(hp))
        batches = Batches(train, self.data.train.labels, self.batch_size, self.seed)
        stop = keras.callbacks.EarlyStopping("val_accuracy", patience=self.patience, mode="max")
        return model.fit(
            batches,
            validation_data=(validation, self.data.validation.labels),
            epochs=epochs or self.epochs,
            shuffle=False,
            verbose=0,
            callbacks=[EpochOrder(batches), stop],
        )

    def features(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(train, validation) features of an encoder: from memory, from the cache, or encoded now."""
        if name not in self._features:
            self._features[name] = tuple(
                self._encoded(name, split.images) for split in (self.data.train, self.data.validation)
            )
        return self._features[name]

    def _encoded(self, name: str, images: np.ndarray) -> np.ndarray:
        encoder = self.encoders[name]
        key = hashlib.sha256(weights_sha256(encoder).encode() + images.tobytes()).hexdigest()
        file = self.cache / f"{key[:32]}.npy"
        if file.exists():
            return np.load(file)
        features = encode(encoder, images)
        self.cache.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            np.save(temporary, features)
        return features

    def _on_features(self, hp: keras_tuner.HyperParameters) -> bool:
        return hp.values["freeze"] and hp.values["augment"] == "none"

    def _on_images(self, hp: keras_tuner.HyperParameters, encoder: keras.Model, head: keras.Model) -> keras.Model:
        own = copy_as(encoder, "float32", FusedBatchNormalization)
        classifier = build_classifier(own, self.data.num_classes, head, freeze=hp.values["freeze"])
        layer = augmentation(hp.values["augment"], self.data.image_shape[:2], self.seed)
        return keras.Sequential([keras.Input(self.data.image_shape), layer, classifier])

    def _encoder_name(self, hp: keras_tuner.HyperParameters) -> str:
        return hp.values.get("encoder", next(iter(self.encoders)))
