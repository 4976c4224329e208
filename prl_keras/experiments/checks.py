"""Do the runs of a table belong together? Whoever removes or replaces one by hand is told. Imports `runs`, `table`."""

from dataclasses import asdict

import numpy as np

from prl_keras.config import Finetune
from prl_keras.errors import InputError
from prl_keras.experiments.table import Cell
from prl_keras.runs import Run


def read_predictions(run: Run) -> dict[str, np.ndarray]:
    try:
        with np.load(run.predictions_file, allow_pickle=False) as file:
            return {name: file[name] for name in ("test_logits", "test_labels")}
    except Exception as error:  # whatever a damaged file makes zipfile or NumPy raise
        raise InputError(
            f"cannot read {run.predictions_file}: {error}; remove the run and repeat the command"
        ) from error


def check_same_images(runs: list[Run]) -> None:
    """Answers are compared image by image. Runs older than `test_sha256` are known by their labels only."""
    labels = read_predictions(runs[0])["test_labels"]
    known = next((run.result["test_sha256"] for run in runs if "test_sha256" in run.result), None)
    for run in runs:
        same_labels = np.array_equal(read_predictions(run)["test_labels"], labels)
        if not same_labels or run.result.get("test_sha256", known) != known:
            raise InputError(f"run {run.path} was tested on other images than the rest: remove it, repeat the command")


def check_encoder(cell: Cell) -> None:
    """A fine-tuning belongs to its encoder and to the encoder's images, also if one of them was made again."""
    if not isinstance(cell.options, Finetune):
        return
    run, source = cell.run, Run(cell.options.runs_dir / cell.options.encoder)
    same_weights = run.result.get("encoder_sha256_before") == source.result.get("encoder_sha256")
    if not same_weights or run.part("data")["fingerprint"] != source.part("data")["fingerprint"]:
        raise InputError(
            f"run {run.path} was made from another {source.name} than the one that is there: "
            "remove the run and repeat the command"
        )


def check_options(cell: Cell) -> None:
    recorded = cell.run.part("options")
    for key, value in asdict(cell.options).items():
        if key in recorded and recorded[key] != (list(value) if isinstance(value, tuple) else value):
            if key in ("data_dir", "runs_dir", "name", "resume"):
                continue
            raise InputError(
                f"run {cell.run.path} was made with {key} = {recorded[key]}, the table needs {value}: "
                "remove the run and repeat the command"
            )
