"""How large a batch is, and how many classes it has, where neither the user nor the data leave a recipe its own."""

from dataclasses import replace

import numpy as np

from prl_keras.config import Pretrain
from prl_keras.recipes import PROTOTYPES

FEWEST_BATCHES = 4  # an epoch
_EACH = 4  # images of a class that make a prototype worth the name, the query included


def fitted(options: Pretrain, labels: np.ndarray) -> tuple[Pretrain, str | None]:
    """The options with a batch that fits the data, and one line if that is another than the recipe's.

    The size becomes the largest power of two that leaves four batches an epoch, if the recipe's leaves fewer. Where
    prototypes are those of the batch, and it has fewer than four images a class, it gets fewer classes, with four
    images each, instead of queries that nothing can answer. What was given is not touched.

    Args:
        labels: (n,) of the images that are trained on.
    """
    size, classes = options.batch_size, options.classes_per_batch
    if "batch_size" not in options.given and len(labels) // size < FEWEST_BATCHES:
        size = 1 << max(1, (len(labels) // FEWEST_BATCHES).bit_length() - 1)
    _, counts = np.unique(labels, return_counts=True)
    if "classes_per_batch" not in options.given and options.variant in (*PROTOTYPES, "views"):
        wanted = min(classes or len(counts), len(counts))
        if size < _EACH * wanted and counts.min() >= _EACH and size >= 2 * _EACH:
            classes = size // _EACH
    if classes and "batch_size" not in options.given:
        size = max(size // (each := min(classes, len(counts))), 1) * each
    if (size, classes) == (options.batch_size, options.classes_per_batch):
        return options, None
    found = replace(options, batch_size=size, classes_per_batch=classes)
    object.__setattr__(found, "given", options.given)  # these two were not
    shared = "" if classes == options.classes_per_batch else f" of {classes} classes"
    return found, f"Batches: {size} images{shared}, to fit {len(labels):,} training images"
