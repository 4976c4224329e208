"""Class-balanced batches, and batches that tell which images they have."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from prl_keras.data.batches import Batches
from prl_keras.errors import InputError
from prl_keras.runs import create_run
from prl_keras.training.average import recalibrate_batch_norm
from prl_keras.training.fit import fit


def balanced(labels: np.ndarray, classes: int, each: int, seed: int = 0, epoch: int = 0) -> Batches:
    batches = Batches(np.arange(len(labels)), labels, classes * each, seed, classes_per_batch=classes)
    batches.epoch = epoch
    return batches


def rows_of(batches: Batches) -> list[list[int]]:
    return [batches[step][0].tolist() for step in range(len(batches))]


SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=7)  # images of each class


@given(SIZES, st.data(), st.integers(1, 5), st.integers(0, 2**31))
def test_each_batch_has_its_classes_equally_often(sizes: list, data: st.DataObject, each: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(rng.permutation(50)[: len(sizes)] - 3, sizes))
    classes = data.draw(st.integers(1, len(sizes)))
    batches = balanced(labels, classes, each, seed, data.draw(st.integers(0, 5)))
    assert len(batches) == len(labels) // (classes * each)
    assert batches.images == len(batches) * classes * each
    times: dict[int, list[int]] = {label: [0] * len(labels) for label in np.unique(labels)}
    turns = dict.fromkeys(times, 0)
    for step in range(len(batches)):
        inputs, given_labels = batches[step]
        np.testing.assert_array_equal(labels[inputs], given_labels)
        np.testing.assert_array_equal(batches.rows(step), inputs)
        found, counts = np.unique(given_labels, return_counts=True)
        assert len(found) == classes
        assert (counts == each).all()
        for label in found:
            turns[label] += 1
            own, size = inputs[given_labels == label], (labels == label).sum()
            assert len(np.unique(own)) == min(each, size)  # none twice in a batch, if there are enough
            for row in own:
                times[label][row] += 1
    # without replacement until used up: nothing is dealt again before the others had their turn
    assert max(turns.values()) - min(turns.values()) <= 1
    for label, counted in times.items():
        own = np.array(counted)[labels == label]
        assert own.max() - own.min() <= 1


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.data())
def test_in_balanced_data_each_image_comes_at_most_once(kinds: int, hands: int, each: int, data: st.DataObject) -> None:
    classes = data.draw(st.integers(1, kinds))
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(kinds), hands * each))
    for epoch in range(3):
        rows = np.concatenate([*rows_of(balanced(labels, classes, each, 3, epoch)), [-1]])
        assert len(np.unique(rows)) == len(rows)
        if kinds % classes == 0:
            assert sorted(rows[:-1]) == list(range(len(labels)))


@given(SIZES.filter(lambda sizes: sum(sizes) >= 12), st.integers(0, 2**31), st.integers(0, 20))
def test_the_order_is_that_of_seed_and_epoch_only(sizes: list, seed: int, epoch: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    expected = rows_of(balanced(labels, 1, 2, seed, epoch))
    visited = balanced(labels, 1, 2, seed)
    for other in (epoch + 1, 7, 0, epoch):  # as after a resume, or after `outlook.expected`
        rows_of(visited)
        visited.epoch = other
    assert rows_of(visited) == expected
    visited.on_epoch_end()  # Keras calls it where no epoch ends
    assert rows_of(visited) == expected
    np.random.random()
    assert rows_of(balanced(labels, 1, 2, seed, epoch)) == expected


def test_seeds_and_epochs_have_different_orders() -> None:
    labels = np.arange(60) % 6
    orders = [str(rows_of(balanced(labels, 3, 4, seed, epoch))) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9


def test_a_batch_is_shuffled_within() -> None:
    """The query variant takes the last quarter of a batch as queries, and mixing the row before: not by class."""
    labels = np.repeat(np.arange(4), 400)
    batches = balanced(labels, 4, 16)
    positions = np.concatenate([np.flatnonzero(batches[step][1] == 0) for step in range(len(batches))])
    assert len(positions) == 400
    assert abs(positions.mean() - 31.5) < 4 * 18.5 / 20
    first = np.array([batches[step][1] for step in range(len(batches))])
    assert 0.1 < (first[:, 1:] == first[:, :-1]).mean() < 0.4  # 15 / 63 by chance


def test_a_class_is_as_often_with_any_other() -> None:
    labels, met = np.repeat(np.arange(6), 10), np.zeros((6, 6))
    for epoch in range(200):
        batches = balanced(labels, 4, 1, epoch=epoch)
        for step in range(len(batches)):
            found = np.unique(batches[step][1])
            met[np.ix_(found, found)] += 1
    pairs = met[~np.eye(6, dtype=bool)]
    assert pairs.min() > 0.9 * pairs.mean()
    assert pairs.max() < 1.1 * pairs.mean()


@pytest.mark.parametrize(
    ("classes", "size", "text"),
    [
        (3, 16, "a batch of 16 images cannot be shared equally by 3 classes"),
        (5, 20, "5 classes a batch: there are 4"),
        (0, 16, "0 classes a batch: there are 4"),
    ],
)
def test_what_cannot_be_balanced_is_one_line(classes: int, size: int, text: str) -> None:
    with pytest.raises(InputError) as error:
        Batches(np.zeros(32), np.arange(32) % 4, size, 0, classes_per_batch=classes)
    assert str(error.value) == text


def test_too_few_images_for_a_batch_are_no_batch() -> None:
    assert len(Batches(np.zeros(7), np.arange(7) % 4, 8, 0, classes_per_batch=4)) == 0


def test_without_either_option_batches_are_a_permutation_of_seed_and_epoch() -> None:
    inputs, labels = np.arange(40) * 2, np.arange(40) % 5
    batches = Batches(inputs, labels, 12, 8)
    batches.epoch = 3
    order = np.random.default_rng((8, 3)).permutation(40)
    for step, rows in enumerate((order[:12], order[12:24], order[24:])):  # the last 4 join the batch before
        got = batches[step]
        assert isinstance(got, tuple)
        assert len(got) == 2
        np.testing.assert_array_equal(got[0], inputs[rows])
        np.testing.assert_array_equal(got[1], labels[rows])


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize("classes", [None, 2])
def test_rows_tell_which_images_a_batch_has(classes: int | None) -> None:
    inputs, labels = np.random.default_rng(0).random((43, 4, 4, 3)), np.arange(43) % 4
    given = (inputs, labels, 10, 1, False, classes)
    plain, told = Batches(*given), Batches(*given, with_rows=True)
    assert len(plain) == len(told)
    for epoch in range(2):
        plain.epoch = told.epoch = epoch
        for step in range(len(plain)):
            (images, rows), got_labels = told[step]
            assert rows.dtype == np.int32
            assert rows.shape == (len(images),)
            np.testing.assert_array_equal(images, inputs[rows])
            np.testing.assert_array_equal(got_labels, labels[rows])
            np.testing.assert_array_equal(images, plain[step][0])
            np.testing.assert_array_equal(got_labels, plain[step][1])


class Remembering(keras.Model):
    """Counts how often it was trained on each image; a plain batch has no rows."""

    def __init__(self, images: int):
        pixels = keras.Input((4, 4, 3))
        encoder = keras.Sequential([pixels, keras.layers.BatchNormalization(), keras.layers.Flatten()])
        super().__init__(pixels, keras.layers.Dense(3)(encoder(pixels)))
        self.encoder = encoder
        self.seen = self.add_weight(shape=(images,), initializer="zeros", trainable=False, name="seen")

    def train_step(self, data: tuple) -> dict:
        inputs, labels = data
        images, rows = inputs if isinstance(inputs, tuple) else (inputs, None)
        if rows is not None:
            self.seen.assign(tf.tensor_scatter_nd_add(self.seen, rows[:, None], tf.ones_like(rows, tf.float32)))
        return super().train_step((images, labels))


@pytest.mark.parametrize(("with_rows", "classes"), [(False, None), (True, None), (False, 3), (True, 3)])
def test_a_training_and_the_average_take_all_kinds_of_batches(tmp_path: Path, with_rows: bool, classes: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (43, 4, 4, 3)).astype("uint8")
    labels = np.arange(43) % 3
    batches = Batches(images, labels, 12, 0, classes_per_batch=classes, with_rows=with_rows)
    model = Remembering(43)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fit(model, batches, 2, create_run(tmp_path, "run", {}))
    expected = np.zeros(43)
    for epoch in range(2):
        batches.epoch = epoch
        for step in range(len(batches)):
            expected[batches.rows(step)] += 1
    np.testing.assert_array_equal(model.seen, expected * with_rows)
    norm = model.encoder.layers[0]
    recalibrate_batch_norm(model.encoder, batches, None)
    batches.epoch = 0
    seen = images[np.concatenate([batches.rows(step) for step in range(len(batches))])]
    np.testing.assert_allclose(norm.moving_mean, seen.mean((0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize("with_rows", [False, True])
def test_a_loss_that_is_not_finite_is_told_with_the_classes_of_its_batch(tmp_path: Path, with_rows: bool) -> None:
    images, labels = np.full((24, 4, 4, 3), np.nan, "float32"), np.arange(24) % 3
    batches = Batches(images, labels, 12, 0, classes_per_batch=3, with_rows=with_rows)
    model = Remembering(24)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(InputError, match=r"step 1 \(images a class in its batch: 0: 4, 1: 4, 2: 4\)"):
        fit(model, batches, 1, create_run(tmp_path, "run", {}))
