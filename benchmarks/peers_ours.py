"""Our steps, those of plain Keras layers, and `fit` with all that is around it; a worker of benchmarks/peers.py."""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from peers_worker import CLASSES, TEMPERATURES, TWO_VIEWS, best_rate, embedded, made_up, serve

SPOIL = 0.3  # of weights that are 0 or 1 at first: a mistake there must show


def pretrainer(
    size: int,
    batch: int,
    stem: str,
    variant: str,
    stock: bool = False,
    augment: str = "none",
    total: int = 1000,
    classes: int = CLASSES,
) -> Any:
    """As `prl_keras.training.build` makes it, but also of Keras's own layers, and of two views without augmentation."""
    from prl_keras.config import Pretrain
    from prl_keras.data.augment import augmentation
    from prl_keras.models import projection_head
    from prl_keras.models.layer_types import FAST, STOCK
    from prl_keras.training.build import KINDS, Parts, build_encoder

    options = Pretrain(variant=variant, stem=stem, width=1.0, temperature=TEMPERATURES.get(variant))
    encoder = build_encoder(options, (size, size, 3), STOCK if stock else FAST)
    augmenting = augmentation(augment, (size, size), 0)
    labels = made_up(size, batch, classes)[1]
    head = projection_head(options.projection_dim, input_dim=encoder.output_shape[-1], neck=options.neck)
    model = KINDS[variant].assemble(Parts(options, encoder, head, augmenting, classes, labels, total))
    model.build((None, size, size, 3))
    return model


def step(
    size: int,
    batch: int,
    stem: str,
    variant: str,
    stock: bool = False,
    average: bool = False,
    precision: str = "float32",
    augment: str = "none",
    classes: int = CLASSES,
) -> tuple[Callable[[], None], dict[str, Any]]:
    """A training step, from uint8 images in NumPy to the numbers of loss and accuracy."""
    import keras

    from prl_keras.data.batches import Batches
    from prl_keras.training.average import adam

    keras.mixed_precision.set_global_policy(precision)
    keras.utils.set_random_seed(0)
    model = pretrainer(size, batch, stem, variant, stock, augment, classes=classes)
    model.compile(keras.optimizers.Adam(1e-3) if stock else adam(1e-3, 1000, average))
    images, labels = Batches(*made_up(size, batch, classes), batch, 0, with_rows=model.takes_rows)[0]
    encoded = 2 if variant in TWO_VIEWS else 1
    facts = {"multiply_adds_a_step": 3 * encoded * batch * multiply_adds_of(model.encoder, model.projection_head)}

    def one() -> None:
        model.train_on_batch(images, labels)

    return one, facts


def multiply_adds_of(*models: Any) -> int:
    """Of one image on its way forward, in convolutions and dense layers; those with padding count too."""
    layers = [layer for model in models for layer in model.layers if hasattr(layer, "kernel")]
    return sum(multiply_adds(tuple(layer.kernel.shape), tuple(layer.output.shape)) for layer in layers)


def multiply_adds(kernel: tuple[int, ...], output: tuple[int | None, ...]) -> int:
    """Each position of the output, (batch, ..., channels), takes the whole kernel once."""
    return int(np.prod(kernel) * np.prod(output[1:-1], dtype=int))


