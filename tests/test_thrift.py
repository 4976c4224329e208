"""The state of a training is kept as often as is not felt."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from prl_keras.training import thrift
from prl_keras.training.thrift import Thrift


def kept(epoch_seconds: float, cost: float, epochs: int) -> list[int]:
    now = [0.0]
    rule, found = Thrift(lambda: now[0]), []
    for epoch in range(1, epochs + 1):
        now[0] += epoch_seconds
        if rule.due():
            found.append(epoch)
            with rule.keeping():
                now[0] += cost
    return found


@pytest.fixture(autouse=True)
def share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thrift, "SHARE", 0.05)


def test_keeping_takes_its_share_of_the_time_at_most() -> None:
    assert kept(5.0, 2.0, 30) == [1, 9, 17, 25], "every 40 s"
    assert kept(60.0, 2.0, 4) == [1, 2, 3, 4], "a long epoch is worth it"
    assert kept(0.1, 0.002, 5) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("steps", [None, 3])
def test_the_last_epoch_is_kept_and_every_one_if_asked(
    steps: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prl_keras.training import callbacks, writer

    found = []
    monkeypatch.setattr(writer, "taken", lambda model, epoch, *more: epoch)
    monkeypatch.setattr(writer, "write", lambda run, epoch: found.append(epoch))
    order = SimpleNamespace(batches=[0] * 5, start=None)
    keeper = writer.CheckpointWriter(SimpleNamespace(name="run", path=tmp_path))
    checkpoint = callbacks.Checkpoint(order, None, keeper, SimpleNamespace(signal=None), steps)
    checkpoint.set_params({"epochs": 5})
    checkpoint.set_model(None)
    now = [0.0]
    keeper.thrift = Thrift(lambda: now[0])
    for epoch in range(5):
        checkpoint.on_epoch_end(epoch)
        keeper.wait()
        keeper.thrift.cost = 1.0
    assert found == ([1, 5] if steps is None else [1, 2, 3, 4, 5])
    checkpoint.request.signal = 15
    with pytest.raises(callbacks.Stopped):
        checkpoint.on_epoch_end(2)
    assert found[-1] == 3
