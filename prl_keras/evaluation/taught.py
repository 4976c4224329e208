"""What a taught run holds, in prototypes.npz: its classes, what they were taught with, and what calibrates them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.preprocessing import normalize

from prl_keras.arrays import read_arrays
from prl_keras.data import Dataset
from prl_keras.data.catalog import is_folder
from prl_keras.data.seen import short, short_digests, unseen
from prl_keras.errors import InputError
from prl_keras.evaluation.novelty import spread_within, whitening
from prl_keras.evaluation.prototype_classifier import PrototypeClassifier
from prl_keras.evaluation.statistics import accuracy, calibration, needed, proportion
from prl_keras.files import atomic_path
from prl_keras.runs import Run, find_run, is_taught

if TYPE_CHECKING:
    import keras

EXAMPLES_A_CLASS, MOST_EXAMPLES = 100, 20_000  # of the classes that the encoder was trained on
MOST_HELD_OUT = 5_000
FALSE_ALARMS = 0.05  # unless the user chooses
_COLUMNS = ("features", "labels", "files", "digests")  # of `Examples`
_SHOWN = 3  # examples that an answer is explained with
_PARTS = ("examples", "held_out", "tested")  # of `Taught`
_TRAINED = ("trained_digests", "trained_labels")  # of `Taught` too, and not in older files
_FITTED = ("classes", "sums", "totals", "counts", "centre")  # of its classifier


@dataclass(frozen=True, eq=False)
class Examples:
    """Pictures of classes: features float32 (n, dim), class names (n,), files (n,) as text, digests uint64 (n,).

    digests: `data.seen.short_digests`; 0 for what the encoder was trained on.
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
    """A classifier of features, examples that tell why it answers what it does, and pictures of the classes that the
    encoder was trained on, which it was not: validation's calibrate it, test's only tell how often it is wrong.

    held_out, tested: of validation and test.
    false_alarms: the share of pictures of known classes that may be taken for unknown.
    spread: covariance (dim, dim) within the classes that the encoder was trained on, and spread_classes, their number;
        None where it was trained without classes.
    trained_digests, trained_labels: (n,) `short_digests` and classes of the encoder's training pictures, which their
        classes hold from the beginning and which do not count again.
    """

    classifier: PrototypeClassifier
    examples: Examples
    held_out: Examples
    tested: Examples
    false_alarms: float
    spread: np.ndarray | None
    spread_classes: int
    trained_digests: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    trained_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, str))

    def __post_init__(self) -> None:
        """The classifier's distance is the one that these pictures make."""
        covariance = self._covariance()
        self.classifier.whitening = None if covariance is None else whitening(covariance)

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
        """(n, dim) -> the rows of the three most similar examples, as the classifier sees them; (n, 3), or fewer."""
        if self.classifier.whitening is not None:
            apart = cdist(self._moved(features), self._moved_examples)
        else:
            apart = -(self._moved(features) @ self._moved_examples.T)
        rows = []
        for _ in range(min(_SHOWN, apart.shape[1])):  # of equals the first; a sort of all takes far longer
            rows.append(apart.argmin(axis=1))
            np.put_along_axis(apart, rows[-1][:, None], np.inf, axis=1)
        return np.stack(rows, axis=1)

    @cached_property
    def _moved_examples(self) -> np.ndarray:
        return self._moved(self.examples.features)

    def _moved(self, features: np.ndarray) -> np.ndarray:
        """(n, dim), such that distances, or products, are those of the classifier."""
        centred, matrix = features - self.classifier.centre_, self.classifier.whitening
        return normalize(centred) if matrix is None else centred @ matrix

    def teach(self, examples: Examples) -> Taught:
        """New classes, and more pictures of known ones; the classifier is changed itself."""
        self.classifier.partial_fit(examples.features, examples.labels)
        others = [part.take(~np.isin(part.digests, examples.digests)) for part in (self.held_out, self.tested)]
        return replace(self, examples=self.examples.and_(examples), held_out=others[0], tested=others[1])

    def forget(self, name: str) -> Taught:
        """Raises InputError: there is no class of that name, or it is the only one."""
        self.classifier.forget(name)
        kept = {part: (whole := getattr(self, part)).take(whole.labels != name) for part in _PARTS}
        return replace(self, **kept, **{part: getattr(self, part)[self.trained_labels != name] for part in _TRAINED})

    def holds_from_training(self, examples: Examples) -> np.ndarray:
        """(n,) bool: pictures that the encoder was trained on as of the same class."""
        some = np.isin(self.trained_digests, examples.digests)
        held = set(zip(self.trained_digests[some].tolist(), self.trained_labels[some].tolist(), strict=True))
        pairs = zip(examples.digests.tolist(), examples.labels.tolist(), strict=True)
        return np.array([pair in held for pair in pairs], dtype=bool)

    def calibrate(self) -> Taught:
        """Choose temperature and threshold anew; no threshold if too few pictures are held out."""
        self.classifier.threshold_, self.classifier.false_alarms_ = None, None
        self.classifier.temperature_ = 0.1 if self.spread is None else 2.0  # unless there is something to choose it by
        if len(self.held_out.labels) >= needed(self.false_alarms):
            self.classifier.calibrate(self.held_out.features, self.held_out.labels, self.false_alarms)
        return self

    def measured_false_alarms(self) -> dict[str, float | int] | None:
        """Of the test pictures, the share that is taken for unknown, as `statistics.proportion`; None: it cannot be."""
        if self.classifier.threshold_ is None or not len(self.tested.labels):
            return None
        known = self.classifier.is_known(self.tested.features)
        return proportion(int((~known).sum()), len(known))

    def measured_calibration(self) -> dict[str, float | int] | None:
        """`ece` of the probabilities of the test pictures of known classes, and how many these are; None: none."""
        tested = self.tested.take(np.isin(self.tested.labels, self.classifier.classes_))
        if not len(tested.labels):
            return None
        own = np.searchsorted(self.classifier.classes_, tested.labels)
        with np.errstate(divide="ignore"):
            logits = np.log(self.classifier.predict_proba(tested.features))
        return {"ece": calibration(logits, own)["ece"], "n": len(own)}

    def _covariance(self) -> np.ndarray | None:
        """Within the classes, each of which weighs alike: those of the encoder's training, and those of which at least
        two pictures were taught."""
        if self.spread is None:
            return None
        mine = self.examples.take(self.examples.taught)
        names, place, counts = np.unique(mine.labels, return_inverse=True, return_counts=True)
        means = np.zeros((len(names), len(self.spread)))
        np.add.at(means, place, mine.features.astype(np.float64))
        apart = mine.features - (means / counts[:, None])[place]
        several = counts > 1
        scaled = (apart / np.sqrt(np.maximum(counts - 1, 1))[place, None])[several[place]]
        return (self.spread_classes * self.spread + scaled.T @ scaled) / (self.spread_classes + several.sum())

    def limit_in_words(self) -> str:
        """Where "none of these" begins, if it was calibrated, and of how many known pictures that is said."""
        classifier, measured = self.classifier, self.measured_false_alarms()
        where = f"below a cosine of {classifier.threshold_:.3f} to every class"
        if classifier.whitening is not None:
            where = f"{np.sqrt(-classifier.threshold_):.3g} or more from every class (Mahalanobis)"
        chosen = (
            f"chosen by {len(self.held_out.labels):,} validation pictures for {100 * self.false_alarms:g} % of them"
        )
        if measured is None:
            return f"{where}, {chosen}"
        low, high, value = (f"{100 * measured[part]:.1f}" for part in ("low", "high", "value"))
        return f"{where}, {chosen}; of {measured['n']:,} test pictures it is {value} % ({low} - {high})"

    def held_out_accuracy(self, names: list[str]) -> dict[str, Any] | None:
        """`statistics.accuracy` on the held-out pictures among all classes, new ones too.

        names: of the classes that the encoder was trained on. None: nothing is held out.
        """
        labels = self.held_out.labels
        if not len(labels):
            return None
        number = {name: index for index, name in enumerate(names)}
        predicted = [number.get(name, -1) for name in self.classifier.predict(self.held_out.features)]
        return accuracy(np.array(predicted), np.array([number[name] for name in labels]))


