"""Pre-trainers, fine-tuning, checkpoints: small encoders, real `fit`."""

import ast
import json
import math
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from faults import save_checkpoint
from keras import layers, ops

import prl_keras
from prl_keras.config import Finetune, Pretrain
from prl_keras.data import Dataset, Split
from prl_keras.data.augment import augmentation
from prl_keras.data.batches import Batches, steps_per_epoch
from prl_keras.data.mixing import Mixing
from prl_keras.errors import InputError
from prl_keras.losses import NTXentLoss, PrototypicalLoss, SupervisedContrastiveLoss, nt_xent_loss
from prl_keras.models import build_classifier, classification_head, projection_head
from prl_keras.models.batch_norm import FusedBatchNormalization
from prl_keras.models.encode import encode
from prl_keras.models.storage import copy_as, weights_sha256
from prl_keras.runs import Run, create_run
from prl_keras.training import callbacks, checkpoint, looks, outlook
from prl_keras.training.adam import FusedAdam
from prl_keras.training.average import adam, cosine_schedule, recalibrate_batch_norm
from prl_keras.training.checkpoint import restore_checkpoint
from prl_keras.training.cross_entropy import SmoothedCrossEntropy
from prl_keras.training.finetuning import compile_classifier, train, train_classifier, train_head
from prl_keras.training.fit import create_variables, fit
from prl_keras.training.fixmatch import FixMatchClassifier
from prl_keras.training.looks import looked_at
from prl_keras.training.memory import MemoryPretrainer
from prl_keras.training.mixed import MixedClassifier
from prl_keras.training.pretrain import PrototypicalPretrainer, SimCLRPretrainer
from prl_keras.training.pretraining import plan

ROOT = Path(__file__).parents[1]
CLASSES = 4


def small_encoder(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    images = keras.Input((8, 8, 3), name="images")
    x = layers.Rescaling(1 / 255)(images)
    x = layers.Conv2D(8, 3, use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(images, layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3)(x)), name="encoder")


def pictures(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A class is a colour, with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % CLASSES)
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [150, 150, 30]])
    images = colours[labels][:, None, None] + rng.normal(0, 25, (count, 8, 8, 3))
    return images.clip(0, 255).astype(np.uint8), labels


def prototypical(variant: str = "query", seed: int = 0, **kwargs) -> PrototypicalPretrainer:
    encoder = small_encoder(seed)
    return PrototypicalPretrainer(encoder, projection_head(8, 16, 16), PrototypicalLoss(CLASSES, variant), **kwargs)


def contrastive(loss: keras.losses.Loss, augment: str = "simclr", seed: int = 0) -> SimCLRPretrainer:
    encoder = small_encoder(seed)
    return SimCLRPretrainer(encoder, projection_head(8, 16, 16), loss, augmentation(augment, (8, 8), seed))


MAKERS = {
    "standard": lambda: prototypical("standard"),
    "query": lambda: prototypical("query"),
    "loo": lambda: prototypical("loo"),
    "query, light": lambda: prototypical("query", augmentation=augmentation("light", (8, 8), 3)),
    "simclr": lambda: contrastive(NTXentLoss(0.1)),
    "supcon": lambda: contrastive(SupervisedContrastiveLoss(0.1)),
}


@pytest.mark.parametrize("variant", ["standard", "query", "loo"])
def test_train_step_is_one_step_down_the_gradient_of_the_loss(variant: str) -> None:
    images, labels = pictures(32)
    stepped, by_hand = prototypical(variant), prototypical(variant)
    stepped.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    with tf.GradientTape() as tape:
        embeddings = by_hand.projection_head(by_hand.encoder(images, training=True))
        loss = PrototypicalLoss(CLASSES, variant)(labels, embeddings)
    gradients = tape.gradient(loss, by_hand.trainable_variables)
    logs = stepped.train_on_batch(images, labels, return_dict=True)
    assert logs["loss"] == pytest.approx(float(loss), rel=1e-5)
    for variable, start, gradient in zip(
        stepped.trainable_variables, by_hand.trainable_variables, gradients, strict=True
    ):
        np.testing.assert_allclose(variable, start - 0.1 * gradient, atol=2e-6)


@pytest.mark.parametrize(
    "name",
    [name if name == "query" else pytest.param(name, marks=pytest.mark.slow) for name in MAKERS],
)
def test_every_pretrainer_learns_under_fit(name: str) -> None:
    model = MAKERS[name]()
    images, labels = pictures(128)
    model.compile(keras.optimizers.Adam(3e-3))
    history = model.fit(images, labels, batch_size=32, epochs=8, verbose=0, shuffle=False).history
    chance = model.embedding_loss.chance(32)
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert history["loss"][-1] < chance
    assert history["accuracy"][-1] >= history["accuracy"][0]
    assert history["loss"][-1] > 0.005 or name in ("standard", "query", "loo", "query, light")


def test_a_step_is_traced_once() -> None:
    """With the optimizer's variables made in the first, it took twice as long to begin."""
    images, labels = pictures(32)
    model = MAKERS["query"]()
    model.compile("adam")
    traced = []
    model.train_step = lambda data, original=model.train_step: traced.append(1) or original(data)
    model.fit(images, labels, batch_size=16, epochs=1, verbose=0)
    assert traced == [1]


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("query", "mixed_float16"),
        pytest.param("simclr", "mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("query", "mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("simclr", "mixed_float16", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("restored_dtype_policy")
def test_mixed_precision_takes_nearly_the_same_step(name: str, policy: str) -> None:
    """With the loss scale left out of the tape, mixed_float16 would step by 1 / 64 of it."""
    images, labels = pictures(32)
    changes = []
    for chosen in ("float32", policy):
        keras.mixed_precision.set_global_policy(chosen)
        model = MAKERS[name]()
        optimizer = keras.optimizers.SGD(0.1)
        if chosen == "mixed_float16":  # a scale at which no gradient overflows, or the step would be skipped
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)
        model.compile(optimizer, run_eagerly=True)
        model.build(images.shape)
        before = model.encoder.layers[2].kernel.numpy()
        model.train_on_batch(images, labels)
        changes.append(np.ravel(model.encoder.layers[2].kernel.numpy() - before))
    assert np.corrcoef(*changes)[0, 1] > 0.9
    assert 0.7 < np.linalg.norm(changes[1]) / np.linalg.norm(changes[0]) < 1.4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["query, light", "loo", "simclr", "supcon"])
