"""Classifiers in closed form, for features whose classes are round clusters; and all classifiers on fixed features."""

from collections.abc import Callable

import numpy as np

from prl_keras.evaluation.choice import choose
from prl_keras.evaluation.directions import unit
from prl_keras.evaluation.probes import Features, ProbeResult, knn, linear_probe, nearest_labels, nearest_prototype
from prl_keras.evaluation.statistics import likeliest_temperature
from prl_keras.prototypes import class_prototypes

ALPHAS = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)
TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Scores = Callable[[np.ndarray], np.ndarray]  # (n, dim) features -> (n, classes)


def classifiers(train: Features, validation: Features, test: Features, num_classes: int) -> dict[str, ProbeResult]:
    """Every classifier that is fitted on fixed features, by name; `test` needs no labels."""
    splits = (train, validation, test)
    near, linear = knn(*splits), ridge(*splits, num_classes)
    chosen = near.chosen["k"], linear.chosen["alpha"]
    return {
        "linear probe": linear_probe(*splits),
        "kNN": near,
        "nearest prototype": nearest_prototype(*splits, num_classes),
        "centred prototype": centred_prototype(*splits, num_classes),
        "ridge": linear,
        "average": averaged(*splits, num_classes, *chosen, near.neighbours),
    }


def centred_prototype(train: Features, validation: Features, test: Features, num_classes: int) -> ProbeResult:
    """Nearest class mean on the sphere around the mean of all training features: nothing to choose.

    Wang et al. 2019 (SimpleShot, "CL2N").
    """
    scores = prototype_scores(train, num_classes)
    correct = scores(validation.features).argmax(axis=1) == validation.labels
    return ProbeResult(scores(test.features).argmax(axis=1), float(np.mean(correct)), {}, None, len(correct))


def ridge(train: Features, validation: Features, test: Features, num_classes: int) -> ProbeResult:
    """Least squares from standardised features to one-hot labels, with a penalty alpha that validation chooses.

    Of equally accurate ones the least squared error.
    """
    candidates = [ridge_scores(train, num_classes, alpha) for alpha in ALPHAS]
    answers, truth = [scores(validation.features) for scores in candidates], np.eye(num_classes)[validation.labels]
    correct = [answer.argmax(axis=1) == validation.labels for answer in answers]
    choice = choose(correct, [-np.square(answer - truth).mean() for answer in answers])
    predicted = candidates[choice.place](test.features).argmax(axis=1)
    return ProbeResult(predicted, choice.accuracy, {"alpha": ALPHAS[choice.place]}, None, choice.n, choice)


def averaged(
    train: Features,
    validation: Features,
    test: Features,
    num_classes: int,
    k: int,
    alpha: float,
    neighbours: tuple[np.ndarray, np.ndarray] | None = None,
) -> ProbeResult:
    """Mean of three posteriors: centred prototypes, `k` nearest neighbours and ridge with `alpha`.

    Each is brought to the temperature at which validation is most likely.

    Args:
        neighbours: those that kNN with this k has found already; None: they are looked for.
    """
    asked = (validation.features, test.features)
    near = neighbours or [nearest_labels(train, features, k) for features in asked]
    scored = [
        [scores(features) for features in asked]
        for scores in (prototype_scores(train, num_classes), ridge_scores(train, num_classes, alpha))
    ]
    scored.append([shares(labels, num_classes) for labels in near])
    answers = [posteriors(*scores, validation.labels) for scores in scored]
    known, wanted = (np.mean(parts, axis=0) for parts in zip(*answers, strict=True))
    correct = known.argmax(axis=1) == validation.labels
    return ProbeResult(wanted.argmax(axis=1), float(correct.mean()), {}, None, len(correct))


def prototype_scores(train: Features, num_classes: int) -> Scores:
    """Cosine similarity to class means, all seen from the mean of all training features."""
    centre = train.features.mean(axis=0)
    vectors = unit(train.features - centre)
    means, counts = (np.asarray(part) for part in class_prototypes(train.labels, vectors, num_classes))
    return lambda features: np.where(counts > 0, unit(features - centre) @ unit(means).T, -np.inf)


def ridge_scores(train: Features, num_classes: int, alpha: float) -> Scores:
    """Shares of the classes, as a penalised linear function of the features gives them."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), Ridge(alpha)).fit(train.features, np.eye(num_classes)[train.labels])
    return model.predict


def shares(neighbours: np.ndarray, num_classes: int) -> np.ndarray:
    """(n, k) labels -> log of the share of votes (n, classes), with one more for each class (Laplace)."""
    votes = np.zeros((len(neighbours), num_classes))
    np.add.at(votes, (np.arange(len(neighbours))[:, None], neighbours), 1)
    return np.log((votes + 1) / (neighbours.shape[1] + num_classes))


def posteriors(known: np.ndarray, wanted: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of both, at the temperature that makes the labels of the known ones most likely."""
    from scipy.special import softmax

    temperature = likeliest_temperature(known, labels, TEMPERATURES)
    return softmax(known / temperature, axis=1), softmax(wanted / temperature, axis=1)
