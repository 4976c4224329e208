"""One of several candidates, chosen on validation images, and whether those can choose at all."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from prl_keras.evaluation.statistics import compare_images

LEVEL = 0.05


@dataclass(frozen=True)
class Choice:
    """Place of the chosen candidate, its accuracy 0..1 on `n` images, and whether they tell any other from it."""

    place: int
    accuracy: float
    n: int
    decided: bool


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
    told_apart = (compare_images(correct[[place]], other[None]) < LEVEL for other in correct if len(correct) > 1)
    return Choice(place, float(correct[place].mean()), correct.shape[1], len(correct) == 1 or any(told_apart))


def how_chosen(chosen: dict[str, Any], images: int) -> str:
    """For people, such as "C = 0.1 by 143 validation images"."""
    return f"{_values(chosen)} by {images:,} validation image{'' if images == 1 else 's'}"


def cannot_choose(chosen: dict[str, Any], images: int) -> str:
    """One line for a choice that is not `decided`."""
    return (
        f"validation cannot choose {' and '.join(chosen)}: its {images:,} image{' tells' if images == 1 else 's tell'} "
        f"no other candidate from {_values(chosen)}"
    )


def _values(chosen: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in chosen.items())
