"""What the layers that change images at random have in common: one stream of random numbers, saved with the model."""

import keras
import numpy as np
import tensorflow as tf


class RandomLayer(keras.Layer):
    """A float32 layer with one SeedGenerator, whose state is saved."""

    def __init__(self, seed: int, **kwargs):
        kwargs.setdefault("dtype", "float32")  # also under a mixed policy: bfloat16 has no 256 grey levels
        super().__init__(**kwargs)
        self.seed = int(seed)
        self.generator = keras.random.SeedGenerator(self.seed)
        self.supports_jit = False  # neither crop_and_resize nor stateless gamma numbers have an XLA kernel

    def next_seed(self) -> tf.Tensor:
        """The next (2,) seed of the stream, for TensorFlow's stateless operations."""
        seed, replica = self.generator.next(), tf.distribute.get_replica_context()
        if replica is not None:  # each replica has the same state, and must not draw the same views
            seed += [0, tf.cast(replica.replica_id_in_sync_group, seed.dtype) * 2**32]
        return seed

    # Keras saves weights but no seed state: a reloaded model would repeat its first views.
    def save_own_variables(self, store):
        store["seed_state"] = keras.ops.convert_to_numpy(self.generator.state)

    def load_own_variables(self, store):
        self.generator.state.assign(np.array(store["seed_state"]))
