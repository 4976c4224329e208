"""Packages that only some options need, and that are installed when they are wanted."""

from collections.abc import Sequence
from importlib.util import find_spec

from prl_keras.errors import InputError
from prl_keras.terminal import is_clone


def installed(package: str) -> bool:
    spec = find_spec(package.replace("-", "_"))
    return spec is not None and spec.origin is not None  # a folder that only has the name is none


def how_to_install(packages: Sequence[str], extra: str) -> str:
    """What to type. Beside a clone's tensorflow-cpu the extra would put tensorflow, too (CONTRIBUTING.md)."""
    return f"pip install {' '.join(packages)}" if is_clone() else f'pip install "prl-keras[{extra}]"'


def check_installed(packages: Sequence[str], what: str, extra: str, wanted: Sequence[str] = ()) -> None:
    """Raise InputError, with the command that installs them, if some are missing.

    Args:
        what: needs the packages.
        extra: of pyproject.toml, that has them.
        wanted: others to install with them, if they are missing too.
    """
    missing = [package for package in packages if not installed(package)]
    if missing:
        more = [package for package in wanted if not installed(package)]
        command = how_to_install([*missing, *more], extra)
        raise InputError(f"{what} needs {' and '.join(missing)}, of the extra [{extra}]: {command}")
