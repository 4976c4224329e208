"""Accuracy on 10,000 training images that fashion_500 leaves unused, for choices that must not touch the test set.

    python benchmarks/development_set.py --stem imagenet --seed 1 --no-average

Pre-trains as `python main.py pretrain --dataset fashion_500`, trains a linear head on frozen features, and prints the
accuracy of both the last step's weights and, unless --no-average, of the average that the program would save.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from prl_keras.startup import start_keras

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--variant", default="query")
parser.add_argument("--stem", default="small")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=25)
parser.add_argument("--average", action=argparse.BooleanOptionalAction, default=True)
arguments = parser.parse_args()
start_keras(arguments.seed)

import keras

from prl_keras.config import Pretrain
from prl_keras.data import Split, load_dataset
from prl_keras.data.batches import Batches
from prl_keras.data.fashion import development_set
from prl_keras.evaluation.statistics import accuracy
from prl_keras.models import classification_head
from prl_keras.models.encode import encode
from prl_keras.training.average import adam, recalibrate_batch_norm
from prl_keras.training.build import build_pretrainer
from prl_keras.training.callbacks import EpochOrder


def measure(encoder: keras.Model, train: Split, development: Split, seed: int) -> dict:
    keras.utils.set_random_seed(seed)
    head = classification_head("linear", 10)
    head.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    head.fit(encode(encoder, train.images), train.labels, batch_size=128, epochs=25, verbose=0)
    return accuracy(encode(head, encode(encoder, development.images)).argmax(axis=-1), development.labels)


def main() -> None:
    options = Pretrain(**vars(arguments))
    data = load_dataset("fashion_500", seed=options.seed)
    development = development_set()
    pretrainer = build_pretrainer(options, data.image_shape, data.num_classes)
    batches = Batches(data.train.images, data.train.labels, options.batch_size, options.seed, drop_remainder=True)
    pretrainer.compile(adam(options.learning_rate, len(batches) * options.epochs, options.average))
    last_step = []

    class KeepLastStep(keras.callbacks.Callback):
        """`fit` replaces the weights by their average after the last epoch's end."""

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            last_step[:] = pretrainer.encoder.get_weights()

    callbacks = [EpochOrder(batches), KeepLastStep()]
    pretrainer.fit(batches, epochs=options.epochs, shuffle=False, verbose=2, callbacks=callbacks)
    found = {}
    if options.average:
        recalibrate_batch_norm(pretrainer.encoder, batches, pretrainer.augmentation)
        found["average"] = measure(pretrainer.encoder, data.train, development, options.seed)
    pretrainer.encoder.set_weights(last_step)
    found["last step"] = measure(pretrainer.encoder, data.train, development, options.seed)
    print(json.dumps({**vars(arguments), **found}))


main()
