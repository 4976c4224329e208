"""Packages that only some options need, and that are installed when they are wanted."""

from collections.abc import Sequence
from importlib.util import find_spec

from prl_keras.errors import InputError


def installed(package: str) -> bool:
    spec = find_spec(package.replace("-", "_"))
    return spec is not None and spec.origin is not None  # a folder that only has the name is none


def check_installed(packages: Sequence[str], what: str, wanted: Sequence[str] = ()) -> None:
    """Raise InputError, with the command that installs them, if some are missing.

    Args:
        what: needs the packages.
        wanted: others to install with them, if they are missing too.
    """
    missing = [package for package in packages if not installed(package)]
    if missing:
        more = [package for package in wanted if not installed(package)]
        raise InputError(f"{what} needs {' and '.join(missing)}: pip install {' '.join([*missing, *more])}")
