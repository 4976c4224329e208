"""Unlabelled pictures beside labelled ones: which they are, in which order, and what is learned from them."""

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from faults import save_checkpoint, stop_after_first_checkpoint
from PIL import Image
from test_memory_pretrainer import TIMING, same, variables
from test_training import CLASSES, Interrupt, pictures, small_encoder

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import semi

from prl_keras import load_dataset
from prl_keras.cli import main, parse
from prl_keras.config import Baseline, Pretrain
from prl_keras.data import Dataset, Split, fashion
from prl_keras.data.augment import augmentation
from prl_keras.data.fashion import DEBIAN_DIR, DEBIAN_PACKAGE
from prl_keras.data.mixing import Mixing
from prl_keras.data.rows import Rows
from prl_keras.data.seen import seen_by, short_digests
from prl_keras.data.semi_batches import SemiBatches
from prl_keras.data.store import open_or_build
from prl_keras.data.unlabelled import open_unlabelled
from prl_keras.errors import InputError
from prl_keras.memory import cross_entropy, memory_episode
from prl_keras.models import build_classifier, projection_head
from prl_keras.models.encode import encode
from prl_keras.runs import Run, create_run
from prl_keras.runs.recorded import recorded_options
from prl_keras.training.average import adam
from prl_keras.training.checkpoint import restore_checkpoint
from prl_keras.training.finetuning import compile_classifier
from prl_keras.training.fit import fit
from prl_keras.training.fitted import fitted
from prl_keras.training.fixmatch import FixMatchClassifier
from prl_keras.training.pretraining import pretrain
from prl_keras.training.semi import PseudoLabels, SemiMemoryPretrainer


def pretrainer(labels: np.ndarray, seed: int = 0, **options: Any) -> SemiMemoryPretrainer:
    options = {"temperature": 0.25, "label_smoothing": 0.1, **options}
    model = SemiMemoryPretrainer(small_encoder(seed), projection_head(8, 16, 16), labels, CLASSES, **options)
    model.build((None, 8, 8, 3))
    return model


def batches(count: int = 48, others: int = 90, size: int = 16, ratio: int = 3, rows: bool = True) -> SemiBatches:
    how = {"with_rows": rows, "drop_remainder": rows}
    return SemiBatches(*pictures(count), size, 1, pictures(others, seed=7)[0], ratio, **how)


# batches


def test_unlabelled_images_come_in_whole_passes_that_go_on_over_epochs() -> None:
    """48 a step, 3 steps an epoch, 90 images: the passes end within steps and within epochs."""
    made, seen = batches(), []
    for epoch in range(10):
        made.epoch = epoch
        seen += [made.unlabelled_rows(step) for step in range(len(made))]
    assert {len(rows) for rows in seen} == {48}
    passes = np.concatenate(seen)[: 16 * 90].reshape(16, 90)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(90), (16, 1)))
    assert len(np.unique(passes, axis=0)) == 16
    made.epoch = 4
    np.testing.assert_array_equal(made.unlabelled_rows(1), seen[4 * 3 + 1])


def test_a_batch_has_its_rows_and_the_same_ones_whoever_asks_first() -> None:
    made, again = batches(), batches()
    again.epoch = made.epoch = 3
    again[2]
    for step in (2, 0, 1):
        (images, rows, unlabelled), labels = made[step]
        np.testing.assert_array_equal(images, made.inputs[rows])
        np.testing.assert_array_equal(labels, made.labels[rows])
        np.testing.assert_array_equal(unlabelled, made.unlabelled[made.unlabelled_rows(step)])
        np.testing.assert_array_equal(made.all_inputs(step), np.concatenate([images, unlabelled]))
        for want, got in zip(made[step][0], again[step][0], strict=True):
            np.testing.assert_array_equal(want, got)
    assert len(batches(rows=False)[0][0]) == 2


