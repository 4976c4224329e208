"""The two pre-trainers: `keras.Model` subclasses whose `train_step` reads like the paper.

The models and the loss come in as instances.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, ops

from prl_keras.errors import InputError
from prl_keras.labels import checked_labels
from prl_keras.losses import PrototypicalLoss
from prl_keras.prototypes import as_float, class_numbers, l2_normalise
from prl_keras.replicas import all_gather, all_sum, own
from prl_keras.training.metrics import MeanOfSome, SumOfAll
from prl_keras.training.penalties import penalised


def _checked(labels: Any) -> np.ndarray | None:
    return None if labels is None else checked_labels(labels)


class _Pretrainer(keras.Model):
    """An encoder, a projection head, a loss and an augmentation; what all pre-trainers are made of."""

    takes_rows = False  # whether it is told which of the training images a batch has

    def __init__(
        self,
        encoder: keras.Model,
        projection_head: keras.Model,
        loss: keras.losses.Loss | None,
        augmentation: keras.layers.Layer | None = None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.encoder = encoder
        self.projection_head = projection_head
        self.embedding_loss = loss
        self.augmentation = augmentation or keras.layers.Identity(name="augmentation")
        self.loss_tracker = MeanOfSome(name="loss")
        self.accuracy = MeanOfSome(name="accuracy")

    @property
    def judged_metrics(self) -> list[keras.metrics.Metric]:
        """Those that say something in validation too."""
        return self.metrics

    @property
    def networks(self) -> tuple[keras.Model, ...]:
        """Those that are trained; see `training.shared`."""
        return self.encoder, self.projection_head

    def around(self, encoder: keras.Model, projection_head: keras.Model) -> "_Pretrainer":
        """The same with other networks, for looking at."""
        return type(self)(encoder, projection_head, self.embedding_loss, self.augmentation, self.name)

    def build(self, input_shape: tuple) -> None:
        self.built = True  # encoder and head come in built

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return self.projection_head.compute_output_shape(self.encoder.compute_output_shape(input_shape))

    def call(self, images: KerasTensor, training: bool = False) -> KerasTensor:
        """Raw images (batch, height, width, channels) -> embeddings (batch, projection_dim)."""
        return self.projection_head(self.encoder(images, training=training), training=training)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **options: Any) -> keras.callbacks.History:
        """As Keras's; labels (n,) or (n, 1) are checked here, as `train_step` does not know their values."""
        validation = options.get("validation_data")
        if isinstance(validation, tuple) and len(validation) > 1:
            options["validation_data"] = (validation[0], _checked(validation[1]), *validation[2:])
        return super().fit(x, _checked(y), *args, **options)

    def make_train_function(self, force: bool = False) -> Any:
        """As Keras's, with the optimizer's variables there: a step that makes them would be traced twice."""
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **options: Any) -> Any:
        """As Keras's; labels are checked as those of `fit`."""
        return super().evaluate(x, _checked(y), *args, **options)

    def _unpacked(self, data: tuple) -> tuple[KerasTensor, KerasTensor | None]:
        """Images and class numbers (batch,) int32, or None without labels."""
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if weights is not None:
            raise InputError(
                f"{type(self).__name__} takes no sample or class weights: all images of a batch count alike"
            )
        return images, None if labels is None else class_numbers(labels)

    def _descend(self, tape: tf.GradientTape, scaled_loss: KerasTensor) -> None:
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)

    def get_config(self) -> dict:
        parts = {
            "encoder": self.encoder,
            "projection_head": self.projection_head,
            "loss": self.embedding_loss,
            "augmentation": self.augmentation,
        }
        serialised = {key: keras.saving.serialize_keras_object(part) for key, part in parts.items()}
        return {"name": self.name, **serialised}

    @classmethod
    def from_config(cls, config: dict) -> "_Pretrainer":
        name = config.pop("name", None)
        parts = {key: keras.saving.deserialize_keras_object(part) for key, part in config.items()}
        return cls(**parts, name=name)


