"""`python main.py evaluate --shift`: accuracy under common corruptions, and relative to another run."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from rich.table import Table

from prl_keras.commands.common import opened, run_argument, say_replaced, source_run
from prl_keras.config import Evaluate, check_seed
from prl_keras.data import Dataset, resolved
from prl_keras.data.request import data_words, file_suffix, warn_of_seen
from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.runs import Run, find_run, gives_features
from prl_keras.screen.console import console, percent, percent_interval, print_end, say, slim_table
from prl_keras.screen.progress import with_progress
from prl_keras.startup import start_keras
from prl_keras.terminal import quoted
from prl_keras.training.begin import source_of


def run(options: Evaluate) -> None:
    check_seed(options.seed)
    run, dataset, outputs = opened(options)
    start_keras()
    from prl_keras.evaluation import shift
    from prl_keras.visualization.shift import plot_shift

    identity = shift.identity(dataset.test, options.seed)
    reference = _reference(run, dataset, options, identity) if options.relative_to else None
    seen = warn_of_seen(run, dataset)
    with console.status("Fitting the probes"):
        chosen, predict = shift.classifiers_of(run, dataset, outputs)
    each = with_progress(
        shift.answers(dataset.test, predict, options.seed), len(shift.CONDITIONS), "Test pictures under corruptions"
    )
    measured = shift.shifted(list(each), identity)
    content = _content(dataset, measured, options.seed)
    content |= {"chosen_on_validation": chosen, "seen_in_training": seen}
    if reference is not None:
        name, other = reference
        relative = {"run": name, "classifier": other.classifier, "accuracy": shift.figures(other.own)["mean"]}
        content["relative_to"] = relative | shift.relative_errors(measured.own, other.own)
        content["relative_to"]["by_the_same"] = {
            by: shift.relative_errors(measured.correct[by], other.correct[by])["mCE"]
            for by in measured.correct
            if by in other.correct
        }
    suffix = _suffix(run, dataset, options)
    files = [run.path / f"shift{suffix}{ending}" for ending in (".json", ".npz")]
    compared = content.get("relative_to", {}).get("run")
    say_replaced(files[0], {"relative_to": compared}, lambda old: {"relative_to": old["relative_to"]["run"]})
    measured.save(files[1])
    write_json(files[0], content)
    _show(run, dataset, content)
    title = f"{run.name} ({measured.classifier}) on {dataset.label}, {len(dataset.test):,} test pictures"
    picture = run.path / "plots" / f"shift{suffix}.png"
    files.append(plot_shift(dataset.test.images[:100], options.seed, content["accuracy"], title, picture))
    _end(run, options, files)


def _content(dataset: Dataset, measured: Any, seed: int) -> dict[str, Any]:
    from prl_keras.data.severities import RULE
    from prl_keras.evaluation.shift import figures

    by_classifier = {by: figures(correct) for by, correct in measured.correct.items()}
    return {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "split": "test",
        "n": len(dataset.test),
        "image_shape": list(dataset.image_shape),
        "classifier": measured.classifier,
        "corruptions": {"constants": RULE, "seed": seed, "sha256": measured.identity["corruptions"]},
        "accuracy": by_classifier[measured.classifier],
        "by_classifier": by_classifier,
    }


def _end(run: Run, options: Evaluate, files: list[Any]) -> None:
    reference = run_argument(run, options.runs_dir)
    following = f"evaluate OTHER --shift --relative-to {reference}{_asked(options)}"
    if options.relative_to is not None:
        following = f"evaluate {reference}{data_words(options)}"
    print_end(files, [f"python main.py {following}"])


def _reference(run: Run, dataset: Dataset, options: Evaluate, identity: dict[str, str]) -> tuple[str, Any]:
    """Name and answers of the run that errors are relative to.

    Raises:
        InputError: it was not measured, or not on the same.
    """
    from prl_keras.evaluation.shift import check_same, loaded

    other = find_run(options.relative_to, options.runs_dir, gives_features, "run with an encoder")
    if other.path.resolve() == run.path.resolve():
        raise InputError(f"--relative-to {options.relative_to}: that is the run itself; name another")
    own = other.path / f"shift{_suffix(other, dataset, options)}.npz"
    # trained on other pictures, it names these by another word; what was measured counts
    files = sorted(other.path.glob("shift*.npz"), key=lambda file: file != own)
    data, by_seed = other.part("data"), []
    if tuple(data["image_shape"]) != dataset.image_shape:
        size = "x".join(map(str, data["image_shape"][:2]))
        raise InputError(f"run {other.name!r} takes {size} images, and no others can be compared image by image")
    for file in files:
        try:
            answers = loaded(file)
        except InputError:
            if file == own:
                raise
            continue  # of other data, and no obstacle
        if answers.identity == identity:
            return other.name, answers
        by_seed += [answers] if answers.identity["seed"] == identity["seed"] else []
    of_others = options.dataset is None and resolved(data["request"]["name"]) != dataset.name
    if by_seed and not of_others:
        check_same(by_seed[0], identity, other.name)
    named = f" --dataset {quoted([dataset.name])}" if of_others else ""
    words = f"{run_argument(other, options.runs_dir)} --shift{named}{_asked(options)}"
    raise InputError(f"run {other.name!r} was not measured so: first type: python main.py evaluate {words}")


def _suffix(run: Run, dataset: Dataset, options: Evaluate) -> str:
    return f"{file_suffix(run, dataset)}{f'-seed{options.seed}' if options.seed else ''}"


def _asked(options: Evaluate) -> str:
    """What two measurements must share, as options."""
    return f"{data_words(options)}{f' --seed {options.seed}' if options.seed else ''}"


def _show(run: Run, dataset: Dataset, content: dict[str, Any]) -> None:
    accuracy, relative = content["accuracy"], content.get("relative_to")
    title = f"{run.name} ({content['classifier']}) on {dataset.label}, {content['n']:,} test pictures, accuracy in %"
    table = slim_table(title)
    table.add_column("severity", no_wrap=True)
    for column in (*"12345", "mean (95 % interval)", *(["CE"] if relative else [])):
        table.add_column(column, justify="right", no_wrap=True)
    rows = accuracy["by_corruption"] | {"all": accuracy["by_severity"] | {"mean": accuracy["mean"]}}
    for name, figures in rows.items():
        cells = [f"{100 * figures[severity]['value']:.1f}" for severity in "12345"]
        cells.append(f"{100 * figures['mean']['value']:.1f} ({percent_interval(figures['mean'])})")
        if relative:
            ratio = relative["mCE"]["value"] if name == "all" else relative["mCE"]["by_corruption"][name]
            cells.append("" if ratio is None else f"{100 * ratio:.1f}")
        table.add_row(name.replace("_", " "), *cells, end_section=name == "jpeg_compression")
    console.print(table)
    each = [accuracy["by_corruption"][name][s] for name in accuracy["by_corruption"] for s in "12345"]
    widest = max(max(f["value"] - f["low"], f["high"] - f["value"]) for f in each)
    clean = accuracy["clean"]
    say(
        f"clean: {percent(clean)} ({percent_interval(clean)}). Intervals are over pictures; each of the 75 figures is "
        f"within {100 * widest:.1f} points."
    )
    console.print(_by_classifier(content))
    for by, how in content["chosen_on_validation"].items():
        if how:
            say(f"{by}: {how}, clean ones")
    if relative:
        _show_relative(relative)
        if "linear probe" not in relative["by_the_same"]:
            say(f"{relative['run']} was measured by one classifier: repeat its `evaluate --shift` to compare more")
    _say_what_was_seen(run)


def _by_classifier(content: dict[str, Any]) -> Table:
    """Of one run to be compared with another by the same classifier; the first is what the run answers by."""
    same = content.get("relative_to", {}).get("by_the_same", {})
    table = slim_table()
    table.add_column("in %, by", no_wrap=True)
    for column in ("clean", "corrupted (95 % interval)", *(["mCE by the same (95 %)"] if same else [])):
        table.add_column(column, justify="right", no_wrap=True)
    for by, of in content["by_classifier"].items():
        cells = [f"{100 * of['clean']['value']:.1f}"]
        cells.append(f"{100 * of['mean']['value']:.1f} ({percent_interval(of['mean'])})")
        if same:
            ratio = same.get(by, {"value": None})
            undefined = ratio["value"] is None
            cells.append("" if undefined else f"{100 * ratio['value']:.1f} ({percent_interval(ratio)})")
        table.add_row(by, *cells)
    return table


def _show_relative(relative: dict[str, Any]) -> None:
    """100 %: as many errors as the reference."""
    for name, words in (("mCE", "mCE"), ("relative_mCE", "relative mCE (what corruption adds to clean errors)")):
        figure = relative[name]
        start = f"{words}, {relative['run']} ({relative['classifier']}) = 100"
        if figure["value"] is None:
            some = ", ".join(figure["undefined"]).replace("_", " ")
            say(f"{start}: not defined, as that run has too few such errors under {some}")
        else:
            say(f"{start}: {100 * figure['value']:.1f} ({percent_interval(figure)}), over pictures, paired")


def _began_with(run: Run) -> Any:
    """The run, or whatever else, that the encoder is from; None: random weights."""
    if "encoder_run" in (run.result or {}):
        return source_run(run)
    return source_of(run) if run.config.get("options", {}).get("init") else None


def _say_what_was_seen(run: Run) -> None:
    """Whether the run's training, or that of the encoder that it has, was shown something like it."""
    from prl_keras.evaluation.shift import ALIKE

    trainings, source = [run], run
    with suppress(InputError):  # the encoder's run may be gone
        while isinstance(source := _began_with(source), Run) and source not in trainings:
            trainings.append(source)
    policies = {training.config.get("options", {}).get("augment") for training in trainings}
    for policy in sorted(policies & set(ALIKE)):
        say(f"Not all of it is new: the augmentation of the training, {policy}, {ALIKE[policy]}.")
