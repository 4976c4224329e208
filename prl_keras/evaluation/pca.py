"""The floor of a table: logistic regression on principal components of the pixels, as a Keras classifier."""

from typing import Any

import keras
import numpy as np
from keras import layers

from prl_keras.data import Dataset
from prl_keras.evaluation.choice import facts_of
from prl_keras.evaluation.probes import Features, linear_probe
from prl_keras.models import build_classifier, classification_head

COMPONENTS = 100
PER_COMPONENT = 4  # training images, at least
SMALLEST = 1e-4  # standard deviation, relative to the first component's
_FITTED = 10_000  # images
_FLOATS = 2**27  # of pixels at a time


def pca_classifier(dataset: Dataset, seed: int) -> tuple[keras.Model, dict[str, Any]]:
    """Fit on train; C of the regression is chosen on validation.

    Returns:
        The classifier (raw images -> logits, its layer `encoder` gives the components), and the number of components,
        the C that was chosen, by how many validation images, and from how many of the other C they do not tell it.
    """
    pca = _fit(dataset.train.images, seed)
    train, validation, test = (
        _components(pca, split.images) for split in (dataset.train, dataset.validation, dataset.test)
    )
    probe = linear_probe(
        Features(train, dataset.train.labels), Features(validation, dataset.validation.labels), Features(test)
    )
    head = classification_head("linear", dataset.num_classes, train.shape[1])
    head.set_weights(_regression_weights(probe.model))
    classifier = build_classifier(_pca_encoder(*pca, dataset.image_shape), dataset.num_classes, head)
    facts = {"validation_images": probe.validation_images, **facts_of(probe.choice)}
    return classifier, {"components": train.shape[1], **probe.chosen, **facts}


def _fit(images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (pixels,) and components (count, pixels) of at most 10,000 images.

    n images span n - 1 directions. Standardised, the last ones are noise magnified: with as many components as images
    a regression answers at chance. Hence four images a component, and none with next to no variance.
    """
    from sklearn.decomposition import PCA

    pixels = int(np.prod(images.shape[1:]))
    most = min(_FITTED, max(_FLOATS // pixels, COMPONENTS))
    if len(images) > most:
        images = images[np.sort(np.random.RandomState(seed).permutation(len(images))[:most])]
    pca = PCA(min(COMPONENTS, len(images), pixels), random_state=seed).fit(_flat(images[:]))
    deviations = np.sqrt(pca.explained_variance_)
    count = min(int(np.sum(deviations > SMALLEST * deviations[0])), len(images) // PER_COMPONENT)
    return pca.mean_, pca.components_[: max(count, 1)]


def _components(pca: tuple[np.ndarray, np.ndarray], images: np.ndarray) -> np.ndarray:
    """(n, height, width, channels) uint8 -> (n, count) float32."""
    mean, components = pca
    rows = max(_FLOATS // components.shape[1], 1)
    blocks = (_flat(images[at : at + rows]) @ components.T for at in range(0, len(images), rows))
    return np.concatenate([block - mean @ components.T for block in blocks])


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / np.float32(255)


def _pca_encoder(mean: np.ndarray, components: np.ndarray, image_shape: tuple[int, int, int]) -> keras.Model:
    images = keras.Input(image_shape, name="images")
    x = layers.Rescaling(1 / 255, name="preprocessing")(images)
    x = layers.Flatten(name="pixels")(x)
    encoder = keras.Model(images, layers.Dense(len(components), name="components")(x), name="encoder")
    encoder.set_weights([components.T, -mean @ components.T])
    return encoder


def _regression_weights(pipeline: Any) -> list[np.ndarray]:
    """Standardisation and regression as one (dim, classes) kernel and its bias."""
    scaler, regression = pipeline[0], pipeline[-1]
    kernel, bias = regression.coef_.T / scaler.scale_[:, None], regression.intercept_
    bias = bias - scaler.mean_ @ kernel
    if kernel.shape[1] == 1:  # two classes: one logit, against 0
        kernel, bias = np.hstack([0 * kernel, kernel]), np.append(0.0, bias)
    return [kernel, bias]
