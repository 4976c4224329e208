"""The losses: against slow loops, closed forms, symmetries, finite differences, and batches made to break them."""

import json
import math
from collections.abc import Callable
from functools import partial
from itertools import product

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from prl_keras.bounds import least_loss, target_entropy
from prl_keras.errors import InputError
from prl_keras.losses import (
    VARIANTS,
    NTXentLoss,
    PrototypicalLoss,
    SupervisedContrastiveLoss,
    nt_xent_loss,
    prototypical_episode,
    prototypical_loss,
    supervised_contrastive_loss,
)
from prl_keras.prototypes import DISTANCES

Loss = Callable[[np.ndarray, tf.Tensor], tf.Tensor]
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_distance = pytest.mark.parametrize("distance", DISTANCES)

# (batch, dim, classes): one class, more classes than samples, a batch that 4 does not divide, ...
SHAPES = [(3, 2, 1), (6, 3, 10), (12, 1, 3), (17, 8, 4), (32, 5, 6)]
TEMPERATURES = [0.1, 1.0, 3.0]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def random_batch(batch: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng([batch, dim, classes, seed])
    return random.integers(0, classes, batch), random.normal(size=(batch, dim))


def prototypical(
    variant: str, distance: str, num_classes: int, temperature: float = 1.0, label_smoothing: float = 0.0
) -> Loss:
    return lambda labels, embeddings: prototypical_loss(
        labels, embeddings, num_classes, variant, distance, temperature, label_smoothing=label_smoothing
    )


def halves(labels: np.ndarray, views: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """NT-Xent as a function of (labels, stacked views), like the other losses; a lone last row has no partner."""
    n = labels.shape[0] // 2
    return nt_xent_loss(views[:n], views[n : 2 * n], label_smoothing=label_smoothing)


SMOOTHING = 0.2
LOSSES: dict[str, Loss] = {
    f"{variant}-{distance}": prototypical(variant, distance, 4) for variant, distance in product(VARIANTS, DISTANCES)
}
LOSSES |= {
    f"{variant}-smoothed-{distance}": prototypical(variant, distance, 4, label_smoothing=SMOOTHING)
    for variant, distance in product(VARIANTS, DISTANCES)
}
LOSSES |= {"nt_xent": halves, "nt_xent-smoothed": partial(halves, label_smoothing=SMOOTHING)}
LOSSES |= {
    "supcon": supervised_contrastive_loss,
    "supcon-smoothed": partial(supervised_contrastive_loss, label_smoothing=SMOOTHING),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def value_and_gradient(loss: Loss, labels: np.ndarray, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(labels, embeddings)
    return value, tape.gradient(value, embeddings)


def fails(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)


# against the slow loops


@every_variant
@every_distance
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_prototypical_loss_is_that_of_the_slow_loop(variant: str, distance: str, temperature: float) -> None:
    for batch, dim, classes in SHAPES:
        labels, embeddings = random_batch(batch, dim, classes)
        expected = reference.prototypical_loss(labels, embeddings, classes, variant, distance, temperature)
        found = prototypical_loss(labels, embeddings, classes, variant, distance, temperature)
        assert found.dtype == "float64"
        assert found.shape == ()
        assert float(found) == pytest.approx(expected, rel=1e-10, abs=1e-10), (batch, dim, classes)


@every_variant
@every_distance
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_prototypical_loss_class_is_right_in_float32(variant: str, distance: str, temperature: float) -> None:
    for batch, dim, classes in SHAPES:
        labels, embeddings = random_batch(batch, dim, classes)
        embeddings = embeddings.astype("float32")
        expected = reference.prototypical_loss(labels, embeddings, classes, variant, distance, temperature)
        found = PrototypicalLoss(classes, variant, distance, temperature)(labels, embeddings)
        assert found.dtype == "float32"
        assert found.shape == ()
        assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-5), (batch, dim, classes)


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
@pytest.mark.parametrize(("n", "dim"), [(1, 3), (2, 1), (5, 8), (16, 4)])
def test_nt_xent_is_that_of_the_slow_loop(n: int, dim: int, temperature: float) -> None:
    first, second = normal(n, dim), normal(n, dim, seed=1)
    expected = reference.nt_xent_loss(first, second, temperature)
    found = nt_xent_loss(first, second, temperature)
    assert found.dtype == "float64"
    assert found.shape == ()
    assert float(found) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    single = NTXentLoss(temperature)(np.zeros(2 * n), np.concatenate([first, second]).astype("float32"))
    assert single.dtype == "float32"
    assert float(single) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
@pytest.mark.parametrize(("n", "dim", "classes"), [(1, 2, 1), (6, 3, 10), (9, 4, 2), (24, 8, 5)])
def test_supcon_is_that_of_the_slow_loop(n: int, dim: int, classes: int, temperature: float) -> None:
    labels, embeddings = random_batch(n, dim, classes)
    expected = reference.supervised_contrastive_loss(labels, embeddings, temperature)
    found = supervised_contrastive_loss(labels, embeddings, temperature)
    assert found.dtype == "float64"
    assert found.shape == ()
    assert float(found) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    single = SupervisedContrastiveLoss(temperature)(labels, embeddings.astype("float32"))
    assert single.dtype == "float32"
    assert float(single) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("smoothing", [0.05, pytest.param(0.6, marks=pytest.mark.slow)])
def test_smoothed_losses_are_those_of_the_slow_loop(smoothing: float) -> None:
    """Also with classes that have no support in the batch, which get nothing of the target."""
    cases = list(product(VARIANTS, DISTANCES, SHAPES))
    for variant, distance, (batch, dim, classes) in cases if smoothing > 0.5 else cases[::4]:
        labels, embeddings = random_batch(batch, dim, classes)
        options = (classes, variant, distance, 0.7)
        expected = reference.prototypical_loss(labels, embeddings, *options, label_smoothing=smoothing)
        found = prototypical_loss(labels, embeddings, *options, label_smoothing=smoothing)
        assert float(found) == pytest.approx(expected, rel=1e-10, abs=1e-10), (options, batch)
        single = PrototypicalLoss(*options, label_smoothing=smoothing)(labels, embeddings)
        assert float(single) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for n, dim in ((1, 3), (2, 1), (9, 4)):
        first, second = normal(n, dim), normal(n, dim, seed=1)
        expected = reference.nt_xent_loss(first, second, 0.2, smoothing)
        assert float(nt_xent_loss(first, second, 0.2, smoothing)) == pytest.approx(expected, rel=1e-10, abs=1e-10)
        both = np.concatenate([first, second])
        single = NTXentLoss(0.2, label_smoothing=smoothing)(np.zeros(2 * n), both)
        assert float(single) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for n, dim, classes in ((1, 2, 1), (6, 3, 10), (24, 8, 5)):
        labels, embeddings = random_batch(n, dim, classes)
        expected = reference.supervised_contrastive_loss(labels, embeddings, 0.2, smoothing)
        found = supervised_contrastive_loss(labels, embeddings, 0.2, smoothing)
        assert float(found) == pytest.approx(expected, rel=1e-10, abs=1e-10)
        single = SupervisedContrastiveLoss(0.2, label_smoothing=smoothing)(labels, embeddings)
        assert float(single) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_without_smoothing_the_bits_are_those_of_plain_cross_entropy() -> None:
    labels, embeddings = random_batch(16, 4, 3)
    embeddings = tf.constant(embeddings, "float32")
    for variant, distance in product(VARIANTS, DISTANCES):
        episode = prototypical_episode(labels, embeddings, 5, variant, distance)
        each = -tf.reduce_sum(tf.one_hot(labels, 5) * tf.nn.log_softmax(episode.logits), axis=-1)
        answered = tf.cast(episode.answerable, "float32")
        expected = tf.reduce_sum(tf.where(episode.answerable, each, 0.0)) / tf.reduce_sum(answered)
        for smoothing in (0, 0.0):
            found = prototypical_loss(labels, embeddings, 5, variant, distance, label_smoothing=smoothing)
            assert float(found) == float(expected)


def test_the_defaults_are_those_of_the_paper() -> None:
    labels, embeddings = random_batch(16, 4, 3)
    as_published = reference.prototypical_loss(labels, embeddings, 3, "query", "euclidean", 1.0, 0.25)
    assert float(prototypical_loss(labels, embeddings, 3)) == pytest.approx(as_published, abs=1e-10)
    assert float(PrototypicalLoss(3)(labels, embeddings)) == pytest.approx(as_published, abs=1e-5)
    assert float(nt_xent_loss(embeddings[:8], embeddings[8:])) == pytest.approx(
        reference.nt_xent_loss(embeddings[:8], embeddings[8:], 0.1), abs=1e-10
    )
    assert float(SupervisedContrastiveLoss()(labels, embeddings)) == pytest.approx(
        reference.supervised_contrastive_loss(labels, embeddings, 0.1), abs=1e-5
    )


def test_nt_xent_is_supcon_with_a_label_for_each_image() -> None:
    first, second = normal(7, 5), normal(7, 5, seed=1)
    labels = np.random.default_rng(2).permutation(1000)[:7]
    supcon = supervised_contrastive_loss(np.tile(labels, 2), np.concatenate([first, second]), 0.2)
    assert float(nt_xent_loss(first, second, 0.2)) == pytest.approx(float(supcon), abs=1e-12)


def test_leave_one_out_recomputes_the_prototypes_without_the_sample() -> None:
    labels, embeddings = random_batch(14, 3, 4)
    losses = []
    for i in range(14):  # sample i as the one query row of the query variant, the others as its support
        order = [j for j in range(14) if j != i] + [i]
        if np.sum(labels == labels[i]) > 1:
            losses.append(float(prototypical_loss(labels[order], embeddings[order], 4, "query", query_fraction=1 / 14)))
    assert float(prototypical_loss(labels, embeddings, 4, "loo")) == pytest.approx(np.mean(losses), abs=1e-10)


# closed forms


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("euclidean", math.log(1 + math.exp(-2))),  # distances 1 and 3
        ("squared", math.log(1 + math.exp(-8))),  # squared distances 1 and 9
        ("cosine", math.log(2)),  # on a line, both prototypes are in the same direction
    ],
)
def test_a_query_at_distance_one_and_three(distance: str, expected: float) -> None:
    embeddings = np.array([[1.0], [3.0], [5.0], [7.0], [6.0], [2.0], [3.0], [3.0]])
    labels = np.array([0, 0, 1, 1, 1, 0, 0, 0])  # prototypes at 2 and 6; both queries are at 3
    assert float(prototypical_loss(labels, embeddings, 2, "query", distance)) == pytest.approx(expected, abs=1e-12)


@every_distance
def test_cosine_and_others_average_what_their_definition_says(distance: str) -> None:
    """One long and one short support vector: only cosine forgets their lengths before it averages."""
    embeddings = np.array([[30.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 1.0]])
    labels = np.array([0, 0, 1, 0])
    expected = {
        "euclidean": math.log(1 + math.exp(math.hypot(15, 0.5) - math.sqrt(2))),
        "squared": math.log(1 + math.exp(225.25 - 2)),
        "cosine": math.log(1 + math.exp(0 - math.sqrt(0.5))),
    }
    found = prototypical_loss(labels, embeddings, 2, "query", distance)
    assert float(found) == pytest.approx(expected[distance], rel=1e-12)


@every_variant
@every_distance
def test_equal_embeddings_give_the_logarithm_of_the_number_of_classes_present(variant: str, distance: str) -> None:
    labels = np.array([0, 0, 2, 2, 5, 5, 0, 2])  # three of ten classes
    embeddings = np.full((8, 4), 0.3, "float32")
    found = PrototypicalLoss(10, variant, distance, temperature=0.5)(labels, embeddings)
    assert float(found) == pytest.approx(math.log(3), abs=1e-6)


@every_variant
@every_distance
def test_two_far_clusters_give_a_loss_of_almost_zero(variant: str, distance: str) -> None:
    labels = np.array([0, 1] * 6)
    centres = np.array([[50.0, 0.0, 0.0], [0.0, 50.0, 0.0]])
    embeddings = (centres[labels] + 0.1 * normal(12, 3)).astype("float32")
    assert 0 <= float(PrototypicalLoss(2, variant, distance, 0.05)(labels, embeddings)) < 1e-6


@every_variant
@every_distance
def test_one_class_gives_a_loss_of_exactly_zero(variant: str, distance: str) -> None:
    value, slope = value_and_gradient(
        prototypical(variant, distance, 3), np.ones(8, "int32"), tf.constant(normal(8, 4), "float32")
    )
    assert float(value) == 0.0
    assert not np.any(slope)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_nt_xent_of_identical_orthogonal_pairs_has_its_closed_form(n: int, temperature: float) -> None:
    views = 3.0 * np.eye(n)
    expected = math.log(math.exp(1 / temperature) + 2 * n - 2) - 1 / temperature
    assert float(nt_xent_loss(views, views, temperature)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_supcon_of_orthogonal_classes_has_its_closed_form(temperature: float) -> None:
    labels = np.repeat([0, 1, 2], 4)  # each anchor: 3 positives with similarity 1, 8 negatives with similarity 0
    expected = math.log(3 * math.exp(1 / temperature) + 8) - 1 / temperature
    found = supervised_contrastive_loss(labels, 5.0 * np.eye(3)[labels], temperature)
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_smoothing_adds_its_part_of_the_gaps_to_the_loss() -> None:
    """-sum q log p = -log p(own) + eps / all * sum of (own logit - other logit), here with known gaps."""
    embeddings = np.array([[1.0], [3.0], [5.0], [7.0], [6.0], [2.0], [3.0], [3.0]])
    labels = np.array([0, 0, 1, 1, 1, 0, 0, 0])  # prototypes at 2 and 6; both queries are at 3
    for classes in (2, 9):  # those without support get nothing
        found = prototypical_loss(labels, embeddings, classes, temperature=0.5, label_smoothing=0.3)
        assert float(found) == pytest.approx(math.log(1 + math.exp(-4)) + 0.3 / 2 * 4, abs=1e-12)
    classes = np.repeat([0, 1, 2], 4)  # each anchor: 3 positives with similarity 1, 8 negatives with similarity 0
    found = supervised_contrastive_loss(classes, 5.0 * np.eye(3)[classes], 0.2, 0.3)
    assert float(found) == pytest.approx(math.log(3 * math.exp(5) + 8) - 5 + 0.3 / 11 * 8 * 5, abs=1e-12)
    views = 3.0 * np.eye(4)  # 1 positive, 6 negatives
    found = nt_xent_loss(views, views, 0.2, 0.3)
    assert float(found) == pytest.approx(math.log(math.exp(5) + 6) - 5 + 0.3 / 7 * 6 * 5, abs=1e-12)


def test_chance_is_the_same_with_smoothed_labels() -> None:
    equal, labels = np.ones((24, 4), "float32"), np.tile(np.arange(6), 4)
    for variant, distance in product(VARIANTS, DISTANCES):
        loss = PrototypicalLoss(9, variant, distance, label_smoothing=0.3)
        assert float(loss(labels, equal)) == pytest.approx(math.log(6), abs=1e-6)
        if variant != "standard":
            assert loss.outlook(labels).loss == pytest.approx(math.log(6))
    for loss in (NTXentLoss(label_smoothing=0.3), SupervisedContrastiveLoss(0.5, label_smoothing=0.3)):
        assert loss.outlook(labels[:12]).loss == loss.chance(12) == pytest.approx(math.log(23))
        assert float(loss(labels, equal)) == pytest.approx(loss.chance(12), abs=1e-6)


def test_chance_is_the_loss_of_embeddings_that_tell_nothing() -> None:
    equal = np.ones((24, 4), "float32")
    labels = np.tile(np.arange(6), 4)
    for variant, distance in product(VARIANTS, DISTANCES):
        loss = PrototypicalLoss(6, variant, distance)
        assert loss.chance(24) == pytest.approx(math.log(6))
        assert float(loss(labels, equal)) == pytest.approx(loss.chance(24), abs=1e-6)
    for loss in (NTXentLoss(), SupervisedContrastiveLoss(0.5)):
        assert loss.chance(12) == pytest.approx(math.log(23))  # 12 images are 24 views; an anchor compares to 23
        assert float(loss(labels, equal)) == pytest.approx(loss.chance(12), abs=1e-6)
        assert float(loss(labels, np.eye(24))) == pytest.approx(loss.chance(12), abs=1e-6)  # all equally dissimilar


@pytest.mark.parametrize("variant", ["query", "loo"])
@pytest.mark.parametrize(("batch", "classes"), [(24, 6), (24, 100), (13, 5), (8, 8), (64, 1000)])
def test_the_outlook_of_a_batch_is_what_equal_embeddings_get_in_it(variant: str, batch: int, classes: int) -> None:
    """Also with classes that have no support, and with more classes than a batch holds."""
    loss = PrototypicalLoss(classes, variant)
    for seed in range(6):
        labels = np.random.default_rng([batch, classes, seed]).integers(-1, classes, batch)
        outlook, equal = loss.outlook(labels), np.ones((batch, 4), "float32")
        episode = loss.episode(labels, equal)
        assert outlook.queries == np.sum(episode.is_query)
        assert loss.outlook(labels[:, None].astype("float32")) == outlook
        assert outlook.answerable == np.sum(episode.answerable)
        if outlook.answerable:
            assert outlook.loss == pytest.approx(float(loss(labels, equal)), abs=1e-5)
            assert outlook.loss <= loss.chance(batch) + 1e-9
            assert outlook.accuracy == pytest.approx(1 / np.sum(episode.logits.numpy()[0] > -1e20))


def test_in_standard_random_embeddings_beat_any_level_of_chance_so_none_is_given() -> None:
    labels, embeddings = random_batch(256, 128, 10)
    logits = PrototypicalLoss(10, "standard").episode(labels, embeddings).logits.numpy()
    assert np.mean(logits.argmax(axis=1) == labels) > 0.5
    assert PrototypicalLoss(10, "standard").outlook(labels)[:4] == (256, 256, None, None)
    alone = np.array([0, 0, 1, 2, 3, 3])
    assert PrototypicalLoss(10, "standard").outlook(alone)[:2] == (6, 4)
    assert PrototypicalLoss(10, "standard").episode(alone, embeddings[:6]).telling.numpy().sum() == 4


def test_the_chance_of_finding_the_other_view_is_one_among_all_other_views() -> None:
    labels = np.arange(64) % 10
    for loss in (NTXentLoss(), SupervisedContrastiveLoss()):
        outlook = loss.outlook(labels)
        assert outlook[:4] == (64, 64, pytest.approx(math.log(127)), pytest.approx(1 / 127))
        assert loss.outlook(labels[:, None]) == outlook
        assert loss.outlook(labels[:1]).answerable == 0, "there is only one other view, the right one"


def simplex(classes: int) -> np.ndarray:
    """(classes, classes): unit vectors, each at -1 / (classes - 1) to all others."""
    centred = np.eye(classes) - 1 / classes
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("classes", [2, 4, 10])
def test_the_least_possible_loss_is_that_of_the_corners_of_a_simplex(classes: int, temperature: float) -> None:
    labels = np.tile(np.arange(classes), 4)
    corners = simplex(classes)[labels]
    for variant in VARIANTS:
        loss = PrototypicalLoss(classes, variant, "cosine", temperature)
        assert loss.outlook(labels).least_loss == pytest.approx(float(loss(labels, corners)), abs=1e-5)
        assert PrototypicalLoss(classes, variant, "euclidean", temperature).outlook(labels).least_loss == 0
    views, view_labels = np.tile(corners, (2, 1)), np.tile(labels, 2)
    supcon = SupervisedContrastiveLoss(temperature)
    assert supcon.outlook(labels).least_loss == pytest.approx(float(supcon(view_labels, views)), abs=1e-5)
    nt_xent, each_its_own = NTXentLoss(temperature), np.tile(simplex(len(labels)), (2, 1))
    assert nt_xent.outlook(labels).least_loss == pytest.approx(float(nt_xent(view_labels, each_its_own)), abs=1e-5)


def equiangular(classes: int, similarity: float) -> np.ndarray:
    """(classes, classes): unit vectors, each at `similarity` to all others, at least -1 / (classes - 1)."""
    gram = np.full((classes, classes), similarity) + (1 - similarity) * np.eye(classes)
    values, vectors = np.linalg.eigh(gram)
    return vectors * np.sqrt(np.maximum(values, 0))


SMOOTHED = [
    *(PrototypicalLoss(5, variant, "cosine", 0.2, label_smoothing=0.1) for variant in VARIANTS),
    PrototypicalLoss(5, "loo", "cosine", 1.0, label_smoothing=0.1),  # the corners are not far enough for the target
    PrototypicalLoss(5, "loo", "cosine", 0.02, label_smoothing=1e-6),
    *(SupervisedContrastiveLoss(t, label_smoothing=0.1) for t in (0.1, 1.0)),
    *(NTXentLoss(t, label_smoothing=0.3) for t in (0.1, 1.0)),
]


@pytest.mark.parametrize(
    "loss",
    [pytest.param(each, marks=pytest.mark.slow) if 1 <= place <= 4 else each for place, each in enumerate(SMOOTHED)],
    ids=[f"{type(each).__name__} {each.temperature}" for each in SMOOTHED],
)
def test_the_least_loss_of_smoothed_labels_is_that_of_the_best_gap(loss: keras.losses.Loss) -> None:
    """By trying all gaps between the classes, up to that of the corners of a simplex."""
    labels = np.tile(np.arange(5), 4)
    classes = 20 if isinstance(loss, NTXentLoss) else 5
    given = labels if isinstance(loss, PrototypicalLoss) else np.tile(labels, 2)
    rows = np.tile(np.arange(classes), len(given) // classes)
    similarities = np.linspace(1 - 1e-6, -1 / (classes - 1), 100)
    compiled = tf.function(loss, autograph=False)
    losses = [float(compiled(given, equiangular(classes, each)[rows])) for each in similarities]
    least = loss.outlook(labels).least_loss
    assert min(losses) == pytest.approx(least, abs=2e-3)
    assert min(losses) > least - 1e-5
    if loss.temperature == 1.0:
        assert losses[-1] == pytest.approx(least, abs=1e-5), "the corners of the simplex"
    else:
        positives = 1 if not isinstance(loss, SupervisedContrastiveLoss) else 7
        others = len(given) - 1 if not isinstance(loss, PrototypicalLoss) else classes
        assert least == pytest.approx(target_entropy(positives, others - positives, loss.label_smoothing), abs=1e-9)


def test_the_least_loss_of_distances_is_the_entropy_of_the_target() -> None:
    labels = np.tile(np.arange(5), 4)
    target = np.full(5, 0.1 / 5) + 0.9 * np.eye(5)[0]
    entropy = -np.sum(target * np.log(target))
    assert target_entropy(1, 4, 0.1) == pytest.approx(entropy, abs=1e-12)
    gap = math.log(target[0] / target[1])  # of the logits that meet the target
    for variant, (distance, side) in product(VARIANTS, (("euclidean", 0.3 * gap), ("squared", math.sqrt(0.3 * gap)))):
        loss = PrototypicalLoss(8, variant, distance, 0.3, label_smoothing=0.1)
        assert loss.outlook(labels).least_loss == pytest.approx(entropy, abs=1e-12)
        assert float(loss(labels, side / math.sqrt(2) * np.eye(5)[labels])) == pytest.approx(entropy, abs=1e-5)
        assert loss.outlook(np.full(8, 2)).least_loss == 0, "one class: nothing to spread the target over"


@pytest.mark.parametrize("smoothing", [0.01, 0.1])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_where_a_simplex_does_not_fit_the_least_loss_of_smoothed_labels_is_a_bound(
    temperature: float, smoothing: float
) -> None:
    angles = 2 * np.pi * np.arange(10) / 10
    gaps = (1 - np.cos(angles)) / temperature
    circle = np.log(np.exp(-gaps).sum()) + smoothing / 10 * gaps.sum()
    found = least_loss(1, 9, 10, temperature, 2, smoothing)
    assert least_loss(1, 9, 10, temperature, None, smoothing) <= found <= circle
    assert least_loss(1, 9, 10, temperature, 2) < found
    assert least_loss(1, 9, 10, temperature, 2, 1e-12) == pytest.approx(least_loss(1, 9, 10, temperature, 2), abs=1e-9)


def test_where_a_simplex_does_not_fit_the_least_possible_loss_is_that_of_the_best_places_on_the_sphere() -> None:
    angles = 2 * np.pi * np.arange(10) / 10
    similarities = np.cos(angles[:, None] - angles)
    circle = np.mean(np.log(np.exp((similarities - 1) / 0.1).sum(axis=1)))
    assert least_loss(1, 9, 10, 0.1, dim=2) == pytest.approx(circle, abs=1e-6)
    assert least_loss(1, 9, 10, 0.1, dim=1) == pytest.approx(math.log(5 + 5 * math.exp(-20)), abs=1e-6)
    assert least_loss(1, 3, 4, 0.5, dim=2) > least_loss(1, 3, 4, 0.5, dim=3) == least_loss(1, 3, 4, 0.5)
    sides = np.where(np.arange(40) % 10 < 5, 1.0, -1.0)[:, None]
    for loss in (PrototypicalLoss(10, "loo", "cosine", 0.1), SupervisedContrastiveLoss(0.1)):
        labels, embeddings = np.arange(40) % 10, sides
        if not isinstance(loss, PrototypicalLoss):
            labels, embeddings = np.tile(labels, 2), np.tile(sides, (2, 1))
        found = loss.outlook(np.arange(40) % 10, dim=1).least_loss
        assert found == pytest.approx(float(loss(labels, embeddings)), abs=1e-5)


@every_variant
def test_a_batch_whose_support_is_of_one_class_asks_nothing(variant: str) -> None:
    """There, any embeddings are right: loss 0, and no figure of chance."""
    labels, embeddings = np.full(8, 2), normal(8, 3)
    loss = PrototypicalLoss(4, variant)
    assert not loss.episode(labels, embeddings).answerable.numpy().any()
    assert loss.outlook(labels)[:2] == (2 if variant == "query" else 8, 0)
    assert float(loss(labels, embeddings)) == 0


def test_at_temperature_one_ten_cosine_classes_cannot_get_below_1_377() -> None:
    assert least_loss(1, 9, 10, 1.0) == pytest.approx(1.377, abs=5e-4)
    assert least_loss(1, 99, 100, 1.0) == pytest.approx(3.61, abs=5e-3)
    assert least_loss(1, 9, 10, 0.1) < 1e-3


# symmetries


def test_nt_xent_does_not_care_which_view_is_first() -> None:
    first, second = normal(6, 4), normal(6, 4, seed=1)
    assert float(nt_xent_loss(first, second)) == pytest.approx(float(nt_xent_loss(second, first)), abs=1e-12)


def test_nt_xent_is_the_same_for_pairs_in_another_order_but_not_for_other_pairs() -> None:
    first, second = normal(6, 4), normal(6, 4, seed=1)
    order = np.random.default_rng(2).permutation(6)
    expected = float(nt_xent_loss(first, second))
    assert float(nt_xent_loss(first[order], second[order])) == pytest.approx(expected, abs=1e-12)
    assert abs(float(nt_xent_loss(first, second[order])) - expected) > 0.01


@pytest.mark.parametrize("name", [name for name in LOSSES if not name.startswith(("query", "nt_xent"))])
def test_the_order_of_the_samples_does_not_matter_where_all_play_the_same_part(name: str) -> None:
    labels, embeddings = random_batch(15, 3, 4)
    order = np.random.default_rng(2).permutation(15)
    found = float(LOSSES[name](labels[order], embeddings[order]))
    assert found == pytest.approx(float(LOSSES[name](labels, embeddings)), abs=1e-11)


@every_distance
def test_support_and_queries_may_each_be_reordered_but_not_exchanged(distance: str) -> None:
    labels, embeddings = random_batch(16, 3, 4)
    loss = prototypical("query", distance, 4)
    expected = float(loss(labels, embeddings))
    random = np.random.default_rng(2)
    within = np.concatenate([random.permutation(12), 12 + random.permutation(4)])
    assert float(loss(labels[within], embeddings[within])) == pytest.approx(expected, abs=1e-11)
    across = np.roll(np.arange(16), 4)
    assert abs(float(loss(labels[across], embeddings[across])) - expected) > 1e-3


@pytest.mark.parametrize("name", [name for name in LOSSES if not name.startswith("nt_xent")])
def test_the_names_of_the_classes_do_not_matter(name: str) -> None:
    labels, embeddings = random_batch(16, 3, 4)
    renamed = np.array([2, 0, 3, 1])[labels]
    expected = float(LOSSES[name](labels, embeddings))
    assert float(LOSSES[name](renamed, embeddings)) == pytest.approx(expected, abs=1e-11)


@every_loss
def test_rotating_all_embeddings_changes_nothing(name: str) -> None:
    labels, embeddings = random_batch(16, 5, 4)
    rotation, _ = np.linalg.qr(normal(5, 5, seed=3))
    expected = float(LOSSES[name](labels, embeddings))
    assert float(LOSSES[name](labels, embeddings @ rotation)) == pytest.approx(expected, abs=1e-7)


@every_variant
@pytest.mark.parametrize("distance", ["euclidean", "squared"])
def test_moving_all_embeddings_changes_nothing_for_distances(variant: str, distance: str) -> None:
    labels, embeddings = random_batch(16, 5, 4)
    loss = prototypical(variant, distance, 4)
    assert float(loss(labels, embeddings + 7.0)) == pytest.approx(float(loss(labels, embeddings)), abs=1e-7)


@pytest.mark.parametrize("name", [name for name in LOSSES if not name.endswith(("euclidean", "squared"))])
def test_the_length_of_each_embedding_does_not_matter_for_cosine_similarity(name: str) -> None:
    labels, embeddings = random_batch(16, 5, 4)
    lengths = np.random.default_rng(2).uniform(0.01, 100, size=(16, 1))
    expected = float(LOSSES[name](labels, embeddings))
    assert float(LOSSES[name](labels, lengths * embeddings)) == pytest.approx(expected, abs=1e-11)


@every_variant
def test_embeddings_and_temperature_scale_together_for_euclidean_distance(variant: str) -> None:
    labels, embeddings = random_batch(16, 5, 4)
    expected = float(prototypical_loss(labels, embeddings, 4, variant, "euclidean", 1.0))
    found = prototypical_loss(labels, 9 * embeddings, 4, variant, "euclidean", 9.0)
    assert float(found) == pytest.approx(expected, abs=1e-9)


# gradients

SMOOTHED_TOO = ("query-smoothed-euclidean", "nt_xent-smoothed", "supcon-smoothed")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if "smoothed" in name and name not in SMOOTHED_TOO else name
        for name in LOSSES
    ],
)
def test_the_gradient_is_that_of_central_differences(name: str) -> None:
    # query: class 2 has one support sample, class 3 none; standard and loo: classes 2 and 3 have one sample each
    labels = np.array([0, 1, 0, 1, 2, 0, 1, 0, 1, 0, 1, 3], "int32")
    embeddings = normal(12, 3, seed=5)
    signature = [tf.TensorSpec([12, 3], "float64")]
    loss = tf.function(lambda x: LOSSES[name](labels, x), input_signature=signature, autograph=False)
    _, found = value_and_gradient(lambda _, x: loss(x), labels, tf.constant(embeddings))
    step = 1e-5
    expected = np.zeros_like(embeddings)
    for place in np.ndindex(*embeddings.shape):
        above, below = embeddings.copy(), embeddings.copy()
        above[place] += step
        below[place] -= step
        expected[place] = (float(loss(above)) - float(loss(below))) / (2 * step)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@every_distance
def test_the_gradient_in_float32_is_that_in_float64(distance: str) -> None:
    labels, embeddings = random_batch(24, 16, 4)
    single = tf.constant(embeddings, "float32")
    for variant in VARIANTS:
        loss = prototypical(variant, distance, 4)
        _, found = value_and_gradient(loss, labels, single)
        _, exact = value_and_gradient(loss, labels, tf.cast(single, "float64"))
        np.testing.assert_allclose(found, exact, atol=1e-5 * np.abs(exact).max())


@every_variant
def test_support_and_queries_all_receive_a_gradient(variant: str) -> None:
    labels, embeddings = np.tile([0, 1, 2], 4), normal(12, 3)
    _, slope = value_and_gradient(prototypical(variant, "euclidean", 3), labels, tf.constant(embeddings))
    assert (np.abs(slope).max(axis=1) > 1e-4).all()


# batches made to break it: four classes

EIGHT = normal(8, 4, seed=7)
UGLY = {
    "a class with one sample": ([0, 0, 1, 1, 2, 0, 0, 1], EIGHT),
    "a class missing": ([0, 0, 1, 1, 0, 1, 0, 1], EIGHT),
    "a query class without support": ([0, 0, 1, 1, 0, 1, 3, 1], EIGHT),
    "no query with support": ([0, 0, 1, 1, 0, 1, 3, 2], EIGHT),
    "all embeddings equal": ([0, 1, 2, 3, 0, 1, 2, 3], np.full((8, 4), 0.7)),
    "all embeddings zero": ([0, 1, 2, 3, 0, 1, 2, 3], np.zeros((8, 4))),
    "some embeddings zero": ([0, 1, 2, 1, 0, 1, 2, 1], EIGHT * np.array([1, 1, 0, 1, 1, 0, 1, 0])[:, None]),
    "opposite embeddings": ([0, 0, 1, 1, 1, 1, 0, 0], np.repeat(EIGHT[:4], 2, axis=0) * np.tile([[1], [-1]], (4, 1))),
    "one class only": ([2] * 8, EIGHT),
    "a batch of two": ([1, 1], EIGHT[:2]),
    "a batch of two classes": ([1, 0], EIGHT[:2]),
    "a batch of one": ([1], EIGHT[:1]),
    "labels not contiguous": ([0, 0, 3, 3, 0, 3, 0, 3], EIGHT),
    "labels out of range": ([-1, 0, 4, 1, 0, 1, 4, 0], EIGHT),
    "all labels out of range": ([4, 4, -1, 5, -1, 4, 4, -1], EIGHT),
    "huge embeddings": ([0, 1, 2, 3, 0, 1, 2, 3], np.sign(EIGHT) * 1e4 + EIGHT),
    "tiny embeddings": ([0, 1, 2, 3, 0, 1, 2, 3], EIGHT * 1e-8),
}
every_ugly_batch = pytest.mark.parametrize("ugly", UGLY)


@every_ugly_batch
@pytest.mark.parametrize(
    "dtype", ["float16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("float32", "bfloat16"))]
)
def test_loss_and_gradient_are_finite_on(ugly: str, dtype: str) -> None:
    labels, embeddings = UGLY[ugly]
    embeddings = tf.cast(embeddings, dtype)
    for name, loss in LOSSES.items():
        if name.startswith("nt_xent") and len(labels) == 1:
            continue
        if "smoothed" in name and dtype == "float16":  # the same sums as in bfloat16, which has less digits
            continue
        value, slope = value_and_gradient(loss, np.array(labels), embeddings)
        assert value.dtype == "float32"
        assert np.isfinite(value), name
        assert slope.dtype == dtype
        assert np.isfinite(tf.cast(slope, "float32")).all(), name


@every_ugly_batch
def test_the_loss_is_that_of_the_slow_loop_on(ugly: str) -> None:
    labels, embeddings = UGLY[ugly]
    for variant, distance in product(VARIANTS, DISTANCES):
        if distance == "cosine" and ugly == "tiny embeddings":
            continue  # vectors shorter than a millionth count as zero
        expected = reference.prototypical_loss(labels, embeddings, 4, variant, distance)
        found = prototypical_loss(np.array(labels), embeddings, 4, variant, distance)
        assert float(found) == pytest.approx(expected, rel=1e-7, abs=1e-7), (variant, distance)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sample_alone_in_its_class_has_no_infinite_slope_at_its_own_prototype(dtype: str) -> None:
    labels, embeddings = np.array([0, 1, 2]), tf.cast(normal(3, 4), dtype)  # every distance to the own prototype is 0
    value, slope = value_and_gradient(prototypical("standard", "euclidean", 3), labels, embeddings)
    expected = reference.prototypical_loss(labels, tf.cast(embeddings, "float64"), 3, "standard", "euclidean")
    assert float(value) == pytest.approx(expected, abs=1e-5)
    assert 0 < np.abs(tf.cast(slope, "float32")).max() < 2


@every_variant
def test_the_distance_to_the_own_prototype_keeps_its_digits_when_classes_are_far_apart(variant: str) -> None:
    labels = np.arange(40) % 4
    embeddings = tf.constant(30 * normal(4, 64)[labels] + 0.05 * normal(40, 64, seed=1), "float32")
    single = prototypical_episode(labels, embeddings, 4, variant).logits.numpy()
    exact = prototypical_episode(labels, tf.cast(embeddings, "float64"), 4, variant).logits.numpy()
    np.testing.assert_allclose(single[np.arange(40), labels], exact[np.arange(40), labels], rtol=1e-4)


@every_loss
def test_a_dead_embedding_does_not_blow_the_gradient_up(name: str) -> None:
    """A projection head can output a row of zeros; with a clamped length its gradient would be 1e6 and more."""
    labels, embeddings = UGLY["some embeddings zero"]
    _, slope = value_and_gradient(LOSSES[name], np.array(labels), tf.constant(embeddings, "float32"))
    assert np.abs(slope).max() < 100


@pytest.mark.parametrize(
    "name",
    ["query-smoothed-euclidean", "nt_xent", "supcon-smoothed"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("standard-euclidean", "query-euclidean", "loo-cosine")],
)
def test_compiled_by_xla_loss_and_gradient_are_the_same(name: str) -> None:
    function = partial(value_and_gradient, LOSSES[name])
    compiled = tf.function(function, jit_compile=True, autograph=False)
    for ugly in ("some embeddings zero", "labels out of range", "a query class without support"):
        labels, embeddings = np.array(UGLY[ugly][0], "int32"), tf.constant(UGLY[ugly][1], "float32")
        value, slope = value_and_gradient(LOSSES[name], labels, embeddings)
        # labels as a tensor: otherwise each batch would be compiled anew
        compiled_value, compiled_slope = compiled(tf.constant(labels), embeddings)
        assert float(compiled_value) == pytest.approx(float(value), abs=1e-5), ugly
        np.testing.assert_allclose(compiled_slope, slope, atol=1e-5 * max(1, np.abs(slope).max()))


# who is asked, and who is left out


def test_a_query_without_support_is_left_out_of_the_mean() -> None:
    labels, embeddings = random_batch(16, 3, 3)
    labels[13] = 3
    kept = [i for i in range(16) if i != 13]
    for distance in DISTANCES:
        found = prototypical_loss(labels, embeddings, 4, "query", distance, query_fraction=4 / 16)
        without = prototypical_loss(labels[kept], embeddings[kept], 4, "query", distance, query_fraction=3 / 15)
        assert float(found) == pytest.approx(float(without), abs=1e-12)


@pytest.mark.parametrize("variant", ["standard", "loo"])
@every_distance
def test_a_label_out_of_range_is_left_out_of_support_and_mean(variant: str, distance: str) -> None:
    labels, embeddings = random_batch(16, 3, 3)
    labels[[2, 9]] = [-1, 3]
    kept = [i for i in range(16) if i not in (2, 9)]
    loss = prototypical(variant, distance, 3)
    assert float(loss(labels, embeddings)) == pytest.approx(float(loss(labels[kept], embeddings[kept])), abs=1e-9)
    _, slope = value_and_gradient(loss, labels, tf.constant(embeddings))
    np.testing.assert_allclose(slope.numpy()[[2, 9]], 0, atol=1e-12)


def test_a_sample_alone_in_its_class_is_no_query_of_leave_one_out_but_a_wrong_answer_for_others() -> None:
    labels, embeddings = np.array([0, 0, 1]), np.array([[0.0], [2.0], [1.0]])
    # both samples of class 0 are at distance 2 from each other and at distance 1 from class 1
    assert float(prototypical_loss(labels, embeddings, 2, "loo")) == pytest.approx(math.log(1 + math.e), abs=1e-12)


@pytest.mark.parametrize(
    ("variant", "labels"),
    [("query", [0, 0, 1, 1, 0, 1, 3, 2]), ("query", [0, 1, 2]), ("loo", [0, 1, 2, 3]), ("standard", [-1, 4, 9])],
    ids=["queries without support", "batch too small for a query", "all alone in their class", "no label in range"],
)
@every_distance
def test_with_no_query_left_loss_and_gradient_are_exactly_zero(variant: str, labels: list[int], distance: str) -> None:
    embeddings = tf.constant(EIGHT[: len(labels)], "float32")
    value, slope = value_and_gradient(prototypical(variant, distance, 4), np.array(labels), embeddings)
    assert float(value) == 0.0
    assert not np.any(slope)
    smoothed = prototypical(variant, distance, 4, label_smoothing=0.3)
    value, slope = value_and_gradient(smoothed, np.array(labels), embeddings)
    assert float(value) == 0.0
    assert not np.any(slope)


def test_with_no_positive_pair_supcon_and_its_gradient_are_exactly_zero() -> None:
    for name in ("supcon", "supcon-smoothed"):
        value, slope = value_and_gradient(LOSSES[name], np.arange(8), tf.constant(EIGHT, "float32"))
        assert float(value) == 0.0
        assert not np.any(slope)


def test_an_anchor_without_a_positive_is_left_out_of_supcon_but_stays_a_negative() -> None:
    labels, embeddings = np.array([0, 0, 1]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = supervised_contrastive_loss(labels, embeddings, 1.0)
    assert float(found) == pytest.approx(math.log(math.e + 1) - 1, abs=1e-12)


def test_a_class_without_support_gets_no_probability() -> None:
    labels, embeddings = random_batch(16, 3, 3)
    few, many = prototypical("query", "euclidean", 3), prototypical("query", "euclidean", 50)
    assert float(many(labels, embeddings)) == pytest.approx(float(few(labels, embeddings)), abs=1e-12)
    episode = prototypical_episode(labels, embeddings, 50)
    assert (episode.logits.numpy()[:, 3:] < -1e20).all()


def test_the_episode_tells_queries_from_those_that_can_be_answered() -> None:
    labels = np.array([0, 0, 1, 1, 0, 1, 3, 1])
    query = PrototypicalLoss(4).episode(labels, EIGHT)
    assert query.is_query.numpy().tolist() == [False] * 6 + [True] * 2
    assert query.answerable.numpy().tolist() == [False] * 7 + [True]
    loo = PrototypicalLoss(4, "loo").episode(labels, EIGHT)
    assert loo.is_query.numpy().all()
    assert loo.answerable.numpy().tolist() == [True] * 6 + [False, True]
    standard = PrototypicalLoss(4, "standard").episode(labels, EIGHT)
    assert standard.answerable.numpy().all()
    assert query.logits.shape == loo.logits.shape == standard.logits.shape == (8, 4)


def test_the_queries_are_the_last_quarter_of_a_batch_of_any_size() -> None:
    signature = [tf.TensorSpec([None], "int32"), tf.TensorSpec([None, 2], "float64")]

    @tf.function(input_signature=signature, autograph=False)
    def unknown_batch_size(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return prototypical_episode(labels, embeddings, 3).is_query, prototypical_loss(labels, embeddings, 3)

    for batch in (*range(1, 14), 69, 70):
        labels, embeddings = random_batch(batch, 2, 3)
        is_query, value = unknown_batch_size(labels, embeddings)
        assert is_query.numpy().tolist() == [False] * (batch - batch // 4) + [True] * (batch // 4)
        expected = reference.prototypical_loss(labels, embeddings, 3, "query", "euclidean")
        assert float(value) == pytest.approx(expected, abs=1e-10), batch


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.29, 0.3, 1 / 3, 0.5, 0.53, 0.57, 2 / 3, 0.75, 0.9999])
def test_the_number_of_queries_is_the_fraction_rounded_down(fraction: float) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], "int32"), tf.TensorSpec([None, 1], "float32")], autograph=False)
    def unknown_batch_size(labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        return prototypical_episode(labels, embeddings, 1, query_fraction=fraction).is_query

    for batch in [*range(1, 71), 100, 256, 300, 512, 1000, 5000, 10_000]:
        queries = reference.number_of_queries(batch, fraction)
        is_query = unknown_batch_size(np.zeros(batch, "int32"), np.zeros((batch, 1), "float32")).numpy()
        assert is_query.sum() == queries, batch
        assert is_query[batch - queries :].all()


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.75])
def test_the_loss_of_another_query_fraction_is_that_of_the_slow_loop(fraction: float) -> None:
    labels, embeddings = random_batch(22, 3, 3)
    expected = reference.prototypical_loss(labels, embeddings, 3, "query", "euclidean", 1.0, fraction)
    found = PrototypicalLoss(3, query_fraction=fraction)(labels, embeddings)
    assert float(found) == pytest.approx(expected, abs=1e-5)


