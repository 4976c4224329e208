"""Accuracy under common corruptions, and errors relative to another run's (Hendrycks & Dietterich 2019).

Images are the unit of every interval: all conditions show the same ones. NumPy only, but for the classifiers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.arrays import read_arrays
from prl_keras.data import Dataset
from prl_keras.data.corruptions import corrupt, pictures_at_a_time, rule_sha256
from prl_keras.data.severities import NAMES, SEVERITIES
from prl_keras.data.splits import Split
from prl_keras.errors import InputError
from prl_keras.evaluation.probes import Features
from prl_keras.evaluation.statistics import interval_over_images, proportion
from prl_keras.files import atomic_path
from prl_keras.runs import Run

CONDITIONS = ((NAMES[0], 0), *((name, severity) for name in NAMES for severity in SEVERITIES))  # the first: clean
ALIKE = {  # augmentation -> corruptions that a training with it has seen something of
    "simclr": "changes brightness and contrast, and blurs",
    "trivial": "changes brightness and contrast, turns and shears",
}

# images (n, height, width, 3) uint8, or features (n, dim) -> each classifier's labels (n,), by its name
Predict = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Shifted:
    """Which answers were right, (76, n) bool with rows as CONDITIONS, by classifier: the first is the one that the run
    answers by; and of what (`identity`)."""

    correct: dict[str, np.ndarray]
    identity: dict[str, str]

    @property
    def classifier(self) -> str:
        return next(iter(self.correct))

    @property
    def own(self) -> np.ndarray:
        """(76, n), by the one that the run answers by."""
        return self.correct[self.classifier]

    def save(self, file: Path) -> None:
        packed = np.packbits(np.stack(list(self.correct.values())), axis=-1)
        with atomic_path(file) as temporary:
            about = {"n": self.own.shape[1], "classifier": list(self.correct)}
            np.savez_compressed(temporary, correct=packed, **about, **self.identity)


def loaded(file: Path) -> Shifted:
    """Raises InputError if the file is damaged."""
    try:
        kept = read_arrays(file)
        n = int(kept["n"])
        correct = np.unpackbits(kept["correct"], axis=-1, count=n).astype(bool)
        identity = {name: str(kept[name]) for name in ("images", "corruptions", "seed")}
        names = np.atleast_1d(kept["classifier"]).tolist()
        if correct.ndim == 2:  # of a version that asked one classifier
            correct = correct[None]
        if correct.shape != (len(names), len(CONDITIONS), n) or not n:
            raise ValueError(f"it holds {correct.shape}")
        return Shifted(dict(zip(names, correct, strict=True)), identity)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file} is damaged ({error}): repeat `evaluate --shift` of that run") from error


def identity(test: Split, seed: int) -> dict[str, str]:
    """What two measurements must share to be compared image by image."""
    return {"images": test.sha256(), "corruptions": rule_sha256(*test.images.shape[1:3]), "seed": str(seed)}


def check_same(reference: Shifted, wanted: dict[str, str], name: str) -> None:
    """Raise InputError, by the name of the reference's run, if it was measured on something else."""
    different = [what for what, value in wanted.items() if reference.identity[what] != value]
    if different:
        raise InputError(
            f"run {name!r} was measured with other {' and '.join(different)}: nothing can be compared image by image; "
            "repeat its `evaluate --shift` with the same data and --seed"
        )


def classifiers_of(run: Run, dataset: Dataset, outputs: list[int] | None) -> tuple[dict[str, str], Predict]:
    """What was chosen of each classifier, and the function from images to labels: the run's own head, if it has one,
    and those that are `fitted`; the first is the one that the run answers by.

    Args:
        outputs: of each class the output of the run's classifier; None: it has none.
    """
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_encoder, load_model

    model = None if outputs is None else load_model(run.classifier_file)
    encoder = load_encoder(run) if model is None else model.get_layer("encoder")
    clean = (Features(encode(encoder, part.images), part.labels) for part in (dataset.train, dataset.validation))
    chosen, by_features = fitted(*clean, dataset.num_classes)

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        features = encode(encoder, images)
        own = {} if model is None else {"classifier": encode(model.layers[-1], features)[:, outputs].argmax(axis=1)}
        return own | by_features(features)

    return ({} if model is None else {"classifier": ""}) | chosen, predict


