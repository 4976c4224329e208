"""Read the JSON files of a run; a damaged one, whatever is in it, is one line and no traceback.

A check is a function of a value, or a dict of checks of a dict's values; a key that ends in "?" may be absent.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prl_keras.errors import InputError

_LARGEST = 64 * 2**20  # bytes; ten thousand epochs have 5 MB

Check = Callable[[Any], bool] | dict[str, "Check"]


def is_text(value: Any) -> bool:
    """JSON may hold half a character, which no terminal can show."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def is_whole(value: Any) -> bool:
    """64 bits: Python reads longer ones, which no figure can be made of."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def is_seed(value: Any) -> bool:
    return is_whole(value) and 0 <= value < 2**32


def is_number(value: Any) -> bool:
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def is_list(check: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and length in (None, len(value)) and all(map(check, value))


class Only(dict):
    """Checks of all the keys that there may be."""


def is_size(value: Any) -> bool:
    """A side, or [height, width]."""
    return is_whole(value) or is_list(is_whole, 2)(value)


def one_of(*values: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in values


REQUEST: Check = Only(
    {
        "name": is_text,
        **dict.fromkeys(("data_dir?", "cache_dir?"), or_none(is_text)),
        "seed?": is_seed,
        "validation_fraction?": is_number,
        **dict.fromkeys(("samples_per_class?", "test_per_class?", "fold?", "max_megapixels?"), or_none(is_whole)),
        "image_size?": or_none(is_size),
        "labels?": is_text,
        "resize?": one_of("crop", "pad", "stretch"),
        "damaged?": one_of("refuse", "skip"),
        "hold_out_classes?": is_list(is_text),
        "domains?": lambda value: isinstance(value, bool),
        "hold_out_domain?": is_text,
    }
)
CONFIG: Check = {
    "created": is_text,
    "command?": is_text,
    "options?": {"epochs?": is_whole, "seed?": is_seed},
    "data?": {
        "request": REQUEST,
        "fingerprint": is_text,
        "class_names": is_list(is_text),
        "image_shape": is_list(is_whole, 3),
        "order?": is_text,
        "bits?": or_none(is_whole),
        "skipped?": is_list(is_text),
        "held_out?": is_list(is_text),
    },
    "versions?": {},
}
FIGURE: Check = {
    "value": is_number,
    "low?": is_number,
    "high?": is_number,
    "balanced?": is_number,
    "worst?": {"class": is_whole, "value": is_number, "correct": is_whole, "n": is_whole},
}
RESULT: Check = {
    "epochs?": is_whole,
    "seconds?": is_number,
    "accuracy?": {"train?": FIGURE, "validation?": FIGURE, "test": {**FIGURE, "low": is_number, "high": is_number}},
    "saved_encoder?": {"val_prototype_accuracy?": or_none(is_number), "val_prototype?": FIGURE},
    "encoder_run?": is_text,
    "test_sha256?": is_text,
}
METRICS: Check = {"epoch": is_whole, "seconds?": is_number}


def read_json(file: Path) -> Any:
    """Raises InputError with one line for a file that is missing or is not JSON."""
    return _parsed(_content(file), file)


def read_record(file: Path, check: Check) -> dict[str, Any]:
    """Raises InputError with one line also for content that `check` refuses."""
    return _sound(read_json(file), check, file)


def read_lines(file: Path, check: Check) -> list[dict[str, Any]]:
    """A record a line."""
    return [_sound(_parsed(line, file), check, file) for line in _content(file).splitlines()]


def _content(file: Path) -> bytes:
    try:
        if file.stat().st_size > _LARGEST:
            raise InputError(f"cannot read {file}: it has more than {_LARGEST:,} bytes")
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error}") from error


def _parsed(content: bytes, file: Path) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot read {file}: {error}") from error


def _sound(content: Any, check: Check, file: Path) -> dict[str, Any]:
    if found := damage(content, check):
        raise damaged(file, found)
    return content


def damaged(file: Path, found: str) -> InputError:
    return InputError(f"{file} is damaged: {found}; put a copy of it back, or move {file.parent} elsewhere")


def damage(content: Any, check: Check, name: str = "") -> str | None:
    """The first part of `content` that is not as it must be, in words; None if all is well."""
    if callable(check) and check(content):
        return None
    if callable(check) or not isinstance(content, dict):
        return f"{name or 'its content'} is {content!a:.40}"
    known_keys = {key.removesuffix("?") for key in check}
    if isinstance(check, Only) and (unknown := sorted(set(content) - known_keys)):
        return f"{name}.{unknown[0]!a:.40} is unknown"
    for key, inner in check.items():
        known = key.removesuffix("?")
        where = f"{name}.{known}" if name else known
        if known in content:
            if found := damage(content[known], inner, where):
                return found
        elif not key.endswith("?"):
            return f"{where} is missing"
    return None
