"""From options to a pre-trainer: which loss, on how many views, with which augmentation."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import numpy as np

from prl_keras.config import Baseline, Pretrain
from prl_keras.data.augment import augmentation
from prl_keras.errors import InputError
from prl_keras.losses import CrossViewLoss, NTXentLoss, PrototypicalLoss, SupervisedContrastiveLoss
from prl_keras.memory import matched_temperature
from prl_keras.models import mlp_encoder, projection_head, resnet18
from prl_keras.models.layer_types import FAST, LayerTypes
from prl_keras.recipes import VIEWS
from prl_keras.training.memory import MemoryPretrainer
from prl_keras.training.mixed import mixing_of
from prl_keras.training.pretrain import PrototypicalPretrainer, SimCLRPretrainer
from prl_keras.training.semi import SemiMemoryPretrainer


@dataclass(frozen=True)
class Parts:
    """What a pre-trainer is made of, and what it is told of the training."""

    options: Pretrain
    encoder: keras.Model
    projection_head: keras.Model
    augmentation: keras.layers.Layer
    num_classes: int
    labels: np.ndarray
    steps: int


@dataclass(frozen=True)
class Kind:
    """One row of the table below.

    assemble: parts -> pre-trainer; temperature: by distance, for those who give none; augment, preprocessing: the
    paper's (its SimCLR also centres the pixels).
    """

    assemble: Callable[[Parts], keras.Model]
    temperature: dict[str, float]
    augment: str
    preprocessing: str


def _prototypes_of_the_batch(parts: Parts) -> keras.Model:
    options = parts.options
    loss = PrototypicalLoss(
        parts.num_classes,
        options.variant,
        options.distance,
        temperature(options),
        label_smoothing=options.label_smoothing,
    )
    return PrototypicalPretrainer(parts.encoder, parts.projection_head, loss, parts.augmentation, _name(options))


def _two_views(loss: type[keras.losses.Loss]) -> Callable[[Parts], keras.Model]:
    def assemble(parts: Parts) -> keras.Model:
        options = parts.options
        contrastive = loss(temperature(options), label_smoothing=options.label_smoothing)
        return SimCLRPretrainer(
            parts.encoder, parts.projection_head, contrastive, parts.augmentation, name=_name(options)
        )

    return assemble


def _prototypes_of_the_other_view(parts: Parts) -> keras.Model:
    options = parts.options
    loss = CrossViewLoss(parts.num_classes, options.distance, temperature(options), options.label_smoothing)
    return SimCLRPretrainer(parts.encoder, parts.projection_head, loss, parts.augmentation, name=_name(options))


def _prototypes_of_a_memory(parts: Parts) -> keras.Model:
    options = parts.options
    semi = {"unlabelled_weight": options.unlabelled_weight} if options.unlabelled else {}
    kind = SemiMemoryPretrainer if semi else MemoryPretrainer
    return kind(
        parts.encoder,
        parts.projection_head,
        parts.labels,
        parts.num_classes,
        _temperature_of_a_memory(options, parts.num_classes),
        options.label_smoothing,
        parts.augmentation,
        None if options.mix == "none" else mixing_of(options),
        memory_momentum=options.memory_momentum,
        teacher_momentum=options.teacher_momentum,
        soft_weight=options.soft_weight,
        learn_temperature=options.learn_temperature,
        total_steps=parts.steps,
        name=_name(options),
        **semi,
    )


def _temperature_of_a_memory(options: Pretrain, num_classes: int) -> float:
    """Targets that are not smoothed are met at no temperature; then it is that of other cosines."""
    if options.temperature is not None:
        return options.temperature
    return matched_temperature(num_classes, options.label_smoothing) if options.label_smoothing else _COSINE


_COSINE = 0.1  # temperature
# Similarities lie in -1..1: at 1, ten classes at the corners of a simplex still have a loss of 1.38 (see `bounds`).
_PRL = Kind(_prototypes_of_the_batch, {"euclidean": 1.0, "squared": 1.0, "cosine": _COSINE}, "none", "unit")
KINDS = {
    "standard": _PRL,
    "query": _PRL,
    "loo": _PRL,
    "views": replace(_PRL, assemble=_prototypes_of_the_other_view, augment="light"),
    "prl": Kind(_prototypes_of_a_memory, {}, "none", "unit"),
    "simclr": Kind(_two_views(NTXentLoss), {"cosine": 0.07}, "simclr", "centred"),
    "supcon": Kind(_two_views(SupervisedContrastiveLoss), {"cosine": 0.1}, "simclr", "centred"),
}


def _name(options: Pretrain) -> str:
    return f"{options.variant}_pretrainer"


def temperature(options: Pretrain) -> float | None:
    """The one that is asked for, or that of the kind and the distance; None: it depends on the data."""
    if options.temperature is not None:
        return options.temperature
    by_distance = KINDS[options.variant].temperature
    return by_distance.get(options.distance) or by_distance.get("cosine")


def build_encoder(
    options: Pretrain | Baseline, image_shape: tuple[int, int, int], layer_types: LayerTypes = FAST
) -> keras.Model:
    """The encoder that the options ask for, with the weights that training begins with, after the same seed."""
    if isinstance(options, Baseline):
        if options.model == "mlp":
            return mlp_encoder(image_shape)
        return resnet18(image_shape, options.stem, layer_types=layer_types, width=options.width)
    preprocessing = KINDS[options.variant].preprocessing
    return resnet18(image_shape, options.stem, preprocessing, layer_types, width=options.width)


def build_pretrainer(
    options: Pretrain,
    image_shape: tuple[int, int, int],
    num_classes: int,
    labels: np.ndarray | None = None,
    steps: int = 1,
    encoder: keras.Model | None = None,
) -> keras.Model:
    """The pre-trainer, built but not compiled, that the options ask for.

    Args:
        encoder: to begin with; None: a new one.
        labels: (n,) of all training images, which "prl" remembers.
        steps: of the whole training.

    Raises:
        InputError: options that contradict each other.
    """
    kind = KINDS[options.variant]
    augment = options.augment or kind.augment
    if options.variant in VIEWS and augment == "none":
        raise InputError(
            f"--variant {options.variant} compares two augmented views: use --augment light, strong or simclr"
        )
    encoder = build_encoder(options, image_shape) if encoder is None else encoder
    parts = Parts(
        options,
        encoder,
        projection_head(options.projection_dim, input_dim=encoder.output_shape[-1], neck=options.neck),
        augmentation(augment, image_shape[:2], options.seed),
        num_classes,
        np.zeros(1, int) if labels is None else labels,
        steps,
    )
    pretrainer = kind.assemble(parts)
    pretrainer.build((None, *image_shape))
    return pretrainer
