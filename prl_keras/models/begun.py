"""An encoder that was made elsewhere, a run's or a user's own, as the network that a training begins with."""

from pathlib import Path

import keras

from prl_keras.applications import Application
from prl_keras.errors import InputError
from prl_keras.models.layer_types import FAST
from prl_keras.models.named import network
from prl_keras.models.storage import copy_as, load_model
from prl_keras.models.storage import load_encoder as load_of_run
from prl_keras.runs import Run


def encoder_to_begin_with(
    source: Run | Path | Application, image_shape: tuple[int, int, int], precision: str | None
) -> keras.Model:
    """Raw images of this shape -> features (batch, dim); all of it is trained.

    A network that is convolutional up to a global pooling takes images of any size; its weights stay as they are.

    Args:
        source: a run with an encoder, a `.keras` file of a Functional or Sequential model, or a network by its name,
            whose random weights are those of Keras's seed.
        precision: the policy to train under; None: the model's own.

    Raises:
        InputError: no such model, or one that cannot take these images or gives no features.
    """
    if isinstance(source, Application):
        model = network(source, image_shape)
    else:
        model = load_model(source) if isinstance(source, Path) else load_of_run(source)
    name = source.name if isinstance(source, Run) else str(source)
    if type(model).__name__ not in ("Functional", "Sequential"):  # Keras shows the first class by its name alone
        raise InputError(
            f"{name}: a {type(model).__name__} is no Functional or Sequential model; build one of its layers"
        )
    if not model.built:
        raise InputError(f"{name} has no input size: begin it with keras.Input((height, width, 3)), and save it again")
    inputs = model.inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[-1] != image_shape[-1]:
        raise InputError(f"{name} takes {[tuple(i.shape) for i in inputs]}; expected images (batch, height, width, 3)")
    if len(model.outputs) != 1 or len(model.output_shape) != 2 or model.output_shape[-1] is None:
        raise InputError(f"{name} gives {model.output_shape}; expected features (batch, dim): end it with a pooling")
    resized = model if tuple(inputs[0].shape[1:]) == tuple(image_shape) else _for_images(model, image_shape, name)
    encoder = copy_as(resized, precision, FAST)
    encoder.trainable = True
    return keras.Model(encoder.inputs[0], encoder.outputs[0], name="encoder")


def _for_images(model: keras.Model, shape: tuple[int, int, int], name: str) -> keras.Model:
    wanted = "x".join(map(str, shape[:2]))
    try:
        resized = keras.models.clone_model(model, input_tensors=keras.Input(shape, name="images"))
        resized.set_weights(model.get_weights())
    except (ValueError, TypeError) as error:
        own = "x".join(map(str, model.input_shape[1:3]))
        raise InputError(f"{name} takes {own} images and none of {wanted}: add --image-size {own}") from error
    return resized
