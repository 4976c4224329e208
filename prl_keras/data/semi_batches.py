"""Batches of labelled images with unlabelled ones beside them, in an order that can be resumed anywhere.

Importing this imports Keras, as `batches` does.
"""

from typing import Any

import numpy as np

from prl_keras.data.batches import Batches
from prl_keras.data.order import Permutation, epoch_order
from prl_keras.data.rows import Rows
from prl_keras.errors import InputError

_OWN_ORDER = 2**32  # added to the seed, which is below it: as many unlabelled images have an order of their own


class SemiBatches(Batches):
    """Batches of ((images, unlabelled), labels), or ((images, rows, unlabelled), labels): `ratio` times as many
    unlabelled images as `batch_size` in each.

    An epoch is one pass over the labelled images. The unlabelled ones come in passes of their own, each in a new order,
    which go on from one epoch into the next: the step's place among all steps says which they are, so that nothing of
    it need be kept. Only the images of a batch are read.

    Args:
        unlabelled: (n, ...) images, as `inputs` are; at least as many as a step takes.
        ratio: unlabelled images a step, in batches.
        others: see `Batches`.

    Raises:
        InputError: a ratio that is no whole number of at least 1; fewer unlabelled images than a step takes.
    """

    def __init__(
        self,
        inputs: np.ndarray | Rows,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        unlabelled: np.ndarray | Rows,
        ratio: int,
        **others: Any,
    ):
        super().__init__(inputs, labels, batch_size, seed, **others)
        self.unlabelled, self.each = unlabelled, ratio * batch_size
        if ratio != int(ratio) or ratio < 1:
            raise InputError(f"unlabelled_ratio is {ratio}; expected a whole number, at least 1")
        if len(unlabelled) < self.each:
            raise InputError(
                f"there are {len(unlabelled):,} unlabelled images, but a step takes {ratio} x {batch_size}: "
                "use a smaller --unlabelled-ratio or --batch-size, or more images"
            )
        self._passes: dict[int, np.ndarray | Permutation] = {}

    def unlabelled_rows(self, step: int) -> np.ndarray:
        """(ratio * batch_size,) int64: which unlabelled images the step of this epoch has."""
        first = (self.epoch * len(self) + step) * self.each
        places = np.arange(first, first + self.each)
        passes = places // len(self.unlabelled)
        parts = [(each, places[passes == each] % len(self.unlabelled)) for each in np.unique(passes).tolist()]
        return np.concatenate([self._order_of_pass(each)[within] for each, within in parts])

    def _order_of_pass(self, number: int) -> np.ndarray | Permutation:
        order = self._passes.get(number)
        if order is None:
            order = epoch_order(len(self.unlabelled), self.seed + _OWN_ORDER, number)
            near = {key: value for key, value in self._passes.items() if abs(key - number) < 2}
            self._passes = near | {number: order}
        return order

    def all_inputs(self, step: int) -> np.ndarray:
        return np.concatenate([super().all_inputs(step), self.unlabelled[self.unlabelled_rows(step)]])

    def __getitem__(self, step: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        inputs, labels = super().__getitem__(step)
        inputs = inputs if self.with_rows else (inputs,)
        return (*inputs, self.unlabelled[self.unlabelled_rows(step)]), labels
