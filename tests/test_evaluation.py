"""Intervals and probes."""

import numpy as np
import pytest

from prl_keras.evaluation.probes import Features, knn, linear_probe, nearest_prototype
from prl_keras.evaluation.statistics import accuracy, confusion_matrix


def blobs(count: int, spread: float, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    centres = np.array([[0.0, 4, 0, 1], [4, 0, 0, 1], [-3, -3, 3, 1]])
    return Features((centres[labels] + rng.normal(0, spread, (count, 4))).astype("float32"), labels)


def test_the_wilson_interval_matches_published_values() -> None:
    # Newcombe 1998, table I, method 3: 81/263 and 15/148
    for correct, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        labels = np.zeros(n, int)
        predicted = np.where(np.arange(n) < correct, 0, 1)
        figure = accuracy(predicted, labels)
        assert (figure["correct"], figure["n"]) == (correct, n)
        assert figure["value"] == correct / n
        assert figure["low"] == pytest.approx(low, abs=5e-5)
        assert figure["high"] == pytest.approx(high, abs=5e-5)


def test_accuracy_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match="expected"):
        accuracy(np.zeros((3, 1), int), np.zeros(3, int))
    with pytest.raises(ValueError, match="expected"):
        accuracy(np.zeros(0, int), np.zeros(0, int))


def test_the_confusion_matrix_has_true_classes_in_rows() -> None:
    matrix = confusion_matrix(np.array([1, 1, 0, 2]), np.array([0, 0, 0, 2]), 3)
    assert matrix.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_probes_solve_separable_features_and_stay_at_chance_on_noise() -> None:
    train, validation, test = blobs(90, 0.3, 0), blobs(30, 0.3, 1), blobs(60, 0.3, 2)
    for probe in (linear_probe, knn, lambda *splits: nearest_prototype(*splits, 3)):
        result = probe(train, validation, test)
        assert np.mean(result.predicted == test.labels) == 1.0
        assert result.validation_accuracy == 1.0
    rng = np.random.default_rng(3)
    noise = [Features(rng.normal(size=(300, 4)).astype("float32"), rng.permutation(300) % 3) for _ in range(3)]
    for probe in (linear_probe, knn, lambda *splits: nearest_prototype(*splits, 3)):
        assert 0.2 < np.mean(probe(*noise).predicted == noise[2].labels) < 0.46


def test_choices_depend_on_validation_and_not_on_test() -> None:
    train, validation, test = blobs(60, 2.0, 0), blobs(60, 2.0, 1), blobs(60, 2.0, 2)
    spoiled = Features(test.features, np.roll(test.labels, 1))
    for probe in (linear_probe, knn):
        honest, other = probe(train, validation, test), probe(train, validation, spoiled)
        assert honest.chosen == other.chosen
        np.testing.assert_array_equal(honest.predicted, other.predicted)
    far_validation = Features(validation.features, np.roll(validation.labels, 1))
    assert knn(train, far_validation, test).validation_accuracy < knn(train, validation, test).validation_accuracy


def test_the_nearest_prototype_is_the_nearest_class_mean() -> None:
    train, validation, test = blobs(90, 2.0, 0), blobs(30, 2.0, 1), blobs(60, 2.0, 2)
    means = np.stack([train.features[train.labels == k].mean(axis=0) for k in range(3)])
    expected = ((test.features[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(nearest_prototype(train, validation, test, 3).predicted, expected)
