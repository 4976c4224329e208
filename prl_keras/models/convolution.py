"""Convolution of small maps as matrix products, for training.

The last stages of a ResNet on small images work on maps of 2x2 and 1x1 pixels, where most taps of a 3x3 kernel see
nothing but padding; and on somewhat larger ones oneDNN's gradient of the kernel takes two to four times as
long in bfloat16 as the convolution (docs/performance.md). Same weights, same function: `storage.copy_as` turns one into
the other, and what is saved is the stock layer.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor

_SMALL = 64  # pixels of an output, up to which bfloat16's gradient of the kernel is faster as matrix products


@keras.saving.register_keras_serializable("prl_keras")
class SmallMapConv2D(keras.layers.Conv2D):
    """As `keras.layers.Conv2D` without bias, activation, dilation or groups; faster where maps are small.

    An input pixel reaches an output pixel through one tap of the kernel or through none. If the output uses no more
    input pixels than the kernel has taps, all these taps together, as a matrix (pixels in * channels in, pixels out *
    channels out), cost no more than the convolution. The matrix has to be made, though: if it is many times the kernel
    (9 times from 3x3 to 3x3 pixels), or if there are more pixels, the stock layer's operation is used; in bfloat16 on a
    processor, and for few pixels, with the gradient of the kernel as one matrix product a tap.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        plain = not self.use_bias and self.groups == 1 and set(self.dilation_rate) == {1}
        linear = self.activation is keras.activations.linear and self.data_format == "channels_last"
        self._taps, self._pixels = None, 0
        if plain and linear and None not in input_shape[1:]:
            rows, columns = (
                _taps(size, kernel, stride, self.padding == "same")
                for size, kernel, stride in zip(input_shape[1:3], self.kernel_size, self.strides, strict=True)
            )
            self._pixels = rows.shape[1] * columns.shape[1]
            pixels, blocks, taps = len(rows) * len(columns), rows.size * columns.size, np.prod(self.kernel_size)
            if pixels <= taps and blocks <= 2 * taps:
                self._taps = rows, columns

    def call(self, inputs: KerasTensor) -> KerasTensor:
        slow_gradient = self.compute_dtype == "bfloat16" and 0 < self._pixels <= _SMALL
        if self._taps is None and not (slow_gradient and not tf.config.list_logical_devices("GPU")):
            return super().call(inputs)
        kernel = tf.convert_to_tensor(self.kernel)
        if self._taps is None:
            return convolution(inputs, kernel, self.strides, self.padding.upper())
        rows, columns = self._taps
        (height, out_height), (width, out_width) = rows.shape, columns.shape
        matrix = kernel[rows[0, 0], columns[0, 0]] if height * width == 1 else _as_matrix(kernel, rows, columns)
        used = tf.reshape(inputs[:, :height, :width], (-1, matrix.shape[0]))
        return tf.reshape(used @ matrix, (-1, out_height, out_width, self.filters))


def convolution(inputs: tf.Tensor, kernel: tf.Tensor, strides: tuple[int, int], padding: str) -> tf.Tensor:
    """As `tf.nn.conv2d`, "SAME" or "VALID", but for how the kernel's gradient is found: as matrix products."""

    @tf.custom_gradient
    def of_both(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            shape, steps = tf.shape(inputs), [1, *strides, 1]
            of_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=shape, filter=kernel, out_backprop=upstream, strides=steps, padding=padding
            )
            return of_inputs, _kernel_gradient(inputs, upstream, kernel.shape[:2], strides, padding)

        return tf.nn.conv2d(inputs, kernel, strides, padding), gradient

    return of_both(inputs, kernel)


def _kernel_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, taps: tuple[int, int], strides: tuple[int, int], padding: str
) -> tf.Tensor:
    """(kernel height, kernel width, in, out): of each tap the product of the pixels that it sees and of `upstream`.

    Those pixels are strides apart. In an image that is cut into blocks of a stride's size they are a slice without
    gaps, which takes a fraction of the time.
    """
    places, blocks, margins = upstream.shape[1:3], [], []
    for size, out, kernel, stride in zip(inputs.shape[1:3], places, taps, strides, strict=True):
        before = max((out - 1) * stride + kernel - size, 0) // 2 if padding == "SAME" else 0
        count = out - 1 + -(-kernel // stride)
        blocks += [count, stride]
        margins.append((before, count * stride - before - size))
    (_, below), (_, beyond) = margins  # negative: pixels that no tap sees
    inputs = inputs[:, : inputs.shape[1] + min(0, below), : inputs.shape[2] + min(0, beyond)]
    inputs = tf.pad(inputs, [(0, 0), *((before, max(0, after)) for before, after in margins), (0, 0)])
    inputs = tf.reshape(inputs, (-1, *blocks, inputs.shape[-1]))
    upstream = tf.reshape(upstream, (-1, upstream.shape[-1]))
    gradients = []
    for row, column in np.ndindex(*taps):
        (down, y), (right, x) = divmod(row, strides[0]), divmod(column, strides[1])
        seen = inputs[:, down : down + places[0], y, right : right + places[1], x]
        gradients.append(tf.matmul(tf.reshape(seen, (-1, inputs.shape[-1])), upstream, transpose_a=True))
    return tf.reshape(tf.stack(gradients), (*taps, *gradients[0].shape))


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
