"""What a run says of pictures, from what its model gives: a head's logits, or features beside prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prl_keras.config import RunDataOptions
from prl_keras.data.request import data_request_of_run, open_data
from prl_keras.data.seen import seen_by
from prl_keras.errors import InputError
from prl_keras.runs import Run, is_taught
from prl_keras.screen.console import console, say

if TYPE_CHECKING:
    import keras

    from prl_keras.evaluation.taught import Taught


class Judged(NamedTuple):
    """best: (n, top) classes, the likeliest first and the first of equals; shares: their probabilities; known: (n,)
    bool, False for what is like no class; nearest: (n, some) rows of the most similar examples. None: the run cannot
    tell."""

    best: np.ndarray
    shares: np.ndarray
    known: np.ndarray | None = None
    nearest: np.ndarray | None = None


class HeadJudge:
    """Of a run with a classifier."""

    examples: tuple[Sequence[str], Sequence[str]] | None = None

    def __init__(self, run: Run):
        from prl_keras.models.storage import load_model, weights_sha256

        data, self.model = run.part("data"), load_model(run.classifier_file)
        self.classes: Sequence[str] = data["class_names"]
        if list(self.model.input_shape[1:3]) != data["image_shape"][:2] or self.model.output_shape[-1] != len(
            self.classes
        ):
            raise InputError(
                f"{run.path / 'config.json'} and {run.classifier_file.name} do not fit; restore one of them"
            )
        self.encoder = next((layer for layer in self.model.layers if layer.name == "encoder"), None)
        self.facts = {"classifier_sha256": weights_sha256(self.model), "class_names": self.classes}
        self.seen = seen_by(run)

    def judged(self, logits: np.ndarray, top: int) -> Judged:
        from scipy.special import softmax

        return _likeliest(softmax(logits, axis=-1), top)


class WaryJudge(HeadJudge):
    """Of a run with a classifier, which also says what is like nothing in its training: RUN/known.npz."""

    def __init__(self, run: Run, where: RunDataOptions):
        import keras

        super().__init__(run)
        if self.encoder is None:
            raise InputError(f"run {run.name!r} has no encoder inside, so that --reject cannot compare; leave it out")
        self._known = _known(run, self.encoder, where)
        self._dim, images = self.encoder.output_shape[-1], self.model.input
        features = self.encoder(images)
        both = keras.layers.Concatenate(dtype="float32")([features, self.model.layers[-1](features)])
        self.model = keras.Model(images, both)
        examples = self._known.examples
        self.examples = examples.files.tolist(), examples.labels.tolist()
        self.facts |= {"known_sha256": self._known.sha256()}
        if self._known.classifier.threshold_ is None:
            raise InputError(
                f"--reject needs more validation pictures that run {run.name!r} was not trained on; leave it out"
            )
        say(f'"none of these": {self._known.limit_in_words()}')

    def judged(self, outputs: np.ndarray, top: int) -> Judged:
        features, logits = outputs[:, : self._dim], outputs[:, self._dim :]
        known, nearest = self._known.classifier.is_known(features), self._known.nearest(features)
        return super().judged(logits, top)._replace(known=known, nearest=nearest)


def _known(run: Run, encoder: keras.Model, where: RunDataOptions) -> Taught:
    """The run's own classes, made when they are first asked for, and kept where the run can be written."""
    from prl_keras.evaluation.taught import of_training, read_taught, save_taught

    file = run.path / "known.npz"
    if file.exists():
        return read_taught(run, file)
    try:
        dataset = open_data(data_request_of_run(run, where), run)
        if dataset.fingerprint != run.part("data", "fingerprint"):
            raise InputError(f"{dataset.label} has other images")
    except InputError as error:
        raise InputError(
            f"--reject needs the data set that run {run.name!r} was trained on, as it was ({error})"
        ) from error
    with console.status(f"Encoding the images of {dataset.label}"):
        known = of_training(encoder, dataset, run).calibrate()
    with suppress(OSError):
        save_taught(known, file)
    return known


class PrototypeJudge:
    """Of a taught run."""

    def __init__(self, run: Run):
        from prl_keras.evaluation.taught import read_taught
        from prl_keras.models.storage import load_encoder

        self._taught, self.model = read_taught(run), load_encoder(run)
        self.encoder: keras.Model | None = self.model
        classifier, examples = self._taught.classifier, self._taught.examples
        if (self.model.output_shape[-1],) != classifier.centre_.shape:
            raise InputError(f"{run.prototypes_file} and {run.encoder_file.name} do not fit; restore one of them")
        self.classes: Sequence[str] = classifier.classes_.tolist()
        self.examples = examples.files.tolist(), examples.labels.tolist()
        self.facts = {"prototypes_sha256": self._taught.sha256(), "class_names": self.classes}
        seen = seen_by(run)
        self.seen = None if seen is None else np.concatenate([seen, examples.digests[examples.taught]])

    @property
    def can_reject(self) -> bool:
        return self._taught.classifier.threshold_ is not None

    def judged(self, features: np.ndarray, top: int) -> Judged:
        classifier = self._taught.classifier
        known = None if classifier.threshold_ is None else classifier.is_known(features)
        likeliest = _likeliest(classifier.predict_proba(features), top)
        return likeliest._replace(known=known, nearest=self._taught.nearest(features))


def judge_of(run: Run, reject: bool, where: RunDataOptions) -> HeadJudge | PrototypeJudge:
    """What answers for the run.

    Args:
        reject: whether it is to say what is like no class; a taught run does anyway.
        where: of the data that the run was trained on, if they were moved.

    Raises:
        InputError: what the run kept is damaged, or does not belong together.
    """
    if is_taught(run):
        if where.dataset or where.data_dir:
            raise InputError(f"run {run.name!r} was taught, and needs no data: leave out --dataset and --data-dir")
        judge = PrototypeJudge(run)
        if reject and not judge.can_reject:
            raise InputError(f'nothing tells run {run.name!r} what is "none of these", see `teach`: leave out --reject')
        return judge
    return WaryJudge(run, where) if reject else HeadJudge(run)


def _likeliest(probabilities: np.ndarray, top: int) -> Judged:
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
    return Judged(best, np.take_along_axis(probabilities, best, axis=-1))
