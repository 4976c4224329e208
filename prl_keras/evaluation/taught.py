"""What a taught run holds, in prototypes.npz: its classes, what they were taught with, and what calibrates them."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.preprocessing import normalize

from prl_keras.data import Dataset
from prl_keras.data.catalog import is_folder
from prl_keras.errors import InputError
from prl_keras.evaluation.novelty import spread_within, whitening
from prl_keras.evaluation.prototype_classifier import PrototypeClassifier
from prl_keras.evaluation.statistics import accuracy, proportion
from prl_keras.files import atomic_path
from prl_keras.runs import Run, find_run, is_taught

if TYPE_CHECKING:
    import keras

EXAMPLES_A_CLASS, MOST_EXAMPLES = 100, 20_000  # of the classes that the encoder was trained on
MOST_HELD_OUT = 5_000
FALSE_ALARMS = 0.05  # unless the user chooses
_COLUMNS = ("features", "labels", "files", "digests")  # of `Examples`


@dataclass(frozen=True, eq=False)
class Examples:
    """Pictures of classes: features float32 (n, dim), class names (n,), files (n,) as text, digests uint64 (n,).

    digests: `data.seen.short_digests` of what was taught, 0 for what the encoder was trained on.
    """

    features: np.ndarray
    labels: np.ndarray
    files: np.ndarray
    digests: np.ndarray

    def take(self, rows: np.ndarray) -> Examples:
        return Examples(self.features[rows], self.labels[rows], self.files[rows], self.digests[rows])

    def and_(self, more: Examples) -> Examples:
        pairs = zip(vars(self).values(), vars(more).values(), strict=True)
        return Examples(*map(np.concatenate, pairs))

    @property
    def taught(self) -> np.ndarray:
        """(n,) bool: by the user."""
        return self.digests != 0


@dataclass(frozen=True, eq=False)
class Taught:
    """A classifier of features, examples that tell why it answers what it does, and validation pictures of the classes
    that the encoder was trained on, which calibrate it.

    held_out: features float32 (v, dim); held_out_labels: class names (v,).
    false_alarms: the share of pictures of known classes that may be taken for unknown.
    spread: covariance (dim, dim) within the classes that the encoder was trained on, and spread_classes, their number;
        None where it was trained without classes.
    """

    classifier: PrototypeClassifier
    examples: Examples
    held_out: np.ndarray
    held_out_labels: np.ndarray
    false_alarms: float
    spread: np.ndarray | None
    spread_classes: int

    def model(self, encoder: keras.Model) -> tuple[keras.Model, list[str]]:
        """Raw images -> logits (batch, classes) in one model of stock layers, and the names of the classes."""
        from prl_keras.models.heads import build_classifier, distance_head, prototype_head

        classifier, counts = self.classifier, self.classifier.counts_
        centre, temperature = classifier.centre_, classifier.temperature_
        if classifier.whitening is None:
            head = prototype_head(centre, normalize(classifier.sums_), temperature)
        else:
            means = classifier.totals_ / counts[:, None]
            head = distance_head(centre, classifier.whitening, means, temperature * (1 + 1 / counts))
        names = classifier.classes_.tolist()
        return build_classifier(encoder, len(names), head), names

    def sha256(self) -> str:
        """Of all that decides an answer."""
        classifier, digest = self.classifier, hashlib.sha256("\0".join(self.classifier.classes_).encode())
        arrays = (classifier.sums_, classifier.totals_, classifier.counts_, classifier.centre_, classifier.whitening)
        for part in arrays:
            digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
        digest.update(f"{classifier.temperature_!r} {classifier.threshold_!r}".encode())
        return digest.hexdigest()

    def nearest(self, features: np.ndarray) -> np.ndarray:
        """(n, dim) -> the row of the most similar example, as the classifier sees it; (n,)."""
        centre, whitening = self.classifier.centre_, self.classifier.whitening
        if whitening is not None:
            return cdist(features @ whitening, self.examples.features @ whitening).argmin(axis=1)
        return (normalize(features - centre) @ normalize(self.examples.features - centre).T).argmax(axis=1)

    def teach(self, examples: Examples) -> Taught:
        """New classes, and more pictures of known ones; the classifier is changed itself."""
        self.classifier.partial_fit(examples.features, examples.labels)
        return replace(self, examples=self.examples.and_(examples))

    def forget(self, name: str) -> Taught:
        """Raises InputError: there is no class of that name, or it is the only one."""
        self.classifier.forget(name)
        return replace(self, examples=self.examples.take(np.flatnonzero(self.examples.labels != name)))

    def calibrate(self) -> Taught:
        """Choose distance, temperature and threshold anew; no threshold if too few pictures are held out."""
        self.seeing()
        judged = np.isin(self.held_out_labels, self.classifier.classes_)
        self.classifier.threshold_, self.classifier.false_alarms_ = None, None
        self.classifier.temperature_ = 0.1 if self.spread is None else 2.0  # unless there is something to choose it by
        if int(self.false_alarms * (judged.sum() + 1)):
            self.classifier.calibrate(self.held_out[judged], self.held_out_labels[judged], self.false_alarms)
        return self

    def seeing(self) -> Taught:
        """The same, its classifier with the distance that its pictures make."""
        covariance = self._covariance()
        self.classifier.whitening = None if covariance is None else whitening(covariance)
        return self

    def _covariance(self) -> np.ndarray | None:
        """Within the classes, each of which weighs alike: those of the encoder's training, and those of which at least
        two pictures were taught."""
        if self.spread is None:
            return None
        own = [self.examples.features[rows].astype(np.float64) for rows in self._taught_rows()]
        taught = [np.cov(features, rowvar=False) for features in own if len(features) > 1]
        return (self.spread_classes * self.spread + sum(taught)) / (self.spread_classes + len(taught))

    def _taught_rows(self) -> list[np.ndarray]:
        labels = np.where(self.examples.taught, self.examples.labels, "")
        return [np.flatnonzero(labels == name) for name in np.unique(labels[self.examples.taught])]

    def limit_in_words(self) -> str:
        """Where "none of these" begins, if it was calibrated, and what that does to the held-out pictures."""
        classifier = self.classifier
        where = f"below a cosine of {classifier.threshold_:.3f} to every class"
        if classifier.whitening is not None:
            where = f"{np.sqrt(-classifier.threshold_):.1f} or more from every class (Mahalanobis)"
        alarms = classifier.false_alarms_
        return f"{where}, as are {alarms['correct']:,} of {alarms['n']:,} validation pictures"

    def held_out_accuracy(self, names: list[str]) -> dict[str, Any] | None:
        """`statistics.accuracy` on the held-out pictures among all classes, new ones too; a forgotten class's are all
        wrong. names: of the classes that the encoder was trained on. None: nothing is held out."""
        if not len(self.held_out):
            return None
        number = {name: index for index, name in enumerate(names)}
        predicted = [number.get(name, -1) for name in self.classifier.predict(self.held_out)]
        return accuracy(np.array(predicted), np.array([number[name] for name in self.held_out_labels]))


def of_training(encoder: keras.Model, dataset: Dataset, false_alarms: float, with_classes: bool = True) -> Taught:
    """What the encoder knows before it is taught: the classes of its data set, or only where their centre is."""
    from prl_keras.models.encode import encode

    names, labels = np.array(dataset.class_names, dtype=str), dataset.train.labels
    features = encode(encoder, dataset.train.images)
    spread = spread_within(features, labels) if 1 < dataset.num_classes < len(labels) else None
    known = {"false_alarms": false_alarms, "spread": spread, "spread_classes": dataset.num_classes}
    classifier = PrototypeClassifier(centre=features.mean(axis=0, dtype=np.float64))
    if not with_classes:
        none = Examples(features[:0], names[:0], names[:0], np.zeros(0, np.uint64))
        return Taught(classifier, none, features[:0], names[:0], **known)
    classifier.fit(features, names[labels])
    each = max(1, min(EXAMPLES_A_CLASS, MOST_EXAMPLES // len(names)))
    rows = np.sort(np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(len(names))]))
    files = np.array([_where(dataset, row) for row in rows], dtype=str)
    examples = Examples(features[rows], names[labels[rows]], files, np.zeros(len(rows), np.uint64))
    chosen = np.sort(np.random.default_rng(0).permutation(len(dataset.validation))[:MOST_HELD_OUT])
    held_out = dataset.validation.take(chosen)
    kept = encode(encoder, held_out.images) if len(held_out) else features[:0]
    return Taught(classifier, examples, kept, names[held_out.labels], **known).seeing()


def _where(dataset: Dataset, row: int) -> str:
    """The file of a training image, or of those without files their number."""
    if dataset.train.files is None:
        return f"{dataset.label}, training image {row}"
    file = str(dataset.train.files[row])
    return str(Path(dataset.name) / file) if is_folder(dataset.name) else file


def save_taught(taught: Taught, file: Path) -> None:
    """In one step: whoever reads the run meanwhile finds the lesson before or after it."""
    classifier, examples = taught.classifier, taught.examples
    alarms = classifier.false_alarms_ or {"correct": 0, "n": 0}
    with atomic_path(file) as temporary:
        np.savez_compressed(
            temporary,
            classes=classifier.classes_,
            sums=classifier.sums_,
            counts=classifier.counts_,
            totals=classifier.totals_,
            centre=classifier.centre_,
            spread=np.zeros((0, 0)) if taught.spread is None else taught.spread,
            spread_classes=taught.spread_classes,
            temperature=classifier.temperature_,
            threshold=np.nan if classifier.threshold_ is None else classifier.threshold_,
            false_alarms=taught.false_alarms,
            measured=[alarms["correct"], alarms["n"]],
            **{f"example_{name}": getattr(examples, name) for name in _COLUMNS},
            held_out=taught.held_out,
            held_out_labels=taught.held_out_labels,
        )


def read_taught(run: Run, file: Path | None = None) -> Taught:
    """Of the run's prototypes.npz, or of another file of the kind. Raises InputError if it is damaged."""
    file = file or run.prototypes_file
    try:
        with np.load(file, allow_pickle=False) as content:
            part = {name: content[name] for name in content.files}
        classifier, examples = _classifier(part), Examples(*(part[f"example_{name}"] for name in _COLUMNS))
        _check_sizes(classifier, examples, part)
        spread = part["spread"] if part["spread"].size else None
        known = {"false_alarms": float(part["false_alarms"]), "spread": spread}
        known["spread_classes"] = int(part["spread_classes"])
        return Taught(classifier, examples, part["held_out"], part["held_out_labels"], **known).seeing()
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{file} is damaged ({error}); put a copy of it back, or remove it") from error


