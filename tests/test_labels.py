"""Labels in every form that users have them in: whatever takes them reads them alike, or says what is wrong."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_training import CLASSES, MAKERS, pictures

from prl_keras.data import Split
from prl_keras.data.batches import Batches
from prl_keras.data.splits import fingerprint
from prl_keras.errors import InputError
from prl_keras.evaluation.probes import Features, knn, linear_probe, nearest_prototype
from prl_keras.evaluation.statistics import accuracy, calibration, confusion_matrix
from prl_keras.labels import checked_labels
from prl_keras.losses import PrototypicalLoss, SupervisedContrastiveLoss, prototypical_loss
from prl_keras.prototypes import class_prototypes
from prl_keras.training import callbacks, monitor
from prl_keras.tuning import best
from prl_keras.visualization.embeddings import map_quality
from prl_keras.visualization.figures import MapPanel, plot_maps
from prl_keras.visualization.sample import balanced_rows

IMAGES, LABELS = pictures(48)
LOGITS = np.random.default_rng(0).normal(size=(48, CLASSES)).astype("float32") + 2 * np.eye(CLASSES)[LABELS]
PREDICTED = LOGITS.argmax(axis=1)
FORMS = {
    "column": LABELS[:, None],
    "column of bytes, as keras.datasets": LABELS[:, None].astype("uint8"),
    "whole floats": LABELS.astype("float32"),
    "list": LABELS.tolist(),
}
WRONG = {
    "fractions": (LABELS + 0.7, "labels hold "),
    "not finite": (np.where(LABELS == 1, np.nan, LABELS), "labels hold nan"),
    "text": (LABELS.astype(str), "labels are text; expected a whole number an image"),
    "objects": (LABELS.astype(str).astype(object), "labels are of type object"),
    "one-hot rows": (np.eye(CLASSES)[LABELS], r"one class number an image.*labels.argmax\(axis=1\)"),
}


def probed(probe: Callable, labels: Any, *more: int) -> tuple[Any, ...]:
    split = Features(LOGITS, labels)
    found = probe(split, split, Features(LOGITS), *more)
    return found.predicted.tolist(), found.validation_accuracy, found.chosen


def monitored(labels: Any) -> list[Any]:
    model = SimpleNamespace(encoder=None, projection_head=None)
    found = monitor.RepresentationMonitor(model, (LOGITS, labels), (LOGITS, labels), CLASSES)
    return [found.figures(), found._tells_no_classes()]


def logged(labels: Any) -> dict[str, float]:
    logs: dict[str, float] = {}
    callback = callbacks.TestAccuracy(LOGITS, labels)
    callback.on_epoch_end(0, logs)
    return logs


def best_epoch(labels: Any) -> dict[str, float]:
    callback = best.BestEpoch(LOGITS, labels)
    callback.on_epoch_end(0, {"val_accuracy": 0.5, "val_loss": 1.0})
    return callback.figures


def drawn(labels: Any, folder: Path) -> bytes:
    panel = MapPanel("test", LOGITS[:, :2], labels, LOGITS[:CLASSES, :2], {"silhouette": 0.5})
    return plot_maps([[panel]], tuple("abcd"), "maps", folder / "maps.png").read_bytes()


TAKERS: dict[str, Callable[[Any, Path], Any]] = {
    "Split": lambda labels, _: fingerprint("abcd", {"train": Split(IMAGES, labels)}),
    "Batches": lambda labels, _: [y.tolist() for _, y in (Batches(IMAGES, labels, 16, 0)[step] for step in range(3))],
    "linear probe": lambda labels, _: probed(linear_probe, labels),
    "kNN": lambda labels, _: probed(knn, labels),
    "nearest prototype": lambda labels, _: probed(nearest_prototype, labels, CLASSES),
    "accuracy": lambda labels, _: accuracy(PREDICTED, labels),
    "confusion matrix": lambda labels, _: confusion_matrix(PREDICTED, labels, CLASSES).tolist(),
    "calibration": lambda labels, _: calibration(LOGITS, labels),
    "monitor": lambda labels, _: monitored(labels),
    "kNN vote": lambda labels, _: monitor.knn_vote(LOGITS, LOGITS, labels, CLASSES).tolist(),
    "class spread": lambda labels, _: monitor.class_spread(LOGITS, labels),
    "TestAccuracy": lambda labels, _: logged(labels),
    "BestEpoch": lambda labels, _: best_epoch(labels),
    "map quality": lambda labels, _: map_quality(LOGITS, labels, LOGITS[:, :2]),
    "sample": lambda labels, _: balanced_rows(labels, 3).tolist(),
    "map": drawn,
    "prototypes": lambda labels, _: class_prototypes(labels, LOGITS, CLASSES)[0].numpy().tolist(),
    "loss function": lambda labels, _: float(prototypical_loss(labels, LOGITS, CLASSES)),
    "outlook": lambda labels, _: PrototypicalLoss(CLASSES).outlook(labels),
    "outlook of views": lambda labels, _: SupervisedContrastiveLoss().outlook(labels),
}


@pytest.fixture(autouse=True)
def features_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (monitor, callbacks, best):
        monkeypatch.setattr(module, "encode", lambda model, inputs: inputs)


@pytest.mark.parametrize("taker", TAKERS)
def test_whatever_takes_labels_takes_them_in_every_form(taker: str, tmp_path: Path) -> None:
    expected = TAKERS[taker](LABELS, tmp_path)
    for form, labels in FORMS.items():
        assert TAKERS[taker](labels, tmp_path) == expected, form


@pytest.mark.parametrize("taker", TAKERS)
def test_whatever_takes_labels_refuses_what_numbers_no_class_in_one_line(taker: str, tmp_path: Path) -> None:
    for labels, message in WRONG.values():
        with pytest.raises(InputError, match=message) as refused:
            TAKERS[taker](labels, tmp_path)
        assert "\n" not in str(refused.value)


def test_the_accuracy_of_an_epoch_on_test_has_the_balanced_one_beside_it() -> None:
    labels = np.repeat([0, 1], [9, 1])
    callback, logs = callbacks.TestAccuracy(np.eye(2)[np.zeros(10, int)], labels), {}
    callback.on_epoch_end(0, logs)
    assert logs == {"test_accuracy": 0.9, "test_balanced": 0.5}


def test_predictions_in_a_column_are_counted_one_by_one() -> None:
    assert confusion_matrix(PREDICTED[:, None], LABELS, CLASSES).sum() == len(LABELS)
    with pytest.raises(InputError, match=r"predictions have shape \(48, 4\)"):
        confusion_matrix(LOGITS, LABELS, CLASSES)


def test_numbers_that_no_integer_holds_are_refused_and_a_byte_does_not_overflow() -> None:
    for value in (np.inf, -np.inf, 1e30):
        with pytest.raises(InputError, match="labels hold"):
            checked_labels(np.array([0.0, value]))
    assert checked_labels(np.array([255], "uint8")).max() + 1 == 256
    assert checked_labels(tf.constant([1, 3], "bfloat16")).tolist() == [1, 3]


@pytest.mark.parametrize("labels", ["fractions", "text"])
@pytest.mark.parametrize("name", ["query", "supcon"])
def test_a_pretrainer_refuses_labels_before_a_graph_hides_them(name: str, labels: str) -> None:
    model = MAKERS[name]()
    model.compile("sgd")
    wrong, message = WRONG[labels]
    for call in (
        lambda: model.fit(IMAGES, wrong, verbose=0),
        lambda: model.fit(IMAGES, LABELS, validation_data=(IMAGES, wrong), verbose=0),
        lambda: model.evaluate(IMAGES, wrong, verbose=0),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_a_graph_takes_labels_that_a_loss_made_floats_and_refuses_text() -> None:
    function = tf.function(lambda labels: class_prototypes(labels, LOGITS, CLASSES)[0], autograph=False)
    expected = function(tf.constant(LABELS)).numpy()
    assert (function(tf.constant(LABELS[:, None], "float32")).numpy() == expected).all()
    with pytest.raises(InputError, match="labels are text"):
        function(tf.constant(LABELS.astype(str)))
    loss = PrototypicalLoss(CLASSES)
    assert float(loss(LABELS, LOGITS)) == float(loss(keras.ops.cast(LABELS, "float32"), LOGITS))
    with pytest.raises(InputError, match="labels hold"):
        loss(LABELS + 0.7, LOGITS)


@pytest.mark.parametrize(
    "call",
    [
        lambda labels, rows: PrototypicalLoss(5)(labels, rows),
        lambda labels, rows: SupervisedContrastiveLoss()(labels, rows),
        lambda labels, rows: class_prototypes(labels, rows, 5),
    ],
)
def test_labels_for_other_rows_than_there_are_is_one_line(call: Callable) -> None:
    with pytest.raises(InputError, match="there are 6 labels for 8 embeddings; expected one label each"):
        call(np.arange(6) % 5, np.ones((8, 3), "float32"))
