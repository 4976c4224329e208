"""The options that a run was made with, from its config.json and checked, as the dataclass of its command."""

from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from prl_keras import config as declared
from prl_keras.config import RunOptions
from prl_keras.errors import InputError
from prl_keras.runs import Run
from prl_keras.runs.records import damaged, is_number, is_text, is_whole


def recorded_options(run: Run, kind: type[RunOptions]) -> Any:
    """The run's options as `kind`, the dataclass of its command.

    Raises:
        InputError: the run's config.json has others, or values of other types.
    """
    hints, recorded = get_type_hints(kind), run.part("options")
    for name, value in recorded.items():
        if name not in hints or not _fits(value, hints[name]):
            raise damaged(run.path / "config.json", f"options.{name} is {value!a:.40}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in recorded.items()})


def as_resolved(command: str, recorded: dict[str, Any]) -> dict[str, Any]:
    """Recorded options with what an older version did not know or left to the recipe, as they are resolved today."""
    kind = getattr(declared, command.capitalize())  # the class of a command's options has its name
    known = {field.name for field in fields(kind)}
    with suppress(InputError, TypeError):  # of a damaged record: compared as it is
        options = kind(**{name: value for name, value in recorded.items() if name in known})
        return recorded | {name: as_json(getattr(options, name)) for name in known if recorded.get(name) is None}
    return recorded


def as_json(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of the type that an option declares."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        fixed = len(inner) if inner[-1] is not ... else None
        return isinstance(value, list) and fixed in (None, len(value)) and all(_fits(each, inner[0]) for each in value)
    if inner:  # A | B
        return any(_fits(value, each) for each in inner)
    checks = {float: is_number, int: is_whole, str: is_text, Path: is_text}
    return checks[hint](value) if hint in checks else isinstance(value, hint)
