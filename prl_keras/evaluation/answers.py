"""One probability for each class and picture, from a run's classifier or, where it has none, from its features."""

from dataclasses import dataclass

import numpy as np

from prl_keras.evaluation.choice import choose
from prl_keras.evaluation.closed_form import posteriors, shares
from prl_keras.evaluation.probes import Features, ProbeResult, knn, minus_distances
from prl_keras.prototypes import class_prototypes


@dataclass(frozen=True, eq=False)
class Answers:
    """Probabilities (n, classes) of validation and of test, the name of what gives them, and how it was chosen."""

    name: str
    how: str
    validation: np.ndarray
    test: np.ndarray


def of_classifier(validation: np.ndarray, test: np.ndarray) -> Answers:
    """From the logits (n, classes) of a run's own classifier."""
    from scipy.special import softmax

    parts = (softmax(np.asarray(logits, "float64"), axis=-1) for logits in (validation, test))
    return Answers("classifier", "The run's own classifier gives the answers.", *parts)


def of_features(
    train: Features, validation: Features, test: Features, num_classes: int, near: ProbeResult | None = None
) -> Answers:
    """Nearest prototype or kNN, whichever is right more often on validation; `test` needs no labels.

    Both at the temperature at which validation is most likely.

    Args:
        near: what `knn` gives for them; None: it is asked.
    """
    near = near or knn(train, validation, test)
    scores = {
        "nearest prototype": _prototype_scores(train, validation, test, num_classes),
        "kNN": tuple(shares(labels, num_classes) for labels in near.neighbours),
    }
    answers = [posteriors(*pair, validation.labels) for pair in scores.values()]
    rows = np.arange(len(validation.labels))
    correct = [known.argmax(axis=1) == validation.labels for known, _ in answers]
    likelihood = [np.log(np.maximum(known[rows, validation.labels], 1e-30)).mean() for known, _ in answers]
    place = choose(correct, likelihood).place
    names, right = list(scores), [f"{100 * each.mean():.1f} %" for each in correct]
    chosen, other = (names[place], right[place]), (names[1 - place], right[1 - place])
    how = (
        f"The run has no classifier of its own: the {chosen[0]} gives the answers, chosen on {len(rows):,} validation "
        f"pictures ({chosen[1]} right; {other[0]} {other[1]})."
    )
    return Answers(chosen[0], how, *answers[place])


def _prototype_scores(
    train: Features, validation: Features, test: Features, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Minus the Euclidean distances to the class means, in units of their spread on validation."""
    prototypes, counts = class_prototypes(train.labels, train.features, num_classes)
    known, wanted = (np.concatenate(list(minus_distances(split.features, prototypes))) for split in (validation, test))
    spread = float(known.std()) or 1.0
    absent = np.where(np.asarray(counts) > 0, 0.0, -1e3)  # a class without pictures is nobody's
    return known / spread + absent, wanted / spread + absent
