"""Batch normalisation through TensorFlow's fused kernel, for training.

Keras 3's own layer computes the moments with elementwise ops on TensorFlow. Same weights, same function:
`storage.copy_as` turns one into the other, and what is saved uses the stock layer.
"""

import keras
import tensorflow as tf
from keras import KerasTensor


@keras.saving.register_keras_serializable("prl_keras")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """As `keras.layers.BatchNormalization` over the last axis of 4-D inputs, faster in training.

    Weights and statistics stay float32 also where the inputs are bfloat16 or float16.
    """

    def __init__(self, **kwargs):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs, autocast=False)  # the kernel takes half-precision inputs with float32 weights

    def call(self, inputs: KerasTensor, training: bool | None = None, mask: KerasTensor | None = None) -> KerasTensor:
        usual = self.scale and self.center and self.axis in (-1, 3) and len(inputs.shape) == 4 and mask is None
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
        for statistic, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            statistic.assign(statistic * self.momentum + value * (1.0 - self.momentum))
        return outputs
