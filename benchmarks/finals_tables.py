"""What the finalists' lines say: tables of accuracies, features, questions and classes, and a picture (finals.py)."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lines import unpacked

from prl_keras.evaluation import statistics
from prl_keras.experiments.table import ROWS
from prl_keras.markdown import pipe_table

ALL = 450  # training images a class
SUPERVISED, OURS = "strong-resnet18", "strong-prl-frozen-linear"
LOO, SUPCON, SIMCLR = (f"strong-{name}-frozen-linear" for name in ("loo", "supcon", "simclr"))
PAPER = "query-frozen-linear"  # whose recipe does not fit fewer images
FINALISTS = (SUPERVISED, OURS, SUPCON, LOO, SIMCLR, PAPER)
HEAD, PROTOTYPE, CHOSEN = "own head", "nearest prototype", "what validation chose"
CLASSIFIERS = ("linear probe", "kNN", PROTOTYPE, "centred prototype", "ridge", "average")
_LEAST = 0.0001  # p that is told


class Question(NamedTuple):
    """Is one row's classifier more accurate than another's, on the same seeds and images?"""

    row: str
    classifier: str
    other: str
    of_other: str


QUESTIONS = (
    *(Question(OURS, HEAD, other, HEAD) for other in (SUPERVISED, SUPCON, SIMCLR, LOO, PAPER)),
    Question(OURS, PROTOTYPE, SUPERVISED, HEAD),
    Question(OURS, PROTOTYPE, SUPERVISED, PROTOTYPE),
    Question(OURS, PROTOTYPE, OURS, CHOSEN),
    Question(OURS, CHOSEN, SUPERVISED, CHOSEN),
)

Trained = dict[str, dict[int, dict[str, Any]]]  # row -> seed -> its line


def answered(line: dict[str, Any], classifier: str) -> np.ndarray:
    """(n,) bool: which test images that classifier of a training answered rightly."""
    if classifier == CHOSEN:  # of equals the first, as they stand in the line
        classifier = max(line["classifiers"], key=lambda name: line["classifiers"][name]["validation"])
    return unpacked(line["classifiers"][classifier]["right"], line["n"])


def tables(lines: list[dict[str, Any]]) -> list[str]:
    """Of each number of labels: accuracies, features, questions, classes; then all numbers of labels side by side, and
    the questions that have one row for each."""
    counts = sorted({line["labels"] for line in lines}, reverse=True)
    by_labels = {labels: _by_row(lines, labels) for labels in counts}
    found = []
    for labels, rows in by_labels.items():
        found += [_accuracies(labels, rows), _features(labels, rows), _questions(labels, rows), _recalls(labels, rows)]
    if len(counts) > 1:
        found += [_by_number_of_labels(by_labels), _questions_by_number_of_labels(by_labels)]
    return found


def _by_row(lines: list[dict[str, Any]], labels: int) -> Trained:
    found: Trained = {}
    for row in FINALISTS:
        if own := {line["seed"]: line for line in lines if (line["row"], line["labels"]) == (row, labels)}:
            found[row] = dict(sorted(own.items()))
    return found


def _accuracies(labels: int, rows: Trained) -> str:
    head = [f"{labels} labels a class", "seeds", "test % by its own head", "95 % over seeds", "95 % over images"]
    head += [CHOSEN, "minutes"]
    found = []
    for row, trained in rows.items():
        correct = np.stack([answered(line, HEAD) for line in trained.values()])
        mean = statistics.mean_over_seeds(correct.mean(axis=1))
        chosen = np.mean([answered(line, CHOSEN).mean() for line in trained.values()])
        spread = "" if mean["sd"] is None else f" ± {100 * mean['sd']:.2f}"
        minutes = np.mean([line["seconds"] for line in trained.values()]) / 60
        own = [f"{100 * mean['mean']:.2f}{spread}", between(mean), between(statistics.interval_over_images(correct))]
        found.append([ROWS[row].title, str(len(trained)), *own, f"{100 * chosen:.2f}", f"{minutes:.1f}"])
    return pipe_table(head, found, left=(0,))


def _features(labels: int, rows: Trained) -> str:
    found = []
    for row, trained in rows.items():
        of = [np.array([answered(line, name).mean() for line in trained.values()]) for name in CLASSIFIERS]
        apart = statistics.mean_over_seeds(np.array([line["silhouette"] for line in trained.values()]))
        spread = "" if apart["sd"] is None else f" ± {apart['sd']:.3f}"
        found.append([ROWS[row].title, *map(_mean_and_sd, of), f"{apart['mean']:.3f}{spread}"])
    return pipe_table([f"{labels} labels a class: features of", *CLASSIFIERS, "silhouette"], found, left=(0,))


def _recalls(labels: int, rows: Trained) -> str:
    """In %, means over seeds: where the errors are."""
    classes = list(next(iter(next(iter(rows.values())).values()))["recall"])
    found = [
        [ROWS[row].title, *(f"{100 * np.mean([line['recall'][k] for line in trained.values()]):.0f}" for k in classes)]
        for row, trained in rows.items()
    ]
    return pipe_table([f"{labels} labels a class: % of each class found", *classes], found, left=(0,))


def _questions(labels: int, rows: Trained) -> str:
    """Each p is corrected for all of the table (Benjamini & Hochberg 1995)."""
    asked = []
    for question in QUESTIONS:
        if pairs := _pairs(question, rows):
            asked.append((question, len(pairs), *_compared(pairs)))
    by_seeds = statistics.with_corrected([each[2] for each in asked])
    by_images = statistics.corrected([each[3]["p"] for each in asked])
    found = []
    for (question, seeds, _, images), test, p in zip(asked, by_seeds, by_images, strict=True):
        words = f"{_named(question.row, question.classifier)} minus {_named(question.other, question.of_other)}"
        figures = [f"{100 * test['difference']:+.2f}", between(test, "+.2f"), between(images, "+.2f")]
        found.append([words, str(seeds), *figures, chance(test["p"]), chance(p)])
    head = [f"{labels} labels a class, points", "seeds", "difference", "95 % over seeds", "95 % over images"]
    return pipe_table([*head, "p over seeds", "p over images"], found, left=(0,))


def chance(p: float | None) -> str:
    return "" if p is None else f"{p:.2g}" if p >= _LEAST else f"below {_LEAST}"


def over_images(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Of the difference of two (seeds, n) right or wrong, the trained models as they are: interval and p."""
    from scipy.stats import ttest_1samp

    interval = ttest_1samp(first.mean(axis=0) - second.mean(axis=0), 0.0).confidence_interval(0.95)
    return {"low": interval.low, "high": interval.high, "p": statistics.compare_images(first, second)}


