"""What the table says and what it does not, in sentences made from its numbers. Imports `analysis` and `table`."""

import numpy as np

from prl_keras.experiments.analysis import Analysis, Comparison, RowFigures, compare_pairs
from prl_keras.experiments.table import PAPER, SELF_SUPERVISED, SUPERVISED

_LONG = 6  # rows


def findings(analysis: Analysis) -> list[str]:
    """Paragraphs in Markdown, the ones that the rows at hand allow."""
    paragraphs = [
        _against(analysis, SUPERVISED, "supervised ResNet-18"),
        _against(analysis, SELF_SUPERVISED, "SimCLR (unfrozen, linear)"),
        _against(analysis, "pca", "PCA with logistic regression, the floor"),
        _between(analysis, "query", "standard", "Query against standard"),
        _between(analysis, "loo", "query", "Leave-one-out against query"),
        _augmentation(analysis),
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


def listed(compared: list[tuple[str, Comparison]]) -> str:
    """Each with its interval; of a long list the ends."""
    ordered = sorted(compared, key=lambda item: item[1].difference)
    if len(ordered) <= _LONG:
        return "; ".join(_with_interval(t, c) for t, c in compared)
    return f"{len(ordered)} rows, from {_with_interval(*ordered[0])} to {_with_interval(*ordered[-1])}"


def _one_seed(compared: list[tuple[str, Comparison]]) -> str:
    above = [_with_interval(t, c) for t, c in compared if c.over_images and c.difference > 0]
    below = [_with_interval(t, c) for t, c in compared if c.over_images and c.difference < 0]
    text = "With one training of each row nothing can be said about the methods. On images like these test images, "
    text += f"these models are better: {'; '.join(above)}; " if above else "none of these models is better; "
    return text + (f"these are worse: {'; '.join(below)}." if below else "none is worse.")


def _between(analysis: Analysis, first: str, second: str, title: str) -> str | None:
    """The same fine-tuning on two encoders."""
    pairs = []
    for f in analysis.rows:
        if f.row.source == first and f.row.head:
            other = analysis.row(f.row.key.replace(first, second, 1))
            if other is not None:
                pairs.append((f, other))
    if not pairs:
        return None
    return _family(analysis, pairs, title, "fine-tuning")


def _augmentation(analysis: Analysis) -> str | None:
    pairs = []
    for f in analysis.rows:
        if "-light" in f.row.source:
            plain = analysis.row(f.row.key.replace("-light", ""))
            if plain is not None:
                pairs.append((f, plain))
    return _family(analysis, pairs, "With light augmentation against without", "row") if pairs else None


def _family(analysis: Analysis, pairs: list[tuple[RowFigures, RowFigures]], title: str, unit: str) -> str:
    compared = compare_pairs(pairs)
    described = "; ".join(_with_interval(f.row.title, c) for (f, _), c in zip(pairs, compared, strict=True))
    if len(analysis.replicates) == 1:
        verdict = f"{sum(c.over_images for c in compared)} of {len(compared)} hold over test images; one training each"
    else:
        verdict = (
            f"{sum(c.significant for c in compared)} of {len(compared)} are significant; the intervals are of each "
            "pair alone, significance is corrected for all of them and asks for the images too"
        )
    start = f"**{title}**, {_count(len(pairs), unit)}: "
    return f"{start}{described}. {verdict}."


def _optimism(analysis: Analysis) -> str | None:
    rows = [f for f in analysis.rows if f.maximum]
    if not rows:
        return None
    gains = [f.maximum["mean"] - f.accuracy["test"]["mean"] for f in rows]
    prl = [f for f in rows if f.row.key in PAPER and f.row.head]
    text = (
        f"**Optimism.** Choosing the best epoch on the test images, as the report did, adds {_points(min(gains))} to "
        f"{_points(max(gains))} points to the last epoch ({_points(float(np.mean(gains)))} on average over "
        f"{_count(len(gains), 'row')}). None of it is accuracy on new images."
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
    return (
        f"**Label efficiency**, a linear probe with {sizes}: {', '.join(parts)}. Read it with care: every encoder but "
        "SimCLR's was pre-trained with all labels, so only SimCLR's curve says what few labels are worth."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