def of_training(
    encoder: keras.Model, dataset: Dataset, run: Run, false_alarms: float = FALSE_ALARMS, with_classes: bool = True
) -> Taught:
    """What the encoder knows before it is taught: the classes of its data set, or only where their centre is.

    run: the encoder's; pictures of validation and test that it was trained on are left out.
    """
    from prl_keras.models.encode import encode

    names, labels = np.array(dataset.class_names, dtype=str), dataset.train.labels
    features = encode(encoder, dataset.train.images)
    spread = spread_within(features, labels) if 1 < dataset.num_classes < len(labels) else None
    classifier = PrototypeClassifier(centre=features.mean(axis=0, dtype=np.float64))
    none = Examples(features[:0], names[:0], names[:0], np.zeros(0, np.uint64))
    known = {"false_alarms": false_alarms, "spread": spread, "spread_classes": dataset.num_classes}
    if not with_classes:
        return Taught(classifier, none, none, none, **known)
    classifier.fit(features, names[labels])
    each = max(1, min(EXAMPLES_A_CLASS, MOST_EXAMPLES // len(names)))
    rows = np.sort(np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(len(names))]))
    files = np.array([_where(dataset, row) for row in rows], dtype=str)
    examples = Examples(features[rows], names[labels[rows]], files, np.zeros(len(rows), np.uint64))
    others = []
    for split in (dataset.validation, dataset.test):
        new = unseen(run, split)
        fresh = np.arange(len(split)) if new is None else np.flatnonzero(new)
        chosen = np.sort(np.random.RandomState(0).permutation(fresh)[:MOST_HELD_OUT])
        part = split.take(chosen)
        kept = encode(encoder, part.images) if len(part) else features[:0]
        others.append(Examples(kept, names[part.labels], np.full(len(part), ""), short_digests(part.images)))
    trained = {"trained_digests": short(dataset.train.digests), "trained_labels": names[labels]}
    return Taught(classifier, examples, *others, **known, **trained)


