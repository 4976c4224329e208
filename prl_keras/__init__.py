"""Prototypical representation learning in Keras 3. The public names; each is imported when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prl_keras.data import load_dataset
    from prl_keras.models import build_classifier, load_encoder, projection_head, resnet18
    from prl_keras.training.pretrain import PrototypicalPretrainer, SimCLRPretrainer

__version__ = "0.1.0"

_HOME = {
    "PrototypicalPretrainer": "prl_keras.training.pretrain",
    "SimCLRPretrainer": "prl_keras.training.pretrain",
    "build_classifier": "prl_keras.models",
    "load_dataset": "prl_keras.data",
    "load_encoder": "prl_keras.models",
    "projection_head": "prl_keras.models",
    "resnet18": "prl_keras.models",
}
__all__ = [
    "PrototypicalPretrainer",
    "SimCLRPretrainer",
    "build_classifier",
    "load_dataset",
    "load_encoder",
    "projection_head",
    "resnet18",
]


def __getattr__(name: str) -> Any:
    """Import lazily: `python main.py --help` must not pay for TensorFlow."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
