"""How far a long job is: a bar where somebody watches, else one line. On standard error, as it is no result."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prl_keras.screen.console import Terminal


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields what is to be called with the number that is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        print(title, file=sys.stderr)
        yield lambda done: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Terminal(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)
