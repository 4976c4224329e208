"""What is searched: the hyperparameters, the paper's fixed configurations, and both as `Finetune` options."""

from dataclasses import fields
from itertools import product
from typing import Any

from prl_keras.config import Finetune, RunDataOptions, Tune

HEADS = ("linear", "mlp")
NAMES = ("encoder", "head", "freeze", "learning_rate", "weight_decay", "dropout", "augment")

# What the paper's four configurations (head x freezing) have in common.
PAPER = {"dropout": 0.0, "weight_decay": 0.0, "augment": "none", "learning_rate": 1e-3}


def declare_space(hp: Any, encoders: tuple[str, ...], grid: bool = False) -> dict[str, Any]:
    """Register every hyperparameter in `hp` (keras_tuner.HyperParameters); return their current values.

    The order matters to grid search, which varies the last one fastest: its first trials are the paper's.

    Args:
        encoders: names; a hyperparameter only if there are several.
        grid: coarser, finite values.
    """
    values = {
        "dropout": hp.Choice("dropout", [0.0, 0.5] if grid else [0.0, 0.25, 0.5]),
        "weight_decay": hp.Choice("weight_decay", [0.0, 0.01] if grid else [0.0, 0.001, 0.01, 0.1]),
        "augment": hp.Choice("augment", ["none", "light"]),
        "learning_rate": hp.Choice("learning_rate", [1e-4, 1e-3, 1e-2], default=1e-3)
        if grid
        else hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3),
        "encoder": hp.Choice("encoder", list(encoders)) if len(encoders) > 1 else encoders[0],
        "head": hp.Choice("head", list(HEADS)),
        "freeze": hp.Boolean("freeze", default=True),
    }
    return rounded(values)


def paper_configurations(encoders: tuple[str, ...]) -> list[dict[str, Any]]:
    """Hyperparameter values of the paper's four configurations of each encoder, the first encoder's first."""
    several = len(encoders) > 1
    return [
        {**PAPER, **({"encoder": encoder} if several else {}), "head": head, "freeze": freeze}
        for encoder, head, freeze in product(encoders, HEADS, (True, False))
    ]


def is_paper(values: dict[str, Any]) -> bool:
    return all(values[name] == value for name, value in PAPER.items())


def complete_values(values: dict[str, Any], encoders: tuple[str, ...]) -> dict[str, Any]:
    """A finished trial's values, in the order of NAMES, with the encoder also where there is no choice."""
    complete = rounded({"encoder": encoders[0], **values})
    return {name: complete[name] for name in NAMES}


def finetune_options(values: dict[str, Any], options: Tune, **changes: Any) -> Finetune:
    """The `python main.py finetune` options that train this configuration on the search's data.

    Without averaging of weights: when a trial will stop is not known beforehand.
    """
    data = (field.name for field in fields(RunDataOptions))
    same = (*data, "recipe", "batch_size", "precision", "seed", "epochs", "runs_dir", "verbose")
    common = {name: getattr(options, name) for name in same}
    return Finetune(**common | {"average": False} | values | changes)


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Three digits of each number: what a command line shows, and what survives Keras Tuner's float32 messages."""
    return {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in values.items()}


def winner_name(run_name: str) -> str:
    """Of the run that a search trains at its end."""
    return f"{run_name}-winner"