def fitted(train: Features, validation: Features, num_classes: int) -> tuple[dict[str, str], Predict]:
    """What was chosen, and the answers, of a linear probe and centred prototypes: first the one that is better on
    clean validation images; of equals the latter, which choose nothing."""
    from prl_keras.evaluation.closed_form import prototype_scores
    from prl_keras.evaluation.probes import linear_probe

    probe, scores = linear_probe(train, validation, validation), prototype_scores(train, num_classes)
    found = {
        "centred prototype": ("", lambda features: scores(features).argmax(axis=1)),
        "linear probe": (probe.how, probe.model.predict),
    }
    if probe.validation_accuracy > np.mean(scores(validation.features).argmax(axis=1) == validation.labels):
        found = dict(reversed(found.items()))
    how = {name: how for name, (how, _) in found.items()}
    return how, lambda features: {name: labels(features) for name, (_, labels) in found.items()}


def answers(test: Split, predict: Predict, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Right or wrong (n,) bool by classifier for each of CONDITIONS in turn; images are read and corrupted in parts."""
    part = pictures_at_a_time(*test.images.shape[1:3])
    for name, severity in CONDITIONS:
        correct = []
        for start in range(0, len(test), part):
            images = corrupt(np.asarray(test.images[start : start + part]), name, severity, seed, start)
            labels = test.labels[start : start + part]
            correct.append({by: given == labels for by, given in predict(images).items()})
        yield {by: np.concatenate([each[by] for each in correct]) for by in correct[0]}


def shifted(found: list[dict[str, np.ndarray]], identity: dict[str, str]) -> Shifted:
    """What `answers` gave, together."""
    return Shifted({by: np.stack([each[by] for each in found]) for by in found[0]}, identity)


def figures(correct: np.ndarray) -> dict[str, Any]:
    """(76, n) -> accuracies in 0..1 with 95 % intervals over images.

    Returns:
        clean; mean: of the 75 conditions; by_severity: severity -> mean of the 15; by_corruption: name -> "mean" of the
        five, and each by its severity.
    """
    table = correct[1:].reshape(len(NAMES), len(SEVERITIES), -1)
    return {
        "clean": _one(correct[0]),
        "mean": _mean(correct[1:]),
        "by_severity": {str(s): _mean(table[:, k]) for k, s in enumerate(SEVERITIES)},
        "by_corruption": {
            name: {"mean": _mean(rows)} | {str(s): _one(row) for s, row in zip(SEVERITIES, rows, strict=True)}
            for name, rows in zip(NAMES, table, strict=True)
        },
    }


def _one(row: np.ndarray) -> dict[str, float | int]:
    return proportion(int(row.sum()), len(row))


def _mean(rows: np.ndarray) -> dict[str, float | int]:
    return {"value": float(rows.mean()), **interval_over_images(rows), "n": rows.shape[1], "conditions": len(rows)}


def relative_errors(correct: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Corruption errors of one run, (76, n) right or wrong, in those of another on the same images.

    CE of a corruption: the sum of its five error rates, divided by the reference's sum. mCE: the mean of the 15.
    "relative": the same of what the errors are above those on clean images.

    Returns:
        "mCE" and "relative_mCE": value, 95 % interval over images, paired, by the delta method, and by_corruption; no
        value where the reference's sum of some corruption, named in "undefined", cannot be told from 0.
    """
    wrong, wrong_reference = (1.0 - each.astype(np.float64) for each in (correct, reference))
    sums, sums_reference = (_sums(each) for each in (wrong, wrong_reference))
    clean = len(SEVERITIES)
    above = sums - clean * wrong[0], sums_reference - clean * wrong_reference[0]
    return {"mCE": _mean_ratio(sums, sums_reference), "relative_mCE": _mean_ratio(*above)}


def _sums(wrong: np.ndarray) -> np.ndarray:
    """(15, n): of each image how often it is wrong under a corruption."""
    return wrong[1:].reshape(len(NAMES), len(SEVERITIES), -1).sum(axis=1)


def _mean_ratio(above: np.ndarray, below: np.ndarray) -> dict[str, Any]:
    """Mean over rows of the ratio of (15, n) sums: its variance is that of what each image adds to first order."""
    n = above.shape[1]
    mean = below.mean(axis=1)
    undefined = mean <= 1.96 * below.std(axis=1) / np.sqrt(n)
    ratios = above.mean(axis=1) / np.where(undefined, np.nan, mean)
    content: dict[str, Any] = {"value": None, "low": None, "high": None, "n": n}
    if not undefined.any():
        half = 1.96 * float(((above - ratios[:, None] * below) / mean[:, None]).mean(axis=0).std()) / np.sqrt(n)
        value = float(ratios.mean())
        content |= {"value": value, "low": value - half, "high": value + half}
    content["by_corruption"] = {
        name: None if skip else float(ratio) for name, ratio, skip in zip(NAMES, ratios, undefined, strict=True)
    }
    return content | {"undefined": [name for name, skip in zip(NAMES, undefined, strict=True) if skip]}