# labels and dtypes


@pytest.mark.parametrize("shape", [(12,), (12, 1)], ids=["row", "column"])
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
def test_labels_may_be_of_any_number_type_and_may_form_a_column(dtype: str, shape: tuple[int, ...]) -> None:
    labels, embeddings = random_batch(12, 3, 4)
    given = labels.astype(dtype).reshape(shape)
    views = np.arange(12) % 6
    for variant in VARIANTS:
        expected = reference.prototypical_loss(labels, embeddings, 4, variant, "euclidean")
        assert float(prototypical_loss(given, embeddings, 4, variant)) == pytest.approx(expected, abs=1e-10)
        assert float(PrototypicalLoss(4, variant)(given, embeddings)) == pytest.approx(expected, abs=1e-5)
    expected = reference.supervised_contrastive_loss(labels, embeddings)
    assert float(supervised_contrastive_loss(given, embeddings)) == pytest.approx(expected, abs=1e-10)
    assert float(SupervisedContrastiveLoss()(given, embeddings)) == pytest.approx(expected, abs=1e-5)
    expected = reference.supervised_contrastive_loss(views, embeddings)
    assert float(NTXentLoss()(given, embeddings)) == pytest.approx(expected, abs=1e-5)  # labels are ignored


@pytest.mark.usefixtures("restored_dtype_policy")
def test_a_mixed_precision_policy_does_not_lower_the_precision_of_a_loss() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    # 257 and 259 are not bfloat16 numbers: rounded, they would be 256 and 260
    labels = np.array([256, 257, 258, 259] * 6)
    embeddings = tf.cast(normal(24, 8), "bfloat16")
    exact = tf.cast(embeddings, "float64").numpy()
    for variant, distance in product(VARIANTS, DISTANCES):
        found = PrototypicalLoss(300, variant, distance)(labels, embeddings)
        assert found.dtype == "float32"
        expected = reference.prototypical_loss(labels, exact, 300, variant, distance)
        assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    supcon, nt_xent = SupervisedContrastiveLoss()(labels, embeddings), NTXentLoss()(labels, embeddings)
    assert (supcon.dtype, nt_xent.dtype) == ("float32", "float32")
    assert float(supcon) == pytest.approx(reference.supervised_contrastive_loss(labels, exact), rel=1e-5)
    assert float(nt_xent) == pytest.approx(reference.nt_xent_loss(exact[:12], exact[12:]), rel=1e-5)


