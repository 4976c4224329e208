"""The table of what encoders are worth beyond their training classes: from the files of its runs to a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.errors import InputError
from prl_keras.evaluation.choice import LEVEL
from prl_keras.evaluation.statistics import (
    OWN_SPREAD_FROM,
    compare_seeds,
    compare_with_control,
    mean_over_seeds,
    with_corrected,
)
from prl_keras.experiments.cells import Replicate, encoder_run
from prl_keras.experiments.table import STRONG, TITLES
from prl_keras.markdown import indented, listed, pipe_table, plain
from prl_keras.runs import Run
from prl_keras.screen.console import mean_and_interval, signed_interval
from prl_keras.terminal import as_started

_OURS, _USUAL = "-prl", "-resnet18"  # ends of the names of PRL-2 and cross-entropy, by either recipe
FEW_SHOT, UNKNOWN, SHIFT = "few_shot.json", "unknown.json", "shift.json"
ERRORS, PROBE = "mCE, less is better", "linear probe"
_NEAR = "near: held-out classes"
_OUR_SCORE, _USUAL_SCORE = "Mahalanobis", "maximum probability"

Figures = dict[str, float | None]  # measure, as people read it -> figure, as a share; None: not defined for this run


def figures_of(run: Run, files: Sequence[str] = (FEW_SHOT, UNKNOWN, SHIFT)) -> Figures:
    """What the run's files say, or some of them.

    Raises:
        InputError: one is missing, or damaged.
    """
    found: Figures = {}
    for name in files:
        file, of = run.path / name, {FEW_SHOT: _few_shot, UNKNOWN: _unknown, SHIFT: _shift}[name]
        try:
            found |= of(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}: cannot be read ({error}); remove it and repeat the command") from error
    return found


def _few_shot(content: dict[str, Any]) -> Figures:
    found = {}
    for shots, by_name in content["accuracy"].items():
        for name in ("centred prototype", "ridge"):
            found[f"{shots}-shot, {name}"] = by_name[name]["mean"]
    taught = {f"all classes, new ones taught with {k}": each["mean"]["mean"] for k, each in content["taught"].items()}
    return found | {"retrieval, mAP": content["retrieval"]["mAP"]} | taught


def _unknown(content: dict[str, Any]) -> Figures:
    found = {}
    for score in (_OUR_SCORE, _USUAL_SCORE):
        for group, figure in content["scores"][score].items():
            if group in content["strange"]:
                found[f"unknown, {'near' if group == _NEAR else group}, {score}"] = figure["auroc"]
    return found


def _shift(content: dict[str, Any]) -> Figures:
    """The reference's own errors are all of its errors."""
    accuracy, probed, relative = content["accuracy"], content["by_classifier"][PROBE], content.get("relative_to")
    return {
        "known classes, clean": accuracy["clean"]["value"],
        "known classes, corrupted": accuracy["mean"]["value"],
        ERRORS: 1.0 if relative is None else relative["mCE"]["value"],
        f"known classes, clean, {PROBE}": probed["clean"]["value"],
        f"known classes, corrupted, {PROBE}": probed["mean"]["value"],
        f"{ERRORS}, {PROBE}": 1.0 if relative is None else relative["by_the_same"][PROBE]["value"],
    }


def together(
    folder: Path,
    replicates: Sequence[Replicate],
    read: Callable[[Run], Figures] = figures_of,
    sources: Sequence[str] = STRONG,
) -> dict[str, Any]:
    """Each measure of each method over the replicates, each with classes and a training of its own: `compared`."""
    runs = {source: [encoder_run(folder, source, each) for each in replicates] for source in sources}
    first = runs[sources[0]]  # a draw is the same for all
    held_out = {each.suffix: run.part("data", "held_out") for each, run in zip(replicates, first, strict=True)}
    return compared({source: [read(run) for run in of] for source, of in runs.items()}, held_out)