def test_labelled_images_come_in_the_order_that_they_have_alone() -> None:
    from prl_keras.data.batches import Batches

    made = batches()
    alone = Batches(made.inputs, made.labels, 16, 1, drop_remainder=True)
    for epoch in (0, 5):
        made.epoch = alone.epoch = epoch
        np.testing.assert_array_equal(made.rows(1), alone.rows(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0}, "unlabelled_ratio is 0; expected a whole number, at least 1"),
        ({"ratio": 1.5}, "unlabelled_ratio is 1.5"),
        ({"others": 47}, "there are 47 unlabelled images, but a step takes 3 x 16"),
    ],
)
def test_batches_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        batches(**options)


# pseudo-labels


def test_the_averages_of_the_answers_are_the_slow_loops() -> None:
    random, prior = np.random.default_rng(0), np.array([0.5, 0.25, 0.25])
    layer = PseudoLabels(prior, momentum=0.6)
    running, mean, variance = prior, 0.5, 1.0
    for step in range(12):
        answers = random.dirichlet([3.0, 1.0, 1.0], 20).astype("float32")
        share = min(0.6, (1 + step) / (10 + step))
        running = share * running + (1 - share) * answers.mean(axis=0)
        right = answers * (prior + 1e-6) / (running + 1e-6)
        right /= right.sum(axis=1, keepdims=True)
        confidence = right.max(axis=1)
        mean = share * mean + (1 - share) * confidence.mean()
        variance = share * variance + (1 - share) * confidence.var()
        labels, weights = layer(answers)
        np.testing.assert_array_equal(labels, right.argmax(axis=1))
        below = np.minimum(confidence - mean, 0)
        np.testing.assert_allclose(weights, np.exp(-(below**2) / (variance / 2)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(layer.running, running, rtol=1e-5)
    assert (float(layer.mean), float(layer.variance)) == (pytest.approx(mean, 1e-5), pytest.approx(variance, 1e-4))
    assert not layer.trainable_variables


# the pre-trainer


def test_a_step_is_a_step_down_the_gradient_of_both_losses() -> None:
    images, labels = pictures(32)
    rows, others = np.random.default_rng(0).permutation(32)[:12], pictures(20, seed=5)[0]
    model, by_hand = (pretrainer(labels, unlabelled_weight=0.7) for _ in range(2))
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    memory = np.zeros((32, 8), "float32")
    memory[rows] = by_hand.teach(images[rows])  # of rows that were not visited before
    sums = np.stack([memory[labels == k].sum(axis=0) for k in range(CLASSES)])
    means = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    pseudo, weights = by_hand.pseudo_labels(tf.nn.softmax(by_hand.teach(others) @ means.T / 0.25))
    with tf.GradientTape() as tape:
        queries = by_hand(np.concatenate([images[rows], others]).astype("float32"), training=True)
        labelled = cross_entropy(memory_episode(queries[:12], rows, memory, labels, CLASSES, 0.25, 0.1))
        answers = tf.nn.log_softmax(tf.math.l2_normalize(queries[12:], axis=1) @ means.T / 0.25)
        each = -tf.reduce_sum((0.9 * tf.one_hot(pseudo, CLASSES) + 0.1 / CLASSES) * answers, axis=1)
        loss = labelled + 0.7 * tf.reduce_mean(weights * each)
    gradients = tape.gradient(loss, by_hand.trainable_variables)
    logs = model.train_on_batch((images[rows], rows, others), labels[rows], return_dict=True)
    assert logs["loss"] == pytest.approx(float(labelled), rel=1e-4)
    assert logs["unlabelled_loss"] == pytest.approx(float(tf.reduce_mean(weights * each)), rel=1e-4)
    assert logs["used"] == pytest.approx(float(tf.reduce_mean(weights)), rel=1e-4)
    for variable, start, gradient in zip(
        model.trainable_variables, by_hand.trainable_variables, gradients, strict=True
    ):
        np.testing.assert_allclose(variable, start - 0.1 * gradient, atol=3e-6)


def test_prototypes_are_of_labelled_images_only() -> None:
    images, labels = pictures(32)
    memories = []
    for seed in (5, 6):
        model = pretrainer(labels)
        model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
        model.train_on_batch((images[:8], np.arange(8), pictures(24, seed=seed)[0]), labels[:8])
        memories.append(np.array(model.memory))
    np.testing.assert_array_equal(*memories)
    assert np.count_nonzero(memories[0].any(axis=1)) == 8


@pytest.mark.slow
def test_it_learns_from_unlabelled_pictures_what_few_labelled_ones_do_not_show() -> None:
    """Four labelled pictures of each class in a narrow light, 200 unlabelled ones and the test in a wide one."""

    def lit(seed: int, count: int, least: float) -> tuple[np.ndarray, np.ndarray]:
        images, labels = pictures(count, seed)
        light = np.random.default_rng(seed).uniform(least, 1.0, (count, 1, 1, 1))
        return (images * light).astype("uint8"), labels

    found = {}
    for weight in (0.0, 1.0):
        model = pretrainer(lit(0, 16, 0.9)[1], unlabelled_weight=weight)
        model.compile(keras.optimizers.Adam(3e-3))
        made = SemiBatches(*lit(0, 16, 0.9), 16, 0, lit(1, 200, 0.3)[0], 4, with_rows=True, drop_remainder=True)
        history = model.fit(made, epochs=60, verbose=0).history
        logs = model.evaluate(*lit(2, 200, 0.3), verbose=0, return_dict=True)
        found[weight] = logs["accuracy"]
        assert 0.5 < history["used"][-1] <= 1
    assert found[1.0] > found[0.0] + 0.03, "0.92 and 1.00 where this was written"


@pytest.mark.slow
@pytest.mark.usefixtures("restored_dtype_policy")
def test_it_stays_finite_in_bfloat16() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = pretrainer(pictures(48)[1], augmentation=augmentation("light", (8, 8), 3), mixing=Mixing("mixup", seed=1))
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    history = model.fit(batches(), epochs=1, verbose=0).history
    assert np.isfinite(list(history.values())).all()
    assert all(np.isfinite(values).all() for values in variables(model))
    assert {model.pseudo_labels.running.dtype, model.memory.dtype} == {"float32"}


@pytest.mark.slow
def test_a_saved_one_goes_on_as_if_it_had_not_been_saved(tmp_path: Path) -> None:
    images, labels = pictures(48)
    model = pretrainer(labels, unlabelled_weight=0.5, augmentation=augmentation("light", (8, 8), 3))
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    batch = (images, np.arange(48), pictures(60, seed=4)[0])
    model.train_on_batch(batch, labels)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for each in (model, loaded):
        each.train_on_batch(batch, labels)
    same(variables(model), variables(loaded))
    assert loaded.options == model.options


def test_a_checkpoint_within_an_epoch_has_all_that_the_next_steps_need(tmp_path: Path) -> None:
    made, run, found = batches(), create_run(tmp_path, "run", {}), []
    for resumed in (False, True):
        model = pretrainer(made.labels, augmentation=augmentation("light", (8, 8), 3), mixing=Mixing("mixup", seed=2))
        model.compile(adam(1e-3, steps=4, average=True), run_eagerly=True)
        model.optimizer.build(model.trainable_variables)
        if resumed:
            restore_checkpoint(model, run)
        for step in range(2 if resumed else 0, 4):
            made.epoch = step // len(made)
            model.train_on_batch(*made[step % len(made)])
            if step == 1 and not resumed:
                save_checkpoint(model, run, 0, 2)
        found.append(variables(model))
    same(*found)


def test_data_without_unlabelled_images_and_a_weight_below_0_are_refused() -> None:
    images, labels = pictures(16)
    model = pretrainer(labels)
    model.compile("sgd")
    with pytest.raises(InputError, match=r"learns from \(\(images, rows, unlabelled\), labels\)"):
        model.fit((images, np.arange(16)), labels, verbose=0)
    with pytest.raises(InputError, match="unlabelled_weight is -1"):
        pretrainer(labels, unlabelled_weight=-1)


# the rival


def fixmatch(augment: str = "light", weight: float = 1.0) -> FixMatchClassifier:
    classifier = build_classifier(small_encoder(), CLASSES)
    layers = augmentation(augment, (8, 8), 3), Mixing("none", seed=1)
    model = FixMatchClassifier(classifier, *layers, weight)
    model.build((None, 8, 8, 3))
    compile_classifier(model, Baseline(learning_rate=1e-2, average=False, label_smoothing=0.0), 100)
    return model


def test_a_step_of_fixmatch_is_its_loss_of_one_pass() -> None:
    images, labels = pictures(12)
    others = pictures(30, seed=5)[0]
    model, by_hand = fixmatch("none", 0.5), fixmatch("none", 0.5)
    for each in (model, by_hand):  # sure of some
        each.classifier.layers[-1].set_weights([40 * w for w in each.classifier.layers[-1].get_weights()])
    logits = by_hand.classifier(np.concatenate([images, others, others]).astype("float32"), training=True).numpy()
    answers = np.exp(logits - logits.max(axis=1, keepdims=True))
    answers /= answers.sum(axis=1, keepdims=True)
    sure = answers[42:].max(axis=1) >= 0.95
    losses = -np.log(answers[12:42][np.arange(30), answers[42:].argmax(axis=1)])
    logs = model.train_on_batch((images, others), labels, return_dict=True)
    assert 0 < sure.sum() < 30
    assert logs["used"] == pytest.approx(sure.mean())
    assert logs["unlabelled_loss"] == pytest.approx((sure * losses).mean(), rel=1e-3)
    assert logs["loss"] == pytest.approx(-np.log(answers[np.arange(12), labels]).mean(), rel=1e-3)
    assert logs["accuracy"] == pytest.approx((answers[:12].argmax(axis=1) == labels).mean())


@pytest.mark.slow
def test_fixmatch_learns_and_says_nothing_of_unlabelled_pictures_in_validation() -> None:
    model = fixmatch()
    history = model.fit(batches(rows=False), epochs=15, validation_data=pictures(40, seed=9), verbose=0).history
    assert history["val_accuracy"][-1] > 0.8
    assert history["used"][-1] > history["used"][0]
    assert set(history) == {"loss", "accuracy", "unlabelled_loss", "used", "val_loss", "val_accuracy"}


def test_fixmatch_asks_for_no_smoothed_answers_unless_it_is_told_to() -> None:
    assert Baseline(recipe="strong").label_smoothing == 0.1
    assert Baseline(recipe="strong", unlabelled=True).label_smoothing == 0.0
    assert Baseline(recipe="strong", unlabelled=True, label_smoothing=0.2).label_smoothing == 0.2


# the same bits


def in_store(folder: Path, images: np.ndarray) -> Rows:
    read = lambda start, stop: ((image, -1) for image in images[start:stop])  # noqa: E731
    return open_or_build("0123456789abcdef-own", images.shape[1:], len(images), read, folder)


def trained(run: Run, unlabelled: Any, steps: int | None = None, interrupt_at: int | None = None) -> list[np.ndarray]:
    images, labels = pictures(48)
    model = pretrainer(labels, augmentation=augmentation("light", (8, 8), 3), soft_weight=0.1)
    model.compile(adam(1e-3, steps=9, average=True))
    made = SemiBatches(images, labels, 16, 1, unlabelled, 3, with_rows=True, drop_remainder=True)
    monitors = [] if interrupt_at is None else [Interrupt(interrupt_at)]
    fit(model, made, 3, run, pictures(16, seed=9), monitors, checkpoint_steps=steps)
    return variables(model)


@pytest.mark.slow
def test_a_training_that_is_continued_has_the_bits_of_one_that_was_not_from_memory_or_store(tmp_path: Path) -> None:
    whole, broken = (create_run(tmp_path, run, {}) for run in ("whole", "broken"))
    unlabelled = pictures(90, seed=7)[0]
    expected = trained(whole, unlabelled)
    kept = in_store(tmp_path / "cache", unlabelled)
    with pytest.raises(InterruptedError):
        trained(broken, kept, steps=1, interrupt_at=1)
    same(expected, trained(broken, kept))
    lines = [[{k: v for k, v in e.items() if k not in TIMING} for e in run.metrics] for run in (whole, broken)]
    assert lines[0] == lines[1]


# which images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Of digits' own pictures: 6 of train, 3 of test and 2 of validation; and 60 of nothing, at two depths."""
    dataset, folder = load_dataset("digits", **SMALL), tmp_path / "data" / "photos"
    noise = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), np.uint8)
    parts = {"train": dataset.train.images[:6], "test/of": dataset.test.images[:3]}
    parts |= {"validation": dataset.validation.images[:2], "deep/er": noise}
    for name, images in parts.items():
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f"{number}.png")
    return folder


