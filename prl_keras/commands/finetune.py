"""`python main.py finetune` and `baseline`: train a classifier, test it once, keep it as a run."""

from typing import Any

from prl_keras.commands.common import (
    accuracy_table,
    check_name,
    check_training,
    console,
    data_request,
    data_request_of_run,
    open_data,
    print_end,
    run_argument,
    start_run,
)
from prl_keras.config import Baseline, Finetune
from prl_keras.data import Dataset
from prl_keras.errors import InputError
from prl_keras.runs import Run, find_run, has_encoder, removed_if_useless, write_json
from prl_keras.startup import start_keras


def run(options: Finetune) -> None:
    check_name(options)
    source = find_run(options.encoder, options.runs_dir, has_encoder, "pre-trained encoder")
    request = data_request_of_run(source, options)
    dataset = open_data(request, source)
    check_training(options, len(dataset.train), whole_batches=False)
    check_encoder(tuple(source.config["data"]["image_shape"]), dataset, source.name)

    train_and_save(options, source, request, dataset)


def train_and_save(
    options: Finetune, source: Run, request: dict[str, Any], dataset: Dataset, facts: dict[str, Any] | None = None
) -> Run:
    """Train a head on the encoder of `source`, test it once, and keep the run; `facts` go to result.json too."""
    start_keras(options.seed, options.precision)
    from prl_keras.models.batch_norm import FusedBatchNormalization
    from prl_keras.models.storage import copy_as, load_encoder, weights_sha256
    from prl_keras.training.finetune import finetune

    encoder = load_encoder(source)
    check_encoder(encoder.input_shape[1:], dataset, source.name)
    encoder = copy_as(encoder, options.precision, FusedBatchNormalization)
    frozen = "frozen" if options.freeze else "unfrozen"
    run = start_run("finetune", options, f"{source.name}-{options.head}-{frozen}", request, dataset)
    before = weights_sha256(encoder)
    with removed_if_useless(run):
        console.print(f"Fine-tuning {run.name}: {options.head} head on {source.name}, {frozen}")
        classifier = finetune(encoder, dataset, options, run)
    after = weights_sha256(encoder)
    if options.freeze and after != before:
        raise RuntimeError("a frozen encoder changed during fine-tuning; please report this")
    hashes = {"encoder_run": source.name, "encoder_sha256_before": before, "encoder_sha256_after": after}
    _finish(classifier, dataset, run, options, hashes | {"encoder_frozen": options.freeze} | (facts or {}))
    return run


def run_baseline(options: Baseline) -> None:
    check_name(options)
    request = data_request(options, options.seed)
    dataset = open_data(request)
    check_training(options, len(dataset.train), whole_batches=False)

    start_keras(options.seed, options.precision)
    from prl_keras.models import build_classifier, mlp_encoder, resnet18
    from prl_keras.models.batch_norm import FusedBatchNormalization
    from prl_keras.training.finetune import train_classifier

    if options.model == "mlp":
        encoder = mlp_encoder(dataset.image_shape)
    else:
        encoder = resnet18(dataset.image_shape, options.stem, batch_norm=FusedBatchNormalization)
    classifier = build_classifier(encoder, dataset.num_classes)
    run = start_run("baseline", options, f"{options.model}-{dataset.name}", request, dataset)
    with removed_if_useless(run):
        console.print(f"Training {run.name}: {options.model} from scratch, {classifier.count_params():,} weights")
        train_classifier(classifier, dataset, options, run)
    _finish(classifier, dataset, run, options, {})


def check_encoder(shape: tuple[int, ...], dataset: Dataset, name: str) -> None:
    """Raise InputError unless the encoder takes the data set's images."""
    if tuple(shape) != dataset.image_shape:
        expected, found = ("x".join(map(str, s)) for s in (shape, dataset.image_shape))
        hint = f"use --image-size {shape[0]}" if shape[0] == shape[1] else "pre-train on this data set"
        raise InputError(f"encoder {name!r} takes {expected} images, but {dataset.name} has {found}: {hint}")


def _finish(classifier: Any, dataset: Dataset, run: Run, options: Finetune | Baseline, facts: dict[str, Any]) -> None:
    from prl_keras.evaluation.statistics import accuracy
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import copy_as, save_model
    from prl_keras.training.fit import forget_checkpoints
    from prl_keras.training.tensorboard import log_hparams
    from prl_keras.visualization.figures import plot_training

    classifier = copy_as(classifier, "float32")
    save_model(classifier, run.classifier_file)
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    figures = {
        name: accuracy(encode(classifier, split.images).argmax(axis=-1), split.labels)
        for name, split in splits.items()
        if len(split)
    }
    result = {
        "epochs": run.metrics[-1]["epoch"],
        "chosen_epoch": "last",
        "seconds": round(sum(line["seconds"] for line in run.metrics), 1),
        "accuracy": figures,
        **facts,
    }
    figure = plot_training(run)
    if "validation" in figures:
        log_hparams(run.path / "logs" / "run", run.name, run.config["options"], figures["validation"]["value"])
    write_json(run.path / "result.json", result)
    forget_checkpoints(run)
    console.print()
    console.print(accuracy_table(f"{run.name}, last epoch ({result['epochs']})", figures))
    reference = run_argument(run, options.runs_dir)
    print_end(
        [run.classifier_file, run.path / "result.json", figure],
        [f"python main.py {command} {reference}" for command in ("visualize", "evaluate")]
        + [f"python main.py predict {reference} IMAGE..."],
    )
