"""Convolution of maps no larger than the kernel as one matrix product, for training.

The last stages of a ResNet on small images work on maps of 2x2 and 1x1 pixels, where most taps of a 3x3 kernel see
nothing but padding, and where oneDNN's gradient with respect to the kernel is slow. Same weights, same function:
`storage.copy_as` turns one into the other, and what is saved uses the stock layer.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor


@keras.saving.register_keras_serializable("prl_keras")
class SmallMapConv2D(keras.layers.Conv2D):
    """As `keras.layers.Conv2D` without bias, activation, dilation or groups; faster where maps are small.

    An input pixel reaches an output pixel through one tap of the kernel or through none. If the output uses no more
    input pixels than the kernel has taps, all these taps together, as a matrix (pixels in * channels in, pixels out *
    channels out), cost no more than the convolution. The matrix has to be made, though: if it is many times the kernel
    (9 times from 3x3 to 3x3 pixels), or if there are more pixels, the stock layer's operation is used.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        plain = not self.use_bias and self.groups == 1 and set(self.dilation_rate) == {1}
        linear = self.activation is keras.activations.linear and self.data_format == "channels_last"
        self._taps = None
        if plain and linear and None not in input_shape[1:]:
            rows, columns = (
                _taps(size, kernel, stride, self.padding == "same")
                for size, kernel, stride in zip(input_shape[1:3], self.kernel_size, self.strides, strict=True)
            )
            pixels, blocks, taps = len(rows) * len(columns), rows.size * columns.size, np.prod(self.kernel_size)
            if pixels <= taps and blocks <= 2 * taps:
                self._taps = rows, columns

    def call(self, inputs: KerasTensor) -> KerasTensor:
        if self._taps is None:
            return super().call(inputs)
        rows, columns = self._taps
        (height, out_height), (width, out_width) = rows.shape, columns.shape
        kernel = tf.convert_to_tensor(self.kernel)
        matrix = kernel[rows[0, 0], columns[0, 0]] if height * width == 1 else _as_matrix(kernel, rows, columns)
        used = tf.reshape(inputs[:, :height, :width], (-1, matrix.shape[0]))
        return tf.reshape(used @ matrix, (-1, out_height, out_width, self.filters))


def _as_matrix(kernel: tf.Tensor, rows: np.ndarray, columns: np.ndarray) -> tf.Tensor:
    """(kernel height, kernel width, in, out) -> (pixels in * in, pixels out * out)."""
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]  # (height in, width in, height out, width out)
    taps = np.where((rows < 0) | (columns < 0), -1, rows * kernel.shape[1] + columns)
    pixels_in, pixels_out = np.prod(taps.shape[:2]), np.prod(taps.shape[2:])
    blocks = tf.gather(tf.reshape(kernel, (-1, *kernel.shape[2:])), np.maximum(taps, 0).ravel())
    if taps.min() < 0:
        blocks *= tf.constant((taps >= 0).reshape(-1, 1, 1), blocks.dtype)
    blocks = tf.reshape(blocks, (pixels_in, pixels_out, *kernel.shape[2:]))
    return tf.reshape(tf.transpose(blocks, (0, 2, 1, 3)), (pixels_in * kernel.shape[2], -1))


def _taps(size: int, kernel: int, stride: int, same: bool) -> np.ndarray:
    """(pixels in, pixels out) along one axis: the kernel's tap between them, -1 where there is none.

    Pixels after the last one that the output uses are left out.
    """
    outputs = -(-size // stride) if same else (size - kernel) // stride + 1
    before = max((outputs - 1) * stride + kernel - size, 0) // 2 if same else 0
    taps = np.arange(size)[:, None] - stride * np.arange(outputs)[None, :] + before
    taps[(taps < 0) | (taps >= kernel)] = -1
    return taps[: np.flatnonzero((taps >= 0).any(axis=1))[-1] + 1]
