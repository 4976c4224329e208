"""`python main.py evaluate --few-shot`: a run's features on classes that it never saw."""

from __future__ import annotations

from typing import Any

import numpy as np

from prl_keras.commands.common import check_encoder, run_argument
from prl_keras.config import Evaluate, check_least
from prl_keras.config.tables import EpisodeOptions
from prl_keras.data import Dataset
from prl_keras.data.catalog import load_held_out
from prl_keras.data.domains import domain_names
from prl_keras.data.request import data_request_of_run, file_suffix, open_data
from prl_keras.data.seen import never_seen, short, warn_of_names, warn_of_network
from prl_keras.data.splits import Split, joined_splits
from prl_keras.errors import InputError
from prl_keras.files import atomic_path, write_json
from prl_keras.runs import Run, find_run, gives_features
from prl_keras.screen.console import console, print_end, say, slim_table
from prl_keras.startup import start_keras


def run(options: Evaluate) -> None:
    run = find_run(options.run, options.runs_dir, gives_features, "run with an encoder")
    request = data_request_of_run(run, options)
    if options.dataset is None and not request.get("hold_out_classes"):
        raise InputError(
            f"run {run.name!r} was trained on all classes of its data: pre-train with --hold-out-classes 0.3, or add "
            "--dataset of other classes"
        )
    dataset = open_data(request, run)
    check_encoder(tuple(run.part("data")["image_shape"]), dataset, run.name)
    own, novel, names, left_out = _novel(run, dataset, request)
    if novel.groups is not None and len(set(novel.groups.tolist())) < len(novel):
        say("warning: some pictures are of one group: where one of them is learned from, another one may be asked")
    check_episodes(novel, options)
    network = warn_of_network(run)
    start_keras()
    from prl_keras.evaluation.statistics import mean_over_seeds

    found, retrieved, taught = _measured(run, own, novel, options, own is dataset)
    content = {
        "dataset": dataset.name,
        "classes": list(names),
        "pictures": len(novel),
        "domains": list(domain_names([novel])),
        "left_out_as_trained_on": left_out,
        "not_recorded": network,  # what it was trained on
        **{name: getattr(options, name) for name in ("ways", "queries", "episodes")},
        "accuracy": {
            str(shots): {name: mean_over_seeds(values) for name, values in by_name.items()}
            for shots, by_name in found.items()
        },
        "retrieval": retrieved,
        **({} if taught is None else {"taught": taught}),
    }
    suffix = file_suffix(run, dataset)
    file, episodes = run.path / f"few_shot{suffix}.json", run.path / f"few_shot{suffix}.npz"
    with atomic_path(episodes) as temporary:
        each = {f"{name}, {shots} shots": values for shots, part in found.items() for name, values in part.items()}
        np.savez_compressed(temporary, **each)
    write_json(file, content)
    _show(run, dataset, content)
    print_end([file, episodes], [f"python main.py teach {run_argument(run, options.runs_dir)} NAME IMAGE..."])


def _measured(
    run: Run, own: Dataset, novel: Split, options: Evaluate, beside_own: bool
) -> tuple[dict[int, dict[str, np.ndarray]], dict[str, Any], dict[str, Any] | None]:
    """Shots -> classifier -> accuracy of each episode; retrieval; shots -> accuracies beside the run's own classes."""
    from prl_keras.evaluation.few_shot import episode_accuracies, retrieval
    from prl_keras.evaluation.incremental import taught_accuracies
    from prl_keras.evaluation.taught import of_training
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_encoder

    encoder = load_encoder(run)
    with console.status("Encoding the images"):
        known = of_training(encoder, own, run) if beside_own else None
        if known is None:
            centre = encode(encoder, own.train.images).mean(axis=0, dtype=np.float64)
        else:
            centre = known.classifier.centre_
        features = encode(encoder, novel.images)
    pictures = features, novel.labels, centre
    how = {"queries": options.queries, "episodes": options.episodes, "domains": novel.domains}
    with console.status("Playing the episodes"):
        found = {shots: episode_accuracies(*pictures, options.ways, shots, **how) for shots in options.shots}
        retrieved = retrieval(*pictures)
    if known is None:
        return found, retrieved, None
    with console.status("Teaching the classes"):
        taught = {str(shots): taught_accuracies(known, features, novel.labels, shots) for shots in options.shots}
    return found, retrieved, {shots: figures for shots, figures in taught.items() if figures}


