"""What a command says reaches whoever reads it: streams that take any text, warnings said once, words for the shell."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

WINDOWS = os.name == "nt"
_said: set[str] = set()


def ready_streams() -> None:
    """Make standard output and error fit to print on; once a command.

    What their encoding lacks (Windows: cp1252 for files and pipes) is written as `\\u732b`, and a stream that is
    closed swallows what it is given, instead of ending the command in a traceback.
    """
    _said.clear()
    if None in (sys.stdout, sys.stderr):
        while (unused := os.open(os.devnull, os.O_RDWR)) <= 2:  # else the next file that is opened would be number 1
            pass
        os.close(unused)
        sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict":  # else the user chose
            with suppress(AttributeError):  # no file of this process
                stream.reconfigure(errors="backslashreplace")


def warn(message: str) -> None:
    """One line on standard error, however often a command comes by."""
    if message not in _said:
        _said.add(message)
        print(as_started(f"warning: {message}"), file=sys.stderr)


def program() -> str:
    """What is typed to start this program here: as it was started, else what its own folder or installation offers."""
    started = Path(*sys.argv[:1])
    if started.parts[-2:] == ("prl_keras", "__main__.py"):
        return "python -m prl_keras"
    return "python main.py" if is_clone() and started.stem != "prl-keras" else "prl-keras"


def is_clone() -> bool:
    """Whether this is a clone's own folder, be it installed as editable or not."""
    return (Path(__file__).parents[1] / "main.py").is_file()


def as_started(text: str) -> str:
    """Messages are written for a clone, `python main.py COMMAND`; this is the only place that knows other ways."""
    return text.replace("python main.py", program())


def quoted(words: Sequence[str]) -> str:
    """As one command line that can be pasted."""
    return subprocess.list2cmdline(words) if WINDOWS else shlex.join(words)
