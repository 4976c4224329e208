"""How far a long job is, on standard error, as it is no result."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

_PATIENCE = 2.0  # seconds
_EVERY = 30.0  # seconds: where nothing can be drawn again, a line so often
Result = TypeVar("Result")


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Says the title, and yields what is to be called with the number that is done: a bar where somebody watches,
    now and then a line where nobody does."""
    print(title, file=sys.stderr)
    with ExitStack() as stack:
        update = _bar(stack, total, "")
        yield lambda done: update(completed=done)


def with_progress(
    results: Iterable[Result], total: int, what: str, size: Callable[[Result], int] = lambda result: 1
) -> Iterator[Result]:
    """The results as they come; after two seconds with a bar that goes away at the end, in a file with a line now and
    then.

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


def _bar(stack: ExitStack, total: int, what: str) -> Callable[..., None]:
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
    if not is_watched(terminal):
        return _lines(total, what)
    columns = (
        *([TextColumn("{task.description}", markup=False)] if what else []),
        BarColumn(**BAR),
        TextColumn("{task.completed:,}/{task.total:,}"),
        Left(),
    )
    bar = stack.enter_context(Progress(*columns, console=terminal, transient=True))
    return partial(bar.update, bar.add_task(what, total=total))


def _lines(total: int, what: str) -> Callable[..., None]:
    """Instead of a bar."""
    from prl_keras.screen.pace import duration

    said = time.monotonic()
    start: tuple[float, int] | None = None

    def update(completed: int) -> None:
        nonlocal start, said
        now = time.monotonic()
        began, first = start = start or (now, completed)
        if now - said < _EVERY or completed in (first, total):
            return
        said = now
        left = duration((now - began) / (completed - first) * (total - completed))
        print(f"{what or 'Done'}: {completed:,}/{total:,}, {left} left", file=sys.stderr, flush=True)

    return update
