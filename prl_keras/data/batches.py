"""Shuffled batches whose order depends on the seed and the epoch only, so that training can be resumed.

Imports nothing of this package; imports Keras, so `prl_keras.data` does not re-export it.
"""

import math

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """Batches of (inputs, labels) in a new order every epoch.

    Keras calls `on_epoch_end` also where no epoch ended, so the epoch is not counted here: set `epoch`
    when one begins (`training.callbacks.EpochOrder` does).

    Args:
        inputs: (n, ...) array, also memory-mapped; batches are copied out of it.
        labels: (n,) integers.
        batch_size: images a batch; the last one may be smaller unless `drop_remainder`.
        seed: with the epoch, decides the order.
    """

    def __init__(
        self, inputs: np.ndarray, labels: np.ndarray, batch_size: int, seed: int, drop_remainder: bool = False
    ):
        super().__init__()
        self.inputs, self.labels = inputs, labels
        self.batch_size, self.seed, self.drop_remainder = batch_size, seed, drop_remainder
        self.epoch = 0

    @property
    def epoch(self) -> int:
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._order = np.random.default_rng((self.seed, epoch)).permutation(len(self.labels))

    def __len__(self) -> int:
        steps = len(self.labels) / self.batch_size
        return math.floor(steps) if self.drop_remainder else math.ceil(steps)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self._order[step * self.batch_size : (step + 1) * self.batch_size]
        return self.inputs[rows], self.labels[rows]
