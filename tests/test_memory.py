"""Prototypes of a memory: against slow loops, finite differences, the loo loss, and memories made to break them."""

import math
from typing import Any

import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from prl_keras.errors import InputError
from prl_keras.losses import PrototypicalLoss
from prl_keras.memory import (
    cross_entropy,
    leave_out,
    matched_temperature,
    memory_episode,
    memory_prototypes,
)

# (images, batch, dim, classes): one class, more classes than images, a batch of one, the whole set, ...
SHAPES = [(6, 4, 3, 1), (5, 5, 2, 9), (20, 1, 4, 3), (12, 12, 3, 4), (60, 16, 8, 6)]


def memory_loss(*arguments: Any, **named: Any) -> Any:
    """What a training descends: the cross-entropy of the episode."""
    return cross_entropy(memory_episode(*arguments, **named))


def units(random: np.random.Generator, *shape: int) -> np.ndarray:
    values = random.normal(size=shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def case(images: int, batch: int, dim: int, classes: int, seed: int = 0, **options) -> dict:
    """Arguments of memory_loss; a third of the memory is not visited, half of the queries are not mixed."""
    random = np.random.default_rng([images, batch, dim, classes, seed])
    memory = units(random, images, dim) * (random.random((images, 1)) > 1 / 3)
    lam = np.where(random.random(batch) < 0.5, 1.0, random.random(batch))
    return {
        "queries": random.normal(size=(batch, dim)),
        "rows": random.permutation(images)[:batch],
        "memory": memory,
        "memory_labels": random.integers(0, classes, images),
        "num_classes": classes,
        "temperature": 0.2,
        "label_smoothing": 0.1,
        "lam": lam,
        "soft_targets": random.dirichlet(np.ones(classes), batch),
        "soft_weight": 0.3,
        **options,
    }


OPTIONS = {
    "all": {},
    "plain": {"label_smoothing": 0.0, "lam": None, "soft_targets": None, "soft_weight": 0.0},
    "mixed": {"label_smoothing": 0.0, "soft_targets": None, "soft_weight": 0.0},
    "smoothed": {"lam": None, "soft_targets": None, "temperature": 1.0},
    "soft": {"label_smoothing": 0.0, "lam": None, "soft_weight": 1.0},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_memory_loss_is_that_of_the_slow_loop(shape: tuple[int, ...], name: str) -> None:
    for seed in range(2):
        arguments = case(*shape, seed, **OPTIONS[name])
        found, expected = memory_loss(**arguments), reference.memory_loss(*arguments.values())
        assert found.dtype == "float64"
        assert found.shape == ()
        assert float(found) == pytest.approx(expected, rel=1e-10, abs=1e-10)
        single = memory_loss(**arguments | {"queries": arguments["queries"].astype("float32")})
        assert single.dtype == "float32"
        assert float(single) == pytest.approx(expected, rel=2e-5, abs=2e-5)


def test_it_is_the_same_inside_a_compiled_function_and_for_bfloat16_queries() -> None:
    arguments = case(60, 16, 8, 6)
    queries = tf.cast(arguments.pop("queries"), tf.bfloat16)
    found = tf.function(lambda q: memory_loss(q, **arguments), jit_compile=True, autograph=False)(queries)
    assert found.dtype == "float32"
    assert float(found) == pytest.approx(reference.memory_loss(queries.numpy(), *arguments.values()), rel=1e-4)


def test_sums_are_of_visited_rows_and_known_labels() -> None:
    memory = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.6, 0.8], [0.0, -1.0]])
    sums, counts = memory_prototypes(memory, np.array([0, 0, 0, -1, 2]), 3)
    np.testing.assert_allclose(sums, [[1, 1], [0, 0], [0, -1]])
    np.testing.assert_allclose(counts, [2, 0, 1])


