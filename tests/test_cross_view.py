"""Prototypes of one view that classify the other: against the slow loop, by gradients, and at the edges."""

from itertools import product

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from prl_keras.errors import InputError
from prl_keras.losses import CrossViewLoss, PrototypicalLoss, cross_view_loss, prototypical_loss

DISTANCES = ("euclidean", "squared", "cosine")


def two_views(n: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(classes, size=n), rng.normal(size=(n, dim)), rng.normal(size=(n, dim))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_that_of_the_slow_loop(smoothing: float) -> None:
    """Also with classes of one image, which is not asked, and with classes that are not there."""
    for distance, (n, dim, classes) in product(DISTANCES, ((9, 4, 3), (6, 2, 5), (24, 8, 5))):
        labels, first, second = two_views(n, dim, classes)
        options = (classes + 1, distance, 0.7, smoothing)
        expected = reference.cross_view_loss(labels, first, second, *options)
        assert float(cross_view_loss(labels, first, second, *options)) == pytest.approx(expected, rel=1e-10)
        views = np.concatenate([first, second])
        single = CrossViewLoss(*options)(np.concatenate([labels, labels]), views)
        assert float(single) == pytest.approx(expected, rel=1e-5)


def test_of_two_equal_views_it_is_leave_one_out() -> None:
    labels, view, _ = two_views(12, 4, 3)
    for distance in DISTANCES:
        expected = prototypical_loss(labels, view, 3, "loo", distance, 0.5)
        assert float(cross_view_loss(labels, view, view, 3, distance, 0.5)) == pytest.approx(float(expected), rel=1e-10)


def test_swapping_the_views_changes_nothing_and_an_own_image_does_not_vote() -> None:
    labels, first, second = two_views(10, 4, 3)
    there = float(cross_view_loss(labels, first, second, 3))
    assert float(cross_view_loss(labels, second, first, 3)) == pytest.approx(there, rel=1e-12)
    # of two images a class, each is classified by the other one alone
    pairs, z = np.array([0, 0, 1, 1]), np.eye(4)
    swapped = z[[1, 0, 3, 2]]
    assert float(cross_view_loss(pairs, z, swapped, 2)) < 1e-3 < float(cross_view_loss(pairs, z, z, 2))


def test_its_gradient_is_that_of_finite_differences() -> None:
    labels, first, second = two_views(6, 3, 2)
    views = tf.Variable(np.concatenate([first, second]))

    def loss(values: tf.Tensor) -> tf.Tensor:
        return cross_view_loss(labels, values[:6], values[6:], 2, "cosine", 0.5, 0.1)

    with tf.GradientTape() as tape:
        value = loss(views)
    gradient = tape.gradient(value, views).numpy()
    step = 1e-6
    for place in ((0, 0), (4, 2), (7, 1), (11, 0)):
        moved = np.zeros((12, 3))
        moved[place] = step
        difference = (loss(views.numpy() + moved) - loss(views.numpy() - moved)) / (2 * step)
        assert gradient[place] == pytest.approx(float(difference), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [-1, 7, -1, 7]], ids=["one class", "singles", "none"])
def test_what_cannot_be_asked_has_no_loss_and_no_gradient(labels: list[int], dtype: str) -> None:
    views = tf.Variable(tf.zeros((8, 3), dtype))
    with tf.GradientTape() as tape:
        loss = CrossViewLoss(4)(np.array(labels + labels), views)
    gradient = tf.convert_to_tensor(tape.gradient(loss, views))
    assert float(loss) == 0.0
    assert np.all(tf.cast(gradient, "float32").numpy() == 0)


def test_equal_embeddings_have_the_loss_that_the_outlook_says() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    loss = CrossViewLoss(3)
    outlook = loss.outlook(labels, 8)
    assert float(loss(np.concatenate([labels, labels]), np.ones((12, 4)))) == pytest.approx(outlook.loss, rel=1e-6)
    assert outlook.answerable == 6
    assert outlook.accuracy == pytest.approx(1 / 11)
    assert outlook.least_loss == pytest.approx(PrototypicalLoss(3, "loo", "cosine", 0.1).outlook(labels, 8).least_loss)


def test_it_is_saved_and_refuses_what_it_cannot_use() -> None:
    loss = CrossViewLoss(4, "squared", 2.0, 0.1)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    for arguments, text in (((0,), "num_classes is 0"), ((3, "taxi"), "taxi"), ((3, "cosine", -1.0), "temperature")):
        with pytest.raises(InputError, match=text):
            CrossViewLoss(*arguments)
    with pytest.raises(InputError, match="label_smoothing is 1"):
        CrossViewLoss(3, label_smoothing=1)
    with pytest.raises(InputError, match="weights"):
        loss(np.zeros(4), np.zeros((4, 2)), sample_weight=np.ones(4))
