"""`python main.py pretrain`: pre-train an encoder and keep it as a run."""

from dataclasses import replace
from typing import Any

from prl_keras.commands.common import check_training, run_argument
from prl_keras.config import Pretrain
from prl_keras.data import Dataset
from prl_keras.data.request import data_request, open_data
from prl_keras.data.seen import record_seen
from prl_keras.data.stl10 import load_unlabelled, unlabelled_sha256
from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.runs import Run
from prl_keras.runs.lifecycle import check_name, start_run
from prl_keras.runs.locks import working_on
from prl_keras.screen.console import console, in_words, print_end
from prl_keras.startup import start_keras


def run(options: Pretrain) -> None:
    check_name("pretrain", options)
    request = data_request(options, options.seed)
    dataset = open_data(request)
    images, labels = _training_images(options, dataset, request)
    check_training(options, len(labels), whole_batches=True)

    start_keras(options.seed, options.precision, options.deterministic)
    from prl_keras.data.batches import Batches
    from prl_keras.training import outlook, recipes

    pretrainer = recipes.build_pretrainer(options, dataset.image_shape, dataset.num_classes)
    batches = Batches(images, labels, options.batch_size, options.seed, drop_remainder=True)
    ahead = outlook.expected(pretrainer.embedding_loss, batches, options.epochs, options.projection_dim)
    warning = outlook.check(ahead, options.variant, options.batch_size, len(labels))
    if options.distance == "cosine":  # what None means has changed: an unfinished run of before is another one
        options = replace(options, temperature=recipes.temperature(options))
    inputs = {"unlabelled_sha256": unlabelled_sha256(request["data_dir"])} if options.unlabelled else None
    run = start_run("pretrain", options, f"{options.variant}-{dataset.label}", request, dataset, inputs)
    with working_on(run):
        record_seen(run, images)
        if warning:
            console.print(warning)
        validation = _train(pretrainer, batches, ahead, dataset, options, run)
        _finish(pretrainer, validation, run, options)


def _training_images(options: Pretrain, dataset: Dataset, request: dict[str, Any]) -> tuple[Any, Any]:
    if not options.unlabelled:
        return dataset.train.images, dataset.train.labels
    import numpy as np

    if options.variant != "simclr":
        raise InputError(f"--unlabelled needs --variant simclr: {options.variant} learns from labels")
    if dataset.name != "stl10" or request["data_dir"] is None:
        raise InputError("--unlabelled needs --dataset stl10 with --data-dir: its binary files hold these images")
    images = load_unlabelled(request["data_dir"], request["image_size"])
    return images, np.full(len(images), -1)


def _train(pretrainer: Any, batches: Any, ahead: Any, dataset: Dataset, options: Pretrain, run: Run) -> dict[str, Any]:
    """Train; return what the monitor says of the encoder that will be saved."""
    from prl_keras.data.batches import Batches
    from prl_keras.evaluation.statistics import accuracy
    from prl_keras.training import outlook
    from prl_keras.training.average import adam, recalibrate_batch_norm
    from prl_keras.training.callbacks import finite
    from prl_keras.training.fit import fit
    from prl_keras.training.monitor import RepresentationMonitor
    from prl_keras.training.tensorboard import log_views

    train, validation = dataset.train, dataset.validation
    # of the same size, where there are as many images, and whole: only so is the loss comparable to that of training
    size = min(options.batch_size, len(validation))
    val_batches = Batches(validation.images, validation.labels, size, options.seed, drop_remainder=True)
    constants = outlook.constants(
        ahead, outlook.expected(pretrainer.embedding_loss, val_batches, dim=options.projection_dim)
    )
    console.print(
        f"Pre-training {run.name}: {len(batches)} steps of {options.batch_size} images an epoch; "
        f"{outlook.in_words(ahead, options.variant)}"
    )
    if val_batches.images < len(validation):
        console.print(
            f"Validation loss: of whole batches, {val_batches.images:,} of {len(validation):,} images, the same each "
            "epoch; validation accuracies: of all"
        )
    monitor = RepresentationMonitor(
        pretrainer,
        (train.images, train.labels),
        (validation.images, validation.labels),
        dataset.num_classes,
    )
    if getattr(pretrainer.augmentation, "recipe", "none") != "none":
        log_views(run, pretrainer.augmentation, train.images[:12])
    pretrainer.compile(adam(options.learning_rate, len(batches) * options.epochs, options.average))
    fit(pretrainer, batches, options.epochs, run, val_batches, [monitor], constants, options.checkpoint_steps)
    if options.average:
        recalibrate_batch_norm(pretrainer.encoder, batches, pretrainer.augmentation)
    figures = {key: finite(value) for key, value in monitor.figures().items()}
    return figures | {"val_prototype": accuracy(*monitor.answers)}


def _finish(pretrainer: Any, validation: dict[str, Any], run: Run, options: Pretrain) -> None:
    from prl_keras.models.storage import copy_as, save_model, weights_sha256
    from prl_keras.training.fit import forget_checkpoints
    from prl_keras.visualization.figures import plot_training

    encoder = copy_as(pretrainer.encoder, "float32")
    save_model(encoder, run.encoder_file)
    last = run.metrics[-1]
    result = {
        "epochs": last["epoch"],
        "last_epoch": last,
        "saved_encoder": validation,
        "seconds": round(sum(line["seconds"] for line in run.metrics), 1),
        "encoder_sha256": weights_sha256(encoder),
    }
    write_json(run.path / "result.json", result)
    forget_checkpoints(run)
    names = {"chance": "chance_loss", "at best about": "least_loss"}
    beside = ", ".join(f"{name} {last[key]:.3f}" for name, key in names.items() if last.get(key) is not None)
    loss = "unknown" if last["loss"] is None else f"{last['loss']:.3f}"
    console.print(
        f"\nFinished {run.name} in {result['seconds']:.0f} s of training: loss {loss}"
        f"{f' ({beside})' if beside else ''}, validation accuracy with the nearest prototype "
        f"{in_words(validation['val_prototype'], run.part('data')['class_names'])}"
    )
    figure = plot_training(run)
    reference = run_argument(run, options.runs_dir)
    print_end(
        [run.encoder_file, figure, run.path / "metrics.jsonl"],
        [
            f"python main.py visualize {reference} --before",
            f"python main.py evaluate {reference}",
            f"python main.py finetune --encoder {reference} --head linear --freeze",
        ],
    )
