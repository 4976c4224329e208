"""The pre-trainer with a memory and a teacher: small encoders, real `fit`."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_training import CLASSES, Interrupt, pictures, small_encoder

from prl_keras.data.augment import augmentation
from prl_keras.data.batches import Batches
from prl_keras.errors import InputError
from prl_keras.memory import cross_entropy, matched_temperature, memory_episode
from prl_keras.models import projection_head
from prl_keras.models.layer_types import FAST
from prl_keras.models.storage import copy_as, weights_sha256
from prl_keras.runs import Run, create_run
from prl_keras.training.average import adam, recalibrate_batch_norm
from prl_keras.training.fit import fit
from prl_keras.training.memory import _PARTS, MemoryPretrainer, Unmixed

TIMING = ("seconds", "images_per_second")


class WithRows(Batches):
    """Batches of ((images, rows), labels)."""

    def __getitem__(self, step: int) -> tuple:
        rows = self.rows(step)
        return (self.inputs[rows], rows), self.labels[rows]


@keras.saving.register_keras_serializable("tests")
class Mixup(keras.Layer):
    """lambda uniform between `least` and 1, one in four images not mixed."""

    def __init__(self, least: float = 0.2, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.least, self.generator = least, keras.random.SeedGenerator(7)

    def call(self, images: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        lam = keras.random.uniform((tf.shape(images)[0],), self.least, 4 / 3 - self.least / 3, seed=self.generator)
        lam = tf.minimum(lam, 1.0)
        share, images = lam[:, None, None, None], tf.cast(images, tf.float32)
        return share * images + (1 - share) * tf.roll(images, 1, axis=0), lam

    def save_own_variables(self, store: dict) -> None:
        store["seed"] = np.array(self.generator.state)

    def load_own_variables(self, store: dict) -> None:
        self.generator.state.assign(np.array(store["seed"]))


def pretrainer(labels: np.ndarray, seed: int = 0, fast: bool = False, **options) -> MemoryPretrainer:
    encoder = small_encoder(seed)
    if fast:
        encoder = copy_as(encoder, None, FAST)
    options = {"temperature": 0.25, "label_smoothing": 0.1, **options}
    model = MemoryPretrainer(encoder, projection_head(8, 16, 16), labels, CLASSES, **options)
    model.build((None, 8, 8, 3))
    return model


def full(labels: np.ndarray, **options) -> MemoryPretrainer:
    """Everything that can be switched on is."""
    everything = {
        "augmentation": augmentation("light", (8, 8), 3),
        "clean_augmentation": augmentation("light", (8, 8), 4),
        "mixing": Mixup(),
        "soft_weight": 0.3,
        "soft_from": 0.4,
        "total_steps": 15,
        "learn_temperature": True,
        "fast": True,
    }
    return pretrainer(labels, **everything | options)


MAKERS = {"plain": pretrainer, "full": full}


def variables(model: keras.Model) -> list[np.ndarray]:
    return [np.array(variable) for variable in [*model.variables, *model.optimizer.variables]]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    for want, got in zip(first, second, strict=True):
        np.testing.assert_array_equal(want, got)


# learning


@pytest.mark.parametrize("name", ["plain", pytest.param("full", marks=pytest.mark.slow)])
def test_it_learns_pictures_that_can_be_told_apart(name: str) -> None:
    images, labels = pictures(128)
    model = MAKERS[name](labels, total_steps=48)
    model.compile(keras.optimizers.Adam(1e-2))
    batches = WithRows(images, labels, 16, seed=0)
    history = model.fit(batches, epochs=6, validation_data=pictures(64, seed=5), verbose=0, shuffle=False).history
    assert history["val_accuracy"][-1] > 0.85
    assert history["loss"][-1] < history["loss"][0]
    assert history["loss"][-1] < np.log(CLASSES)
    assert np.linalg.norm(model.memory, axis=1) == pytest.approx(np.ones(128), abs=1e-5)


def test_a_step_is_a_step_down_the_gradient_of_the_memory_loss() -> None:
    images, labels = pictures(32)
    rows = np.random.default_rng(0).permutation(32)[:12]
    model, by_hand = (pretrainer(labels, soft_weight=0.4) for _ in range(2))
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    memory = np.random.default_rng(1).normal(size=(32, 8)).astype("float32")
    memory /= np.linalg.norm(memory, axis=1, keepdims=True)
    model.memory.assign(memory)

    taught = by_hand.teach(images[rows]).numpy()
    memory[rows] = 0.5 * memory[rows] + 0.5 * taught
    memory /= np.linalg.norm(memory, axis=1, keepdims=True)
    soft = np.zeros((12, CLASSES))
    for i, row in enumerate(rows):
        rest = np.delete(memory, row, axis=0), np.delete(labels, row)
        means = np.stack([rest[0][rest[1] == k].sum(axis=0) for k in range(CLASSES)])
        soft[i] = tf.nn.softmax(means @ taught[i] / np.linalg.norm(means, axis=1) / 0.5)
    with tf.GradientTape() as tape:
        queries = by_hand.projection_head(by_hand.encoder(images[rows], training=True))
        options = {"soft_targets": soft.astype("float32"), "soft_weight": 0.4}
        loss = cross_entropy(memory_episode(queries, rows, memory, labels, CLASSES, 0.25, 0.1, **options))
    gradients = tape.gradient(loss, by_hand.trainable_variables)
    logs = model.train_on_batch((images[rows], rows), labels[rows], return_dict=True)
    assert logs["loss"] == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(model.memory, memory, atol=1e-6)
    for variable, start, gradient in zip(
        model.trainable_variables, by_hand.trainable_variables, gradients, strict=True
    ):
        np.testing.assert_allclose(variable, start - 0.1 * gradient, atol=2e-6)


def test_a_query_never_meets_its_own_image() -> None:
    """One image a class: with its own row each query would have an answer, without there is none."""
    images, labels = pictures(CLASSES)
    model = pretrainer(labels)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    before = [np.array(variable) for variable in model.trainable_variables]
    for _ in range(2):
        logs = model.train_on_batch((images, np.arange(CLASSES)), labels, return_dict=True)
        assert np.isnan(logs["loss"])
        assert np.isnan(logs["accuracy"])
    assert float(model.loss_tracker.total) == 0
    same(before, model.trainable_variables)
    assert np.abs(np.array(model.memory)).sum(axis=1).min() > 0


def test_nothing_is_left_out_in_validation() -> None:
    images, labels = pictures(32)
    model = pretrainer(labels, label_smoothing=0.0)
    model.compile("sgd", run_eagerly=True)
    model.memory.assign(model.teach(images))
    logs = model.evaluate(images, labels, batch_size=32, verbose=0, return_dict=True)
    queries = model.predict(images, verbose=0)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    sums = np.stack([np.array(model.memory)[labels == k].sum(axis=0) for k in range(CLASSES)])
    logits = queries @ (sums / np.linalg.norm(sums, axis=1, keepdims=True)).T / 0.25
    expected = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    assert logs["loss"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert logs["accuracy"] == pytest.approx(np.mean(logits.argmax(axis=1) == labels))


def test_validation_changes_nothing() -> None:
    images, labels = pictures(32)
    model = pretrainer(labels)
    model.compile("adam", run_eagerly=True)
    model.train_on_batch((images, np.arange(32)), labels)
    before = variables(model)
    model.evaluate(*pictures(16, seed=3), verbose=0)
    same(before, variables(model))


def test_accuracy_is_of_queries_that_are_mostly_their_own_image() -> None:
    images, labels = pictures(16)

    class Half(keras.Layer):
        def call(self, images: tf.Tensor, training: bool | None = None) -> tuple:
            return images, tf.constant([0.4, 0.9] * 8)

    model = pretrainer(labels, mixing=Half())
    model.compile("sgd", run_eagerly=True)
    model.train_on_batch((images, np.arange(16)), labels)
    assert float(model.accuracy.count) == 8
    assert float(model.loss_tracker.count) == 16


# the memory


def test_an_image_that_is_visited_is_remembered_and_the_others_are_not() -> None:
    images, labels = pictures(16)
    model = pretrainer(labels)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    first = model.teach(images[:4]).numpy()
    model.train_on_batch((images[:4], np.arange(4)), labels[:4])
    np.testing.assert_allclose(np.array(model.memory)[:4], first, atol=1e-6)
    np.testing.assert_array_equal(np.array(model.memory)[4:], 0)
    second = 0.5 * first + 0.5 * model.teach(images[:4]).numpy()
    model.train_on_batch((images[:4], np.arange(4)), labels[:4])
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    np.testing.assert_allclose(np.array(model.memory)[:4], second, atol=1e-6)


def test_of_a_row_that_is_twice_in_a_batch_the_last_image_counts() -> None:
    images, labels = pictures(16)
    rows = np.array([3, 5, 3, 3, 2, 5])
    shown = images[[0, 1, 2, 3, 4, 5]]
    model = pretrainer(labels, memory_momentum=0.0)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    taught = model.teach(shown).numpy()
    model.train_on_batch((shown, rows), labels[rows])
    np.testing.assert_allclose(np.array(model.memory)[[3, 5, 2]], taught[[3, 5, 4]], atol=1e-6)


# the teacher


def test_the_teacher_lags_and_follows() -> None:
    images, labels = pictures(64)
    model = pretrainer(labels, teacher_momentum=0.5)
    model.compile(keras.optimizers.Adam(1e-2))
    pairs = list(zip(model.teacher_encoder.weights, model.encoder.weights, strict=True))
    pairs += zip(model.teacher_head.weights, model.projection_head.weights, strict=True)
    assert all(np.array_equal(teacher, student) for teacher, student in pairs)
    expected = [np.array(teacher) for teacher, _ in pairs]
    for step in range(12):
        model.train_on_batch((images, np.arange(64)), labels)
        momentum = min(0.5, (1 + step) / (10 + step))
        expected = [momentum * old + (1 - momentum) * new for old, (_, new) in zip(expected, pairs, strict=True)]
        for want, (teacher, student) in zip(expected, pairs, strict=True):
            np.testing.assert_allclose(teacher, want, atol=1e-6)
            assert not np.array_equal(teacher, student)
    model.optimizer.learning_rate = 0.0
    for _ in range(40):
        model.train_on_batch((images, np.arange(64)), labels)
    for teacher, student in pairs:
        np.testing.assert_allclose(teacher, student, atol=1e-3)


def test_only_the_student_is_trained() -> None:
    labels = np.arange(16) % CLASSES
    model, learning = pretrainer(labels), pretrainer(labels, learn_temperature=True)
    student = [*model.encoder.trainable_variables, *model.projection_head.trainable_variables]
    assert {id(variable) for variable in model.trainable_variables} == {id(variable) for variable in student}
    assert len(learning.trainable_variables) == len(student) + 1


def test_the_teacher_answers_as_a_model_that_is_not_training() -> None:
    images, labels = pictures(16)
    model = pretrainer(labels)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    before = weights_sha256(model.teacher_encoder)
    np.testing.assert_array_equal(model.teach(images), model.teach(images))
    alone = np.concatenate([model.teach(images[i : i + 1]) for i in range(16)])
    np.testing.assert_allclose(model.teach(images), alone, atol=1e-5)
    assert weights_sha256(model.teacher_encoder) == before


# temperature and soft targets


def test_a_learned_temperature_moves_and_stays_above_a_hundredth() -> None:
    images, labels = pictures(32)
    model = pretrainer(labels, temperature=0.02, label_smoothing=0.0, learn_temperature=True)
    model.compile(keras.optimizers.Adam(0.3))
    for _ in range(12):
        model.train_on_batch((images, np.arange(32)), labels)
    assert 0.01 - 1e-7 <= float(model.temperature) != pytest.approx(0.02, rel=1e-6)
    model.log_scale.assign(5.0)  # of 0.0067
    model.train_on_batch((images, np.arange(32)), labels)
    assert float(model.temperature) == pytest.approx(0.01)


def test_soft_targets_begin_after_their_share_of_the_steps() -> None:
    images, labels = pictures(32)
    losses = []
    for options in ({"soft_weight": 0.0}, {"soft_weight": 0.5, "soft_from": 0.3, "total_steps": 10}):
        model = pretrainer(labels, **options)
        model.compile(keras.optimizers.SGD(0.0))
        losses.append([])
        for _ in range(5):
            model.reset_metrics()
            logs = model.train_on_batch((images, np.arange(32)), labels, return_dict=True)
            losses[-1].append(logs["loss"])
    assert losses[0][:3] == losses[1][:3]
    assert all(plain != soft for plain, soft in zip(losses[0][3:], losses[1][3:], strict=True))


def test_without_a_number_of_steps_soft_targets_begin_at_once() -> None:
    labels = np.arange(16) % CLASSES
    model = pretrainer(labels, soft_weight=0.5)
    model.compile("sgd", run_eagerly=True)
    assert float(model._soft_weight()) == 0.5


# the same bits


def trained(name: str, run: Run, steps: int | None = None, interrupt_at: int | None = None) -> list[np.ndarray]:
    images, labels = pictures(96)
    model = MAKERS[name](labels)
    model.compile(adam(1e-3, steps=15, average=True))
    batches = WithRows(images, labels, 32, seed=1)
    monitors = [] if interrupt_at is None else [Interrupt(interrupt_at)]
    fit(model, batches, 5, run, pictures(32, seed=9), monitors, checkpoint_steps=steps)
    return variables(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_a_training_that_is_continued_has_the_bits_of_one_that_was_not_interrupted(name: str, tmp_path: Path) -> None:
    whole, again, broken = (create_run(tmp_path, run, {}) for run in ("whole", "again", "broken"))
    expected = trained(name, whole)
    same(expected, trained(name, again))
    for interrupt_at in (0, 2):
        with pytest.raises(InterruptedError):
            trained(name, broken, steps=1, interrupt_at=interrupt_at)
    same(expected, trained(name, broken, steps=2))
    lines = [[{k: v for k, v in e.items() if k not in TIMING} for e in run.metrics] for run in (whole, broken)]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("name", ["full", pytest.param("plain", marks=pytest.mark.slow)])
def test_a_saved_pretrainer_goes_on_as_if_it_had_not_been_saved(name: str, tmp_path: Path) -> None:
    images, labels = pictures(64)
    model = MAKERS[name](labels[:, None])
    model.compile(keras.optimizers.Adam(1e-3))
    for _ in range(3):
        model.train_on_batch((images, np.arange(64)), labels)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))
    logs = []
    for each in (model, loaded):
        each.reset_metrics()
        logs.append(each.train_on_batch((images, np.arange(64)), labels, return_dict=True))
    assert logs[0] == logs[1]
    same(variables(model), variables(loaded))
    assert loaded.options == model.options
    np.testing.assert_array_equal(loaded.labels, labels)
    assert [type(getattr(loaded, part)) for part in _PARTS] == [type(getattr(model, part)) for part in _PARTS]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.usefixtures("restored_dtype_policy")
def test_it_stays_finite_in_every_precision(policy: str) -> None:
    keras.mixed_precision.set_global_policy(policy)
    images, labels = pictures(64)
    model = full(labels)
    optimizer = keras.optimizers.Adam(1e-2)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)
    model.compile(optimizer)
    batches = WithRows(images, labels, 32, seed=0)
    history = model.fit(batches, epochs=4, verbose=0, validation_data=(images, labels)).history
    assert np.isfinite(list(history.values())).all()
    assert all(np.isfinite(values).all() for values in variables(model))
    assert model.memory.dtype == "float32"
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.slow
def test_the_loss_is_scaled_where_the_optimizer_asks_for_it() -> None:
    """Else a step would be a 64th of itself."""
    images, labels = pictures(32)
    models = [pretrainer(labels) for _ in range(2)]
    models[0].compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    models[1].compile(
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=64.0), run_eagerly=True
    )
    for model in models:
        model.train_on_batch((images, np.arange(32)), labels)
    for plain, scaled in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(plain, scaled, atol=1e-5)


def test_the_shape_of_a_batch_with_rows_is_no_obstacle_to_recalibration() -> None:
    images, labels = pictures(64)
    model = pretrainer(labels)
    recalibrate_batch_norm(model.encoder, WithRows(images, labels, 32, seed=0), None)
    plain = pretrainer(labels)
    recalibrate_batch_norm(plain.encoder, Batches(images, labels, 32, seed=0), None)
    same(model.encoder.weights, plain.encoder.weights)


# what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"soft_temperature": -1.0}, "temperature is -1.0"),
        ({"memory_momentum": 1.5}, "memory_momentum is 1.5"),
        ({"teacher_momentum": -0.1}, "teacher_momentum is -0.1"),
        ({"soft_weight": 2}, "soft_weight is 2"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"total_steps": 0}, "total_steps is 0"),
    ],
)
def test_options_out_of_their_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pretrainer(np.arange(8) % CLASSES, **options)


@pytest.mark.parametrize("labels", [np.array([0, 1, CLASSES]), np.array([-1, 0]), np.array([], int)])
def test_labels_that_are_no_class_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected some, all from 0 to 3"):
        pretrainer(labels)


def test_data_without_rows_or_labels_or_with_other_labels_are_refused() -> None:
    images, labels = pictures(32)
    model = pretrainer(labels)
    model.compile("sgd")
    with pytest.raises(InputError, match="which of the training images"):
        model.fit(images, labels, verbose=0)
    with pytest.raises(InputError, match="learns from labels"):
        model.fit((images, np.arange(32)), verbose=0)
    with pytest.raises(InputError, match="not those of the memory"):
        model.fit(WithRows(images, 3 - labels, 16, seed=0), verbose=0)
    order = np.random.default_rng(0).permutation(32)
    for rows in (order[::-1], order + 1):  # of other images, and of none
        with pytest.raises(InputError, match="not those of the memory"):
            model.fit((images[order], rows), labels[order], verbose=0)
    model.fit((images[order], order), labels[order], verbose=0)
    with pytest.raises(InputError, match="takes no sample or class weights"):
        model.fit((images, np.arange(32)), labels, sample_weight=np.ones(32), verbose=0)
    model.fit((images, np.arange(32)), labels, verbose=0)


def test_unmixed_images_are_all_their_own() -> None:
    images = np.zeros((5, 8, 8, 3), "uint8")
    same_images, lam = Unmixed()(images)
    np.testing.assert_array_equal(same_images, images)
    np.testing.assert_array_equal(lam, np.ones(5))


@pytest.mark.slow
def test_the_recipe_of_the_documentation() -> None:
    images, labels = pictures(40)
    temperature = matched_temperature(CLASSES, 0.1)
    model = MemoryPretrainer(small_encoder(), projection_head(8, 16, 16), labels, CLASSES, temperature, 0.1)
    model.compile("adam")
    model.fit(WithRows(images, labels, 20, seed=0), epochs=1, verbose=0)
