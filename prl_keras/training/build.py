"""The pre-training variants as data: which loss, on how many views, with which augmentation."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from prl_keras.config import Pretrain
from prl_keras.data.augment import augmentation
from prl_keras.errors import InputError
from prl_keras.losses import NTXentLoss, PrototypicalLoss, SupervisedContrastiveLoss
from prl_keras.models import projection_head, resnet18
from prl_keras.models.layer_types import FAST
from prl_keras.training.pretrain import PrototypicalPretrainer, SimCLRPretrainer


@dataclass(frozen=True)
class Recipe:
    """One row of the table below.

    loss: (options, num_classes, temperature) -> loss; temperature: by distance.
    """

    pretrainer: type[keras.Model]
    loss: Callable[[Pretrain, int, float], keras.losses.Loss]
    temperature: dict[str, float]
    augment: str
    preprocessing: str  # the paper's SimCLR also centres the pixels


def _prototypical(options: Pretrain, num_classes: int, temperature: float) -> keras.losses.Loss:
    return PrototypicalLoss(num_classes, options.variant, options.distance, temperature)


# Similarities lie in -1..1: at 1, ten classes at the corners of a simplex still have a loss of 1.38 (see `bounds`).
_PRL = Recipe(PrototypicalPretrainer, _prototypical, {"euclidean": 1.0, "squared": 1.0, "cosine": 0.1}, "none", "unit")
RECIPES = {
    "standard": _PRL,
    "query": _PRL,
    "loo": _PRL,
    "simclr": Recipe(SimCLRPretrainer, lambda _, __, t: NTXentLoss(t), {"cosine": 0.07}, "simclr", "centred"),
    "supcon": Recipe(
        SimCLRPretrainer, lambda _, __, t: SupervisedContrastiveLoss(t), {"cosine": 0.1}, "simclr", "centred"
    ),
}


def temperature(options: Pretrain) -> float:
    """The one that is asked for, or that of the recipe and the distance."""
    if options.temperature is not None:
        return options.temperature
    by_distance = RECIPES[options.variant].temperature
    return by_distance.get(options.distance) or by_distance["cosine"]


def build_pretrainer(options: Pretrain, image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """The pre-trainer, built but not compiled, that the options ask for.

    Raises:
        InputError: options that contradict each other.
    """
    recipe = RECIPES[options.variant]
    augment = options.augment or recipe.augment
    if recipe.pretrainer is SimCLRPretrainer and augment == "none":
        raise InputError(f"--variant {options.variant} compares two augmented views: use --augment light or simclr")
    encoder = resnet18(image_shape, options.stem, recipe.preprocessing, FAST)
    pretrainer = recipe.pretrainer(
        encoder,
        projection_head(options.projection_dim, input_dim=encoder.output_shape[-1]),
        recipe.loss(options, num_classes, temperature(options)),
        augmentation(augment, image_shape[:2], options.seed),
        name=f"{options.variant}_pretrainer",
    )
    pretrainer.build((None, *image_shape))
    return pretrainer
