"""Figures of the representations: against definitions written out, and at their ends."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prl_keras.training import monitor
from prl_keras.training.monitor import RepresentationMonitor, class_spread, effective_rank, knn_vote


def test_effective_rank_counts_equal_directions() -> None:
    assert effective_rank(np.eye(7)[[0, 1, 2, 3]] * 5) == pytest.approx(4)


def test_effective_rank_of_equal_embeddings_is_one_and_of_nothing_zero() -> None:
    assert effective_rank(np.full((20, 8), 3.0)) == pytest.approx(1)
    assert effective_rank(np.zeros((20, 8))) == 0


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_effective_rank_lies_between_one_and_the_rank_and_ignores_scale(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 10))  # rank 3
    assert 1 <= effective_rank(embeddings) <= 3 + 1e-6
    assert effective_rank(scale * embeddings) == pytest.approx(effective_rank(embeddings))


def test_class_spread_is_within_over_between_variance() -> None:
    features, labels = np.array([[0.0], [2.0], [10.0], [12.0]]), np.array([0, 0, 1, 1])
    # within: 4 x 1; between: 4 x 25
    assert class_spread(features, labels) == pytest.approx(4 / 100)


def test_class_spread_is_zero_for_points_and_infinite_for_equal_means() -> None:
    labels = np.array([0, 0, 1, 1])
    assert class_spread(np.array([[1.0], [1.0], [2.0], [2.0]]), labels) == 0
    assert class_spread(np.array([[1.0], [3.0], [1.0], [3.0]]), labels) == np.inf


def test_class_spread_of_one_image_a_class_is_not_known() -> None:
    assert np.isnan(class_spread(np.array([[1.0], [2.0], [5.0]]), np.array([2, 0, 1])))
    assert class_spread(np.array([[1.0], [1.0], [5.0]]), np.array([0, 0, 1])) == 0


def test_a_spread_that_is_not_known_is_null_in_the_metrics_and_no_point_in_a_chart(tmp_path: Path) -> None:
    from test_training import CLASSES, pictures, prototypical

    from prl_keras.data.batches import Batches
    from prl_keras.runs import create_run
    from prl_keras.training.callbacks import MetricsLog
    from prl_keras.training.tensorboard import TensorBoardLog
    from prl_keras.visualization.figures import plot_training

    run, model, (images, labels) = create_run(tmp_path, "run", {"command": "pretrain"}), prototypical(), pictures(40)
    few = np.array([np.flatnonzero(labels == k)[0] for k in range(CLASSES)])
    watch = RepresentationMonitor(model, (images, labels), (images[few], labels[few]), CLASSES)
    metrics = MetricsLog(run, len(images), {})
    model.compile("sgd")
    order = [watch, metrics, TensorBoardLog(run, metrics)]
    model.fit(Batches(images, labels, 20, 0), epochs=2, callbacks=order, verbose=0)
    assert [line["val_class_spread"] for line in run.metrics] == [None, None]
    assert all(line["val_prototype_accuracy"] is not None for line in run.metrics)
    written = b"".join(file.read_bytes() for file in (run.path / "logs" / "validation").iterdir())
    assert b"epoch/prototype_accuracy" in written
    assert b"class_spread" not in written
    assert plot_training(run).stat().st_size > 1000


@pytest.mark.parametrize(("name", "many"), [("query", True), ("query", False), ("memory", False)])
def test_what_it_judges_is_what_keras_would_find(name: str, many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_memory_pretrainer import MAKERS
    from test_training import CLASSES, pictures, prototypical

    from prl_keras.data.batches import Batches

    images, labels = pictures(50)
    model = prototypical() if name == "query" else MAKERS["full"](labels)
    model.compile("sgd")
    model.build(images.shape)
    if name == "memory":
        model.memory.assign(model.teach(images))
    batches = Batches(images, labels, 20, seed=0)
    monkeypatch.setattr(monitor, "FEW", 0 if many else 8)
    watch = RepresentationMonitor(model, (images, labels), (images, labels), CLASSES, batches=batches)
    logs: dict[str, float] = {}
    expected = model.evaluate(batches, return_dict=True, verbose=0)
    assert len(expected) >= 2
    for epoch in range(2):  # what the epoch before left counts no more
        watch.on_epoch_end(epoch, logs)
        assert {key: logs[f"val_{key}"] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert set(watch.adds) == set(logs)


def test_knn_votes_by_cosine_and_not_by_distance() -> None:
    support = np.array([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10)
    labels = np.array([0] * 10 + [1] * 10)
    assert knn_vote(np.array([[100.0, 40.0], [0.01, 0.02]]), support, labels, 2).tolist() == [0, 1]


def test_knn_vote_equals_scikit_learn() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(3)
    support, labels = rng.normal(size=(200, 6)), rng.integers(0, 4, 200)
    features = rng.normal(size=(100, 6))
    expected = KNeighborsClassifier(10, metric="cosine").fit(support, labels).predict(features)
    assert (knn_vote(features, support, labels, 4) == expected).all()


def test_knn_vote_with_fewer_than_ten_neighbours_takes_all() -> None:
    assert knn_vote(np.ones((1, 2)), np.eye(2)[[0, 1, 1]], np.array([0, 2, 2]), 3).tolist() == [2]


def test_knn_vote_by_blocks_is_that_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    support, labels, features = rng.normal(size=(50, 6)), rng.integers(0, 4, 50), rng.normal(size=(100, 6))
    whole = knn_vote(features, support, labels, 4)
    monkeypatch.setattr(monitor, "BLOCK", 7)
    assert (knn_vote(features, support, labels, 4) == whole).all()


@pytest.mark.parametrize(
    ("classes", "each", "support", "neighbours"), [(10, 80, 50, 10), (10, 7, 7, 7), (300, 8, 6, 6)]
)
def test_the_support_has_a_limit_and_a_vote_no_more_voters_than_a_class_has(
    classes: int, each: int, support: int, neighbours: int
) -> None:
    labels = np.repeat(np.arange(classes), each)
    images = np.zeros((len(labels), 1, 1, 3), "uint8")
    model = SimpleNamespace(encoder=None, projection_head=None)
    found = RepresentationMonitor(model, (images, labels), (images, labels), classes)
    assert np.bincount(found.support[1]).tolist() == [support] * classes
    assert found.neighbours == neighbours


def line(scale: float, labels: np.ndarray, dim: int, seed: int) -> np.ndarray:
    """Embeddings on a line: one class at one end, the others at the other; a little noise."""
    ends = np.where(labels == 0, scale, -scale)[:, None] * np.eye(dim)[:1]
    return ends + 0.01 * np.random.default_rng(seed).normal(size=(len(labels), dim))


@pytest.mark.parametrize(
    ("embeddings", "warned"),
    [
        (lambda labels, seed: line(1.0, labels, 8, seed), False),  # two opposites: nothing better is possible
        (lambda labels, seed: line(0.01, labels, 1, seed), False),
        (lambda labels, seed: line(0.0, labels, 1, seed), False),  # one dimension has no more
        (lambda labels, seed: line(0.0, labels, 8, seed) + 5.0, True),
    ],
)
def test_one_direction_is_a_collapse_only_where_classes_are_not_told_apart(
    embeddings: Callable, warned: bool, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.arange(2000) % 2
    train, validation = ((embeddings(labels, seed).astype("float32"), labels) for seed in (0, 1))
    monkeypatch.setattr(monitor, "encode", lambda model, inputs: inputs)
    model = SimpleNamespace(encoder=None, projection_head=None)
    RepresentationMonitor(model, train, validation, 2).on_epoch_end(0, {})
    assert ("the embeddings collapse" in capsys.readouterr().out) is warned


def test_a_collapse_is_seen_by_few_validation_images_too(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By luck, 3 of 10 noise images are right: 30 % where one answer for all has 10 %."""
    labels, few = np.arange(500) % 10, np.arange(10)
    support = 5 + 0.01 * line(0.0, labels, 8, 0).astype("float32")
    means = np.stack([support[labels == k].mean(axis=0) for k in range(10)])
    validation = np.where(few[:, None] < 3, means, means[(few + 1) % 10])
    monkeypatch.setattr(monitor, "encode", lambda model, inputs: inputs)
    monkeypatch.setattr(monitor, "effective_rank", lambda embeddings: 1.2)
    model = SimpleNamespace(encoder=None, projection_head=None)
    watch = RepresentationMonitor(model, (support, labels), (validation, few), 10)
    logs: dict = {}
    watch.on_epoch_end(0, logs)
    assert logs["val_prototype_accuracy"] == pytest.approx(0.3)
    assert "the embeddings collapse" in capsys.readouterr().out