def _classifier(part: dict[str, np.ndarray]) -> PrototypeClassifier:
    classifier = PrototypeClassifier(centre=part["centre"])
    for name in ("classes", "sums", "totals", "counts", "centre"):
        setattr(classifier, f"{name}_", part[name])
    classifier.n_features_in_ = len(part["centre"])
    classifier.temperature_, threshold = float(part["temperature"]), float(part["threshold"])
    classifier.threshold_ = None if np.isnan(threshold) else threshold
    correct, n = map(int, part["measured"])
    classifier.false_alarms_ = proportion(correct, n) if n else None
    return classifier


def _check_sizes(classifier: PrototypeClassifier, examples: Examples, part: dict[str, np.ndarray]) -> None:
    classes, (dim,) = len(classifier.classes_), classifier.centre_.shape
    sizes = {
        "sums": (classifier.sums_.shape, (classes, dim)),
        "totals": (classifier.totals_.shape, (classes, dim)),
        "spread": (part["spread"].shape, (dim, dim) if part["spread"].size else (0, 0)),
        "counts": (classifier.counts_.shape, (classes,)),
        "example_features": (examples.features.shape, (len(examples.labels), dim)),
        "example_files": (examples.files.shape, examples.labels.shape),
        "example_digests": (examples.digests.shape, examples.labels.shape),
        "held_out": (part["held_out"].shape, (len(part["held_out_labels"]), dim)),
    }
    for name, (found, expected) in sizes.items():
        if found != expected:
            raise ValueError(f"{name} is {found}, not {expected}")


def load_taught(run: str | Path | Run, runs_dir: str | Path = "saved_models") -> PrototypeClassifier:
    """The classifier of a run that was made with `python main.py teach`, for raw images of the encoder's size.

        classifier = prl_keras.load_taught("latest")
        names, known = classifier.predict(images), classifier.is_known(images)

    What is taught to it here is not written into the run.

    Raises:
        InputError: no such run, or one that was not taught.
    """
    from prl_keras.models.storage import load_encoder

    if not isinstance(run, Run):
        run = find_run(str(run), Path(runs_dir), is_taught, "taught run", "teach RUN NAME IMAGE...")
    classifier = read_taught(run).classifier
    classifier.encoder = load_encoder(run)
    return classifier
