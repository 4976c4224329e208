"""What a training can learn from its batches, told before it starts: how much of it, and what is chance."""

from collections import Counter

import keras
import numpy as np

from prl_keras.data.batches import Batches
from prl_keras.errors import InputError
from prl_keras.losses import Outlook
from prl_keras.recipes import VIEWS

ENOUGH = 200  # batches: the share of answerable queries is known to a percent or better
LITTLE = 0.75  # of the queries
NEAR_ZERO = 0.01  # of a least possible loss: not worth a word


def expected(loss: keras.losses.Loss, batches: Batches, epochs: int = 1, dim: int | None = None) -> Outlook:
    """The sum of `loss.outlook` over the training's own first batches, in their order; figures weighted as metrics are.

    accuracy: of a guess, or of always answering the most frequent class, whichever is higher: what embeddings without
    any sense get. Loss and accuracy are None where no embeddings stand for chance, or nothing can be answered.

    Args:
        dim: of the embeddings; None: as large as it need be.
    """
    seen: list[Outlook] = []
    for epoch in range(epochs):
        if len(seen) >= ENOUGH:
            break
        batches.epoch = epoch
        steps = range(min(len(batches), ENOUGH))
        seen += [loss.outlook(batches.labels[batches.rows(step)], dim) for step in steps]
    batches.epoch = 0
    answering = [each for each in seen if each.answerable]
    answered = sum(each.answerable for each in answering)

    def mean(values: list[float | None]) -> float | None:
        if not values or None in values:
            return None
        return float(np.average(values, weights=[each.answerable for each in answering]))

    loss, accuracy, least = (mean([each[i] for each in answering]) for i in (2, 3, 4))
    of_class = sum((Counter(each.of_class) for each in answering), Counter())
    if accuracy is not None and of_class:
        classes, counts = np.unique(batches.labels, return_counts=True)
        usual = np.mean([of_class[int(k)] for k in classes[counts == counts.max()]])
        accuracy = max(accuracy, float(usual) / answered)
    return Outlook(sum(each.queries for each in seen), answered, loss, accuracy, least or 0.0, dict(of_class))


def check(outlook: Outlook, variant: str, batch_size: int, images: int) -> str | None:
    """One line about a training that will learn from few of its images; None if there is nothing to say.

    Raises:
        InputError: it can learn from none.
    """
    if not outlook.queries:
        raise InputError(
            f"--batch-size {batch_size} leaves nothing to learn from: {variant} classifies a quarter of each batch "
            "by the rest of it; use --batch-size 4 or more"
        )
    share = outlook.answerable / outlook.queries
    if share >= LITTLE:
        return None
    what = f"in batches of {batch_size} of these {images:,} images"
    if not outlook.answerable:
        raise InputError(
            f"there is nothing to learn: {what} no image meets another of its class and one of a second class; "
            "use more images a class, a larger --batch-size, or --variant simclr"
        )
    lost = "are each their own prototype" if variant == "standard" else "cannot be classified"
    return (
        f"warning: {what} only {100 * share:.1f} % of those to be classified meet another of their class "
        f"and one of a second class, the others {lost} and teach little: use a larger --batch-size"
    )


def in_words(outlook: Outlook, variant: str) -> str:
    """What the loss and the accuracy in a batch are to be compared with."""
    if outlook.loss is None:
        text = "in a batch every image is part of its own prototype, which flatters loss and accuracy there"
    else:
        task = " at finding the other view" if variant in VIEWS else ""
        text = f"an encoder that tells nothing has loss {outlook.loss:.3f} and accuracy {outlook.accuracy:.3f}{task}"
    if outlook.least_loss >= NEAR_ZERO:
        text += f"; the least possible loss is about {outlook.least_loss:.3f}"
    return text


def constants(training: Outlook, validation: Outlook) -> dict[str, float | None]:
    """What every line of metrics.jsonl repeats; chance is another in validation, whose batches may be smaller."""
    values = {
        "chance_loss": training.loss,
        "chance_accuracy": training.accuracy,
        "chance_val_loss": validation.loss,
        "chance_val_accuracy": validation.accuracy,
        "least_loss": training.least_loss if training.least_loss >= NEAR_ZERO else None,
    }
    return {key: None if value is None else round(value, 6) for key, value in values.items()}
