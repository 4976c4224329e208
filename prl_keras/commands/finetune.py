"""`python main.py finetune` and `baseline`: train a classifier, test it once, keep it as a run."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from prl_keras.commands.common import begun, check_encoder, find_encoder, on_this_machine, run_argument
from prl_keras.config import Baseline, Finetune
from prl_keras.data import Dataset
from prl_keras.data.request import data_request, data_request_of_run, open_data, warn_of_seen
from prl_keras.data.seen import record_seen
from prl_keras.data.unlabelled import open_unlabelled, unlabelled_reference
from prl_keras.files import atomic_path, write_json
from prl_keras.runs import Run, reference_to
from prl_keras.runs.card import write_card
from prl_keras.runs.lifecycle import check_name, start_run, to_continue
from prl_keras.runs.locks import working_on
from prl_keras.runs.recorded import recorded_options
from prl_keras.screen.console import accuracy_table, console, print_end, say
from prl_keras.startup import start_keras
from prl_keras.strategies import check_classifier, is_chief, workplace
from prl_keras.tracking import send_result
from prl_keras.training.begin import source_digest
from prl_keras.training.fitted import fitted
from prl_keras.training.limits import check_training


def run(options: Finetune) -> None:
    run, figure = train_and_test(options)
    if is_chief(options.strategy):
        _print_next(run, figure, options)


def train_and_test(options: Finetune) -> tuple[Run, Path | None]:
    """The finished run and the figure of its training; of a worker that is not the chief, nothing is kept."""
    check_classifier(options)
    if is_chief(options.strategy):
        check_name("finetune", options)
    options = on_this_machine("finetune", options)
    source = find_encoder(_encoder_reference(options), options.runs_dir)
    request = data_request_of_run(source, options)
    dataset = open_data(request, source)
    options = _fitted(options, dataset)
    check_encoder(tuple(source.part("data")["image_shape"]), dataset, source.name)
    seen = warn_of_seen(source, dataset)

    with begun("finetune", options, request, dataset, {"encoder_sha256": source_digest(source)}) as company:
        from prl_keras.models.layer_types import FAST
        from prl_keras.models.storage import copy_as, load_encoder, weights_sha256
        from prl_keras.training import finetuning

        strategy = finetuning.strategy_for(options, dataset)
        encoder = load_encoder(source)
        check_encoder(encoder.input_shape[1:], dataset, source.name)
        with strategy.scope():
            encoder = copy_as(encoder, options.precision, FAST)
        frozen = "frozen" if options.freeze else "unfrozen"
        options = replace(options, encoder=reference_to(source, options.runs_dir))
        before = weights_sha256(encoder)
        inputs = {"encoder_sha256": before}
        with workplace(options) as options:
            run = start_run("finetune", options, f"{source.name}-{options.head}-{frozen}", request, dataset, inputs)
            with working_on(run):
                console.print(f"Fine-tuning {run.name}: {options.head} head on {source.name}, {frozen}")
                trained_on = finetuning.with_validation(dataset) if options.include_validation else dataset
                record_seen(run, trained_on.train.images, source)
                classifier = finetuning.train(encoder, dataset, options, run)
                after = weights_sha256(classifier.get_layer(encoder.name))
                if options.freeze and after != before:
                    raise RuntimeError("a frozen encoder changed during fine-tuning; please report this")
                facts = {"encoder_run": options.encoder, "encoder_sha256_before": before}
                facts |= {"encoder_sha256_after": after, "encoder_frozen": options.freeze}
                if seen and any(seen.values()):
                    facts["seen_by_encoder"] = seen
                if not is_chief(options.strategy):
                    return run, None
                company.needs_nobody()
                return run, _finish(classifier, trained_on, run, options, facts)


def _encoder_reference(options: Finetune) -> str:
    """For a run that is continued, "latest" is what it was when the run began."""
    asked = options.encoder == "latest" and is_chief(options.strategy)
    run = to_continue("finetune", options) if asked else None
    return options.encoder if run is None else recorded_options(run, Finetune).encoder


def run_baseline(options: Baseline) -> None:
    check_classifier(options)
    if is_chief(options.strategy):
        check_name("baseline", options)
    options = on_this_machine("baseline", options)
    request = data_request(options, options.seed)
    dataset = open_data(request)
    unlabelled = open_unlabelled(options.unlabelled, dataset, request)
    options = _fitted(options, dataset)

    if options.model == "pca":
        start_keras(options.seed)
        _run_pca(options, request, dataset)
        return
    inputs = {} if unlabelled is None else {"unlabelled_sha256": unlabelled.sha256}
    with begun("baseline", options, request, dataset, inputs) as company:
        from prl_keras.models import build_classifier
        from prl_keras.training.build import build_encoder
        from prl_keras.training.finetuning import planned, strategy_for, train_classifier

        with strategy_for(options, dataset).scope():
            classifier = build_classifier(build_encoder(options, dataset.image_shape), dataset.num_classes)
        images = None if unlabelled is None else unlabelled.images
        if unlabelled is not None:
            planned(classifier, dataset, options, images)  # what cannot be is refused before there is a run
            options = replace(options, unlabelled=unlabelled_reference(options.unlabelled))
        with workplace(options) as options:
            run = start_run("baseline", options, f"{options.model}-{dataset.label}", request, dataset, inputs)
            with working_on(run):
                weights = classifier.count_params()
                console.print(f"Training {run.name}: {options.model} from scratch, {weights:,} weights")
                record_seen(run, dataset.train.images, unlabelled=images)
                trained = train_classifier(classifier, dataset, options, run, images)
                if not is_chief(options.strategy):
                    return
                company.needs_nobody()
                figure = _finish(trained, dataset, run, options, {})
    _print_next(run, figure, options)


def _fitted(options: Any, dataset: Dataset) -> Any:
    options, note = fitted(options, dataset.train.labels)
    if note and getattr(options, "model", None) != "pca":
        say(note)
    check_training(options, len(dataset.train), whole_batches=False)
    return options


def _run_pca(options: Baseline, request: dict[str, Any], dataset: Dataset) -> None:
    from prl_keras.evaluation.choice import how_chosen, warning_of
    from prl_keras.evaluation.pca import pca_classifier

    run = start_run("baseline", options, f"pca-{dataset.label}", request, dataset)
    with working_on(run):
        record_seen(run, dataset.train.images)
        started = time.monotonic()
        with console.status("Fitting the logistic regression"):
            classifier, chosen = pca_classifier(dataset, options.seed)
        seconds = round(time.monotonic() - started, 1)
        figure = _finish(classifier, dataset, run, options, {"chosen_on_validation": chosen, "seconds": seconds})
        how = how_chosen({"C": chosen["C"]}, chosen["validation_images"])
        console.print(f"{chosen['components']} components; {how}")
        if warning := warning_of(chosen):
            console.print(f"warning: {warning}")
    _print_next(run, figure, options)


def _finish(
    classifier: Any, dataset: Dataset, run: Run, options: Finetune | Baseline, facts: dict[str, Any]
) -> Path | None:
    from prl_keras.models.storage import copy_as, save_model
    from prl_keras.training.fit import forget_checkpoints
    from prl_keras.training.tensorboard import log_hparams
    from prl_keras.visualization.figures import plot_training

    classifier = copy_as(classifier, "float32")
    save_model(classifier, run.classifier_file)
    figures = _accuracies(classifier, dataset, run, getattr(options, "include_validation", False))
    lines = run.metrics
    result = {
        "epochs": lines[-1]["epoch"] if lines else 0,
        "chosen_epoch": "last",
        "seconds": round(sum(line["seconds"] for line in lines), 1),
        "accuracy": figures,
        "test_sha256": dataset.test.sha256(),
        **facts,
    }
    if options.test_each_epoch and lines:  # a PCA has no epochs
        best = max(lines, key=lambda line: line["test_accuracy"])  # the first of equals
        result["maximum_over_epochs_on_test"] = {"value": best["test_accuracy"], "epoch": best["epoch"]}
    write_json(run.path / "result.json", result)  # before any picture: one that cannot be drawn loses no figures
    write_card(run)
    send_result(run, options.track)
    forget_checkpoints(run)
    console.print()
    which = f", last epoch ({result['epochs']}){', averaged weights' if options.average else ''}" if lines else ""
    console.print(accuracy_table(run.name + which, figures, dataset.class_names))
    if "validation" in figures:
        log_hparams(run, run.part("options"), figures["validation"]["value"])
    return plot_training(run) if lines else None


def _accuracies(classifier: Any, dataset: Dataset, run: Run, no_validation: bool) -> dict[str, dict[str, Any]]:
    """Accuracy of each split; keeps the logits of those that were not trained on in predictions.npz."""
    import numpy as np

    from prl_keras.evaluation.statistics import accuracy
    from prl_keras.models.encode import encode

    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    if no_validation:
        del splits["validation"]  # part of train
    logits = {name: encode(classifier, split.images) for name, split in splits.items()}
    kept = {f"{name}_logits": logits[name] for name in splits if name != "train"}
    kept |= {f"{name}_labels": splits[name].labels for name in splits if name != "train"}
    with atomic_path(run.predictions_file) as temporary:
        np.savez_compressed(temporary, **kept)
    return {name: accuracy(logits[name].argmax(axis=-1), split.labels) for name, split in splits.items()}


def _print_next(run: Run, figure: Path | None, options: Finetune | Baseline) -> None:
    reference = run_argument(run, options.runs_dir)
    print_end(
        [run.classifier_file, run.path / "result.json", run.path / "card.md", *([figure] if figure else [])],
        [f"python main.py {command} {reference}" for command in ("visualize", "evaluate")]
        + [f"python main.py predict {reference} IMAGE..."],
    )
