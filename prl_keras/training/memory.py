"""The pre-trainer of prototypes of a memory ("PRL-2"): clean prototypes of all images, hard queries, a slow teacher."""

import math
import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, ops

from prl_keras.embedding_loss import check_smoothing
from prl_keras.errors import InputError
from prl_keras.labels import checked_labels
from prl_keras.memory import (
    MemoryEpisode,
    MemoryTask,
    answered,
    cross_entropy,
    leave_out,
    memory_episode,
    memory_prototypes,
    mix,
)
from prl_keras.models.storage import copy_as
from prl_keras.prototypes import as_float, check_distance, l2_normalise
from prl_keras.training.penalties import penalised
from prl_keras.training.pretrain import _Pretrainer

_COLDEST = 0.01  # a learned temperature goes no lower: Radford et al. 2021 (CLIP) clip 1/T to 100

_PARTS = ("encoder", "projection_head", "augmentation", "mixing", "clean_augmentation")
_SHARES = ("memory_momentum", "teacher_momentum", "soft_weight", "soft_from")


@keras.saving.register_keras_serializable("prl_keras")
class Unmixed(keras.Layer):
    """What mixing layers are, without mixing: images -> (the same images, lambda (batch,), all 1)."""

    def __init__(self, **kwargs):
        kwargs.setdefault("dtype", "float32")  # also under a mixed policy: bfloat16 has no 256 grey levels
        super().__init__(**kwargs)

    def call(self, images: KerasTensor, training: bool | None = None) -> tuple[KerasTensor, KerasTensor]:
        return images, ops.ones((ops.shape(images)[0],), "float32")


