"""A batch that fits the data, where nobody said otherwise."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prl_keras.config import Baseline, Finetune, Pretrain
from prl_keras.data.batches import Batches
from prl_keras.recipes import MOST_EPOCHS
from prl_keras.training.fitted import fitted


def labels(classes: int, each: int) -> np.ndarray:
    return np.repeat(np.arange(classes), each)


@pytest.mark.parametrize(
    ("images", "size"),
    [(4500, 256), (1293, 256), (1024, 256), (1023, 128), (600, 128), (200, 32), (17, 4), (9, 2), (3, 2)],
)
def test_the_default_leaves_four_batches_an_epoch(images: int, size: int) -> None:
    options, note = fitted(Pretrain(variant="supcon"), np.arange(images) % 2)
    assert options.batch_size == size
    assert note is None if size == 256 else f"To fit {images:,} training images: batches of {size} images" == note


@pytest.mark.parametrize(("images", "size"), [(4500, 64), (200, 32), (100, 16)])
def test_a_strong_baseline_has_the_batches_of_its_rivals(images: int, size: int) -> None:
    for options in (Baseline(model="resnet18", recipe="strong"), Pretrain(variant="prl", recipe="strong")):
        assert fitted(options, labels(10, images // 10))[0].batch_size == size
    assert fitted(Baseline(model="resnet18"), labels(10, images // 10))[0].batch_size == 128, "the paper's"


def test_what_was_given_stays() -> None:
    asked = Pretrain(batch_size=200)
    assert fitted(asked, labels(10, 30)) == (asked, None)
    asked = Pretrain(batch_size=256, classes_per_batch=32)
    assert fitted(asked, labels(100, 30)) == (asked, None)


def test_a_batch_of_many_classes_has_four_images_of_some_instead_of_two_of_all() -> None:
    options, note = fitted(Pretrain(), labels(200, 30))
    assert (options.batch_size, options.classes_per_batch) == (256, 64)
    assert note == "To fit 6,000 training images: batches of 256 images of 64 classes"
    options, _ = fitted(Pretrain(variant="views"), labels(100, 4))
    assert (options.batch_size, options.classes_per_batch) == (64, 16)
    assert fitted(Pretrain(), labels(100, 30)) == (Pretrain(), None)  # 2.56 of each will do
    batches = Batches(np.zeros((6000, 1)), labels(200, 30), 256, 0, classes_per_batch=64)
    assert set(np.unique(batches[0][1], return_counts=True)[1]) == {4}


def test_a_batch_has_no_more_images_of_a_class_than_most_classes_have() -> None:
    """The recipe's 100 images of 10 classes would be each picture five times."""
    options, note = fitted(Pretrain(variant="loo", recipe="strong"), np.append(labels(1300, 2), 1300))
    assert (options.batch_size, options.classes_per_batch) == (100, 50)
    assert note == "To fit 2,601 training images: batches of 100 images of 50 classes, 87 epochs"
    usual = Pretrain(variant="loo", recipe="strong")
    assert fitted(usual, labels(10, 500)) == (usual, None)
    assert fitted(usual, labels(20, 225)) == (usual, None)