@every_loss
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_pure_function_computes_low_precision_inputs_in_float32(name: str, dtype: str) -> None:
    labels, embeddings = random_batch(12, 8, 4)
    rounded = tf.cast(embeddings, dtype)
    found = LOSSES[name](labels, rounded)
    assert found.dtype == "float32"
    assert float(found) == pytest.approx(float(LOSSES[name](labels, tf.cast(rounded, "float64"))), rel=1e-5)


# the classes


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (
            PrototypicalLoss,
            {
                "num_classes": 7,
                "variant": "loo",
                "distance": "cosine",
                "temperature": 0.3,
                "query_fraction": 0.4,
                "name": "mine",
                "label_smoothing": 0.1,
            },
        ),
        (NTXentLoss, {"temperature": 0.3, "name": "mine", "label_smoothing": 0.1}),
        (SupervisedContrastiveLoss, {"temperature": 0.3, "name": "mine", "label_smoothing": 0.1}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_loss_can_be_rebuilt_from_its_config(loss: type[keras.losses.Loss], options: dict) -> None:
    original = loss(**options)
    config = json.loads(json.dumps(original.get_config()))
    assert config == options
    assert loss.from_config(config).get_config() == options
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(original))
    assert type(again) is loss
    assert again.get_config() == options
    labels, embeddings = random_batch(14, 3, 5)
    assert float(again(labels, embeddings)) == float(original(labels, embeddings))


