"""A bar for work that takes longer than a moment, where someone can see it."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TypeVar

from prl_keras.screen.console import console

_PATIENCE = 2.0  # seconds
Result = TypeVar("Result")


def with_progress(results: Iterable[Result], total: int, what: str) -> Iterator[Result]:
    """The results as they come; after two seconds, on a terminal, with a bar that goes away at the end."""
    with ExitStack() as stack:
        start, bar = time.monotonic(), None
        for done, result in enumerate(results, 1):
            if bar is None and console.is_terminal and time.monotonic() - start > _PATIENCE:
                from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
                bar = stack.enter_context(Progress(*columns, console=console, transient=True))
                task = bar.add_task(what, total=total)
            if bar is not None:
                bar.update(task, completed=done)
            yield result
