"""How far a long job is, on standard error, as it is no result."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

_PATIENCE = 2.0  # seconds
Result = TypeVar("Result")


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Says the title, and yields what is to be called with the number that is done: a bar where somebody watches."""
    print(title, file=sys.stderr)
    with ExitStack() as stack:
        update = _bar(stack, total, "")
        yield lambda done: update(completed=done)


def with_progress(
    results: Iterable[Result], total: int, what: str, size: Callable[[Result], int] = lambda result: 1
) -> Iterator[Result]:
    """The results as they come; after two seconds, on a terminal, with a bar that goes away at the end.

    size: how much of the total a result is.
    """
    with ExitStack() as stack:
        start, update, done = time.monotonic(), None, 0
        for result in results:
            done += size(result)
            if update is None and time.monotonic() - start > _PATIENCE:
                update = _bar(stack, total, what)
            if update is not None:
                update(completed=done)
            yield result


def _bar(stack: ExitStack, total: int, what: str):
    """The function that moves a new bar, which the stack takes away."""
    from functools import partial

    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    from prl_keras.screen.console import BAR, Terminal, is_watched
    from prl_keras.screen.pace import duration

    class Left(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.time_remaining is None else f"{duration(task.time_remaining)} left")

    terminal = Terminal(stderr=True)
    columns = (
        *([TextColumn("{task.description}", markup=False)] if what else []),
        BarColumn(**BAR),
        TextColumn("{task.completed:,}/{task.total:,}"),
        Left(),
    )
    bar = stack.enter_context(Progress(*columns, console=terminal, transient=True, disable=not is_watched(terminal)))
    return partial(bar.update, bar.add_task(what, total=total))
