"""Pseudo-labels by prototypes: against slow loops in float64, finite differences, and answers made to break them."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from prl_keras.errors import InputError
from prl_keras.memory import memory_prototypes
from prl_keras.pseudo import (
    aligned,
    check_weight,
    confidence_weights,
    fixmatch,
    moved,
    posterior,
    pseudo_episode,
    weighted_cross_entropy,
)


def case(seed: int = 0, images: int = 24, batch: int = 9, dim: int = 5, classes: int = 4) -> dict:
    """A memory of which a third is not visited, and embeddings of images that are not in it."""
    random = np.random.default_rng(seed)
    memory = random.normal(size=(images, dim))
    memory /= np.linalg.norm(memory, axis=1, keepdims=True)
    memory *= random.random((images, 1)) > 1 / 3
    return {
        "embeddings": random.normal(size=(batch, dim)),
        "memory": memory,
        "labels": random.integers(0, classes, images),
        "classes": classes,
        "pseudo": random.integers(0, classes, batch),
        "weights": random.random(batch),
    }


def slow_logits(
    embedding: np.ndarray, memory: np.ndarray, labels: np.ndarray, classes: int, temperature: float
) -> dict:
    """Class -> logit, of those with a visited row."""
    logits = {}
    for k in range(classes):
        rows = [row for row, label in zip(memory, labels, strict=True) if label == k and np.any(row != 0)]
        if rows:
            total = np.sum(rows, axis=0)
            cosine = embedding @ total / np.linalg.norm(embedding) / np.linalg.norm(total)
            logits[k] = cosine / temperature
    return logits


def slow_posterior(logits: dict, classes: int) -> np.ndarray:
    total = sum(math.exp(value) for value in logits.values())
    return np.array([math.exp(logits[k]) / total if k in logits else 0.0 for k in range(classes)])


def slow_loss(arguments: dict, temperature: float, smoothing: float) -> float:
    total = 0.0
    for embedding, label, weight in zip(*(arguments[k] for k in ("embeddings", "pseudo", "weights")), strict=True):
        logits = slow_logits(embedding, arguments["memory"], arguments["labels"], arguments["classes"], temperature)
        if label not in logits or len(logits) < 2:
            continue
        answer = slow_posterior(logits, arguments["classes"])
        for k in logits:
            target = (1 - smoothing) * (k == label) + smoothing / len(logits)
            total -= weight * target * math.log(answer[k])
    return total / len(arguments["embeddings"])


def loss(arguments: dict, temperature: float = 0.3, smoothing: float = 0.1, embeddings: tf.Tensor | None = None):
    prototypes = memory_prototypes(arguments["memory"], arguments["labels"], arguments["classes"])
    queries = arguments["embeddings"] if embeddings is None else embeddings
    episode = pseudo_episode(queries, prototypes, arguments["pseudo"], temperature, smoothing)
    return weighted_cross_entropy(episode, arguments["weights"])


@pytest.mark.parametrize("classes", [2, 4, 30])
def test_posterior_and_loss_are_those_of_the_slow_loops(classes: int) -> None:
    for seed in range(3):
        arguments = case(seed, classes=classes)
        memory, labels = arguments["memory"], arguments["labels"]
        found = posterior(arguments["embeddings"], memory_prototypes(memory, labels, classes), 0.3)
        for row, embedding in zip(found.numpy(), arguments["embeddings"], strict=True):
            expected = slow_posterior(slow_logits(embedding, memory, labels, classes, 0.3), classes)
            np.testing.assert_allclose(row, expected, rtol=1e-10, atol=1e-300)
        for smoothing in (0.0, 0.1):
            assert float(loss(arguments, 0.3, smoothing)) == pytest.approx(slow_loss(arguments, 0.3, smoothing), 1e-10)


def test_the_same_in_a_compiled_function_of_bfloat16_embeddings() -> None:
    arguments = case()
    rounded = tf.cast(arguments["embeddings"], tf.bfloat16)
    found = tf.function(lambda x: loss(arguments, embeddings=x), autograph=False)(rounded)
    assert found.dtype == "float32"
    expected = slow_loss(arguments | {"embeddings": rounded.numpy().astype("float64")}, 0.3, 0.1)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_that_of_finite_differences() -> None:
    arguments = case(1)
    queries = tf.constant(arguments["embeddings"])
    with tf.GradientTape() as tape:
        tape.watch(queries)
        value = loss(arguments, embeddings=queries)
    found = tape.gradient(value, queries).numpy()
    for i, j in np.ndindex(found.shape):
        step = np.zeros(found.shape)
        step[i, j] = 1e-6
        both = [slow_loss(arguments | {"embeddings": arguments["embeddings"] + s}, 0.3, 0.1) for s in (step, -step)]
        assert found[i, j] == pytest.approx((both[0] - both[1]) / 2e-6, abs=1e-8)


def test_prototypes_and_weights_are_constants_to_the_gradient() -> None:
    arguments = case()
    memory, weights = tf.constant(arguments["memory"]), tf.constant(arguments["weights"])
    with tf.GradientTape() as tape:
        tape.watch((memory, weights))
        prototypes = memory_prototypes(memory, arguments["labels"], 4)
        episode = pseudo_episode(arguments["embeddings"], prototypes, arguments["pseudo"], 0.3)
        value = weighted_cross_entropy(episode, weights)
    assert tape.gradient(value, (memory, weights)) == (None, None)


def test_a_memory_that_nobody_visited_teaches_nothing() -> None:
    arguments = case()
    queries = tf.constant(arguments["embeddings"])
    with tf.GradientTape() as tape:
        tape.watch(queries)
        value = loss(arguments | {"memory": np.zeros_like(arguments["memory"])}, embeddings=queries)
    assert float(value) == 0
    assert not np.any(tape.gradient(value, queries))


# alignment


def test_alignment_is_the_slow_loops() -> None:
    random = np.random.default_rng(0)
    probabilities, running, prior = random.dirichlet(np.ones(4), 7), random.dirichlet(np.ones(4)), np.full(4, 0.25)
    expected = probabilities.copy()
    for i, k in np.ndindex(expected.shape):
        expected[i, k] *= (prior[k] + 1e-6) / (running[k] + 1e-6)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(aligned(probabilities, running, prior), expected, rtol=1e-12)


def test_alignment_takes_from_the_class_that_is_answered_too_often() -> None:
    probabilities = np.array([[0.5, 0.4, 0.1]])
    found = np.array(aligned(probabilities, np.array([0.8, 0.1, 0.1]), np.full(3, 1 / 3)))
    assert found.argmax() == 1
    np.testing.assert_allclose(aligned(probabilities, np.full(3, 1 / 3), np.full(3, 1 / 3)), probabilities, rtol=1e-9)


def test_a_class_that_has_no_answer_yet_stays_finite() -> None:
    found = np.array(aligned(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([1.0, 0.0]), np.array([0.5, 0.5])))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


# weights


def test_weights_are_softmatchs() -> None:
    confidence = np.array([0.2, 0.5, 0.6, 0.61, 0.99])
    found = np.array(confidence_weights(confidence, tf.constant(0.6, tf.float64), tf.constant(0.04, tf.float64)))
    expected = [math.exp(-((0.6 - c) ** 2) / (2 * 0.04 / 4)) if c < 0.6 else 1.0 for c in confidence]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=20), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_the_surer_the_heavier_and_never_outside_0_to_1(confidence: list[float], mean: float, variance: float) -> None:
    weights = np.array(confidence_weights(np.sort(confidence), mean, variance))
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert (weights <= 1).all()
    assert (np.diff(weights) >= 0).all()
    assert (weights[np.sort(confidence) >= mean] == 1).all()


def test_an_average_forgets_what_it_began_with() -> None:
    average, expected = np.float64(5.0), 5.0
    for step, value in enumerate(np.random.default_rng(0).random(50)):
        average = moved(tf.constant(average, tf.float64), value, 0.9, step)
        share = min(0.9, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * value
        assert float(average) == pytest.approx(expected, rel=1e-12)
    assert 0 < float(average) < 1


# the rival


def test_fixmatch_is_the_slow_loop() -> None:
    random = np.random.default_rng(0)
    asked, told = random.normal(size=(12, 3)), random.normal(size=(12, 3)) * 4
    value, used = fixmatch(asked, told)
    total, count = 0.0, 0
    for hard, weak in zip(asked, told, strict=True):
        answer = np.exp(weak) / np.exp(weak).sum()
        if answer.max() >= 0.95:
            total += math.log(np.exp(hard).sum()) - hard[answer.argmax()]
            count += 1
    assert 0 < count < 12
    assert float(value) == pytest.approx(total / 12, rel=1e-12)
    assert used.numpy().sum() == count


def test_fixmatch_learns_from_the_hard_view_only() -> None:
    asked, told = tf.constant([[0.0, 1.0], [2.0, 0.0]]), tf.constant([[9.0, 0.0], [0.1, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch((asked, told))
        value, _ = fixmatch(asked, told)
    for_asked, for_told = tape.gradient(value, (asked, told))
    assert for_told is None
    np.testing.assert_allclose(
        for_asked, [[(1 / (1 + math.e) - 1) / 2, (math.e / (1 + math.e)) / 2], [0, 0]], rtol=1e-6
    )


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, "much"])
def test_a_weight_that_is_none_is_refused(weight: object) -> None:
    with pytest.raises(InputError, match="unlabelled_weight is"):
        check_weight(weight)
