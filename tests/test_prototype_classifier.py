"""Classes that are taught, refined and forgotten without training: as if all had been taught at once."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.utils.estimator_checks import check_estimator

from prl_keras import PrototypeClassifier
from prl_keras.errors import InputError

NAMES = np.array(["ant", "bee", "cat", "dog"])


def clusters(count: int, seed: int = 0, noise: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    return 3 + np.eye(6)[labels] + noise * rng.normal(size=(count, 6)), NAMES[labels]


def slow_probabilities(features: np.ndarray, taught: np.ndarray, labels: np.ndarray, centre: np.ndarray) -> np.ndarray:
    def direction(vector: np.ndarray) -> np.ndarray:
        return vector / np.sqrt(sum(value * value for value in vector))

    rows = []
    for feature in features:
        cosines = []
        for name in sorted(set(labels)):
            mean = sum(direction(row - centre) for row, own in zip(taught, labels, strict=True) if own == name)
            cosines.append(direction(feature - centre) @ direction(mean))
        powers = [np.exp(cosine / 0.1) for cosine in cosines]
        rows.append([power / sum(powers) for power in powers])
    return np.array(rows)


@pytest.mark.filterwarnings("ignore:Skipping check")
def test_it_is_an_estimator_like_any_other() -> None:
    failed = {r["check_name"] for r in check_estimator(PrototypeClassifier(), on_fail=None) if r["status"] == "failed"}
    assert not failed


@pytest.mark.filterwarnings("error")
def test_a_class_a_picture_is_nothing_to_warn_of() -> None:
    features = np.eye(60)
    names = np.array([f"emoji {k}" for k in range(60)])
    assert (PrototypeClassifier().fit(features, names).predict(features) == names).all()


def test_the_probabilities_are_those_of_the_slow_loop() -> None:
    (taught, labels), (asked, truth) = clusters(24), clusters(12, seed=1)
    classifier = PrototypeClassifier().fit(taught, labels)
    expected = slow_probabilities(asked, taught, labels, taught.mean(axis=0))
    np.testing.assert_allclose(classifier.predict_proba(asked), expected, atol=1e-12)
    assert (classifier.predict(asked) == NAMES[expected.argmax(axis=1)]).all()
    assert np.mean(classifier.predict(asked) == truth) > 0.7


@given(order=st.permutations(range(16)), cuts=st.sets(st.integers(1, 15)), forgotten=st.sampled_from([None, *NAMES]))
def test_taught_in_pieces_and_in_any_order_it_is_what_is_taught_at_once(
    order: list[int], cuts: set[int], forgotten: str | None
) -> None:
    features, labels = clusters(16)
    pieces = PrototypeClassifier(centre=np.full(6, 3.0))
    for rows in np.split(np.array(order), sorted(cuts)):
        pieces.partial_fit(features[rows], labels[rows])
    kept = labels != forgotten
    if forgotten is not None:
        pieces.forget(forgotten)
    whole = PrototypeClassifier(centre=np.full(6, 3.0)).fit(features[kept], labels[kept])
    assert pieces.classes_.tolist() == whole.classes_.tolist()
    assert pieces.counts_.tolist() == whole.counts_.tolist()
    np.testing.assert_allclose(pieces.predict_proba(features), whole.predict_proba(features), atol=1e-9)


@pytest.mark.parametrize("teach", ["fit", "partial_fit"])
def test_a_first_call_with_one_class_chooses_no_centre(teach: str) -> None:
    """From the mean of its own pictures a class has no direction."""
    features, labels = clusters(40)
    ants = labels == "ant"
    with pytest.raises(InputError, match="has one class: give `centre`"):
        getattr(PrototypeClassifier(), teach)(features[ants], labels[ants])
    for known in ({"centre": np.full(6, 3.0)}, {"whitening": np.eye(6)}):
        one_by_one = getattr(PrototypeClassifier(**known), teach)(features[ants], labels[ants])
        for name in NAMES[1:]:
            one_by_one.partial_fit(features[labels == name], labels[labels == name])
        at_once = PrototypeClassifier(**known).fit(features, labels)
        np.testing.assert_allclose(one_by_one.predict_proba(features), at_once.predict_proba(features), atol=1e-9)


def test_the_temperature_is_chosen_by_at_most_1000_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """With thousands of classes all would take seconds; the threshold is that of all of them."""
    seen = []

    def counted(scores: np.ndarray, labels: np.ndarray, temperatures: np.ndarray) -> float:
        seen.append((len(scores), len(set(labels))))
        return 0.1

    monkeypatch.setattr("prl_keras.evaluation.prototype_classifier.likeliest_temperature", counted)
    classifier = PrototypeClassifier().fit(*clusters(40))
    for count in (999, 3000):
        classifier.calibrate(*clusters(count, seed=1))
        assert (~classifier.is_known(clusters(count, seed=1)[0])).sum() == int(0.05 * (count + 1))
    assert seen == [(999, 4), (1000, 4)]


def test_with_a_whitening_it_is_mahalanobis_distance_that_decides() -> None:
    """And a class of one picture reaches farther than one of many: its mean is uncertain."""
    from prl_keras.evaluation.novelty import spread_within, whitening

    features, labels = clusters(60)
    covariance = spread_within(features, labels)
    classifier = PrototypeClassifier(whitening=whitening(covariance)).fit(features, labels)
    assert classifier.temperature_ == 2
    classifier.partial_fit(features[:1] + 9, ["elk"]).calibrate(*clusters(99, seed=1))
    asked = np.concatenate([clusters(30, seed=2)[0], features[:5] + 9])
    precision = np.linalg.inv(covariance)
    means = [features[labels == name].mean(axis=0) for name in NAMES] + [features[0] + 9]
    counts = [*((labels == name).sum() for name in NAMES), 1]
    scores = np.array(
        [[-(x - m) @ precision @ (x - m) / (1 + 1 / n) for m, n in zip(means, counts, strict=True)] for x in asked]
    )
    assert classifier.classes_.tolist() == [*NAMES, "elk"]
    np.testing.assert_array_equal(classifier.predict(asked), classifier.classes_[scores.argmax(axis=1)])
    np.testing.assert_allclose(
        classifier.predict_proba(asked), softmax(scores / classifier.temperature_, axis=1), atol=1e-9
    )
    assert classifier.is_known(asked).tolist() == (scores.max(axis=1) > classifier.threshold_).tolist()
    classifier.forget("elk")
    assert not classifier.is_known(asked[-5:]).any()


def test_a_class_that_waits_for_its_pictures_is_never_answered() -> None:
    features, labels = clusters(8)
    classifier = PrototypeClassifier().partial_fit(features, labels, classes=[*NAMES, "elk"])
    assert classifier.classes_.tolist() == [*NAMES, "elk"]
    assert (classifier.predict_proba(features)[:, -1] == 0).all()
    np.testing.assert_allclose(classifier.predict_proba(features).sum(axis=1), 1)
    classifier.partial_fit(features[:1] + 50, ["elk"])
    assert classifier.predict(features[:1] + 60) == ["elk"]


@pytest.mark.parametrize("false_alarms", [0.05, 0.3])
def test_known_pictures_are_taken_for_unknown_as_seldom_as_was_asked(false_alarms: float) -> None:
    """On average over calibrations, each of 39 pictures."""
    found = []
    for seed in range(60):
        taught, known, fresh = (clusters(size, seed=3 * seed + part) for part, size in enumerate((40, 39, 400)))
        classifier = PrototypeClassifier().fit(*taught).calibrate(*known, false_alarms)
        found.append(1 - classifier.is_known(fresh[0]).mean())
        assert classifier.false_alarms_ == int(false_alarms * 40) / 39
    assert np.mean(found) == pytest.approx(false_alarms, abs=0.02)
    strange = 3 - np.eye(6)[[4, 5] * 20]  # the other way from every class
    assert not classifier.is_known(strange).any()


def test_calibrated_probabilities_are_right_as_often_as_they_say() -> None:
    taught, known, fresh = clusters(400, 0, 0.6), clusters(2000, 1, 0.6), clusters(4000, 2, 0.6)
    classifier = PrototypeClassifier(temperature=0.01).fit(*taught)
    before = classifier.predict_proba(fresh[0]).max(axis=1).mean()
    right = np.mean(classifier.calibrate(*known).predict(fresh[0]) == fresh[1])
    assert before > right + 0.1, "far too sure"
    assert classifier.predict_proba(fresh[0]).max(axis=1).mean() == pytest.approx(right, abs=0.03)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda c, x, y: c.forget("elk"), "there is no class 'elk'; there are ant, bee, cat, dog"),
        (lambda c, x, y: c.fit(x[:2], y[:2]).forget("bee").forget("ant"), "'ant' is the only class"),
        (lambda c, x, y: c.partial_fit(x, np.arange(8)), "some labels are numbers and some are text"),
        (lambda c, x, y: c.is_known(x), r"call calibrate\(\) first"),
        (lambda c, x, y: c.calibrate(x, y), "8 pictures; 19 are needed for 0.05 false alarms"),
        (lambda c, x, y: c.calibrate(x, [*y[:7], "elk"], 0.5), "classes that were not taught: elk"),
        (lambda c, x, y: c.calibrate(x, y[:7], 0.5), "8 pictures, and labels of shape"),
        (lambda c, x, y: c.calibrate(x, y, 1.0), "false_alarms is 1.0"),
    ],
)
def test_what_makes_no_sense_is_one_line(act: Callable, message: str) -> None:
    features, labels = clusters(8)
    with pytest.raises(InputError, match=message):
        act(PrototypeClassifier().fit(features, labels), features, labels)


def test_with_an_encoder_it_takes_pictures() -> None:
    import keras

    encoder = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.AveragePooling2D(4), keras.layers.Flatten()])
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), "uint8")
    features = np.asarray(encoder(images), np.float64)
    by_pictures = PrototypeClassifier(encoder).fit(images, NAMES[np.arange(8) % 4])
    by_features = PrototypeClassifier().fit(features, NAMES[np.arange(8) % 4])
    np.testing.assert_allclose(by_pictures.predict_proba(images), by_features.predict_proba(features), atol=1e-5)
    with pytest.raises(InputError, match="1 pictures, and labels of shape"):
        by_pictures.partial_fit(images[:1], ["owl"] * 3)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        by_features.partial_fit(features[:1], ["owl"] * 3)
    assert by_pictures.counts_.sum() == by_features.counts_.sum() == 8
