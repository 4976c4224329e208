"""From the options of a command to its data set, and back: is it what a run was made from, and has a run seen it?"""

import os
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from prl_keras.config import DataOptions, PictureOptions, RunDataOptions, option_words
from prl_keras.data import Dataset, default_dataset, load_dataset, resolved
from prl_keras.data.cache import NOTHING
from prl_keras.data.catalog import VALIDATION_FRACTION, is_folder, takes_data_dir
from prl_keras.data.deep import BITS
from prl_keras.data.domains import domain_names
from prl_keras.data.layout import UNLABELLED
from prl_keras.data.reading import NO_LABELS
from prl_keras.data.seen import count_seen, not_recorded
from prl_keras.data.splits import dataset_label
from prl_keras.errors import InputError
from prl_keras.paths import absolute
from prl_keras.runs import Run
from prl_keras.runs.names import usable
from prl_keras.runs.records import damaged
from prl_keras.screen.console import say
from prl_keras.startup import start_keras
from prl_keras.terminal import quoted

WHERE = ("name", "data_dir", "cache_dir")  # of a request: where the images are, not which
_HELD_OUT = ("hold_out_classes", "hold_out_domain")
_PICTURES = {field.name: field.default for field in fields(PictureOptions)}  # in a request only if it is another


def data_request(options: DataOptions, seed: int) -> dict[str, Any]:
    """The arguments of `load_dataset` that the options ask for.

    Raises:
        InputError: `--data-dir` for a data set that has its files elsewhere.
    """
    name, data_dir = options.dataset, _absolute(options.data_dir)
    if name is None and options.labels == NO_LABELS:
        raise InputError("--labels none: name the folder of the pictures too, with --dataset PATH")
    if name is None and options.labels is not None:
        name = os.path.dirname(_absolute(options.labels))
    if name is None:
        name, why = default_dataset(options.data_dir)
        say(why)
        data_dir = data_dir if takes_data_dir(name) else None
    name = resolved(name)
    _check_data_dir(name, data_dir)
    request = {
        "name": name,
        "data_dir": data_dir,
        "seed": seed if options.split_seed is None else options.split_seed,
        "validation_fraction": options.validation_fraction,
        "samples_per_class": options.samples_per_class,
        "test_per_class": options.test_per_class,
        "image_size": _as_json(options.image_size),
        "fold": options.fold,
        **({} if options.cache_dir is None else {"cache_dir": _absolute_or_none(options.cache_dir)}),
        **({"hold_out_classes": list(options.hold_out_classes)} if options.hold_out_classes else {}),
        **({"hold_out_domain": options.hold_out_domain} if options.hold_out_domain else {}),
    }
    chosen = {key: getattr(options, key) for key, default in _PICTURES.items() if getattr(options, key) != default}
    return request | {key: _as_json(value) for key, value in chosen.items()}


def data_request_of_run(run: Run, options: RunDataOptions) -> dict[str, Any]:
    """The run's own data, changed where the options say so; its validation images stay validation images.

    Another data set is taken whole, unless it is a copy of the run's own that lies elsewhere, and in the run's size.
    """
    request = dict(run.part("data")["request"])
    request["name"] = resolved(request["name"])
    if options.dataset is not None and resolved(options.dataset) != request["name"]:
        request = _of_another(request, resolved(options.dataset), options, run)
    for key in ("samples_per_class", "test_per_class", "image_size", *_PICTURES):
        if getattr(options, key) not in (None, False):
            request[key] = _as_json(getattr(options, key))
    request = {key: value for key, value in request.items() if key not in _PICTURES or value != _PICTURES[key]}
    if options.data_dir is not None:
        request["data_dir"] = _absolute(options.data_dir)
        _check_data_dir(request["name"], request["data_dir"])
    if options.cache_dir is not None:
        request["cache_dir"] = _absolute_or_none(options.cache_dir)
    return request


