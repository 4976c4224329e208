"""The page of a campaign of benchmarks/beyond.py, and its picture, from the lines that it keeps."""

from pathlib import Path
from typing import Any

import numpy as np
from beyond_campaigns import AS_USED, METHODS, MORE, Campaign, Training, kind, training_of

from prl_keras.evaluation.statistics import compare_seeds, mean_over_seeds
from prl_keras.experiments.beyond import ERRORS, PROBE, SHIFT, Figures, as_markdown, compared, draw
from prl_keras.experiments.table import TITLES
from prl_keras.files import write_text
from prl_keras.markdown import pipe_table
from prl_keras.screen.console import mean_and_interval, signed_interval

Lines = dict[Training, dict[str, Any]]
SAME = (PROBE, "centred prototype")  # that every encoder can answer by
LEFT_OUT = (
    "Accuracy in % on all pictures of a domain that was neither trained on nor validated on, each left out once; mean "
    f"and 95 % t-interval over seeds, a training each. {AS_USED.capitalize()}: by a head that was trained with the "
    "encoder, else by the classifier that validation prefers.\n"
)

CORRUPTED = (
    "Test pictures under 15 corruptions at five severities; mean and 95 % t-interval over seeds, a training each. "
    "Cross-entropy answers by its own head, the others by what clean validation prefers of a linear probe and "
    "prototypes; where a classifier is named, all of them by that one. mCE: errors in % of cross-entropy's of the same "
    "seed, mean over the corruptions.\n"
)


def write(lines: list[dict[str, Any]], name: str, campaign: Campaign, methods: list[str], beside: Path) -> int:
    """The page of the seeds that each of the methods has, and its picture."""
    by: Lines = {training_of(line): line for line in lines}
    seeds = [s for s in sorted({each.seed for each in by}) if all(t in by for t in _trainings(campaign, methods, s))]
    if not seeds:
        print(f"no seed has all of {', '.join(methods)} yet")
        return 1
    if any(len({str(by[t].get("held_out")) for t in _trainings(campaign, methods, s)}) > 1 for s in seeds):
        print("the methods of a seed have different classes held out: they cannot be compared")
        return 1
    usual = {seed: by[Training(campaign.usual, seed, campaign.parts[0])] for seed in seeds}
    each = {method: [_figures(by, campaign, method, seed) for seed in seeds] for method in methods}
    classes = {f"s{seed}": line["held_out"] for seed, line in usual.items() if "held_out" in line}
    found = compared(each, classes)
    page = beside.with_name(f"beyond-{name}.md")
    picture = draw(found, page.with_suffix(".png"))
    command = f"python benchmarks/beyond.py table {name}"
    if len(methods) < len(METHODS):
        command += f" --methods {' '.join(map(kind, methods))}"
    what = LEFT_OUT if campaign.domains else CORRUPTED if set(campaign.measured) == {SHIFT} else None
    text = as_markdown(found, campaign.title, command, beside.name, picture.name, what)
    text += f"\n{_budget(campaign, by, seeds)}\n"
    if "errors" in usual[seeds[0]]:
        text += f"\n{_by_corruption(by, methods, seeds)}\n"
    if "errors_by" in usual[seeds[0]]:
        text += f"\n{_by_corruption(by, methods, seeds, PROBE)}\n"
    if campaign.by_name:
        text += f"\n{_by_name(by, campaign, methods, seeds)}\n"
    if more := [line for line in lines if kind(line["method"]) in MORE]:
        text += f"\n{_more(more, {line['seed']: line for line in lines if line['method'] == campaign.usual})}\n"
    write_text(page, text)
    print(page)
    return 0


def _trainings(campaign: Campaign, methods: list[str], seed: int) -> list[Training]:
    return [Training(method, seed, part) for method in methods for part in campaign.parts]


def _figures(by: Lines, campaign: Campaign, method: str, seed: int) -> Figures:
    """Of one method and seed: means over the domains that were left out, and what is used on each."""
    if not campaign.domains:
        return figures(by[Training(method, seed)], by[Training(campaign.usual, seed)])
    each = {part: by[Training(method, seed, part)]["figures"] for part in campaign.domains}
    first = next(iter(each.values()))
    means = {f"mean, {name}": float(np.mean([of[name] for of in each.values()])) for name in first}
    return means | {f"{part}, {AS_USED}": of[AS_USED] for part, of in each.items()}


def figures(line: dict[str, Any], usual: dict[str, Any]) -> Figures:
    """With mCE relative to the usual training of the same draw; where that makes no errors it is not defined."""
    if "errors" not in line:
        return line["figures"]
    found = line["figures"] | {ERRORS: _mean_ratio(line["errors"], usual["errors"])}
    ours, theirs = (of.get("errors_by", {}) for of in (line, usual))
    return found | {f"{ERRORS}, {by}": _mean_ratio(ours[by], theirs[by]) for by in SAME if by in ours and by in theirs}


