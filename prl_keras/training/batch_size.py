"""How large a batch is, and how many classes it has, where nobody said so and the recipe's does not fit the data."""

from dataclasses import replace

import numpy as np

from prl_keras.config import Pretrain
from prl_keras.recipes import PROTOTYPES

FEWEST_BATCHES = 4  # an epoch
_FEW = 2  # images of each class: of fewer, a quarter of the queries and more find none of their own
_EACH = 4  # images of a class that make a prototype worth the name, the query included


def fitted(options: Pretrain, labels: np.ndarray) -> tuple[Pretrain, str | None]:
    """The options with a batch that fits the data, and one line if that is another than the recipe's.

    The size becomes the largest power of two that leaves four batches an epoch, if the recipe's leaves fewer. Where
    prototypes are those of the batch, and it has fewer than two images a class, it gets fewer classes, with four
    images each, instead of queries that nothing can answer; where a batch would have more images of a class than most
    classes have, it gets more classes. Who gives a size gets that one, of images as they come.

    Args:
        labels: (n,) of the images that are trained on.
    """
    size, classes = options.batch_size, options.classes_per_batch
    if "batch_size" in options.given:
        return options, None
    if len(labels) // size < FEWEST_BATCHES:
        size = 1 << max(1, (len(labels) // FEWEST_BATCHES).bit_length() - 1)
    _, counts = np.unique(labels, return_counts=True)
    of_the_batch = options.variant in (*PROTOTYPES, "views") and "classes_per_batch" not in options.given
    few = size < _FEW * min(classes or len(counts), len(counts))
    if of_the_batch and few and counts.min() >= _EACH and size >= 2 * _EACH:
        classes = size // _EACH
    typical = max(_FEW, int(np.median(counts)))
    more = classes and classes < len(counts) and "classes_per_batch" not in options.given
    if more and size // classes > typical:
        classes = size // typical
    if classes:
        size = max(size // (each := min(classes, len(counts))), 1) * each
    if (size, classes) == (options.batch_size, options.classes_per_batch):
        return options, None
    found = replace(options, batch_size=size, classes_per_batch=classes)
    object.__setattr__(found, "given", options.given)  # these two were not
    shared = "" if classes == options.classes_per_batch else f" of {classes} classes"
    return found, f"Batches: {size} images{shared}, to fit {len(labels):,} training images"
