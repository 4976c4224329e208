"""How often the tests over seeds find a difference that is not there, and one that is, in simulated tables.

    python benchmarks/seed_tests.py docs/results/seed_tests.json

A table has 22 rows and an accuracy of each for every seed: normal, standard deviation 1, and an effect of the seed that
all rows share. `false`: share of tables without any difference in which one is called significant (5 %, corrected);
`found`: share of tables in which a difference of 3 standard deviations of one row against the control is.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from prl_keras.evaluation.statistics import compare_seeds, compare_with_control, corrected

ROWS, TABLES, PLANTED, SEED_EFFECT = 22, 200, 3.0, 3.0
# name -> standard deviation of the control, of the next row, of all others
SPREADS = {
    "all alike": (1.0, 1.0, 1.0),
    "one row varies three times as much": (1.0, 3.0, 1.0),
    "the control varies twice as much": (2.0, 1.0, 1.0),
    "the control varies three times as much": (3.0, 1.0, 1.0),
}


def significant(tests: list[dict]) -> np.ndarray:
    return np.array(corrected([test["p"] for test in tests])) < 0.05


def simulate(spread: tuple[float, ...], seeds: int, rng: np.random.Generator) -> dict[str, float]:
    sd = np.array([*spread[:2], *[spread[2]] * (ROWS - 2)])
    counts = dict.fromkeys(("false", "found", "found_by_its_own_spread"), 0)
    for _ in range(TABLES):
        values = rng.normal(size=(ROWS, seeds)) * sd[:, None] + SEED_EFFECT * rng.normal(size=seeds)
        counts["false"] += significant(compare_with_control(list(values[1:]), values[0])).any()
        values[5] += PLANTED
        counts["found"] += significant(compare_with_control(list(values[1:]), values[0]))[4]
        counts["found_by_its_own_spread"] += significant([compare_seeds(row, values[0]) for row in values[1:]])[4]
    return {name: round(float(count / TABLES), 3) for name, count in counts.items()}


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    result = {
        name: {f"{seeds} seeds": simulate(spread, seeds, rng) for seeds in (3, 5, 6, 10)}
        for name, spread in SPREADS.items()
    }
    text = json.dumps(result, indent=2)
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
