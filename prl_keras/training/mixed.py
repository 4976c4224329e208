"""A classifier that learns from mixed images, and is asked for both classes in their shares."""

import keras
import tensorflow as tf
from keras import KerasTensor, ops

from prl_keras.config import Pretrain, TrainingOptions
from prl_keras.data.mixing import Mixing
from prl_keras.replicas import all_gather, all_sum, mean_of_all
from prl_keras.training.metrics import MeanOfSome
from prl_keras.training.penalties import penalised


def mixing_of(options: Pretrain | TrainingOptions) -> Mixing:
    return Mixing(options.mix, options.mix_alpha, options.mix_probability, options.seed, name="mixing")


class MixedClassifier(keras.Model):
    """Trains `classifier` (raw images -> logits) behind an augmentation and a `data.mixing.Mixing`.

    The loss of an image is share * loss(own class) + (1 - share) * loss(partner's class): Zhang et al. 2018, Yun et
    al. 2019. Compiled with a loss of class numbers that gives a value an image. Accuracy in training is that of the own
    class, and low for what is hardly the image any more. Evaluated without augmentation and mixing.
    """

    def __init__(
        self,
        classifier: keras.Model,
        augmentation: keras.layers.Layer,
        mixing: keras.layers.Layer,
        name: str = "mixed_classifier",
    ):
        super().__init__(name=name)
        self.classifier, self.augmentation, self.mixing = classifier, augmentation, mixing

    def build(self, input_shape: tuple) -> None:
        self.built = True  # the classifier comes in built

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return self.classifier.compute_output_shape(input_shape)

    def call(self, images: KerasTensor, training: bool = False) -> KerasTensor:
        return self.classifier(images, training=training)

    def shared_loss(self, labels: KerasTensor, logits: KerasTensor, share: KerasTensor) -> KerasTensor:
        """Scalar, of labels (batch,), logits (batch, classes) and each image's share of itself (batch,)."""
        partners = ops.roll(labels, 1, axis=0)
        return mean_of_all(share * self.loss.call(labels, logits) + (1.0 - share) * self.loss.call(partners, logits))

    def train_step(self, data: tuple) -> dict:
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        mixed, share = self.mixing(self.augmentation(images, training=True), training=True)
        with tf.GradientTape() as tape:
            logits = self(mixed, training=True)
            loss = self.shared_loss(labels, logits, share)
            scaled_loss = self.optimizer.scale_loss(penalised(self, loss))
        return self._stepped(tape, scaled_loss, loss, (images, labels, logits))

    def _stepped(self, tape: tf.GradientTape, scaled_loss: KerasTensor, loss: KerasTensor, labelled: tuple) -> dict:
        """Go down the gradient; the metrics, of labelled (images, labels, logits) and their loss."""
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self._figures(loss, *labelled)

    def _figures(self, loss: KerasTensor, images: KerasTensor, labels: KerasTensor, logits: KerasTensor) -> dict:
        self._loss_tracker.update_state(loss, sample_weight=ops.shape(labels)[0])
        return self.compute_metrics(images, labels, logits)


class SharedClassifier(MixedClassifier):
    """A `MixedClassifier` of which several devices share each batch: loss and metrics are those of all its rows. Also
    for images that are neither augmented nor mixed. Each device mixes its own images with each other.
    """

    def __init__(self, *parts: keras.layers.Layer, name: str = "shared_classifier"):
        super().__init__(*parts, name=name)
        self.loss_of_all, self.accuracy = MeanOfSome(name="loss"), MeanOfSome(name="accuracy")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.loss_of_all, self.accuracy]

    @property
    def networks(self) -> tuple[keras.Model, ...]:
        """Those that are trained; see `training.shared`."""
        return (self.classifier,)

    def around(self, classifier: keras.Model) -> "SharedClassifier":
        """The same with another network."""
        other = SharedClassifier(classifier, self.augmentation, self.mixing, name=self.name)
        other.loss = self.loss
        return other

    def test_step(self, data: tuple) -> dict:
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        logits = self(images, training=False)
        return self._figures(mean_of_all(self.loss.call(labels, logits)), images, labels, logits)

    def _figures(self, loss: KerasTensor, images: KerasTensor, labels: KerasTensor, logits: KerasTensor) -> dict:
        correct = all_gather(ops.cast(ops.equal(ops.argmax(logits, axis=-1), ops.cast(labels, "int32")), "float32"))
        self.loss_of_all.update_state(all_sum(loss), sample_weight=ops.shape(correct)[0])
        self.accuracy.update_state(correct)
        return self.get_metrics_result()