@keras.saving.register_keras_serializable("prl_keras")
class MemoryPretrainer(_Pretrainer):
    """Pre-train an encoder by classifying hard views with class prototypes of all images as they are.

    Every image has a row m_i in a memory. When it is visited, a teacher, which is the exponential average of encoder
    and projection head, embeds its clean view: m_i <- norm(memory_momentum * m_i + (1 - memory_momentum) * z0_i). The
    student embeds the hard, perhaps mixed view, and is asked for its class among the prototypes of the memory, from
    which the rows of the image and of its partner are left out (`prl_keras.memory`).

        pretrainer = MemoryPretrainer(encoder, projection_head(), labels, 10, matched_temperature(10, 0.1), 0.1)
        pretrainer.compile("adam")
        pretrainer.fit(Batches(images, labels, 64, seed=0, with_rows=True), epochs=25)

    Args:
        encoder: raw images -> features (batch, 512).
        projection_head: features -> embeddings; dropped after pre-training.
        labels: (n,) or (n, 1) class numbers of all training images, by row.
        num_classes: labels are below it.
        temperature: similarities are divided by it; see `memory.matched_temperature`.
        label_smoothing: share of the target that is spread over all classes.
        augmentation: layer on raw images, for the queries; None: none.
        mixing: layer, called after it with (images, training): images -> (mixed images, lambda (batch,)), where row i
            is lambda_i of image i and the rest of image i - 1; None: none.
        clean_augmentation: layer on raw images, for the memory; None: the image itself.
        memory_momentum: share of the old row when an image is visited again.
        teacher_momentum: of the exponential average, in the end; after k steps it is at most (1 + k) / (10 + k).
        soft_weight: share of the target that is the teacher's answer for the clean view (mixed as the images are).
        soft_temperature: of that answer; None: twice the temperature.
        soft_from, total_steps: soft targets begin after this share of all steps; without total_steps at once.
        learn_temperature: train ln(1 / temperature), from `temperature` on, down to 0.01. It should not decay: see
            `keras.optimizers.Optimizer.exclude_from_weight_decay`.

    Trained with data ((images, rows), labels); evaluated with (images, labels), by the prototypes of the whole memory,
    from which nothing is left out. Metrics: loss, without soft targets in evaluation; accuracy of the own class among
    the prototypes, in training of those queries that are more than half their own image. Both are NaN of no query.

    Raises (in construction, training and evaluation):
        InputError: an argument out of its range; data without labels or rows; labels that are not those of the
            memory; sample or class weights.
    """

    takes_rows = True

    def __init__(
        self,
        encoder: keras.Model,
        projection_head: keras.Model,
        labels: np.ndarray,
        num_classes: int,
        temperature: float,
        label_smoothing: float = 0.0,
        augmentation: keras.layers.Layer | None = None,
        mixing: keras.layers.Layer | None = None,
        clean_augmentation: keras.layers.Layer | None = None,
        memory_momentum: float = 0.5,
        teacher_momentum: float = 0.99,
        soft_weight: float = 0.0,
        soft_temperature: float | None = None,
        soft_from: float = 0.2,
        total_steps: int | None = None,
        learn_temperature: bool = False,
        name: str | None = None,
    ):
        counts = np.bincount(_class_numbers(labels, num_classes), minlength=num_classes)
        task = MemoryTask(tuple(counts.tolist()), temperature, label_smoothing)
        super().__init__(encoder, projection_head, task, augmentation, name)
        self.mixing = mixing or Unmixed(name="mixing")
        self.clean_augmentation = clean_augmentation or keras.layers.Identity(name="clean_augmentation")
        self.labels = _class_numbers(labels, num_classes)
        self.options = {
            "num_classes": num_classes,
            "temperature": temperature,
            "label_smoothing": label_smoothing,
            "memory_momentum": memory_momentum,
            "teacher_momentum": teacher_momentum,
            "soft_weight": soft_weight,
            "soft_temperature": soft_temperature,
            "soft_from": soft_from,
            "total_steps": total_steps,
            "learn_temperature": learn_temperature,
        }
        _check_options(self.options)
        self.teacher_encoder, self.teacher_head = (_teacher_of(student) for student in (encoder, projection_head))
        self.memory = self.add_weight(
            shape=(len(self.labels), projection_head.output_shape[-1]),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            name="memory",
        )
        self.log_scale = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(-math.log(temperature)),
            dtype="float32",
            trainable=learn_temperature,
            constraint=_not_too_cold if learn_temperature else None,
            name="log_scale",
        )

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.loss_tracker, self.accuracy]

    @property
    def temperature(self) -> KerasTensor:
        return ops.exp(-ops.convert_to_tensor(self.log_scale))

    def train_step(self, data: tuple) -> dict:
        images, rows = self._visited(data)
        soft_targets = self._remember(self.clean_augmentation(images, training=True), rows)
        hard, lam = self.mixing(self.augmentation(images, training=True), training=True)
        with tf.GradientTape() as tape:
            queries = self(hard, training=True)
            episode, loss = self._asked(queries, rows, lam, mix(soft_targets, lam))
            scaled_loss = self.optimizer.scale_loss(penalised(self, loss))
        self._descend(tape, scaled_loss)
        self._follow()
        return self._update_metrics(episode, ops.take(self.labels, rows, axis=0), loss, lam > 0.5)

    def test_step(self, data: tuple) -> dict:
        images, labels = self._unpacked(data)
        return self.judge(labels, self(images, training=False))

    def judge(self, labels: KerasTensor, embeddings: KerasTensor) -> dict:
        """Labels (batch,), embeddings (batch, dim) in inference mode -> the metrics, updated by them. `test_step` and
        the monitor of a training both ask here."""
        queries = l2_normalise(as_float(embeddings))
        prototypes = memory_prototypes(self.memory, self.labels, self.options["num_classes"])
        logits = leave_out(queries, prototypes, labels, ops.zeros_like(queries), temperature=self.temperature)
        episode = answered(logits, labels, self.options["label_smoothing"])
        return self._update_metrics(episode, labels, cross_entropy(episode), ops.ones_like(labels, dtype="bool"))

    def fit(self, x: Any = None, y: Any = None, *args: Any, **options: Any) -> keras.callbacks.History:
        """As Keras's; labels are compared with those of the rows of the memory that the images have."""
        labels, known = getattr(x, "labels", None) if y is None else checked_labels(y), self.labels
        if y is not None and isinstance(x, (tuple, list)) and len(x) == 2:
            rows = np.asarray(x[1]).reshape(-1).astype(int)
            known = known[rows] if ((rows >= 0) & (rows < len(known))).all() else None
        if labels is not None and not np.array_equal(labels, known):
            raise InputError(
                "the labels are not those of the memory: MemoryPretrainer(..., labels) and fit take the same"
            )
        return super().fit(x, y, *args, **options)

    def teach(self, images: KerasTensor) -> KerasTensor:
        """Raw images (batch, height, width, channels) -> the teacher's normalised embeddings (batch, dim)."""
        features = self.teacher_encoder(images, training=False)
        return l2_normalise(as_float(self.teacher_head(features, training=False)))

    def _remember(self, images: KerasTensor, rows: KerasTensor) -> KerasTensor:
        """Refresh the rows of the memory, and answer for their images: (batch, classes) probabilities.

        Where a row is there twice, the last image counts: all write what that one writes, in whatever order.
        """
        taught, momentum = self.teach(images), self.options["memory_momentum"]
        order = ops.arange(ops.shape(rows)[0], dtype="int32")
        last = ops.max(ops.where(rows[:, None] == rows[None, :], order[None, :], -1), axis=-1)
        old = ops.take(self.memory, rows, axis=0)
        new = l2_normalise(momentum * old + (1.0 - momentum) * ops.take(taught, last, axis=0))
        self.memory.value.scatter_update(tf.IndexedSlices(new, rows))
        temperature = self.options["soft_temperature"] or 2.0 * self.temperature
        return ops.softmax(self._episode(taught, rows, temperature=temperature).logits, axis=-1)

    def _asked(
        self, queries: KerasTensor, rows: KerasTensor, lam: KerasTensor, soft_targets: KerasTensor
    ) -> tuple[MemoryEpisode, KerasTensor]:
        """What the student is asked, and its loss."""
        episode = self._episode(queries, rows, lam, soft_targets, self._soft_weight())
        return episode, cross_entropy(episode)

    def _episode(
        self,
        queries: KerasTensor,
        rows: KerasTensor,
        lam: KerasTensor | None = None,
        soft_targets: KerasTensor | None = None,
        soft_weight: float | KerasTensor = 0.0,
        temperature: float | KerasTensor | None = None,
    ) -> MemoryEpisode:
        return memory_episode(
            queries,
            rows,
            self.memory,
            self.labels,
            self.options["num_classes"],
            self.temperature if temperature is None else temperature,
            self.options["label_smoothing"],
            lam,
            soft_targets,
            soft_weight,
        )

    def _soft_weight(self) -> KerasTensor:
        begins = math.ceil(self.options["soft_from"] * (self.options["total_steps"] or 0))
        return ops.where(self.optimizer.iterations >= begins, self.options["soft_weight"], 0.0)

    def _follow(self) -> None:
        """Move the teacher towards the student, batch-normalisation statistics included."""
        before = ops.cast(self.optimizer.iterations, "float32") - 1.0  # steps before this one
        momentum = ops.minimum(self.options["teacher_momentum"], (1.0 + before) / (10.0 + before))
        for teacher, student in ((self.teacher_encoder, self.encoder), (self.teacher_head, self.projection_head)):
            for old, new in zip(teacher.weights, student.weights, strict=True):
                old.assign(new + ops.cast(momentum, old.dtype) * (old - new))

    def _visited(self, data: tuple) -> tuple[KerasTensor, KerasTensor]:
        """Images and their rows (batch,) int32; the labels are known by the rows."""
        inputs, _ = self._unpacked(data)
        if not isinstance(inputs, (tuple, list)) or len(inputs) != 2:
            raise InputError(
                "MemoryPretrainer learns from ((images, rows), labels), where rows say which of the training images "
                "they are: fit(Batches(images, labels, ..., with_rows=True))"
            )
        images, rows = inputs
        return images, ops.cast(ops.reshape(rows, (-1,)), "int32")

    def _unpacked(self, data: tuple) -> tuple[Any, KerasTensor]:
        inputs, labels = super()._unpacked(data)
        if labels is None:
            raise InputError("MemoryPretrainer learns from labels: ((images, rows), labels)")
        return inputs, labels

    def _update_metrics(
        self, episode: MemoryEpisode, labels: KerasTensor, loss: KerasTensor, telling: KerasTensor
    ) -> dict:
        """telling: (batch,) bool, the queries that are of their class enough for the accuracy."""
        correct = ops.cast(ops.argmax(episode.logits, axis=-1) == ops.cast(labels, "int32"), "float32")
        self.loss_tracker.update_state(loss, sample_weight=ops.sum(ops.cast(episode.answerable, "float32")))
        self.accuracy.update_state(correct, sample_weight=ops.logical_and(episode.answerable, telling))
        return self.get_metrics_result()

    def get_config(self) -> dict:
        parts = {key: keras.saving.serialize_keras_object(getattr(self, key)) for key in _PARTS}
        return {"name": self.name, "labels": self.labels.tolist(), **parts, **self.options}

    @classmethod
    def from_config(cls, config: dict) -> "MemoryPretrainer":
        parts = {key: keras.saving.deserialize_keras_object(config[key]) for key in _PARTS}
        return cls(**{**config, **parts, "labels": np.array(config["labels"])})


def _teacher_of(student: keras.Model) -> keras.Model:
    teacher = copy_as(student, None, None)
    teacher.trainable = False
    return teacher


def _not_too_cold(log_scale: KerasTensor) -> KerasTensor:
    return ops.minimum(log_scale, -math.log(_COLDEST))


def _class_numbers(labels: np.ndarray, num_classes: int) -> np.ndarray:
    labels = checked_labels(labels)
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"labels are {np.unique(labels).tolist()[:20]}; expected some, all from 0 to {num_classes - 1}"
        )
    return labels.astype("int32")


def _check_options(options: dict) -> None:
    for key in ("temperature", "soft_temperature"):
        if options[key] is not None:
            check_distance("cosine", options[key])
    for key in _SHARES:
        if not isinstance(options[key], numbers.Real) or not 0 <= options[key] <= 1:
            raise InputError(f"{key} is {options[key]!r}; expected a number from 0 to 1")
    check_smoothing(options["label_smoothing"])
    steps = options["total_steps"]
    if steps is not None and (not isinstance(steps, numbers.Integral) or steps < 1):
        raise InputError(f"total_steps is {steps!r}; expected a whole number, at least 1, or None")
