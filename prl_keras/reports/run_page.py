"""Everything that the page of a run holds: from its records and its features to plain values and thumbnails."""

from typing import Any

import numpy as np

from prl_keras.data import Dataset
from prl_keras.data.splits import SPLITS
from prl_keras.evaluation.answers import Answers, of_classifier, of_features
from prl_keras.evaluation.encoded import Encoded
from prl_keras.evaluation.extremes import least_sure, surely_wrong, typical_and_strange
from prl_keras.evaluation.label_errors import FOLDS, cross_validated, probably_mislabelled
from prl_keras.evaluation.probes import Features, ProbeResult
from prl_keras.evaluation.statistics import accuracy
from prl_keras.prototypes import class_prototypes
from prl_keras.reports import sections
from prl_keras.reports.gallery import Gallery, gallery_of, sheets, thumbnails
from prl_keras.visualization.embeddings import joint_map
from prl_keras.visualization.figures import class_colours
from prl_keras.visualization.sample import MOST, drawn_rows, shown_classes

SHOWN = 48  # pictures of a list
_WRONG = 5_000  # of the wrong answers that are in the gallery whatever its room
PER_CLASS = 8  # typical ones, and as many strange ones, fewer of many classes
_OF_CLASSES = 4_000  # of these in all
MAP_PER_CLASS, MAP_MOST = 30, 400  # pictures of a class, and of a split


