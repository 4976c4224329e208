"""What a page judges: doubtful labels, rejected answers, extremes, neighbours, answers without a classifier."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity
from test_evaluation import Secret, blobs

from prl_keras.evaluation.answers import of_classifier, of_features
from prl_keras.evaluation.extremes import least_sure, nearest_pictures, surely_wrong, typical_and_strange
from prl_keras.evaluation.label_errors import FOLDS, cross_validated, folds_of, probably_mislabelled
from prl_keras.evaluation.probes import Features
from prl_keras.evaluation.reject import area_under_risk, coverage_curve, thresholds

RNG = np.random.default_rng(0)


def some_probabilities(n: int = 200, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 0.7), n), rng.integers(0, classes, n)


def slow_confident_joint(probabilities: np.ndarray, labels: np.ndarray) -> dict[int, int]:
    """Northcutt et al. 2021, eq. 1 and 2, with loops: row -> class of those off the diagonal."""
    found, classes = {}, range(probabilities.shape[1])
    usual = {k: np.mean([p[k] for p, label in zip(probabilities, labels, strict=True) if label == k]) for k in classes}
    for row, (p, label) in enumerate(zip(probabilities, labels, strict=True)):
        sure = [k for k in classes if p[k] >= usual[k]]
        if sure and (best := max(sure, key=lambda k: p[k])) != label and max(classes, key=lambda k: p[k]) != label:
            found[row] = best
    return found


@pytest.mark.parametrize("seed", range(5))
def test_doubtful_labels_are_those_off_the_diagonal_of_the_confident_joint(seed: int) -> None:
    probabilities, labels = some_probabilities(seed=seed)
    rows, suggested = probably_mislabelled(probabilities, labels)
    assert dict(zip(rows.tolist(), suggested.tolist(), strict=True)) == slow_confident_joint(probabilities, labels)
    margin = probabilities[rows, labels[rows]] - probabilities[rows, suggested]
    assert (np.diff(margin) >= 0).all()
    assert len(rows)


def test_planted_label_errors_are_found_and_named() -> None:
    train = blobs(120, 0.7, 0)
    wrong = np.array([3, 40, 77])
    labels = train.labels.copy()
    labels[wrong] = (labels[wrong] + 1) % 3
    probabilities = cross_validated(Features(train.features, labels), 3)
    rows, suggested = probably_mislabelled(probabilities, labels)
    assert set(wrong.tolist()) <= set(rows.tolist())
    assert len(rows) <= 5, "the right labels are left in peace"
    named = dict(zip(rows.tolist(), suggested.tolist(), strict=True))
    assert all(named[row] == train.labels[row] for row in wrong.tolist())


def test_a_class_of_few_pictures_is_neither_doubted_nor_suggested() -> None:
    probabilities = np.tile([0.05, 0.05, 0.9], (20, 1))
    labels = np.array([0] * 8 + [1] * 9 + [2] * 3)
    assert 2 not in probably_mislabelled(probabilities, labels)[1], "three pictures say nothing of class 2"
    labels = np.array([0] * 8 + [1] * 3 + [2] * 9)
    assert labels[probably_mislabelled(probabilities, labels)[0]].tolist() == [0] * 8


def test_each_picture_is_judged_by_a_probe_that_has_not_seen_its_label() -> None:
    train = blobs(60, 1.0, 0)
    labels = train.labels.copy()
    before = cross_validated(Features(train.features, labels), 3)
    folds = folds_of(labels)
    labels[10] = (labels[10] + 1) % 3
    scores = cross_validated(Features(train.features, labels), 3)
    assert before[10].argmax() == scores[10].argmax()
    assert sorted(np.bincount(folds)) == [12] * FOLDS
    for k in range(3):
        counts = np.bincount(folds[train.labels == k], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1, "alike in every class"
    np.testing.assert_allclose(scores.sum(axis=1), 1)


def test_the_coverage_curve_is_that_of_slow_loops_and_keeps_equals_together() -> None:
    confidence = np.round(RNG.uniform(0.3, 1, 60), 1)
    correct = RNG.uniform(size=60) < confidence
    coverage, accuracy = coverage_curve(confidence, correct)
    expected = [
        (np.mean(confidence >= t), np.mean(correct[confidence >= t])) for t in sorted(set(confidence), reverse=True)
    ]
    np.testing.assert_allclose(np.stack([coverage, accuracy], axis=1), expected)
    assert coverage[-1] == 1
    assert accuracy[-1] == correct.mean()


def test_the_area_is_0_when_all_is_right_and_1_when_all_is_wrong() -> None:
    confidence = np.linspace(0.1, 0.9, 9)
    for right, area in ((np.ones(9), 0.0), (np.zeros(9), 1.0)):
        assert area_under_risk(*coverage_curve(confidence, right)) == pytest.approx(area)
    sorted_best = area_under_risk(*coverage_curve(confidence, confidence > 0.4))
    assert sorted_best < area_under_risk(*coverage_curve(-confidence, confidence > 0.4))


def test_thresholds_are_chosen_on_validation_alone() -> None:
    known = np.arange(1, 101) / 100
    confidence, correct = np.array([0.05, 0.2, 0.6, 0.99]), np.array([False, True, True, True])
    rows = thresholds(known, confidence, correct)
    assert [row["keep"] for row in rows] == [0.95, 0.9, 0.8]
    for row in rows:
        assert np.mean(known >= row["threshold"]) == pytest.approx(row["keep"], abs=0.011)
        assert row["n"] == np.sum(confidence >= row["threshold"])
        assert row["low"] <= row["value"] <= row["high"]
    assert [row["threshold"] for row in rows] == [r["threshold"] for r in thresholds(known, confidence, ~correct)]
    assert thresholds(known, np.zeros(3), np.ones(3, bool)) == []


def test_surely_wrong_and_least_sure_are_in_their_order() -> None:
    probabilities, labels = some_probabilities()
    wrong = surely_wrong(probabilities, labels, 10)
    assert (probabilities[wrong].argmax(axis=1) != labels[wrong]).all()
    others = np.setdiff1d(np.flatnonzero(probabilities.argmax(axis=1) != labels), wrong)
    assert probabilities[wrong].max(axis=1).min() >= probabilities[others].max(axis=1).max()
    assert (np.diff(probabilities[wrong].max(axis=1)) <= 0).all()
    margins = [np.subtract(*sorted(p)[:-3:-1]) for p in probabilities]
    assert least_sure(probabilities, 7).tolist() == sorted(range(len(margins)), key=lambda i: margins[i])[:7]
    assert not len(surely_wrong(np.eye(3), np.arange(3), 5))


def test_typical_pictures_are_near_their_prototype_and_no_picture_is_both() -> None:
    features, labels = RNG.normal(size=(60, 5)), np.arange(60) % 3
    labels[labels == 2] = 0
    labels[7] = 2
    for k, (near, far) in enumerate(typical_and_strange(features, labels, 4, 5)):
        mine = [i for i in range(60) if labels[i] == k]
        distance = {i: float(np.sqrt(np.sum((features[i] - features[mine].mean(axis=0)) ** 2))) for i in mine}
        order = sorted(mine, key=distance.get)
        assert near.tolist() == order[: min(5, (len(mine) + 1) // 2)]
        assert far.tolist() == order[::-1][: min(5, len(mine) // 2)]


def test_neighbours_are_the_most_similar_and_never_the_picture_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    among, features = RNG.normal(size=(40, 6)), RNG.normal(size=(25, 6))
    features[:5] = among[10:15]
    itself = np.full(25, -1)
    itself[:5] = np.arange(10, 15)
    similarity = cosine_similarity(features, among)
    similarity[np.arange(5), itself[:5]] = -2
    monkeypatch.setattr("prl_keras.evaluation.extremes._BLOCK", 7)
    rows, found = nearest_pictures(features, among, 4, itself)
    np.testing.assert_array_equal(rows, np.argsort(-similarity, axis=1)[:, :4])
    np.testing.assert_allclose(found, np.take_along_axis(similarity, rows, axis=1), rtol=1e-4)
    assert nearest_pictures(among[:1], among[:1], 4, np.array([0]))[0].shape == (1, 0)
    assert nearest_pictures(features, among[:3], 4)[0].shape == (25, 3)


@pytest.mark.parametrize(("round_classes", "name"), [(True, "nearest prototype"), (False, "kNN")])
def test_without_a_classifier_validation_chooses_who_answers(round_classes: bool, name: str) -> None:
    """Round classes suit prototypes; two rings around one middle only kNN can tell."""
    if not round_classes:
        angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
        labels = np.arange(240) % 2
        ring = np.stack([np.cos(angle), np.sin(angle), 3.0 * labels * np.sign(np.sin(4 * angle))], axis=1)
        splits = [Features(ring[i::3].astype("float32"), labels[i::3]) for i in range(3)]
    else:
        splits = [blobs(60, 2.5, seed) for seed in range(3)]
    train, validation, test = splits
    answers = of_features(train, validation, Secret(test), int(train.labels.max()) + 1)
    assert answers.name == name
    assert f"the {name} gives the answers, chosen on {len(validation.labels)} validation pictures" in answers.how
    for probabilities in (answers.validation, answers.test):
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.mean(answers.test.argmax(axis=1) == test.labels) > 0.6


def test_a_class_without_training_pictures_gets_no_answer() -> None:
    train, validation, test = (blobs(60, 1.0, seed) for seed in range(3))
    assert of_features(train, validation, test, 5).test.argmax(axis=1).max() == 2


def test_a_classifier_answers_by_its_softmax() -> None:
    answers = of_classifier(np.zeros((2, 4)), np.log([[0.7, 0.2, 0.1]]))
    np.testing.assert_allclose(answers.validation, 0.25)
    np.testing.assert_allclose(answers.test, [[0.7, 0.2, 0.1]])
