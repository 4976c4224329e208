"""Run by test_strategy.py in a process of its own, as logical devices are made before TensorFlow starts: the same batch
on one and on several replicas. Prints one JSON object."""

import json
import sys
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from prl_keras.config import Finetune
from prl_keras.data.batches import Batches
from prl_keras.losses import CrossViewLoss, NTXentLoss, PrototypicalLoss, SupervisedContrastiveLoss
from prl_keras.models.batch_norm import FusedBatchNormalization
from prl_keras.models.layer_types import FAST
from prl_keras.runs.interruption import StopRequest
from prl_keras.strategies import logical_devices, mirrored, multiworker
from prl_keras.training.adam import FusedAdam
from prl_keras.training.finetuning import augmented, compile_classifier
from prl_keras.training.fit import create_variables
from prl_keras.training.pretrain import PrototypicalPretrainer
from prl_keras.training.workers import fit_on_workers, of_workers

BATCH, CLASSES, SIDE, RATE = 32, 5, 8, 1e-3
LOSSES = {
    "query": PrototypicalLoss(CLASSES, "query", label_smoothing=0.1),
    "standard": PrototypicalLoss(CLASSES, "standard", "squared", 2.0),
    "loo": PrototypicalLoss(CLASSES, "loo", "cosine", 0.1),
    "simclr": NTXentLoss(0.2, label_smoothing=0.1),
    "supcon": SupervisedContrastiveLoss(0.2),
    "views": CrossViewLoss(CLASSES),
}


def network(batch_norm: bool, activation: str = "relu") -> keras.Model:
    """Raw images -> embeddings, with the layers that training uses."""
    keras.utils.set_random_seed(1)
    x = images = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255)(x)
    for filters in (8, 16):
        x = FAST.convolution(filters, 3, padding="same", use_bias=False)(x)
        x = FAST.batch_norm(momentum=0.9, epsilon=1e-5)(x) if batch_norm else x
        x = layers.Activation(activation)(x)
    return keras.Model(images, layers.Dense(8)(layers.GlobalAveragePooling2D()(x)))


