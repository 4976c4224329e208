"""Checkpoints are written while steps go on: of the state as it was, and nothing that fails is lost."""

import errno
import signal
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from faults import wait_until
from test_fuzz import small_model

from prl_keras.data.batches import Batches
from prl_keras.runs import Run, create_run
from prl_keras.runs.interruption import Stopped
from prl_keras.training import writer
from prl_keras.training.checkpoint import Taken, restore_checkpoint, state
from prl_keras.training.fit import fit
from prl_keras.training.writer import CheckpointWriter


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Run, keras.Model]:
    run, model = small_model(tmp_path)
    model.compile("adam", "mse")
    step(model)
    return run, model


def step(model: keras.Model) -> None:
    model.train_on_batch(np.ones((4, 3), "float32"), np.zeros((4, 2), "float32"))


def values(model: keras.Model) -> list[np.ndarray]:
    return [np.array(variable) for variable in state(model)]


def test_steps_that_follow_do_not_change_what_is_written(trained, monkeypatch: pytest.MonkeyPatch) -> None:
    run, model = trained
    write, go = writer.write, threading.Event()
    monkeypatch.setattr(writer, "write", lambda *given: go.wait(60) and write(*given))
    expected = values(model)
    with CheckpointWriter(run) as keeper:
        keeper.save(model, 1)
        step(model)
        assert not keeper.due(), "one is being written"
        assert not list(run.path.glob("checkpoint/epoch*"))
        go.set()
    assert not np.array_equal(values(model)[0], expected[0])
    assert restore_checkpoint(model, run).epoch == 1
    for got, want in zip(values(model), expected, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("call", ["save", "wait", "look", "due"])
def test_what_goes_wrong_is_raised_once_by_the_next_call(call: str, trained, monkeypatch: pytest.MonkeyPatch) -> None:
    run, model = trained
    failed = threading.Event()

    def full(*given: object) -> None:
        failed.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "write", full)
    with CheckpointWriter(run) as keeper:
        keeper.save(model, 1)
        assert failed.wait(60)
        wait_until(keeper._pending.done)
        with pytest.raises(OSError, match="No space"):
            getattr(keeper, call)(*((model, 2) if call == "save" else ()))
        assert keeper.look()


def test_what_goes_wrong_at_last_is_raised_at_the_end(trained, monkeypatch: pytest.MonkeyPatch) -> None:
    run, model = trained

    def use() -> None:
        with CheckpointWriter(run) as keeper:
            keeper.save(model, 1)

    monkeypatch.setattr(writer, "write", lambda *given: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        use()


def test_a_signal_while_the_last_state_is_written_still_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(tmp_path, "run", {"command": "pretrain"})
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.build((None, 2, 2, 3))
    write = writer.write

    def slow(of: Run, taken: Taken) -> None:
        if taken.epoch == 2:
            signal.raise_signal(signal.SIGTERM)  # in the main thread, which waits
        write(of, taken)

    monkeypatch.setattr(writer, "write", slow)
    batches = Batches(np.zeros((8, 2, 2, 3), "uint8"), np.arange(8) % 2, 4, 0)
    with pytest.raises(Stopped, match="after epoch 2"):
        fit(model, batches, 2, run)


def test_what_ended_the_training_goes_before_what_failed_to_be_written(trained, monkeypatch) -> None:
    run, model = trained

    def use() -> None:
        with CheckpointWriter(run) as keeper:
            keeper.save(model, 1)
            raise InterruptedError

    monkeypatch.setattr(writer, "write", lambda *given: 1 // 0)
    with pytest.raises(InterruptedError):
        use()