def test_what_is_left_out_is_what_a_memory_without_it_would_answer() -> None:
    arguments = case(30, 8, 4, 3, seed=1)
    memory, labels, rows = (arguments[key] for key in ("memory", "memory_labels", "rows"))
    mixed = np.arange(8) % 2 == 0
    queries = tf.constant(arguments["queries"])
    logits = leave_out(queries, memory_prototypes(memory, labels, 3), labels[rows], memory[rows], mixed, 0.5)
    for i in range(8):
        rest = memory.copy()
        rest[rows[i]] = 0
        if mixed[i]:
            rest[rows[i - 1]] = 0
        whole = leave_out(queries, memory_prototypes(rest, labels, 3), labels[rows], np.zeros((8, 4)), None, 0.5)
        np.testing.assert_allclose(logits[i], whole[i], rtol=1e-12)


# the gradient


def gradient(arguments: dict) -> np.ndarray:
    queries = tf.constant(arguments["queries"])
    with tf.GradientTape() as tape:
        tape.watch(queries)
        loss = memory_loss(**arguments | {"queries": queries})
    return tape.gradient(loss, queries).numpy()


@pytest.mark.parametrize("name", OPTIONS)
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    arguments = case(40, 6, 4, 3, seed=2, **OPTIONS[name])
    found, step = gradient(arguments), 1e-6
    expected = np.zeros_like(found)
    loss = tf.function(lambda moved: memory_loss(**arguments | {"queries": moved}), autograph=False)
    for index in np.ndindex(found.shape):
        for sign in (1, -1):
            moved = arguments["queries"].copy()
            moved[index] += sign * step
            expected[index] += sign * float(loss(tf.constant(moved))) / (2 * step)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_the_gradient_reaches_queries_and_temperature_and_not_the_memory() -> None:
    """Also where the memory is made of the queries."""
    arguments = case(8, 8, 4, 2, lam=None)
    queries = tf.constant(arguments["queries"])
    temperature = tf.constant(0.2, tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([queries, temperature])
        memory = tf.math.l2_normalize(queries, axis=-1)
        soft = tf.nn.softmax(queries @ tf.ones((4, 2), tf.float64))
        made = {"rows": np.arange(8), "temperature": temperature}
        loss = memory_loss(**arguments | made | {"queries": queries, "memory": memory, "soft_targets": soft})
    fixed = arguments | {"rows": np.arange(8), "memory": memory.numpy(), "soft_targets": soft.numpy()}
    np.testing.assert_allclose(tape.gradient(loss, queries), gradient(fixed), atol=1e-12)
    change = [float(memory_loss(**fixed | {"temperature": 0.2 + step})) for step in (1e-6, -1e-6)]
    assert float(tape.gradient(loss, temperature)) == pytest.approx((change[0] - change[1]) / 2e-6, rel=1e-5)


# the leave-one-out loss of a batch that is the whole set


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 6), st.sampled_from([0.07, 0.25, 1.0]))
def test_a_memory_of_the_queries_themselves_gives_the_loo_loss(
    seed: int, images: int, classes: int, temperature: float
) -> None:
    random = np.random.default_rng(seed)
    labels, queries = random.integers(0, classes, images), random.normal(size=(images, 5))
    memory = queries / np.linalg.norm(queries, axis=-1, keepdims=True)
    loo = PrototypicalLoss(classes, "loo", "cosine", temperature)
    expected = reference.prototypical_loss(labels, queries, classes, "loo", "cosine", temperature)
    episode = loo.episode(labels, queries)
    answerable = episode.answerable.numpy()
    found = memory_episode(queries, np.arange(images), memory, labels, classes, temperature)
    np.testing.assert_array_equal(found.answerable, answerable)
    np.testing.assert_allclose(found.logits.numpy()[answerable], episode.logits.numpy()[answerable], rtol=1e-8)
    assert float(cross_entropy(found)) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    single = memory_loss(queries.astype("float32"), np.arange(images), memory, labels, classes, temperature)
    assert float(single) == pytest.approx(float(loo(labels, queries.astype("float32"))), rel=1e-4, abs=1e-4)


