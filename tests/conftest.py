"""Shared by all tests: a quiet TensorFlow, repeatable property tests, the dtype policy put back, a small network."""

import os
import shutil
import sys

# before anything imports TensorFlow
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core: more threads would only wait for each other
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from prl_keras.startup import collect_garbage_rarely

collect_garbage_rarely()  # also where a test imports Keras itself


def pytest_collection_finish() -> None:
    """All that the test modules import is here now, and stays: no search for garbage needs to look at it again."""
    collect_garbage_rarely()


# They play Windows with /proc, kill and limit processes, and mount disks: Linux only. Then what Windows itself lacks.
collect_ignore = [] if sys.platform == "linux" else ["test_windows.py", "test_campaign.py"]
collect_ignore += ["test_hostile.py", "test_outputs.py", "test_browser.py", "test_report.py"] if os.name == "nt" else []
collect_ignore += ["test_jobs.py"] if os.name == "nt" else []

settings.register_profile(
    "repeatable", deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


@pytest.fixture(scope="module", autouse=True)
def forgotten_models() -> Iterator[None]:
    """A module's models are gone after it: TensorFlow keeps 160 MB of each, and 6 GB make everything slower."""
    yield
    if "keras" in sys.modules:
        from prl_keras.startup import forget_models

        forget_models()


@pytest.fixture(scope="session", autouse=True)
def _digits_read_once() -> Iterator[None]:
    """They are the data of most commands here, and enlarging them takes as long as many a test."""
    from prl_keras.data import digits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "read_digits", cache(digits.read_digits))
        yield


@pytest.fixture(scope="session", autouse=True)
def _every_state_kept() -> Iterator[None]:
    """After each epoch, however short, so that a test can stop a training anywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prl_keras.training.thrift.SHARE", float("inf"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_job() -> Iterator[None]:
    """A table's runs in this process, where tests can replace things; test_jobs has other numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prl_keras.experiments.jobs.MOST", 1)
        yield


_ITERATIONS = "prl_keras.visualization.embeddings._ITERATIONS"


@pytest.fixture(scope="session", autouse=True)
def _short_maps() -> Iterator[None]:
    """Most tests of a map ask for a picture, not for a good one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ITERATIONS, 250)
        yield


@pytest.fixture
def whole_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that asks what is near what in a map."""
    monkeypatch.setattr(_ITERATIONS, 1_000)


DIGITS = ["--dataset", "digits", "--samples-per-class", "8", "--test-per-class", "5", "--image-size", "16"]


@pytest.fixture(scope="session", autouse=True)
def _computes_in_float32() -> Iterator[None]:
    """Also where the processor has bfloat16: `--precision auto` is float32 in all tests that say nothing of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prl_keras.startup._processor_flags", lambda: "flags : avx512f")
        yield


@pytest.fixture(scope="session")
def _trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process makes them, the others wait for it."""
    from prl_keras.cli import main

    folder = tmp_path_factory.mktemp("trained")
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = tmp_path_factory.getbasetemp().parent / "trained"
    how = ["--epochs", "2", "--runs-dir", str(folder)]
    done = folder / "done"
    with FileLock(folder.with_name("trained.lock")), small_network():
        if done.exists():
            return folder
        assert main(["pretrain", *DIGITS, "--batch-size", "32", "--augment", "light", "--name", "pre", *how]) == 0
        assert main(["finetune", "--encoder", "pre", "--name", "tuned", *how]) == 0
        done.touch()
    return folder


@pytest.fixture(scope="module")
def trained(_trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the module's own with a pre-trained run `pre` and a fine-tuned run `tuned`, made by the commands."""
    return shutil.copytree(_trained_once, tmp_path_factory.mktemp("runs") / "runs")


@pytest.fixture
def restored_dtype_policy() -> Iterator[None]:
    """A test that takes this may set the global dtype policy; the old one is back afterwards."""
    import keras

    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


_WHOLE = ((64, 1), (128, 2), (256, 2), (512, 2)), 64  # stages and filters of the stem, as in models/resnet.py
_SMALL = ((64, 2),), 16
FEATURES = 64  # of the small network


@contextmanager
def _network(stages: tuple[tuple[int, int], ...], stem_filters: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:  # its own: tests undo theirs
        patch.setattr("prl_keras.models.resnet._STAGES", stages)
        patch.setattr("prl_keras.models.resnet._STEM_FILTERS", stem_filters)
        yield


def small_network() -> AbstractContextManager[None]:
    """A ResNet of one narrow stage instead of four: for tests of what stands around the network, which are most."""
    return _network(*_SMALL)


@pytest.fixture(scope="module", autouse=True)
def _small_network(request: pytest.FixtureRequest) -> Iterator[None]:
    with nullcontext() if getattr(request.module, "WHOLE_NETWORK", False) else small_network():
        yield


@pytest.fixture
def narrow_network() -> Iterator[None]:
    """For a test of a module with the whole one."""
    with small_network():
        yield


@pytest.fixture
def whole_network() -> Iterator[None]:
    """For a test of a module with the small one."""
    with _network(*_WHOLE):
        yield
