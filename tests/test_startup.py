"""What a long-lived process keeps, and what it needs of TensorFlow's inside."""

import gc
import subprocess
import sys
import types
import weakref
from typing import Any

import keras
import numpy as np
import pytest
from faults import ROOT
from tensorflow.python.framework import ops
from tensorflow.python.framework.func_graph import FuncGraph

from prl_keras import startup
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


def test_all_are_ready_before_tensorflow_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a beat, a worker that waits there for one whose imports are slow counts as hung."""
    order = []
    monkeypatch.setattr(startup, "strategy_of", order.append)
    startup.start_keras(strategy="multiworker", ready=lambda: order.append("ready"))
    assert order[:2] == ["ready", "multiworker"]


_ENDED = """
import os
from prl_keras.company import end_process
from prl_keras.startup import native_stderr

with native_stderr(lambda line: True):
    os.write(2, b"held")
    end_process("worker 1 ended without a word", 1)
"""


def test_what_ends_a_process_is_seen_while_tensorflows_lines_are_held() -> None:
    command = [sys.executable, "-c", _ENDED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (1, "error: worker 1 ended without a word\n")