def batch(count: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    """A query of class 4 has no support, one of class 3 is alone: neither may depend on the replicas."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    labels[[3, -1]], labels[-2] = 3, 4
    colours = rng.integers(0, 200, (count, 1, 1, 3))  # noise alone has embeddings of one direction
    return (colours + rng.integers(0, 56, (count, SIDE, SIDE, 3))).astype("uint8"), labels


def losses_and_gradients(
    strategy: tf.distribute.Strategy, batch_norm: bool, names: list[str]
) -> dict[str, tuple[float, np.ndarray]]:
    with strategy.scope():
        model = network(batch_norm)
    images, labels = batch()
    replicas = strategy.num_replicas_in_sync

    def step(images: tf.Tensor, labels: tf.Tensor) -> dict:
        answers = {}
        with tf.GradientTape(persistent=True) as tape:
            embeddings = model(images, training=True)
            for name in names:
                two_views = name in ("simclr", "supcon", "views")
                views = tf.concat([embeddings, -0.5 * embeddings + 0.1], 0) if two_views else embeddings
                answers[name] = LOSSES[name](tf.concat([labels, labels], 0) if two_views else labels, views)
        return {name: (loss, tape.gradient(loss, model.trainable_variables)) for name, loss in answers.items()}

    def slices(values: np.ndarray) -> tf.Tensor:
        parts = np.split(values, replicas)
        return strategy.experimental_distribute_values_from_function(
            lambda replica: tf.constant(parts[replica.replica_id_in_sync_group])
        )

    data = slices(images), slices(labels)
    found = tf.function(lambda images, labels: strategy.run(step, (images, labels)), autograph=False)(*data)

    def summed(values: tf.Tensor) -> np.ndarray:
        return strategy.reduce("SUM", values, axis=None).numpy().ravel()

    answers = {}
    for name, (loss, gradients) in found.items():
        answers[name] = float(summed(loss)[0]), np.concatenate([summed(gradient) for gradient in gradients])
    statistics = [keras.ops.convert_to_numpy(variable) for variable in model.non_trainable_variables]
    answers["statistics"] = 1.0, np.concatenate([*statistics, [1.0]])
    return answers


def differences(found: dict, expected: dict) -> dict[str, tuple[float, float]]:
    """Relative, of each loss and of its gradient to the longest component of the whole gradient: some are 0."""
    return {
        name: (
            abs(found[name][0] - loss) / loss,
            float(np.abs(found[name][1] - gradient).max() / np.abs(gradient).max()),
        )
        for name, (loss, gradient) in expected.items()
    }


def equality(replicas: list[int], networks: tuple[bool, ...], names: list[str]) -> dict[str, tuple[float, float]]:
    answers = {}
    for batch_norm in networks:
        expected = losses_and_gradients(tf.distribute.get_strategy(), batch_norm, names)
        for count in replicas:
            found = losses_and_gradients(mirrored(count), batch_norm, names)
            for name, pair in differences(found, expected).items():
                answers[f"{name}, {count} replicas, {'with' if batch_norm else 'without'} batch norm"] = pair
    return answers


def equality_of_workers() -> dict[str, tuple[float, float]]:
    """This process is one of TF_CONFIG's workers."""
    strategies = multiworker(), tf.distribute.get_strategy()  # the first before TensorFlow's first operation
    answers = {}
    for batch_norm in (False, True):
        both = (losses_and_gradients(strategy, batch_norm, list(LOSSES)) for strategy in strategies)
        answers |= {f"{name}, batch norm {batch_norm}": pair for name, pair in differences(*both).items()}
    return answers


def trained(
    strategy: tf.distribute.Strategy,
    optimizer: Callable[[], keras.optimizers.Optimizer],
    batch_norm: bool,
    steps: int,
) -> tuple[list[np.ndarray], keras.Model]:
    """Weights after so many steps, each on another batch, of `fit` or of the loop of several processes."""
    with strategy.scope():
        encoder = network(batch_norm, "silu")  # a ReLU's gradient jumps where rounding decides (docs/scaling.md)
        head = keras.Sequential([keras.Input((8,)), layers.Dense(8)])
        model = PrototypicalPretrainer(encoder, head, PrototypicalLoss(CLASSES, "query"))
        model.build((None, SIDE, SIDE, 3))
        model.compile(optimizer())
    batches = Batches(*batch(BATCH * steps), BATCH, seed=0)
    if of_workers(model):
        create_variables(model, batches)
        fit_on_workers(model, batches, 1, 0, [], StopRequest(), StopRequest())
    else:
        model.fit(batches, shuffle=False, verbose=0)
    return [keras.ops.convert_to_numpy(weight) for weight in model.trainable_variables], model


def local_statistics(replicas: int) -> dict[str, tuple[float, float]]:
    """Largest differences of a layer with statistics of each replica's own rows from NumPy: outputs, moving ones."""
    strategy, rng = mirrored(replicas), np.random.default_rng(3)
    parts = [rng.normal(r, 1 + r, (6, 4, 4, 3)).astype("float32") for r in range(replicas)]
    with strategy.scope():
        layer = FusedBatchNormalization(momentum=0.9, epsilon=1e-5)
        layer.build((None, 4, 4, 3))
    layer.local_statistics = True
    values = strategy.experimental_distribute_values_from_function(
        lambda r: tf.constant(parts[r.replica_id_in_sync_group])
    )
    found = tf.function(lambda x: strategy.run(lambda x: layer(x, training=True), (x,)), autograph=False)(values)
    means, variances = (np.array([measure(part, axis=(0, 1, 2)) for part in parts]) for measure in (np.mean, np.var))
    expected = [(parts[r] - means[r]) / np.sqrt(variances[r] + 1e-5) for r in range(replicas)]
    moving = (0.1 * means.mean(axis=0), layer.moving_mean), (0.9 + 0.1 * variances.mean(axis=0), layer.moving_variance)
    outputs = (np.abs(a - b).max() for a, b in zip(strategy.experimental_local_results(found), expected, strict=True))
    return {
        f"local batch norm, {replicas} replicas": (
            float(max(outputs)),
            float(max(np.abs(want - keras.ops.convert_to_numpy(got)).max() for want, got in moving)),
        )
    }


def classified(replicas: int, smoothing: float) -> tuple[dict, list[np.ndarray]]:
    """Figures and weights of two epochs of SGD; the last batches have 13 images. On one device, by Keras's own step."""
    options = Finetune(augment="none", label_smoothing=smoothing)
    with (mirrored(replicas) if replicas > 1 else tf.distribute.get_strategy()).scope():
        classifier = keras.Sequential([network(True), layers.Dense(CLASSES, name="logits")])
        classifier.build((None, SIDE, SIDE, 3))
    trained = augmented(classifier, (SIDE, SIDE, 3), options)
    with trained.distribute_strategy.scope():
        compile_classifier(trained, options, 6)
        trained.optimizer = keras.optimizers.SGD(0.05)
    history = trained.fit(Batches(*batch(45), 16, seed=0), epochs=2, shuffle=False, verbose=0).history
    return history, [keras.ops.convert_to_numpy(weight) for weight in classifier.weights]


def classifiers(counts: list[int]) -> dict[str, tuple[float, float]]:
    """Largest differences of a figure and of a weight from one device; accuracy has to be exact."""
    answers = {}
    for smoothing in (0.0, 0.1):
        figures, weights = classified(1, smoothing)
        for count in counts:
            found, others = classified(count, smoothing)
            exact = found["accuracy"] == figures["accuracy"]
            loss = max(abs(a - b) for a, b in zip(found["loss"], figures["loss"], strict=True))
            weight = max(float(np.abs(a - b).max()) for a, b in zip(weights, others, strict=True))
            answers[f"classifier, smoothing {smoothing}, {count} replicas"] = loss if exact else 1.0, weight
    return answers


def workers_after_twenty_steps() -> dict[str, float]:
    """As `after_twenty_steps`, of TF_CONFIG's workers with the loop that trains them."""
    strategies = multiworker(), tf.distribute.get_strategy()  # the first before TensorFlow's first operation
    two, one = (trained(strategy, lambda: keras.optimizers.SGD(0.05), True, 20)[0] for strategy in strategies)
    return {"SGD": max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))}


def after_twenty_steps() -> dict[str, float]:
    """Largest difference of a weight between one replica and two."""
    answers = {}
    for name, make in {
        "SGD": lambda: keras.optimizers.SGD(0.05),
        "Adam": lambda: FusedAdam(RATE),
        "Adam, epsilon 1e-3": lambda: FusedAdam(RATE, epsilon=1e-3),
    }.items():
        one, two = (trained(each, make, True, 20)[0] for each in (tf.distribute.get_strategy(), mirrored(2)))
        answers[name] = max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))
    return answers


CASES = {
    "workers": equality_of_workers,
    "steps": after_twenty_steps,
    "worker steps": workers_after_twenty_steps,
    "quick": lambda: equality([2], (False, True), list(LOSSES)) | local_statistics(2),
    "all": lambda: equality([4, 2], (False, True), list(LOSSES)) | local_statistics(4),
    "classifiers": lambda: classifiers([4, 2]),
}

if __name__ == "__main__":
    if not sys.argv[1].startswith("worker"):
        logical_devices(4)
    print(json.dumps(CASES[sys.argv[1]]()))
