"""What a long-lived process keeps, and what it needs of TensorFlow's inside."""

import gc
import types
import weakref
from typing import Any

import keras
import numpy as np
import pytest
from tensorflow.python.framework import ops
from tensorflow.python.framework.func_graph import FuncGraph

from prl_keras.startup import forget_models


def graphs() -> weakref.WeakSet:
    gc.collect()
    return weakref.WeakSet(thing for thing in gc.get_objects() if isinstance(thing, FuncGraph))


@pytest.mark.slow
def test_a_trained_model_leaves_no_graph_behind() -> None:
    for _ in range(2):
        others = graphs()
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(np.zeros((8, 4)), np.zeros(8, int), verbose=0)
        own = graphs() - others  # of this model, whatever else the process has or drops
        assert own
        del model
        forget_models()
        assert not own


class Closed:
    """A registry that is none any more."""

    __slots__ = ()


@pytest.mark.parametrize("registry", [types.SimpleNamespace(), types.SimpleNamespace(_registry=Closed()), None])
def test_another_tensorflow_without_that_registry_is_no_error(monkeypatch: pytest.MonkeyPatch, registry: Any) -> None:
    monkeypatch.setattr(ops, "gradient_registry", registry)
    forget_models()
    monkeypatch.delattr(ops, "gradient_registry")
    forget_models()
