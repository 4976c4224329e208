"""Tables that each leave out one domain, and what they say together: pure functions of their result.json."""

from __future__ import annotations

from typing import Any

import numpy as np

from prl_keras.evaluation.statistics import compare_seeds, mean_over_seeds, with_corrected
from prl_keras.experiments.table import STRONG_SUPERVISED, SUPERVISED
from prl_keras.markdown import indented, pipe_table, plain
from prl_keras.screen.console import mean_and_interval, signed_interval
from prl_keras.terminal import as_started

REFERENCES = (STRONG_SUPERVISED, SUPERVISED)


def across(tables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures of each row over all held-out domains.

    Args:
        tables: domain -> what result.json of the table that leaves it out holds.

    Returns:
        rows: of each its accuracy on each domain ("domains"); "mean", over domains, with the interval over seeds;
        "oracle", the same of the best epoch on test; "against", differences of the means to each reference, paired by
        seed, p corrected for the number of rows. choice: the row that validation on the training domains chooses for
        each domain, and the one that test would (Gulrajani & Lopez-Paz 2021: training-domain validation, oracle).
    """
    by_key = {name: {row["row"]: row for row in table["rows"]} for name, table in tables.items()}
    first = next(iter(tables.values()))["rows"]
    rows = [_row(row["row"], row["title"], by_key) for row in first]
    for reference in REFERENCES:
        _compare(rows, reference)
    return {
        "domains": {name: {"test_images": table["test_images"]} for name, table in tables.items()},
        "rows": rows,
        "choice": {name: _choice(list(of.values())) for name, of in by_key.items()},
    }


def _row(key: str, title: str, by_key: dict[str, dict[str, Any]]) -> dict[str, Any]:
    each = {name: rows[key] for name, rows in by_key.items()}
    values = np.array([row["accuracy"]["test"]["values"] for row in each.values()])  # (domains, seeds)
    best = [row["maximum_over_epochs_on_test"] for row in each.values()]
    oracle = None if None in best else mean_over_seeds(np.mean([figure["values"] for figure in best], axis=0))
    means = values.mean(axis=0)
    return {
        "row": key,
        "title": title,
        "domains": {name: row["accuracy"]["test"] for name, row in each.items()},
        "mean": {**mean_over_seeds(means), "values": means.tolist()},
        "oracle": oracle,
        "against": {},
    }


def _compare(rows: list[dict[str, Any]], reference: str) -> None:
    base = next((row for row in rows if row["row"] == reference), None)
    others = [row for row in rows if row is not base]
    if base is None:
        return
    tests = [compare_seeds(np.array(row["mean"]["values"]), np.array(base["mean"]["values"])) for row in others]
    for row, test in zip(others, with_corrected(tests), strict=True):
        row["against"][reference] = test


def _choice(rows: list[dict[str, Any]]) -> dict[str, Any]:
    chosen = max(rows, key=lambda row: row["accuracy"]["validation"]["mean"])
    oracle = max(rows, key=lambda row: row["accuracy"]["test"]["mean"])
    return {
        how: {"row": row["row"], "title": row["title"], "test": row["accuracy"]["test"]["mean"]}
        for how, row in (("validation", chosen), ("oracle", oracle))
    }


def as_markdown(found: dict[str, Any], title: str, command: str) -> str:
    """domains.md: the table, the comparisons, and what a choice on validation would have been worth."""
    names = list(found["domains"])
    head = ["", *(f"{plain(name)} (n = {found['domains'][name]['test_images']:,})" for name in names)]
    head += ["mean over domains", "best epoch on test (oracle)"]
    lines = [
        [
            plain(row["title"]),
            *(mean_and_interval(row["domains"][name]) for name in names),
            mean_and_interval(row["mean"]),
            mean_and_interval(row["oracle"]) if row["oracle"] else "",
        ]
        for row in found["rows"]
    ]
    parts = [
        f"# {plain(title)}: each domain left out once\n",
        "Test accuracy in %, on all pictures of a domain that was neither trained on nor validated on; 95 % "
        f"t-intervals over {found['rows'][0]['mean']['n']} trainings. The oracle is no result, as it was chosen on "
        "test.\n",
        pipe_table(head, lines, left=(0,)),
        "",
        *(f"- {plain(sentence)}" for sentence in sentences(found)),
        "",
        "All figures: domains.json, and the report of each domain in its folder. Made by\n",
        indented(command),
    ]
    return as_started("\n".join(parts)) + "\n"


def sentences(found: dict[str, Any]) -> list[str]:
    """Differences to the references, and the two ways to choose."""
    said = []
    for row in found["rows"]:
        for reference, test in row["against"].items():
            other = next(each["title"] for each in found["rows"] if each["row"] == reference)
            p = "" if test["p"] is None else f", p = {test['p']:.3f}, corrected for the number of rows"
            said.append(
                f"{row['title']} minus {other}: {100 * test['difference']:+.1f} points{signed_interval(test)}{p}."
            )
    for how, words in (
        ("validation", "The row that validation on the training domains chooses"),
        ("oracle", "The row that is best on test, which nobody knows before"),
    ):
        chosen = {name: choice[how] for name, choice in found["choice"].items()}
        mean = 100 * float(np.mean([each["test"] for each in chosen.values()]))
        each = "; ".join(f"{name}: {choice['title']}" for name, choice in chosen.items())
        said.append(f"{words}: {mean:.1f} % on average ({each}).")
    return said
