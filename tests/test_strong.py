"""Recipes: what each option comes to, and that every part of a strong training is there when it is asked for."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from prl_keras import load_dataset
from prl_keras.cli import main
from prl_keras.config import Baseline, DataOptions, Finetune, Pretrain, unused_but_given
from prl_keras.data.batches import Batches
from prl_keras.errors import InputError
from prl_keras.memory import matched_temperature
from prl_keras.models import build_classifier
from prl_keras.recipes import DECIDING, NAMES, RECIPES
from prl_keras.runs import Run, create_run
from prl_keras.runs.lifecycle import check_same
from prl_keras.screen.console import console
from prl_keras.training import pretraining
from prl_keras.training.average import adam_of
from prl_keras.training.build import build_encoder, build_pretrainer
from prl_keras.training.finetuning import augmented, compile_classifier
from prl_keras.training.fitted import fitted
from prl_keras.training.mixed import MixedClassifier

SHAPE = (12, 12, 3)
DATA = ["--dataset", "digits", "--samples-per-class", "13", "--test-per-class", "5", "--image-size", "12"]
OPTIONS = {
    **dict.fromkeys(("query", "standard", "loo", "views", "prl", "simclr", "supcon"), Pretrain),
    **dict.fromkeys(("mlp", "resnet18"), Baseline),
    "finetune": Finetune,
}


def options_of(kind: str, **given: Any) -> Any:
    names = {Pretrain: {"variant": kind}, Baseline: {"model": kind}, Finetune: {}}
    return OPTIONS[kind](**names[OPTIONS[kind]], **given)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", OPTIONS)
def test_what_is_not_given_is_the_recipes(name: str, kind: str) -> None:
    options, recipe = options_of(kind, recipe=name), RECIPES[name][kind]
    for field in DECIDING:
        if hasattr(options, field):
            assert getattr(options, field) == getattr(recipe, field), field
    assert options.average, "a flag, which is the same in all recipes"


def test_the_recipe_for_classes_to_come_is_the_strong_one_with_other_views_and_unsmoothed_prototypes() -> None:
    strong, of_open = RECIPES["strong"], RECIPES["open"]
    for kind in ("query", "standard", "loo", "views", "prl"):
        assert of_open[kind].deciding == strong[kind].deciding | {"augment": "simclr", "label_smoothing": 0.0}
    for kind in ("supcon", "resnet18"):
        assert of_open[kind].deciding == strong[kind].deciding | {"augment": "simclr"}
    assert all(of_open[kind] == strong[kind] for kind in ("simclr", "mlp", "pca", "finetune"))


def test_recipes_are_shown_kind_by_kind_on_a_narrow_terminal(monkeypatch, capsys) -> None:
    monkeypatch.setattr(console, "width", 80)
    assert main(["recipes"]) == 0
    said = capsys.readouterr().out
    assert said.count("what decides a training") == 3
    for line in (" option              ┃ paper     ┃ strong  ┃ open ", " option              ┃ paper, strong ┃ open "):
        assert line in said
    assert "resnet18, open: " in said
    assert "command: python main.py pretrain --variant prl --recipe strong" in said, "the name that has no other record"


def test_help_names_the_recipes_that_share_a_default_once(capsys) -> None:
    assert main(["pretrain", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(the paper: none). (default: none)" in said
    assert "(default: paper constant or cosine, strong and open cosine)" in said


@pytest.mark.parametrize("kind", OPTIONS)
def test_what_is_given_overrules_the_recipe(kind: str) -> None:
    given = {"epochs": 3, "batch_size": 7, "learning_rate": 0.5, "weight_decay": 0.25, "label_smoothing": 0.0}
    options = options_of(kind, recipe="strong", schedule="constant", augment="light", decay="all", **given)
    assert {name: getattr(options, name) for name in given} == given
    assert (options.schedule, options.augment, options.decay) == ("constant", "light", "all")


def test_the_papers_recipe_is_the_papers() -> None:
    query, head = Pretrain(), Finetune()
    assert (query.epochs, query.batch_size, query.learning_rate) == (25, 256, 1e-3)
    assert (head.epochs, head.batch_size, head.learning_rate) == (25, 128, 1e-3)
    for options in (query, head):
        assert (options.schedule, options.weight_decay, options.label_smoothing) == ("constant", 0.0, 0.0)
        assert (options.mix, options.augment) == ("none", None if options is query else "none")


def test_another_distance_brings_its_own_temperature() -> None:
    assert Pretrain(recipe="strong", variant="loo").temperature == 0.1
    assert Pretrain(recipe="strong", variant="loo", distance="euclidean").temperature is None
    assert Pretrain(recipe="strong", variant="loo", distance="euclidean", temperature=2.0).temperature == 2.0


def test_an_unknown_recipe_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="no recipe 'weak' of 'query'"):
        Pretrain(recipe="weak")


def test_an_explicit_default_that_does_nothing_is_refused_too(capsys: pytest.CaptureFixture) -> None:
    assert main(["baseline", "--model", "pca", "--epochs", "25"]) == 2
    assert "--epochs does nothing with --model pca" in capsys.readouterr().err
    assert main(["pretrain", "--mix-alpha", "1.0", "--variant", "prl"]) == 2
    assert "--mix-alpha does nothing with --mix none" in capsys.readouterr().err
    assert main(["pretrain", "--mix", "mixup", "--variant", "loo"]) == 2
    assert "--mix does nothing with --variant loo" in capsys.readouterr().err


@pytest.mark.parametrize(("schedule", "rates"), [("constant", (0.5, 0.5, 0.5)), ("cosine", (0.0, 0.5, 0.0))])
def test_the_schedule_is_the_options(schedule: str, rates: tuple[float, ...]) -> None:
    options = Baseline(schedule=schedule, warmup=0.1, learning_rate=0.5, weight_decay=0.2, decay="kernels")
    optimizer = adam_of(options, 100)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer.build(model.trainable_variables)
    for step, rate in zip((0, 10, 100), rates, strict=True):
        optimizer.iterations.assign(step)
        assert float(optimizer.learning_rate) == pytest.approx(rate, abs=1e-6)
    assert optimizer.weight_decay == 0.2
    decays = [optimizer._use_weight_decay(variable) for variable in model.trainable_variables]
    assert decays == [True, False]
    everything = adam_of(dataclasses.replace(options, decay="all"), 100)
    assert all(everything._use_weight_decay(variable) for variable in model.trainable_variables)


def test_prl_2_compares_the_features_themselves_around_their_mean() -> None:
    head = build_pretrainer(Pretrain(variant="prl"), SHAPE, 4, np.arange(8) % 4).projection_head
    assert [layer.name for layer in head.layers] == ["neck"]
    usual = build_pretrainer(Pretrain(variant="loo"), SHAPE, 4).projection_head
    assert [layer.name for layer in usual.layers] == ["projection_hidden", "projection"]


def test_the_temperature_is_learned_if_it_is_asked_for() -> None:
    learned, fixed = (
        build_pretrainer(Pretrain(variant="prl", learn_temperature=yes), SHAPE, 4, np.arange(8) % 4)
        for yes in (True, False)
    )
    assert learned.log_scale.trainable
    assert not fixed.log_scale.trainable
    assert unused_but_given(Pretrain(variant="loo", learn_temperature=True)) == ("--learn-temperature", "--variant loo")


@pytest.mark.parametrize("variant", ["query", "loo", "views", "simclr", "supcon", "prl"])
@pytest.mark.usefixtures("whole_network")
def test_a_pretrainer_has_the_smoothing_and_the_width(variant: str) -> None:
    options = Pretrain(variant=variant, recipe="strong", label_smoothing=0.2, width=0.25)
    pretrainer = build_pretrainer(options, SHAPE, 3, np.arange(30) % 3)
    assert pretrainer.embedding_loss.label_smoothing == 0.2
    assert pretrainer.encoder.output_shape == (None, 128)
    assert pretrainer.projection_head.input_shape == (None, 128)
    if variant == "prl":
        assert pretrainer.options["label_smoothing"] == 0.2
        assert float(pretrainer.temperature) == pytest.approx(1.5 / math.log((0.8 + 0.2 / 3) / (0.2 / 3)), rel=1e-5)


def test_prl_mixes_its_queries_only_if_asked() -> None:
    mixed = build_pretrainer(Pretrain(variant="prl", mix="cutmix"), SHAPE, 3, np.arange(30) % 3)
    assert mixed.mixing.get_config()["kind"] == "cutmix"
    plain = build_pretrainer(Pretrain(variant="prl"), SHAPE, 3, np.arange(30) % 3)
    _, share = plain.mixing(np.zeros((4, *SHAPE)), training=True)
    assert share.numpy().tolist() == [1, 1, 1, 1]


def test_classes_a_batch_are_the_options_and_no_more_than_there_are() -> None:
    dataset = load_dataset("digits", samples_per_class=100, image_size=12)
    options = Pretrain(variant="loo", recipe="strong", width=0.125, classes_per_batch=5, batch_size=20)
    batches = pretraining.plan(dataset, options).batches
    for step in range(len(batches)):
        assert sorted(np.unique(batches[step][1], return_counts=True)[1].tolist()) == [4] * 5
    three = dataclasses.replace(
        dataset,
        class_names=dataset.class_names[:3],
        train=dataclasses.replace(dataset.train, images=dataset.train.images[:300], labels=np.repeat([0, 1, 2], 100)),
    )
    asked = Pretrain(variant="loo", recipe="strong", width=0.125, epochs=1, classes_per_batch=9, batch_size=60)
    assert pretraining.plan(three, asked).batches.batch_size == 60
    assert fitted(Pretrain(variant="loo", recipe="strong"), np.repeat([0, 1, 2], 500))[0].batch_size == 99, (
        "the recipe's 100 are for ten classes"
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_classifier_learns_from_smoothed_targets(smoothing: float) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    compile_classifier(model, Baseline(label_smoothing=smoothing), 10)
    labels, logits = np.array([1, 3]), np.array([[1.0, 2, 3, 4], [0, 0, 1, 0]])
    log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    found = float(model.loss(labels, logits.astype("float32")))
    assert found == pytest.approx(-np.mean(np.sum(target * log_probability, axis=1)), abs=1e-5)


@pytest.fixture
def mixed() -> MixedClassifier:
    options = Baseline(mix="mixup", mix_probability=1.0, width=0.125, label_smoothing=0.1, seed=3)
    classifier = build_classifier(build_encoder(options, SHAPE), 3)
    model = augmented(classifier, SHAPE, options)
    compile_classifier(model, options, 10)
    return model


@pytest.mark.slow
def test_a_mixed_classifier_is_asked_for_both_classes_in_their_shares(mixed: MixedClassifier) -> None:
    """Recomputed for the step's own draw: the generator's state of before gives the same images again."""
    images = np.random.default_rng(0).integers(0, 256, (6, *SHAPE)).astype("uint8")
    labels = np.array([0, 1, 2, 0, 1, 2])
    state = np.array(mixed.mixing.generator.state)
    before = [np.array(weight) for weight in mixed.weights]
    loss = mixed.train_on_batch(images, labels)
    moved = [not np.array_equal(old, new) for old, new in zip(before, mixed.weights, strict=True)]
    assert any(moved)
    for weight, old in zip(mixed.weights, before, strict=True):
        weight.assign(old)
    mixed.mixing.generator.state.assign(state)
    hard, share = (np.array(part) for part in mixed.mixing(images, training=True))
    assert len(np.unique(share)) == 6
    logits = np.array(mixed.classifier(hard, training=True), "float64")
    log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def entropy(which: np.ndarray) -> np.ndarray:
        return -np.sum((0.9 * np.eye(3)[which] + 0.1 / 3) * log_probability, axis=1)

    expected = np.mean(share * entropy(labels) + (1 - share) * entropy(np.roll(labels, 1)))
    assert float(np.ravel(loss)[0]) == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Run]:
    def train(command: str, name: str, *words: str) -> Run:
        words = (*words, *DATA, "--epochs", "2", "--batch-size", "32", "--name", name, "--runs-dir", str(tmp_path))
        assert main([command, *words]) == 0
        return Run(tmp_path / name)

    return train


@pytest.mark.parametrize("and_more", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_strong_runs_are_whole_runs_and_keep_what_their_recipe_came_to(
    trained: Callable[..., Run], and_more: bool
) -> None:
    run = trained("pretrain", "prl", "--variant", "prl", "--recipe", "strong", "--width", "0.125")
    options = run.part("options")
    assert (options["recipe"], options["width"], options["schedule"]) == ("strong", 0.125, "cosine")
    assert options["learning_rate"] == RECIPES["strong"]["prl"].learning_rate
    line = run.metrics[-1]
    assert line["chance_loss"] == pytest.approx(math.log(10), abs=1e-5)
    assert line["least_loss"] < line["loss"] < line["chance_loss"] + 0.5
    if not and_more:
        return
    assert main(["evaluate", str(run.path)]) == 0
    assert main(["visualize", str(run.path), "--before", "--split", "test"]) == 0
    words = ["--recipe", "strong", "--name", "head", "--runs-dir", str(run.path.parent), "--epochs", "2"]
    assert main(["finetune", "--encoder", "prl", *words]) == 0
    mixed = trained("baseline", "mixed", "--mix", "cutmix", "--width", "0.125", "--stem", "stride2")
    assert mixed.part("options")["mix"] == "cutmix"
    assert json.loads((mixed.path / "result.json").read_text())["accuracy"]["test"]["n"] == 50


def test_a_run_of_a_version_without_recipes_is_continued(tmp_path: Path) -> None:
    """Its record knows neither recipes nor their parts, and left to None what they decide today."""
    left_out = {"resume", "name", "runs_dir", "checkpoint_steps", *(f.name for f in dataclasses.fields(DataOptions))}
    new = dataclasses.asdict(Pretrain(variant="simclr"))
    new = {name: value for name, value in new.items() if name not in left_out}
    data = {"request": {"name": "digits"}, "fingerprint": "0", "class_names": ["a"], "image_shape": [8, 8, 3]}
    old = new | {"augment": None, "temperature": None}
    for name in ("recipe", "mix", "mix_alpha", "schedule", "warmup", "decay", "width", "classes_per_batch"):
        del old[name]
    run = create_run(tmp_path, "old", {"command": "pretrain", "options": old, "data": data})
    check_same(run, {"command": "pretrain", "options": new, "data": data})
    with pytest.raises(InputError, match="schedule = constant, not cosine"):
        check_same(run, {"command": "pretrain", "options": new | {"schedule": "cosine"}, "data": data})


@pytest.mark.parametrize("variant", ["loo", "prl"])
def test_a_batch_of_rows_is_a_batch_of_images(variant: str) -> None:
    dataset = load_dataset("digits", samples_per_class=13, image_size=12)
    plan = pretraining.plan(dataset, Pretrain(variant=variant, width=0.125, batch_size=32))
    inputs, labels = plan.batches[0]
    assert isinstance(plan.batches, Batches)
    images, rows = inputs if variant == "prl" else (inputs, plan.batches.rows(0))
    np.testing.assert_array_equal(images, dataset.train.images[rows])
    np.testing.assert_array_equal(labels, dataset.train.labels[rows])


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("pretrain", ["--label-smoothing", "1"], "--label-smoothing is 1.0; expected a number from 0, below 1"),
        ("baseline", ["--label-smoothing", "-0.1"], "--label-smoothing is -0.1"),
        ("baseline", ["--mix", "mixup", "--mix-alpha", "0"], "--mix-alpha is 0.0; expected a number above 0"),
        ("pretrain", ["--variant", "prl", "--mix", "cutmix", "--mix-probability", "2"], "--mix-probability is 2.0"),
        ("pretrain", ["--variant", "prl", "--memory-momentum", "1"], "--memory-momentum is 1.0"),
        ("pretrain", ["--variant", "prl", "--soft-weight", "1.5"], "--soft-weight is 1.5"),
        ("baseline", ["--width", "0"], "--width is 0.0; expected a number above 0, at most 4"),
        ("baseline", ["--schedule", "cosine", "--warmup", "1"], "--warmup is 1.0"),
        ("baseline", ["--weight-decay", "-1"], "--weight-decay is -1.0"),
        ("pretrain", ["--temperature", "0"], "--temperature is 0.0"),
        ("pretrain", ["--variant", "loo", "--classes-per-batch", "3", "--batch-size", "32"], "shared equally"),
        ("pretrain", ["--variant", "loo", "--classes-per-batch", "1"], "--classes-per-batch is 1"),
    ],
)
def test_a_value_that_no_training_can_use_is_one_line_and_leaves_nothing(
    command: str, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([command, *DATA, "--runs-dir", str(tmp_path), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_search_takes_from_the_recipe_what_it_does_not_search() -> None:
    from prl_keras.config import Tune
    from prl_keras.tuning.space import PAPER, finetune_options

    values = {**PAPER, "encoder": "a", "head": "mlp", "freeze": True, "learning_rate": 0.5}
    for recipe, schedule, smoothing in (("paper", "constant", 0.0), ("strong", "cosine", 0.1)):
        settings = finetune_options(values, Tune(recipe=recipe))
        assert (settings.schedule, settings.label_smoothing, settings.head) == (schedule, smoothing, "mlp")
        assert (settings.learning_rate, settings.weight_decay) == (0.5, PAPER["weight_decay"])


def test_prl_without_smoothing_has_the_temperature_of_other_cosines() -> None:
    """Targets that are not smoothed are met at no temperature."""
    labels = np.arange(12) % 3
    for given, expected in (({}, 0.1), ({"temperature": 0.3}, 0.3), ({"label_smoothing": 0.1}, None)):
        options = Pretrain(variant="prl", recipe="strong", width=0.125, **({"label_smoothing": 0.0} | given))
        found = float(build_pretrainer(options, (28, 28, 3), 3, labels).temperature)
        assert found == pytest.approx(expected or matched_temperature(3, 0.1))
