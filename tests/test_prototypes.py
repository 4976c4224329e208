"""Prototypes, distances and logits: against slow loops, at the points where square roots and cancellation bite."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prl_keras.errors import InputError
from prl_keras.prototypes import (
    DISTANCES,
    class_prototypes,
    l2_normalise,
    one_hot_labels,
    pairwise_distances,
    pairwise_squared_distances,
    prototype_logits,
    safe_sqrt,
)

HALF_AND_SINGLE = ["float16", "bfloat16", "float32"]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def gradient(function, *inputs: tf.Tensor) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = tf.reduce_sum(function(*inputs))
    return [g.numpy() for g in tape.gradient(value, inputs)]


# class prototypes


@pytest.mark.parametrize(("batch", "dim", "classes"), [(1, 1, 1), (5, 3, 2), (12, 8, 5), (40, 16, 10), (6, 2, 20)])
def test_prototypes_and_counts_are_those_of_the_slow_loop(batch: int, dim: int, classes: int) -> None:
    labels = np.random.default_rng(batch).integers(0, classes, batch)
    features = normal(batch, dim, seed=batch)
    prototypes, counts = class_prototypes(labels, features, classes)
    expected, expected_counts = reference.class_prototypes(labels, features, classes)
    assert prototypes.shape == (classes, dim)
    assert counts.numpy().tolist() == [expected_counts[k] for k in range(classes)]
    for k in range(classes):
        np.testing.assert_allclose(prototypes[k], expected.get(k, np.zeros(dim)), rtol=0, atol=1e-14)


def test_a_class_without_samples_has_a_zero_prototype_and_count_zero() -> None:
    prototypes, counts = class_prototypes(np.array([0, 2, 2]), np.array([[5.0], [1.0], [3.0]]), 4)
    assert prototypes.numpy().tolist() == [[5.0], [0.0], [2.0], [0.0]]
    assert counts.numpy().tolist() == [1, 0, 2, 0]


def test_labels_out_of_range_take_no_part_in_any_prototype() -> None:
    prototypes, counts = class_prototypes(np.array([-1, 0, 2, 1, 99]), np.array([[7.0], [1.0], [8.0], [3.0], [9.0]]), 2)
    assert prototypes.numpy().tolist() == [[1.0], [3.0]]
    assert counts.numpy().tolist() == [1, 1]


@pytest.mark.parametrize(
    "labels",
    [
        np.array([1, 0, 1], "int32"),
        np.array([1, 0, 1], "int64"),
        np.array([1, 0, 1], "uint8"),
        np.array([1, 0, 1], "float32"),
        np.array([[1], [0], [1]]),
    ],
    ids=["int32", "int64", "uint8", "float32", "column"],
)
def test_labels_may_be_of_any_number_type_and_may_form_a_column(labels: np.ndarray) -> None:
    prototypes, counts = class_prototypes(labels, np.array([[2.0], [5.0], [4.0]]), 2)
    assert prototypes.numpy().tolist() == [[5.0], [3.0]]
    assert counts.numpy().tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [*HALF_AND_SINGLE, "float64"])
def test_prototypes_are_at_least_float32(dtype: str) -> None:
    prototypes, counts = class_prototypes(np.array([0, 1, 1]), tf.cast(normal(3, 2), dtype), 2)
    expected = "float64" if dtype == "float64" else "float32"
    assert (prototypes.dtype.name, counts.dtype.name) == (expected, expected)


def test_the_mean_of_many_bfloat16_features_is_not_rounded_to_bfloat16() -> None:
    features = tf.cast(1.0 + normal(1000, 1) / 4, "bfloat16")
    prototypes, counts = class_prototypes(np.zeros(1000), features, 1)
    assert counts.numpy().tolist() == [1000]  # bfloat16 cannot count beyond 256
    assert prototypes.numpy().item() == pytest.approx(tf.cast(features, "float64").numpy().mean(), abs=1e-6)


def test_the_gradient_of_a_prototype_is_shared_equally_by_its_members() -> None:
    labels = np.array([0, 1, 1, 1, 9])
    (found,) = gradient(lambda x: class_prototypes(labels, x, 3)[0], tf.constant(normal(5, 2)))
    np.testing.assert_allclose(found, np.array([1, 1 / 3, 1 / 3, 1 / 3, 0])[:, None] * np.ones((5, 2)), atol=1e-15)


def test_large_prototypes_are_those_of_small_ones_without_a_matrix_of_members(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(0).integers(-2, 1002, 20_000)
    features = tf.constant(normal(20_000, 3))
    few = [class_prototypes(labels[start : start + 5000], features[start : start + 5000], 1000) for start in (0, 5000)]
    counts = few[0][1] + few[1][1]
    expected = sum(part * count[:, None] for part, count in few) / tf.maximum(counts, 1)[:, None]

    def never(*_: object) -> None:
        raise AssertionError("80 MB of zeros")

    monkeypatch.setattr("prl_keras.prototypes.one_hot_labels", never)
    half = labels.copy()
    half[10_000:] = -1
    prototypes, found = class_prototypes(half, features, 1000)
    assert found.numpy().tolist() == counts.numpy().tolist()
    np.testing.assert_allclose(prototypes, expected, atol=1e-12)
    (slope,) = gradient(lambda x: class_prototypes(half, x, 1000)[0], features)
    members = np.where((half >= 0) & (half < 1000), 1 / np.maximum(counts.numpy()[half.clip(0, 999)], 1), 0)
    np.testing.assert_allclose(slope, members[:, None] * np.ones((20_000, 3)), atol=1e-12)


def test_one_hot_labels_are_known_rows() -> None:
    rows = one_hot_labels(np.array([[1], [0], [-1], [3]]), 3)
    assert rows.numpy().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]


# distances


@pytest.mark.parametrize(("n", "m", "dim"), [(1, 1, 1), (4, 7, 3), (20, 5, 64)])
def test_distances_are_those_of_the_slow_loop(n: int, m: int, dim: int) -> None:
    first, second = normal(n, dim), normal(m, dim, seed=1)
    squares = np.array([[reference.squared_distance(a, b) for b in second] for a in first])
    cosines = np.array([[reference.dot(reference.unit(a), reference.unit(b)) for b in second] for a in first])
    np.testing.assert_allclose(pairwise_distances(first, second), np.sqrt(squares), atol=1e-12)
    np.testing.assert_allclose(pairwise_distances(first, second, "squared"), squares, atol=1e-12)
    np.testing.assert_allclose(pairwise_squared_distances(first, second), squares, atol=1e-12)
    np.testing.assert_allclose(pairwise_distances(first, second, "cosine"), 1 - cosines, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 10.0, 1e3, 1e5])
def test_distances_between_close_points_far_from_the_origin_keep_their_digits(offset: float) -> None:
    first = (offset + normal(16, 64)).astype("float32")
    second = (offset + normal(16, 64, seed=1)).astype("float32")
    exact = np.sqrt(((first[:, None].astype("float64") - second[None].astype("float64")) ** 2).sum(-1))
    np.testing.assert_allclose(pairwise_distances(first, second), exact, rtol=1e-5)


@pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3])
def test_the_distance_of_near_twins_is_right_to_a_thousandth_of_the_spread(gap: float) -> None:
    first = normal(16, 64).astype("float32")
    second = (first + gap * normal(16, 64, seed=1) / 8).astype("float32")
    exact = np.sqrt(((first[:, None].astype("float64") - second[None].astype("float64")) ** 2).sum(-1))
    spread = exact.mean()
    np.testing.assert_allclose(pairwise_distances(first, second), exact, rtol=0, atol=1e-3 * spread)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e4])
def test_squared_distances_are_never_negative(offset: float) -> None:
    points = (offset + 1e-3 * normal(64, 32)).astype("float32")
    squares = pairwise_squared_distances(points, points).numpy()
    assert squares.min() == 0.0  # cancellation went below zero somewhere, and was clamped
    assert np.isfinite(pairwise_distances(points, points)).all()


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
def test_distances_of_low_precision_inputs_are_computed_in_float32(dtype: str) -> None:
    first, second = tf.cast(normal(6, 32), dtype), tf.cast(normal(5, 32, seed=1), dtype)
    found = pairwise_distances(first, second)
    exact = pairwise_distances(tf.cast(first, "float64"), tf.cast(second, "float64"))
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, exact, rtol=1e-5)


def test_the_gradient_of_distances_ignores_the_common_centre() -> None:
    first, second = normal(3, 2), normal(4, 2, seed=1)
    differences = first[:, None] - second[None]
    directions = differences / np.linalg.norm(differences, axis=-1, keepdims=True)
    of_first, of_second = gradient(pairwise_distances, tf.constant(first), tf.constant(second))
    np.testing.assert_allclose(of_first, directions.sum(1), atol=1e-12)
    np.testing.assert_allclose(of_second, -directions.sum(0), atol=1e-12)


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_gradient_of_a_point_and_itself_is_finite(distance: str, dtype: str) -> None:
    points = tf.cast([[1.0, 2.0], [0.0, 0.0]], dtype)
    for found in gradient(lambda a, b: pairwise_distances(a, b, distance), points, points):
        assert np.isfinite(found.astype("float32")).all()


# square root and normalisation


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_safe_square_root_is_zero_at_zero_with_gradient_zero(dtype: str) -> None:
    squares = tf.constant([0.0, 4.0], dtype)
    assert safe_sqrt(squares).numpy().tolist() == [0.0, 2.0]
    assert gradient(safe_sqrt, squares)[0].tolist() == [0.0, 0.25]


def test_the_safe_square_root_is_the_square_root_above_a_millionth() -> None:
    squares = 10.0 ** np.arange(-11, 12)
    np.testing.assert_allclose(safe_sqrt(squares), np.sqrt(squares), rtol=1e-15)
    (slopes,) = gradient(safe_sqrt, tf.constant(squares))
    np.testing.assert_allclose(slopes, 0.5 / np.sqrt(squares), rtol=1e-14)


def test_normalised_rows_have_length_one_and_keep_their_direction() -> None:
    found = l2_normalise(tf.constant([[3.0, 4.0], [0.0, -1e4], [1e-4, 0.0]], "float64"))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.0, -1.0], [1.0, 0.0]], atol=1e-12)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "xla"])
def test_a_zero_row_stays_zero_and_gets_no_gradient_when_normalised(compiled: bool) -> None:
    """Its direction is undefined. A finite gradient of 1e6 would be no better than NaN: Adam never recovers from it."""

    @tf.function(jit_compile=compiled)
    def value_and_gradient(vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            value = l2_normalise(vectors)
            total = tf.reduce_sum(value)
        return value, tape.gradient(total, vectors)

    value, slope = value_and_gradient(tf.constant([[0.0, 0.0], [3.0, 4.0]]))
    assert value[0].numpy().tolist() == [0.0, 0.0]
    assert slope[0].numpy().tolist() == [0.0, 0.0]
    np.testing.assert_allclose(slope[1], [0.2 - 0.6 * 0.28, 0.2 - 0.8 * 0.28], atol=1e-6)


# logits


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("temperature", [0.07, 1.0, 4.0])
def test_logits_are_those_of_the_slow_loop(distance: str, temperature: float) -> None:
    features, prototypes = normal(9, 5), normal(4, 5, seed=1)
    expected = [[reference.logit(f, p, distance) / temperature for p in prototypes] for f in features]
    np.testing.assert_allclose(prototype_logits(features, prototypes, distance, temperature), expected, atol=1e-11)


def test_logits_are_euclidean_distances_unless_asked_otherwise() -> None:
    logits = prototype_logits(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 2.0]]))
    np.testing.assert_allclose(logits, [[-5.0, -2.0]], atol=1e-12)


def test_an_unknown_distance_is_an_input_error_that_lists_the_known_ones() -> None:
    for function in (pairwise_distances, prototype_logits):
        with pytest.raises(InputError, match=r"distance is 'manhattan'; expected one of euclidean, squared, cosine"):
            function(normal(2, 2), normal(2, 2), "manhattan")


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_is_an_input_error(temperature: float) -> None:
    with pytest.raises(InputError, match=rf"temperature is {temperature}; expected a number above 0"):
        prototype_logits(normal(2, 2), normal(2, 2), "euclidean", temperature)


# properties


coordinates = st.floats(-100, 100, width=32).map(lambda value: 0.0 if abs(value) < 1e-3 else value)


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Labels (a few out of range), float32 features, and the number of classes."""
    batch, dim, classes = draw(st.integers(1, 12)), draw(st.integers(1, 6)), draw(st.integers(1, 5))
    labels = draw(arrays("int32", batch, elements=st.integers(-1, classes)))
    return labels, draw(arrays("float32", (batch, dim), elements=coordinates)), classes


