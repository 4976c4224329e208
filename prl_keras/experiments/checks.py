"""Do the runs of a table belong together? Whoever removes, replaces or adds one by hand is told."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.arrays import read_arrays
from prl_keras.config import DataOptions, Finetune, unused_options
from prl_keras.data import load_dataset
from prl_keras.data.request import WHERE
from prl_keras.errors import InputError
from prl_keras.experiments.cells import Cell
from prl_keras.runs import Run
from prl_keras.runs.lifecycle import NOT_RECORDED
from prl_keras.runs.recorded import as_json, as_resolved
from prl_keras.runs.records import FIGURE, Check, damage, is_list, is_number, is_text, is_whole, read_record

_AGAIN = "remove the run and repeat the command"
_POINT: Check = {"labels_per_class": is_whole, "C?": is_number, "test": FIGURE}
_LABELS: Check = {
    "fingerprint?": is_text,
    "seed?": is_whole,
    "validation_images?": is_whole,
    "points": is_list(lambda point: damage(point, _POINT) is None),
}


def check_cells(cells: list[Cell], folder: Path) -> None:
    """Compare what is there with what the table's plan makes.

    Raises:
        InputError: a run was made with other options, from other data, or from another encoder than the one that is
            there; or its label-efficiency curve was.
    """
    table = Run(folder)
    recorded = table.part("data") if (folder / "config.json").is_file() else None
    done = [cell for cell in cells if cell.done]
    runs = [cell for cell in done if not cell.labels]
    for cell in runs:
        check_options(cell)
        check_request(cell, recorded["request"] if recorded else {})
        check_encoder(cell)
    for cell in done:
        if cell.labels:
            read_labels(cell)


def unused_of(cell: Cell) -> dict[str, str]:
    """Options that do nothing in the cell's run."""
    return unused_options(type(cell.options).__name__.lower(), vars(cell.options))


def check_options(cell: Cell) -> None:
    command = type(cell.options).__name__.lower()
    recorded = cell.run.part("options")
    resolved = as_resolved(command, recorded)
    for key, value in asdict(cell.options).items():
        if key in recorded and resolved[key] != as_json(value):
            if key in ("data_dir", "cache_dir", *NOT_RECORDED) or key in unused_of(cell):
                continue
            raise InputError(
                f"run {cell.run.path} was made with {key} = {recorded[key]}, the table needs {value}: {_AGAIN}"
            )


def check_request(cell: Cell, begun_with: dict[str, Any]) -> None:
    """Which images: how many, how large, how split. Where they lie is no matter, see `check_fingerprints`.

    Args:
        begun_with: the request that the table recorded; the planned one may ask for the same images in other words.
    """
    recorded = cell.run.part("data")["request"]
    for key, value in cell.request.items():
        was = recorded.get(key, getattr(DataOptions, key, 0))  # of an option that did not exist: its default; seed: 0
        same_words = value if key in ("seed", "fold") else begun_with.get(key, value)
        if key not in WHERE and was not in (value, same_words):
            raise InputError(
                f"run {cell.run.path} was made from data with {key} = {was}, the table needs {value}: {_AGAIN}"
            )


def check_encoder(cell: Cell) -> None:
    """A fine-tuning belongs to its encoder and to the encoder's images, also if one of them was made again."""
    if not isinstance(cell.options, Finetune):
        return
    run, source = cell.run, Run(cell.options.runs_dir / cell.options.encoder)
    if source.result is None:  # will be made again, and compared then
        return
    same_weights = run.result.get("encoder_sha256_before") == source.result.get("encoder_sha256")
    if not same_weights or run.part("data")["fingerprint"] != source.part("data")["fingerprint"]:
        raise InputError(f"run {run.path} was made from another {source.name} than the one that is there: {_AGAIN}")


def check_fingerprints(cells: list[Cell]) -> None:
    """Every run saw the images that its own replicate asks for; these are loaded, once a replicate.

    Raises:
        InputError: a run was made from others.
    """
    expected: dict[int, str] = {}
    for cell in cells:
        seed = cell.options.seed
        if cell.done and seed not in expected:
            expected[seed] = load_dataset(**cell.request).fingerprint
        if cell.done and cell.run.part("data")["fingerprint"] != expected[seed]:
            raise InputError(f"run {cell.run.path} was made from other images than the table's: {_AGAIN}")


def check_same_images(runs: list[Run]) -> None:
    """Answers are compared image by image. Runs older than `test_sha256` are known by their labels only."""
    labels = read_predictions(runs[0])["test_labels"]
    known = next((run.result["test_sha256"] for run in runs if "test_sha256" in run.result), None)
    for run in runs:
        same_labels = np.array_equal(read_predictions(run)["test_labels"], labels)
        if not same_labels or run.result.get("test_sha256", known) != known:
            raise InputError(f"run {run.path} was tested on other images than the rest: remove it, repeat the command")


def read_predictions(run: Run) -> dict[str, np.ndarray]:
    try:
        content = read_arrays(run.predictions_file)
        return {name: content[name] for name in ("test_logits", "test_labels")}
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise InputError(f"cannot read {run.predictions_file}: {error}; {_AGAIN}") from error


def read_labels(cell: Cell) -> dict[str, Any]:
    """The label-efficiency curve beside a run.

    Raises:
        InputError: it is damaged, or was made from other images or with another seed than the run.
    """
    content = read_record(cell.labels_file, _LABELS)
    expected = {"fingerprint": cell.run.part("data")["fingerprint"], "seed": cell.options.seed}
    for key, value in expected.items():
        if content.get(key, value) != value:
            raise InputError(
                f"{cell.labels_file} was made from another run ({key} = {content[key]!s:.12}, not {value!s:.12}): "
                "remove the file and repeat the command"
            )
    return content
