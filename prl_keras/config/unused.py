"""Options that do nothing beside others: given, they are refused."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from prl_keras.config.data import DataOptions
from prl_keras.errors import InputError
from prl_keras.recipes import CONTRASTIVE, PROTOTYPES

_OF_PRL = (
    "learn_temperature",
    "memory_momentum",
    "teacher_momentum",
    "soft_weight",
    "mix",
    "mix_alpha",
    "mix_probability",
)
_OF_SHIFT = ("shift", "relative_to", "seed")
_OF_UNLABELLED = ("unlabelled_ratio", "unlabelled_weight")
_LABELLED = {"unlabelled": {False: _OF_UNLABELLED}}
_UNMIXED = {"mix": {"none": ("mix_alpha", "mix_probability")}, "schedule": {"constant": ("warmup",)}}
_UNSHARED = {"strategy": {"none": ("local_batch_norm",)}}
# What a choice leaves unused: command -> option -> its value -> options that then do nothing.
_UNUSED: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "pretrain": {
        "variant": {
            **dict.fromkeys((*PROTOTYPES, "views"), _OF_PRL),
            **dict.fromkeys(CONTRASTIVE, ("distance", *_OF_PRL, *_OF_UNLABELLED)),
            "prl": ("distance",),
        },
        **_UNSHARED,
        **_UNMIXED,
        **_LABELLED,
    },
    "evaluate": {
        "few_shot": {False: ("ways", "shots", "queries", "episodes"), True: ("unknown", "far", *_OF_SHIFT)},
        "unknown": {False: ("far",), True: _OF_SHIFT},
        "shift": {False: _OF_SHIFT[1:]},
    },
    "finetune": _UNSHARED | _UNMIXED,
    "baseline": {
        "model": {
            "mlp": ("stem", "width"),
            "pca": (
                *("recipe", "stem", "width", "epochs", "batch_size", "learning_rate", "average", "augment"),
                *("label_smoothing", "mix", "mix_alpha", "mix_probability", "schedule", "warmup", "weight_decay"),
                *("decay", "precision", "deterministic", "checkpoint_steps", "test_each_epoch", "verbose"),
                *("unlabelled", *_OF_UNLABELLED, "strategy", "local_batch_norm"),
            ),
        },
        **_UNSHARED,
        **_UNMIXED,
        **_LABELLED,
    },
    "tune": {"shared": {False: ("lease_seconds",)}},
    "predict": {"reject": {False: ("dataset", "data_dir")}},
    "data": {
        "action": {
            "list": (*(f.name for f in fields(DataOptions) if f.name != "data_dir"), "seed", "clear", "json"),
            "cache": (*(f.name for f in fields(DataOptions) if f.name != "cache_dir"), "seed", "json"),
            **dict.fromkeys(("prepare", "verify"), ("clear",)),
        }
    },
}


def unused_options(command: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Options of the command that do nothing beside the others -> the choice because of which, as typed."""
    return {
        name: _as_chosen(command, choice, options[choice])
        for choice, values in _UNUSED.get(command, {}).items()
        for name in values.get(options.get(choice), ())
    }


def _as_chosen(command: str, choice: str, value: Any) -> str:
    flag = choice.replace("_", "-")
    if choice == "unlabelled":
        return "no --unlabelled"
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return value if command == "data" else f"--{flag} {value}"


def check_unused(options: object) -> None:
    """Raise InputError if an option that was given does nothing."""
    if unused := unused_but_given(options):
        raise InputError(f"{unused[0]} does nothing with {unused[1]}: leave it out")


def unused_but_given(options: object) -> tuple[str, str] | None:
    """(flag, choice) of the first option that is not at its default and does nothing; None if there is none."""
    unused = unused_options(type(options).__name__.lower(), vars(options))
    for field in fields(options):
        given = getattr(options, "given", None)
        chosen = getattr(options, field.name) != field.default if given is None else field.name in given
        if field.name in unused and chosen:
            no = "no-" if getattr(options, field.name) is False else ""
            return f"--{no}{field.name.replace('_', '-')}", unused[field.name]
    return None