def test_a_saved_pretrainer_goes_on_as_if_it_had_not_been_saved(name: str, tmp_path: Path) -> None:
    images, labels = pictures(64)
    model = MAKERS[name]()
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(images, labels, batch_size=32, epochs=1, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))
    logs = [each.train_on_batch(images, labels, return_dict=True) for each in (model, loaded)]
    assert logs[0]["loss"] == logs[1]["loss"]
    for first, second in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_two_views_of_an_image_differ_and_their_loss_is_nt_xent() -> None:
    model = contrastive(NTXentLoss(0.2))
    images, labels = pictures(16)
    views, view_labels = tf.function(model.two_views, autograph=False)((images, labels))
    np.testing.assert_array_equal(view_labels, np.tile(labels, 2))
    first, second = np.split(views.numpy(), 2)
    assert np.mean(np.abs(first - second), axis=(1, 2, 3)).min() > 1
    model.augmentation = layers.Identity()  # from here on the views are the images
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    logs = model.train_on_batch(images, labels, return_dict=True)
    embeddings = model.projection_head(model.encoder(np.concatenate([images, images]), training=True))
    expected = nt_xent_loss(embeddings[:16], embeddings[16:], 0.2)
    assert logs["loss"] == pytest.approx(float(expected), rel=1e-4)


def test_masked_queries_are_counted_and_do_not_move_the_loss() -> None:
    model = prototypical("query")
    images, _ = pictures(16)
    labels = np.array([0] * 6 + [1] * 6 + [0, 1, 2, 3])  # the queries' classes 2 and 3 have no support
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    logs = model.test_on_batch(images, labels, return_dict=True)
    embeddings = model(images)
    rows = np.arange(16) < 14
    kept = PrototypicalLoss(CLASSES, "query", query_fraction=1 / 7)(labels[rows], embeddings[:14])
    assert logs["masked_queries"] == 2
    assert logs["loss"] == pytest.approx(float(kept), rel=1e-5)


def test_batches_hold_every_image_once_in_an_order_of_seed_and_epoch() -> None:
    inputs, labels = np.arange(10) * 10, np.arange(10)

    def order(seed: int, epoch: int, **kwargs) -> list[int]:
        batches = Batches(inputs, labels, 4, seed, **kwargs)
        batches.epoch = epoch
        pairs = [batches[step] for step in range(len(batches))]
        assert all((x == 10 * y).all() for x, y in pairs)
        return [int(label) for _, batch in pairs for label in batch]

    assert sorted(order(0, 0)) == list(range(10))
    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert order(0, 3, drop_remainder=True) == order(0, 3)[:8]


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [
        (385, 128, [128, 128, 129]),
        (384, 128, [128, 128, 128]),
        (383, 128, [128, 128, 127]),
        (287, 128, [128, 159]),
        (288, 128, [128, 128, 32]),
        (71, 32, [32, 39]),
        (72, 32, [32, 32, 8]),
        (9, 2, [2, 2, 2, 3]),
        (5, 128, [5]),
        (1, 128, [1]),
    ],
)
def test_no_step_is_taken_on_a_handful_of_images(images: int, batch_size: int, sizes: list[int]) -> None:
    """Fewer than 8, or than a quarter of a batch, join the batch before; every image is seen once an epoch."""
    batches = Batches(np.arange(images), np.arange(images), batch_size, seed=0)
    for epoch in range(3):
        batches.epoch = epoch
        assert [len(batches[step][0]) for step in range(len(batches))] == sizes
        assert sorted(np.concatenate([batches[step][1] for step in range(len(batches))])) == list(range(images))
    assert batches.images == images
    assert steps_per_epoch(images, batch_size) == len(sizes)
    whole = Batches(np.arange(images), np.arange(images), batch_size, seed=0, drop_remainder=True)
    assert len(whole) == images // batch_size == steps_per_epoch(images, batch_size, drop_remainder=True)
    assert whole.images == images // batch_size * batch_size


# Labels and weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["query", "simclr", *(pytest.param(name, marks=pytest.mark.slow) for name in ("standard", "loo", "supcon"))]
)
def test_labels_may_be_a_column_as_keras_datasets_give_them(name: str) -> None:
    images, labels = pictures(32)
    logs = []
    for given in (labels, labels[:, None], labels[:, None].astype("float32")):
        model = MAKERS[name]()
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        logs.append([model.train_on_batch(images, given, return_dict=True) for _ in range(2)])
        logs[-1].append(model.test_on_batch(images, given, return_dict=True))
    assert logs[0] == logs[1] == logs[2]


@pytest.mark.parametrize("name", ["query", "supcon"])
def test_what_cannot_be_used_is_refused_and_not_dropped(name: str) -> None:
    images, labels = pictures(32)
    model = MAKERS[name]()
    model.compile("sgd", run_eagerly=True)
    for call in (model.fit, model.evaluate):
        with pytest.raises(InputError, match="takes no sample or class weights"):
            call(images, labels, sample_weight=np.zeros(32), verbose=0)
        with pytest.raises(InputError, match=r"labels have shape \(.*, 4\); expected one class number"):
            call(images, np.eye(CLASSES)[labels], verbose=0)
    with pytest.raises(InputError, match="takes no sample or class weights"):
        model.fit(images, labels, class_weight={0: 2.0, 1: 1.0, 2: 1.0, 3: 1.0}, verbose=0)
    if name == "query":
        with pytest.raises(InputError, match="learns from labels"):
            model.fit(images, verbose=0)


@pytest.mark.parametrize(
    "name", ["query", *(pytest.param(name, marks=pytest.mark.slow) for name in ("loo", "standard"))]
)
def test_figures_of_nothing_are_none_and_not_zero(run: Run, name: str) -> None:
    """One validation image a class: none meets another of its class."""
    model = MAKERS[name]()
    model.build((None, 8, 8, 3))
    model.compile("sgd", run_eagerly=True)
    validation = Batches(pictures(4)[0], np.arange(4), 4, seed=0)
    fit(model, Batches(*pictures(32), 32, seed=1), 1, run, validation)
    assert run.metrics[0]["val_loss"] is None
    assert run.metrics[0]["val_accuracy"] is None
    assert run.metrics[0]["loss"] > 0
    assert outlook.expected(model.embedding_loss, validation)[1:4] == (0, None, None)


