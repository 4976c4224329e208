"""Checkpoints are written while the next step runs: a step waits only for a copy of the state."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import keras

from prl_keras.runs import Run
from prl_keras.training.checkpoint import Taken, taken, write
from prl_keras.training.thrift import Thrift


class CheckpointWriter:
    """Writes the states of a training one after the other, in a thread of its own.

    What goes wrong there is raised by the next call of any method. At the end of a `with` nothing is left to write:
    also where that was interrupted, what is being written is finished.
    """

    def __init__(self, run: Run):
        self.run, self.thrift = run, Thrift()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self.wait()

    def save(
        self, model: keras.Model, epoch: int, step: int = 0, seconds: float = 0.0, steps_per_epoch: int | None = None
    ) -> None:
        """Of the state as it is now; arguments: see `Position`. Waits for the state before to be written."""
        self.wait()
        self._pending = self._thread.submit(self._write, taken(model, epoch, step, seconds, steps_per_epoch))

    def wait(self) -> None:
        """Until what was saved is on the disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def look(self) -> bool:
        """Whether nothing is being written."""
        if self._pending is not None and not self._pending.done():
            return False
        self.wait()
        return True

    def due(self) -> bool:
        """Whether another state may be kept without being felt."""
        return self.look() and self.thrift.due()

    def _write(self, state: Taken) -> None:
        with self.thrift.keeping():
            write(self.run, state)
