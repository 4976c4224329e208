"""Pre-trainers, fine-tuning, checkpoints: small encoders, real `fit`."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from prl_keras.config import Finetune
from prl_keras.data import Dataset, Split
from prl_keras.data.augment import augmentation
from prl_keras.data.batches import Batches
from prl_keras.errors import InputError
from prl_keras.losses import NTXentLoss, PrototypicalLoss, SupervisedContrastiveLoss, nt_xent_loss
from prl_keras.models import build_classifier, classification_head, projection_head
from prl_keras.models.batch_norm import FusedBatchNormalization
from prl_keras.models.encode import encode
from prl_keras.models.storage import copy_as, weights_sha256
from prl_keras.runs import Run, create_run
from prl_keras.training.adam import FusedAdam
from prl_keras.training.average import adam, recalibrate_batch_norm
from prl_keras.training.checkpoint import restore_checkpoint, save_checkpoint
from prl_keras.training.finetune import finetune, train_classifier, train_head
from prl_keras.training.fit import fit
from prl_keras.training.pretrain import PrototypicalPretrainer, SimCLRPretrainer

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
    stepped.compile(keras.optimizers.SGD(0.1))
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


@pytest.mark.parametrize("name", MAKERS)
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


@pytest.mark.parametrize("name", ["query", "simclr"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
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
        model.compile(optimizer)
        model.build(images.shape)
        before = model.encoder.layers[2].kernel.numpy()
        model.train_on_batch(images, labels)
        changes.append(np.ravel(model.encoder.layers[2].kernel.numpy() - before))
    assert np.corrcoef(*changes)[0, 1] > 0.9
    assert 0.7 < np.linalg.norm(changes[1]) / np.linalg.norm(changes[0]) < 1.4


@pytest.mark.parametrize("name", ["loo", "query, light", "simclr", "supcon"])
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
    views, view_labels = tf.function(model.two_views)((images, labels))
    np.testing.assert_array_equal(view_labels, np.tile(labels, 2))
    first, second = np.split(views.numpy(), 2)
    assert np.mean(np.abs(first - second), axis=(1, 2, 3)).min() > 1
    model.augmentation = layers.Identity()  # from here on the views are the images
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.train_on_batch(images, labels, return_dict=True)
    embeddings = model.projection_head(model.encoder(np.concatenate([images, images]), training=True))
    expected = nt_xent_loss(embeddings[:16], embeddings[16:], 0.2)
    assert logs["loss"] == pytest.approx(float(expected), rel=1e-4)


def test_masked_queries_are_counted_and_do_not_move_the_loss() -> None:
    model = prototypical("query")
    images, _ = pictures(16)
    labels = np.array([0] * 6 + [1] * 6 + [0, 1, 2, 3])  # the queries' classes 2 and 3 have no support
    model.compile(keras.optimizers.SGD(0.0))
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


@pytest.mark.parametrize("head_kind", ["linear", "mlp"])
def test_training_on_features_equals_training_on_images(dataset: Dataset, tmp_path: Path, head_kind: str) -> None:
    heads = []
    for name, train in (("fast", train_head), ("slow", train_classifier)):
        encoder = small_encoder()
        keras.utils.set_random_seed(5)
        head = classification_head(head_kind, CLASSES, 16, dropout=0.3)
        classifier = build_classifier(encoder, CLASSES, head, freeze=True)
        arguments = (encoder, head) if name == "fast" else (classifier,)
        train(*arguments, dataset, options(), create_run(tmp_path, name, {"options": {}}))
        heads.append(head.get_weights())
    for fast, slow in zip(*heads, strict=True):
        np.testing.assert_allclose(fast, slow, atol=1e-5)


@pytest.mark.parametrize("augment", ["none", "light"])
def test_frozen_means_that_weights_and_statistics_stay(dataset: Dataset, run: Run, augment: str) -> None:
    encoder = small_encoder()
    before = weights_sha256(encoder)
    classifier = finetune(encoder, dataset, options(freeze=True, augment=augment), run)
    assert weights_sha256(encoder) == before
    assert weights_sha256(classifier.get_layer("encoder")) == before


def test_unfrozen_training_moves_weights_and_statistics(dataset: Dataset, run: Run) -> None:
    encoder = small_encoder()
    before = [np.array(weight) for weight in encoder.weights]
    finetune(encoder, dataset, options(freeze=False), run)
    moved = [not np.array_equal(old, new) for old, new in zip(before, encoder.weights, strict=True)]
    assert all(moved)


def test_a_finetuned_classifier_solves_an_easy_data_set(dataset: Dataset, run: Run) -> None:
    classifier = finetune(small_encoder(), dataset, options(freeze=False, epochs=12, learning_rate=0.01), run)
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
    model = MAKERS[name]()
    model.build((None, 8, 8, 3))
    model.compile(adam(1e-3, steps=15, average=True))
    batches = Batches(*pictures(96), 32, seed=1, drop_remainder=True)
    fit(model, batches, 5, run, monitors=[] if interrupt_at is None else [Interrupt(interrupt_at)])
    return [np.array(variable) for variable in [*model.variables, *model.optimizer.variables]]


@pytest.mark.parametrize("name", ["query", "query, light", "simclr"])
def test_a_resumed_pretraining_is_bit_identical(name: str, tmp_path: Path) -> None:
    reference = create_run(tmp_path, "reference", {})
    broken = create_run(tmp_path, "broken", {})
    expected = fit_pretrainer(name, reference, None)
    for interrupt_at in (2, 4):
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


def test_copying_for_mixed_precision_keeps_the_weights() -> None:
    encoder = small_encoder()
    copy = copy_as(encoder, "mixed_bfloat16")
    assert copy.layers[2].compute_dtype == "bfloat16"
    assert weights_sha256(copy) == weights_sha256(encoder)
