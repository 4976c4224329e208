"""`pretrain --init X --epochs 0`: a run of an encoder as it was made elsewhere, for all that runs are for."""

from dataclasses import fields, replace
from pathlib import Path

from prl_keras.applications import Application
from prl_keras.commands.common import run_argument
from prl_keras.config import DataOptions, Pretrain, check_seed, option_words
from prl_keras.config.training import RunOptions
from prl_keras.data.layout import UNLABELLED
from prl_keras.data.request import data_request, open_data
from prl_keras.data.seen import record_seen
from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.runs import Run
from prl_keras.runs.card import write_card
from prl_keras.runs.lifecycle import start_run
from prl_keras.runs.locks import working_on
from prl_keras.screen.console import print_end, say
from prl_keras.startup import start_keras
from prl_keras.training.begin import from_elsewhere, init_reference


def keep(source: Run | Path | Application | None, options: Pretrain) -> None:
    """Write the run: nothing is trained, and none of the data set's images counts as seen."""
    if source is None:
        raise InputError("--epochs 0 trains nothing: name the encoder that is to be kept as it is, with --init")
    check_seed(options.seed)
    used = {"init", "weights", "epochs"} | {field.name for kind in (DataOptions, RunOptions) for field in fields(kind)}
    if idle := options.given - used:
        (flag, *_) = option_words(min(idle), getattr(options, min(idle)))
        raise InputError(f"{flag} does nothing with --epochs 0: leave it out")
    request = data_request(options, options.seed)
    dataset = open_data(request, labelled=False)
    start_keras(options.seed)
    from prl_keras.models.begun import encoder_to_begin_with
    from prl_keras.models.storage import copy_as, save_model, weights_sha256

    encoder = copy_as(encoder_to_begin_with(source, dataset.image_shape, "float32"), "float32")
    digest = weights_sha256(encoder)
    weights = None if options.weights is None else Path(options.weights).absolute()
    options = replace(options, init=init_reference(source, options), weights=weights)
    run = start_run("pretrain", options, f"kept-{dataset.label}", request, dataset, {"init_sha256": digest})
    with working_on(run):
        known = source if isinstance(source, Run) else None
        record_seen(run, dataset.train.images[:0], known, None, from_elsewhere(source))
        save_model(encoder, run.encoder_file)
        write_json(run.path / "result.json", {"epochs": 0, "seconds": 0.0, "encoder_sha256": digest})
        card = write_card(run)
    name, count = source.name if isinstance(source, Run) else str(source), encoder.count_params()
    say(f"{run.name}: the encoder of {name} as it is, {count:,} weights, {encoder.output_shape[-1]} features")
    reference = run_argument(run, options.runs_dir)
    following = [
        f"python main.py evaluate {reference}",
        f"python main.py finetune --encoder {reference} --head linear --freeze --recipe strong",
        f"python main.py teach {reference} NAME IMAGE...",
    ]
    if dataset.class_names == UNLABELLED:  # there is nothing to measure or to learn a head from
        following = following[2:]
    print_end([run.encoder_file, *([card] if card else [])], following)
