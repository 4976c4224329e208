"""Call a function for many items on all cores."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prl_keras.processors import cores

_AHEAD = 8  # items a thread: what is done and not yet taken is held in memory


def in_order(
    function: Callable[[Any], Any], items: Iterable[Any], threads: int | None = None, ahead: int | None = None
) -> Iterator[Any]:
    """`function` of each item, in the order of the items; an error comes where its item would.

    ahead: how many items are begun before the first is taken, and held; None: a few for each thread.

    Threads, as decoding, resizing and hashing free Python's lock. What `function` does to the warning filters is
    undone at the end: `warnings.catch_warnings` is not made for threads, so it must not depend on them.
    """
    threads = threads or cores()
    ahead = ahead or _AHEAD * threads
    pool, waiting = ThreadPoolExecutor(threads), deque()
    with warnings.catch_warnings():
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
