"""Batch normalisation through TensorFlow's fused kernel, for training, and over all replicas where there are several.

Keras 3's own layer computes the moments with elementwise ops on TensorFlow. Same weights, same function:
`storage.copy_as` turns one into the other, and what is saved uses the stock layer.
"""

import keras
import tensorflow as tf
from keras import KerasTensor

from prl_keras.replicas import all_sum, context


@keras.saving.register_keras_serializable("prl_keras")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """As `keras.layers.BatchNormalization` over the last axis of 4-D inputs, faster in training.

    Weights and statistics stay float32 also where the inputs are bfloat16 or float16.

    On several replicas the statistics are those of all their images, as on one with the whole batch. They take one
    all-reduce a layer, of sums, squares and count together; Keras's `synchronized` takes three. With
    `local_statistics`, an attribute that is not saved, each replica normalises by its own images, and only the moving
    statistics are the mean over all.
    """

    local_statistics = False

    def __init__(self, **kwargs):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs, autocast=False)  # the kernel takes half-precision inputs with float32 weights

    def call(self, inputs: KerasTensor, training: bool | None = None, mask: KerasTensor | None = None) -> KerasTensor:
        last_axis = self.axis in (-1, len(inputs.shape) - 1) and mask is None
        replica = context() if training and self.trainable and last_axis else None
        if replica is not None and not self.local_statistics:
            return self._synchronised(inputs)
        usual = self.scale and self.center and last_axis and len(inputs.shape) == 4
        if not (training and self.trainable and usual):
            outputs = super().call(inputs, training=training, mask=mask)
            return tf.cast(outputs, inputs.dtype)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=tf.constant([], tf.float32),
            variance=tf.constant([], tf.float32),
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        variance *= (count - 1.0) / count  # the kernel returns the unbiased one; Keras keeps the biased one
        if replica is not None:
            mean, variance = tf.unstack(all_sum(tf.stack([mean, variance])) / replica.num_replicas_in_sync)
        self._follow(mean, variance)
        return outputs

    def _synchronised(self, inputs: KerasTensor) -> KerasTensor:
        """Squares are about the moving mean, the same on each replica: about 0 they would cancel far from it."""
        values, about = tf.cast(inputs, tf.float32), tf.convert_to_tensor(self.moving_mean)
        axes, channels = list(range(len(inputs.shape) - 1)), inputs.shape[-1]
        deviations = values - about
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        sums, squares = tf.reduce_sum(deviations, axes), tf.reduce_sum(tf.square(deviations), axes)
        total = all_sum(tf.concat([sums, squares, count[None]], axis=0))
        sums, squares, count = tf.split(total, [channels, channels, 1])
        offset = sums / count
        mean, variance = about + offset, tf.maximum(squares / count - tf.square(offset), 0.0)
        outputs = tf.nn.batch_normalization(values, mean, variance, self.beta, self.gamma, self.epsilon)
        self._follow(mean, variance)
        return tf.cast(outputs, inputs.dtype)

    def _follow(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Move the moving statistics; on several replicas each has the same values, and moves its own copy."""
        for statistic, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            statistic.assign(statistic * self.momentum + value * (1.0 - self.momentum))
