"""Heads: what sits on an encoder's features during pre-training and after it."""

import keras
import numpy as np
from keras import layers

from prl_keras.errors import InputError
from prl_keras.models.storage import copy_as

HEADS = ("linear", "mlp")
NECKS = ("none", "norm")


def projection_head(
    projection_dim: int = 128,
    hidden_dim: int = 512,
    input_dim: int = 512,
    name: str = "projection_head",
    neck: str = "none",
) -> keras.Model:
    """(batch, input_dim) -> embeddings (batch, projection_dim): Dense -> ReLU -> Dense, dropped afterwards.

        projection_head(128, input_dim=512)

    Args:
        projection_dim: 0 is the identity: the loss then acts on the features, as on the paper's poster.
        neck: "norm": a batch normalisation comes first (Luo et al. 2019, BNNeck). Features are means of ReLUs: their
            cosines are near 1 at first and never below 0, those of normalised ones are around 0.

    Raises:
        InputError: a negative size; an unknown neck.
    """
    if projection_dim < 0 or hidden_dim < 1:
        raise InputError(f"projection head of {hidden_dim} -> {projection_dim}; expected 1 or more -> 0 or more")
    if neck not in NECKS:
        raise InputError(f"neck is {neck!r}; expected one of {', '.join(NECKS)}")
    head = keras.Sequential([keras.Input((input_dim,), name="features")], name=name)
    if neck == "norm":
        head.add(layers.BatchNormalization(name="neck"))
    if projection_dim == 0:
        if neck == "none":
            head.add(layers.Identity(name="no_projection"))
        return head
    head.add(layers.Dense(hidden_dim, activation="relu", name="projection_hidden"))
    head.add(layers.Dense(projection_dim, name="projection"))
    return head


def classification_head(
    kind: str, num_classes: int, input_dim: int = 512, dropout: float = 0.0, name: str = "head"
) -> keras.Model:
    """(batch, input_dim) -> float32 logits (batch, num_classes).

    Args:
        kind: "linear" (one Dense) or "mlp" (256 -> 128 -> classes, ReLU).
        dropout: rate before the last layer.

    Raises:
        InputError: unknown kind, fewer than two classes, or a rate outside 0..1.
    """
    if kind not in HEADS:
        raise InputError(f"head is {kind!r}; expected one of {', '.join(HEADS)}")
    if num_classes < 2:
        raise InputError(f"num_classes is {num_classes}; expected at least 2")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout is {dropout}; expected at least 0 and below 1")
    head = keras.Sequential([keras.Input((input_dim,), name="features")], name=name)
    if kind == "mlp":
        head.add(layers.Dense(256, activation="relu", name="hidden1"))
        head.add(layers.Dense(128, activation="relu", name="hidden2"))
    if dropout:
        head.add(layers.Dropout(dropout, name="dropout"))
    head.add(layers.Dense(num_classes, dtype="float32", name="logits"))
    return head


def prototype_head(centre: np.ndarray, prototypes: np.ndarray, temperature: float, name: str = "head") -> keras.Model:
    """(batch, dim) -> float32 logits (batch, classes): the cosines with the prototypes, seen from the centre, over the
    temperature. Stock layers, nothing to train.

    Args:
        centre: (dim,); prototypes: (classes, dim) of length 1.
    """
    head = keras.Sequential([keras.Input(centre.shape, name="features")], name=name)
    head.add(layers.Normalization(mean=centre.tolist(), variance=[1.0] * len(centre), name="centred"))
    head.add(layers.UnitNormalization(name="direction"))
    head.add(layers.Dense(len(prototypes), use_bias=False, dtype="float32", name="logits"))
    head.get_layer("logits").set_weights([np.asarray(prototypes.T / temperature, "float32")])
    return head


def distance_head(
    centre: np.ndarray, whitening: np.ndarray, means: np.ndarray, scale: np.ndarray, name: str = "head"
) -> keras.Model:
    """(batch, dim) -> float32 logits (batch, classes): -|(x - mean) W|^2 / scale. Stock layers, nothing to train.

    Args:
        centre: (dim,), near the data, where numbers stay small; whitening: (dim, dim) W; means: (classes, dim);
        scale: (classes,).
    """
    features = keras.Input(centre.shape, name="features")
    moved = layers.Dense(len(centre), dtype="float32", name="whitened")
    logits = layers.Dense(len(means), dtype="float32", name="logits")
    x = moved(features)
    outputs = logits(layers.Concatenate()([x, layers.Dot(axes=1)([x, x])]))
    moved.set_weights([whitening.astype("float32"), (-centre @ whitening).astype("float32")])
    means = (means - centre) @ whitening
    kernel = np.concatenate([2 * means.T / scale, [-1 / scale]])
    logits.set_weights([kernel.astype("float32"), (-np.square(means).sum(axis=1) / scale).astype("float32")])
    return keras.Model(features, outputs, name=name)


def build_classifier(
    encoder: keras.Model,
    num_classes: int,
    head: str | keras.Model = "linear",
    freeze: bool = False,
    dropout: float = 0.0,
) -> keras.Model:
    """Put a head on an encoder: raw images -> logits (batch, num_classes), a plain Functional model.

        build_classifier(resnet18((32, 32, 3)), num_classes=10, head="mlp", freeze=True)

    Args:
        encoder: a Functional or Sequential model, (batch, height, width, channels) -> (batch, features).
        head: "linear", "mlp", or a model that takes the encoder's features. Used as it is, not copied.
        freeze: True: the classifier has a frozen copy, so that nothing that is done with the encoder later reaches it;
            its batch normalisation uses its moving statistics. False: the encoder itself is part of the classifier, is
            made trainable, and is trained with it. Either way it is `classifier.get_layer(encoder.name)`.

    Raises:
        InputError: the encoder's output is not (batch, features), or does not fit the head.
    """
    if len(encoder.output_shape) != 2:
        raise InputError(f"encoder gives {encoder.output_shape}; expected (batch, features)")
    features = encoder.output_shape[-1]
    if isinstance(head, str):
        head = classification_head(head, num_classes, features, dropout)
    if head.input_shape[-1] != features:
        raise InputError(f"encoder gives {features} features, but the head takes {head.input_shape[-1]}")
    if head.output_shape[-1] != num_classes:
        raise InputError(f"head gives {head.output_shape[-1]} classes; expected {num_classes}")
    if freeze:
        encoder = copy_as(encoder, None, None)
    encoder.trainable = not freeze
    images = keras.Input(encoder.input_shape[1:], name="images")
    return keras.Model(images, head(encoder(images)), name="classifier")
