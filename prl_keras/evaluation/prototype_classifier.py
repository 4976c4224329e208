"""A classifier whose classes are prototypes: taught one by one, refined and forgotten, without training."""

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
from prl_keras.evaluation.statistics import likeliest_temperature, proportion


class PrototypeClassifier(ClassifierMixin, BaseEstimator):
    """Nearest class mean on the sphere around a centre, in scikit-learn's conventions.

    A class is the sum of the directions of its pictures and their number, so that a new one costs no training, and what
    is taught in pieces, in any order, is what is taught at once. Wang et al. 2019 (SimpleShot, "CL2N").

        classifier = PrototypeClassifier().fit(embeddings[:200], labels[:200].astype(str))
        classifier.partial_fit(embeddings[200:203], ["owl"] * 3)
        classifier.calibrate(embeddings[203:], labels[203:].astype(str), false_alarms=0.1)
        names, known = classifier.predict(embeddings), classifier.is_known(embeddings)

    Args:
        encoder: a model from raw images (n, height, width, channels) to features, which then is what all methods take;
            None: they take features (n, dim).
        centre: (dim,) from which directions are seen, such as the mean of the features that the encoder was trained on;
            None: the mean of the features of the first call of `fit` or `partial_fit`.
        temperature: by which cosines are divided for `predict_proba`, until `calibrate` chooses one.
        whitening: (dim, dim) W, such that |(x - y) W| is a Mahalanobis distance, as `novelty.whitening` gives it; then
            what is known is decided by the distance to the nearest class mean instead of by the cosine. That of a class
            of n pictures is divided by sqrt(1 + 1/n), as a mean of few is itself uncertain.

    Attributes:
        classes_: (classes,) sorted; sums_: (classes, dim) float64 of directions; totals_: (classes, dim) of features;
        counts_: (classes,) pictures; centre_: (dim,); temperature_; threshold_: of what is known the largest distance,
        negative, or the least cosine, None before `calibrate`; false_alarms_: what `calibrate` measured, with its
        interval.
    """

    def __init__(
        self,
        encoder: Any = None,
        centre: np.ndarray | None = None,
        temperature: float = 0.1,
        whitening: np.ndarray | None = None,
    ):
        self.encoder, self.centre, self.temperature, self.whitening = encoder, centre, temperature, whitening

    def fit(self, X: np.ndarray, y: Sequence[Any]) -> "PrototypeClassifier":
        """X: features or images; y: (n,) labels of any type that sorts. What was taught before is forgotten."""
        return self._taught(X, y, None, first=True)

    def partial_fit(
        self, X: np.ndarray, y: Sequence[Any], classes: Sequence[Any] | None = None
    ) -> "PrototypeClassifier":
        """Teach new classes, or refine known ones. Unlike elsewhere, `classes` need not be all that will ever come.

        Raises:
            InputError: text where the classes before are numbers, or the other way round.
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
            InputError: fewer pictures than the probability asks for; one of a class that was not taught.
        """
        if not 0 < false_alarms < 1:
            raise InputError(f"false_alarms is {false_alarms!r}; expected above 0 and below 1")
        features, y = self._asked(X), np.asarray(y)
        cosines = self._cosines(features)
        place = int(false_alarms * (len(cosines) + 1))
        if not place:
            needed = int(np.ceil(1 / false_alarms)) - 1
            raise InputError(f"{len(cosines)} pictures; {needed} are needed for {false_alarms:g} false alarms")
        if strange := sorted(map(str, set(y.tolist()) - set(self.classes_.tolist()))):
            raise InputError(f"classes that were not taught: {', '.join(strange[:10])}")
        own = np.searchsorted(self.classes_, y)
        self.temperature_ = likeliest_temperature(cosines, own, np.geomspace(0.005, 1.0, 40))
        nearest = self._nearness(features, cosines)
        self.threshold_ = float(np.sort(nearest)[place - 1])
        self.false_alarms_ = proportion(int((nearest <= self.threshold_).sum()), len(nearest))
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) of `classes_`, also for what `is_known` does not know."""
        nearest = self._cosines(self._asked(X)).argmax(axis=1)
        return self.classes_[nearest]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """(n, classes) that sum to 1, if the picture is of one of them; 0 for a class without pictures."""
        return softmax(self._cosines(self._asked(X)) / self.temperature_, axis=1)

    def is_known(self, X: np.ndarray) -> np.ndarray:
        """(n,) bool: whether a prototype is near enough; `calibrate` comes before.

        Raises:
            InputError: it did not.
        """
        features = self._asked(X)
        if self.threshold_ is None:
            raise InputError("call calibrate() first, with pictures of known classes that were not taught")
        return self._nearness(features, self._cosines(features)) > self.threshold_

    def _taught(self, X: np.ndarray, y: Any, classes: Any, first: bool) -> "PrototypeClassifier":
        features, y = self._features(X, y, first)
        check_classification_targets(y)
        if first:
            self.centre_ = features.mean(axis=0) if self.centre is None else np.asarray(self.centre, np.float64)
            self.temperature_, self.threshold_, self.false_alarms_ = self.temperature, None, None
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

        return encode(self.encoder, X).astype(np.float64), None if y is None else np.asarray(y)

    def _asked(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        return self._features(X)[0]

    def _cosines(self, features: np.ndarray) -> np.ndarray:
        """(n, classes); minus infinity for a class without pictures."""
        directions = normalize(features - self.centre_)
        return np.where(self.counts_ > 0, directions @ normalize(self.sums_).T, -np.inf)

    def _nearness(self, features: np.ndarray, cosines: np.ndarray) -> np.ndarray:
        """(n,) to the nearest class; the larger the nearer."""
        if self.whitening is None:
            return cosines.max(axis=1)
        taught = self.counts_ > 0
        counts = self.counts_[taught, None]
        distances = cdist(features @ self.whitening, self.totals_[taught] / counts @ self.whitening, "sqeuclidean")
        return -np.sqrt((distances / (1 + 1 / counts.T)).min(axis=1))
