"""Metrics that are the same on every replica."""

from typing import Any

import keras
from keras import KerasTensor, ops


class _OfAllReplicas:
    """A metric that is told of the rows of all replicas on each of them, so that reading it asks no other one."""

    def add_variable(
        self,
        shape: tuple,
        initializer: Any,
        dtype: str | None = None,
        aggregation: str = "only_first_replica",
        name: str | None = None,
    ) -> keras.Variable:
        return super().add_variable(shape, initializer, dtype, aggregation, name)


class SumOfAll(_OfAllReplicas, keras.metrics.Sum):
    """A sum."""


class MeanOfSome(_OfAllReplicas, keras.metrics.Mean):
    """A mean that is NaN, not 0, of nothing."""

    def result(self) -> KerasTensor:
        return self.total / ops.cast(self.count, self.dtype)