def page_data(
    dataset: Dataset,
    encoded: Encoded,
    record: dict[str, Any],
    validation_trained_on: bool = False,
    map_per_class: int | None = None,
    near: ProbeResult | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """What page.js shows, and the sheets of thumbnails.

    Args:
        record: what the run's own files say (`record.run_record`); goes into the page as it is.
        validation_trained_on: no answer on validation is then out of sample: those of a cross-validation take their
            place, and it chooses no threshold.
        map_per_class: None: 30 pictures a class and split, and at most 400 of a split.
        near: what `probes.knn` has found on these features already; None: it is asked where it may give the answers.
    """
    answers = _answers(dataset, encoded, near)
    unseen = _out_of_sample(dataset, encoded, answers, validation_trained_on)
    labels = dataset.test.labels
    wrong, unsure = surely_wrong(answers.test, labels, _WRONG), least_sure(answers.test, SHOWN)
    most = max(1, min(PER_CLASS, _OF_CLASSES // (2 * dataset.num_classes)))
    extremes = typical_and_strange(encoded.features["train"], dataset.train.labels, dataset.num_classes, most)
    doubtful = _doubtful(dataset, unseen, validation_trained_on)
    mapped = _map_rows(dataset, map_per_class)
    named = {split: np.concatenate([mapped[split], doubtful[split][0][:SHOWN]]) for split in SPLITS}
    named["train"] = np.concatenate([named["train"], *(rows for pair in extremes for rows in pair)])
    named["test"] = np.concatenate([named["test"], wrong, unsure])
    gallery = gallery_of(dataset, named)
    data = record | {
        "classes": list(dataset.class_names),
        "colours": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in class_colours(dataset.num_classes).tolist()],
        "answers": {"name": answers.name, "how": answers.how, "figure": accuracy(answers.test.argmax(axis=1), labels)},
        "validation_trained_on": validation_trained_on,
        "sizes": {split: len(getattr(dataset, split)) for split in SPLITS},
        "pictures": sections.pictures(dataset, gallery, encoded.features, unseen),
        "confusions": sections.confusions(answers, labels, dataset.num_classes),
        "wrong": gallery.numbers("test", wrong[:SHOWN]).tolist(),
        "unsure": gallery.numbers("test", unsure).tolist(),
        "extremes": [[gallery.numbers("train", rows).tolist() for rows in pair] for pair in extremes],
        "doubtful": _doubtful_shown(gallery, doubtful, dataset, validation_trained_on),
        "map": _map(dataset, encoded, gallery, mapped),
        "calibration": sections.calibration_chart(answers, labels),
        "reject": sections.reject_chart(answers, labels, not validation_trained_on),
    }
    first = [*data["wrong"], *data["unsure"], *(one["number"] for part in data["doubtful"] for one in part["shown"])]
    data["files"] = sections.file_names(dataset, gallery, first)
    data["sheet"] = sheets(thumbnails(dataset, gallery))
    return data, data["sheet"].pop("sheets")


def _answers(dataset: Dataset, encoded: Encoded, near: ProbeResult | None = None) -> Answers:
    """Never reads the labels of test."""
    if encoded.logits is not None:
        return of_classifier(encoded.logits["validation"], encoded.logits["test"])
    return of_features(*encoded.labelled(dataset), dataset.num_classes, near)


def _out_of_sample(
    dataset: Dataset, encoded: Encoded, answers: Answers, validation_trained_on: bool
) -> dict[str, np.ndarray]:
    """For each split probabilities by a model that was not fitted on the picture."""
    trained = ["train", "validation"] if validation_trained_on else ["train"]
    features = np.concatenate([encoded.features[name] for name in trained])
    labels = np.concatenate([getattr(dataset, name).labels for name in trained])
    crossed = cross_validated(Features(features, labels), dataset.num_classes)
    train, rest = np.split(crossed, [len(dataset.train)])
    return {"train": train, "validation": rest if validation_trained_on else answers.validation, "test": answers.test}


def _doubtful(
    dataset: Dataset, unseen: dict[str, np.ndarray], validation_trained_on: bool
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows of each split and their likely classes; splits that one model has answered are judged together."""
    groups = [["train", "validation"], ["test"]] if validation_trained_on else [["train"], ["validation", "test"]]
    found = {}
    for names in groups:
        labels = np.concatenate([getattr(dataset, name).labels for name in names])
        rows, suggested = probably_mislabelled(np.concatenate([unseen[name] for name in names]), labels)
        start = 0
        for name in names:
            inside = (rows >= start) & (rows < start + len(getattr(dataset, name)))
            found[name] = rows[inside] - start, suggested[inside]
            start += len(getattr(dataset, name))
    return found


def _doubtful_shown(
    gallery: Gallery,
    doubtful: dict[str, tuple[np.ndarray, np.ndarray]],
    dataset: Dataset,
    validation_trained_on: bool,
) -> list[dict[str, Any]]:
    parts = []
    for name in SPLITS:
        rows, suggested = doubtful[name]
        crossed = name == "train" or (name == "validation" and validation_trained_on)
        how = f"a linear probe on the features, cross-validated in {FOLDS} folds" if crossed else "the answers above"
        numbers = gallery.numbers(name, rows[:SHOWN]).tolist()
        shown = [{"number": n, "suggested": k} for n, k in zip(numbers, suggested[:SHOWN].tolist(), strict=True)]
        parts.append({"split": name, "how": how, "found": len(rows), "of": len(getattr(dataset, name)), "shown": shown})
    return parts


def _map_rows(dataset: Dataset, per_class: int | None) -> dict[str, np.ndarray]:
    """As `visualize` draws them with seed 0."""
    most = MAP_MOST if per_class is None else MOST
    return {
        name: drawn_rows(getattr(dataset, name).labels, per_class or MAP_PER_CLASS, 0, place, most)
        for place, name in enumerate(SPLITS)
    }


def _map(dataset: Dataset, encoded: Encoded, gallery: Gallery, mapped: dict[str, np.ndarray]) -> dict[str, Any]:
    """Positions in -1..1 of pictures and prototypes, from the t-SNE of `visualize`."""
    features = np.concatenate([encoded.features[name][rows] for name, rows in mapped.items()])
    labels = np.concatenate([getattr(dataset, name).labels[rows] for name, rows in mapped.items()])
    prototypes, _ = class_prototypes(dataset.train.labels, encoded.features["train"], dataset.num_classes)
    shown = shown_classes(labels, dataset.num_classes, MAP_MOST)
    positions, stars = joint_map(features, np.asarray(prototypes), shown)
    largest = max(float(np.abs(positions).max()), float(np.abs(stars[shown]).max()), 1e-9)
    return {
        "numbers": np.concatenate([gallery.numbers(name, rows) for name, rows in mapped.items()]).tolist(),
        "positions": np.round(positions / largest, 4).tolist(),
        "prototypes": [[int(k), *np.round(stars[k] / largest, 4).tolist()] for k in shown],
    }
