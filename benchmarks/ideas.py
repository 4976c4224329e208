"""Ideas for PRL-2 that are no part of the program: each is a line of benchmarks/study.py's trials, {"idea": NAME}, or
"pairs+margins" for two at once.

What helped would move into the program; docs/method.md has the figures.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, ops

from prl_keras.embedding_loss import NEVER
from prl_keras.memory import MemoryEpisode, answered, cross_entropy, leave_out, memory_prototypes
from prl_keras.prototypes import as_float, l2_normalise
from prl_keras.training import build
from prl_keras.training.memory import MemoryPretrainer

_PAIRS = 1.0  # weight of all pairs of an image together, beside 1 for its prototype (Cui et al. 2023: 0.01 each)
_MARGIN = 0.1
_NEAREST = 4
_PER_CLASS = 3
_CROSS_ENTROPY = 0.5
_SPREAD = 0.2
_OWN_IMAGE = 0.2


class Pairs(MemoryPretrainer):
    """Prototypes and pairs in one softmax: the rows of the memory stand beside the class means (GPaCo)."""

    def _asked(self, queries, rows, lam, soft_targets):
        episode, _ = super()._asked(queries, rows, lam, soft_targets)
        memory = ops.stop_gradient(ops.convert_to_tensor(self.memory))
        labels = ops.convert_to_tensor(self.labels)
        pairs = ops.matmul(l2_normalise(as_float(queries)), ops.transpose(memory)) / self.temperature
        own = ops.arange(len(self.labels), dtype="int32")[None] == rows[:, None]
        left = ops.logical_and(ops.any(memory != 0, axis=-1)[None], ops.logical_not(own))
        same = ops.cast(ops.logical_and(left, labels[None] == ops.take(labels, rows)[:, None]), "float32")
        pairs = ops.where(left, pairs, NEVER)
        targets = _PAIRS * same / ops.maximum(ops.sum(same, axis=-1, keepdims=True), 1.0)
        logits = ops.concatenate([episode.logits, pairs], axis=-1)
        targets = ops.concatenate([episode.targets, targets], axis=-1)
        targets /= ops.maximum(ops.sum(targets, axis=-1, keepdims=True), 1e-6)
        return episode, cross_entropy(MemoryEpisode(logits, targets, episode.answerable))


class Margins(MemoryPretrainer):
    """The nearer another class's prototype is to the own one, the more room is asked for."""

    def _asked(self, queries, rows, lam, soft_targets):
        episode, _ = super()._asked(queries, rows, lam, soft_targets)
        near = ops.take(self._between_classes(), ops.take(self.labels, rows), axis=0)
        margin = _MARGIN * ops.maximum(near, 0.0) / self.temperature
        logits = ops.where(episode.logits > NEVER / 2, episode.logits + margin, episode.logits)
        return episode, cross_entropy(episode._replace(logits=logits))

    def _between_classes(self) -> KerasTensor:
        """(classes, classes) cosines of the prototypes, 0 of each with itself."""
        sums = l2_normalise(memory_prototypes(self.memory, self.labels, self.options["num_classes"])[0])
        return ops.matmul(sums, ops.transpose(sums)) * (1.0 - ops.eye(self.options["num_classes"]))


class Confusable(Margins):
    """Every second step asks among the own class and the four with the nearest prototypes only."""

    def _asked(self, queries, rows, lam, soft_targets):
        whole = MemoryPretrainer._asked(self, queries, rows, lam, soft_targets)
        episode, labels = whole[0], ops.take(self.labels, rows)
        near = ops.take(self._between_classes(), labels, axis=0)
        last = ops.top_k(near, _NEAREST)[0][:, -1:]
        kept = ops.logical_or(near >= last, episode.targets > 0.5)
        some = answered(ops.where(kept, episode.logits, NEVER), labels, self.options["label_smoothing"])
        return episode, ops.where(self.optimizer.iterations % 2 == 0, whole[1], cross_entropy(some))


class SeveralPrototypes(MemoryPretrainer):
    """Three prototypes a class; a visited image moves to the nearest of its class's, and a class is worth their sum."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        start = np.random.default_rng(0).integers(_PER_CLASS, size=len(self.labels))
        self.part = self.add_weight(
            shape=start.shape, initializer=lambda shape, dtype: start, dtype="int32", trainable=False, name="part"
        )

    def _asked(self, queries, rows, lam, soft_targets):
        classes = self.options["num_classes"]
        places = ops.convert_to_tensor(self.labels) * _PER_CLASS + self.part
        prototypes = memory_prototypes(self.memory, places, classes * _PER_CLASS)
        own, labels = ops.take(self.memory, rows, axis=0), ops.take(self.labels, rows)
        logits = leave_out(queries, prototypes, ops.take(places, rows), own, temperature=self.temperature)
        logits = ops.reshape(logits, (-1, classes, _PER_CLASS))
        found = leave_out(own, prototypes, ops.take(places, rows), own, temperature=self.temperature)
        of_own = ops.take_along_axis(ops.reshape(found, (-1, classes, _PER_CLASS)), labels[:, None, None], axis=1)
        self.part.value.scatter_update(tf.IndexedSlices(ops.cast(ops.argmax(of_own[:, 0], -1), "int32"), rows))
        episode = answered(ops.logsumexp(logits, axis=-1), labels, self.options["label_smoothing"], lam)
        return episode, cross_entropy(episode)


class WithCrossEntropy(MemoryPretrainer):
    """Half of a linear head's cross-entropy beside the prototypes; for --projection-dim 0, where it sees features."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.head = keras.layers.Dense(self.options["num_classes"], dtype="float32", name="head")
        self.head.build((None, self.projection_head.output_shape[-1]))

    def _asked(self, queries, rows, lam, soft_targets):
        episode, loss = super()._asked(queries, rows, lam, soft_targets)
        log_probability = ops.log_softmax(self.head(as_float(queries)), axis=-1)
        return episode, loss + _CROSS_ENTROPY * ops.mean(-ops.sum(episode.targets * log_probability, axis=-1))


