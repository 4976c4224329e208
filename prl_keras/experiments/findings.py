"""What the table says and what it does not, in sentences made from its numbers."""

import numpy as np

from prl_keras.experiments.analysis import Analysis, Comparison
from prl_keras.experiments.table import PAPER, SELF_SUPERVISED, STRONG_OURS, STRONG_SUPERVISED, SUPERVISED

_LONG = 6  # rows


def findings(analysis: Analysis) -> list[str]:
    """Paragraphs in Markdown, the ones that the rows at hand allow."""
    paragraphs = [
        _against(analysis, SUPERVISED, "supervised ResNet-18"),
        _against(analysis, SELF_SUPERVISED, "SimCLR (unfrozen, linear)"),
        _against(analysis, STRONG_SUPERVISED, "the strong ResNet-18, cross-entropy by the strong recipe"),
        _against(analysis, STRONG_OURS, "PRL-2 by the strong recipe"),
        _choice(analysis),
        _against(analysis, "pca", "PCA with logistic regression, the floor"),
        _family(analysis, "Query against standard", "fine-tuning"),
        _family(analysis, "Leave-one-out against query", "fine-tuning"),
        _family(analysis, "With light augmentation against without", "row"),
        _optimism(analysis),
        _calibration(analysis),
        _labels(analysis),
    ]
    return [text for text in paragraphs if text]


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _with_interval(title: str, comparison: Comparison) -> str:
    text = f"{title} ({_points(comparison.difference)} points"
    if comparison.low is not None:
        text += f", {_points(comparison.low)} to {_points(comparison.high)} over seeds"
    return f"{text})"


def _against(analysis: Analysis, reference: str, name: str) -> str | None:
    base = analysis.row(reference)
    compared = [(f.row.title, f.against[reference]) for f in analysis.rows if reference in f.against]
    if base is None or not compared:
        return None
    start = f"**Against {name}** ({100 * base.accuracy['test']['mean']:.1f} %), {_count(len(compared), 'row')}. "
    if len(analysis.replicates) == 1:
        return start + _one_seed(compared)
    better = [(t, c) for t, c in compared if c.significant and c.difference > 0]
    worse = [(t, c) for t, c in compared if c.significant and c.difference < 0]
    undecided = len(compared) - len(better) - len(worse)
    parts = [f"Significantly better: {listed(better)}." if better else "None is significantly better."]
    parts.append(f"Significantly worse: {listed(worse)}." if worse else "None is significantly worse.")
    if undecided:
        few = f"; {len(analysis.replicates)} seeds see only large ones" if len(analysis.replicates) < 5 else ""
        rest = _count(undecided, "row") if undecided == len(compared) else f"the other {_count(undecided, 'row')}"
        parts.append(f"For {rest} these runs show no difference that holds over images and seeds{few}.")
    return start + " ".join(parts)


def _choice(analysis: Analysis) -> str | None:
    """PRL-2 or plain supervision, as far as accuracy on these classes decides it."""
    ours, several = analysis.row(STRONG_OURS), len(analysis.replicates) > 1
    if ours is None or STRONG_SUPERVISED not in ours.against or not several:
        return None
    against = ours.against[STRONG_SUPERVISED]
    found = _with_interval("PRL-2 minus cross-entropy, both by the strong recipe", against)
    if not against.significant:
        words = "for accuracy on these classes these runs speak for neither; plain supervision is one training less"
    elif against.difference > 0:
        words = "with labels as many as these PRL-2 is the better choice"
    else:
        words = "with labels as many as these plain supervision is the better choice"
    return f"**PRL-2 or plain supervision?** {found}: {words}."


def listed(compared: list[tuple[str, Comparison]]) -> str:
    """Each with its interval; of a long list the ends."""
    ordered = sorted(compared, key=lambda item: item[1].difference)
    if len(ordered) <= _LONG:
        return "; ".join(_with_interval(t, c) for t, c in compared)
    return f"{len(ordered)} rows, from {_with_interval(*ordered[0])} to {_with_interval(*ordered[-1])}"


