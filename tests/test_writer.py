"""Checkpoints are written while steps go on: of the state as it was, and nothing that fails is lost."""

import errno
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from test_fuzz import small_model

from prl_keras.runs import Run
from prl_keras.training import writer
from prl_keras.training.checkpoint import restore_checkpoint, state
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


@pytest.mark.parametrize("call", ["save", "wait", "due", "leave"])
def test_what_goes_wrong_is_raised_by_the_next_call(call: str, trained, monkeypatch: pytest.MonkeyPatch) -> None:
    run, model = trained

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def use() -> None:
        with CheckpointWriter(run) as keeper:
            keeper.save(model, 1)
            if call == "save":
                keeper.save(model, 2)
            elif call != "leave":
                getattr(keeper, call)()

    monkeypatch.setattr(writer, "write", full)
    with pytest.raises(OSError, match="No space"):
        use()


def test_what_ended_the_training_goes_before_what_failed_to_be_written(trained, monkeypatch) -> None:
    run, model = trained

    def use() -> None:
        with CheckpointWriter(run) as keeper:
            keeper.save(model, 1)
            raise InterruptedError

    monkeypatch.setattr(writer, "write", lambda *given: 1 // 0)
    with pytest.raises(InterruptedError):
        use()
