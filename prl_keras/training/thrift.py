"""How often the state of a training is kept: seldom enough not to be felt."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARE = 0.02  # of the time, at most


class Thrift:
    """Whether as much time has passed as makes what keeping costs a fiftieth of it; the first time, it has."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.cost, self.kept = 0.0, -float("inf")  # seconds, and when

    def due(self) -> bool:
        return self.clock() - self.kept >= self.cost / SHARE

    @contextmanager
    def keeping(self) -> Iterator[None]:
        begun = self.clock()
        yield
        self.kept = self.clock()
        self.cost = self.kept - begun
