"""What a long-lived process keeps."""

import gc

import keras
import numpy as np

from prl_keras.startup import forget_models


def test_a_trained_model_leaves_no_graph_behind() -> None:
    from tensorflow.python.framework.func_graph import FuncGraph

    def graphs() -> int:
        gc.collect()
        return sum(isinstance(thing, FuncGraph) for thing in gc.get_objects())

    forget_models()
    before = graphs()
    for _ in range(2):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(np.zeros((8, 4)), np.zeros(8, int), verbose=0)
        assert graphs() > before
        del model
        forget_models()
        assert graphs() <= before