def loss(variant: str, batch: int, classes: int) -> tuple[Callable[[], None], dict[str, Any]]:
    """Value and gradient of a loss alone, as a part of a traced step."""
    import tensorflow as tf

    values, labels = (tf.constant(part) for part in embedded(batch, classes))
    of = loss_of(variant, classes)

    @tf.function
    def value_and_gradient(embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = of(labels, embeddings)
        return value, tape.gradient(value, embeddings)

    def one() -> None:
        value_and_gradient(values)[1][0, 0].numpy()

    return one, {}


def loss_of(variant: str, classes: int) -> Any:
    from prl_keras.losses import NTXentLoss, PrototypicalLoss, SupervisedContrastiveLoss

    contrastive = {"simclr": NTXentLoss, "supcon": SupervisedContrastiveLoss}.get(variant)
    return contrastive(TEMPERATURES[variant]) if contrastive else PrototypicalLoss(classes, variant)


def gradients(file: str, size: int, batch: int, stem: str, variant: str, dtype: str) -> float:
    """Loss of made-up images; writes weights and images, and beside them the gradients, by names of layers.

    float32: of the layers that train; float64: of plain Keras layers, which have it.
    """
    import keras
    import tensorflow as tf

    keras.mixed_precision.set_global_policy(dtype)
    keras.utils.set_random_seed(1)
    model = pretrainer(size, batch, stem, variant, stock=dtype == "float64")
    rng = np.random.default_rng(2)
    named = {}
    for layer in [*model.encoder.layers, *model.projection_head.layers]:
        for variable in layer.trainable_variables:
            if len(variable.shape) == 1:
                variable.assign(variable + (SPOIL * rng.uniform(-1, 1, variable.shape)).astype(dtype))
            named[f"{layer.name}/{variable.name}"] = variable
    views = 2 if variant in TWO_VIEWS else 1
    images = made_up(size, batch * views)[0]
    labels = np.tile(np.arange(batch) if variant == "simclr" else made_up(size, batch)[1], views)
    with tf.GradientTape() as tape:
        value = model.embedding_loss(labels, model(images, training=True))
    found = tape.gradient(value, [variable.value for variable in named.values()])
    weights = {name: variable.numpy() for name, variable in named.items()}
    np.savez(f"{file}.npz", images=images, labels=labels, **weights)
    np.savez(f"{file}-ours.npz", **dict(zip(named, (part.numpy() for part in found), strict=True)))
    return float(value)


def epoch(
    size: int, batch: int, steps: int, work: str, variant: str, augment: str, precision: str = "float32"
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Seconds of an epoch.

    work: "bare", steps one after the other; "fit", with the program's callbacks; "writing", while the checkpoint of the
    epoch before is written; "validated", with validation as Keras does it; "monitored", with the monitor of every
    epoch, which validates by the way.

    Of `fit` the second ("writing") or third epoch counts, from the end of the epoch before to its own end, the copy for
    a checkpoint included: nothing that is done once is in it. After the first there is always a checkpoint, soon after
    it there is none.
    """
    import keras

    from prl_keras.data.batches import Batches
    from prl_keras.runs import create_run
    from prl_keras.training.average import adam
    from prl_keras.training.fit import fit
    from prl_keras.training.monitor import RepresentationMonitor

    keras.mixed_precision.set_global_policy(precision)
    keras.utils.set_random_seed(0)
    held_out = max(batch, batch * steps // 9)  # as 500 to 4,500 of fashion_500
    images, labels = made_up(size, batch * steps + held_out)
    batches = Batches(images[:-held_out], labels[:-held_out], batch, 0, drop_remainder=True)
    watched = Batches(images[-held_out:], labels[-held_out:], min(batch, held_out), 0, drop_remainder=True)
    model = pretrainer(size, batch, "small", variant, augment=augment)
    model.compile(adam(1e-3, 1000, average=True))
    both = (batches.inputs, batches.labels), (watched.inputs, watched.labels)
    monitor = RepresentationMonitor(model, *both, CLASSES, batches=watched)
    watch = {"validated": (watched, []), "monitored": (monitor.unjudged, [monitor])}
    validation, monitors = watch.get(work, (None, []))
    ends: list[float] = []
    stamp = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    stamp.adds = ()

    def bare() -> None:
        for number in range(len(batches)):
            model.train_on_batch(*batches[number])

    def fitted() -> float:
        ends.clear()
        with tempfile.TemporaryDirectory() as folder:
            run = create_run(Path(folder), "x", {"command": "pretrain"})
            fit(model, batches, 4, run, validation, [stamp, *monitors])
        number = 1 if work == "writing" else 2
        return ends[number] - ends[number - 1]

    return bare if work == "bare" else fitted, {}


def training(epochs: int, images: int, batch: int) -> dict[str, float]:
    """Seconds from the beginning of a fresh `fit` to the end of its first epoch, second, fourth ..."""
    import keras

    from prl_keras.data.batches import Batches
    from prl_keras.runs import create_run
    from prl_keras.training.average import adam
    from prl_keras.training.fit import fit

    model = pretrainer(28, batch, "small", "query")
    batches = Batches(*made_up(28, images), batch, 0, drop_remainder=True)
    model.compile(adam(1e-3, epochs * len(batches), average=True))
    ends: list[float] = []
    stamp = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    stamp.adds = ()
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder), "x", {"command": "pretrain"})
        begun = time.perf_counter()
        fit(model, batches, epochs, run, None, [stamp])
    return {str(number): ends[number - 1] - begun for number in (1, 2, 4, 8, 16, 32) if number <= epochs}


def matmul(dtype: str, sizes: list[int]) -> dict[str, float]:
    import tensorflow as tf

    def multiply(size: int) -> Callable[[], Any]:
        first = tf.cast(tf.random.uniform((size, size)), dtype)
        return lambda: tf.matmul(first, first)[0, 0].numpy()

    return best_rate(multiply, sizes)


def numpy_matmul(sizes: list[int]) -> dict[str, float]:
    def multiply(size: int) -> Callable[[], Any]:
        first = np.random.default_rng(0).random((size, size), np.float32)
        return lambda: first @ first

    return best_rate(multiply, sizes)


if __name__ == "__main__":
    from prl_keras.startup import start_keras

    start_keras(0)
    serve(
        {"step": step, "loss": loss, "epoch": epoch},
        {"gradients": gradients, "training": training, "matmul": matmul, "numpy_matmul": numpy_matmul},
    )
