"""`python main.py evaluate --few-shot`: a run's features on classes that it never saw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from prl_keras.commands.common import check_encoder, run_argument, say_replaced
from prl_keras.config import Evaluate, check_least
from prl_keras.config.tables import EpisodeOptions
from prl_keras.data import Dataset
from prl_keras.data.catalog import load_held_out
from prl_keras.data.domains import domain_names
from prl_keras.data.held_out import one_of_each
from prl_keras.data.request import WHERE, data_request_of_run, file_suffix, open_data
from prl_keras.data.seen import never_seen, short, unseen, warn_of_names, warn_of_network
from prl_keras.data.splits import Split, joined_splits
from prl_keras.errors import InputError
from prl_keras.files import atomic_path, write_json
from prl_keras.runs import Run, find_run, gives_features, is_kept
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
    for name in ("samples_per_class", "test_per_class"):
        if request.get("hold_out_classes") and getattr(options, name) is not None:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} does nothing to held-out classes, all of whose pictures count: leave it out")
    dataset = open_data(request, run)
    check_encoder(tuple(run.part("data")["image_shape"]), dataset, run.name)
    own, novel, names, left_out = _novel(run, dataset, request, options)
    novel, copies, in_two = _without_copies(novel)
    drawn_from = check_episodes(novel, options)
    network = warn_of_network(run)
    start_keras()
    from prl_keras.evaluation.statistics import mean_over_seeds

    found, retrieved, taught = _measured(run, own, novel, options, bool(dataset.held_out))
    content = {
        "dataset": dataset.name,
        "classes": list(names),
        "pictures": len(novel),
        "domains": list(domain_names([novel])),
        "left_out_as_trained_on": left_out,
        "left_out_as_copies": copies,
        "left_out_in_two_classes": in_two,
        "not_recorded": network,  # what it was trained on
        **{name: getattr(options, name) for name in ("ways", "queries", "episodes")},
        "drawn_from": drawn_from,
        "accuracy": {
            str(shots): {name: mean_over_seeds(values) for name, values in by_name.items()}
            for shots, by_name in found.items()
        },
        "retrieval": retrieved,
        **({} if taught is None else {"taught": taught}),
    }
    suffix = file_suffix(run, dataset)
    file, episodes = run.path / f"few_shot{suffix}.json", run.path / f"few_shot{suffix}.npz"
    asked = {name: content[name] for name in ("ways", "queries", "episodes")} | {"shots": list(options.shots)}
    say_replaced(file, asked, lambda old: old | {"shots": [int(shots) for shots in old["accuracy"]]})
    with atomic_path(episodes) as temporary:
        each = {f"{name}, {shots} shots": values for shots, part in found.items() for name, values in part.items()}
        np.savez_compressed(temporary, **each)
    write_json(file, content)
    _show(run, dataset, content)
    print_end([file, episodes], [f"python main.py teach {run_argument(run, options.runs_dir)} NAME IMAGE..."])


def _without_copies(novel: Split) -> tuple[Split, int, int]:
    """`one_of_each`, and what it leaves out is said."""
    novel, copies, in_two = one_of_each(novel)
    if copies:
        say(f"{copies:,} pictures are left out: copies of another one of their class")
    if in_two:
        say(f"{in_two:,} pictures are left out: two classes have the same pixels")
    if novel.groups is not None and len(set(novel.groups.tolist())) < len(novel):
        say("warning: some pictures are of one group: where one of them is learned from, another one may be asked")
    return novel, copies, in_two


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


def check_episodes(novel: Split, options: EpisodeOptions) -> dict[str, dict[str, int]]:
    """Shots -> of how many classes, and domains of the support, episodes can be drawn.

    Raises:
        InputError: such episodes cannot be played.
    """
    from prl_keras.evaluation.few_shot import pools

    check_least(options, ways=2, queries=1, episodes=2, shots=1)
    where = "" if novel.domains is None else " (support of one domain, queries of the others)"
    found = {}
    for shots in options.shots:
        try:
            from_ = pools(novel.labels, novel.domains, shots, options.queries, options.ways)
        except ValueError as error:
            raise InputError(f"{error}{where}: ask for fewer --ways, --shots or --queries") from error
        classes = {int(novel.labels[rows[0]]) for pool in from_ for rows in pool.support}
        found[str(shots)] = {"classes": len(classes)} | ({} if novel.domains is None else {"domains": len(from_)})
    return found


def _novel(
    run: Run, dataset: Dataset, request: dict[str, Any], options: Evaluate
) -> tuple[Dataset, Split, tuple[str, ...], int]:
    """The run's own data, pictures that it never saw, their classes, and how many others were left out."""
    as_trained = dataset.fingerprint == run.part("data", "fingerprint")
    if dataset.held_out:
        own = dataset if as_trained else _as_trained(run, dataset, request, options)
        split, names, left_out = _held_out(run, request, own, dataset)
        if left_out:
            say(f"{left_out:,} pictures are left out: pictures of the training classes have the same pixels")
        return own, split, names, left_out
    if as_trained:
        raise InputError(f"run {run.name!r} was trained on all classes of {dataset.label}: add --dataset of others")
    own = open_data(run.part("data", "request"), run, labelled=False)
    split, left_out = never_seen(run, joined_splits([dataset.train, dataset.validation, dataset.test]))
    if left_out:
        say(f"{left_out:,} pictures are left out: the run was trained on them")
    warn_of_names(dataset.label, dataset.class_names, own.class_names)
    return own, split, dataset.class_names, left_out


