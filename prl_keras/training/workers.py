"""The steps of a training that several processes share: what `fit` does, which Keras 3 cannot do with them.

Every process runs the whole command. All but the chief's write into a folder that is thrown away. Only what is in this
module needs the other processes: the steps, the wish to stop, and once the state that the chief continues from. Keras:
https://github.com/keras-team/keras/issues/20585
"""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from prl_keras.data.batches import Batches
from prl_keras.replicas import all_sum
from prl_keras.runs.interruption import StopRequest
from prl_keras.strategies import cluster
from prl_keras.training.checkpoint import Position


def of_workers(model: keras.Model) -> bool:
    return isinstance(model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)


def fit_on_workers(
    model: keras.Model,
    batches: Batches,
    epochs: int,
    initial_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback],
    request: StopRequest,
    agreed: StopRequest,
) -> None:
    """As `model.fit`, with a slice of every batch on each replica; all processes stop where one was asked to.

    Args:
        request: of this process, at any time.
        agreed: that of any process, known to all after the same step: what the callbacks obey.
    """
    strategy = model.distribute_strategy
    listed = keras.callbacks.CallbackList(
        list(callbacks), add_history=True, model=model, epochs=epochs, steps=len(batches), verbose=0
    )
    model.train_function = _steps(model)
    anyone = _Anyone(strategy)
    listed.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        model.reset_metrics()
        listed.on_epoch_begin(epoch)
        data = _slices(strategy, batches)
        for step in range(len(batches)):
            listed.on_train_batch_begin(step)
            model.train_function(data)
            agreed.signal = anyone(request.signal)
            listed.on_train_batch_end(step)
        listed.on_epoch_end(epoch, {name: float(value) for name, value in model.get_metrics_result().items()})
    model.optimizer.finalize_variable_values(model.trainable_variables)
    listed.on_train_end()


def _steps(model: keras.Model) -> Any:
    """A train function as Keras's: it takes an iterator, and may be replaced for a while (`EpochOrder`)."""
    strategy = model.distribute_strategy

    @tf.function(autograph=False)
    def one_step(parts: list[tuple]) -> None:
        data = strategy.experimental_distribute_values_from_function(
            lambda replica: parts[replica.replica_id_in_sync_group % len(parts)]
        )
        strategy.run(model.train_step, (data,))

    def train_function(data: Iterator) -> dict:
        parts = next(data)
        # one function for slices of any size: a process that traced again would wait for others that do not
        any_size = tf.nest.map_structure(lambda rows: tf.TensorSpec((None, *rows.shape[1:]), rows.dtype), parts)
        one_step.get_concrete_function(any_size)(parts)
        return {}

    return train_function


def _slices(strategy: tf.distribute.Strategy, batches: Batches) -> Iterator[list[tuple]]:
    """The epoch's batches: (inputs, labels) of each replica of this process, which reads no others. Replica r has the
    r-th slice, as `fit` cuts them; all are equal but those of a last batch."""
    replicas, local = strategy.num_replicas_in_sync, len(strategy.extended.worker_devices)
    first = cluster().index * local
    for step in range(len(batches)):
        rows = batches.rows(step)
        size = -(-len(rows) // replicas)
        parts = [rows[replica * size : (replica + 1) * size] for replica in range(first, first + local)]
        yield [(tf.constant(batches.inputs[part]), tf.constant(batches.labels[part])) for part in parts]


class _Anyone:
    """Whether any process was asked to stop: the largest signal number, 0 of none. Each step, as all must agree."""

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self.sum = tf.function(lambda values: strategy.run(_summed, (values,)), autograph=False)

    def __call__(self, signal: int | None) -> int | None:
        mine, replicas = int(signal or 0), self.strategy.num_replicas_in_sync
        values = self.strategy.experimental_distribute_values_from_function(
            lambda replica: tf.one_hot(replica.replica_id_in_sync_group, replicas, mine, 0, dtype=tf.int32)
        )
        found = int(max(self.strategy.experimental_local_results(self.sum(values))[0].numpy()))
        return signal if signal is not None else found or None


def from_chief(model: keras.Model, position: Position, variables: Sequence[keras.Variable]) -> Position:
    """Give every process the chief's variables and position: only the chief's folder has the checkpoint."""
    strategy = model.distribute_strategy
    numbers = [position.epoch, position.step, position.seconds, position.steps_per_epoch or 0]
    numbers += [position.average_every, position.edition]
    numbers = _sent(strategy, np.array(numbers, "float64"))
    if not numbers[:2].any():
        return position
    for variable in variables:
        variable.assign(_sent(strategy, keras.ops.convert_to_numpy(variable)))
    count = len(model.metrics_variables) if numbers[1] else 0
    own = position.metrics or [np.zeros(variable.shape, variable.dtype) for variable in model.metrics_variables[:count]]
    metrics = tuple(_sent(strategy, value) for value in own)
    epoch, step, _, steps, every, edition = numbers.astype(int).tolist()
    return Position(epoch, step, metrics, float(numbers[2]), steps or None, every, edition)


def leave_together(model: keras.Model) -> None:
    """Wait for the others at the end, for who has no `Company`: who leaves earlier is taken for one that crashed."""
    if of_workers(model):
        _sent(model.distribute_strategy, np.zeros(1, "float32"))


def _summed(values: tf.Tensor) -> tf.Tensor:
    return all_sum(tf.identity(values))  # which is on a device; what comes from outside is on none


def _sent(strategy: tf.distribute.Strategy, value: np.ndarray) -> np.ndarray:
    """The chief's value, in every process."""

    def own(replica: Any) -> tf.Tensor:
        return tf.constant(value if replica.replica_id_in_sync_group == 0 else np.zeros_like(value))

    values = strategy.experimental_distribute_values_from_function(own)
    summed = strategy.run(_summed, (values,))
    return strategy.experimental_local_results(summed)[0].numpy()
