"""The floor of a table: logistic regression on principal components of the pixels, as a Keras classifier.

Imports `data`, `models` and its sibling `probes`; scikit-learn inside.
"""

from typing import Any

import keras
import numpy as np
from keras import layers

from prl_keras.data import Dataset
from prl_keras.evaluation.probes import Features, linear_probe
from prl_keras.models import build_classifier, classification_head

COMPONENTS = 100


def pca_classifier(dataset: Dataset, seed: int) -> tuple[keras.Model, dict[str, Any]]:
    """Fit on train; C of the regression is chosen on validation.

    Returns:
        The classifier (raw images -> logits, its layer `encoder` gives at most 100 components) and what was chosen.
    """
    from sklearn.decomposition import PCA

    train, validation, test = (
        (split.images.reshape(len(split), -1) / np.float32(255)).astype("float32")
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    pca = PCA(min(COMPONENTS, *train.shape), random_state=seed).fit(train)
    probe = linear_probe(
        Features(pca.transform(train), dataset.train.labels),
        Features(pca.transform(validation), dataset.validation.labels),
        Features(pca.transform(test), dataset.test.labels),
    )
    encoder = _pca_encoder(pca, dataset.image_shape)
    head = classification_head("linear", dataset.num_classes, pca.n_components_)
    head.set_weights(_regression_weights(probe.model))
    return build_classifier(encoder, dataset.num_classes, head), {"components": int(pca.n_components_), **probe.chosen}


def _pca_encoder(pca: Any, image_shape: tuple[int, int, int]) -> keras.Model:
    images = keras.Input(image_shape, name="images")
    x = layers.Rescaling(1 / 255, name="preprocessing")(images)
    x = layers.Flatten(name="pixels")(x)
    encoder = keras.Model(images, layers.Dense(pca.n_components_, name="components")(x), name="encoder")
    encoder.set_weights([pca.components_.T, -pca.mean_ @ pca.components_.T])
    return encoder


def _regression_weights(pipeline: Any) -> list[np.ndarray]:
    """Standardisation and regression as one (dim, classes) kernel and its bias."""
    scaler, regression = pipeline[0], pipeline[-1]
    kernel, bias = regression.coef_.T / scaler.scale_[:, None], regression.intercept_
    bias = bias - scaler.mean_ @ kernel
    if kernel.shape[1] == 1:  # two classes: one logit, against 0
        kernel, bias = np.hstack([0 * kernel, kernel]), np.append(0.0, bias)
    return [kernel, bias]