@given(batches())
def test_a_prototype_lies_inside_the_range_of_its_class(batch: tuple[np.ndarray, np.ndarray, int]) -> None:
    labels, features, classes = batch
    prototypes, counts = class_prototypes(labels, features, classes)
    for k in range(classes):
        members = features[labels == k]
        assert counts[k] == len(members)
        if len(members):
            assert (prototypes[k].numpy() >= members.min(0) - 1e-4).all()
            assert (prototypes[k].numpy() <= members.max(0) + 1e-4).all()


@given(batches())
def test_the_prototypes_of_a_batch_repeated_are_the_same_with_twice_the_counts(
    batch: tuple[np.ndarray, np.ndarray, int],
) -> None:
    labels, features, classes = batch
    once, counts = class_prototypes(labels, features.astype("float64"), classes)
    twice, double = class_prototypes(np.tile(labels, 2), np.tile(features, (2, 1)).astype("float64"), classes)
    np.testing.assert_allclose(twice, once, atol=1e-10)
    np.testing.assert_array_equal(double, 2 * counts.numpy())


@given(batches(), st.sampled_from(DISTANCES), st.randoms(use_true_random=False))
def test_permuting_samples_permutes_logits_and_leaves_prototypes(
    batch: tuple[np.ndarray, np.ndarray, int], distance: str, random
) -> None:
    labels, features, classes = batch
    features = features.astype("float64")
    order = list(range(len(labels)))
    random.shuffle(order)
    prototypes, _ = class_prototypes(labels, features, classes)
    shuffled, _ = class_prototypes(labels[order], features[order], classes)
    np.testing.assert_allclose(shuffled, prototypes, atol=1e-10)
    logits = prototype_logits(features, prototypes, distance)
    # euclidean: a zero distance is known to about sqrt(1e-16 * 100^2 * 6)
    np.testing.assert_allclose(
        prototype_logits(features[order], prototypes, distance), logits.numpy()[order], atol=1e-5
    )


