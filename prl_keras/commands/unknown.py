"""`python main.py evaluate --unknown`: does a run notice what it does not know?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.commands.common import run_argument, say_replaced
from prl_keras.commands.report import encoded_images
from prl_keras.config import Evaluate
from prl_keras.data import Dataset, load_dataset
from prl_keras.data.catalog import is_folder, load_held_out, load_train_images, resolved
from prl_keras.data.deep import check_white
from prl_keras.data.litter import is_litter
from prl_keras.data.reading import NO_LABELS
from prl_keras.data.request import data_request_of_run, file_suffix
from prl_keras.data.seen import never_seen, short, unseen, warn_of_names, warn_of_network
from prl_keras.data.splits import SPLITS, Split, dataset_label
from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.runs import Run, find_run, gives_features, names_classes
from prl_keras.screen.console import console, mean_and_interval, print_end, say, slim_table

_FALSE_ALARMS = 0.05


def run(options: Evaluate) -> None:
    _check(options)
    run, dataset, encoded, _ = encoded_images(options)
    strange = _strange(run, dataset, options)
    network = warn_of_network(run)
    from prl_keras.evaluation.novelty import parting, strangeness
    from prl_keras.evaluation.statistics import proportion, threshold
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_encoder

    train, validation, _ = encoded.labelled(dataset)
    with console.status("Encoding what it does not know"):
        features = {name: encoded.features[name] for name in SPLITS}
        encoder = load_encoder(run)
        features |= {name: encode(encoder, split.images) for name, split in strange.items()}
    with console.status("Scoring"):
        logits = _logits(run, encoded, train, validation, features)
        groups = {name: (features[name], logits[name]) for name in features if name != "train"}
        scores = strangeness(train, groups, dataset.num_classes)
    found: dict[str, Any] = {}
    fresh = unseen(run, dataset.validation)  # what was trained on chooses no threshold
    fresh = slice(None) if fresh is None else fresh
    for score, by_group in scores.items():
        limit = threshold(by_group["validation"][fresh], _FALSE_ALARMS)
        found[score] = {name: parting(by_group["test"], by_group[name]) for name in strange}
        if limit is not None:
            taken = {name: int((by_group[name] >= limit).sum()) for name in ("test", *strange)}
            found[score]["at_5_percent_of_validation"] = {
                name: proportion(count, len(by_group[name])) for name, count in taken.items()
            }
    content = {
        "dataset": dataset.name,
        "known": {"classes": list(dataset.class_names), "test": len(dataset.test)},
        "strange": {name: len(split) for name, split in strange.items()},
        "far": list(options.far),
        "positive": "strange",
        "not_recorded": network,  # what it was trained on
        "logits": "the run's classifier" if encoded.logits is not None else "a linear probe, C chosen on validation",
        "scores": found,
    }
    file = run.path / f"unknown{file_suffix(run, dataset)}.json"
    say_replaced(file, {"far": content["far"]})
    write_json(file, content)
    _show(run, dataset, content)
    reference = run_argument(run, options.runs_dir)
    verb = "predict" if names_classes(run) else "teach"
    print_end([file], [f"python main.py {verb} {reference} {'IMAGE...' if verb == 'predict' else 'NAME IMAGE...'}"])


def _check(options: Evaluate) -> None:
    """Raise InputError, before anything is encoded, if there is nothing unknown."""
    run = find_run(options.run, options.runs_dir, gives_features, "run with an encoder")
    request = data_request_of_run(run, options)
    if not options.far and not request.get("hold_out_classes"):
        raise InputError(
            f"run {run.name!r} was trained on all classes of its data: add --far of another data set, or pre-train "
            "with --hold-out-classes 0.3"
        )
    check_far(options.far, request)


def check_far(names: Sequence[str], request: dict[str, Any]) -> None:
    """Raise InputError unless they are data sets, and others than the known one."""
    for name in names:
        if resolved(name) == request["name"]:
            raise InputError(f"--far {name}: these are the known pictures; name another data set")
        if is_folder(resolved(name)) and not Path(resolved(name)).is_dir():
            raise InputError(f"--far {name}: no such data set or folder; check its name")
    labels = [dataset_label(resolved(name)) for name in names]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise InputError(f"--far names two data sets called {twice}: leave one out, or give its folder another name")


def load_far(name: str, request: dict[str, Any], dataset: Dataset) -> tuple[Split, tuple[str, ...]]:
    """Test pictures of another data set in the size of the known one, read as that is, and its classes' names; of a
    folder of pictures alone all of them, and no classes."""
    how = {key: request[key] for key in ("resize", "cache_dir") if key in request}
    how["image_size"] = dataset.image_shape[:2]
    place = Path(resolved(name))
    if is_folder(resolved(name)) and not any(path.is_dir() and not is_litter(path) for path in place.iterdir()):
        raw = load_train_images(name, labels=NO_LABELS, **how)
        found, classes, bits = raw.train, (), raw.bits
    else:
        far = load_dataset(name, **how)
        found, classes, bits = far.test, far.class_names, far.bits
    check_white(f"--far {name}", bits, dataset.label, dataset.bits)
    return found, classes


def _strange(run: Run, dataset: Dataset, options: Evaluate) -> dict[str, Split]:
    """Group -> pictures of no known class, none of which the run was trained on or is tested with."""
    groups: dict[str, Split] = {}
    request = data_request_of_run(run, options)
    if dataset.held_out:
        groups["near: held-out classes"] = load_held_out(**request)[0]
    for name in options.far:
        found, classes = load_far(name, request, dataset)
        group = f"far: {dataset_label(resolved(name))}"
        known = np.concatenate([short(getattr(dataset, part).digests) for part in SPLITS])
        new = np.flatnonzero(~np.isin(short(found.digests), known))
        if len(new) < len(found):
            say(f"{group}: {len(found) - len(new):,} pictures are left out: {dataset.label} has them")
        groups[group] = found.take(new)
        warn_of_names(group, classes, dataset.class_names)
    for name, split in groups.items():
        groups[name], left_out = never_seen(run, split)
        if left_out:
            say(f"{name}: {left_out:,} pictures are left out: the run was trained on them")
        if not len(groups[name]):
            raise InputError(f"{name}: the run was trained on all of its pictures; name another data set")
    return groups


def _logits(
    run: Run, encoded: Any, train: Any, validation: Any, features: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Of the run's own head; of an encoder alone, or where that knows other classes, those of a linear probe."""
    if encoded.logits is not None:
        from prl_keras.models.encode import encode
        from prl_keras.models.storage import load_model

        head = load_model(run.classifier_file).layers[-1]
        return {name: encode(head, values) for name, values in features.items()}
    from prl_keras.evaluation.probes import Features, linear_probe

    probe = linear_probe(train, validation, Features(encoded.features["test"])).model
    answers = {name: probe.decision_function(values) for name, values in features.items()}
    two = next(iter(answers.values())).ndim == 1  # of two classes scikit-learn gives one column
    return {name: np.stack([-each, each], axis=1) / 2 if two else each for name, each in answers.items()}