@given(st.integers(0, 10_000))
def test_neither_the_order_of_the_memory_nor_an_unvisited_image_matters(seed: int) -> None:
    arguments = case(20, 7, 4, 3, seed)
    random = np.random.default_rng(seed)
    order = random.permutation(20)
    moved = arguments | {key: arguments[key][order] for key in ("memory", "memory_labels")}
    moved["rows"] = np.argsort(order)[arguments["rows"]]
    moved["memory"] = np.concatenate([moved["memory"], np.zeros((2, 4))])
    moved["memory_labels"] = np.concatenate([moved["memory_labels"], [0, 1]])
    assert float(memory_loss(**moved)) == pytest.approx(float(memory_loss(**arguments)), rel=1e-9)


def test_a_query_that_only_its_own_row_is_like_is_no_longer_answered_by_it() -> None:
    memory = np.eye(3)[[0, 1, 1, 2]]
    labels = np.array([0, 0, 1, 1])
    logits = memory_episode(memory, np.arange(4), memory, labels, 2, 1.0).logits.numpy()
    np.testing.assert_allclose(logits[[0, 3]], 0, atol=1e-12)
    np.testing.assert_allclose(logits[1], [0, math.sqrt(0.5)], atol=1e-12)


# ugly memories


def finite_and(arguments: dict, expected: float) -> None:
    for dtype in ("float64", "float32"):
        given_ = arguments | {"queries": np.asarray(arguments["queries"], dtype)}
        assert float(memory_loss(**given_)) == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert np.isfinite(gradient(given_)).all()
        if expected == 0:
            np.testing.assert_array_equal(gradient(given_), 0)


def test_a_class_with_one_image_cannot_be_asked_for() -> None:
    memory = units(np.random.default_rng(0), 4, 3)
    arguments = case(4, 4, 3, 4, rows=np.arange(4), memory=memory, memory_labels=np.arange(4))
    finite_and(arguments | {"lam": None}, 0.0)
    finite_and(arguments | {"lam": np.full(4, 0.6)}, 0.0)
    assert not memory_episode(**arguments).answerable.numpy().any()


def test_an_empty_memory_teaches_nothing() -> None:
    finite_and(case(9, 5, 3, 2, memory=np.zeros((9, 3))), 0.0)


def test_a_memory_of_one_class_asks_no_question() -> None:
    finite_and(case(9, 5, 3, 2, memory=units(np.random.default_rng(0), 9, 3), memory_labels=np.zeros(9, int)), 0.0)


def test_zero_embeddings_have_no_direction_and_no_gradient() -> None:
    memory = units(np.random.default_rng(0), 12, 3)
    arguments = case(12, 6, 3, 2, memory=memory, memory_labels=np.arange(12) % 2, queries=np.zeros((6, 3)))
    finite_and(arguments, math.log(2))
    np.testing.assert_array_equal(gradient(arguments), 0)


def test_rows_that_cancel_are_a_class_all_the_same() -> None:
    memory = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    arguments = case(5, 1, 2, 2, rows=[2], memory=memory, memory_labels=np.array([0, 0, 1, 1, 1]))
    plain = arguments | OPTIONS["plain"] | {"queries": np.array([[0.0, 1.0]])}
    finite_and(plain, math.log(1 + math.exp(-1 / 0.2)))


def test_of_two_mixed_images_of_a_class_of_two_nothing_is_left() -> None:
    """Float rounding must not leave a direction."""
    for seed in range(20):
        memory = units(np.random.default_rng(seed), 5, 64).astype("float32")
        labels = np.array([0, 0, 1, 1, 1])
        given_ = {"memory": memory, "memory_labels": labels, "num_classes": 2, "temperature": 0.1}
        episode = memory_episode(memory[:2], np.array([0, 1]), lam=np.array([0.7, 0.6]), **given_)
        assert not episode.answerable.numpy().any()
        assert (episode.logits.numpy()[:, 0] < -1e29).all()
        assert float(cross_entropy(episode)) == 0


