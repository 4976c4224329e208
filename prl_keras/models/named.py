"""Networks of keras.applications as encoders: raw images to features."""

import warnings

import keras

from prl_keras.applications import WANTS, Application
from prl_keras.errors import InputError

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, red first, of 1
_MEAN_BLUE_FIRST = (103.939, 116.779, 123.68)


def network(source: Application, image_shape: tuple[int, int, int]) -> keras.Model:
    """Raw images, 0 to 255 -> features (batch, dim), the mean over the network's last map.

    Raises:
        InputError: images that are too small for it, or weights of another network.
    """
    try:
        inner = getattr(keras.applications, source.name)(
            include_top=False, weights=None, pooling="avg", input_shape=image_shape
        )
    except ValueError as error:
        raise InputError(f"{source} cannot take images of {_size(image_shape)}: {_first_line(error)}") from error
    if source.weights is not None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "error"
                )  # Keras only warns of layers that the file has not, and leaves them random
                inner.load_weights(source.weights)
        except Exception as error:  # h5py's and Keras's own, of many kinds
            raise InputError(
                f"--weights {source.weights}: not the weights of {source.name} without its top: {_first_line(error)}"
            ) from error
    images = keras.Input(image_shape, name="images")
    return keras.Model(images, inner(as_wanted(images, WANTS[source.name])))


def as_wanted(images: keras.KerasTensor, kind: str) -> keras.KerasTensor:
    """What the `preprocess_input` of the network's module does, of plain layers, so that a file of it can be loaded."""
    if kind == "-1 to 1":
        return keras.layers.Rescaling(1 / 127.5, -1)(images)
    if kind == "mean and deviation":
        mean, variance = [255 * each for each in _MEAN], [(255 * each) ** 2 for each in _DEVIATION]
        return keras.layers.Normalization(mean=mean, variance=variance)(images)
    if kind == "blue first, mean":
        return keras.layers.Normalization(mean=_MEAN_BLUE_FIRST, variance=(1.0,) * 3)(keras.ops.flip(images, axis=-1))
    return images


def _size(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]}x{shape[1]} pixels"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
