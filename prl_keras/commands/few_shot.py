"""`python main.py evaluate --few-shot`: a run's features on classes that it never saw."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from prl_keras.commands.common import run_argument
from prl_keras.commands.finetune import check_encoder
from prl_keras.config import Evaluate
from prl_keras.data import Dataset
from prl_keras.data.catalog import load_held_out
from prl_keras.data.request import data_request_of_run, file_suffix, open_data
from prl_keras.data.seen import never_seen
from prl_keras.data.splits import Split
from prl_keras.errors import InputError
from prl_keras.files import atomic_path, write_json
from prl_keras.runs import Run, find_run, gives_features
from prl_keras.screen.console import console, print_end, say
from prl_keras.startup import start_keras


def run(options: Evaluate) -> None:
    run = find_run(options.run, options.runs_dir, gives_features, "run with an encoder")
    own = open_data(run.part("data", "request"), run, labelled=False)
    dataset, novel, names = _novel(run, own, options)
    check_encoder(tuple(run.part("data")["image_shape"]), dataset, run.name)
    novel, left_out = never_seen(run, novel)
    if left_out:
        say(f"{left_out:,} pictures are left out: the run was trained on them")
    start_keras()
    from prl_keras.evaluation.few_shot import episode_accuracies, retrieval
    from prl_keras.evaluation.statistics import mean_over_seeds
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_encoder

    encoder = load_encoder(run)
    with console.status("Encoding the images"):
        centre = encode(encoder, own.train.images).mean(axis=0, dtype=np.float64)
        features = encode(encoder, novel.images)
    found = {}
    with console.status("Playing the episodes"):
        for shots in options.shots:
            found[shots] = episode_accuracies(
                features, novel.labels, centre, options.ways, shots, options.queries, options.episodes
            )
        retrieved = retrieval(features, novel.labels, centre)
    content = {
        "dataset": dataset.name,
        "classes": list(names),
        "pictures": len(novel),
        "left_out_as_trained_on": left_out,
        **{name: getattr(options, name) for name in ("ways", "queries", "episodes")},
        "accuracy": {
            str(shots): {name: mean_over_seeds(values) for name, values in by_name.items()}
            for shots, by_name in found.items()
        },
        "retrieval": retrieved,
    }
    suffix = file_suffix(run, dataset)
    file, episodes = run.path / f"few_shot{suffix}.json", run.path / f"few_shot{suffix}.npz"
    with atomic_path(episodes) as temporary:
        each = {f"{name}, {shots} shots": values for shots, part in found.items() for name, values in part.items()}
        np.savez_compressed(temporary, **each)
    write_json(file, content)
    _show(run, dataset, content)
    print_end([file, episodes], [f"python main.py teach {run_argument(run, options.runs_dir)} NAME IMAGE..."])


def _novel(run: Run, own: Dataset, options: Evaluate) -> tuple[Dataset, Split, tuple[str, ...]]:
    """The data set that is measured, its pictures of classes that were not trained on, and the classes' names."""
    if options.dataset is not None:
        dataset = open_data(data_request_of_run(run, options))
        splits = (dataset.train, dataset.validation, dataset.test)
        images = np.concatenate([np.asarray(split.images[:]) for split in splits])
        if known := sorted(set(dataset.class_names) & set(own.class_names)):
            say(f"warning: the run was trained on classes of these names too: {', '.join(known[:10])}")
        return dataset, Split(images, np.concatenate([split.labels for split in splits])), dataset.class_names
    request = run.part("data", "request")
    if not request.get("hold_out_classes"):
        raise InputError(
            f"run {run.name!r} was trained on all classes of {own.label}: pre-train with --hold-out-classes 0.3, or "
            "add --dataset of other classes"
        )
    split, names = load_held_out(**request)
    return own, split, names


def _show(run: Run, dataset: Dataset, content: dict[str, Any]) -> None:
    classes, shots = len(content["classes"]), list(content["accuracy"])
    title = (
        f"{run.name} on {classes} classes of {dataset.label} that it never saw ({content['pictures']:,} pictures), "
        f"{content['ways']} at a time"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for number in shots:
        table.add_column(f"{number} picture{'' if number == '1' else 's'} a class", justify="right", no_wrap=True)
    for name in content["accuracy"][shots[0]]:
        figures = (content["accuracy"][number][name] for number in shots)
        table.add_row(
            name, *(f"{100 * f['mean']:.1f} % ({100 * f['low']:.1f} - {100 * f['high']:.1f})" for f in figures)
        )
    console.print(table)
    found = content["retrieval"]
    console.print(
        f"retrieval among all: recall@1 {100 * found['recall@1']:.1f} %, recall@5 {100 * found['recall@5']:.1f} %, "
        f"mAP {100 * found['mAP']:.1f} %"
    )
    say(
        f"95 % intervals over {content['episodes']:,} draws of episodes from these pictures; other classes and another "
        "training differ more"
    )