def test_an_image_that_is_twice_in_the_batch_is_left_out_once() -> None:
    arguments = case(20, 4, 4, 3, memory=units(np.random.default_rng(0), 20, 4), rows=np.array([5, 5, 3, 5]))
    arguments["lam"] = np.array([0.5, 0.4, 0.8, 0.9])
    assert float(memory_loss(**arguments)) == pytest.approx(reference.memory_loss(*arguments.values()), rel=1e-9)


def test_two_images_with_equal_rows_are_two_images() -> None:
    memory = units(np.random.default_rng(0), 20, 4)
    memory[3] = memory[5]
    labels = np.arange(20) % 2
    arguments = case(20, 4, 4, 2, memory=memory, memory_labels=labels, rows=np.array([5, 3, 2, 7]))
    assert float(memory_loss(**arguments)) == pytest.approx(reference.memory_loss(*arguments.values()), rel=1e-9)


def test_a_partner_whose_class_is_empty_leaves_the_own_class_as_the_target() -> None:
    memory = units(np.random.default_rng(0), 5, 3)
    labels = np.array([0, 0, 0, 1, 2])
    options = {"memory": memory, "memory_labels": labels, "num_classes": 3, "temperature": 0.3}
    episode = memory_episode(memory[[4, 0]], np.array([4, 0]), lam=np.array([1.0, 0.6]), **options)
    np.testing.assert_allclose(episode.targets.numpy()[1], [1, 0, 0])
    smoothed = memory_episode(
        memory[[4, 0]], np.array([4, 0]), label_smoothing=0.2, lam=np.array([1.0, 0.6]), **options
    )
    np.testing.assert_allclose(smoothed.targets.numpy()[1], [0.9, 0.1, 0])
    assert 0 < float(cross_entropy(smoothed)) < 10


def test_labels_that_are_no_class_are_neither_asked_for_nor_support() -> None:
    arguments = case(20, 20, 4, 3, memory=units(np.random.default_rng(0), 20, 4), rows=np.arange(20))
    plain = arguments | OPTIONS["plain"]
    for wrong in (-1, 3):
        labels = np.where(np.arange(20) < 4, wrong, arguments["memory_labels"])
        without = plain | {key: plain[key][4:] for key in ("queries", "memory")}
        without |= {"memory_labels": labels[4:], "rows": np.arange(16)}
        found = memory_loss(**plain | {"memory_labels": labels})
        assert float(found) == pytest.approx(float(memory_loss(**without)), rel=1e-9)


# temperature and smoothing


@pytest.mark.parametrize(("smoothing", "expected"), [(0.05, 0.21), (0.1, 0.25), (0.2, 0.30)])
def test_the_matched_temperature_of_ten_classes(smoothing: float, expected: float) -> None:
    assert round(matched_temperature(10, smoothing), 2) == expected


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_at_the_matched_temperature_the_simplex_meets_the_smoothed_target(classes: int) -> None:
    """Then the loss is the entropy of the target, and its gradient is 0."""
    corners = np.eye(classes) - 1 / classes
    memory = np.repeat(corners / np.linalg.norm(corners, axis=1, keepdims=True), 3, axis=0)
    labels = np.repeat(np.arange(classes), 3)
    temperature = matched_temperature(classes, 0.1)
    arguments = (memory, np.arange(3 * classes), memory, labels, classes, temperature, 0.1)
    episode = memory_episode(*arguments)
    np.testing.assert_allclose(tf.nn.softmax(episode.logits), episode.targets, atol=1e-12)
    entropy = -np.sum(episode.targets.numpy()[0] * np.log(episode.targets.numpy()[0]))
    assert float(memory_loss(*arguments)) == pytest.approx(entropy, rel=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        memory_loss(**case(12, 4, 3, 2) | change)


@pytest.mark.parametrize(("classes", "smoothing"), [(1, 0.1), (10, 0.0), (10, 1.0)])
def test_there_is_no_matched_temperature_without_smoothing(classes: int, smoothing: float) -> None:
    with pytest.raises(InputError, match="expected a"):
        matched_temperature(classes, smoothing)