def _of_another(own: dict[str, Any], name: str, options: RunDataOptions, run: Run) -> dict[str, Any]:
    """The request for the data set `name`: the run's own one that was moved, or another."""
    request = own | {"name": name, "data_dir": None}
    if "labels" in own and Path(own["labels"]).is_relative_to(own["name"]):
        request["labels"] = str(name / Path(own["labels"]).relative_to(own["name"]))
    if options.labels is not None:
        request["labels"] = _as_json(options.labels)
    whole = dict.fromkeys(("fold", "samples_per_class", "test_per_class", "image_size"))
    whole |= {key: _PICTURES[key] for key in ("labels", "damaged", "domains")}
    whole |= {"validation_fraction": VALIDATION_FRACTION}
    whole |= {} if is_folder(name) else {key: value for key, value in _PICTURES.items() if key != "resize"}
    part = any(key in own for key in _HELD_OUT) or any(request.get(key, v) != v for key, v in whole.items())
    if part and not _is_copy(request, run):
        request = {key: value for key, value in (request | whole).items() if key not in _HELD_OUT}
    folders = is_folder(name) and is_folder(own["name"])  # nothing else is moved
    sized = request.get("image_size") is not None or options.image_size is not None
    if not sized and not (folders and _is_copy(request, run)):
        request["image_size"] = list(run.part("data")["image_shape"][:2])
    return request


def reading_of(run: Run, max_megapixels: int | None = None) -> dict[str, Any]:
    """The arguments with which `load_image` reads a picture as the run's training images were read.

    max_megapixels: of a picture; None: the run's own limit.

    Raises:
        InputError: the run's record is damaged.
    """
    data = run.part("data")
    bits = data.get("bits", BITS[-1])  # before it was recorded, 16-bit values were always read as 16 bits
    if bits is not None and bits not in BITS:
        raise damaged(run.path / "config.json", f"data.bits is {bits!a:.40}")
    size = {"size": tuple(data["image_shape"][:2]), "bits": bits}
    reading = {key: data["request"].get(key, _PICTURES[key]) for key in ("resize", "max_megapixels")}
    return size | reading | ({} if max_megapixels is None else {"max_megapixels": max_megapixels})


def data_words(options: Any) -> str:
    """The data options that were given, for the next command: no run names these data, or another data set."""
    given = {field.name: getattr(options, field.name) for field in fields(RunDataOptions)}
    given = {name: value for name, value in given.items() if value not in (None, _PICTURES.get(name))}
    given |= {name: getattr(options, name) for name in reversed(_HELD_OUT) if getattr(options, name, None)}
    return "".join(f" {quoted(option_words(name, value))}" for name, value in given.items())


def _is_copy(request: dict[str, Any], run: Run) -> bool:
    """Whether the request gives just the images that the run was trained on."""
    with suppress(InputError):
        return load_dataset(**request).fingerprint == run.part("data")["fingerprint"]
    return False