def test_configs_and_positions_of_arguments_from_before_smoothing_still_hold() -> None:
    for old in (
        PrototypicalLoss(3, "loo", "cosine", 0.3, 0.4, "mine"),
        NTXentLoss(0.3, "mine"),
        SupervisedContrastiveLoss(0.3, "mine"),
    ):
        assert (old.name, old.temperature, old.label_smoothing) == ("mine", 0.3, 0.0)
        config = old.get_config()
        assert config.pop("label_smoothing") == 0.0
        assert type(old).from_config(config).get_config() == old.get_config()


BAD_OPTIONS = [
    ({"num_classes": 0}, "num_classes is 0; expected"),
    ({"num_classes": -3}, "num_classes is -3; expected"),
    ({"num_classes": 2.5}, "num_classes is 2.5; expected"),
    ({"num_classes": "10"}, "num_classes is '10'; expected"),
    ({"variant": "Query"}, "variant is 'Query'; expected one of standard, query, loo"),
    ({"variant": None}, "variant is None; expected one of standard, query, loo"),
    ({"distance": "l2"}, "distance is 'l2'; expected one of euclidean, squared, cosine"),
    ({"temperature": 0.0}, "temperature is 0.0; expected a number above 0"),
    ({"temperature": -1}, "temperature is -1; expected a number above 0"),
    ({"temperature": math.nan}, "temperature is nan; expected a number above 0"),
    ({"temperature": math.inf}, "temperature is inf; expected a number above 0"),
    ({"temperature": "0.1"}, "temperature is '0.1'; expected a number above 0"),
    ({"query_fraction": 0.0}, "query_fraction is 0.0; expected a number between 0 and 1"),
    ({"query_fraction": 1.0}, "query_fraction is 1.0; expected a number between 0 and 1"),
    ({"query_fraction": -0.25}, "query_fraction is -0.25; expected a number between 0 and 1"),
    ({"query_fraction": math.nan}, "query_fraction is nan; expected a number between 0 and 1"),
    ({"label_smoothing": -0.1}, "label_smoothing is -0.1; expected at least 0 and below 1"),
    ({"label_smoothing": 1.0}, "label_smoothing is 1.0; expected at least 0 and below 1"),
    ({"label_smoothing": math.nan}, "label_smoothing is nan; expected at least 0 and below 1"),
    ({"label_smoothing": None}, "label_smoothing is None; expected at least 0 and below 1"),
]
every_bad_option = pytest.mark.parametrize(("bad", "message"), BAD_OPTIONS, ids=[str(bad) for bad, _ in BAD_OPTIONS])


