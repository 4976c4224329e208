"""Which layer classes a ResNet is made of: Keras's own, which are saved, or ours, which train faster.

Both have the same weights and the same function; `storage.copy_as` turns one into the other.
"""

from typing import NamedTuple

from keras import layers

from prl_keras.models.batch_norm import FusedBatchNormalization
from prl_keras.models.convolution import SmallMapConv2D


class LayerTypes(NamedTuple):
    convolution: type[layers.Conv2D]
    batch_norm: type[layers.BatchNormalization]


STOCK = LayerTypes(layers.Conv2D, layers.BatchNormalization)
FAST = LayerTypes(SmallMapConv2D, FusedBatchNormalization)
