"""`python main.py pretrain`: pre-train an encoder and keep it as a run."""

from dataclasses import replace
from typing import Any

from prl_keras.commands.common import begun, head_words, on_this_machine, run_argument, stronger
from prl_keras.commands.kept import keep
from prl_keras.config import Pretrain
from prl_keras.data.request import data_request, open_data
from prl_keras.data.seen import record_seen
from prl_keras.data.unlabelled import open_unlabelled, unlabelled_reference
from prl_keras.files import write_json
from prl_keras.runs import Run
from prl_keras.runs.card import write_card
from prl_keras.runs.lifecycle import check_name, start_run
from prl_keras.runs.locks import working_on
from prl_keras.screen.console import in_words, print_end, say
from prl_keras.strategies import check_pretraining, is_chief, workplace
from prl_keras.tracking import send_result
from prl_keras.training.begin import begins_with, from_elsewhere, init_reference, source_digest, trained_on
from prl_keras.training.fitted import fitted
from prl_keras.training.limits import check_training


def run(options: Pretrain) -> None:
    check_pretraining(options)
    if is_chief(options.strategy):
        check_name("pretrain", options)
    options = on_this_machine("pretrain", options)
    source = begins_with(options)
    if options.epochs == 0:
        keep(source, options)
        return
    request = data_request(options, options.seed)
    dataset = open_data(request, labelled=options.variant != "simclr")
    unlabelled = open_unlabelled(options.unlabelled, dataset, request)
    others = None if unlabelled is None else unlabelled.images
    images, labels = trained_on(dataset, options, others)
    options, note = fitted(options, labels)
    if note:
        say(note)
    check_training(options, len(images), whole_batches=True)

    before = {} if unlabelled is None else {"unlabelled_sha256": unlabelled.sha256}
    before |= {} if source is None else {"init_sha256": source_digest(source)}
    with begun("pretrain", options, request, dataset, before) as company:
        from prl_keras.models.storage import weights_sha256
        from prl_keras.training import build, pretraining

        plan = pretraining.plan(dataset, options, others, source)
        if options.distance == "cosine":  # what None means has changed: an unfinished run of before is another one
            options = replace(options, temperature=build.temperature(options))
        inputs = {}
        if unlabelled is not None:
            inputs["unlabelled_sha256"] = unlabelled.sha256
            options = replace(options, unlabelled=unlabelled_reference(options.unlabelled))
        if source is not None:
            inputs["init_sha256"] = weights_sha256(plan.pretrainer.encoder)
            weights = None if options.weights is None else options.weights.absolute()
            options = replace(options, init=init_reference(source, options), weights=weights)
        with workplace(options) as options:
            run = start_run("pretrain", options, f"{options.variant}-{dataset.label}", request, dataset, inputs)
            with working_on(run):
                known = source if isinstance(source, Run) else None
                record_seen(run, images, known, None if others is images else others, from_elsewhere(source))
                _announce(plan, options, run)
                trained = pretraining.train(plan, dataset, options, run)
                if is_chief(options.strategy):
                    company.needs_nobody()
                    _finish(trained, run, options)


def _announce(plan: Any, options: Pretrain, run: Run) -> None:
    from prl_keras.training.outlook import in_words as task

    if plan.warning:
        say(plan.warning)
    say(
        f"Pre-training {run.name}: {len(plan.batches)} steps of {plan.batches.batch_size} images an epoch; "
        f"{task(plan.ahead, options.variant)}"
    )
    watched = len(plan.validation.labels)
    if plan.validation.images < watched:
        say(
            f"Validation loss: of whole batches, {plan.validation.images:,} of {watched:,} images, the same ones; "
            "validation accuracies: of all"
        )


def _finish(trained: Any, run: Run, options: Pretrain) -> None:
    from prl_keras.evaluation.statistics import accuracy
    from prl_keras.models.storage import save_model, weights_sha256
    from prl_keras.training.fit import forget_checkpoints
    from prl_keras.visualization.figures import plot_training

    save_model(trained.encoder, run.encoder_file)
    labelled = trained.answers is not None
    validation = trained.figures | ({"val_prototype": accuracy(*trained.answers)} if labelled else {})
    last = run.metrics[-1]
    result = {
        "epochs": last["epoch"],
        "last_epoch": last,
        "saved_encoder": validation,
        "seconds": round(sum(line["seconds"] for line in run.metrics), 1),
        "encoder_sha256": weights_sha256(trained.encoder),
    }
    write_json(run.path / "result.json", result)
    card = write_card(run)
    send_result(run, options.track)
    forget_checkpoints(run)
    names = {"chance": "chance_loss", "at best about": "least_loss"}
    beside = ", ".join(f"{name} {last[key]:.3f}" for name, key in names.items() if last.get(key) is not None)
    loss = "unknown" if last["loss"] is None else f"{last['loss']:.3f}"
    line = f"\nFinished {run.name} in {result['seconds']:.0f} s of training: loss {loss}"
    line += f" ({beside})" if beside else ""
    if labelled:
        figure = in_words(validation["val_prototype"], run.part("data")["class_names"])
        line += "; of the averaged weights that are kept: " if options.average else ", "
        line += f"validation accuracy with the nearest prototype {figure}"
    say(line)
    picture = plot_training(run)
    reference, held_out = run_argument(run, options.runs_dir), tuple(run.part("data").get("held_out", ()))
    following = [
        f"python main.py visualize {reference} --before",
        f"python main.py evaluate {reference}",
        *_with_held_out(reference, held_out),
        *stronger(options),
        f"python main.py finetune --encoder {reference} {head_words(run)}",
    ]
    if not labelled:
        following = [
            f"python main.py embed {reference} FOLDER --out vectors.parquet",
            f"python main.py finetune --encoder {reference} {head_words(run)} --dataset PATH",
        ]
    print_end([run.encoder_file, picture, run.path / "metrics.jsonl", *([card] if card else [])], following)


def _with_held_out(reference: str, held_out: tuple[str, ...]) -> list[str]:
    """The command that measures classes that were not trained on, five at a time if there are as many."""
    ways = "" if len(held_out) > 4 else f" --ways {len(held_out)}"
    return [f"python main.py evaluate {reference} --few-shot{ways}"] if len(held_out) > 1 else []