@every_bad_option
def test_a_bad_option_of_the_loss_class_is_an_input_error(bad: dict, message: str) -> None:
    fails(lambda: PrototypicalLoss(**{"num_classes": 3, **bad}), message)


@every_bad_option
def test_a_bad_option_of_the_pure_function_is_an_input_error(bad: dict, message: str) -> None:
    fails(lambda: prototypical_loss(np.zeros(8), EIGHT, **{"num_classes": 3, **bad}), message)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_bad_temperature_of_a_contrastive_loss_is_an_input_error(temperature: float) -> None:
    message = f"temperature is {temperature}; expected a number above 0"
    fails(lambda: NTXentLoss(temperature), message)
    fails(lambda: SupervisedContrastiveLoss(temperature), message)
    fails(lambda: nt_xent_loss(EIGHT, EIGHT, temperature), message)
    fails(lambda: supervised_contrastive_loss(np.zeros(8), EIGHT, temperature), message)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan, "0.1"])
def test_a_bad_smoothing_of_a_contrastive_loss_is_an_input_error(smoothing: float) -> None:
    message = f"label_smoothing is {smoothing!r}; expected at least 0 and below 1"
    fails(lambda: NTXentLoss(label_smoothing=smoothing), message)
    fails(lambda: SupervisedContrastiveLoss(label_smoothing=smoothing), message)
    fails(lambda: nt_xent_loss(EIGHT, EIGHT, label_smoothing=smoothing), message)
    fails(lambda: supervised_contrastive_loss(np.zeros(8), EIGHT, label_smoothing=smoothing), message)


