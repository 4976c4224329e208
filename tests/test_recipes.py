"""What the commands train: each variant's loss, the averaged weights and their statistics, and never a look at test.

Everything is computed a second time, from the options, by other means: slow loops, sums over recorded steps.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import reference

import prl_keras
from prl_keras import load_dataset
from prl_keras.cli import main
from prl_keras.commands import pretrain
from prl_keras.config import Pretrain
from prl_keras.data.augment import augmentation
from prl_keras.data.batches import Batches
from prl_keras.models import projection_head, resnet18
from prl_keras.models.layer_types import FAST
from prl_keras.models.storage import load_model
from prl_keras.recipes import CONTRASTIVE, VIEWS
from prl_keras.runs import Run
from prl_keras.training import callbacks, finetuning, pretraining
from prl_keras.training.build import build_pretrainer

SIZE = 8
DATA = ["--dataset", "digits", "--samples-per-class", "10", "--test-per-class", "5", "--image-size", str(SIZE)]
EPOCHS, BATCH = 4, 30  # of 100 images: three whole batches, and 10 more
HOW = ["--epochs", str(EPOCHS), "--batch-size", str(BATCH)]


# The loss ------------------------------------------------------------------------------------------------


def prototypical(variant: str, distance: str, temperature: float) -> Callable[..., float]:
    return lambda labels, z: reference.prototypical_loss(labels, z, 5, variant, distance, temperature)


def cross_view(distance: str, temperature: float) -> Callable[..., float]:
    return lambda labels, z: reference.cross_view_loss(labels, *np.split(z, 2), 5, distance, temperature)


def nt_xent(temperature: float) -> Callable[..., float]:
    return lambda _, z: reference.nt_xent_loss(*np.split(z, 2), temperature)


def supcon(temperature: float) -> Callable[..., float]:
    return lambda labels, z: reference.supervised_contrastive_loss(np.tile(labels, 2), z, temperature)


RECIPES: list[tuple[dict[str, Any], str, Callable[..., float]]] = [
    ({"variant": "query"}, "none", prototypical("query", "euclidean", 1.0)),
    ({"variant": "standard"}, "none", prototypical("standard", "euclidean", 1.0)),
    ({"variant": "loo", "augment": "light"}, "light", prototypical("loo", "euclidean", 1.0)),
    ({"variant": "loo", "temperature": 3.0}, "none", prototypical("loo", "euclidean", 3.0)),
    ({"variant": "query", "distance": "squared"}, "none", prototypical("query", "squared", 1.0)),
    ({"variant": "query", "distance": "cosine"}, "none", prototypical("query", "cosine", 0.1)),
    ({"variant": "standard", "distance": "cosine", "temperature": 1.0}, "none", prototypical("standard", "cosine", 1)),
    ({"variant": "views"}, "light", cross_view("cosine", 0.1)),
    ({"variant": "views", "distance": "euclidean", "augment": "strong"}, "strong", cross_view("euclidean", 1.0)),
    ({"variant": "simclr"}, "simclr", nt_xent(0.07)),
    ({"variant": "simclr", "temperature": 0.5, "augment": "light"}, "light", nt_xent(0.5)),
    ({"variant": "supcon"}, "simclr", supcon(0.1)),
    ({"variant": "supcon", "temperature": 0.3}, "simclr", supcon(0.3)),
]
ALSO_SLOWLY = (4, 6, 8, 9)  # what they are made of, another has too


@pytest.mark.parametrize(
    ("given", "augment", "loss"),
    [
        pytest.param(*row, id=str(row[0]), marks=[pytest.mark.slow] if place in ALSO_SLOWLY else [])
        for place, row in enumerate(RECIPES)
    ],
)
def test_the_first_loss_of_a_recipe_is_that_of_the_slow_loop(
    given: dict[str, Any], augment: str, loss: Callable[..., float]
) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (16, SIZE, SIZE, 3), dtype=np.uint8)
    labels = random.integers(0, 5, 16)
    keras.utils.set_random_seed(3)
    model = build_pretrainer(Pretrain(seed=3, **given), (SIZE, SIZE, 3), 5)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    found = model.train_on_batch(images, labels, return_dict=True)["loss"]

    keras.utils.set_random_seed(3)  # the same weights, without the recipe
    views = 2 if given["variant"] in VIEWS else 1
    preprocessing = "centred" if given["variant"] in CONTRASTIVE else "unit"
    encoder = resnet18((SIZE, SIZE, 3), None, preprocessing, FAST)
    head = projection_head(128, input_dim=encoder.output_shape[-1])
    seen = augmentation(augment, (SIZE, SIZE), 3)(np.concatenate([images] * views), training=True)
    assert found == pytest.approx(loss(labels, head(encoder(seen, training=True)).numpy()), rel=2e-4)


# The commands --------------------------------------------------------------------------------------------


class Poisoned:
    """A data set whose test split must not be looked at yet."""

    def __init__(self, dataset: Any):
        self._dataset = dataset

    def __getattr__(self, name: str) -> Any:
        assert name != "test", "the training looked at the test split"
        return getattr(self._dataset, name)


class Trainings:
    """Commands that were run, each with the trainable weights after each of its steps, and the rows of each step."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.steps: dict[str, list[list[np.ndarray]]] = {}
        self.rows: dict[str, list[np.ndarray]] = {}
        self.data: Any = None

    def run(self, name: str, *words: str) -> None:
        steps = self.steps[name] = []
        rows = self.rows[name] = []
        noted, opened = callbacks.FiniteGuard.on_train_batch_end, pretrain.open_data

        def note(guard: callbacks.FiniteGuard, batch: int, logs: dict | None = None) -> None:
            noted(guard, batch, logs)
            steps.append([np.array(weight) for weight in guard.model.trainable_variables])
            rows.append(guard.batches.rows(batch))

        def poisoned(*arguments: Any, **options: Any) -> Poisoned:
            self.data = opened(*arguments, **options)
            return Poisoned(self.data)

        def without_test(train: Callable[..., Any]) -> Callable[..., Any]:
            return lambda model, data, *rest: train(model, Poisoned(data), *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(callbacks.FiniteGuard, "on_train_batch_end", note)
            patch.setattr(pretrain, "open_data", poisoned)
            for function in ("train", "train_classifier"):  # the commands test once, after these
                patch.setattr(finetuning, function, without_test(getattr(finetuning, function)))
            assert main([*words, "--name", name, "--runs-dir", str(self.folder)]) == 0

    def encoder(self, name: str) -> keras.Model:
        run = Run(self.folder / name)
        return load_model(run.encoder_file) if run.encoder_file.exists() else self.classifier(name).get_layer("encoder")

    def classifier(self, name: str) -> keras.Model:
        return load_model(Run(self.folder / name).classifier_file)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    done = Trainings(tmp_path_factory.mktemp("runs"))
    done.run("pretrain", "pretrain", "--variant", "loo", *DATA, *HOW)
    done.run("finetune", "finetune", "--encoder", "pretrain", "--no-freeze", *HOW)
    done.run("last", "baseline", "--model", "mlp", "--no-average", *DATA, *HOW)
    return done


@pytest.fixture(scope="module")
def with_baseline(trainings: Trainings) -> Trainings:
    trainings.run("baseline", "baseline", "--model", "resnet18", *DATA, *HOW)
    return trainings


AVERAGED = ["pretrain", "finetune", pytest.param("baseline", marks=pytest.mark.slow)]  # it trains as finetune does


def test_pretraining_takes_whole_batches_and_the_others_every_image(trainings: Trainings) -> None:
    images = len(trainings.data.train)
    assert images == 100
    for name, steps in (("pretrain", images // BATCH), ("finetune", 4), ("last", 4)):
        sizes = [len(rows) for rows in trainings.rows[name]]
        assert sizes == ([BATCH] * steps if name == "pretrain" else [BATCH] * 3 + [10]) * EPOCHS
        for epoch in range(EPOCHS):
            seen = np.concatenate(trainings.rows[name][epoch * steps : (epoch + 1) * steps])
            assert len(np.unique(seen)) == len(seen) == sum(sizes[:steps])


@pytest.mark.parametrize("name", AVERAGED)
def test_what_is_saved_is_the_average_over_the_last_tenth_of_the_steps(
    request: pytest.FixtureRequest, name: str
) -> None:
    trainings = request.getfixturevalue("with_baseline" if name == "baseline" else "trainings")
    steps = trainings.steps[name]
    momentum = 1 - 1 / (0.1 * len(steps))
    average = steps[0]
    for weights in steps[1:]:
        average = [momentum * old + (1 - momentum) * new for old, new in zip(average, weights, strict=True)]
    saved = trainings.encoder(name) if name == "pretrain" else trainings.classifier(name)
    expected = average[: len(saved.trainable_weights)]  # of a pre-trainer: the encoder's come before the head's
    for want, last, got in zip(expected, steps[-1], saved.trainable_weights, strict=False):
        np.testing.assert_allclose(got, want, atol=1e-6)
        assert not np.allclose(got, last, atol=1e-6)


def test_without_averaging_the_last_step_is_saved(trainings: Trainings) -> None:
    for want, got in zip(trainings.steps["last"][-1], trainings.classifier("last").trainable_weights, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", AVERAGED)
def test_the_saved_statistics_are_those_of_the_averaged_weights(request: pytest.FixtureRequest, name: str) -> None:
    """Of the first batch normalisation, which sees nothing but the saved weights before it: by hand."""
    trainings = request.getfixturevalue("with_baseline" if name == "baseline" else "trainings")
    encoder, train = trainings.encoder(name), trainings.data.train
    inputs = keras.Model(encoder.inputs, encoder.get_layer("stem_bn").input)
    batches = Batches(train.images, train.labels, BATCH, seed=0, drop_remainder=name == "pretrain")
    values = [inputs.predict_on_batch(batches[step][0]) for step in range(len(batches))]
    weights = np.array([len(value) for value in values]) / batches.images
    layer = encoder.get_layer("stem_bn")
    for found, moment in ((layer.moving_mean, np.mean), (layer.moving_variance, np.var)):
        expected = sum(w * moment(value, axis=(0, 1, 2)) for w, value in zip(weights, values, strict=True))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_every_figure_of_an_epoch_is_of_train_or_validation(trainings: Trainings) -> None:
    """The test split was poisoned until the end; this says that validation was looked at, and which."""
    last = Run(trainings.folder / "finetune").metrics[-1]
    assert last["val_accuracy"] is not None
    validation = trainings.data.validation
    averaged = Run(trainings.folder / "last")
    logits = trainings.classifier("last").predict(validation.images, verbose=0)
    assert averaged.metrics[-1]["val_accuracy"] == pytest.approx(np.mean(logits.argmax(axis=1) == validation.labels))
    monitored = Run(trainings.folder / "pretrain").result["saved_encoder"]
    features = trainings.encoder("pretrain").predict(validation.images, verbose=0)
    train = trainings.data.train
    support = trainings.encoder("pretrain").predict(train.images, verbose=0)
    means = np.stack([support[train.labels == k].mean(axis=0) for k in range(10)])
    nearest = np.square(features[:, None] - means).sum(axis=-1).argmin(axis=1)
    assert monitored["val_prototype_accuracy"] == pytest.approx(np.mean(nearest == validation.labels), abs=0.015)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_public_functions_give_the_weights_of_the_commands(tmp_path: Path, precision: str) -> None:
    how = ["--epochs", "2", "--batch-size", "30", "--seed", "3", "--precision", precision, "--runs-dir", str(tmp_path)]
    assert main(["pretrain", "--variant", "supcon", "--name", "encoder", *DATA, *how]) == 0
    assert main(["finetune", "--encoder", "encoder", "--no-freeze", "--name", "head", *how]) == 0
    dataset = load_dataset("digits", samples_per_class=10, test_per_class=5, image_size=SIZE, seed=3)
    same = {"epochs": 2, "batch_size": 30, "seed": 3, "precision": precision}
    keras.config.set_dtype_policy("float32")
    encoder = prl_keras.pretrain(dataset, variant="supcon", **same)
    classifier = prl_keras.finetune(encoder, dataset, freeze=False, **same)
    assert keras.config.dtype_policy().name == "float32"
    for made, saved in ((encoder, "encoder/encoder.keras"), (classifier, "head/classifier.keras")):
        for ours, theirs in zip(made.weights, load_model(tmp_path / saved).weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("whole_network")
def test_the_projection_head_takes_what_the_encoder_gives() -> None:
    pretrainer = build_pretrainer(Pretrain(variant="simclr", width=0.125), (SIZE, SIZE, 3), 5)
    assert pretrainer.projection_head.input_shape == (None, 64)
    assert pretrainer(np.zeros((2, SIZE, SIZE, 3), "uint8")).shape == (2, 128)


# What is refused or said before it begins ----------------------------------------------------------------


def test_a_pretraining_without_queries_is_refused_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["pretrain", *DATA, "--runs-dir", str(tmp_path)]
    for size in ("2", "3"):
        assert main([*words, "--batch-size", size]) == 2
        error = capsys.readouterr().err
        assert f"--batch-size {size} leaves nothing to learn from" in error
        assert error.count("\n") == 1
    assert main([*words, "--samples-per-class", "1", "--batch-size", "8"]) == 2
    assert "there is nothing to learn" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_pretraining_says_what_it_will_be_measured_by(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--epochs", "1", "--batch-size", "16", "--runs-dir", str(tmp_path)]
    assert main(["pretrain", "--distance", "cosine", "--temperature", "1", *DATA, *words, "--name", "cosine"]) == 0
    output = capsys.readouterr().out
    line = Run(tmp_path / "cosine").metrics[0]
    assert output.count("warning: in batches of 16 of these 100 images only") == 1
    assert f"an encoder that tells nothing has loss {line['chance_loss']:.3f} and accuracy" in output
    assert f"the least possible loss is about {line['least_loss']:.3f}" in output
    assert f"(chance {line['chance_loss']:.3f}, at best about {line['least_loss']:.3f})" in output
    assert line["chance_loss"] < np.log(9)
    assert main(["pretrain", "--variant", "simclr", *DATA, *words, "--name", "simclr"]) == 0
    assert f"accuracy {1 / 31:.3f} at finding the other view" in capsys.readouterr().out
    line = Run(tmp_path / "simclr").metrics[0]
    assert line["chance_accuracy"] == pytest.approx(1 / 31, abs=1e-5)
    assert "least_loss" not in line
    folders = {path.name for path in (tmp_path / "simclr" / "logs").iterdir()}
    assert {"train", "validation", "chance", "chance_validation"} <= folders


def test_an_unfinished_cosine_run_of_another_default_temperature_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["pretrain", "--distance", "cosine", *DATA, "--batch-size", "30", "--runs-dir", str(tmp_path)]

    def stop(*arguments: Any) -> None:
        (arguments[-1].path / "checkpoint").mkdir()
        (arguments[-1].path / "checkpoint" / "epoch-00001.npz").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "train", stop)
    assert main([*words, "--name", "run"]) == 130
    config = Run(tmp_path / "run").config
    assert config["options"]["temperature"] == 0.1
    config["options"]["temperature"] = None  # as the first version wrote it, and took 1 for it
    pretrain.write_json(tmp_path / "run" / "config.json", config)
    capsys.readouterr()
    assert main([*words, "--name", "run"]) == 2
    assert "was started with temperature = None, not 0.1" in capsys.readouterr().err
