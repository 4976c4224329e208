"""What a run's own files say of it, for its page: figures, curves, how it was made. NumPy only."""

from typing import Any

from prl_keras.data import Dataset
from prl_keras.data.splits import dataset_label
from prl_keras.reports.sections import curves
from prl_keras.runs import Run, is_kept
from prl_keras.runs.records import FIGURE, damage, damaged, is_text, or_none, read_record

_OPTIONS = (
    *("variant", "model", "encoder", "init", "head", "freeze", "recipe", "epochs", "batch_size", "classes_per_batch"),
    *("learning_rate", "augment", "mix", "distance", "temperature", "label_smoothing", "weight_decay", "dropout"),
    *("schedule", "projection_dim", "neck", "stem", "width", "precision", "average", "seed", "include_validation"),
)
EVALUATION = {
    "fingerprint": is_text,
    "accuracy": lambda value: isinstance(value, dict),
    "chosen_on_validation?": lambda value: isinstance(value, dict),
    "best_on_validation?": or_none(is_text),
}


def run_record(run: Run, dataset: Dataset, suffix: str, seen: dict[str, int] | None) -> dict[str, Any]:
    """Name, data, options, figures and curves.

    Args:
        suffix: of the files that `evaluate` wrote for this data set; "": the run's own.
        seen: how many validation and test pictures the run was trained on; None: not known.

    Raises:
        InputError: a record is damaged.
    """
    options, evaluation = run.config.get("options", {}), _evaluation(run, dataset, suffix)
    names = ("init", "epochs", "seed") if is_kept(run) else _OPTIONS
    made = [[name.replace("_", " "), str(options[name])] for name in names if options.get(name) is not None]
    made += [["classes held out", ", ".join(dataset.held_out)]] if dataset.held_out else []
    return {
        "run": run.name,
        "command": run.config.get("command", ""),
        "created": run.part("created"),
        "dataset": dataset.label,
        "other_data": dataset_label(run.part("data", "request", "name")) if suffix else None,
        "trained_on": not suffix and not is_kept(run),
        "seen": {name: count for name, count in (seen or {}).items() if count},
        "options": made,
        "figures": _own_figures(run, suffix) + _evaluated(run, evaluation, suffix),
        "chosen": _chosen(evaluation),
        "curves": curves(run.metrics),
    }


def _own_figures(run: Run, suffix: str) -> list[dict[str, Any]]:
    result = run.result or {}
    if suffix:
        return []
    found = [
        {"name": "classifier", "split": split, **figure}
        for split in ("test", "validation", "train")
        if (figure := result.get("accuracy", {}).get(split)) and "low" in figure
    ]
    monitored = result.get("saved_encoder", {}).get("val_prototype")
    if monitored and "low" in monitored:
        found.append({"name": "nearest prototype", "split": "validation", **monitored})
    return found


def _evaluation(run: Run, dataset: Dataset, suffix: str) -> dict[str, Any]:
    """What `evaluate` found on these data; empty if it was not run on them."""
    file = run.path / f"evaluation{suffix}.json"
    if not file.exists():
        return {}
    content = read_record(file, EVALUATION)
    return content if content["fingerprint"] == dataset.fingerprint else {}


def _evaluated(run: Run, evaluation: dict[str, Any], suffix: str) -> list[dict[str, Any]]:
    found = []
    for name, figure in evaluation.get("accuracy", {}).items():
        if wrong := damage(figure, FIGURE | {"low": FIGURE["value"], "high": FIGURE["value"]}, "accuracy"):
            raise damaged(run.path / f"evaluation{suffix}.json", wrong)
        if suffix or name != "classifier":  # that one stands in result.json
            found.append({"name": name, "split": "test", **figure})
    return found


def _chosen(evaluation: dict[str, Any]) -> list[str]:
    lines = [f"{name}: {how}" for name, how in evaluation.get("chosen_on_validation", {}).items() if how]
    best = evaluation.get("best_on_validation")
    return [*lines, f"best on validation: {best}"] if best else lines
