"""Accuracies, what is chosen on validation, probes and the PCA."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prl_keras.data import Dataset, Split, load_dataset
from prl_keras.evaluation import pca
from prl_keras.evaluation.choice import cannot_choose, choose, facts_of, how_chosen, warning_of
from prl_keras.evaluation.pca import pca_classifier
from prl_keras.evaluation.probes import KNN_K, PROBE_C, Features, knn, linear_probe, nearest_prototype
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


def test_a_small_class_that_is_never_right_is_not_hidden_by_a_large_one() -> None:
    """400 and 20: 95.2 % right, 50 % balanced."""
    labels = np.repeat([0, 1], [400, 20])
    figure = accuracy(np.zeros(420, int), labels)
    assert figure["value"] == pytest.approx(400 / 420)
    assert figure["balanced"] == 0.5
    assert figure["worst"] == {"class": 1, "value": 0.0, "correct": 0, "n": 20}


def test_classes_without_images_take_no_part_and_of_equals_the_larger_is_the_worst() -> None:
    labels = np.array([7, 7, 3, 3, 3, 3, 0])
    figure = accuracy(np.array([7, 0, 3, 3, 0, 0, 0]), labels)
    assert figure["balanced"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert figure["worst"] == {"class": 3, "value": 0.5, "correct": 2, "n": 4}
    equal = accuracy(np.arange(30) % 3, np.arange(30) // 10)
    assert equal["balanced"] == pytest.approx(equal["value"])


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


class Secret:
    """A test split whose labels must not be looked at."""

    def __init__(self, split: Features | Split):
        self.__dict__ |= {name: value for name, value in vars(split).items() if name != "labels"}

    @property
    def labels(self) -> np.ndarray:
        raise AssertionError("the labels of test were looked at")


def test_choices_depend_on_validation_and_not_on_test() -> None:
    train, validation, test = blobs(60, 2.0, 0), blobs(60, 2.0, 1), blobs(60, 2.0, 2)
    for probe in (linear_probe, knn, lambda *splits: nearest_prototype(*splits, 3)):
        honest, other = probe(train, validation, Secret(test)), probe(train, validation, Features(test.features))
        assert honest.chosen == other.chosen
        np.testing.assert_array_equal(honest.predicted, other.predicted)
    far_validation = Features(validation.features, np.roll(validation.labels, 1))
    assert knn(train, far_validation, test).validation_accuracy < knn(train, validation, test).validation_accuracy


def test_of_equally_accurate_candidates_the_most_likely_is_chosen() -> None:
    right = np.ones((3, 40), bool)
    assert choose(right, [-0.5, -0.1, -0.3]).place == 1
    assert choose(right, [-0.2, -0.2, -0.3]).place == 0, "of equals in both, the first"
    right[1, 0] = False
    assert choose(right, [-0.5, -0.1, -0.3]).place == 2, "accuracy comes first"


def test_validation_cannot_choose_where_no_difference_holds() -> None:
    worse = np.ones((2, 40), bool)
    assert not choose(worse, [0, 0]).decided
    worse[1, :5] = False  # McNemar: p = 2 / 32
    assert not choose(worse, [0, 0]).decided
    worse[1, :6] = False  # p = 2 / 64
    assert choose(worse, [0, 0]).decided
    assert choose(worse[:1], [0]).decided, "one candidate: nothing to choose"
    assert not choose(np.eye(5, dtype=bool)[:2], [0, 0]).decided, "five images never can"
    assert how_chosen({"C": 0.1}, 143) == "C = 0.1 by 143 validation images"
    alone = cannot_choose({"k": 5}, 1, 4, 4)
    assert alone == "validation cannot choose k: its 1 image tells no other candidate from k = 5"


def test_a_hopeless_candidate_does_not_hide_that_the_good_ones_cannot_be_told_apart() -> None:
    correct = np.ones((4, 40), bool)
    correct[3] = False
    choice = choose(correct, [0, 0, 0, 0])
    assert (choice.tied, choice.others, choice.decided) == (2, 3, True)
    line = "validation cannot choose C: its 40 images do not tell 2 of the 3 other candidates from C = 1"
    assert cannot_choose({"C": 1}, 40, choice.tied, choice.others) == line
    assert cannot_choose({"C": 1}, 40, 0, 3) is None
    record = {"C": 1, "validation_images": 40, **facts_of(choice)}
    assert warning_of(record) == line
    assert warning_of({"C": 1, "validation_images": 40, "decided": True}) is None, "of an older version"
    assert "no other candidate" in warning_of({"C": 1, "validation_images": 40, "decided": False})


def test_probes_that_are_all_right_are_not_at_the_edge_of_sure_ignorance() -> None:
    """Separable blobs: all five C are right; the smallest gives the right class hardly more than a third."""
    train, validation, test = blobs(90, 0.3, 0), blobs(30, 0.3, 1), blobs(60, 0.3, 2)
    linear = linear_probe(train, validation, test)
    assert linear.chosen["C"] > PROBE_C[0]
    assert linear.model.predict_proba(test.features).max(axis=1).min() > 0.95
    nearest = knn(train, validation, test)
    assert nearest.chosen["k"] > KNN_K[0]
    for result, name in ((linear, "C"), (nearest, "k")):
        assert result.validation_images == 30
        assert not result.choice.decided
        assert f"cannot choose {name}: its 30 images" in result.warning
        assert result.how.endswith(" by 30 validation images")
    assert nearest_prototype(train, validation, test, 3).how == ""


def test_neighbours_vote_as_scikit_learns() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    train, validation, test = blobs(200, 3.0, 0), blobs(90, 3.0, 1), blobs(300, 3.0, 2)
    result = knn(train, validation, test)
    model = KNeighborsClassifier(result.chosen["k"], metric="cosine").fit(train.features, train.labels)
    np.testing.assert_array_equal(result.predicted, model.predict(test.features))
    scores = [
        KNeighborsClassifier(k, metric="cosine").fit(train.features, train.labels).score(*vars(validation).values())
        for k in KNN_K
    ]
    assert result.validation_accuracy == max(scores)


def test_a_class_that_the_probe_never_saw_is_wrong_and_nothing_worse() -> None:
    train, test = blobs(60, 1.0, 0), blobs(30, 1.0, 2)
    two = Features(train.features[train.labels < 2], train.labels[train.labels < 2])
    result = linear_probe(two, train, test)
    assert set(result.predicted) == {0, 1}
    assert result.validation_accuracy <= 40 / 60


@pytest.mark.parametrize(("per_class", "least"), [(1, 0.2), (3, 0.6), (9, 0.8), (10, 0.8)])
def test_a_pca_of_few_images_is_far_from_chance(per_class: int, least: float) -> None:
    """As many components as images: 10 % right with 9 a class, as the last one has no variance."""
    data = load_dataset("digits", samples_per_class=per_class)
    classifier, chosen = pca_classifier(data, seed=0)
    assert chosen["components"] == max(10 * per_class // 4, 1)
    assert chosen["validation_images"] == len(data.validation)
    assert pca_accuracy(classifier, data) > least


def pca_accuracy(classifier: Any, data: Dataset) -> float:
    from prl_keras.models.encode import encode

    return accuracy(encode(classifier, data.test.images).argmax(axis=-1), data.test.labels)["value"]


def test_components_without_variance_are_left_out() -> None:
    """Grey images of four values: rank 4, whatever their number."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 2, (4, 8, 8, 1))

    def draw(n: int) -> Split:
        labels = np.arange(n) % 4
        strength = rng.integers(100, 128, n)
        return Split((patterns[labels] * strength[:, None, None, None]).repeat(3, axis=3).astype(np.uint8), labels)

    data = Dataset("grey", draw(400), draw(40), draw(40), tuple("abcd"), "0")
    classifier, chosen = pca_classifier(data, seed=0)
    assert chosen["components"] == 4
    assert max(float(np.abs(weight).max()) for weight in classifier.get_weights()) < 1e3
    assert pca_accuracy(classifier, data) == 1.0


def test_a_pca_chooses_without_the_labels_of_test() -> None:
    data = load_dataset("digits", samples_per_class=20)
    assert pca_classifier(data, 0)[1] == pca_classifier(replace(data, test=Secret(data.test)), 0)[1]


def test_many_images_are_read_in_blocks_and_a_sample_of_them_makes_the_components(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = load_dataset("digits", samples_per_class=40)
    whole, _ = pca_classifier(data, seed=0)
    monkeypatch.setattr(pca, "_FLOATS", 3072 * 150)
    flat, most = pca._flat, []
    monkeypatch.setattr(pca, "_flat", lambda images: most.append(len(images)) or flat(images))
    blocks, sampled = pca_classifier(data, seed=0)
    assert max(most) <= 150
    assert sampled["components"] == 150 // 4
    assert pca_accuracy(blocks, data) > pca_accuracy(whole, data) - 0.1


def test_the_nearest_prototype_is_the_nearest_class_mean() -> None:
    train, validation, test = blobs(90, 2.0, 0), blobs(30, 2.0, 1), blobs(60, 2.0, 2)
    means = np.stack([train.features[train.labels == k].mean(axis=0) for k in range(3)])
    expected = ((test.features[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(nearest_prototype(train, validation, test, 3).predicted, expected)
