"""The model of one trial and its training."""

import time
from collections.abc import Sequence

import keras
import keras_tuner as kt
import numpy as np

from prl_keras.config import Finetune, Tune
from prl_keras.data.batches import Batches, steps_per_epoch, to_validate_on
from prl_keras.models import build_classifier, classification_head
from prl_keras.models.layer_types import FAST
from prl_keras.models.storage import copy_as
from prl_keras.screen.training import TrainingScreen
from prl_keras.training.callbacks import EpochOrder
from prl_keras.training.cross_entropy import chance
from prl_keras.training.finetuning import augmented, compile_classifier, on_features
from prl_keras.training.fit import create_variables
from prl_keras.training.screen import EpochScreen, figures_ahead
from prl_keras.tuning.best import OBJECTIVE, BestEpoch
from prl_keras.tuning.data import SearchData
from prl_keras.tuning.features import FeatureCache
from prl_keras.tuning.space import declare_space, finetune_options


class FineTuning(kt.HyperModel):
    """Head, freezing, learning rate, weight decay, dropout, augmentation and encoder, as hyperparameters.

    Every trial has the same seed. Encoders are shared by all trials and never changed: a trial that needs
    one inside its model gets a copy; the others train a head on cached features.

    Args:
        data: train and validation.
        encoders: name -> model, raw images -> features, computing under `options.precision`.
        cache: their features.
        options: of the search.
    """

    def __init__(self, data: SearchData, encoders: dict[str, keras.Model], cache: FeatureCache, options: Tune):
        super().__init__()
        self.data, self.encoders, self.cache, self.options = data, encoders, cache, options

    def settings(self, hp: kt.HyperParameters) -> Finetune:
        values = declare_space(hp, tuple(self.encoders), self.options.tuner == "grid")
        return finetune_options(values, self.options)

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        """A compiled classifier of images, or a compiled head if features will do."""
        keras.config.set_dtype_policy(self.options.precision)  # Keras Tuner's clear_session() forgets it
        keras.utils.set_random_seed(self.options.seed)
        settings = self.settings(hp)
        encoder, classes = self.encoders[settings.encoder], self.data.num_classes
        model = classification_head(settings.head, classes, encoder.output_shape[-1], settings.dropout)
        if not _on_features(settings):
            copy = copy_as(encoder, self.options.precision, FAST)
            classifier = build_classifier(copy, classes, model, settings.freeze)
            model = augmented(classifier, self.data.image_shape, settings)
        steps = steps_per_epoch(len(self.data.train), self.options.batch_size)
        compile_classifier(model, settings, self.options.epochs * steps)
        model.optimizer.build(model.trainable_variables)  # so that a trial that is continued goes on with its state
        return model

    def fit(
        self,
        hp: kt.HyperParameters,
        model: keras.Model,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        epochs: int | None = None,
        initial_epoch: int = 0,
        title: str | None = None,
    ) -> dict[str, float]:
        """Train until validation accuracy stops improving, or until `epochs`.

        Args:
            title: of the trial, above its epochs.

        Returns:
            Figures of the best epoch (see `BestEpoch`), the last epoch's number, and seconds.
        """
        started = time.monotonic()
        settings = self.settings(hp)
        train, validation = self._inputs(settings)
        batches = Batches(train, self.data.train.labels, self.options.batch_size, self.options.seed)
        stop = keras.callbacks.EarlyStopping(OBJECTIVE, mode="max", patience=self.options.patience)
        guard = keras.callbacks.TerminateOnNaN(raise_error=True)  # the trial failed; the search goes on
        best = BestEpoch(validation, self.data.validation.labels)
        create_variables(model, batches)
        with self._screen(model, batches, epochs or self.options.epochs, settings, title) as screen:
            history = model.fit(
                batches,
                validation_data=to_validate_on(validation, self.data.validation.labels),
                epochs=epochs or self.options.epochs,
                initial_epoch=initial_epoch,
                shuffle=False,
                verbose=0,
                callbacks=[EpochOrder(batches), guard, best, *callbacks, stop, EpochScreen(screen)],
            )
        return best.figures | {"epochs": history.epoch[-1] + 1, "seconds": time.monotonic() - started}

    def _screen(
        self, model: keras.Model, batches: Batches, epochs: int, settings: Finetune, title: str | None
    ) -> TrainingScreen:
        """Of one trial; unless all figures are wanted it goes with the trial, as a line about that follows."""
        shown = {"chance_loss": chance(batches.labels, self.data.num_classes, settings.label_smoothing)}
        keys, verbose = figures_ahead(model, validated=True), self.options.verbose
        return TrainingScreen(
            keys, epochs, len(batches), batches.images, shown, verbose=verbose, title=title, stays=verbose
        )

    def _inputs(self, settings: Finetune) -> tuple[np.ndarray, np.ndarray]:
        if _on_features(settings):
            return self.cache.features(self.encoders[settings.encoder])
        return self.data.train.images, self.data.validation.images


def _on_features(settings: Finetune) -> bool:
    """Whether the encoder gives the same features every epoch."""
    return settings.freeze and on_features(settings)