@keras.saving.register_keras_serializable("prl_keras")
class PrototypicalPretrainer(_Pretrainer):
    """Pre-train an encoder by classifying embeddings with the prototypes of their own batch.

    The report's eq. 1 to 4; one forward pass serves support and query (the original made two, with
    separate batch-normalisation statistics).

        pretrainer = PrototypicalPretrainer(encoder, projection_head(), PrototypicalLoss(10, "query"))
        pretrainer.compile("adam")
        pretrainer.fit(images, labels, batch_size=256, epochs=25)

    Args:
        encoder: raw images -> features (batch, dim): 512 of a ResNet-18 of width 1.
        projection_head: features -> embeddings; dropped after pre-training.
        loss: a `PrototypicalLoss`.
        augmentation: layer on raw images, active in training only; None: none, as in the paper.

    Metrics: loss; accuracy of the queries among the batch's prototypes; masked_queries, how many queries
    of the epoch had no prototype of their class, or of no other class, to learn from. Loss and accuracy are NaN where
    none had them.

    A batch teaches nothing if it has no queries (fewer than four images, in "query") or no two images of a class, and
    little if it has few: with 1,000 classes, 256 images leave four of five queries unanswered. `loss.outlook(labels)`
    says it of a batch, `training.outlook.expected` of a training. A last batch of a few images is better left out:
    `fit(Batches(images, labels, 256, seed=0, drop_remainder=True))`, from `prl_keras.data.batches`.

    Raises (in training and evaluation):
        InputError: no labels, labels that are not class numbers (batch,) or (batch, 1), sample or class weights.
    """

    def __init__(
        self,
        encoder: keras.Model,
        projection_head: keras.Model,
        loss: PrototypicalLoss,
        augmentation: keras.layers.Layer | None = None,
        name: str | None = None,
    ):
        super().__init__(encoder, projection_head, loss, augmentation, name)
        self.masked_queries = SumOfAll(name="masked_queries")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.loss_tracker, self.accuracy, self.masked_queries]

    def train_step(self, data: tuple) -> dict:
        images, labels = self._unpacked(data)
        images = self.augmentation(images, training=True)
        with tf.GradientTape() as tape:
            embeddings = self(images, training=True)
            loss = self.embedding_loss(labels, embeddings)
            scaled_loss = self.optimizer.scale_loss(penalised(self, loss))
        self._descend(tape, scaled_loss)
        return self._update_metrics(labels, embeddings, loss)

    def test_step(self, data: tuple) -> dict:
        images, labels = self._unpacked(data)
        return self.judge(labels, self(images, training=False))

    def judge(self, labels: KerasTensor, embeddings: KerasTensor) -> dict:
        """Labels (batch,), embeddings (batch, dim) in inference mode -> the metrics, updated by them. `test_step` and
        the monitor of a training both ask here."""
        return self._update_metrics(labels, embeddings, self.embedding_loss(labels, embeddings))

    def _unpacked(self, data: tuple) -> tuple[KerasTensor, KerasTensor]:
        images, labels = super()._unpacked(data)
        if labels is None:
            raise InputError("PrototypicalPretrainer learns from labels: fit(images, labels)")
        return images, labels

    def _update_metrics(self, labels: KerasTensor, embeddings: KerasTensor, loss: KerasTensor) -> dict:
        episode = self.embedding_loss.episode(labels, embeddings)
        answered, telling = (all_gather(ops.cast(rows, "float32")) for rows in (episode.answerable, episode.telling))
        correct = all_gather(ops.cast(ops.argmax(episode.logits, axis=-1) == labels, "float32"))
        any_telling = ops.cast(ops.any(all_gather(episode.telling)), "float32")
        self.loss_tracker.update_state(all_sum(loss), sample_weight=any_telling * ops.sum(answered))
        self.accuracy.update_state(correct, sample_weight=telling)
        self.masked_queries.update_state(all_gather(ops.cast(episode.is_query, "float32")) - answered)
        return self.get_metrics_result()


@keras.saving.register_keras_serializable("prl_keras")
class SimCLRPretrainer(_Pretrainer):
    """Pre-train an encoder on two augmented views of each image: SimCLR or, with labels, SupCon.

        pretrainer = SimCLRPretrainer(encoder, projection_head(), NTXentLoss(0.07), augmentation)

    Args:
        encoder: raw images -> features (batch, dim): 512 of a ResNet-18 of width 1.
        projection_head: features -> embeddings; dropped after pre-training.
        loss: `NTXentLoss` or `SupervisedContrastiveLoss`, called with labels (2n,), embeddings (2n, dim).
        augmentation: random layer on raw images; without one, both views are the image itself.

    Metrics: loss; accuracy, how often the other view is the nearest embedding of the batch. Both are NaN where no batch
    had two images.

    Raises (in training and evaluation):
        InputError: labels that are not class numbers (batch,) or (batch, 1), sample or class weights.
    """

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.loss_tracker, self.accuracy]

    def train_step(self, data: tuple) -> dict:
        views, labels = self.two_views(data)
        with tf.GradientTape() as tape:
            embeddings = self(views, training=True)
            loss = self.embedding_loss(labels, embeddings)
            scaled_loss = self.optimizer.scale_loss(penalised(self, loss))
        self._descend(tape, scaled_loss)
        return self._update_metrics(embeddings, loss)

    def test_step(self, data: tuple) -> dict:
        views, labels = self.two_views(data)
        embeddings = self(views, training=False)
        return self._update_metrics(embeddings, self.embedding_loss(labels, embeddings))

    def two_views(self, data: tuple) -> tuple[KerasTensor, KerasTensor]:
        """n images -> 2n augmented views, each its own random draw, and the label of each view.

        Without labels an image is its own class.
        """
        images, labels = self._unpacked(data)
        count = ops.shape(images)[0]
        labels = own(ops.arange(all_sum(count), dtype="int32"), count) if labels is None else labels
        views = self.augmentation(ops.concatenate([images, images]), training=True)
        return views, ops.concatenate([labels, labels])

    def _update_metrics(self, embeddings: KerasTensor, loss: KerasTensor) -> dict:
        embeddings = l2_normalise(as_float(embeddings))
        everyone, own_count = all_gather(embeddings), ops.shape(embeddings)[0]
        count = ops.shape(everyone)[0]
        rows = own(ops.arange(count), own_count)
        itself = ops.cast(rows[:, None] == ops.arange(count)[None, :], embeddings.dtype)
        similarities = ops.matmul(embeddings, ops.transpose(everyone)) - 4.0 * itself
        other_view = ops.roll(rows, own_count // 2)
        nearest = ops.argmax(similarities, axis=-1)
        weight = ops.where(count > 2, ops.cast(count, "float32"), 0.0)  # of one image the only other view is nearest
        self.loss_tracker.update_state(all_sum(loss), sample_weight=weight)
        found = ops.cast(nearest == ops.cast(other_view, nearest.dtype), "float32")
        correct = all_gather(ops.reshape(found, (-1,)))  # between machines TensorFlow has lost its rank
        self.accuracy.update_state(correct, sample_weight=ops.ones_like(correct) * weight)
        return self.get_metrics_result()
