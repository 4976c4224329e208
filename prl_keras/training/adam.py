"""Adam through TensorFlow's own kernel, for training.

Keras 3 updates each weight with a dozen elementwise operations; on two cores these are a fifth of a fine-tuning step
of 128 small images. The kernel passes over memory once.
"""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("prl_keras")
class FusedAdam(keras.optimizers.Adam):
    """As `keras.optimizers.Adam`: same variables, same formula (Kingma & Ba 2015, end of section 2).

    Args:
        decay_all: False: `weight_decay` leaves out variables of fewer than two dimensions: biases, and scale and offset
            of normalisations, which make nothing simpler by being small. Known before there are variables, unlike
            `exclude_from_weight_decay(var_list=...)`.
        ema_every, ema_phase: the moving average takes in the weights after steps ema_phase + 1, ema_phase + 1 +
            ema_every, ..., and after the first, with which it begins: three more passes over memory, each time.
    """

    def __init__(self, *args: Any, decay_all: bool = True, ema_every: int = 1, ema_phase: int = 0, **options: Any):
        super().__init__(*args, **options)
        self.decay_all, self.ema_every, self.ema_phase = decay_all, ema_every, ema_phase

    def _use_weight_decay(self, variable: tf.Variable) -> bool:
        return super()._use_weight_decay(variable) and (self.decay_all or len(variable.shape) > 1)

    def get_config(self) -> dict:
        own = {"decay_all": self.decay_all, "ema_every": self.ema_every, "ema_phase": self.ema_phase}
        return super().get_config() | own

    def _update_model_variables_moving_average(self, variables: list[tf.Variable]) -> None:
        update = super()._update_model_variables_moving_average
        if not self.use_ema or self.ema_every == 1:
            update(variables)
            return
        due = (self.iterations % self.ema_every == self.ema_phase) | (self.iterations == 0)
        tf.cond(due, lambda: update(variables), lambda: None)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        if self.amsgrad or variable.dtype != tf.float32:
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.convert_to_tensor(gradient, tf.float32),
        )
