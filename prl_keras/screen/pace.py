"""How long the rest of a training will take, and how that is written."""

import math
import statistics
from collections import deque

_RECENT = 200  # whose median it is


def duration(seconds: float) -> str:
    """4:05, or 1:02:30; from a hundred hours on these alone."""
    minutes, rest = divmod(max(0, math.ceil(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours} h" if hours < 1e6 else f"{hours:.0e} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Usual:
    """The median of what was added last, without the first: that takes longer, as TensorFlow then builds what it
    computes. None of nothing."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.recent: deque[float] = deque(maxlen=_RECENT)

    def add(self, seconds: float) -> None:
        if self.first is None:
            self.first = seconds
        else:
            self.recent.append(seconds)

    @property
    def value(self) -> float | None:
        return statistics.median(self.recent) if self.recent else None
