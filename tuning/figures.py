"""PNG figures of a search: parallel coordinates and importances."""

from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.tuning.report import Row, best_first
from prl_keras.tuning.space import NAMES
from prl_keras.visualization.canvas import new_figure, save_figure
from prl_keras.visualization.text import class_labels, drawable

LABELS = {
    "freeze": "encoder's weights",
    "learning_rate": "learning rate",
    "weight_decay": "weight decay",
    "augment": "augmentation",
}
FEWEST = 5  # trials, for importances
TREES, REPEATS = 300, 30
MOST_MARKS = 40  # of one column; of more choices only some are named


def varied(rows: list[Row]) -> list[str]:
    """The hyperparameters that have more than one value among the trials."""
    return [name for name in NAMES if len({row.values[name] for row in rows}) > 1]


def coordinates(rows: list[Row], name: str) -> tuple[np.ndarray, dict[float, str]]:
    """(n,) numbers for one hyperparameter, and what to write at which of them."""
    values = [row.values[name] for row in rows]
    if name == "learning_rate":
        low, high = np.floor(np.log10(min(values))), np.ceil(np.log10(max(values)))
        return np.log10(values), {float(power): f"1e{power:.0f}" for power in np.arange(low, high + 1)}
    choices = sorted(set(values))
    words = {True: "frozen", False: "unfrozen"} if name == "freeze" else {}
    texts = class_labels([words.get(choice, str(choice)) for choice in choices])
    named = range(0, len(choices), -(-len(choices) // MOST_MARKS))
    return np.array([choices.index(value) for value in values], float), {float(i): texts[i] for i in named}


def plot_parallel(rows: list[Row], name: str, file: Path) -> Path:
    """A line a trial through its values, coloured by validation accuracy; the best one thick."""
    names = varied(rows)
    accuracies = np.array([100 * row.validation["value"] for row in rows])
    columns = [_unit_column(*coordinates(rows, name)) for name in names]
    most = max((len(marks) for _, marks in columns), default=0)
    longest = max((len(text) for _, marks in columns for text in marks.values()), default=0)
    figure, axes = new_figure(max(7, max(1.6, 0.09 * longest) * len(names) + 2.5), max(5, 0.22 * most))
    ticks = np.linspace(accuracies.min(), accuracies.max() or 1, 5)
    columns.append(_unit_column(accuracies, {float(tick): f"{tick:.1f}" for tick in ticks}))
    shift = np.random.default_rng(0).uniform(-0.03, 0.03, (len(rows), len(columns)))
    shift *= [name != "learning_rate" for name in names] + [False]  # equal choices would hide each other
    heights = np.stack([column for column, _ in columns], axis=1) + shift
    colours, scale = _colours(accuracies)
    best = best_first(rows)[0]
    for row, line, colour in sorted(zip(rows, heights, colours, strict=True), key=lambda item: item[0] is best):
        axes.plot(line, color=colour, linewidth=3.5 if row is best else 1.2, alpha=1 if row is best else 0.8)
    for place, (_, marks) in enumerate(columns):
        axes.axvline(place, color="black", linewidth=0.8)
        for height, text in marks.items():
            axes.text(
                place + 0.03, height, text, fontsize=8, va="center", bbox={"facecolor": "white", "pad": 0.8, "lw": 0}
            )
    labels = [*(LABELS.get(name, name) for name in names), "validation\naccuracy, %"]
    axes.set(xticks=range(len(columns)), xticklabels=labels, yticks=[], xlim=(-0.1, len(columns) - 0.6))
    axes.set_title(f"{drawable(name, 50)}: {len(rows)} trials; thick: the best, {accuracies.max():.1f} %")
    for side in axes.spines.values():
        side.set_visible(False)
    figure.colorbar(scale, ax=axes, label="validation accuracy, %", shrink=0.8)
    return save_figure(figure, file)


def _unit_column(numbers: np.ndarray, marks: dict[float, str]) -> tuple[np.ndarray, dict[float, str]]:
    """Both scaled so that the column spans 0..1."""
    everything = np.array([*numbers, *marks])
    low, span = everything.min(), np.ptp(everything) or 1.0
    return (numbers - low) / span, {(place - low) / span: text for place, text in marks.items()}


def _colours(accuracies: np.ndarray) -> tuple[np.ndarray, Any]:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(accuracies.min(), accuracies.max()), "viridis")
    return scale.to_rgba(accuracies), scale


def importances(rows: list[Row]) -> tuple[list[str], np.ndarray, np.ndarray, float]:
    """Names, mean and standard deviation of the permutation importances, and the forest's out-of-bag R2."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    names = varied(rows)
    inputs = np.stack([coordinates(rows, name)[0] for name in names], axis=1)
    target = np.array([row.validation["value"] for row in rows])
    forest = RandomForestRegressor(TREES, oob_score=True, random_state=0).fit(inputs, target)
    result = permutation_importance(forest, inputs, target, n_repeats=REPEATS, random_state=0)
    return names, result.importances_mean, result.importances_std, float(forest.oob_score_)


def plot_importance(rows: list[Row], name: str, file: Path) -> Path | None:
    """Bars of the importances; None (no picture) with too few trials to say anything."""
    if len(rows) < FEWEST or not varied(rows) or len({row.validation["correct"] for row in rows}) < 2:
        return None
    names, mean, deviation, fit = importances(rows)
    order = np.argsort(mean)
    figure, axes = new_figure(8, 0.5 * len(names) + 2)
    axes.barh([LABELS.get(names[i], names[i]) for i in order], mean[order], xerr=deviation[order], color="#3b6ea5")
    axes.set(xlabel="loss of R² when this column is shuffled (bar: mean, line: standard deviation)")
    axes.set_title(
        f"{drawable(name, 50)}: what moved validation accuracy over {len(rows)} trials\n"
        f"permutation importance, {REPEATS} repeats, random forest of {TREES} trees; its out-of-bag R² is {fit:.2f}"
        + (": too low to trust the bars" if fit < 0.3 else ""),
        fontsize=10,
    )
    axes.grid(axis="x", alpha=0.3)
    return save_figure(figure, file)