def _as_trained(run: Run, dataset: Dataset, request: dict[str, Any], options: Evaluate) -> Dataset:
    """The run's own data as its training had them, where `dataset` has the same pictures read otherwise.

    Raises:
        InputError: classes are held out that were trained on, or an encoder that it began with has seen some.
    """
    # what may have changed since: where all is, the table too unless it is another one, and what is damaged
    where = (*WHERE, "damaged", *(("labels",) if options.labels is None else ()))
    trained_with = run.part("data", "request") | {key: request[key] for key in where if key in request}
    own = open_data(trained_with, run, labelled=False)
    fresh = unseen(run, own.train)
    some = fresh is not None and fresh.any() and not fresh.all()
    if some and not is_kept(run):  # others are drawn where some are missing
        own = replace(own, train=own.train.take(np.flatnonzero(~fresh)))
    if others := sorted(set(dataset.held_out) - set(own.held_out)):
        raise InputError(f"these options hold out {others[0]!a:.60}, which run {run.name!r} was trained on")
    _held_out(run, trained_with, own)  # of pictures that are read otherwise no training is known
    return own


def _held_out(run: Run, request: dict[str, Any], *known: Dataset) -> tuple[Split, tuple[str, ...], int]:
    """Pictures of held-out classes without those that `known` train on too, their classes, and how many those are.

    Raises:
        InputError: an encoder that the run began with has seen more of them.
    """
    whole, names = load_held_out(**request)
    of_others = np.isin(short(whole.digests), np.concatenate([short(each.train.digests) for each in known]))
    split, seen = never_seen(run, whole.take(np.flatnonzero(~of_others)))
    if seen:
        raise InputError(
            f"run {run.name!r} began with an encoder that was trained on {seen:,} pictures of its held-out classes: "
            "hold them out there too"
        )
    return split, names, int(of_others.sum())


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
    for number, of in content["drawn_from"].items():
        there = {"classes": classes, "domains": len(content["domains"])}
        some = [f"{of[name]} of the {there[name]} {name}" for name in of if of[name] < there[name]]
        if some:
            say(f"episodes with {number} a class are drawn from {' and '.join(some)}: others have too few pictures")
    found = content["retrieval"]
    console.print(
        f"retrieval among all: recall@1 {100 * found['recall@1']:.1f} %, recall@5 {100 * found['recall@5']:.1f} %, "
        f"mAP {100 * found['mAP']:.1f} %"
    )
    for shots, figures in content.get("taught", {}).items():
        pictures = "picture" if shots == "1" else "pictures"
        taught = "all" if figures["classes"] == classes else f"{figures['classes']} of the {classes} classes"
        console.print(
            f"{taught} taught with {shots} {pictures} each, beside the classes of its training: old classes "
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