def _one_seed(compared: list[tuple[str, Comparison]]) -> str:
    above = [(t, c) for t, c in compared if c.over_images and c.difference > 0]
    below = [(t, c) for t, c in compared if c.over_images and c.difference < 0]
    text = "With one training of each row nothing can be said about the methods. On images like these test images, "
    text += f"these models are better: {listed(above)}; " if above else "none of these models is better; "
    return text + (f"these are worse: {listed(below)}." if below else "none is worse.")


def _family(analysis: Analysis, title: str, unit: str) -> str | None:
    """One question, asked of several pairs of rows."""
    family = analysis.families.get(title)
    if not family:
        return None
    compared = [comparison for _, comparison in family]
    described = "; ".join(_with_interval(name, comparison) for name, comparison in family)
    start = f"**{title}**, {_count(len(family), unit)}: {described}. "
    if len(analysis.replicates) == 1:
        hold = sum(c.over_images for c in compared)
        return f"{start}{hold} of {len(compared)} hold over test images; one training each."
    few = f" {len(analysis.replicates)} seeds of a pair see only large ones." if len(analysis.replicates) < 5 else ""
    return (
        f"{start}{sum(c.significant for c in compared)} of {len(compared)} are significant.{few} The intervals are of "
        "each pair alone; significance is corrected for all of them and asks for the images too."
    )


def _optimism(analysis: Analysis) -> str | None:
    rows = [f for f in analysis.rows if f.maximum]
    if not rows:
        return None
    gains = [f.maximum["mean"] - f.accuracy["test"]["mean"] for f in rows]
    prl = [f for f in rows if f.row.key in PAPER and f.row.head]
    text = (
        f"**Optimism.** Choosing the best epoch on the test images, as the report did, adds {_points(min(gains))} to "
        f"{_points(max(gains))} points to the last epoch ({_points(float(np.mean(gains)))} on average over "
        f"{_count(len(gains), 'row')}). What part of it new images would show cannot be said: they chose it."
    )
    base = analysis.row(SUPERVISED)
    if base is None or not prl or base.maximum is None:
        return text
    best = max(prl, key=lambda f: f.maximum["mean"])
    return (
        f"{text} Read in the report's way the best of its PRL and SimCLR rows is {best.row.title} with "
        f"{100 * best.maximum['mean']:.1f} %, against {100 * base.maximum['mean']:.1f} % of the supervised ResNet-18."
    )


def _calibration(analysis: Analysis) -> str | None:
    eces = sorted((float(np.mean(f.calibration["eces"])), f.row.title) for f in analysis.rows)
    if len(eces) < 2:
        return None
    return (
        f"**Calibration.** The expected calibration error goes from {100 * eces[0][0]:.1f} % ({eces[0][1]}) to "
        f"{100 * eces[-1][0]:.1f} % ({eces[-1][1]}); no temperature was fitted."
    )


def _labels(analysis: Analysis) -> str | None:
    if not analysis.labels:
        return None
    parts = []
    for name, files in analysis.labels.items():
        few, many = files[0]["points"][0], files[0]["points"][-1]
        if few is many:
            return None
        means = [np.mean([file["points"][at]["test"]["value"] for file in files]) for at in (0, -1)]
        parts.append(f"{name} {100 * means[0]:.1f} and {100 * means[1]:.1f} %")
    sizes = f"{few['labels_per_class']} and {many['labels_per_class']} labels a class"
    simclr = ", so only SimCLR's curve is of features that never saw labels" if "simclr" in analysis.labels else ""
    return (
        f"**Label efficiency**, a linear probe with {sizes}: {', '.join(parts)}. Read it with care: every encoder but "
        f"SimCLR's was pre-trained with all labels{simclr}; and the probe's C is chosen on all validation labels."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
