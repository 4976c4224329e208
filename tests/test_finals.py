"""What benchmarks/finals.py makes of the lines that it keeps."""

import base64
import re
import sys

import numpy as np
import pytest
from faults import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from finals import FINALISTS, tables

N = 1000


def line(row: str, seed: int, right: np.ndarray) -> dict:
    names = ("linear probe", "kNN", "nearest prototype", "centred prototype", "ridge", "average")
    return {
        "row": row,
        "labels": 450,
        "seed": seed,
        "accuracy": {"test": float(right.mean())},
        "right": base64.b64encode(np.packbits(right).tobytes()).decode(),
        "n": len(right),
        "of_features": dict.fromkeys(names, 0.5),
        "silhouette": 0.25,
        "seconds": 60.0,
    }


def test_the_tables_say_what_the_lines_hold() -> None:
    rng = np.random.default_rng(0)
    lines = []
    for seed in range(3):
        base = rng.random(N) < 0.8
        better = base | (rng.random(N) < 0.4)
        lines += [line("strong-resnet18", seed, base), line("strong-prl-frozen-linear", seed, better)]
    lines.append(line("strong-supcon-frozen-linear", 7, base))  # of a seed that the reference has not
    accuracies, features = tables(lines)
    plain, prl = (np.mean([each["accuracy"]["test"] for each in lines if each["row"] == row]) for row in FINALISTS[:2])
    rows = {cells[1]: cells[2:] for cells in (re.split(r" *\| *", text) for text in accuracies.splitlines()[2:])}
    assert [float(rows[name][1].split()[0]) for name in ("Strong ResNet-18", "Strong PRL-2, frozen, linear")] == [
        pytest.approx(100 * plain, abs=0.006),
        pytest.approx(100 * prl, abs=0.006),
    ]
    assert rows["Strong PRL-2, frozen, linear"][0] == "3"
    difference, low, high = map(float, re.findall(r"[+-]\d+\.\d+", rows["Strong PRL-2, frozen, linear"][4]))
    assert low < 100 * (prl - plain) < high
    assert difference == pytest.approx(100 * (prl - plain), abs=0.006)
    assert float(rows["Strong PRL-2, frozen, linear"][5]) < 1e-6
    assert rows["Strong SupCon, frozen, linear"][4:6] == ["", ""], "no seed to compare it on"
    assert "| Strong ResNet-18 | 50.00 | 50.00 | 50.00 | 50.00 | 50.00 | 50.00 | 0.250 | 1 |" in features