def compared(each: Mapping[str, Sequence[Figures]], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Each measure of each method over the draws of held-out classes, in their order; classes: of each draw.

    Returns:
        measures: by name, of each method its `mean_over_seeds` and values, and `differences`: PRL-2 minus each other
        method, paired by replicate (`compare_with_control`), p corrected for all comparisons of the page; undefined:
        measures that some run has no figure of, as mCE where the reference makes no errors; near_unknown: PRL-2 by
        Mahalanobis's distance minus cross-entropy by its largest probability, as most programs do, paired and of
        itself; None: not measured; classes: those held out.
    """
    measures: dict[str, Any] = {}
    names = list(each[_ending(each, _OURS)][0])
    undefined = [name for name in names if any(f[name] is None for of in each.values() for f in of)]
    for name in names:
        if name in undefined:
            continue
        values = {source: np.array([figures[name] for figures in of]) for source, of in each.items()}
        measures[name] = {
            "methods": {s: {**mean_over_seeds(of), "values": of.tolist()} for s, of in values.items()},
            "differences": _ours_minus(values),
        }
    tests = iter(with_corrected([test for each in measures.values() for test in each["differences"].values()]))
    for measure in measures.values():
        measure["differences"] = {source: next(tests) for source in measure["differences"]}
    near = _near_unknown(measures)
    return {"classes": dict(classes), "measures": measures, "undefined": undefined, "near_unknown": near}


def _ours_minus(values: dict[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """What is the same in every draw, as the reference's own mCE, has no spread to be pooled."""
    ours = _ending(values, _OURS)
    others = [source for source in values if source != ours]
    fixed = [source for source in others if len(values[source]) > 1 and np.ptp(values[source]) == 0]
    varying = [source for source in others if source not in fixed]
    pooled = compare_with_control([-values[source] for source in varying], -values[ours]) if varying else []
    tests = dict(zip(varying, pooled, strict=True)) | {s: compare_seeds(values[ours], values[s]) for s in fixed}
    return {source: tests[source] for source in others}


def _near_unknown(measures: dict[str, Any]) -> dict[str, float | None] | None:
    names = [f"unknown, near, {score}" for score in (_OUR_SCORE, _USUAL_SCORE)]
    if not all(name in measures for name in names):
        return None
    methods = [measures[name]["methods"] for name in names]
    ours, usual = (of[_ending(of, end)] for of, end in zip(methods, (_OURS, _USUAL), strict=True))
    return compare_seeds(np.array(ours["values"]), np.array(usual["values"]))


def _ending(names: Iterable[str], end: str) -> str:
    return next(name for name in names if name.endswith(end))


def _methods(found: dict[str, Any]) -> list[str]:
    return list(next(iter(found["measures"].values()))["methods"])


def as_markdown(
    found: dict[str, Any],
    title: str,
    command: str,
    file: str = "result.json",
    picture: str = "beyond.png",
    what: str | None = None,
) -> str:
    """The page; what: stands before its tables, if they are not of new classes."""
    methods = _methods(found)
    ours = _ending(methods, _OURS)
    count = len(next(iter(found["measures"].values()))["methods"][ours]["values"])
    draws = f"{count} draws" if count > 1 else "one draw"
    others, measures = [source for source in methods if source != ours], found["measures"].items()
    rows = [[name, *(mean_and_interval(of["methods"][source]) for source in methods)] for name, of in measures]
    differences = [[name, *(_difference(of["differences"][source]) for source in others)] for name, of in measures]
    classes = (f"- {suffix}: {listed(held, file)}" for suffix, held in found["classes"].items())
    if what is None:
        title = f"{title}: beyond the training classes"
        what = (
            f"Figures in %, mean and 95 % t-interval over {draws} of held-out classes, each with a training of its "
            "own; draws from few classes overlap, so that others may differ by more. What each measure is, and why "
            "these stand here: docs/beyond.md. No classifier or threshold was chosen on these pictures.\n"
        )
    parts = [
        f"# {plain(title)}\n",
        what,
        pipe_table(["", *(TITLES[source] for source in methods)], rows, left=(0,)),
        f"\n{TITLES[ours]} minus the others, points, paired by seed; of fewer than {OWN_SPREAD_FROM} the spread "
        f"is pooled over all methods. A star: p below {LEVEL} after correction for all comparisons of this page "
        "(Benjamini and Hochberg 1995).\n",
        pipe_table(["", *(f"minus {TITLES[source]}" for source in others)], differences, left=(0,)),
        f"\n![All figures with their draws]({picture})\n",
        *(f"- {sentence}" for sentence in sentences(found)),
        *(f"- {name}: not defined for every run, as some reference has too few errors." for name in found["undefined"]),
        *(["\nHeld-out classes:\n", *classes] if found["classes"] else []),
        f"\nAll figures: {file}. Made by\n",
        indented(command),
    ]
    return as_started("\n".join(parts)) + "\n"


def sentences(found: dict[str, Any]) -> list[str]:
    """What is best at what, and whether PRL-2's differences hold."""
    said, methods = [], _methods(found)
    ours, usual = _ending(methods, _OURS), _ending(methods, _USUAL)
    for name, measure in found["measures"].items():
        means = {source: figure["mean"] for source, figure in measure["methods"].items()}
        sign = -1 if name.startswith(ERRORS) else 1
        best = max(means, key=lambda source: sign * means[source])
        rank = 1 + sum(sign * mean > sign * means[ours] for mean in means.values())
        sentence = f"{name}: best is {TITLES[best]} with {100 * means[best]:.1f} %"
        sentence += "" if best == ours else f", {TITLES[ours]} is number {rank} with {100 * means[ours]:.1f} %"
        holds = {s: t for s, t in measure["differences"].items() if t["p"] is not None and t["p"] < LEVEL}
        for words, way in (("better than", sign), ("worse than", -sign)):
            others = [TITLES[s] for s, t in holds.items() if t["difference"] * way > 0]
            sentence += f"; it is {words} {', '.join(others)}, beyond chance" if others else ""
        told = any(t["p"] is not None for t in measure["differences"].values())
        nothing = "no difference to it is beyond chance" if told else "so few draws do not tell what is chance"
        said.append(sentence + ("." if holds else f"; {nothing}."))
    if found["near_unknown"] is not None:
        said.append(
            f"unknown, near: {TITLES[ours]} by {_OUR_SCORE} minus {TITLES[usual]} by its {_USUAL_SCORE}: "
            f"{100 * found['near_unknown']['difference']:+.1f}{signed_interval(found['near_unknown'])} points, by "
            "their own spread, not corrected."
        )
    return said


def draw(found: dict[str, Any], file: Path) -> Path:
    """A panel a measure: the mean of each method with its interval, and its draws."""
    from prl_keras.visualization.canvas import new_figure, save_figure

    columns, methods = 3, _methods(found)
    ours = _ending(methods, _OURS)
    rows = -(-len(found["measures"]) // columns)
    figure, grid = new_figure(4.3 * columns, 2.1 * rows + 0.3, columns, rows)
    panels = list(np.ravel(grid))
    for axes, (name, measure) in zip(panels, found["measures"].items(), strict=False):
        for place, source in enumerate(reversed(methods)):
            of, colour = measure["methods"][source], "tab:red" if source == ours else "tab:blue"
            axes.plot(100 * np.array(of["values"]), [place] * len(of["values"]), ".", color=colour, alpha=0.4)
            reach = None if of["low"] is None else [[100 * (of["mean"] - of["low"])], [100 * (of["high"] - of["mean"])]]
            axes.errorbar(100 * of["mean"], place, xerr=reach, fmt="o", color=colour, capsize=3)
        axes.set_yticks(range(len(methods)), [TITLES[source] for source in reversed(methods)], fontsize=8)
        left, right = axes.get_xlim()  # intervals of two draws reach far beyond what a share can be
        axes.set_xlim(max(left, 0), right if name.startswith(ERRORS) else min(right, 100))
        axes.tick_params(axis="x", labelsize=8)
        axes.set_title(f"{name}, %", fontsize=9)
        axes.grid(alpha=0.3, axis="x")
    for axes in panels[len(found["measures"]) :]:
        axes.set_axis_off()
    return save_figure(figure, file)


def _difference(test: dict[str, Any]) -> str:
    star = " \\*" if test["p"] is not None and test["p"] < LEVEL else ""
    return f"{100 * test['difference']:+.1f}{signed_interval(test)}{star}"