def _where(dataset: Dataset, row: int) -> str:
    """The file of a training image, or of those without files their number."""
    if dataset.train.files is None:
        return f"{dataset.label}, training image {row}"
    file = str(dataset.train.files[row])
    return str(Path(dataset.name) / file) if is_folder(dataset.name) else file


def save_taught(taught: Taught, file: Path) -> None:
    """In one step: whoever reads the run meanwhile finds the lesson before or after it."""
    classifier = taught.classifier
    content = {name: getattr(classifier, f"{name}_") for name in _FITTED}
    content |= {"spread": np.zeros((0, 0)) if taught.spread is None else taught.spread}
    content |= {name: getattr(taught, name) for name in ("spread_classes", "false_alarms", *_TRAINED)}
    content |= {"temperature": classifier.temperature_}
    content |= {"threshold": np.nan if classifier.threshold_ is None else classifier.threshold_}
    for part in _PARTS:
        content |= {f"{part}_{name}": getattr(getattr(taught, part), name) for name in _COLUMNS}
    with atomic_path(file) as temporary:
        np.savez(temporary, **content)  # of features compression takes a quarter, and of 2,000 classes 2 s


def read_taught(run: Run, file: Path | None = None) -> Taught:
    """Of the run's prototypes.npz, or of another file of the kind. Raises InputError if it is damaged."""
    file = file or run.prototypes_file
    try:
        part = read_arrays(file)
        classifier = PrototypeClassifier(centre=part["centre"])
        for name in _FITTED:
            setattr(classifier, f"{name}_", part[name])
        classifier.n_features_in_ = len(part["centre"])
        classifier.temperature_, threshold = float(part["temperature"]), float(part["threshold"])
        classifier.threshold_ = None if np.isnan(threshold) else threshold
        classifier.false_alarms_ = None
        parts = {name: Examples(*(part[f"{name}_{column}"] for column in _COLUMNS)) for name in _PARTS}
        _check_sizes(classifier, parts, part["spread"])
        spread = part["spread"] if part["spread"].size else None
        rest = {"false_alarms": float(part["false_alarms"]), "spread_classes": int(part["spread_classes"])}
        rest |= {name: part[name] for name in _TRAINED if name in part}
        if rest.get("trained_digests", np.zeros(0)).shape != rest.get("trained_labels", np.zeros(0)).shape:
            raise ValueError("trained_digests and trained_labels differ in number")
        return Taught(classifier, **parts, spread=spread, **rest)
    except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
        raise InputError(f"{file} is damaged ({error}); put a copy of it back, or remove it") from error


def _check_sizes(classifier: PrototypeClassifier, parts: dict[str, Examples], spread: np.ndarray) -> None:
    classes, (dim,) = len(classifier.classes_), classifier.centre_.shape
    sizes = {"sums": (classifier.sums_.shape, (classes, dim)), "totals": (classifier.totals_.shape, (classes, dim))}
    sizes |= {"counts": (classifier.counts_.shape, (classes,))}
    sizes |= {"spread": (spread.shape, (dim, dim) if spread.size else (0, 0))}
    for part, examples in parts.items():
        n = len(examples.labels)
        sizes |= {f"{part}_features": (examples.features.shape, (n, dim))}
        sizes |= {f"{part}_{name}": (getattr(examples, name).shape, (n,)) for name in ("files", "digests")}
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
