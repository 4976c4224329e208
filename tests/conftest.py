"""Shared by all tests: a quiet TensorFlow, repeatable property tests, the dtype policy put back, a small network."""

import os

# before anything imports TensorFlow; oneDNN as in prl_keras/startup.py
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable", deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


@pytest.fixture
def restored_dtype_policy() -> Iterator[None]:
    """A test that takes this may set the global dtype policy; the old one is back afterwards."""
    import keras

    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


@contextmanager
def last_stage_only() -> Iterator[None]:
    """ResNet-18 in a third of the seconds, for tests of what stands around the network."""
    with pytest.MonkeyPatch.context() as patch:  # its own: tests undo theirs
        patch.setattr("prl_keras.models.resnet._STAGES", ((512, 2),))
        yield


@pytest.fixture
def shallow() -> Iterator[None]:
    with last_stage_only():
        yield


@pytest.fixture(scope="module")
def shallow_module() -> Iterator[None]:
    with last_stage_only():
        yield
