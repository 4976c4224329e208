"""Does pre-training work? Figures of the representations on validation images, at the ends of epochs."""

import keras
import numpy as np
import tensorflow as tf

from prl_keras.data.batches import Batches
from prl_keras.labels import balanced_accuracy, checked_labels
from prl_keras.losses import prototypical_episode
from prl_keras.models.encode import encode
from prl_keras.prototypes import class_prototypes, prototype_logits
from prl_keras.screen.console import console

KNN_K = 10
BLOCK = 1000  # images whose neighbours are looked for together
MOST_SUPPORT = 2000  # images in all, or one a class
COLLAPSED = 1.5  # effective rank
FEW = 8  # batches: to compile what judges them takes longer than to judge them
_OF_ALL = ("val_effective_rank",)
_OF_CLASSES = (
    *("val_prototype_accuracy", "val_prototype_balanced", "val_knn_accuracy", "val_knn_balanced"),
    "val_class_spread",
)


class RepresentationMonitor(keras.callbacks.Callback):
    """Add figures of the features to the epoch's logs.

    val_prototype_accuracy and val_knn_accuracy: validation features classified by the prototypes of, and by a
    vote of the 10 most similar (cosine; fewer if there are fewer a class) of, some training features.
    val_prototype_balanced, val_knn_balanced: the same with every class weighing the same.
    val_class_spread: `class_spread` of the validation features. val_effective_rank: `effective_rank` of the validation
    embeddings; near 1, they collapsed, if they do not tell classes apart either. With `batches`, also what Keras would
    find if they were its validation data, without encoding their images a second time.

    Args:
        pretrainer: has `encoder` and `projection_head`.
        train, validation: (images, labels) of the splits; labels (n,) or (n, 1) whole numbers.
        num_classes: of the data set.
        support_per_class: prototypes and neighbours come from at most this many training images a class, and 2,000
            in all; enough for a stable mean at a small part of an epoch's cost.
        batches: of the validation images, for the loss and the metrics of a pre-trainer that can `judge` embeddings;
            of another they are `unjudged`, and left to Keras.
    """

    def __init__(
        self,
        pretrainer: keras.Model,
        train: tuple[np.ndarray, np.ndarray],
        validation: tuple[np.ndarray, np.ndarray],
        num_classes: int,
        support_per_class: int = 50,
        batches: Batches | None = None,
    ):
        super().__init__()
        self.pretrainer, self.batches = pretrainer, batches
        self.encoder, self.projection_head = pretrainer.encoder, pretrainer.projection_head
        self.num_classes = num_classes
        labels = checked_labels(train[1])
        most = max(1, min(support_per_class, MOST_SUPPORT // num_classes))
        rows = np.sort(np.concatenate([np.flatnonzero(labels == k)[:most] for k in range(num_classes)]))
        self.support = train[0][rows], labels[rows]
        self.neighbours = max(1, min(KNN_K, len(rows) // num_classes))
        self.validation = validation[0], checked_labels(validation[1])
        self.warned = False
        self.answers: tuple[np.ndarray, np.ndarray] | None = None
        self._judge = getattr(pretrainer, "judge", None) if batches is not None else None
        self.unjudged = batches if self._judge is None else None
        if self._judge is not None and len(batches) > FEW:
            self._judge = tf.function(self._judge, autograph=False, reduce_retracing=True)

    @property
    def adds(self) -> tuple[str, ...]:
        """Names of the figures."""
        judged = tuple(f"val_{name}" for name in self._judged_names)
        return judged + (_OF_CLASSES + _OF_ALL if self.num_classes >= 2 else _OF_ALL)

    @property
    def _judged_names(self) -> list[str]:
        metrics = getattr(self.pretrainer, "judged_metrics", self.pretrainer.metrics)
        return [metric.name for metric in metrics] if self._judge else []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        features, embeddings = self._encoded()
        logs.update(self._judged(embeddings))
        figures = self._figures(features, embeddings)
        if figures["val_effective_rank"] < COLLAPSED and not self.warned and self._tells_no_classes():
            self.warned = True
            console.print(
                f"warning: the embeddings collapse: after epoch {epoch + 1} their effective rank is "
                f"{figures['val_effective_rank']:.2f} (1: all alike), so the loss can hardly tell classes apart; "
                "try a lower --learning-rate or another --temperature",
                style="yellow",
            )
        logs.update(figures)

    def _tells_no_classes(self) -> bool:
        """Whether prototypes of the embeddings are hardly better than one answer for all, by more than luck.

        A low rank alone is no fault: two classes that are opposites need no more than one direction, and one dimension
        has no more. Support and validation images, each left out of its own prototype: the latter alone may be few.
        """
        (support, support_labels), (images, labels) = self.support, self.validation
        features = np.concatenate([encode(self.encoder, part) for part in (support, images)])
        labels = np.concatenate([support_labels, labels])
        embeddings = encode(self.projection_head, features)
        if min(embeddings.shape) < 2:
            return False
        episode = prototypical_episode(labels, embeddings, self.num_classes, "loo")
        asked = keras.ops.convert_to_numpy(episode.answerable)
        if not asked.any():
            return False
        answers, labels = np.argmax(episode.logits, axis=-1)[asked], labels[asked]
        one_answer = np.bincount(labels).max() / len(labels)
        luck = 2 * np.sqrt(one_answer * (1 - one_answer) / len(labels))
        return bool(np.mean(answers == labels) <= one_answer + max(0.1 * (1 - one_answer), luck))

    def figures(self) -> dict[str, float]:
        """Also keeps what the prototypes answer, and the labels, in `answers`: (n,) and (n,); of images without classes
        only the rank is known."""
        return self._figures(*self._encoded())

    def _encoded(self) -> tuple[np.ndarray, np.ndarray]:
        features = encode(self.encoder, self.validation[0])
        return features, encode(self.projection_head, features)

    def _judged(self, embeddings: np.ndarray) -> dict[str, float]:
        if self._judge is None:
            return {}
        self.pretrainer.reset_metrics()
        for step in range(len(self.batches)):
            rows = self.batches.rows(step)
            self._judge(tf.constant(self.batches.labels[rows], tf.int32), tf.constant(embeddings[rows]))
        figures = self.pretrainer.get_metrics_result()
        return {f"val_{name}": float(figures[name]) for name in self._judged_names}

    def _figures(self, features: np.ndarray, embeddings: np.ndarray) -> dict[str, float]:
        labels = self.validation[1]
        rank = {"val_effective_rank": effective_rank(embeddings)}
        if self.num_classes < 2:
            return rank
        support, support_labels = encode(self.encoder, self.support[0]), self.support[1]
        prototypes, _ = class_prototypes(support_labels, support, self.num_classes)
        by_prototype = np.argmax(prototype_logits(features, prototypes), axis=-1)
        self.answers = by_prototype, labels
        by_neighbours = knn_vote(features, support, support_labels, self.num_classes, self.neighbours)
        return {
            "val_prototype_accuracy": float(np.mean(by_prototype == labels)),
            "val_prototype_balanced": balanced_accuracy(by_prototype, labels),
            "val_knn_accuracy": float(np.mean(by_neighbours == labels)),
            "val_knn_balanced": balanced_accuracy(by_neighbours, labels),
            "val_class_spread": class_spread(features, labels),
            **rank,
        }


def knn_vote(
    features: np.ndarray, support: np.ndarray, labels: np.ndarray, num_classes: int, neighbours: int = KNN_K
) -> np.ndarray:
    """(n, dim) features, (m, dim) support with labels (m,) or (m, 1) -> labels (n,): vote of the most similar (cosine).

    Of classes with as many votes, the first. Memory: of a thousand images at a time.
    """
    labels = checked_labels(labels)
    unit, unit_support = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (features, support))
    k = min(neighbours, len(support))

    def vote(block: np.ndarray) -> np.ndarray:
        nearest = np.argpartition(-(block @ unit_support.T), k - 1, axis=1)[:, :k]
        places = labels[nearest] + num_classes * np.arange(len(block))[:, None]
        return np.bincount(places.ravel(), minlength=len(block) * num_classes).reshape(-1, num_classes).argmax(axis=1)

    return np.concatenate([vote(unit[start : start + BLOCK]) for start in range(0, len(unit), BLOCK)])


def class_spread(features: np.ndarray, labels: np.ndarray) -> float:
    """Within-class divided by between-class variance of (n, dim) features: 0 when classes are points.

    Labels: (n,) or (n, 1). Infinite (NaN if all features are equal) when all class means are equal. NaN where no class
    has two images: nothing is within one.
    """
    labels, mean = checked_labels(labels), features.mean(axis=0)
    if len(np.unique(labels)) == len(labels):
        return float("nan")
    within = between = 0.0
    for k in np.unique(labels):
        members = features[labels == k].astype("float64")
        within += np.square(members - members.mean(axis=0)).sum()
        between += len(members) * np.square(members.mean(axis=0) - mean).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.float64(within) / np.float64(between))


def effective_rank(embeddings: np.ndarray) -> float:
    """Exponential of the entropy of the singular values of (n, dim) embeddings (Roy & Vetterli 2007): 1..min(n, dim).

    Not centred, as in RankMe (Garrido et al. 2023): embeddings that are all alike have rank 1. All zero: 0; not finite:
    NaN.
    """
    if not np.isfinite(embeddings).all():
        return float("nan")
    values = np.linalg.svd(np.asarray(embeddings, "float64"), compute_uv=False)
    if not values.sum() > 0:
        return 0.0
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))
