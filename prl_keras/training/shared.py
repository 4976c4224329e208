"""A training that several devices share: its batch normalisation, and a model of one device, which is looked at."""

import keras

from prl_keras.data.batches import Batches
from prl_keras.models.batch_norm import FusedBatchNormalization
from prl_keras.models.storage import copy_as


def set_batch_norm(model: keras.Model, local: bool) -> None:
    """Statistics of all replicas, or of each replica's own images; without replicas both are the same."""
    for layer in model._flatten_layers():
        if isinstance(layer, FusedBatchNormalization):
            layer.local_statistics = local
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = not local


def twin(pretrainer: keras.Model) -> keras.Model:
    """The pre-trainer itself, or for one that replicas share, another one of its weights on this device.

    Everything but the steps looks at the twin, so that nothing but a step needs the other replicas. The augmentation
    is the same layer: its stream of random numbers goes on, and is part of the checkpoint.
    """
    if pretrainer.distribute_strategy.num_replicas_in_sync == 1:
        return pretrainer
    encoder, head = (copy_as(part, None, None) for part in (pretrainer.encoder, pretrainer.projection_head))
    return type(pretrainer)(encoder, head, pretrainer.embedding_loss, pretrainer.augmentation, pretrainer.name)


def copy_weights(pretrainer: keras.Model, other: keras.Model) -> None:
    if other is not pretrainer:
        other.encoder.set_weights(pretrainer.encoder.get_weights())
        other.projection_head.set_weights(pretrainer.projection_head.get_weights())


class Follow(keras.callbacks.Callback):
    """Give the twin the weights of the end of the epoch, and add its figures of `validation`, if there is one, to the
    epoch's logs, as Keras does. Goes before what looks at the twin."""

    def __init__(self, twin: keras.Model, validation: Batches | None):
        super().__init__()
        self.twin, self.validation = twin, validation
        if validation is not None:
            twin.compile()

    @property
    def adds(self) -> tuple[str, ...]:
        """Names of the figures."""
        return tuple(f"val_{metric.name}" for metric in self.twin.metrics) if self.validation is not None else ()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        copy_weights(self.model, self.twin)
        if self.validation is not None:
            figures = self.twin.evaluate(self.validation, verbose=0, return_dict=True)
            logs.update({f"val_{name}": value for name, value in figures.items()})
