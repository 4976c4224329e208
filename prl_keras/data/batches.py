"""Shuffled batches whose order depends on the seed and the epoch only, so that training can be resumed.

Importing this imports Keras, so `prl_keras.data` does not re-export it.
"""

import keras
import numpy as np

from prl_keras.data.balanced import balanced_order, check_balance
from prl_keras.data.order import epoch_order
from prl_keras.data.rows import Rows
from prl_keras.labels import checked_labels

FEWEST = 8  # images: fewer say nothing about a mean and a variance


def steps_per_epoch(images: int, batch_size: int, drop_remainder: bool = False) -> int:
    """Number of batches: an incomplete last one counts if it is large enough to be one, see `Batches`."""
    whole, rest = divmod(images, batch_size)
    if drop_remainder:
        return whole
    joined = rest < max(FEWEST, batch_size / 4)
    return max(whole, min(images, 1)) if joined else whole + 1


class Batches(keras.utils.PyDataset):
    """Batches of (inputs, labels) in a new order every epoch.

    An incomplete last batch is taken as it is, but if it has fewer than 8 images or a quarter of a batch, it is joined
    to the one before: batch normalisation over a handful of images is noise, and each of them would count for many in
    its step. So every image is seen once an epoch, by the same number of steps in every epoch.

    Keras calls `on_epoch_end` also where no epoch ended, so the epoch is not counted here: set `epoch`
    when one begins (`training.callbacks.EpochOrder` does).

    Args:
        inputs: (n, ...) array, or images of a store; batches are copied out of it.
        labels: (n,) or (n, 1) whole numbers; batches have (size,) int64.
        batch_size: images a batch, but for the last one.
        seed: with the epoch, decides the order, see `epoch_order`.
        drop_remainder: leave an incomplete last batch out; which images it has changes with the epoch.
        classes_per_batch: each batch has so many classes, and of each equally many images; an epoch has as many steps
            as with drop_remainder. Images of a class that is smaller than others come more often. None: as they come.
        with_rows: batches are ((inputs, rows), labels): rows (size,) int32 tell which images these are.

    Raises:
        InputError: the labels do not have so many classes, or they cannot share a batch equally.
    """

    def __init__(
        self,
        inputs: np.ndarray | Rows,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        drop_remainder: bool = False,
        classes_per_batch: int | None = None,
        with_rows: bool = False,
    ):
        super().__init__()
        self.inputs, self.labels = inputs, checked_labels(labels)
        self.batch_size, self.seed = batch_size, seed
        self.drop_remainder = drop_remainder or classes_per_batch is not None
        self.classes_per_batch, self.with_rows = classes_per_batch, with_rows
        if classes_per_batch is not None:
            check_balance(self.labels, batch_size, classes_per_batch)
        self.epoch = 0

    @property
    def epoch(self) -> int:
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        if self.classes_per_batch is None:
            self._order = epoch_order(len(self.labels), self.seed, epoch)
        else:
            rng = np.random.default_rng((self.seed, epoch))
            self._order = balanced_order(rng, self.labels, self.batch_size, self.classes_per_batch)

    @property
    def images(self) -> int:
        """How many an epoch has."""
        return len(self) * self.batch_size if self.drop_remainder else len(self.labels)

    def __len__(self) -> int:
        return steps_per_epoch(len(self.labels), self.batch_size, self.drop_remainder)

    def rows(self, step: int) -> np.ndarray:
        """Which images the step has: indices into inputs and labels."""
        last = step == len(self) - 1
        return self._order[step * self.batch_size : self.images if last else (step + 1) * self.batch_size]

    def all_inputs(self, step: int) -> np.ndarray:
        """What passes the network in that step, together."""
        return self.inputs[self.rows(step)]

    def __getitem__(self, step: int) -> tuple[np.ndarray | tuple[np.ndarray, np.ndarray], np.ndarray]:
        rows = self.rows(step)
        inputs = self.inputs[rows]
        return (inputs, rows.astype("int32")) if self.with_rows else inputs, self.labels[rows]


class InOrder(keras.utils.PyDataset):
    """Batches of (inputs, labels) as they come, the last one shorter: what Keras makes of two arrays to validate on."""

    def __init__(self, inputs: Rows, labels: np.ndarray, batch_size: int = 32):
        super().__init__()
        self.inputs, self.labels, self.batch_size = inputs, labels, batch_size

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(step * self.batch_size, (step + 1) * self.batch_size)
        return self.inputs[part], self.labels[part]


def to_validate_on(inputs: np.ndarray | Rows, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | InOrder:
    """For Keras's `validation_data`, which would read all images of a store into memory."""
    return InOrder(inputs, labels) if isinstance(inputs, Rows) else (inputs, labels)