SMALL = {"samples_per_class": 5, "test_per_class": 5, "image_size": 16}
WORDS = ["--dataset", "digits", "--samples-per-class", "5", "--test-per-class", "5", "--image-size", "16"]
REQUEST = {"name": "digits", "image_size": 16, "cache_dir": "none"}


def test_pictures_of_a_folder_come_without_those_of_validation_and_test(
    photos: Path, capsys: pytest.CaptureFixture
) -> None:
    dataset = load_dataset("digits", **SMALL)
    found = open_unlabelled(str(photos), dataset, REQUEST)
    assert found.images.shape == (66, 16, 16, 3)
    known = np.concatenate([short_digests(part.images) for part in (dataset.validation, dataset.test)])
    assert not np.isin(short_digests(found.images), known).any()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Unlabelled: 66 images of photos"
    assert "Left out: 5 unlabelled images that are in validation or test of digits" in said
    kept = open_unlabelled(str(photos), dataset, REQUEST | {"cache_dir": str(photos.parent / "cache")})
    assert isinstance(kept.images, Rows)
    assert kept.sha256 == found.sha256
    np.testing.assert_array_equal(kept.images[:], found.images[:])
    (photos / "deep" / "er" / "0.png").unlink()
    assert open_unlabelled(str(photos), dataset, REQUEST).sha256 != found.sha256