def _show(run: Run, dataset: Dataset, content: dict[str, Any]) -> None:
    for name, count in content["strange"].items():
        title = (
            f"{run.name}: {dataset.label} ({content['known']['test']:,} test pictures, known) against {name} "
            f"({count:,}, to be found)"
        )
        table = slim_table(title)
        table.add_column("score", no_wrap=True)
        for column in ("AUROC (95 % interval)", "AUPR", "FPR at 95 %", "found at 5 %"):
            table.add_column(column, justify="right", no_wrap=True)
        for score, by_group in content["scores"].items():
            figure, limited = by_group[name], by_group.get("at_5_percent_of_validation")
            auroc = mean_and_interval(figure | {"mean": figure["auroc"]})
            row = [auroc, f"{100 * figure['aupr']:.1f}", f"{100 * figure['fpr95']:.1f} %"]
            table.add_row(score, *row, f"{100 * limited[name]['value']:.1f} %" if limited else "")
        console.print(table)
    alarms = [by_group.get("at_5_percent_of_validation") for by_group in content["scores"].values()]
    if all(alarms):
        shares = [100 * each["test"]["value"] for each in alarms]
        say(
            "found at 5 %: at the threshold that takes 5 % of validation for unknown, and of the known test pictures "
            f"{min(shares):.1f} to {max(shares):.1f} %"
        )
    say(
        "Unknown pictures are the positive class. FPR at 95 %: known pictures taken for unknown where 95 % of the "
        f"unknown are found. Logits of {content['logits']}."
    )
