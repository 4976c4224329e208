"""What all replicas of a training have together: sums, rows, places. Without replicas, every function gives back what
it was given, and the graph is that of one device.

The convention, which everything that trains on replicas relies on: the global batch is cut into slices, in order, one
a replica. Replica r returns its loss L_r = (sum over its own rows) / (count of all replicas' rows), so that the loss of
the batch is L = sum over r of L_r. Keras's optimizer sums the gradients of replicas, so nothing is divided again.

Why that is the gradient of L, although each L_r depends on the rows of all replicas through a sum y = sum over r of
x_r: the gradient of an all-reduced sum is the all-reduced sum of the gradients, so that x_r receives the sum over s of
dL_s/dy, which is dL/dy = dL/dx_r. Each replica then carries dL/dx_r back to the weights through its own rows, and
the sum over replicas is the chain rule of the whole. `all_gather` is the same with a sum of slices beside zeros.
"""

from typing import Any

from keras import KerasTensor, Variable, ops


def context() -> Any:
    """TensorFlow's replica context, if the code runs on one of several replicas; else None."""
    import tensorflow as tf

    found = tf.distribute.get_replica_context()
    return found if found is not None and found.num_replicas_in_sync > 1 else None


def all_sum(value: KerasTensor) -> KerasTensor:
    """Sum over all replicas, the same on each; differentiable."""
    replica = context()
    return value if replica is None else replica.all_reduce("SUM", ops.convert_to_tensor(value))


def all_gather(rows: KerasTensor) -> KerasTensor:
    """(n, ...) rows of this replica -> (sum of all n, ...) rows of all replicas, in order; differentiable."""
    replica = context()
    if replica is None:
        return rows
    if rows.dtype == "bool":  # not a type that is sent
        return ops.cast(replica.all_gather(ops.cast(rows, "int32"), axis=0), "bool")
    return replica.all_gather(rows, axis=0)


def mean_of_all(values: KerasTensor) -> KerasTensor:
    """Mean of (n,) values; on several replicas, this one's share of the mean over the values of all."""
    if context() is None:
        return ops.mean(values)
    return ops.sum(values) / ops.cast(all_sum(ops.shape(values)[0]), values.dtype)


def own(rows_of_all: KerasTensor, count: int | KerasTensor) -> KerasTensor:
    """The `count` rows of this replica among (rows of all replicas, ...)."""
    replica = context()
    if replica is None:
        return rows_of_all
    counts = replica.all_gather(ops.reshape(ops.cast(count, "int32"), (1,)), axis=0)
    first = ops.sum(counts[: replica.replica_id_in_sync_group])
    return rows_of_all[first : first + count]


def number(variable: Variable) -> float:
    """The value of a scalar, also of a variable that replicas have copies of, which `float` does not take."""
    return float(ops.convert_to_numpy(variable))
