"""A training that several devices share: its batch normalisation, and a model of one device, which is looked at."""

import keras

from prl_keras.models.batch_norm import FusedBatchNormalization
from prl_keras.models.storage import copy_as


def set_batch_norm(model: keras.Model, local: bool) -> None:
    """Statistics of all replicas, or of each replica's own images; without replicas there is nothing to do.

    There, Keras's synchronised statistics would be other bits, and cancel far from 0.
    """
    if model.distribute_strategy.num_replicas_in_sync == 1:
        return
    for layer in model._flatten_layers():
        if isinstance(layer, FusedBatchNormalization):
            layer.local_statistics = local
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = not local


def twin(trained: keras.Model) -> keras.Model:
    """The model itself, or for one that replicas share, another one of its weights on this device.

    Everything but the steps looks at the twin, so that nothing but a step needs the other replicas. The augmentation
    is the same layer: its stream of random numbers goes on, and is part of the checkpoint.
    """
    if trained.distribute_strategy.num_replicas_in_sync == 1:
        return trained
    return trained.around(*(copy_as(network, None, None) for network in trained.networks))


def copy_weights(trained: keras.Model, twin: keras.Model) -> None:
    """Give the twin, if there is one, the weights of now."""
    if twin is not trained:
        for own, copy in zip(trained.networks, twin.networks, strict=True):
            copy.set_weights(own.get_weights())


class Follow(keras.callbacks.Callback):
    """Give the twin the weights of the end of the epoch, and add its figures of `validation`, if there is one, to the
    epoch's logs, as Keras does. Goes before what looks at the twin."""

    def __init__(self, twin: keras.Model, validation: tuple | keras.utils.PyDataset | None):
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
            data = self.validation if isinstance(self.validation, tuple) else (self.validation,)
            figures = self.twin.evaluate(*data, verbose=0, return_dict=True)
            logs.update({f"val_{name}": value for name, value in figures.items()})