def _as_json(value: Any) -> Any:
    """Files by their absolute path, height and width as a list: what a run's record holds and gives back."""
    return _absolute_or_none(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def _absolute(path: Path | None) -> str | None:
    return None if path is None else absolute(path)


def _absolute_or_none(path: Path) -> str:
    """Of an option whose value may be the word none."""
    return NOTHING if str(path) == NOTHING else _absolute(path)


def _check_data_dir(name: str, data_dir: str | None) -> None:
    if data_dir is not None and not takes_data_dir(name):
        raise InputError(f"--data-dir {data_dir}: {dataset_label(name)} does not use it; leave it out")


def open_data(request: dict[str, Any], run: Run | None = None, labelled: bool = True) -> Dataset:
    """Load, say what it is, and make sure that the data of a run did not change since.

    Raises:
        InputError: what is asked for cannot be loaded, is not what it was, or has no classes if `labelled`.
    """
    if request["name"] == "stl10" or request["name"].startswith("tfds:"):
        start_keras()  # tensorflow-datasets would import TensorFlow with all its noise
    if run is not None:
        _check_still_there(request, run)
    dataset = load_dataset(**request)
    if labelled and dataset.class_names == UNLABELLED:
        raise InputError(
            f"the pictures of {dataset.label} have no classes (--labels none), which this needs: "
            "add --dataset PATH of pictures that have some"
        )
    height, width, _ = dataset.image_shape
    classes = "no classes" if dataset.class_names == UNLABELLED else f"{dataset.num_classes} classes"
    if domains := domain_names([dataset.train, dataset.validation, dataset.test]):
        some = ", ".join(domains[:10]) + ", ..." * (len(domains) > 10)
        classes += f" of {len(domains):,} domains ({some})"
    if dataset.held_out:
        some = ", ".join(dataset.held_out[:10]) + ", ..." * (len(dataset.held_out) > 10)
        classes += f" ({len(dataset.held_out):,} held out: {some})"
    say(
        f"Data: {dataset.label}, {classes}, {height}x{width} px, "
        f"{len(dataset.train):,} train / {len(dataset.validation):,} validation / {len(dataset.test):,} test"
    )
    for note in dataset.notes:
        say(note)
    if run is not None:
        _check_unchanged(request, run, dataset)
    return dataset


def _check_still_there(request: dict[str, Any], run: Run) -> None:
    """Raise InputError if the folder that the run's own data were read from is gone."""
    own = run.part("data")["request"]
    if is_folder(request["name"]):
        flag, place, recorded = "--dataset", request["name"], resolved(own["name"])
    else:
        flag, place, recorded = "--data-dir", request.get("data_dir"), own.get("data_dir")
    if place is not None and place == recorded and not Path(place).is_dir():
        raise InputError(
            f"{place}: no such folder, but the images of run {run.name!r} were there: if they were moved, "
            f"add {flag} NEWPATH"
        )


def _check_unchanged(request: dict[str, Any], run: Run, dataset: Dataset) -> None:
    """Raise InputError if what was asked for as the run's own data has other images now, or others another white."""
    bits = run.part("data").get("bits")
    if None not in (bits, dataset.bits) and bits != dataset.bits:
        raise InputError(
            f"the images of {dataset.label} use {dataset.bits} bits a value, those of run {run.name!r} {bits}: "
            "one white would be another; convert them to 8 bits"
        )
    own, recorded = run.part("data")["request"], run.part("data")["fingerprint"]
    asked_for_own = resolved(own["name"]) == request["name"] and all(
        own.get(key) == request.get(key) for key in {**own, **request} if key not in WHERE
    )
    if asked_for_own and recorded != dataset.fingerprint:
        moved = "add --dataset NEWPATH if they were moved, " if is_folder(request["name"]) else ""
        raise InputError(
            f"the images of {dataset.label} are not those that run {run.name!r} was trained on "
            f"(fingerprint {dataset.fingerprint[:12]}, recorded {recorded[:12]}): restore them, {moved}or train anew"
        )


def warn_of_seen(run: Run, dataset: Dataset) -> dict[str, int] | None:
    """Say how many validation and test images the run was trained on; the numbers, or None if that is not known."""
    seen, network = count_seen(run, dataset), not_recorded(run)
    if network or (seen is None and run.part("data")["fingerprint"] != dataset.fingerprint):
        of = f"the training images of {network}" if network else "its training images"
        say(
            f"warning: run {run.name} kept no record of {of}: whether it has seen some of the validation and test "
            f"images of {dataset.label} is not known"
        )
    if seen is None or not any(seen.values()):
        return None if network else seen
    totals = {"validation": len(dataset.validation), "test": len(dataset.test)}
    counts = " and ".join(f"{seen[split]:,} of {totals[split]:,} {split} images" for split in seen if seen[split])
    say(f"warning: run {run.name} was trained on {counts}: figures on these are not of new images")
    return seen


def file_suffix(run: Run, dataset: Dataset) -> str:
    """Behind the names of what a command makes of a run: nothing for its own data, else which other data it was."""
    if dataset.fingerprint == run.part("data")["fingerprint"]:
        return ""
    return f"-{usable(dataset.label)[:40] or 'data'}-{dataset.fingerprint[:6]}"