def check_episodes(novel: Split, options: EpisodeOptions) -> None:
    """Raise InputError unless such episodes can be played."""
    from prl_keras.evaluation.few_shot import pools

    check_least(options, ways=2, queries=1, episodes=2, shots=1)
    where = "" if novel.domains is None else " (support of one domain, queries of the others)"
    for shots in options.shots:
        try:
            pools(novel.labels, novel.domains, shots, options.queries, options.ways)
        except ValueError as error:
            raise InputError(f"{error}{where}: ask for fewer --ways, --shots or --queries") from error


def _novel(run: Run, dataset: Dataset, request: dict[str, Any]) -> tuple[Dataset, Split, tuple[str, ...], int]:
    """The run's own data, pictures that it never saw, their classes, and how many others were left out."""
    if dataset.fingerprint == run.part("data", "fingerprint"):
        if not dataset.held_out:
            raise InputError(f"run {run.name!r} was trained on all classes of {dataset.label}: add --dataset of others")
        whole, names = load_held_out(**request)
        split, left_out = never_seen(run, whole)
        if left_out:
            if left_out > np.isin(short(whole.digests), short(dataset.train.digests)).sum():
                raise InputError(
                    f"run {run.name!r} began with an encoder that was trained on {left_out:,} pictures of its held-out "
                    "classes: hold them out there too"
                )
            say(f"{left_out:,} pictures are left out: pictures of the training classes have the same pixels")
        return dataset, split, names, left_out
    own = open_data(run.part("data", "request"), run, labelled=False)
    split, left_out = never_seen(run, joined_splits([dataset.train, dataset.validation, dataset.test]))
    if left_out:
        say(f"{left_out:,} pictures are left out: the run was trained on them")
    warn_of_names(dataset.label, dataset.class_names, own.class_names)
    return own, split, dataset.class_names, left_out


def _show(run: Run, dataset: Dataset, content: dict[str, Any]) -> None:
    classes, shots = len(content["classes"]), list(content["accuracy"])
    title = (
        f"{run.name} on {content['pictures']:,} pictures of {classes} classes of {dataset.label}, none of which it was "
        f"trained on{' here' if content['not_recorded'] else ''}, {content['ways']} classes at a time"
    )
    if content["domains"]:
        title += f", support of one domain and queries of the others ({', '.join(content['domains'])})"
    table = slim_table(title)
    table.add_column("", no_wrap=True)
    for number in shots:
        table.add_column(f"{number} picture{'' if number == '1' else 's'} a class", justify="right", no_wrap=True)
    for name in content["accuracy"][shots[0]]:
        figures = (content["accuracy"][number][name] for number in shots)
        table.add_row(name, *map(_with_interval, figures))
    console.print(table)
    found = content["retrieval"]
    console.print(
        f"retrieval among all: recall@1 {100 * found['recall@1']:.1f} %, recall@5 {100 * found['recall@5']:.1f} %, "
        f"mAP {100 * found['mAP']:.1f} %"
    )
    for shots, figures in content.get("taught", {}).items():
        pictures = "picture" if shots == "1" else "pictures"
        console.print(
            f"all taught with {shots} {pictures} each, beside the classes of its training: old classes "
            f"{_with_interval(figures['old'])}, new ones {_with_interval(figures['new'])}, "
            f"mean of all classes {_with_interval(figures['mean'])}"
        )
    say(
        f"95 % intervals over {content['episodes']:,} draws of episodes from these pictures; other classes and another "
        "training differ more"
    )


def _with_interval(figure: dict[str, Any]) -> str:
    """Where all episodes agree, nothing says how far others would differ."""
    ends = [f"{100 * figure[end]:.1f}" for end in ("low", "high") if figure[end] is not None]
    return f"{100 * figure['mean']:.1f} %" + (f" ({' - '.join(ends)})" if ends else "")