@pytest.mark.slow
def test_the_only_other_view_is_no_choice(run: Run) -> None:
    model = MAKERS["simclr"]()
    model.build((None, 8, 8, 3))
    model.compile("sgd")
    fit(model, Batches(*pictures(8), 8, seed=1), 1, run, Batches(*pictures(1), 1, seed=0))
    assert run.metrics[0]["val_loss"] is None
    assert run.metrics[0]["val_accuracy"] is None


# What a training can learn -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["query", "loo"])
def test_chance_in_validation_is_what_equal_embeddings_get_there(name: str) -> None:
    """Few images of many classes, some of them rare: in each batch another number of classes has support."""
    labels = np.random.default_rng(0).geometric(0.1, 130) % 40
    loss = PrototypicalLoss(40, name)
    model = PrototypicalPretrainer(small_encoder(), projection_head(8, 16, 16), loss)
    for weight in model.projection_head.weights:
        weight.assign(weight * 0)
    model.compile(run_eagerly=True)
    batches = Batches(np.zeros((130, 8, 8, 3), "uint8"), labels, 32, seed=5, drop_remainder=True)
    measured = model.evaluate(batches, verbose=0, return_dict=True)
    ahead = outlook.expected(loss, batches)
    assert ahead.loss == pytest.approx(measured["loss"], abs=1e-5)
    assert ahead.queries - ahead.answerable == measured["masked_queries"]
    assert ahead.loss < np.log(40) - 0.3
    assert 1 / 40 < ahead.accuracy < 1 / 5


def answerable_share(counts: np.ndarray, batch_size: int, support: int) -> float:
    """The expected share of queries whose class is among `support` others: hypergeometric, exact."""
    from scipy.stats import hypergeom

    n = counts.sum()
    return 1 - np.sum(counts / n * hypergeom.pmf(0, n - 1, counts - 1, support))


@pytest.mark.parametrize(("classes", "expected"), [(300, (0.47, 0.57)), (1000, (0.175, 0.225))])
def test_the_share_of_answerable_queries_is_the_expected_one(classes: int, expected: tuple[float, float]) -> None:
    counts = np.full(classes, 200)
    labels = np.repeat(np.arange(classes), 200)
    batches = Batches(labels, labels, 256, seed=0, drop_remainder=True)
    for variant, support, about in (("query", 192, expected[0]), ("loo", 255, expected[1])):
        ahead = outlook.expected(PrototypicalLoss(classes, variant), batches, epochs=25)
        assert ahead.answerable / ahead.queries == pytest.approx(answerable_share(counts, 256, support), abs=0.01)
        assert ahead.answerable / ahead.queries == pytest.approx(about, abs=0.01)
        line = outlook.check(ahead, variant, 256, len(labels))
        assert line.startswith(f"warning: in batches of 256 of these {len(labels):,} images only")
        assert "\n" not in line
    assert batches.epoch == 0


def test_a_training_that_can_learn_from_none_of_its_images_is_refused() -> None:
    labels = np.arange(60)  # every class has one image
    for variant in ("query", "loo", "standard"):
        ahead = outlook.expected(PrototypicalLoss(60, variant), Batches(labels, labels, 30, 0), epochs=3)
        with pytest.raises(InputError, match="no image meets another of its class and one of a second"):
            outlook.check(ahead, variant, 30, 60)
    labels = labels % 4
    for size in (2, 3):
        ahead = outlook.expected(PrototypicalLoss(4, "query"), Batches(labels, labels, size, 0, drop_remainder=True))
        with pytest.raises(InputError, match=rf"--batch-size {size} leaves nothing .*use --batch-size 4 or more"):
            outlook.check(ahead, "query", size, 60)
    pairs = np.repeat(np.arange(60), 3)
    ahead = outlook.expected(PrototypicalLoss(60, "loo"), Batches(pairs, pairs, 2, 0, drop_remainder=True), epochs=9)
    with pytest.raises(InputError, match="one of a second class"):
        outlook.check(ahead, "loo", 2, 180)
    plenty = outlook.expected(PrototypicalLoss(4, "query"), Batches(labels, labels, 20, 0))
    assert outlook.check(plenty, "query", 20, 60) is None
    pairs = outlook.expected(SupervisedContrastiveLoss(), Batches(np.arange(60), np.arange(60), 30, 0))
    assert outlook.check(pairs, "supcon", 30, 60) is None, "the other view is of the same class"


@pytest.mark.parametrize("variant", ["query", "loo"])
def test_among_unequal_classes_chance_is_what_embeddings_without_sense_get(variant: str) -> None:
    labels = np.repeat([0, 1], [400, 20])
    loss, batches = PrototypicalLoss(2, variant), Batches(labels, labels, 64, seed=0, drop_remainder=True)
    ahead = outlook.expected(loss, batches, epochs=25)
    right = answered = 0.0
    random = np.random.default_rng(0)
    for epoch in range(10):
        batches.epoch = epoch
        for step in range(len(batches)):
            found = loss.episode(labels[batches.rows(step)], random.normal(size=(64, 128)))
            correct = found.logits.numpy().argmax(axis=1) == labels[batches.rows(step)]
            right += np.sum(correct & found.answerable.numpy())
            answered += np.sum(found.answerable.numpy())
    assert ahead.accuracy == pytest.approx(right / answered, abs=0.02)
    assert ahead.accuracy > 0.94


def test_what_is_printed_before_pretraining_fits_the_loss() -> None:
    labels = np.arange(2560) % 10
    batches = Batches(labels, labels, 256, seed=0)

    def words(variant: str, loss: keras.losses.Loss) -> str:
        return outlook.in_words(outlook.expected(loss, batches), variant)

    assert words("query", PrototypicalLoss(10)) == "an encoder that tells nothing has loss 2.303 and accuracy 0.100"
    assert "accuracy 0.002 at finding the other view" in words("simclr", NTXentLoss(0.07))
    assert "least possible" not in words("simclr", NTXentLoss(0.07))
    assert "part of its own prototype" in words("standard", PrototypicalLoss(10, "standard"))
    assert "chance" not in words("standard", PrototypicalLoss(10, "standard"))
    cosine = words("loo", PrototypicalLoss(10, "loo", "cosine"))
    assert cosine.endswith("accuracy 0.100; the least possible loss is about 1.377")
    assert "least" not in words("loo", PrototypicalLoss(10, "loo", "cosine", 0.1))
    assert re.search(r"least possible loss is about 3\.9\d\d", words("supcon", SupervisedContrastiveLoss(0.1)))
    same = outlook.expected(NTXentLoss(), batches)
    smaller = outlook.expected(NTXentLoss(), Batches(labels, labels, 16, seed=0))
    found = outlook.constants(same, smaller)
    assert found["chance_loss"] == pytest.approx(np.log(511), abs=1e-5)
    assert found["chance_val_loss"] == pytest.approx(np.log(31), abs=1e-5)
    assert found["chance_accuracy"] == pytest.approx(1 / 511, abs=1e-5)
    assert found["chance_val_accuracy"] == pytest.approx(1 / 31, abs=1e-5)