@pytest.mark.parametrize("shape", [(8, 4), (8, 2), (8, 1, 1), ()])
def test_labels_that_are_no_class_numbers_are_refused(shape: tuple[int, ...]) -> None:
    labels = np.zeros(shape, "int32")
    losses = [PrototypicalLoss(4), SupervisedContrastiveLoss()]
    functions = [lambda y, z: prototypical_loss(y, z, 4), supervised_contrastive_loss]
    for call in functions + (losses if shape else []):  # Keras gives a lone label a dimension
        with pytest.raises(InputError, match=r"one class number an image.*labels.argmax\(axis=1\)"):
            call(labels, tf.constant(EIGHT, "float32"))


@pytest.mark.parametrize("loss", [PrototypicalLoss(4), NTXentLoss(), SupervisedContrastiveLoss()])
def test_weights_of_samples_are_refused_as_a_batch_is_one_value(loss: keras.losses.Loss) -> None:
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    fails(lambda: loss(labels, EIGHT, sample_weight=np.ones(8)), "takes no sample or class weights")
    assert float(loss(labels, EIGHT, sample_weight=None)) == float(loss(labels, EIGHT))


def test_views_of_different_images_are_refused() -> None:
    with pytest.raises(InputError, match="the same images"):
        nt_xent_loss(np.ones((4, 3), "float32"), np.ones((5, 3), "float32"))