def test_another_data_set_gives_its_training_images_at_the_size_of_the_run() -> None:
    """Of digits itself: also what a subset leaves unused, but nothing of validation."""
    dataset, whole = load_dataset("digits", **SMALL), load_dataset("digits", image_size=16)
    found = open_unlabelled("digits", dataset, REQUEST)
    unused = set(short_digests(whole.train.images)) - set(short_digests(dataset.test.images))
    assert set(short_digests(found.images)) == unused - set(short_digests(dataset.validation.images))
    assert found.source == "digits"


needs_fashion = pytest.mark.skipif(not DEBIAN_DIR.is_dir(), reason=f"{DEBIAN_PACKAGE} is not installed")


@pytest.fixture(scope="module")
def read_once() -> Iterator[None]:
    """Fashion-MNIST, whose 70,000 images take a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fashion, "read_fashion", cache(fashion.read_fashion))
        yield


@needs_fashion
@pytest.mark.usefixtures("read_once")
def test_fashion_500s_development_set_and_unlabelled_images_are_drawn_once_for_everyone() -> None:
    development = fashion.development_set()
    assert hashlib.sha256(development.images).hexdigest() == (
        "e4d1a09c313569d360e8b56d4c9b61ef00d76adf187727c4ce0cd4de887f048f"
    )
    assert hashlib.sha256(development.labels.astype("<i8")).hexdigest() == (
        "890e6f6a1b61c7468e14eb7c032da1bcfccf2cda75f42af822959bb1a102c6b0"
    )
    grey, others = fashion.read_beside_fashion_500(None)
    raw = fashion.read_fashion_500(None)
    sets = [set(short_digests(part.images)) for part in (grey, others, raw.train, raw.test)]
    assert [len(each) for each in sets] == [10_000, 45_000, 5_000, 8_000]
    assert len(set.union(*sets)) == 68_000


@needs_fashion
@pytest.mark.usefixtures("read_once")
def test_no_picture_of_a_held_out_class_comes_in_with_the_unlabelled_ones() -> None:
    request = {"name": "fashion_500", "hold_out_classes": ["Bag", "Shirt"], "image_size": None}
    dataset = load_dataset(**request)
    found = open_unlabelled(True, dataset, request)
    _, others = fashion.read_beside_fashion_500(None)
    inside = ~np.isin(others.labels, [fashion.CLASS_NAMES.index(name) for name in ("Bag", "Shirt")])
    np.testing.assert_array_equal(found.images[:, :, :, 0], others.images[inside])
    with pytest.raises(InputError, match="may be those of --hold-out-classes: leave one of the two out"):
        open_unlabelled("digits", dataset, request)


def test_images_that_are_all_known_are_refused() -> None:
    images, labels = pictures(8)
    split = Split(images, labels)
    dataset = Dataset("mine", split, split, split, tuple("abcd"), "0")
    with pytest.raises(InputError, match="no unlabelled images of its own"):
        open_unlabelled(True, dataset, {"name": "mine"})
    assert open_unlabelled(False, dataset, {"name": "mine"}) is None


# the command line


def test_the_option_takes_no_word_or_one() -> None:
    usual = parse(["pretrain"])
    assert (usual.unlabelled, usual.unlabelled_ratio, usual.unlabelled_weight) == (False, 7, 1.0)
    assert parse(["pretrain", "--variant", "simclr", "--unlabelled", "--epochs", "2"]).unlabelled is True
    assert parse(["pretrain", "--variant", "prl", "--epochs", "2", "--unlabelled"]).unlabelled is True
    assert parse(["baseline", "--unlabelled", "photos/"]).unlabelled == "photos/"
    with pytest.raises(InputError, match="one folder or one data set, not 2"):
        parse(["baseline", "--unlabelled", "a", "b"])


def test_a_record_of_a_version_that_knew_yes_and_no_is_read(tmp_path: Path) -> None:
    for name, value in (("yes", True), ("no", False), ("word", "/photos")):
        run = create_run(tmp_path, name, {"options": {"variant": "simclr", "unlabelled": value}})
        assert recorded_options(run, Pretrain).unlabelled == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretrain", "--variant", "query", "--unlabelled", "PHOTOS"], "--variant simclr or --variant prl"),
        (["pretrain", "--variant", "prl", "--unlabelled"], "no unlabelled images of its own"),
        (["pretrain", "--variant", "prl", "--unlabelled", "nowhere"], "unknown data set 'nowhere'"),
        (["pretrain", "--variant", "prl", "--unlabelled", "PHOTOS", "--unlabelled-ratio", "0"], "expected a number of"),
        (["pretrain", "--variant", "prl", "--unlabelled", "PHOTOS", "--unlabelled-weight", "-1"], "of 0 or more"),
        (["pretrain", "--variant", "prl", "--unlabelled-ratio", "3"], "does nothing with no --unlabelled"),
        (
            ["pretrain", "--variant", "simclr", "--unlabelled", "PHOTOS", "--unlabelled-weight", "2"],
            "does nothing with",
        ),
        (["baseline", "--model", "pca", "--unlabelled", "PHOTOS"], "does nothing with --model pca"),
        (["baseline", "--unlabelled", "PHOTOS", "--augment", "none"], "use another --augment than none"),
        (["baseline", "--unlabelled", "PHOTOS", "--augment", "light", "--batch-size", "10"], "a step takes 7 x 10"),
        (["pretrain", "--variant", "prl", "--unlabelled", "PHOTOS", "--hold-out-classes", "3"], "leave one of the two"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    words: list[str], message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [str(photos) if word == "PHOTOS" else word for word in words]
    assert main([*words, *WORDS, "--runs-dir", str(tmp_path / "runs")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., Run]:
    def run_of(name: str, *words: str, code: int = 0) -> Run:
        small = ["--epochs", "2", "--batch-size", "8", "--unlabelled-ratio", "2", "--width", "0.125"]
        assert main([*words, *WORDS, *small, "--name", name, "--runs-dir", str(tmp_path / "runs")]) == code
        return Run(tmp_path / "runs" / name)

    return run_of


@pytest.mark.slow
def test_a_folder_of_pictures_from_the_command_to_the_record_and_on_after_a_stop(
    run_of: Callable[..., Run], photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["pretrain", "--variant", "prl", "--checkpoint-steps", "3", "--unlabelled"]
    whole = run_of("whole", *words, str(photos))
    assert whole.part("options", "unlabelled") == str(photos)
    assert {"used", "unlabelled_loss", "val_loss"} <= set(whole.metrics[-1])
    assert not {"val_used", "val_unlabelled_loss"} & set(whole.metrics[-1])
    dataset = load_dataset("digits", **SMALL)
    found = open_unlabelled(str(photos), dataset, REQUEST)
    assert whole.part("data", "unlabelled_sha256") == found.sha256
    expected = np.union1d(short_digests(dataset.train.images), short_digests(found.images))
    np.testing.assert_array_equal(seen_by(whole), expected)

    with monkeypatch.context() as patch:
        stop_after_first_checkpoint(patch)
        run_of("broken", *words, str(photos), code=130)
    photos.rename(photos.parent / "moved")
    broken = run_of("broken", *words, str(photos.parent / "moved"))
    assert broken.result["encoder_sha256"] == whole.result["encoder_sha256"]
    next((photos.parent / "moved" / "deep" / "er").iterdir()).unlink()
    config = json.loads((broken.path / "config.json").read_text())
    (broken.path / "result.json").unlink()
    run_of("broken", *words, str(photos.parent / "moved"), code=2)
    assert json.loads((broken.path / "config.json").read_text()) == config


@pytest.mark.slow
def test_a_baseline_learns_from_a_folder_too(run_of: Callable[..., Run], photos: Path) -> None:
    run = run_of("fix", "baseline", "--recipe", "strong", "--unlabelled", str(photos))
    assert {"used", "unlabelled_loss", "val_accuracy"} <= set(run.metrics[-1])
    assert run.part("options", "label_smoothing") == 0.0
    assert len(seen_by(run)) == 50 + 66 - 6


@pytest.mark.slow
def test_python_gives_the_weights_of_the_command(run_of: Callable[..., Run], photos: Path) -> None:
    dataset = load_dataset("digits", **SMALL)
    images = open_unlabelled(str(photos), dataset, REQUEST).images
    run = run_of("whole", "pretrain", "--variant", "prl", "--unlabelled", str(photos))
    options = {"variant": "prl", "epochs": 2, "batch_size": 8, "unlabelled_ratio": 2, "width": 0.125}
    encoder = pretrain(dataset, unlabelled=images, **options)
    from prl_keras.models.storage import load_encoder

    np.testing.assert_array_equal(encode(encoder, dataset.test.images), encode(load_encoder(run), dataset.test.images))


# the campaign


@pytest.mark.parametrize("row", semi.ROWS)
@pytest.mark.parametrize(("labels", "ratio", "simclrs"), [(450, 1, 5), (450, 3, 10), (20, 3, 4), (5, 1, 1)])
def test_every_row_of_the_campaign_is_a_command_with_the_recipes_budget(
    row: str, labels: int, ratio: int, simclrs: int, tmp_path: Path
) -> None:
    asked = argparse.Namespace(labels=labels, ratio=ratio, precision="float32", runs_dir=tmp_path)
    made = semi.commands(row, 3, asked)
    options = [parse(words) for _, words in made]
    assert [each.name for each in options] == [name for name, _ in made]
    assert {(each.seed, each.recipe, each.runs_dir) for each in options} == {(3, "strong", tmp_path)}
    assert options[0].samples_per_class == (None if labels == 450 else labels)
    assert options[0].unlabelled is True
    last = options[-1]
    assert last.augment == "strong"
    assert "epochs" not in last.given, "it takes the recipe's, to fit the images"
    if row == "simclr-tuned":  # 225,000 images and as many or thrice as many beside them, or 45,000 in two views
        assert (options[0].variant, options[0].epochs) == ("simclr", simclrs)
        assert (last.encoder, last.freeze) == (made[0][0], False)
    else:
        assert (last.unlabelled_ratio, len(options)) == (ratio, 1)


def test_the_campaign_sums_up_what_is_finished_beside_labels_alone() -> None:
    def bits(correct: int) -> str:
        return base64.b64encode(np.packbits(np.arange(20) < correct).tobytes()).decode()

    lines, finals = [], []
    for seed, correct in ((0, 9), (1, 11)):
        about = {"labels": 20, "ratio": 3, "seed": seed, "seconds": 60.0, "precision": "float32", "test_sha256": "a"}
        right = {"linear probe/test": bits(correct + 2), "linear probe/development": bits(correct)}
        lines.append({"row": "prl-unlabelled", "n": dict.fromkeys(semi.SETS, 20), "right": right, **about})
        alone = {"own head": {"right": bits(correct - seed)}, "linear probe": {"right": bits(20)}}
        finals.append({"row": "strong-resnet18", "n": 20, "classifiers": alone, **about})
    finals.append(finals[0] | {"seed": 2})  # of which there is none with unlabelled images
    lines.append(lines[0] | {"ratio": 7})
    accuracies, differences, *of_another_ratio = semi.tables(lines, finals)
    assert accuracies.startswith("| 20 labels a class, 3 unlabelled for each, test |")
    assert "| prl-unlabelled | 1 |" in of_another_ratio[0]
    assert "| ce | 2 | 47.5 (15.7 - 79.3) |  |  | 100.0 |" in accuracies
    assert "| prl-unlabelled | 2 |  |  |  | 60.0 (" in accuracies
    assert "| 50.0 (" in accuracies
    assert "| prl-unlabelled minus ce | 2 | +12.50 |" in differences, "(2 + 3) / 2 of 20 images"
    assert semi.tables([], finals) == []
    with pytest.raises(SystemExit, match="different test images"):
        semi.tables(lines, [line | {"test_sha256": "b"} for line in finals])


@pytest.mark.parametrize("labels", [10, 20, 50, 450])
def test_a_training_beside_unlabelled_images_takes_as_many_labelled_ones_as_the_recipe(labels: int) -> None:
    options = parse(semi.ROWS["prl-unlabelled"][0])
    there_are = np.repeat(np.arange(10), labels)
    assert semi.images(labels) == fitted(options, there_are)[0].epochs * len(there_are)


def test_what_of_a_row_is_finished_is_not_trained_again(tmp_path: Path, monkeypatch) -> None:
    codes = iter((0, 3))
    asked = []
    monkeypatch.setattr(semi, "command_line", lambda words: asked.append(words) or next(codes))
    run = create_run(tmp_path, "done", {})
    (run.path / "result.json").write_text('{"epochs": 1}', encoding="utf-8")
    made = [("done", ["1"]), ("second", ["2"]), ("third", ["3"]), ("fourth", ["4"])]
    assert semi.one(made, tmp_path) == 3
    assert asked == [["2"], ["3"]], "what comes after a failure is not begun"
    monkeypatch.setattr(semi, "measure", lambda run: {"of": run.name})
    assert semi.one(made[:1], tmp_path) == 0
    assert json.loads((run.path / semi.MEASURED).read_text(encoding="utf-8")) == {"of": "done"}
