"""Classifiers in closed form: against their definitions, written out slowly."""

import numpy as np
import pytest
from reference import CLASSIFIERS
from scipy.special import softmax

from prl_keras.evaluation.closed_form import (
    ALPHAS,
    TEMPERATURES,
    averaged,
    centred_prototype,
    classifiers,
    prototype_scores,
    ridge,
    ridge_scores,
)
from prl_keras.evaluation.probes import Features, knn

CLASSES = 4


def clusters(count: int, seed: int, shift: float = 0.0, dim: int = 6) -> Features:
    """Noisy points around CLASSES means, all moved by `shift`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    means = np.random.default_rng(0).normal(size=(CLASSES, dim))
    return Features((means[labels] + rng.normal(0, 0.9, (count, dim)) + shift).astype("float32"), labels)


@pytest.fixture
def splits() -> tuple[Features, Features, Features]:
    return clusters(80, 1), clusters(40, 2), clusters(60, 3)


def on_sphere(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def slow_centred(train: Features, features: np.ndarray) -> np.ndarray:
    """SimpleShot's CL2N, a row at a time."""
    centre = train.features.mean(axis=0)
    means = [
        on_sphere(np.mean([on_sphere(f - centre) for f in train.features[train.labels == k]], axis=0))
        for k in range(CLASSES)
    ]
    return np.array([[on_sphere(f - centre) @ mean for mean in means] for f in features])


def slow_ridge(train: Features, features: np.ndarray, alpha: float) -> np.ndarray:
    """The normal equations, on standardised features, with an intercept that is not penalised."""
    mean, sd = train.features.mean(axis=0), train.features.std(axis=0)
    x, y = (train.features - mean) / sd, np.eye(CLASSES)[train.labels]
    weights = np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ (y - y.mean(axis=0)))
    return (features - mean) / sd @ weights + y.mean(axis=0)


def test_the_centred_prototype_is_that_of_simpleshot(splits: tuple[Features, ...]) -> None:
    train, validation, test = splits
    result = centred_prototype(*splits, CLASSES)
    np.testing.assert_array_equal(result.predicted, slow_centred(train, test.features).argmax(axis=1))
    assert result.validation_accuracy == np.mean(
        slow_centred(train, validation.features).argmax(axis=1) == validation.labels
    )
    assert not result.chosen


def test_a_common_shift_changes_no_answer_of_the_centred_prototype() -> None:
    near, far = (
        centred_prototype(*(clusters(n, seed, shift) for n, seed in ((80, 1), (40, 2), (60, 3))), CLASSES)
        for shift in (0.0, 20.0)
    )
    np.testing.assert_array_equal(near.predicted, far.predicted)


def test_a_class_without_training_images_is_never_the_answer(splits: tuple[Features, ...]) -> None:
    scores = prototype_scores(splits[0], CLASSES + 1)(splits[2].features)
    assert np.all(np.isneginf(scores[:, CLASSES]))
    assert np.isfinite(scores[:, :CLASSES]).all()


@pytest.mark.parametrize("alpha", [1.0, 100.0])
def test_ridge_solves_the_normal_equations(splits: tuple[Features, ...], alpha: float) -> None:
    train, _, test = splits
    expected = slow_ridge(train, test.features, alpha)
    np.testing.assert_allclose(ridge_scores(train, CLASSES, alpha)(test.features), expected, rtol=1e-4, atol=1e-5)


def test_alpha_is_the_one_with_the_most_right_answers_on_validation(splits: tuple[Features, ...]) -> None:
    train, validation, test = splits
    result = ridge(*splits, CLASSES)
    right = [np.sum(slow_ridge(train, validation.features, a).argmax(axis=1) == validation.labels) for a in ALPHAS]
    assert right[ALPHAS.index(result.chosen["alpha"])] == max(right)
    expected = slow_ridge(train, test.features, result.chosen["alpha"]).argmax(axis=1)
    np.testing.assert_array_equal(result.predicted, expected)


def test_the_average_is_that_of_three_posteriors(splits: tuple[Features, ...]) -> None:
    train, validation, test = splits
    k, alpha = 5, 10.0

    def neighbours(features: np.ndarray) -> np.ndarray:
        unit = train.features / np.linalg.norm(train.features, axis=1, keepdims=True)
        votes = np.zeros((len(features), CLASSES))
        for i, f in enumerate(features):
            for row in np.argsort(-unit @ on_sphere(f), kind="stable")[:k]:
                votes[i, train.labels[row]] += 1
        return np.log((votes + 1) / (k + CLASSES))

    total = 0.0
    for scores in (
        lambda f: slow_centred(train, f),
        lambda f: slow_ridge(train, f, alpha),
        neighbours,
    ):
        known = scores(validation.features)
        rows = np.arange(len(known))
        likely = [np.log(softmax(known / t, axis=1)[rows, validation.labels]).mean() for t in TEMPERATURES]
        total = total + softmax(scores(test.features) / TEMPERATURES[int(np.argmax(likely))], axis=1)
    np.testing.assert_array_equal(averaged(*splits, CLASSES, k, alpha).predicted, total.argmax(axis=1))


def test_all_classifiers_are_there_and_use_what_validation_chose(splits: tuple[Features, ...]) -> None:
    found = classifiers(*splits, CLASSES)
    assert set(found) == set(CLASSIFIERS)
    np.testing.assert_array_equal(found["kNN"].predicted, knn(*splits).predicted)
    chosen = found["kNN"].chosen["k"], found["ridge"].chosen["alpha"]
    np.testing.assert_array_equal(found["average"].predicted, averaged(*splits, CLASSES, *chosen).predicted)
