"""What is exported: raw uint8 images in, probabilities or features out, in one Keras model."""

import keras
import numpy as np

from prl_keras.models.encode import encode

TOLERANCE = 1e-4  # of the largest value or of 1, whichever is larger; float32 sums in another order differ by 1e-6
INPUT = "images"


def program(model: keras.Model, output: str) -> keras.Model:
    """uint8 `images` (batch, height, width, channels) -> {output: float32 (batch, n)}.

    Args:
        model: float32, raw images -> logits or features; used as it is.
        output: "probabilities" of a classifier's logits, or "features" as they are.
    """
    images = keras.Input(model.input_shape[1:], dtype="uint8", name=INPUT)
    last = keras.layers.Softmax() if output == "probabilities" else keras.layers.Identity()
    exported = keras.Model(images, {output: last(model(images))}, name="exported")
    exported(np.zeros((1, *model.input_shape[1:]), "uint8"))  # Keras exports only what was called once
    return exported


def expected(model: keras.Model, output: str, images: np.ndarray) -> np.ndarray:
    """What the program must answer, computed without it: float64 (n, dim)."""
    from scipy.special import softmax

    values = encode(model, images).astype("float64")
    return values if output == "features" else softmax(values, axis=-1)


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest, relative to the largest value if that is above 1; infinite for other shapes and for NaN."""
    if found.shape != wanted.shape:
        return np.inf
    worst = np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max())
    return float(np.nan_to_num(worst, nan=np.inf))


def trial_images(shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 (5, *shape): noise of three strengths, black, white."""
    random = np.random.RandomState(0)
    noise = [random.randint(low, high, shape) for low, high in ((0, 256), (0, 60), (180, 256))]
    return np.stack([*noise, np.zeros(shape), np.full(shape, 255)]).astype("uint8")
