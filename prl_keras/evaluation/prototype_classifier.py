"""A classifier whose classes are prototypes: taught one by one, refined and forgotten, without training."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import normalize
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from prl_keras.errors import InputError
from prl_keras.evaluation.statistics import likeliest_temperature, needed, threshold

_CHOOSE = 1000  # pictures at most that choose the temperature: one number needs no more, and 5,000 took 5 times as long


class PrototypeClassifier(ClassifierMixin, BaseEstimator):
    """Nearest class mean, in scikit-learn's conventions: by the angle at a centre, or by Mahalanobis's distance.

    A class is the sum of its pictures' features and directions and their number, so that a new one costs no training.
    With `centre` or `whitening`, what is taught in pieces, in any order, is what is taught at once; without both, the
    pictures of the first call choose the centre, from which one class alone would look like noise: it takes two or
    more. Angles: Wang et al. 2019 ("CL2N"); distances: linear discriminant analysis with equal priors, as in Hayes and
    Kanan 2020 (deep SLDA). Angles know new classes far worse (22 to 25 % right against 33 to 58 %, docs/beyond.md): for
    these take distances, as `prl_keras.load_taught` of a run of `python main.py teach` does.

        classifier = PrototypeClassifier().fit(embeddings[:200], labels[:200].astype(str))
        classifier.partial_fit(embeddings[200:203], ["owl"] * 3)
        classifier.calibrate(embeddings[203:], labels[203:].astype(str), false_alarms=0.1)
        names, known = classifier.predict(embeddings), classifier.is_known(embeddings)

    Args:
        encoder: a model from raw images (n, height, width, channels) to features, which then is what all methods take;
            None: they take features (n, dim).
        centre: (dim,) from which directions are seen, such as the mean of the features that the encoder was trained on;
            None: the mean of the features of the first call of `fit` or `partial_fit`.
        temperature: by which scores are divided for `predict_proba`, until `calibrate` chooses one; None: 0.1 for
            cosines, 2 for distances, which is right for normal distributions.
        whitening: (dim, dim) W, such that |(x - y) W| is Mahalanobis's distance, as `novelty.whitening` gives it; the
            score of a class of n pictures is then -|(x - mean) W|^2 / (1 + 1/n), as a mean of few is itself uncertain.
            None: the score is the cosine.

    Attributes:
        classes_: (classes,) sorted; sums_: (classes, dim) float64 of directions; totals_: (classes, dim) of features;
        counts_: (classes,) pictures; centre_: (dim,); temperature_; threshold_: what is known has a larger score, None
        before `calibrate`; false_alarms_: the share of the pictures that chose it which are taken for unknown.
    """

    def __init__(
        self,
        encoder: Any = None,
        centre: np.ndarray | None = None,
        temperature: float | None = None,
        whitening: np.ndarray | None = None,
    ):
        self.encoder, self.centre, self.temperature, self.whitening = encoder, centre, temperature, whitening

    def fit(self, X: np.ndarray, y: Sequence[Any]) -> "PrototypeClassifier":
        """X: features or images; y: (n,) labels of any type that sorts. What was taught before is forgotten.

        Raises:
            InputError: as `partial_fit`.
        """
        return self._taught(X, y, None, first=True)

    def partial_fit(
        self, X: np.ndarray, y: Sequence[Any], classes: Sequence[Any] | None = None
    ) -> "PrototypeClassifier":
        """Teach new classes, or refine known ones. Unlike elsewhere, `classes` need not be all that will ever come.

        Raises:
            InputError: text where the classes before are numbers, or the other way round; another number of labels than
                of pictures; a first call with one class, without `centre` and `whitening`.
        """
        return self._taught(X, y, classes, first=not hasattr(self, "classes_"))

    def forget(self, label: Any) -> "PrototypeClassifier":
        """As if the class had never been taught.

        Raises:
            InputError: there is no such class, or it is the only one.
        """
        check_is_fitted(self)
        others = self.classes_ != label
        if others.all():
            raise InputError(f"there is no class {label!r}; there are {', '.join(map(str, self.classes_[:10]))}")
        if not others.any():
            raise InputError(f"{label!r} is the only class; one must be left")
        for name in ("classes_", "sums_", "totals_", "counts_"):
            setattr(self, name, getattr(self, name)[others])
        return self

    def calibrate(self, X: np.ndarray, y: Sequence[Any], false_alarms: float = 0.05) -> "PrototypeClassifier":
        """Choose, on pictures that were not taught, the temperature that makes their labels most likely, and how near
        to a class what is known must be, so that a picture of a known class is taken for unknown with that probability
        at most.

        The threshold is the order statistic that split conformal prediction takes (Vovk et al. 2005), so the promise
        holds for any features, on average over such calibrations.

        Raises:
            InputError: fewer pictures than the probability asks for; one of a class that was not taught; another number
                of labels than of pictures.
        """
        if not 0 < false_alarms < 1:
            raise InputError(f"false_alarms is {false_alarms!r}; expected above 0 and below 1")
        scores, y = self._scores(X), np.asarray(y)
        _check_one_each(len(scores), y)
        nearest = scores.max(axis=1)
        limit = threshold(-nearest, false_alarms)
        if limit is None:
            raise InputError(
                f"{len(scores)} pictures; {needed(false_alarms)} are needed for {false_alarms:g} false alarms"
            )
        if strange := sorted(map(str, set(y.tolist()) - set(self.classes_.tolist()))):
            raise InputError(f"classes that were not taught: {', '.join(strange[:10])}")
        own = np.searchsorted(self.classes_, y)
        low, high = (0.005, 1.0) if self.whitening is None else (0.5, 500.0)
        rows = np.linspace(0, len(own) - 1, min(len(own), _CHOOSE)).astype(int)
        self.temperature_ = likeliest_temperature(scores[rows], own[rows], np.geomspace(low, high, 40))
        self.threshold_ = -limit
        self.false_alarms_ = float(np.mean(nearest <= self.threshold_))
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) of `classes_`, also for what `is_known` does not know."""
        best = self._scores(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """(n, classes) that sum to 1, if the picture is of one of them; 0 for a class without pictures."""
        return softmax(self._scores(X) / self.temperature_, axis=1)

    def is_known(self, X: np.ndarray) -> np.ndarray:
        """(n,) bool: whether a prototype is near enough; `calibrate` comes before.

        Raises:
            InputError: it did not.
        """
        scores = self._scores(X)
        if self.threshold_ is None:
            raise InputError("call calibrate() first, with pictures of known classes that were not taught")
        return scores.max(axis=1) > self.threshold_

    def _taught(self, X: np.ndarray, y: Any, classes: Any, first: bool) -> "PrototypeClassifier":
        features, y = self._features(X, y, first)
        with warnings.catch_warnings():  # many classes of few pictures are what it is for
            warnings.filterwarnings("ignore", "The number of unique classes")
            check_classification_targets(y)
        if first:
            if self.centre is None and self.whitening is None and len(np.unique(y)) == 1:
                raise InputError(
                    "the first call of fit or partial_fit has one class: give `centre`, such as the mean of the "
                    "encoder's training features, or begin with two classes or more"
                )
            self.centre_ = features.mean(axis=0) if self.centre is None else np.asarray(self.centre, np.float64)
            self.temperature_ = self.temperature or (0.1 if self.whitening is None else 2.0)
            self.threshold_, self.false_alarms_ = None, None
            self.classes_, self.counts_ = np.unique(y), np.zeros(0, int)
            self.sums_, self.totals_ = np.zeros((2, 0, features.shape[1]))
            known = self.classes_[:0]
        else:
            known = self.classes_
        parts = [known, y, *([] if classes is None else [np.asarray(classes)])]
        if len({part.dtype.kind in "biuf" for part in parts}) > 1:
            raise InputError("some labels are numbers and some are text: make all of them text")
        self.classes_ = np.unique(np.concatenate(parts))
        sums, totals = np.zeros((2, len(self.classes_), features.shape[1]))
        counts = np.zeros(len(self.classes_), int)
        before, rows = np.searchsorted(self.classes_, known), np.searchsorted(self.classes_, y)
        sums[before], totals[before], counts[before] = self.sums_, self.totals_, self.counts_
        np.add.at(sums, rows, normalize(features - self.centre_))
        np.add.at(totals, rows, features)
        self.sums_, self.totals_, self.counts_ = sums, totals, counts + np.bincount(rows, minlength=len(counts))
        return self

    def _features(self, X: np.ndarray, y: Any = None, first: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        if self.encoder is None:
            found = validate_data(self, X, *([] if y is None else [y]), reset=first, dtype=np.float64)
            return found if y is not None else (found, None)
        from prl_keras.models.encode import encode

        if y is not None:
            _check_one_each(len(X), y := np.asarray(y))
        return encode(self.encoder, X).astype(np.float64), y

    def _scores(self, X: np.ndarray) -> np.ndarray:
        """(n, classes); minus infinity for a class without pictures."""
        check_is_fitted(self)
        features, taught = self._features(X)[0], self.counts_ > 0
        if self.whitening is None:
            return np.where(taught, normalize(features - self.centre_) @ normalize(self.sums_).T, -np.inf)
        counts = np.maximum(self.counts_, 1)
        means = (self.totals_ / counts[:, None] - self.centre_) @ self.whitening
        distances = cdist((features - self.centre_) @ self.whitening, means, "sqeuclidean")
        return np.where(taught, -distances / (1 + 1 / counts), -np.inf)


def _check_one_each(pictures: int, labels: np.ndarray) -> None:
    if labels.shape != (pictures,):
        raise InputError(f"{pictures} pictures, and labels of shape {labels.shape}: give one label for each picture")