# Fine-tuning ---------------------------------------------------------------------------------------------


@pytest.fixture
def dataset() -> Dataset:
    splits = [Split(*pictures(count, seed)) for seed, count in enumerate((96, 24, 40))]
    return Dataset("colours", *splits, tuple("abcd"), "fingerprint")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path, "run", {"options": {}})


def options(**changes) -> Finetune:
    return replace(Finetune(epochs=3, batch_size=32), **changes)


@pytest.mark.parametrize("head_kind", ["mlp", pytest.param("linear", marks=pytest.mark.slow)])
def test_training_on_features_equals_training_on_images(dataset: Dataset, tmp_path: Path, head_kind: str) -> None:
    heads = []
    for name, training in (("fast", train_head), ("slow", train_classifier)):
        encoder = small_encoder()
        keras.utils.set_random_seed(5)
        head = classification_head(head_kind, CLASSES, 16, dropout=0.3)
        classifier = build_classifier(encoder, CLASSES, head, freeze=True)
        arguments = (encoder, head) if name == "fast" else (classifier,)
        training(*arguments, dataset, options(), create_run(tmp_path, name, {"options": {}}))
        heads.append(head.get_weights())
    for fast, slow in zip(*heads, strict=True):
        np.testing.assert_allclose(fast, slow, atol=1e-5)


@pytest.mark.parametrize("augment", ["none", pytest.param("light", marks=pytest.mark.slow)])
def test_frozen_means_that_weights_and_statistics_stay(dataset: Dataset, run: Run, augment: str) -> None:
    encoder = small_encoder()
    before = weights_sha256(encoder)
    classifier = train(encoder, dataset, options(freeze=True, augment=augment), run)
    assert weights_sha256(encoder) == before
    assert weights_sha256(classifier.get_layer("encoder")) == before


def test_unfrozen_training_moves_weights_and_statistics(dataset: Dataset, run: Run) -> None:
    encoder = small_encoder()
    before = [np.array(weight) for weight in encoder.weights]
    train(encoder, dataset, options(freeze=False), run)
    moved = [not np.array_equal(old, new) for old, new in zip(before, encoder.weights, strict=True)]
    assert all(moved)


@pytest.mark.slow
def test_a_finetuned_classifier_solves_an_easy_data_set(dataset: Dataset, run: Run) -> None:
    classifier = train(small_encoder(), dataset, options(freeze=False, epochs=12, learning_rate=0.01), run)
    predicted = encode(classifier, dataset.test.images).argmax(axis=-1)
    assert np.mean(predicted == dataset.test.labels) > 0.9
    assert run.metrics[-1]["epoch"] == 12
    assert run.metrics[-1]["val_accuracy"] > 0.9


# Averaging -----------------------------------------------------------------------------------------------


