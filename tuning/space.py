"""What is searched: the hyperparameters, their ranges, and the paper's four fixed configurations.

Imports nothing of this package; Keras Tuner inside.
"""

from typing import Any

WEIGHT_DECAY = (0.0, 1e-4, 1e-3, 1e-2)
DROPOUT = (0.0, 0.2, 0.5)
AUGMENT = ("none", "light")

_PAPER = {"learning_rate": 1e-3, "weight_decay": 0.0, "dropout": 0.0, "augment": "none"}


def paper_configurations(encoders: list[str]) -> list[dict[str, Any]]:
    """The report's four fine-tunings, on the first encoder: head x freezing at its fixed settings."""
    common = _PAPER | ({"encoder": encoders[0]} if len(encoders) > 1 else {})
    return [{"head": head, "freeze": freeze, **common} for freeze in (True, False) for head in ("linear", "mlp")]


def declare(encoders: list[str], grid: bool = False) -> Any:
    """The whole space, declared beforehand: Keras Tuner's workers stop at once on a space that is still empty.

    Args:
        encoders: names of the runs to choose from.
        grid: a small, even space: head x freezing x three learning rates (x encoders), the rest as in the paper.
    """
    import keras_tuner

    space = keras_tuner.HyperParameters()
    if len(encoders) > 1:
        space.Choice("encoder", encoders)
    space.Choice("head", ["linear", "mlp"])
    space.Boolean("freeze", default=True)
    if grid:
        space.Choice("learning_rate", [1e-4, 1e-3, 1e-2], default=1e-3, ordered=True)
        for name in ("weight_decay", "dropout", "augment"):
            space.Fixed(name, _PAPER[name])
        return space
    space.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3)
    space.Choice("weight_decay", list(WEIGHT_DECAY), ordered=True)
    space.Choice("dropout", list(DROPOUT), ordered=True)
    space.Choice("augment", list(AUGMENT))
    return space
