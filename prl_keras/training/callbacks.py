"""What happens at the edges of steps and epochs: order, guard, metrics.jsonl, checkpoint."""

import json
import math
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

import keras
import numpy as np
import tensorflow as tf

from prl_keras.data.batches import Batches
from prl_keras.errors import InputError
from prl_keras.files import atomic_path
from prl_keras.labels import balanced_accuracy, checked_labels
from prl_keras.models.encode import encode
from prl_keras.replicas import number
from prl_keras.runs import Run
from prl_keras.runs.interruption import Stopped, StopRequest
from prl_keras.tracking import Tracking
from prl_keras.training.checkpoint import Position, advice, last_position
from prl_keras.training.writer import CheckpointWriter


class EpochOrder(keras.callbacks.Callback):
    """Tell the batches which epoch it is, so that their order is the same after a resume. Goes first.

    Args:
        start: where the training stands; its epoch is continued within. None: at the beginning.
    """

    def __init__(self, batches: Batches, start: Position | None = None):
        super().__init__()
        self.batches, self.start = batches, start or Position()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.batches.epoch = epoch
        if epoch == self.start.epoch and self.start.step:
            self.model.train_function = _Skip(self.model, self.start.step)
            for variable, value in zip(self.model.metrics_variables, self.start.metrics, strict=True):
                variable.assign(value)


class _Skip:
    """A train function that draws batches and does nothing with them, and then gives way to the usual one.

    A shorter epoch will not do: Keras finds out about its end by a step without data, which still moves counters.
    """

    def __init__(self, model: keras.Model, steps: int):
        self.model, self.left, self.usual = model, steps, model.train_function

    def __call__(self, iterator: Iterator) -> dict:
        next(iterator)
        self.left -= 1
        if not self.left:
            self.model.train_function = self.usual
        return {}


class FiniteGuard(keras.callbacks.Callback):
    """Stop at the step whose loss or gradient is not finite.

    Every gradient that reaches a kernel has passed a bias or a batch normalisation, so after the step these small
    weights show it, and to read them costs 1.7 % of a ResNet-18's step (docs/results/guards.json). float16 is another
    matter: there Keras skips such a step and halves the loss scale, which is how it finds the right one. Below 1 there
    is none.
    """

    def __init__(self, writer: CheckpointWriter, batches: Batches):
        super().__init__()
        self.writer, self.batches = writer, batches

    def on_train_begin(self, logs: dict | None = None) -> None:
        vectors = [variable.value for variable in self.model.trainable_variables if len(variable.shape) < 2]
        self.sum = tf.function(
            lambda: tf.add_n([tf.reduce_sum(vector) for vector in vectors] or [0.0]), autograph=False
        )

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        tracker = next(metric for metric in self.model.metrics if metric.name == "loss")
        loss_is_finite = math.isfinite(number(tracker.total))
        if loss_is_finite and math.isfinite(float(self.sum())) and self._loss_scale() >= 1:
            return
        with suppress(OSError, InputError):  # what ended the training is said, not what failed to be kept
            self.writer.wait()
        run, (_, labels) = self.writer.run, self.batches[batch]
        classes, sizes = np.unique(labels, return_counts=True)
        counts = ", ".join(f"{label}: {size}" for label, size in zip(classes, sizes, strict=True))
        raise InputError(
            f"run {run.name!r}: {'a gradient' if loss_is_finite else 'the loss'} is not finite in epoch "
            f"{self.batches.epoch + 1}, step {batch + 1} (images a class in its batch: "
            f"{counts}); {advice(run)}"
        )

    def _loss_scale(self) -> float:
        return number(getattr(self.model.optimizer, "dynamic_scale", 1.0))


class TestAccuracy(keras.callbacks.Callback):
    """Add test_accuracy, of the weights at the end of the epoch, to the epoch's logs: the paper's protocol.

    And test_balanced, the same with every class weighing the same.

    Args:
        inputs, labels: (n, ...) what the trained model takes, and (n,) or (n, 1) whole numbers.
        tested: a model that has these weights; None: the trained one.
    """

    adds = ("test_accuracy", "test_balanced")

    def __init__(self, inputs: np.ndarray, labels: np.ndarray, tested: keras.Model | None = None):
        super().__init__()
        self.inputs, self.labels, self.tested = inputs, checked_labels(labels), tested

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        predicted = encode(self.tested or self.model, self.inputs).argmax(axis=-1)
        logs["test_accuracy"] = float(np.mean(predicted == self.labels))
        logs["test_balanced"] = balanced_accuracy(predicted, self.labels)