class TwoViews(MemoryPretrainer):
    """No memory: the batch's prototypes of one hard view classify the other, and the reverse; own image left out."""

    def train_step(self, data):
        images, rows = self._visited(data)
        self._remember(images, rows)  # for evaluation only
        labels, count = ops.take(self.labels, rows), ops.shape(rows)[0]
        with tf.GradientTape() as tape:
            views = self.augmentation(ops.concatenate([images, images]), training=True)
            embeddings = l2_normalise(as_float(self(views, training=True)))
            first, second = embeddings[:count], embeddings[count:]
            episodes = [self._across(*pair, labels) for pair in ((first, second), (second, first))]
            loss = (cross_entropy(episodes[0]) + cross_entropy(episodes[1])) / 2
        self._descend(tape, loss)
        self._follow()
        return self._update_metrics(episodes[0], labels, loss, ops.ones_like(labels, dtype="bool"))

    def _across(self, support, queries, labels):
        prototypes = memory_prototypes(support, labels, self.options["num_classes"])
        logits = leave_out(queries, prototypes, labels, support, temperature=self.temperature)
        return answered(logits, labels, self.options["label_smoothing"])


class Spread(TwoViews):
    """Beside PRL-2's loss, two hard views of an image are told from the other images of its class (Thanos)."""

    def train_step(self, data):
        images, rows = self._visited(data)
        soft_targets = self._remember(images, rows)
        labels, count = ops.take(self.labels, rows), ops.shape(rows)[0]
        with tf.GradientTape() as tape:
            views = self.augmentation(ops.concatenate([images, images]), training=True)
            queries = l2_normalise(as_float(self(views, training=True)))
            episode, loss = self._asked(
                queries,
                ops.concatenate([rows, rows]),
                ops.ones((2 * count,)),
                ops.concatenate([soft_targets, soft_targets]),
            )
            similarity = ops.matmul(queries[:count], ops.transpose(queries[count:])) / self.temperature
            similarity = ops.where(labels[:, None] == labels[None], similarity, NEVER)
            spread = -ops.mean(ops.diagonal(ops.log_softmax(similarity, axis=-1)))
            loss += _SPREAD * spread
        self._descend(tape, loss)
        self._follow()
        both = ops.concatenate([labels, labels])
        return self._update_metrics(episode, both, loss, ops.ones_like(both, dtype="bool"))


class OwnImage(MemoryPretrainer):
    """A hard view finds its own image's row, too, among those of its class (Wu et al. 2018, within a class)."""

    def _asked(self, queries, rows, lam, soft_targets):
        episode, loss = super()._asked(queries, rows, lam, soft_targets)
        memory, labels = ops.stop_gradient(ops.convert_to_tensor(self.memory)), ops.convert_to_tensor(self.labels)
        similarity = ops.matmul(l2_normalise(as_float(queries)), ops.transpose(memory)) / self.temperature
        others = ops.logical_and(ops.any(memory != 0, axis=-1)[None], labels[None] == ops.take(labels, rows)[:, None])
        found = ops.log_softmax(ops.where(others, similarity, NEVER), axis=-1)
        return episode, loss - _OWN_IMAGE * ops.mean(ops.take_along_axis(found, rows[:, None], axis=-1))


class Rotations(MemoryPretrainer):
    """Class x rotation prototypes: an image turned by a quarter is of another class (Lee et al. 2020, SLA)."""

    def __init__(self, encoder, projection_head, labels, num_classes, *args: Any, **options: Any):
        turned = (np.asarray(labels).reshape(-1, 1) * 4 + np.arange(4)).ravel()
        super().__init__(encoder, projection_head, turned, 4 * num_classes, *args, **options)
        self.turns = keras.random.SeedGenerator(0)

    def train_step(self, data):
        (images, rows), labels = data
        turn = keras.random.randint((ops.shape(images)[0],), 0, 4, seed=self.turns)
        images = tf.cast(images, tf.float32)
        turned = tf.stack([tf.image.rot90(images, k) for k in range(4)], axis=1)
        return super().train_step(((tf.gather(turned, turn, axis=1, batch_dims=1), rows * 4 + turn), labels))

    def judge(self, labels, embeddings):
        return super().judge(ops.cast(labels, "int32") * 4, embeddings)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **options: Any):
        return keras.Model.fit(self, x, y, *args, **options)


IDEAS = {
    "pairs": Pairs,
    "margins": Margins,
    "confusable": Confusable,
    "several": SeveralPrototypes,
    "cross-entropy": WithCrossEntropy,
    "two-views": TwoViews,
    "spread": Spread,
    "own-image": OwnImage,
    "rotations": Rotations,
}


@contextmanager
def trained_with(idea: str | None) -> Iterator[None]:
    """`--variant prl` is this idea for a while."""
    own = build.MemoryPretrainer
    if idea:
        build.MemoryPretrainer = type(idea, tuple(IDEAS[name] for name in idea.split("+")), {})
    try:
        yield
    finally:
        build.MemoryPretrainer = own
