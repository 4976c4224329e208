"""The paper's MLP baseline without its last layer."""

import keras
from keras import layers


def mlp_encoder(input_shape: tuple[int, int, int], name: str = "encoder") -> keras.Model:
    """Raw images (batch, height, width, channels) -> features (batch, 256): flatten -> 1024 -> 512 -> 256."""
    images = keras.Input(input_shape, name="images")
    x = layers.Rescaling(1 / 255, name="preprocessing")(images)
    x = layers.Flatten(name="pixels")(x)
    for units in (1024, 512, 256):
        x = layers.Dense(units, activation="relu", name=f"hidden{units}")(x)
    return keras.Model(images, x, name=name)