def _by_number_of_labels(by_labels: dict[int, Trained]) -> str:
    """Mean over seeds and its 95 % interval, own head; of PRL-2 the nearest prototype too."""
    shown = [(row, HEAD) for row in FINALISTS if row != PAPER] + [(OURS, PROTOTYPE)]
    rows = []
    for labels, trained in sorted(by_labels.items()):
        cells = []
        for row, classifier in shown:
            accuracies = np.array([answered(line, classifier).mean() for line in trained.get(row, {}).values()])
            mean = statistics.mean_over_seeds(accuracies) if len(accuracies) else None
            ends = f" ({between(mean, '.1f')})" if mean and mean["low"] is not None else ""
            cells.append(f"{100 * mean['mean']:.1f}{ends}" if mean else "")
        rows.append([str(labels), *cells])
    return pipe_table(["labels a class", *(_named(*each) for each in shown)], rows)


def _questions_by_number_of_labels(by_labels: dict[int, Trained]) -> str:
    """Difference, and its 95 % interval over seeds / over images; nothing is corrected."""
    asked = [each for each in QUESTIONS if each.row == OURS and each.other in (SUPERVISED, SUPCON)]
    asked = [each for each in asked if CHOSEN not in each]
    head = [f"{_named(q.row, q.classifier)} minus {_named(q.other, q.of_other)}" for q in asked]
    few = {labels: trained for labels, trained in by_labels.items() if labels < ALL}
    rows = [[str(labels), *(_answer(q, [trained]) for q in asked)] for labels, trained in sorted(by_labels.items())]
    if len(few) > 1:
        rows.append([f"all below {ALL}", *(_answer(q, list(few.values())) for q in asked)])
    return pipe_table(["labels a class, points", *head], rows)