class Weights(keras.callbacks.Callback):
    """Note the trainable weights after every step."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.steps: list[list[np.ndarray]] = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.steps.append([np.array(weight) for weight in self.model.trainable_variables])


@pytest.mark.slow  # test_recipes has the same of the commands
@pytest.mark.parametrize("average", [True, False])
def test_training_ends_with_the_moving_average_of_the_last_tenth_of_the_steps(run: Run, average: bool) -> None:
    model, steps = prototypical(), Weights()
    model.compile(adam(1e-2, steps=30, average=average))
    fit(model, Batches(*pictures(96), 32, seed=1), 10, run, monitors=[steps])
    expected = steps.steps[0]
    for weights in steps.steps[1:]:
        momentum = 1 - 1 / 3 if average else 0  # a window of 3 of the 30 steps
        expected = [momentum * old + (1 - momentum) * new for old, new in zip(expected, weights, strict=True)]
    assert len(steps.steps) == 30
    for want, got in zip(expected, model.trainable_variables, strict=True):
        np.testing.assert_allclose(want, got, atol=1e-6)


@pytest.mark.parametrize(("steps", "every"), [(11, 3), (12, 3), (7, 1), (4, 10)])
def test_a_seldom_average_takes_in_the_first_weights_and_the_last(steps: int, every: int) -> None:
    weight = keras.Variable(np.zeros(2, "float32"))
    phase = (steps - 1) % every
    optimizer = FusedAdam(0.1, use_ema=True, ema_momentum=0.7, ema_every=every, ema_phase=phase)
    optimizer.build([weight])
    step = tf.function(lambda: optimizer.apply([tf.constant([1.0, -2.0])], [weight]), autograph=False)
    expected = None
    for taken in range(steps):
        step()
        if expected is None:
            expected = np.array(weight)
        elif taken % every == phase:
            expected = 0.7 * expected + 0.3 * np.array(weight)
    assert taken % every == phase, "the last"
    optimizer.finalize_variable_values([weight])
    np.testing.assert_allclose(weight, expected, rtol=1e-5)


@pytest.mark.parametrize(("steps", "every", "momentum"), [(500, 5, 0.98**5), (150, 1, 1 - 1 / 15), (5, 1, 0.0)])
def test_a_window_takes_in_ten_weights(steps: int, every: int, momentum: float) -> None:
    optimizer = adam(1e-3, steps, average=True)
    assert (optimizer.ema_every, optimizer.ema_phase) == (every, (steps - 1) % every)
    assert optimizer.ema_momentum == pytest.approx(momentum)
    again = FusedAdam.from_config(optimizer.get_config())
    assert (again.ema_every, again.ema_phase) == (optimizer.ema_every, optimizer.ema_phase)


def test_an_unfinished_run_that_averaged_after_every_step_is_refused(run: Run) -> None:
    model = prototypical()
    model.build((None, 8, 8, 3))
    batches = Batches(*pictures(96), 32, seed=1)
    for steps, refused in ((30, False), (200, True)):  # as before: after every step
        model.compile(adam(1e-3, 30, average=True))
        create_variables(model, batches)
        save_checkpoint(model, run, 1, 0, 0.0, 3)
        model.compile(adam(1e-3, steps, average=True))
        complaint = "averaged the weights of every step, this one those of one in 2: remove"
        with pytest.raises(InputError, match=complaint) if refused else nullcontext():
            fit(model, batches, 1, run)


@pytest.mark.parametrize("kind", [layers.BatchNormalization, FusedBatchNormalization])
def test_recalibrated_statistics_are_the_mean_over_the_batches(kind: type) -> None:
    layer = kind(momentum=0.9)
    encoder = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), layer])
    images, labels = pictures(90)
    recalibrate_batch_norm(encoder, Batches(images, labels, 30, seed=0), None)
    batches = Batches(images, labels, 30, seed=0)
    values = [batches[step][0] / 255.0 for step in range(3)]
    np.testing.assert_allclose(layer.moving_mean, np.mean([v.mean(axis=(0, 1, 2)) for v in values], axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        layer.moving_variance, np.mean([v.var(axis=(0, 1, 2)) for v in values], axis=0), rtol=1e-4
    )
    assert layer.momentum == 0.9


def test_normalisations_within_a_network_of_the_encoder_are_recalibrated_too() -> None:
    images, labels = pictures(90)
    flat, inner = small_encoder(), small_encoder()
    outer = keras.Input((8, 8, 3))
    nested = keras.Model(outer, inner(outer))
    for encoder in (flat, nested):
        recalibrate_batch_norm(encoder, Batches(images, labels, 30, seed=0), None)
    for one, other in zip(flat.weights, nested.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    before = inner.get_weights()
    inner.trainable = False
    recalibrate_batch_norm(nested, Batches(*pictures(60, seed=1), 30, seed=0), None)
    for one, other in zip(before, inner.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def decayed(model: keras.Model, *data) -> float:
    """How much smaller a step down the gradient leaves the first kernel, beside what it is without a regulariser."""
    kernels = []
    for strength in (None, keras.regularizers.L2(0.5)):
        made = model()
        kernel = next(each for each in made.trainable_variables if each.path.endswith("kernel"))
        kernel.regularizer, before = strength, np.array(kernel)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        made.compile(keras.optimizers.SGD(0.1), loss=loss, run_eagerly=True)
        made.train_step(data)
        kernels.append(np.array(kernel))
    return float(np.sum((kernels[0] - kernels[1]) * before) / np.sum(before**2))


@pytest.mark.parametrize("name", [*MAKERS, "memory", "mixed", "fixmatch"])
def test_a_regulariser_of_the_network_is_part_of_what_is_minimised(name: str) -> None:
    images, labels = (tf.constant(each) for each in pictures(32))
    rows = tf.range(32)

    def classifier(kind: type) -> keras.Model:
        network = build_classifier(small_encoder(), CLASSES, classification_head("linear", CLASSES, 16, 0.0))
        made = kind(network, layers.Identity(), Mixing("none", 1.0, 0.5, 0))
        made.build((None, 8, 8, 3))
        return made

    makers = MAKERS | {
        "memory": lambda: MemoryPretrainer(small_encoder(), projection_head(8, 16, 16), labels.numpy(), CLASSES, 0.1),
        "mixed": lambda: classifier(MixedClassifier),
        "fixmatch": lambda: classifier(FixMatchClassifier),
    }
    inputs = {"memory": (images, rows), "fixmatch": (images, images)}.get(name, images)
    assert decayed(makers[name], inputs, labels) == pytest.approx(0.1 * 2 * 0.5, rel=0.01)


def test_an_encoder_of_any_name_is_fine_tuned(dataset: Dataset) -> None:
    encoder = small_encoder()
    named = keras.Model(encoder.input, encoder.output, name="net")
    made = prl_keras.finetune(named, dataset, freeze=False, epochs=1, batch_size=16)
    assert made.get_layer("net").output_shape == (None, 16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variant": "query", "mix": "mixup"}, "--mix does nothing with --variant query"),
        ({"variant": "query", "samples_per_class": 3}, "samples_per_class is for load_dataset"),
        ({"learning_rate": -1.0}, "--learning-rate is -1.0"),
        ({"weight_decay": -1.0}, "--weight-decay is -1.0"),
        ({"epochs": 0}, "--epochs is 0; expected at least 1"),
        ({"batch_size": 0}, "--batch-size is 0; expected at least 2"),
    ],
)
def test_what_a_command_refuses_is_refused_from_python_too(dataset: Dataset, given: dict, message: str) -> None:
    data = dataset
    with pytest.raises(InputError, match=message):
        prl_keras.pretrain(data, **given)
    if "variant" not in given:
        with pytest.raises(InputError, match=message):
            prl_keras.finetune(small_encoder(), data, **given)


def test_without_a_head_the_least_loss_is_that_of_the_features(dataset: Dataset) -> None:
    data, how = dataset, {"variant": "query", "distance": "cosine", "temperature": 1.0, "batch_size": 32}
    for dim in (0, 64):
        options = Pretrain(projection_dim=dim, precision="float32", **how)
        ahead = plan(data, options).ahead
        simplex = PrototypicalLoss(CLASSES, "query", "cosine", 1.0).outlook(data.train.labels[:32], 64).least_loss
        assert ahead.least_loss == pytest.approx(simplex, abs=1e-3)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"use_ema": True}, {"amsgrad": True}])
def test_the_fused_adam_equals_keras_adam(options: dict) -> None:
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype("float32") for shape in ((3, 4), (5,))]
    gradients = [[rng.normal(size=w.shape).astype("float32") * 10.0**step for w in start] for step in range(-4, 4)]
    results = []
    for kind in (keras.optimizers.Adam, FusedAdam):
        weights = [keras.Variable(value) for value in start]
        optimizer = kind(0.01, epsilon=1e-7, **options)
        optimizer.build(weights)
        for gradient in gradients:
            optimizer.apply([tf.constant(g) for g in gradient], weights)
        results.append([*weights, *optimizer.variables])
    for expected, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-7)


class SlowAdamW:
    """Loshchilov & Hutter 2019, algorithm 2, in float64 and by the letter, with their eta_t * alpha as the rate."""

    def __init__(self, weights: list[np.ndarray], decay: float, decay_all: bool):
        self.weights = [np.array(w, "float64") for w in weights]
        self.first = [np.zeros_like(w) for w in self.weights]
        self.second = [np.zeros_like(w) for w in self.weights]
        self.decays = [decay if decay_all or w.ndim > 1 else 0.0 for w in self.weights]
        self.steps = 0

    def apply(self, gradients: list[np.ndarray], rate: float) -> None:
        self.steps += 1
        for i, gradient in enumerate(gradients):
            self.first[i] = 0.9 * self.first[i] + 0.1 * gradient
            self.second[i] = 0.999 * self.second[i] + 0.001 * gradient**2
            mean = self.first[i] / (1 - 0.9**self.steps)
            square = self.second[i] / (1 - 0.999**self.steps)
            self.weights[i] = self.weights[i] - rate * (
                mean / (np.sqrt(square) + 1e-7) + self.decays[i] * self.weights[i]
            )


def slow_rate(peak: float, steps: int, warmup: float, taken: int) -> float:
    rising = min(round(warmup * steps), steps - 1)
    if taken < rising:
        return peak * taken / rising
    return peak * 0.5 * (1 + math.cos(math.pi * min(1, (taken - rising) / (steps - rising))))


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize(("schedule", "warmup"), [("constant", 0.05), ("cosine", 0.0), ("cosine", 0.4)])
def test_five_steps_are_those_of_a_slow_adamw(schedule: str, warmup: float, decay_all: bool, average: bool) -> None:
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype("float32") for shape in ((2, 2, 3, 4), (3, 4), (5,), ())]
    optimizer = adam(0.05, 5, average, 0.3, schedule, warmup, decay_all)
    weights = [keras.Variable(value) for value in start]
    optimizer.build(weights)
    slow = SlowAdamW(start, 0.3, decay_all)
    means = None
    for step in range(5):
        gradients = [rng.normal(size=w.shape).astype("float32") for w in start]
        optimizer.apply([tf.constant(g) for g in gradients], weights)
        slow.apply(gradients, 0.05 if schedule == "constant" else slow_rate(0.05, 5, warmup, step))
        momentum = 0.0 if means is None else optimizer.ema_momentum
        means = [momentum * m + (1 - momentum) * w for m, w in zip(means or slow.weights, slow.weights, strict=True)]
        for expected, got in zip(slow.weights, weights, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    optimizer.finalize_variable_values(weights)
    for expected, got in zip(means if average else slow.weights, weights, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.5), (3, 0.05), (100, 0.0), (100, 0.05), (200, 0.3), (7, 0.99)])
def test_the_cosine_schedule_starts_peaks_and_ends_where_it_says(steps: int, warmup: float) -> None:
    schedule = cosine_schedule(0.2, steps, warmup)
    rates = [float(schedule(step)) for step in range(steps + 2)]
    np.testing.assert_allclose(rates, [slow_rate(0.2, steps, warmup, step) for step in range(steps + 2)], atol=1e-7)
    rising = min(round(warmup * steps), steps - 1)
    assert rates[rising] == max(rates) == pytest.approx(0.2)
    assert rates[0] == (0 if rising else pytest.approx(0.2))
    assert rates[steps] == rates[steps + 1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "linear"}, "schedule is 'linear'; expected one of constant, cosine"),
        *(({"schedule": "cosine", "warmup": w}, f"warmup is {w!r}; expected") for w in (-0.1, 1.0, math.nan, "0.1")),
    ],
)
def test_a_bad_schedule_is_an_input_error(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        adam(1e-3, 10, False, **options)


def test_an_optimizer_can_be_rebuilt_from_its_config() -> None:
    original = adam(1e-3, 100, True, 0.1, "cosine", 0.1, decay_all=False)
    config = json.loads(json.dumps(original.get_config()))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(original))
    for each in (FusedAdam.from_config(config), again):
        assert type(each) is FusedAdam
        assert each.get_config() == original.get_config()
        assert [float(each._learning_rate(step)) for step in (0, 5, 50)] == [
            float(original._learning_rate(step)) for step in (0, 5, 50)
        ]
        assert not each.decay_all
    before = adam(1e-3, 100, True, 0.1).get_config()
    assert before.pop("decay_all") is True
    assert FusedAdam.from_config(before).decay_all


def test_a_model_is_trained_without_decay_of_biases_and_norms() -> None:
    """Through `compile` and `fit`: at gradients of 0 nothing but decay moves a weight."""
    model = small_encoder()
    model.compile(adam(0.1, 10, average=False, weight_decay=0.5, decay_all=False), lambda labels, z: 0 * ops.sum(z))
    for weight in model.trainable_variables:
        weight.assign(np.ones(weight.shape))
    model.fit(*pictures(32), batch_size=32, epochs=2, verbose=0)
    for weight in model.trainable_variables:
        expected = 0.95**2 if len(weight.shape) > 1 else 1.0
        np.testing.assert_allclose(weight, np.full(weight.shape, expected), rtol=1e-5, err_msg=weight.path)


# Smoothed labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12,), (12, 1)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_cross_entropy_is_that_of_keras_for_one_hot_labels(smoothing: float, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 5, 12), 3 * rng.normal(size=(12, 5)).astype("float32")
    loss = SmoothedCrossEntropy(smoothing)
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    expected = keras_loss(np.eye(5)[labels], logits)
    assert float(loss(labels.reshape(shape), logits)) == float(expected)
    log_p = logits - np.log(np.exp(logits.astype("float64")).sum(axis=1, keepdims=True))
    by_hand = -(1 - smoothing) * log_p[np.arange(12), labels].mean() - smoothing * log_p.mean()
    assert float(expected) == pytest.approx(by_hand, rel=1e-5)
    weights = rng.uniform(size=12)
    assert float(loss(labels, logits, weights)) == float(keras_loss(np.eye(5)[labels], logits, weights))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is SmoothedCrossEntropy
    assert again.get_config() == loss.get_config()


def test_labels_are_smoothed_where_it_is_asked_for_and_nowhere_else() -> None:
    head = classification_head("linear", CLASSES, 16)
    compile_classifier(head, Finetune(), 10)
    assert type(head.loss) is keras.losses.SparseCategoricalCrossentropy
    compile_classifier(head, Finetune(label_smoothing=0.1), 10)
    features, labels = np.random.default_rng(0).normal(size=(8, 16)).astype("float32"), np.arange(8) % CLASSES
    expected = SmoothedCrossEntropy(0.1)(labels, head(features))
    assert head.evaluate(features, labels, verbose=0)[0] == pytest.approx(float(expected), rel=1e-5)
    head.fit(features, labels, epochs=1, verbose=0)
    for smoothing in (-0.1, 1.0, math.nan):
        with pytest.raises(InputError, match="label_smoothing is"):
            compile_classifier(head, Finetune(label_smoothing=smoothing), 10)


@pytest.mark.parametrize("images", [75, 62])
def test_an_incomplete_last_batch_counts_by_its_images_when_statistics_are_made(images: int) -> None:
    layer = layers.BatchNormalization(momentum=0.9)
    encoder = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), layer])
    batches = Batches(*pictures(images), 30, seed=0)
    recalibrate_batch_norm(encoder, batches, None)
    values = [batches[step][0] / 255.0 for step in range(len(batches))]
    assert [len(value) for value in values] == ([30, 30, 15] if images == 75 else [30, 32])
    weights = [len(value) / images for value in values]
    for found, name in ((layer.moving_mean, np.mean), (layer.moving_variance, np.var)):
        expected = sum(weight * name(value, axis=(0, 1, 2)) for weight, value in zip(weights, values, strict=True))
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_batch_too_large_for_one_device_is_taken_in_parts_when_statistics_are_made(monkeypatch) -> None:
    monkeypatch.setattr("prl_keras.training.average._AT_ONCE", 20)
    layer = layers.BatchNormalization(momentum=0.9)
    encoder = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), layer])
    batches = Batches(*pictures(45), 45, seed=0)
    recalibrate_batch_norm(encoder, batches, None)
    parts = np.array_split(batches[0][0] / 255.0, 3)
    expected = [np.mean([fold(part, axis=(0, 1, 2)) for part in parts], axis=0) for fold in (np.mean, np.var)]
    np.testing.assert_allclose(layer.moving_mean, expected[0], rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, expected[1], rtol=1e-4)


def test_recalibration_leaves_a_frozen_encoder_alone() -> None:
    encoder = small_encoder()
    encoder.trainable = False
    before = weights_sha256(encoder)
    recalibrate_batch_norm(encoder, Batches(*pictures(40), 20, seed=0), None)
    assert weights_sha256(encoder) == before


# Resume --------------------------------------------------------------------------------------------------


class Interrupt(keras.callbacks.Callback):
    """Stop in the middle of an epoch, as a lost machine would."""

    def __init__(self, epoch: int):
        super().__init__()
        self.epoch, self.current = epoch, 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.current = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.current == self.epoch and batch == 1:
            raise InterruptedError


def fit_pretrainer(name: str, run: Run, interrupt_at: int | None) -> list[np.ndarray]:
    name, _, schedule = name.partition("; ")
    model = MAKERS[name]()
    model.build((None, 8, 8, 3))
    stronger = {"weight_decay": 0.1, "schedule": "cosine", "warmup": 0.2, "decay_all": False}
    model.compile(adam(1e-3, steps=15, average=True, **(stronger if schedule else {})))
    batches = Batches(*pictures(96), 32, seed=1, drop_remainder=True)
    fit(model, batches, 5, run, monitors=[] if interrupt_at is None else [Interrupt(interrupt_at)])
    return [np.array(variable) for variable in [*model.variables, *model.optimizer.variables]]


def test_of_many_epochs_some_fifty_are_validated_and_all_that_test_is_asked_of(tmp_path: Path, monkeypatch) -> None:
    """Of few images looking at validation takes longer than training."""
    assert looked_at(99) == list(range(1, 100))
    assert looked_at(100) == [1, *range(2, 101, 2)]
    assert looked_at(403)[-3:] == [392, 400, 403]
    assert looked_at(1) == looked_at(1, each=True) == [1]
    assert looked_at(400, each=True) == list(range(1, 401))
    monkeypatch.setattr(looks, "LOOKS", 4)  # so that a training of few epochs has more
    images, labels = pictures(8)
    for name, monitors in (("some", []), ("each", [callbacks.TestAccuracy(images, labels)])):
        head = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(CLASSES)])
        compile_classifier(head, Finetune(encoder="e"), 9)
        run = create_run(tmp_path, name, {})
        fit(head, Batches(images, labels, 8, seed=1), 9, run, validation=(images, labels), monitors=monitors)
        validated = [line["epoch"] for line in run.metrics if "val_loss" in line]
        assert validated == (list(range(1, 10)) if monitors else [1, 2, 4, 6, 8, 9])
        assert [line["epoch"] for line in run.metrics if "test_accuracy" in line] == (validated if monitors else [])


@pytest.mark.parametrize(
    "name",
    ["query; cosine", *(pytest.param(name, marks=pytest.mark.slow) for name in ("query", "query, light", "simclr"))],
)
def test_a_resumed_pretraining_is_bit_identical(name: str, tmp_path: Path) -> None:
    reference = create_run(tmp_path, "reference", {})
    broken = create_run(tmp_path, "broken", {})
    expected = fit_pretrainer(name, reference, None)
    for interrupt_at in (2, 4) if name == "query" else (3,):
        with pytest.raises(InterruptedError):
            fit_pretrainer(name, broken, interrupt_at)
    for _ in ("the rest", "no epoch left, as after a kill while saving"):
        for want, got in zip(expected, fit_pretrainer(name, broken, None), strict=True):
            np.testing.assert_array_equal(want, got)
    timing = ("seconds", "images_per_second")
    lines = [
        [{k: v for k, v in line.items() if k not in timing} for line in run.metrics] for run in (reference, broken)
    ]
    assert lines[0] == lines[1]
    assert [line["epoch"] for line in lines[0]] == [1, 2, 3, 4, 5]
    if name.endswith("cosine"):
        rates = [slow_rate(1e-3, 15, 0.2, 3 * epoch) for epoch in range(1, 6)]
        assert [line["learning_rate"] for line in lines[0]] == pytest.approx(rates, abs=1e-6)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    run = create_run(tmp_path, "run", {})
    model = prototypical()
    model.build((None, 8, 8, 3))
    model.compile("adam")
    weight = model.trainable_variables[0]
    for epoch in (1, 2, 3):
        weight.assign(np.full(weight.shape, epoch))
        last = save_checkpoint(model, run, epoch)
    assert len(list(last.parent.iterdir())) == 2
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        assert restore_checkpoint(model, run).epoch == 2
    assert float(np.max(weight)) == 2
    for file in last.parent.iterdir():
        file.write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(InputError, match="start a new run"):
        restore_checkpoint(model, run)


def test_a_checkpoint_that_is_whole_but_not_as_it_was_written_is_passed_over(tmp_path: Path) -> None:
    """One value is another, in a sound archive: only the checksum knows."""
    run = create_run(tmp_path, "run", {})
    model = prototypical()
    model.build((None, 8, 8, 3))
    model.compile("adam")
    save_checkpoint(model, run, 1)
    last = save_checkpoint(model, run, 2)
    with np.load(last) as content:
        arrays = dict(content)
    arrays["v00000"] = arrays["v00000"] + 1
    np.savez(last, **arrays)
    with pytest.warns(UserWarning, match="checksum differs"):
        assert restore_checkpoint(model, run).epoch == 1


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run = create_run(tmp_path, "run", {})
    model = prototypical()
    model.build((None, 8, 8, 3))
    model.compile("adam")
    save_checkpoint(model, run, 1)
    other = build_classifier(small_encoder(), 3)
    other.compile("adam")
    with pytest.raises(InputError, match="another model"):
        restore_checkpoint(other, run)


class Clock(keras.callbacks.Callback):
    """Time that passes where it should be counted, a second a step, and where it should not."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.now += 1

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.now += 1000

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.now += 1000


