"""ResNet-18 as a plain Functional model: raw images in, 512 features out (at width 1)."""

import numbers
from typing import NamedTuple

import keras
from keras import KerasTensor, layers

from prl_keras.errors import InputError
from prl_keras.models.layer_types import STOCK, LayerTypes

SMALL_BELOW = 64  # pixels: smaller images get the "small" stem by default
WIDEST = 4
_CHANNELS = 8  # filters come in multiples of this, which suits vector units


class Stem(NamedTuple):
    """What comes before the first stage: a kernel x kernel convolution, and a 3x3/2 max-pool or none."""

    kernel: int
    stride: int
    pool: bool


# An image shrinks to a quarter, a quarter, a half, not at all. At 28 px a step with the 7x7 costs 3 % more than with
# "small"; with "small" less its pool, 3.5 times as much. That larger maps were no better holds for the paper's recipe
# only, which is all that was tried: light or no augmentation, a constant learning rate (docs/results.md).
STEMS = {
    "imagenet": Stem(7, 2, pool=True),
    "small": Stem(3, 2, pool=True),
    "stride2": Stem(3, 1, pool=True),
    "stride1": Stem(3, 1, pool=False),
}

# Preprocessing inside the model, from raw 0..255: (scale, offset)
PREPROCESSING = {"unit": (1 / 255, 0.0), "centred": (1 / 127.5, -1.0)}

_STEM_FILTERS = 64
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # filters, stride of the first block; two blocks each


def resnet18(
    input_shape: tuple[int, int, int],
    stem: str | None = None,
    preprocessing: str = "unit",
    layer_types: LayerTypes = STOCK,
    name: str = "encoder",
    width: float = 1.0,
) -> keras.Model:
    """ResNet-18 (He et al. 2016) without its classifier; 11,176,512 trainable weights at 3 channels and width 1.

    Convolutions have no bias, batch normalisation uses the original's epsilon and momentum, padding is
    symmetric also where the stride is 2.

        features = resnet18((28, 28, 3), stem="stride2", width=0.5)(images)

    Args:
        input_shape: (height, width, channels) of raw images, 0..255, uint8 or float.
        stem: "imagenet" (7x7/2 convolution, 3x3/2 max-pool), "small" (3x3/2 instead of 7x7/2), "stride2" (3x3/1, the
            same pool) or "stride1" (3x3/1, no pool: as is usual for CIFAR); None picks "small" for images under 64 px.
        preprocessing: "unit" (x / 255, the paper) or "centred" (to -1..1, the paper's SimCLR).
        layer_types: STOCK (Keras's own) or FAST (same weights, for training).
        width: of every layer, relative to the original (Zagoruyko & Komodakis 2016); filters are rounded to a multiple
            of 8, at least 8.

    Returns:
        (batch, height, width, channels) -> features (batch, 512 * `width`, rounded alike) in the policy's compute
        dtype.

    Raises:
        InputError: unknown stem or preprocessing, a width outside 0..4, or an image that is not (height, width,
            channels).
    """
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise InputError(f"input_shape is {input_shape}; expected (height, width, channels)")
    small = min(input_shape[:2]) < SMALL_BELOW
    stem = stem or ("small" if small else "imagenet")
    if stem == "fine":
        stem = "stride2" if small else "small"
    if stem not in STEMS:
        raise InputError(f"stem is {stem!r}; expected one of {', '.join([*STEMS, 'fine'])}")
    if preprocessing not in PREPROCESSING:
        raise InputError(f"preprocessing is {preprocessing!r}; expected one of {', '.join(PREPROCESSING)}")
    if not isinstance(width, numbers.Real) or not 0 < width <= WIDEST:
        raise InputError(f"width is {width!r}; expected a number above 0, at most {WIDEST}")
    scale, offset = PREPROCESSING[preprocessing]

    images = keras.Input(input_shape, name="images")
    x = layers.Rescaling(scale, offset, name="preprocessing")(images)
    x = _stem(x, _filters(_STEM_FILTERS, width), STEMS[stem], layer_types)
    for stage, (filters, stride) in enumerate(_STAGES, start=1):
        filters = _filters(filters, width)
        x = _basic_block(x, filters, stride, layer_types, f"stage{stage}_block1")
        x = _basic_block(x, filters, 1, layer_types, f"stage{stage}_block2")
    return keras.Model(images, layers.GlobalAveragePooling2D(name="features")(x), name=name)


def _filters(original: int, width: float) -> int:
    """The multiple of 8 next to `original` * `width`, at least 8."""
    return max(_CHANNELS, int(original * width / _CHANNELS + 0.5) * _CHANNELS)


def _stem(x: KerasTensor, filters: int, stem: Stem, types: LayerTypes) -> KerasTensor:
    x = _conv_bn(x, filters, stem.kernel, stem.stride, types, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    if not stem.pool:
        return x
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)  # after a ReLU, 0 is what -inf would be
    return layers.MaxPooling2D(3, 2, name="stem_pool")(x)


def _conv_bn(x: KerasTensor, filters: int, kernel: int, stride: int, types: LayerTypes, name: str) -> KerasTensor:
    padding = "same"
    if stride > 1:  # "same" would pad one side only
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x) if kernel > 1 else x
        padding = "valid"
    x = types.convolution(
        filters,
        kernel,
        stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=f"{name}_conv",
    )(x)
    return types.batch_norm(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def _basic_block(x: KerasTensor, filters: int, stride: int, types: LayerTypes, name: str) -> KerasTensor:
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = _conv_bn(x, filters, 1, stride, types, f"{name}_shortcut")
    x = _conv_bn(x, filters, 3, stride, types, f"{name}_1")
    x = layers.ReLU(name=f"{name}_1_relu")(x)
    x = _conv_bn(x, filters, 3, 1, types, f"{name}_2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_2_relu")(x)
