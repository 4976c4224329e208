"""A data set as a run sees it: every image goes through the network once, for all that is measured on it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from prl_keras.data import Dataset
from prl_keras.data.splits import SPLITS
from prl_keras.evaluation.probes import Features
from prl_keras.runs import Run


@dataclass(frozen=True, eq=False)
class Encoded:
    """Features (n, dim) of each split by its name; of a run with a classifier its logits (n, classes) too, the columns
    in the order of the data set's classes."""

    features: dict[str, np.ndarray]
    logits: dict[str, np.ndarray] | None = None

    def labelled(self, dataset: Dataset) -> tuple[Features, Features, Features]:
        """Train, validation and test for the classifiers, test without its labels."""
        train, validation = (
            Features(self.features[name], getattr(dataset, name).labels) for name in ("train", "validation")
        )
        return train, validation, Features(self.features["test"])


def encode_run(run: Run, dataset: Dataset, outputs: list[int] | None) -> Encoded:
    """Encode all images of the data set.

    Args:
        outputs: of each class the output of the run's classifier; None: it has none.
    """
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_encoder, load_model

    if outputs is None:
        return Encoded(_of_each_split(load_encoder(run), dataset))
    classifier = load_model(run.classifier_file)
    features = _of_each_split(classifier.get_layer("encoder"), dataset)
    head = classifier.layers[-1]
    return Encoded(features, {name: encode(head, values)[:, outputs] for name, values in features.items()})


def _of_each_split(encoder: Any, dataset: Dataset) -> dict[str, np.ndarray]:
    from prl_keras.models.encode import encode

    return {name: encode(encoder, getattr(dataset, name).images) for name in SPLITS}
