"""Which options no training can use, of a command or of a call from Python."""

import math
from dataclasses import fields
from typing import Any

from prl_keras.config import DataOptions, check_least, check_seed, check_unused
from prl_keras.errors import InputError
from prl_keras.extras import check_installed

_BELOW_1, _ABOVE_0 = math.nextafter(1.0, 0.0), math.nextafter(0.0, 1.0)
# option -> the least and the largest value that a training can use, and both in words
_RANGES = {
    "label_smoothing": (0.0, _BELOW_1, "from 0, below 1"),
    "warmup": (0.0, _BELOW_1, "from 0, below 1"),
    "mix_alpha": (_ABOVE_0, math.inf, "above 0"),
    "mix_probability": (0.0, 1.0, "from 0 to 1"),
    "memory_momentum": (0.0, _BELOW_1, "from 0, below 1"),
    "teacher_momentum": (0.0, 1.0, "from 0 to 1"),
    "soft_weight": (0.0, 1.0, "from 0 to 1"),
    "width": (_ABOVE_0, 4.0, "above 0, at most 4"),
    "weight_decay": (0.0, math.inf, "of 0 or more"),
    "temperature": (_ABOVE_0, math.inf, "above 0"),
    "projection_dim": (0, math.inf, "of 0 or more"),
    "unlabelled_ratio": (1, math.inf, "of at least 1"),
    "unlabelled_weight": (0.0, math.inf, "of 0 or more"),
    "classes_per_batch": (2, math.inf, "of at least 2"),
}


def check_training(options: Any, images: int, whole_batches: bool) -> None:
    """Raise InputError for numbers that no training can use, and for a tracker that is not installed."""
    if options.track is not None:
        check_installed([options.track], f"--track {options.track}", "tracking")
    if getattr(options, "strategy", "none") != "none" and options.precision == "mixed_float16":
        raise InputError(
            f"--strategy {options.strategy} is not for --precision mixed_float16, where each device decides whether to "
            "skip a step: use mixed_bfloat16 or float32"
        )
    check_least(options, epochs=1, batch_size=2, checkpoint_steps=1)
    if not 0 < options.learning_rate < float("inf"):
        raise InputError(f"--learning-rate is {options.learning_rate}; expected a number above 0")
    check_seed(options.seed)
    for name, value in vars(options).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"--{name.replace('_', '-')} is {value}; expected a finite number")
    for name, (least, most, words) in _RANGES.items():
        value = getattr(options, name, None)
        if value is not None and not least <= value <= most:
            raise InputError(f"--{name.replace('_', '-')} is {value}; expected a number {words}")
    if whole_batches and options.batch_size > images:
        raise InputError(
            f"--batch-size {options.batch_size} is larger than the {images} training images: "
            f"use --batch-size {images} or less"
        )


def check_call(options: Any, images: int, whole_batches: bool) -> None:
    """As a command does of its options: raise InputError for what a call from Python gives and nothing would use."""
    check_unused(options)
    for field in fields(DataOptions):
        if getattr(options, field.name, None) not in (None, False, (), field.default):
            raise InputError(f"{field.name} is for load_dataset, which made these data: leave it out")
    check_training(options, images, whole_batches)