@pytest.mark.parametrize(
    ("options", "images", "epochs"),
    [
        (Pretrain(variant="prl", recipe="strong"), 4500, 50),
        (Pretrain(variant="prl", recipe="strong"), 900, 250),
        (Pretrain(variant="prl", recipe="strong"), 180, MOST_EPOCHS),
        (Pretrain(variant="prl", recipe="strong"), 100_000, 50),
        (Pretrain(variant="prl"), 900, 250),  # which is younger than the paper
        (Pretrain(variant="supcon", recipe="strong"), 4500, 25),  # of two views each
        (Pretrain(variant="supcon", recipe="strong"), 900, 125),
        (Pretrain(variant="supcon", recipe="strong"), 180, MOST_EPOCHS // 2),
        (Baseline(recipe="strong"), 2250, 100),
        (Finetune(recipe="strong"), 900, 125),
        (Finetune(), 90, 25),
        (Pretrain(), 90, 25),
        (Baseline(), 90, 25),
    ],
)
def test_the_strong_recipe_takes_as_many_steps_with_few_images(options: object, images: int, epochs: int) -> None:
    found, _ = fitted(options, np.arange(images) % 10)
    assert found.epochs == epochs
    given, note = fitted(replace(options, epochs=7), np.arange(images) % 10)
    assert given.epochs == 7
    assert note is None or "epochs" not in note


@pytest.mark.parametrize(("each", "batch", "classes"), [(30, 64, 16), (2, 64, 32), (3, 63, 21)])
def test_supcon_has_pairs_in_a_batch_of_many_classes(each: int, batch: int, classes: int) -> None:
    options, _ = fitted(Pretrain(variant="supcon", recipe="strong"), labels(200, each))
    assert (options.batch_size, options.classes_per_batch) == (batch, classes)
    assert fitted(Pretrain(variant="supcon", recipe="strong"), labels(10, 30))[0].classes_per_batch is None


@pytest.mark.parametrize(
    ("classes", "each", "asked", "batch", "of"),
    [(10, 2, {}, 4, 2), (10, 3, {}, 4, 2), (20, 3, {}, 8, 4), (10, 10, {"classes_per_batch": 10}, 20, 10)],
)
def test_prototypes_of_very_few_images_have_two_of_a_class(
    classes: int, each: int, asked: dict, batch: int, of: int
) -> None:
    options, _ = fitted(Pretrain(variant="loo", recipe="strong", **asked), labels(classes, each))
    assert (options.batch_size, options.classes_per_batch) == (batch, of)
    found = labels(classes, each)
    batches = Batches(found, found, options.batch_size, 0, drop_remainder=True, classes_per_batch=of)
    assert set(np.unique(batches[0][1], return_counts=True)[1]) == {2}


@pytest.mark.parametrize(("classes", "each", "asked", "batch"), [(10, 1, 10, 10), (3, 9, 0, None), (3, 9, -1, None)])
def test_classes_that_make_no_batch_are_left_to_who_refuses_them(classes, each, asked, batch) -> None:
    options, _ = fitted(Pretrain(variant="loo", recipe="strong", classes_per_batch=asked), labels(classes, each))
    assert options.classes_per_batch == asked
    assert batch is None or options.batch_size == batch


def test_a_size_that_is_given_is_shared_by_as_many_classes_as_can() -> None:
    for size, classes in ((64, 8), (200, 10), (30, 10), (7, 10), (4, 10)):
        options, _ = fitted(Pretrain(variant="loo", recipe="strong", batch_size=size), labels(10, 100))
        assert (options.batch_size, options.classes_per_batch) == (size, classes)
    options, _ = fitted(Pretrain(variant="loo", recipe="strong", batch_size=64), labels(3, 100))
    assert options.classes_per_batch == 2
    for size in (62, 106, 122):  # of two classes, or of more images of a class than there are: is refused
        options, _ = fitted(Pretrain(variant="loo", recipe="strong", batch_size=size), labels(10, 45))
        assert options.classes_per_batch == 10
    assert fitted(Pretrain(variant="loo", batch_size=64), labels(10, 100))[0].classes_per_batch is None


def test_pairs_memories_and_rare_classes_are_left_as_they_are() -> None:
    for variant in ("simclr", "prl"):
        assert fitted(Pretrain(variant=variant), labels(200, 30))[0].classes_per_batch is None
    rare = np.append(labels(200, 30), [200, 200])
    assert fitted(Pretrain(), rare) == (Pretrain(), None)


@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    variant=st.sampled_from(["query", "standard", "loo", "views", "simclr", "supcon", "prl"]),
    recipe=st.sampled_from(["paper", "strong", "open"]),
    asked=st.sampled_from([{}, {"batch_size": 16}, {"classes_per_batch": 4}, {"epochs": 3}]),
)
def test_what_comes_out_can_be_made_of_the_data(counts: list[int], variant: str, recipe: str, asked: dict) -> None:
    classes = np.repeat(np.arange(len(counts)), counts)
    options, note = fitted(Pretrain(variant=variant, recipe=recipe, **asked), classes)
    assert all(getattr(options, name) == value for name, value in asked.items())
    changed = {"batch_size", "classes_per_batch", "epochs"} - set(asked)
    usual = Pretrain(variant=variant, recipe=recipe, **asked)
    assert (note is not None) == any(getattr(options, name) != getattr(usual, name) for name in changed)
    assert options.given == usual.given
    each = options.classes_per_batch and min(options.classes_per_batch, len(counts))
    if len(classes) >= options.batch_size and not (each and options.batch_size % each):
        batches = Batches(np.zeros((len(classes), 1)), classes, options.batch_size, 0, True, each)
        assert len(batches) >= 1
