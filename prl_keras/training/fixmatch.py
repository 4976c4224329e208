"""FixMatch: a classifier that learns from its own sure answers, the rival of pseudo-labels by prototypes."""

import keras
import tensorflow as tf
from keras import KerasTensor, ops

from prl_keras.pseudo import check_weight, fixmatch
from prl_keras.training.mixed import MixedClassifier
from prl_keras.training.penalties import penalised

OF_UNLABELLED = ("unlabelled_loss", "used")


class FixMatchClassifier(MixedClassifier):
    """Trains `classifier` (raw images -> logits) on labelled images, and on unlabelled ones by Sohn et al. 2020.

    Its answer for an unlabelled image as it is, if its probability reaches 0.95, is asked of it on the hard view. Hard
    views of both and the images as they are pass the network together, as in the authors' program. Unlike there the
    labelled images are hard views too, so that one thing alone sets it apart from the classifier without them.

    Trained with data ((images, unlabelled), labels). Metrics: loss and accuracy, of the labelled images;
    unlabelled_loss; used, the share of unlabelled images that are sure enough.
    """

    def __init__(
        self,
        classifier: keras.Model,
        augmentation: keras.layers.Layer,
        mixing: keras.layers.Layer,
        unlabelled_weight: float = 1.0,
        name: str = "fixmatch_classifier",
    ):
        check_weight(unlabelled_weight)
        super().__init__(classifier, augmentation, mixing, name)
        self.unlabelled_weight = unlabelled_weight
        self.unlabelled_loss, self.used = (keras.metrics.Mean(name=each) for each in OF_UNLABELLED)

    def train_step(self, data: tuple) -> dict:
        (images, unlabelled), labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        count, others = ops.shape(images)[0], ops.shape(unlabelled)[0]
        views = self.augmentation(ops.concatenate([images, unlabelled]), training=True)
        hard, share = self.mixing(views[:count], training=True)
        with tf.GradientTape() as tape:
            shown = ops.concatenate([hard, views[count:], ops.cast(unlabelled, views.dtype)])
            logits = self(shown, training=True)
            own, asked, told = logits[:count], logits[count : count + others], logits[count + others :]
            loss = self.shared_loss(labels, own, share)
            unlabelled_loss, used = fixmatch(asked, told)
            total = loss + self.unlabelled_weight * unlabelled_loss
            scaled_loss = self.optimizer.scale_loss(penalised(self, total))
        self.unlabelled_loss.update_state(unlabelled_loss, sample_weight=others)
        self.used.update_state(used)
        return self._stepped(tape, scaled_loss, loss, (images, labels, own))

    def test_step(self, data: tuple) -> dict[str, KerasTensor]:
        return {name: value for name, value in super().test_step(data).items() if name not in OF_UNLABELLED}