@pytest.mark.slow
def test_the_seconds_of_an_epoch_are_those_of_its_steps_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(tmp_path, "run", {})
    for interrupt_at in (1, None):
        model, clock = prototypical(), Clock()
        monkeypatch.setattr(callbacks.time, "monotonic", lambda clock=clock: clock.now)
        model.build((None, 8, 8, 3))
        model.compile("adam")
        monitors = [clock] if interrupt_at is None else [clock, Interrupt(interrupt_at)]
        arguments = (model, Batches(*pictures(96), 32, seed=1), 3, run, pictures(32, seed=9), monitors)
        with pytest.raises(InterruptedError) if interrupt_at else nullcontext():
            fit(*arguments, checkpoint_steps=1)
    assert [line["seconds"] for line in run.metrics] == [3, 3, 3]
    assert [line["images_per_second"] for line in run.metrics] == [32, 32, 32]


def as_first_version(file: Path) -> None:
    """Take out of a checkpoint what the first version did not write."""
    with np.load(file) as content:
        header, arrays = json.loads(str(content["header"])), {k: content[k] for k in content.files}
    arrays = {
        key: value for key, value in arrays.items() if key not in ("header", "seconds", "steps_per_epoch", "edition")
    }
    del header["crc32"]
    header["sha256"] = checkpoint._sha256(header["epoch"], header["step"], arrays)
    np.savez(file, header=np.array(json.dumps(header)), **arrays)