def _mean_ratio(errors: dict[str, float], usual: dict[str, float]) -> float | None:
    ratios = [errors[name] / error if error else np.nan for name, error in usual.items()]
    return None if np.isnan(ratios).any() else float(np.mean(ratios))


def _budget(campaign: Campaign, by: Lines, seeds: list[int]) -> str:
    said, precision = [], next(iter(by.values()))["precision"]
    for part in campaign.parts:
        lines = [by[Training(campaign.usual, seed, part)] for seed in seeds]
        counts = {what: ", ".join(f"{line['n'][what]:,}" for line in lines) for what in lines[0]["n"]}
        pictures = "; ".join(f"{what}: {each}" for what, each in counts.items())
        said.append(
            f"{part + ' left out, b' if part else 'B'}y {'draw' if 'held_out' in lines[0] else 'seed'}, {pictures}."
        )
    return (
        f"Each training: `--recipe {campaign.recipe} {campaign.data}`, {campaign.epochs} epochs, "
        f"{campaign.epochs // 2} of two views, {precision}. {' '.join(said)}"
    )


def _by_name(by: Lines, campaign: Campaign, methods: list[str], seeds: list[int]) -> str:
    """Whether a method knows what it was trained on, or what that is like."""

    def values(method: str, classifier: str, part: str) -> np.ndarray:
        of = [[by[Training(method, s, d)]["by_name"]["accuracy"] for d in campaign.domains] for s in seeds]
        return np.array([np.mean([each[classifier][part] for each in domains]) for domains in of])

    first, ours = by[Training(methods[0], seeds[0], campaign.parts[0])]["by_name"], f"{campaign.recipe}-prl"
    rows = []
    for classifier, parts in first["accuracy"].items():
        for part in parts:
            each = {method: values(method, classifier, part) for method in methods}
            test = compare_seeds(each[ours], each[campaign.usual])
            cells = [mean_and_interval(mean_over_seeds(of)) for of in each.values()]
            difference = f"{100 * test['difference']:+.1f}{signed_interval(test)}"
            rows.append([f"{classifier}, {part}", f"{first['n'][part]:,}", *cells, difference])
    titles = [TITLES[method] for method in methods]
    head = ["", "pictures", *titles, f"{TITLES[ours]} minus {TITLES[campaign.usual]}"]
    return (
        "Mean over what was left out, in %, with 95 % t-intervals over seeds, not corrected. known: pictures of the "
        "left-out domain whose name, so what is drawn, training has from another; new: its other pictures; validation: "
        "pictures of the domains that were trained on, of names that were not; the classifier's setting is theirs:\n\n"
        f"{pipe_table(head, rows, left=(0,))}"
    )


def _more(lines: list[dict[str, Any]], usual: dict[int, dict[str, Any]]) -> str:
    """Trainings that the table does not have, one by one."""
    lines = sorted(lines, key=training_of)
    each = [figures(line, usual[line["seed"]]) if line["seed"] in usual else line["figures"] for line in lines]
    rows = []
    for line, found in zip(lines, each, strict=True):
        options = {"classes_per_batch": None} | line["options"]  # which cross-entropy has not
        values = [options[name] for name in ("epochs", "batch_size", "classes_per_batch", "label_smoothing")]
        settings = ["" if value is None else str(value) for value in values]
        shown = ["" if figure is None else f"{100 * figure:.1f}" for figure in found.values()]
        rows.append([line["method"], str(line["seed"]), line.get("part", ""), *settings, *shown])
    head = ["", "seed", "left out", "epochs", "batch", "classes a batch", "smoothing", *each[0]]
    return f"Beside these, one training each, in %:\n\n{pipe_table(head, rows, left=(0,))}"


def _by_corruption(by: Lines, methods: list[str], seeds: list[int], classifier: str | None = None) -> str:
    def errors(method: str, seed: int) -> dict[str, float]:
        line = by[Training(method, seed)]
        return line["errors"] if classifier is None else line["errors_by"][classifier]

    def cell(method: str, name: str) -> str:
        return mean_and_interval(mean_over_seeds(np.array([1 - errors(method, seed)[name] for seed in seeds])))

    names = errors(methods[0], seeds[0])
    rows = [[name.replace("_", " "), *(cell(method, name) for method in methods)] for name in names]
    head = ["", *(TITLES[method] for method in methods)]
    whose = "" if classifier is None else f", all by a {classifier}"
    return (
        f"Accuracy in % under each corruption, mean of five severities{whose}:\n\n{pipe_table(head, rows, left=(0,))}"
    )
