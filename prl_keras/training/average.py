"""Keep the average of the weights over the end of training, not the draw that the last step happens to be.

At a constant learning rate the accuracy of one and the same run moves by about a point from epoch to epoch. The
report answers with the best epoch on test; averaging (Polyak & Juditsky 1992, Izmailov et al. 2018) needs no test set.
"""

import numbers

import keras
import numpy as np

from prl_keras.config import RecipeOptions
from prl_keras.data.batches import Batches
from prl_keras.errors import InputError
from prl_keras.training.adam import FusedAdam

SCHEDULES = ("constant", "cosine")

_AVERAGED_PART = 0.1  # of all steps, roughly: the length of the exponential window
_TAKEN_IN = 10  # weights a window: those of every step are hardly another average, and take a tenth of the time
_MAX_BATCHES = 50  # enough for batch-normalisation statistics
_AT_ONCE = 1024  # images: a batch that several devices share may be too large for one


def adam(
    learning_rate: float,
    steps: int,
    average: bool,
    weight_decay: float = 0.0,
    schedule: str = "constant",
    warmup: float = 0.05,
    decay_all: bool = True,
) -> keras.optimizers.Adam:
    """Adam that, if `average`, ends `fit` with the moving average of the weights over about the last tenth of `steps`.

    The window follows the length of the training, so that short ones forget their first weights too; it takes in the
    weights of ten of its steps, the last one of the training among them. Weight decay is
    decoupled (Loshchilov & Hutter 2019): each step takes weight * `weight_decay` * the learning rate of that step off.

    Args:
        schedule: of the learning rate, "constant" or "cosine"; see `cosine_schedule`.
        warmup: part of `steps`; of "cosine" only.
        decay_all: False: biases, and scale and offset of normalisations, are not decayed.

    Raises:
        InputError: an unknown schedule, or a warm-up outside 0..1.
    """
    if schedule not in SCHEDULES:
        raise InputError(f"schedule is {schedule!r}; expected one of {', '.join(SCHEDULES)}")
    window = _AVERAGED_PART * steps
    every = max(1, int(window / _TAKEN_IN)) if average else 1
    momentum = max(0.0, 1.0 - 1.0 / window) ** every if average else 0.0
    return FusedAdam(
        learning_rate if schedule == "constant" else cosine_schedule(learning_rate, steps, warmup),
        weight_decay=weight_decay or None,
        use_ema=average,
        ema_momentum=momentum,
        ema_every=every,
        ema_phase=(steps - 1) % every,
        decay_all=decay_all,
    )


def cosine_schedule(learning_rate: float, steps: int, warmup: float = 0.05) -> keras.optimizers.schedules.CosineDecay:
    """From 0 in a straight line to `learning_rate` over `warmup` * `steps` steps, then along half a cosine to 0 after
    the last of `steps` (Loshchilov & Hutter 2017, without restarts).

    A function of the number of steps taken, and of nothing else: a training that is continued goes on where it was.

    Raises:
        InputError: a warm-up outside 0..1.
    """
    if not isinstance(warmup, numbers.Real) or not 0 <= warmup < 1:
        raise InputError(f"warmup is {warmup!r}; expected at least 0 and below 1")
    rising = min(round(warmup * steps), steps - 1)
    if not rising:
        return keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return keras.optimizers.schedules.CosineDecay(0.0, steps - rising, warmup_target=learning_rate, warmup_steps=rising)


def adam_of(options: RecipeOptions, steps: int) -> keras.optimizers.Adam:
    """The optimizer that the options ask for, for `steps` steps in all."""
    return adam(
        options.learning_rate,
        steps,
        options.average,
        options.weight_decay,
        options.schedule,
        options.warmup,
        options.decay == "all",
    )


def recalibrate_batch_norm(encoder: keras.Model, batches: Batches, augmentation: keras.layers.Layer | None) -> None:
    """Give averaged weights their own batch-normalisation statistics: the mean over (at most 50) training batches,
    each weighted by its images, and in parts of at most 1,024.

    Frozen layers keep theirs (Izmailov et al. 2018, section 3.2). Layers of networks within the encoder count too.
    """
    normalisations = (each for each in encoder._flatten_layers() if isinstance(each, keras.layers.BatchNormalization))
    layers = [layer for layer in normalisations if layer.trainable]
    if not layers or not encoder.trainable:
        return
    momentum = [layer.momentum for layer in layers]
    batches.epoch = 0  # the same images whether training was interrupted or not
    seen = 0
    for step in range(min(len(batches), _MAX_BATCHES)):
        batch = batches.all_inputs(step)
        for images in np.array_split(batch, -(-len(batch) // _AT_ONCE)):
            for layer in layers:
                layer.momentum = seen / (seen + len(images))  # a running mean of all images
            seen += len(images)
            images = augmentation(images, training=True) if augmentation else images
            encoder(images, training=True)
    for layer, value in zip(layers, momentum, strict=True):
        layer.momentum = value