@pytest.mark.parametrize(
    ("images", "size", "begun_with", "message"),
    [
        pytest.param(96, 32, None, None, marks=pytest.mark.slow),  # the same steps as before
        (97, 32, None, "counted an incomplete last batch as a whole one"),
        pytest.param(96, 32, 3, None, marks=pytest.mark.slow),
        (96, 32, 4, "took 4 steps an epoch, this one takes 3"),
    ],
)
def test_an_unfinished_run_of_another_version_continues_to_its_own_bits_or_is_refused(
    run: Run, images: int, size: int, begun_with: int | None, message: str | None
) -> None:
    model = prototypical()
    model.build((None, 8, 8, 3))
    model.compile("adam")
    batches = Batches(*pictures(images), size, seed=1)
    create_variables(model, batches)
    file = save_checkpoint(model, run, 1, 0, 0.0, begun_with)
    if begun_with is None:
        as_first_version(file)
    if message is None:
        fit(model, batches, 2, run)
        assert run.metrics[-1]["epoch"] == 2
    else:
        with pytest.raises(InputError, match=f"begun by another version of the program, which {message}: remove"):
            fit(model, batches, 2, run)
    whole = Batches(*pictures(images), size, seed=1, drop_remainder=True)
    if begun_with is None:
        fit(model, whole, 3, run)


