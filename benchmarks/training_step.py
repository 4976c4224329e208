"""Images per second of one training step: layer classes, stem, precision. Alternating, median of ratios.

    python benchmarks/training_step.py docs/results/training_step.json

Each variant is timed in turn within one round, and a ratio is taken within its round: absolute speeds drift
on a shared machine, ratios do not.
"""

import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from prl_keras.startup import start_keras

start_keras(0)

import keras
import numpy as np

from prl_keras.losses import PrototypicalLoss
from prl_keras.models import projection_head, resnet18
from prl_keras.models.batch_norm import FusedBatchNormalization
from prl_keras.models.layer_types import FAST, STOCK, LayerTypes
from prl_keras.training.average import adam
from prl_keras.training.pretrain import PrototypicalPretrainer

FUSED = LayerTypes(keras.layers.Conv2D, FusedBatchNormalization)
# name -> (image size, batch, stem, layer classes, precision); the first of a group is its reference
GROUPS = {
    "28 px": {
        "Keras's layers": (28, 256, "small", STOCK, "float32"),
        "fused batch normalisation": (28, 256, "small", FUSED, "float32"),
        "and small maps as matrices": (28, 256, "small", FAST, "float32"),
        "the same, imagenet stem": (28, 256, "imagenet", FAST, "float32"),
        "the same, bfloat16": (28, 256, "small", FAST, "mixed_bfloat16"),
    },
    "96 px": {
        "Keras's layers": (96, 64, "imagenet", STOCK, "float32"),
        "fast layers": (96, 64, "imagenet", FAST, "float32"),
        "fast layers, bfloat16": (96, 64, "imagenet", FAST, "mixed_bfloat16"),
    },
}
ROUNDS = 10


def build(size: int, batch: int, stem: str, layer_types: LayerTypes, precision: str) -> tuple:
    keras.mixed_precision.set_global_policy(precision)
    encoder = resnet18((size, size, 3), stem, layer_types=layer_types)
    model = PrototypicalPretrainer(encoder, projection_head(), PrototypicalLoss(10))
    model.compile(adam(1e-3, 1000, average=True))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    return model, images, rng.integers(0, 10, batch)


def measure(variants: dict[str, tuple]) -> dict[str, dict[str, float]]:
    built = {name: build(*settings) for name, settings in variants.items()}
    seconds = {name: [] for name in variants}
    for round_number in range(ROUNDS + 2):
        for name, (model, images, labels) in built.items():
            started = time.perf_counter()
            model.train_on_batch(images, labels)
            if round_number >= 2:  # tracing, then caches
                seconds[name].append(time.perf_counter() - started)
    reference = seconds[next(iter(variants))]
    return {
        name: {
            "images_per_second": round(variants[name][1] / statistics.median(times), 1),
            "speed_ratio_to_first": round(statistics.median(r / t for r, t in zip(reference, times, strict=True)), 3),
        }
        for name, times in seconds.items()
    }


if __name__ == "__main__":
    results = {group: measure(variants) for group, variants in GROUPS.items()}
    text = json.dumps(results, indent=2)
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
