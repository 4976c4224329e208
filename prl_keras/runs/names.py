"""Names of runs: folders that any system can keep, so that a run can be copied from Linux to Windows."""

import re
from pathlib import Path

from prl_keras.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(?=\.|$)", re.IGNORECASE)  # to Windows, whatever the suffix


def check_usable_name(name: str, new: bool = True) -> None:
    """Raise InputError for a name that no run can have; of an old run, only for one that could leave its folder."""
    if not _NAME.fullmatch(name) or name.lower() == "latest":
        raise InputError(
            f"run name {name!r} is not usable: up to 100 letters, digits, '.', '_' and '-', "
            "starting with a letter or digit, and not 'latest'"
        )
    if new and (_DEVICE.match(name) or name.endswith(".")):
        raise InputError(
            f"run name {name!r} is not usable: Windows keeps such names (con, nul, com1, ..., also with a suffix, or a "
            f"dot at the end) for itself; choose another, such as {'run-' + name.rstrip('.')!r}"
        )


def check_new_name(runs_dir: Path, name: str) -> None:
    """Raise InputError unless a run of this name can be created."""
    check_usable_name(name)
    if taken := _names(runs_dir).get(name.lower()):
        raise name_taken(runs_dir, taken)


def name_taken(runs_dir: Path, name: str) -> InputError:
    return InputError(
        f"a run named {name!r} already exists in {runs_dir}: choose another --name, "
        "or continue it with --resume if it is unfinished"
    )


def _names(runs_dir: Path) -> dict[str, str]:
    """Those in use by their lower case, which is all that Windows and macOS tell apart."""
    return {path.name.lower(): path.name for path in runs_dir.iterdir()} if runs_dir.is_dir() else {}


def usable(name: str) -> str:
    """What a run's name can keep of a text; perhaps nothing."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:80].rstrip("-._")
    return _DEVICE.sub(r"\1_", kept) if _DEVICE.match(kept) else kept


def free_name(runs_dir: Path, stem: str) -> str:
    """`stem`-1, or the first number that is free."""
    stem, names, number = usable(stem), _names(runs_dir), 1
    while f"{stem}-{number}".lower() in names:
        number += 1
    return f"{stem}-{number}"
