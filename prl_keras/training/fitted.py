"""How large a batch is, how many classes it has, and how long a training is, where nobody said so and the recipe's does
not fit the data."""

import math
from typing import Any

import numpy as np

from prl_keras.config import Baseline, Finetune, Pretrain, changed
from prl_keras.recipes import MOST_EPOCHS, PROTOTYPES, RECIPES, VIEWS

FEWEST_BATCHES = 4  # an epoch
_FEW = 2  # images of each class in a batch: of fewer, a quarter of the queries and more find none of their own
_EACH = 4  # images of a class that make a prototype worth the name, the query included


def fitted(options: Pretrain | Finetune | Baseline, labels: np.ndarray) -> tuple[Any, str | None]:
    """The options as they fit the data, and one line if that is something else than the recipe's.

    The batch of a pre-training, or of a baseline whose recipe has `least_images`, becomes the largest power of two
    that leaves four batches an epoch, if the recipe's leaves fewer: rivals get as many steps. Where prototypes are
    those of the batch, and it has fewer than two images a class, it gets fewer classes, with four images each (two,
    if most classes have no four), instead of queries that nothing can answer; SupCon likewise, with as many images
    as most classes have, four at most, instead of anchors that find no other of their class. Where a batch would
    have more images of a class than most classes have, it gets more classes. Who gives a size gets that one, of as many
    of the recipe's classes, at least half of them, as share it equally; who gives classes gets two images of each at
    least.

    Epochs become as many as the recipe's `least_images` ask for.

    Args:
        labels: (n,) of the images that are trained on.
    """
    found = {"epochs": _epochs(options, len(labels))}
    if isinstance(options, Pretrain):
        found |= _batch(options, labels)
    elif isinstance(options, Baseline) and RECIPES[options.recipe][options.kind].least_images:
        found["batch_size"] = _size(options, len(labels))
    other = {name: value for name, value in found.items() if value != getattr(options, name)}
    if not other:
        return options, None
    told = []
    if "batch_size" in other or "classes_per_batch" in other:
        of_classes = f" of {found['classes_per_batch']} classes" if other.get("classes_per_batch") else ""
        told.append(f"batches of {found['batch_size']} images{of_classes}")
    if "epochs" in other:
        told.append(f"{found['epochs']} epochs")
    return changed(options, **other), f"To fit {len(labels):,} training images: {', '.join(told)}"


def _epochs(options: Pretrain | Finetune | Baseline, images: int) -> int:
    views = 2 if options.kind in VIEWS else 1
    least = RECIPES[options.recipe][options.kind].least_images / views
    if "epochs" in options.given or not images:
        return options.epochs
    return max(options.epochs, min(MOST_EPOCHS // views, math.ceil(least / images)))


def _size(options: Pretrain | Baseline, images: int) -> int:
    if "batch_size" in options.given or images // options.batch_size >= FEWEST_BATCHES:
        return options.batch_size
    return 1 << max(1, (images // FEWEST_BATCHES).bit_length() - 1)


def _batch(options: Pretrain, labels: np.ndarray) -> dict[str, int | None]:
    size, classes = _size(options, len(labels)), options.classes_per_batch
    _, counts = np.unique(labels, return_counts=True)
    least = _FEW if options.variant in (*PROTOTYPES, "views", "supcon") else 1
    if "batch_size" in options.given:
        some = min(classes or 0, len(counts))
        if "classes_per_batch" in options.given or not some or size % some == 0:
            return {}
        least = max(least, size / some)
        most = min(2 * size / some, np.median(counts))  # images of a class
        shared = [number for number in range(2, some) if size % number == 0 and least <= size // number <= most]
        return {"batch_size": size, "classes_per_batch": shared[-1]} if shared else {}
    if "classes_per_batch" in options.given:
        if classes < 1:  # is refused later, by its name
            return {}
        some = min(classes, len(counts))
        each = max(size // some, min(least, len(labels) // some), 1)
        return {"batch_size": some * each, "classes_per_batch": classes}
    few = least > 1 and size < least * min(classes or len(counts), len(counts))
    typical = max(_FEW, int(np.median(counts)))
    each = _EACH if min(size // 2, typical) >= _EACH else _FEW
    if few and options.variant != "supcon" and size >= 2 * each and counts.min() >= each:
        classes = size // each
    if few and options.variant == "supcon" and size >= 2 * _EACH and np.median(counts) >= _FEW:
        classes = size // min(typical, _EACH)
    if classes and classes < len(counts) and size // classes > typical:
        classes = size // typical
    if classes:
        size = max(size // (some := min(classes, len(counts))), 1) * some
    return {"batch_size": size, "classes_per_batch": classes}
