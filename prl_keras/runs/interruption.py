"""Ctrl-C and SIGTERM (on Windows also Ctrl-Break): noted while a training step runs, obeyed after it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


def _signals(*names: str) -> tuple[int, ...]:
    """Those of the names that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


class Stopped(BaseException):
    """The user or the system asked to stop. `signal` decides the exit code: 128 + it."""

    def __init__(self, number: int, run: str | None = None, where: str = ""):
        super().__init__(where)
        self.signal, self.run, self.where = number, run, where

    def __reduce__(self) -> tuple:
        """For another process."""
        return type(self), (self.signal, self.run, self.where)


def stopped(error: KeyboardInterrupt | Stopped, run: str) -> Stopped:
    """The same stop, of this run."""
    return Stopped(error.signal if isinstance(error, Stopped) else signal.SIGINT, run, str(error))


@dataclass
class StopRequest:
    """`signal` is the number of the signal that came, or None."""

    signal: int | None = None


@contextmanager
def noted() -> Iterator[StopRequest]:
    """Keep the first Ctrl-C or SIGTERM for the caller to obey; a second one acts as usual.

    Outside the main thread, where Python takes no signals, nothing is noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = _signals("SIGINT", "SIGTERM", "SIGBREAK")
    usual: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}

    def note(number: int, frame: Any) -> None:
        if request.signal is None:
            request.signal = number
            return
        handler = usual[number]
        if callable(handler):
            handler(number, frame)
        else:
            raise Stopped(number)

    for number in numbers:
        signal.signal(number, note)
    try:
        yield request
    finally:
        _restore(usual)


@contextmanager
def terminating() -> Iterator[None]:
    """Let SIGTERM and Ctrl-Break raise `Stopped`, so that what is half done is cleaned up as after Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    usual = {number: signal.signal(number, stop) for number in _signals("SIGTERM", "SIGBREAK")}
    try:
        yield
    finally:
        _restore(usual)


def _restore(usual: dict[int, Any]) -> None:
    for number, handler in usual.items():
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)
