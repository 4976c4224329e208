"""How much work a run of the table is, and how long this machine takes for it.

Work is counted in images by kind of step.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from prl_keras.config import Baseline, Finetune, Pretrain
from prl_keras.data import Dataset
from prl_keras.experiments.cells import Cell
from prl_keras.recipes import VIEWS
from prl_keras.training.looks import looked_at

# Time of an image of each kind, relative to a prototypical training step: until something was measured.
RELATIVE = {
    "prototypes": 1.0,
    "prototypes, augmented": 1.1,
    "two views": 2.3,
    "classifier": 1.0,
    "classifier, augmented": 1.1,
    "mlp": 0.25,
    "prototypes, strong": 0.8,
    "two views, strong": 1.2,
    "classifier, strong": 0.55,
    "encode": 0.25,
    "regression": 0.5,
}
WARM_UP, STEPS = 1, 3


def work(cell: Cell, dataset: Dataset) -> Counter[str]:
    """Kind of step -> images."""
    options, n = cell.options, len(dataset.train)
    everything = n + len(dataset.validation) + len(dataset.test)
    if cell.labels:
        return Counter({"encode": everything, "regression": 2 * n})
    looks = len(looked_at(options.epochs, each=getattr(options, "test_each_epoch", False)))
    if isinstance(options, Pretrain):
        images = options.epochs * (n // options.batch_size) * options.batch_size
        return Counter({_pretrain_kind(options): images, "encode": looks * len(dataset.validation)})
    if isinstance(options, Baseline) and options.model == "pca":
        return Counter({"regression": n})
    tests = everything + (options.epochs * len(dataset.test) if options.test_each_epoch else 0)
    if isinstance(options, Finetune) and options.freeze:
        return Counter({"encode": everything + n})
    if isinstance(options, Baseline) and options.model == "mlp":
        return Counter({"mlp": options.epochs * n + tests})
    kind = "classifier" if options.augment == "none" else "classifier, augmented"
    kind = "classifier, strong" if options.recipe != "paper" else kind
    return Counter({kind: options.epochs * n, "encode": tests + looks * len(dataset.validation)})


def relative(cell: Cell, dataset: Dataset) -> float:
    """One number for the progress display."""
    return sum(images * RELATIVE[kind] for kind, images in work(cell, dataset).items())


def _pretrain_kind(options: Pretrain) -> str:
    kind = "two views" if options.variant in VIEWS else "prototypes"
    if options.recipe != "paper":
        return f"{kind}, strong"
    if kind == "two views":
        return kind
    return "prototypes" if options.augment in (None, "none") else "prototypes, augmented"


def measure(cells: list[Cell], dataset: Dataset) -> dict[str, float]:
    """Seconds an image for every kind of step that the cells need: the median of three steps after a first one.

    Regressions are not measured but taken as a share of the rest (`RELATIVE`).
    """
    rates: dict[str, float] = {}
    for cell in cells:
        for kind in work(cell, dataset):
            if kind not in rates and kind not in ("encode", "regression"):
                rates[kind] = _seconds_an_image(cell.options, dataset)
    encoder = next((c.options for c in cells if isinstance(c.options, Pretrain)), None)
    if encoder is not None or any(isinstance(c.options, Baseline) for c in cells):
        rates["encode"] = _encode_seconds(encoder, dataset)
    reference = rates["encode"] / RELATIVE["encode"]
    return {kind: rates.get(kind, reference * share) for kind, share in RELATIVE.items()}


def _seconds_an_image(options: Pretrain | Finetune | Baseline, dataset: Dataset) -> float:
    if isinstance(options, Pretrain):
        from prl_keras.training.average import adam_of
        from prl_keras.training.pretraining import plan

        planned = plan(dataset, options)
        model = planned.pretrainer
        model.compile(adam_of(options, 100))
        inputs, labels = planned.batches[0]
    else:
        from prl_keras.models import build_classifier
        from prl_keras.training.build import build_encoder
        from prl_keras.training.finetuning import augmented, compile_classifier

        encoder = build_encoder(
            options if isinstance(options, Baseline) else Pretrain(recipe=options.recipe), dataset.image_shape
        )
        model = augmented(build_classifier(encoder, dataset.num_classes), dataset.image_shape, options)
        compile_classifier(model, options, 100)
        inputs, labels = (a[: options.batch_size] for a in (dataset.train.images, dataset.train.labels))
    return _timed(lambda: model.train_on_batch(inputs, labels), len(labels))


def _encode_seconds(options: Pretrain | None, dataset: Dataset) -> float:
    from prl_keras.models import resnet18

    encoder = resnet18(dataset.image_shape, options.stem if options else None)
    images = dataset.test.images[:250]
    return _timed(lambda: encoder.predict_on_batch(images), len(images))


def _timed(step: Callable[[], Any], images: int) -> float:
    seconds = []
    for _ in range(WARM_UP + STEPS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARM_UP:]) / images
