"""Label efficiency: a linear probe on frozen features with few labels a class."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from prl_keras.data import Dataset
from prl_keras.evaluation.choice import facts_of
from prl_keras.evaluation.probes import Features, linear_probe
from prl_keras.evaluation.statistics import accuracy
from prl_keras.files import write_json
from prl_keras.models.encode import encode

SIZES = (10, 20, 50, 100, 200, 500)


def label_efficiency(encoder: keras.Model, dataset: Dataset, seed: int, file: Path) -> None:
    """Write test accuracy for 10, 20, 50, 100, 200, 500 training labels a class (and for all, if there are fewer).

    A larger subset contains the smaller ones. C of the logistic regression is chosen on validation, whose size stays.
    """
    train, validation = (
        Features(encode(encoder, split.images), split.labels) for split in (dataset.train, dataset.validation)
    )
    test = Features(encode(encoder, dataset.test.images))
    points: list[dict[str, Any]] = []
    most = int(np.bincount(train.labels, minlength=dataset.num_classes).min())
    for size in [
        *(size for size in SIZES if size <= most),
        *([most] if most < SIZES[-1] and most not in SIZES else []),
    ]:
        rows = nested_subset(train.labels, size, seed)
        probe = linear_probe(Features(train.features[rows], train.labels[rows]), validation, test)
        figure = accuracy(probe.predicted, dataset.test.labels)
        points.append({"labels_per_class": size, **probe.chosen, **facts_of(probe.choice), "test": figure})
    facts = {"fingerprint": dataset.fingerprint, "seed": seed, "validation_images": len(dataset.validation)}
    write_json(file, facts | {"points": points})


def nested_subset(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """(n,) labels -> ascending rows, `per_class` of each class; contained in any larger subset of the seed."""
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chosen.append(rows[np.random.RandomState([seed, int(label)]).permutation(len(rows))[:per_class]])
    return np.sort(np.concatenate(chosen))