def begun_by_the_first_version(recipe: str, side: int, run: Run) -> tuple[keras.Model, Batches]:
    """A classifier of augmented images, whose checkpoint after an epoch is in the run."""
    images = keras.Input((side, side, 3))
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(augmentation(recipe, (side, side), 0)(images)))
    model = keras.Model(images, x)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = Batches(np.zeros((8, side, side, 3), "uint8"), np.arange(8) % 3, 8, seed=0)
    create_variables(model, batches)
    as_first_version(save_checkpoint(model, run, 1))
    return model, batches


def test_an_unfinished_run_whose_images_were_blurred_less_is_refused(run: Run) -> None:
    for side, recipe, refused in ((96, "simclr", False), (224, "light", False), (224, "simclr", True)):
        model, batches = begun_by_the_first_version(recipe, side, run)
        with pytest.raises(InputError, match="blurred images of this size less") if refused else nullcontext():
            fit(model, batches, 1, run)


def test_an_unfinished_run_that_validated_more_often_or_shifted_less_is_refused(tmp_path: Path) -> None:
    """Two views of the validation images draw from the training's own random numbers."""
    for variant, epochs, refused in (("simclr", 100, True), ("simclr", 99, False), ("query", 100, False)):
        model, run = MAKERS[variant](), create_run(tmp_path, f"{variant}-{epochs}", {})
        model.build((None, 8, 8, 3))
        model.compile("adam")
        batches = Batches(*pictures(32), 32, seed=1, drop_remainder=True)
        create_variables(model, batches)
        as_first_version(save_checkpoint(model, run, 98, 0, 0.0, 1))
        message = "looked at two views of the validation images more often"
        with pytest.raises(InputError, match=message) if refused else nullcontext():
            fit(model, batches, epochs, run)
        if refused:
            save_checkpoint(model, run, 98, 0, 0.0, 1)
            fit(model, batches, epochs, run)
    run = create_run(tmp_path, "strong", {})
    for side, refused in ((48, False), (64, True)):
        model, batches = begun_by_the_first_version("strong", side, run)
        with pytest.raises(InputError, match="shifted and cut images of this size") if refused else nullcontext():
            fit(model, batches, 1, run)


def test_every_registered_class_can_be_found_before_it_is_imported() -> None:
    defined = {}
    for file in (ROOT / "prl_keras").rglob("*.py"):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and "register_keras_serializable" in " ".join(
                map(ast.unparse, node.decorator_list)
            ):
                defined[node.name] = module
    assert defined == prl_keras._SAVED


def test_copying_for_mixed_precision_keeps_the_weights() -> None:
    encoder = small_encoder()
    copy = copy_as(encoder, "mixed_bfloat16")
    assert copy.layers[2].compute_dtype == "bfloat16"
    assert weights_sha256(copy) == weights_sha256(encoder)