def test_unequal_classes_have_a_balanced_accuracy_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat([0, 1], [9, 1])
    monkeypatch.setattr(monitor, "encode", lambda model, inputs: inputs)
    model = SimpleNamespace(encoder=None, projection_head=None)
    train, wrong = np.eye(2, dtype="float32")[labels], np.eye(2, dtype="float32")[np.zeros(10, int)]
    watch = RepresentationMonitor(model, (train, labels), (wrong, labels), 2)
    figures = watch.figures()
    assert (figures["val_prototype_accuracy"], figures["val_prototype_balanced"]) == (0.9, 0.5)
    assert (figures["val_knn_accuracy"], figures["val_knn_balanced"]) == (0.9, 0.5)
    assert [part.tolist() for part in watch.answers] == [[0] * 10, labels.tolist()]


def test_the_monitor_classifies_validation_by_prototypes_of_training_features() -> None:
    from test_training import CLASSES, pictures, prototypical

    from prl_keras.models.encode import encode

    pretrainer = prototypical()
    train, validation = pictures(80), pictures(40, seed=1)
    figures = RepresentationMonitor(pretrainer, train, validation, CLASSES).figures()
    features, val_features = encode(pretrainer.encoder, train[0]), encode(pretrainer.encoder, validation[0])
    means = np.stack([features[train[1] == k].mean(axis=0) for k in range(CLASSES)])
    nearest = ((val_features[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    assert figures["val_prototype_accuracy"] == pytest.approx(np.mean(nearest == validation[1]))
    assert figures["val_class_spread"] == pytest.approx(class_spread(val_features, validation[1]))
    embeddings = encode(pretrainer, validation[0])
    assert figures["val_effective_rank"] == pytest.approx(effective_rank(embeddings), rel=1e-4)
