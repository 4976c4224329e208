"""What layers of a network add to the loss of its training by themselves: regularisers of weights, `add_loss`."""

import keras
from keras import KerasTensor, ops


def penalised(model: keras.Model, loss: KerasTensor) -> KerasTensor:
    """The loss () and the penalties of the model's last call, of which each of several replicas has its share, as their
    gradients are summed. Without any the loss itself."""
    penalties = model.losses
    if not penalties:
        return loss
    replicas = model.distribute_strategy.num_replicas_in_sync
    return loss + sum(ops.cast(each, loss.dtype) for each in penalties) / replicas
