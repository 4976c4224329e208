"""Save models atomically and plainly, load them safely, copy them, hash their weights."""

import hashlib
from pathlib import Path

import keras
import numpy as np

from prl_keras.errors import InputError
from prl_keras.files import atomic_path
from prl_keras.models.layer_types import FAST, STOCK, LayerTypes
from prl_keras.runs import Run, find_run, gives_features


def save_model(model: keras.Model, file: Path) -> None:
    """Write a `.keras` file; an interrupted write leaves the old file as it was."""
    with atomic_path(file) as temporary:
        model.save(temporary)


def load_model(file: Path) -> keras.Model:
    """Load a `.keras` file in Keras's safe mode (no code in the file is run).

    Raises:
        InputError: no such file, not a Keras model, or a model that needs unsafe loading.
    """
    if not Path(file).is_file():
        raise InputError(f"there is no model file {file}")
    try:
        return keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"cannot load {file} as a Keras model: {reason}") from error


def load_encoder(run: str | Path | Run, runs_dir: str | Path = "saved_models") -> keras.Model:
    """The encoder of a run: raw images (batch, height, width, channels) -> features (batch, dim), 512 at width 1.

        encoder = prl_keras.load_encoder("latest")

    Args:
        run: a run's name, its folder, "latest", or a `.keras` file.

    Raises:
        InputError: no such run, or it has no encoder.
    """
    if isinstance(run, str | Path) and str(run).endswith(".keras"):
        return load_model(Path(run))
    if not isinstance(run, Run):
        run = find_run(
            str(run),
            Path(runs_dir),
            gives_features,
            "run with an encoder",
        )
    if run.encoder_file.exists():
        return load_model(run.encoder_file)
    return load_model(run.classifier_file).get_layer("encoder")


def copy_as(model: keras.Model, precision: str | None, layer_types: LayerTypes | None = STOCK) -> keras.Model:
    """The same Functional model under another dtype policy and of other layer classes; weights copied.

    What is frozen stays frozen. What a run folder keeps is `copy_as(model, "float32")`: stock layers, not compiled,
    open to any Keras.

    Args:
        precision, layer_types: None: those of the model.
    """

    def convert(layer: keras.Operation) -> keras.Operation:
        if isinstance(layer, keras.Model):
            return copy_as(layer, precision, layer_types)
        if not isinstance(layer, keras.layers.Layer):  # `x + y` in a network: it has no weights and no dtype
            return type(layer).from_config(layer.get_config())
        config = layer.get_config()
        if precision and not isinstance(layer, keras.layers.InputLayer) and layer.name != "logits":
            config["dtype"] = precision
        kinds = zip(layer_types, STOCK, FAST, strict=True) if layer_types else ()  # not a user's own of these
        return next((own for own, *both in kinds if type(layer) in both), type(layer)).from_config(config)

    compiled, model.compiled = model.compiled, False  # else the copy is too, and its file holds the optimizer's slots
    try:
        copy = keras.models.clone_model(model, clone_function=convert)
    finally:
        model.compiled = compiled
    if not model.trainable:  # True would reach down and thaw what is frozen inside
        copy.trainable = False
    copy.set_weights(model.get_weights())
    return copy


def weights_sha256(model: keras.Model) -> str:
    """Hash of all weights, batch-normalisation statistics included, in the model's order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        values = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{values.shape}{values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