@given(
    arrays("float32", st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(-50, 50), unique=True),
    st.sampled_from(["euclidean", "squared"]),
)
def test_the_nearest_prototype_of_a_prototype_is_itself(prototypes: np.ndarray, distance: str) -> None:
    logits = prototype_logits(prototypes, prototypes, distance).numpy()
    assert logits.argmax(1).tolist() == list(range(len(prototypes)))


@given(batches(), st.floats(0.01, 100))
def test_the_temperature_divides_the_logits(batch: tuple[np.ndarray, np.ndarray, int], temperature: float) -> None:
    labels, features, classes = batch
    features = features.astype("float64")
    prototypes, _ = class_prototypes(labels, features, classes)
    for distance in DISTANCES:
        divided = prototype_logits(features, prototypes, distance, temperature).numpy()
        np.testing.assert_allclose(divided * temperature, prototype_logits(features, prototypes, distance), rtol=1e-9)


@given(batches())
def test_distances_obey_the_triangle_inequality(batch: tuple[np.ndarray, np.ndarray, int]) -> None:
    _, features, _ = batch
    distances = pairwise_distances(features.astype("float64"), features.astype("float64")).numpy()
    np.testing.assert_allclose(distances, distances.T, atol=1e-5)
    through = (distances[:, :, None] + distances[None, :, :]).min(1)
    assert (distances <= through + 1e-5).all()