class SomeEpochs(keras.callbacks.Callback):
    """A monitor that adds figures at the ends of these epochs, from 1, and is told of nothing else but its model."""

    def __init__(self, monitor: keras.callbacks.Callback, epochs: Collection[int]):
        super().__init__()
        self.monitor, self.epochs = monitor, epochs

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self.monitor.set_model(model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if epoch + 1 in self.epochs:
            self.monitor.on_epoch_end(epoch, logs)


class MetricsLog(keras.callbacks.Callback):
    """Keep metrics.jsonl: one line an epoch, the constants first, rewritten atomically.

    `seconds` are those of the epoch's training steps, also of those that were taken before an interruption; without
    validation, monitors and what a checkpoint holds up.
    """

    def __init__(self, run: Run, images_per_epoch: int, constants: dict[str, float], start: Position | None = None):
        super().__init__()
        self.run = run
        self.images_per_epoch = images_per_epoch
        self.constants = constants
        self.start = start or Position()
        self.lines = [line for line in run.metrics if line["epoch"] <= self.start.epoch]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.continued = epoch == self.start.epoch
        self.seconds = self.start.seconds if self.continued else 0.0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if not (self.continued and batch < self.start.step):  # skipped
            self.seconds += time.monotonic() - self.started

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        values = {key: finite(value) for key, value in logs.items()}
        values["learning_rate"] = finite(number(self.model.optimizer.learning_rate))
        self.lines.append(
            {"epoch": epoch + 1, **self.constants, **values, "seconds": round(self.seconds, 3)}
            | {"images_per_second": round(self.images_per_epoch / max(self.seconds, 1e-9), 1)}
        )
        with atomic_path(self.run.path / "metrics.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")


class TrackLog(keras.callbacks.Callback):
    """Send the lines of metrics.jsonl, of a run that is continued those of before too, if they have not been sent."""

    def __init__(self, tracking: Tracking, metrics: MetricsLog):
        super().__init__()
        self.tracking, self.metrics = tracking, metrics

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.tracking.send(self.metrics.lines)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.tracking.send(self.metrics.lines)


class Checkpoint(keras.callbacks.Callback):
    """Save the complete state after an epoch, as often as is not felt (`Thrift`) and after the last; if asked, every
    `steps` steps and after every epoch. Goes last: it vouches for the rest.

    When a stop was requested, it saves what is there and ends the training.
    """

    def __init__(
        self,
        order: EpochOrder,
        metrics: MetricsLog,
        writer: CheckpointWriter,
        request: StopRequest,
        steps: int | None = None,
    ):
        super().__init__()
        self.batches, self.start, self.metrics = order.batches, order.start, metrics
        self.writer, self.request, self.steps = writer, request, steps

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.writer.look()
        done = batch + 1
        if done == len(self.batches):
            return  # the epoch's own checkpoint follows
        if self.batches.epoch == self.start.epoch and done <= self.start.step:
            return  # skipped
        if self.request.signal is not None or (self.steps and done % self.steps == 0):
            self._save(self.batches.epoch, done, self.metrics.seconds)
        self._obey()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        last = epoch + 1 == self.params["epochs"]
        if last or self.steps or self.request.signal is not None or self.writer.due():
            self._save(epoch + 1, 0, 0.0)
        if last:
            self.writer.wait()  # and only then is it too late to stop
        self._obey()

    def _save(self, epoch: int, step: int, seconds: float) -> None:
        self.writer.save(self.model, epoch, step, seconds, len(self.batches))

    def _obey(self) -> None:
        if self.request.signal is not None:
            self.writer.wait()
            run = self.writer.run
            raise Stopped(self.request.signal, run.name, last_position(run))


def finite(value: float) -> float | None:
    """Rounded for metrics.jsonl; None for NaN and infinity, which JSON lacks."""
    value = float(value)
    return round(value, 6) if math.isfinite(value) else None
