"""PRL-2 with unlabelled images beside the labelled ones: pseudo-labels by the averaged encoder's prototypes."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, ops

from prl_keras.errors import InputError
from prl_keras.memory import memory_prototypes, mix
from prl_keras.pseudo import (
    aligned,
    check_weight,
    confidence_weights,
    moved,
    posterior,
    pseudo_episode,
    weighted_cross_entropy,
)
from prl_keras.training.memory import MemoryPretrainer
from prl_keras.training.metrics import MeanOfSome
from prl_keras.training.penalties import penalised

MOMENTUM = 0.999  # of all averages of the teacher's answers: SoftMatch's


class PseudoLabels(keras.Layer):
    """Probabilities -> pseudo-labels and weights, by averages over the batches that it has seen.

    The averages are weights, so that they are in every checkpoint: `running`, the mean answer; `mean` and `variance` of
    the confidence, its largest probability after alignment.

    Args:
        prior: (classes,) shares that the classes should have.
        momentum: of the averages, see `pseudo.moved`.
    """

    def __init__(self, prior: np.ndarray, momentum: float = MOMENTUM, **kwargs: Any):
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        self.prior, self.momentum = np.asarray(prior, "float32"), momentum
        starts = {"running": self.prior, "mean": np.float32(self.prior.max()), "variance": np.float32(1.0)}
        for name, start in starts.items():
            initial = keras.initializers.Constant(start)
            setattr(self, name, self.add_weight(shape=start.shape, initializer=initial, trainable=False, name=name))
        self.seen = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False, name="seen")
        self.built = True

    def call(self, probabilities: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        """(batch, classes) -> class numbers (batch,) int32, weights (batch,); the averages take the batch in first."""
        self._move(self.running, ops.mean(probabilities, axis=0))
        answers = aligned(probabilities, ops.convert_to_tensor(self.running), self.prior)
        confidence = ops.max(answers, axis=-1)
        self._move(self.mean, ops.mean(confidence))
        self._move(self.variance, ops.var(confidence))
        self.seen.assign_add(1)
        weights = confidence_weights(confidence, *map(ops.convert_to_tensor, (self.mean, self.variance)))
        return ops.cast(ops.argmax(answers, axis=-1), "int32"), weights

    def _move(self, average: keras.Variable, value: KerasTensor) -> None:
        average.assign(moved(ops.convert_to_tensor(average), value, self.momentum, ops.convert_to_tensor(self.seen)))


@keras.saving.register_keras_serializable("prl_keras")
class SemiMemoryPretrainer(MemoryPretrainer):
    """`MemoryPretrainer` that learns from unlabelled images too.

    The teacher embeds the clean view of the unlabelled images; its answer among the memory's prototypes, at the loss's
    temperature, aligned with the shares of the labelled classes, is their pseudo-label (`prl_keras.pseudo`). The
    student sees the hard views of labelled and unlabelled images in one pass, so that their batch normalisation is one,
    and is asked for the pseudo-labels among the same prototypes, which are of labelled images only:

        loss = MemoryPretrainer's + unlabelled_weight * mean(weight * cross-entropy)

        batches = SemiBatches(images, labels, 64, 0, unlabelled, 7, with_rows=True, drop_remainder=True)
        pretrainer = SemiMemoryPretrainer(encoder, projection_head(), labels, 10, 0.25, 0.1)
        pretrainer.compile("adam")
        pretrainer.fit(batches, epochs=25)

    Args:
        unlabelled_weight: of their loss.
        others: as of `MemoryPretrainer`.

    Trained with data ((images, rows, unlabelled), labels). Metrics: loss, without the unlabelled images', so that it
    can be compared with that of `MemoryPretrainer`; accuracy; unlabelled_loss; used, the mean weight of the unlabelled
    images, 1 if all count. What they really are is not known here, so nothing says how many pseudo-labels are right.

    Raises (in construction, training and evaluation):
        InputError: as `MemoryPretrainer`; a weight below 0; data without unlabelled images.
    """

    def __init__(self, *args: Any, unlabelled_weight: float = 1.0, **options: Any):
        check_weight(unlabelled_weight)
        super().__init__(*args, **options)
        self.options["unlabelled_weight"] = unlabelled_weight
        counts = np.bincount(self.labels, minlength=self.options["num_classes"])
        self.pseudo_labels = PseudoLabels(counts / counts.sum(), name="pseudo_labels")
        self.unlabelled_loss, self.used = MeanOfSome(name="unlabelled_loss"), MeanOfSome(name="used")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*self.judged_metrics, self.unlabelled_loss, self.used]

    @property
    def judged_metrics(self) -> list[keras.metrics.Metric]:
        return super().metrics

    def train_step(self, data: tuple) -> dict:
        images, rows, unlabelled = self._visited(data)
        count = ops.shape(rows)[0]
        soft_targets = self._remember(self.clean_augmentation(images, training=True), rows)
        prototypes = memory_prototypes(self.memory, self.labels, self.options["num_classes"])
        taught = self.teach(self.clean_augmentation(unlabelled, training=True))
        pseudo_labels, weights = self.pseudo_labels(posterior(taught, prototypes, self.temperature))
        views = self.augmentation(ops.concatenate([images, unlabelled]), training=True)
        hard, lam = self.mixing(views[:count], training=True)
        with tf.GradientTape() as tape:
            queries = self(ops.concatenate([hard, ops.cast(views[count:], hard.dtype)]), training=True)
            episode, loss = self._asked(queries[:count], rows, lam, mix(soft_targets, lam))
            smoothing = self.options["label_smoothing"]
            asked = pseudo_episode(queries[count:], prototypes, pseudo_labels, self.temperature, smoothing)
            unlabelled_loss = weighted_cross_entropy(asked, weights)
            total = loss + self.options["unlabelled_weight"] * unlabelled_loss
            scaled_loss = self.optimizer.scale_loss(penalised(self, total))
        self._descend(tape, scaled_loss)
        self._follow()
        self.unlabelled_loss.update_state(unlabelled_loss, sample_weight=ops.shape(weights)[0])
        self.used.update_state(weights)
        return self._update_metrics(episode, ops.take(self.labels, rows, axis=0), loss, lam > 0.5)

    def _visited(self, data: tuple) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
        """Images, their rows (batch,) int32, and unlabelled images."""
        inputs, labels = self._unpacked(data)
        if not isinstance(inputs, (tuple, list)) or len(inputs) != 3:
            raise InputError(
                "SemiMemoryPretrainer learns from ((images, rows, unlabelled), labels): "
                "fit(SemiBatches(images, labels, ..., with_rows=True))"
            )
        images, rows, unlabelled = inputs
        return *super()._visited(((images, rows), labels)), unlabelled
