"""Class-balanced batches: P classes of K images each, as metric learning samples them (Hermans et al. 2017)."""

import numpy as np

from prl_keras.errors import InputError


def check_balance(labels: np.ndarray, batch_size: int, classes_per_batch: int) -> None:
    """Raise InputError unless batches of so many classes can be made."""
    classes = len(np.unique(labels))
    if not 1 <= classes_per_batch <= classes:
        raise InputError(f"{classes_per_batch} classes a batch: there are {classes}")
    if batch_size % classes_per_batch:
        raise InputError(f"a batch of {batch_size} images cannot be shared equally by {classes_per_batch} classes")


def balanced_order(rng: np.random.Generator, labels: np.ndarray, batch_size: int, classes_per_batch: int) -> np.ndarray:
    """Which images the epoch's whole batches have, one after another: (len(labels) // batch_size * batch_size,) rows.

    Classes are dealt without replacement until each had its turn, and so are the images of a class; a class that is
    used up before the epoch ends, as a small one is, begins anew. Within a batch the images are shuffled.
    """
    _, sizes = np.unique(labels, return_counts=True)
    images = [_Deck(rows, rng) for rows in np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])]
    classes, each = _Deck(np.arange(len(images)), rng), batch_size // classes_per_batch
    batches = [
        rng.permutation(np.concatenate([images[k].deal(each) for k in classes.deal(classes_per_batch)]))
        for _ in range(len(labels) // batch_size)
    ]
    return np.concatenate(batches) if batches else np.zeros(0, "int64")


class _Deck:
    """Cards that are dealt in random order; when all are dealt, all are shuffled again."""

    def __init__(self, cards: np.ndarray, rng: np.random.Generator):
        self.cards, self.rng, self.left = cards, rng, cards[:0]

    def deal(self, count: int) -> np.ndarray:
        """So many cards; none of them twice, if there are as many."""
        hand, self.left = self.left[:count], self.left[count:]
        while len(hand) < count:
            fresh = self.rng.permutation(self.cards)
            repeated = np.isin(fresh, hand)
            fresh = np.concatenate([fresh[~repeated], fresh[repeated]])
            wanted = count - len(hand)
            hand, self.left = np.concatenate([hand, fresh[:wanted]]), fresh[wanted:]
        return hand