def _answer(question: Question, trainings: list[Trained]) -> str:
    """Of all seeds of these trainings together; empty: none has both rows."""
    pairs = [pair for trained in trainings for pair in _pairs(question, trained)]
    if not pairs:
        return ""
    over_seeds, of_images = _compared(pairs)
    both = " / ".join(between(each, "+.1f") for each in (over_seeds, of_images))
    return f"{100 * over_seeds['difference']:+.2f} ({both})"


def _pairs(question: Question, trained: Trained) -> list[tuple[np.ndarray, np.ndarray]]:
    """Which images both answered rightly, of each seed that both rows have."""
    first, second = trained.get(question.row, {}), trained.get(question.other, {})
    return [
        (answered(first[seed], question.classifier), answered(second[seed], question.of_other))
        for seed in sorted(first.keys() & second.keys())
    ]


def _compared(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[dict[str, float | None], dict[str, float]]:
    """Over seeds, and over images."""
    first, second = (np.stack(each) for each in zip(*pairs, strict=True))
    return statistics.compare_seeds(first.mean(axis=1), second.mean(axis=1)), over_images(first, second)


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """Left, each row with all labels: its head and the nearest prototype; right, heads by the number of labels, if
    there is more than one. Without SimCLR's, which are ten points and more below the others."""
    from prl_keras.visualization.canvas import add_legend, new_figure, save_figure

    lines = [line for line in lines if line["row"] != SIMCLR]
    counts = sorted({line["labels"] for line in lines})
    figure, panels = new_figure(11 if len(counts) > 1 else 7, 3.6, columns=2 if len(counts) > 1 else 1)
    left, *others = np.ravel(panels)
    most = counts[-1]
    rows = list(_by_row(lines, most).items())
    for classifier, colour, shift in ((HEAD, "tab:blue", -0.12), (PROTOTYPE, "tab:orange", 0.12)):
        for place, (_, trained) in enumerate(rows):
            mean, half = _mean_and_half(trained, classifier)
            label = classifier if place == 0 else None
            left.errorbar(mean, place + shift, xerr=half, color=colour, marker="o", capsize=3, label=label)
    left.set(yticks=range(len(rows)), yticklabels=[_named(row, HEAD) for row, _ in rows])
    trainings = " to ".join(map(str, sorted({len(trained) for _, trained in rows})))
    left.set(xlabel=f"test accuracy, %; bars: 95 % over {trainings} trainings", title=f"{most} labels a class")
    left.invert_yaxis()
    for right in others:
        for place, row in enumerate(row for row in FINALISTS if row != PAPER):
            points = [(labels, _by_row(lines, labels).get(row)) for labels in counts]
            means = [(labels, *_mean_and_half(trained, HEAD)) for labels, trained in points if trained]
            if len(means) > 1:
                x, y, half = zip(*means, strict=True)
                x = [labels * 1.04 ** (place - 1) for labels in x]  # beside each other
                right.errorbar(x, y, yerr=half, marker="o", markersize=4, capsize=3, label=_named(row, HEAD))
        right.set(xscale="log", xticks=counts, xticklabels=counts, xlabel="labels a class", title="fewer labels")
        right.minorticks_off()
    for axes in (left, *others):
        axes.grid(alpha=0.3)
        add_legend(axes)
    save_figure(figure, file)


def _mean_and_half(trained: dict[int, dict[str, Any]], classifier: str) -> tuple[float, float]:
    """In %: the mean over trainings and half of its 95 % interval, 0 of one training."""
    mean = statistics.mean_over_seeds(np.array([answered(line, classifier).mean() for line in trained.values()]))
    return 100 * mean["mean"], 0.0 if mean["low"] is None else 50 * (mean["high"] - mean["low"])


def _named(row: str, classifier: str) -> str:
    title = ROWS[row].title.removesuffix(", frozen, linear")
    return title if classifier == HEAD else f"{title} ({classifier})"


def _mean_and_sd(values: np.ndarray) -> str:
    return f"{100 * values.mean():.2f}" + (f" ± {100 * values.std(ddof=1):.2f}" if len(values) > 1 else "")


def between(figure: dict[str, Any], form: str = ".2f") -> str:
    return "" if figure["low"] is None else f"{100 * figure['low']:{form}} to {100 * figure['high']:{form}}"
