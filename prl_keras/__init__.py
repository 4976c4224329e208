"""Prototypical representation learning in Keras 3. The public names; each is imported when first used.

After `import prl_keras`, before or after `import keras`, `keras.models.load_model` opens whatever this package saves.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module, util
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prl_keras.data import load_dataset
    from prl_keras.evaluation.prototype_classifier import PrototypeClassifier
    from prl_keras.evaluation.taught import load_taught
    from prl_keras.models import build_classifier, load_encoder, projection_head, resnet18
    from prl_keras.training.finetuning import finetune
    from prl_keras.training.pretrain import PrototypicalPretrainer, SimCLRPretrainer
    from prl_keras.training.pretraining import pretrain

__version__ = "0.1.0"

# TensorFlow switches oneDNN off on processors without AVX-512 VNNI; a training step of small images then takes 1.7
# times as long, with Keras's own layers 9 times (docs/results/onednn.json): gradients of maps of 1x1 to 4x4 pixels.
if "tensorflow" not in sys.modules:  # once it is imported, it goes by what was there then
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_HOME = {
    "PrototypeClassifier": "prl_keras.evaluation.prototype_classifier",
    "PrototypicalPretrainer": "prl_keras.training.pretrain",
    "SimCLRPretrainer": "prl_keras.training.pretrain",
    "build_classifier": "prl_keras.models",
    "finetune": "prl_keras.training.finetuning",
    "load_dataset": "prl_keras.data",
    "load_encoder": "prl_keras.models",
    "load_taught": "prl_keras.evaluation.taught",
    "pretrain": "prl_keras.training.pretraining",
    "projection_head": "prl_keras.models",
    "resnet18": "prl_keras.models",
}
__all__ = [
    "PrototypeClassifier",
    "PrototypicalPretrainer",
    "SimCLRPretrainer",
    "build_classifier",
    "finetune",
    "load_dataset",
    "load_encoder",
    "load_taught",
    "pretrain",
    "projection_head",
    "resnet18",
]

# Classes that Keras finds in its files by their registered name, and where they are defined.
_SAVED = {
    "Augmentation": "prl_keras.data.augment",
    "CrossViewLoss": "prl_keras.losses",
    "FusedAdam": "prl_keras.training.adam",
    "FusedBatchNormalization": "prl_keras.models.batch_norm",
    "MemoryPretrainer": "prl_keras.training.memory",
    "Mixing": "prl_keras.data.mixing",
    "NTXentLoss": "prl_keras.contrastive",
    "PrototypicalLoss": "prl_keras.losses",
    "PrototypicalPretrainer": "prl_keras.training.pretrain",
    "SemiMemoryPretrainer": "prl_keras.training.semi",
    "SimCLRPretrainer": "prl_keras.training.pretrain",
    "SmallMapConv2D": "prl_keras.models.convolution",
    "SmoothedCrossEntropy": "prl_keras.training.cross_entropy",
    "SupervisedContrastiveLoss": "prl_keras.contrastive",
    "Unmixed": "prl_keras.training.memory",
}


def __getattr__(name: str) -> Any:
    """Import lazily: `python main.py --help` must not pay for TensorFlow."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


class _Deferred:
    """Stands in Keras's registry for a class until its module is imported, which replaces it."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def from_config(self, config: dict) -> Any:
        return getattr(import_module(self.module), self.name).from_config(config)


def _register(keras: ModuleType) -> None:
    registered = keras.saving.get_custom_objects()
    for name, module in _SAVED.items():
        registered.setdefault(f"prl_keras>{name}", _Deferred(module, name))


class _WhenKerasComes:
    """A finder that finds Keras where it is, and registers as soon as it is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        try:
            spec = util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)  # that import may fail, and be tried again
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register(module)

            spec.loader.exec_module = execute_and_register
        return spec


if "keras" in sys.modules:
    _register(sys.modules["keras"])
else:
    sys.meta_path.insert(0, _WhenKerasComes())
