"""One of several candidates, chosen on validation images, and whether those can choose at all."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from prl_keras.evaluation.statistics import compare_images

LEVEL = 0.05


@dataclass(frozen=True)
class Choice:
    """Place of the chosen candidate, its accuracy 0..1 on `n` images, and how many of the others these do not tell
    from it."""

    place: int
    accuracy: float
    n: int
    tied: int
    others: int

    @property
    def decided(self) -> bool:
        """Whether any other is told from it."""
        return self.tied < self.others or not self.others


def choose(correct: np.ndarray, log_likelihood: np.ndarray) -> Choice:
    """The most accurate candidate; of equals the one that finds the right answers most likely, then the first.

    Accuracy alone takes the edge of a grid as soon as all are right: nothing says that the strongest regularisation,
    100 % right at 0.4 % confidence, would go on being right.

    Args:
        correct: (candidates, n) right or wrong.
        log_likelihood: (candidates,) of the right answers.
    """
    correct = np.asarray(correct, bool)
    counts = correct.sum(axis=1)
    place = max(range(len(correct)), key=lambda at: (counts[at], log_likelihood[at], -at))
    others = np.delete(correct, place, axis=0)
    tied = sum(compare_images(correct[[place]], other[None]) >= LEVEL for other in others)
    return Choice(place, float(correct[place].mean()), correct.shape[1], tied, len(others))


def facts_of(choice: Choice) -> dict[str, Any]:
    """For a record."""
    return {"decided": choice.decided, "tied": choice.tied, "others": choice.others}


def warning_of(record: dict[str, Any]) -> str | None:
    """The line of `cannot_choose` for a recorded choice of C; of older versions only that all were tied is known."""
    tied = record.get("tied", 1 if not record.get("decided", True) else 0)
    return cannot_choose({"C": record["C"]}, record["validation_images"], tied, record.get("others", tied))


def how_chosen(chosen: dict[str, Any], images: int) -> str:
    """For people, such as "C = 0.1 by 143 validation images"."""
    return f"{_values(chosen)} by {images:,} validation image{'' if images == 1 else 's'}"


def cannot_choose(chosen: dict[str, Any], images: int, tied: int, others: int) -> str | None:
    """One line for a choice that could as well have been one of `tied` others; None if there are none."""
    if not tied:
        return None
    start = f"validation cannot choose {' and '.join(chosen)}: its {images:,} image"
    if tied == others:
        return f"{start}{' tells' if images == 1 else 's tell'} no other candidate from {_values(chosen)}"
    verb = " does" if images == 1 else "s do"
    return f"{start}{verb} not tell {tied} of the {others} other candidates from {_values(chosen)}"


def _values(chosen: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in chosen.items())
