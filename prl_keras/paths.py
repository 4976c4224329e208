"""What a path means that a user wrote. Imports nothing of the package."""

import os


def expanded(path: str | os.PathLike) -> str:
    """With the home of `~` or `~user`; what lies here under the name as it is, and a user who is unknown, stay."""
    text = os.fspath(path)
    return text if os.path.lexists(text) else os.path.expanduser(text)


def absolute(path: str | os.PathLike) -> str:
    """Behind a link `..` is the link's target's parent, which only the system knows."""
    text = expanded(path)
    return os.path.realpath(text) if os.pardir in text.replace("\\", "/").split("/") else os.path.abspath(text)
