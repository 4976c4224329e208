"""What benchmarks/finals.py makes of the lines that it keeps."""

import base64
import re
import sys

import numpy as np
import pytest
from faults import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from finals_tables import CHOSEN, CLASSIFIERS, FINALISTS, HEAD, PROTOTYPE, answered, draw, tables

N = 1000
RESNET, PRL = "Strong ResNet-18", "Strong PRL-2"


def line(row: str, seed: int, right: np.ndarray, prototype: np.ndarray | None = None, labels: int = 450) -> dict:
    answers = dict.fromkeys((HEAD, *CLASSIFIERS), right) | {PROTOTYPE: right if prototype is None else prototype}
    return {
        "row": row,
        "labels": labels,
        "seed": seed,
        "n": len(right),
        "classifiers": {
            name: {"validation": 0.5 + 0.1 * (name == PROTOTYPE), "right": base64.b64encode(np.packbits(each)).decode()}
            for name, each in answers.items()
        },
        "recall": {"Bag": 0.9, "Shirt": 0.6},
        "silhouette": 0.25,
        "seconds": 60.0,
    }


def rows_of(table: str) -> dict[str, list[str]]:
    found = [re.split(r" *\| *", text)[1:-1] for text in table.splitlines()[2:]]
    return {cells[0]: cells[1:] for cells in found}


@pytest.fixture
def lines() -> list[dict]:
    """PRL-2 is better by about eight points with its head, and as good as the other with its prototypes."""
    rng, found = np.random.default_rng(0), []
    for seed in range(3):
        base = rng.random(N) < 0.8
        better = base | (rng.random(N) < 0.4)
        found += [line(FINALISTS[0], seed, base), line(FINALISTS[1], seed, better, base)]
    return [*found, line(FINALISTS[2], 7, base)]  # of a seed that no other row has


def test_the_tables_say_what_the_lines_hold(lines: list[dict]) -> None:
    accuracies, features, questions, recalls = tables(lines)
    means = [
        100 * np.mean([answered(each, HEAD).mean() for each in lines if each["row"] == row]) for row in FINALISTS[:2]
    ]
    rows = rows_of(accuracies)
    for name, mean in zip((RESNET, f"{PRL}, frozen, linear"), means, strict=True):
        assert float(rows[name][1].split()[0]) == pytest.approx(mean, abs=0.006)
        assert rows[name][0] == "3"
    chosen = float(rows[f"{PRL}, frozen, linear"][4])
    assert chosen == pytest.approx(means[0], abs=0.006), "validation prefers the prototypes"
    assert rows_of(features)[RESNET][-1] == "0.250 ± 0.000"
    assert rows_of(recalls)[RESNET] == ["90", "60"]
    asked = rows_of(questions)
    seeds, difference, over_seeds, over_images, p_seeds, p_images = asked[f"{PRL} minus {RESNET}"]
    assert (seeds, float(difference)) == ("3", pytest.approx(means[1] - means[0], abs=0.006))
    for interval in (over_seeds, over_images):
        low, high = map(float, re.findall(r"[+-]\d+\.\d+", interval))
        assert low < means[1] - means[0] < high
    assert p_images == "below 0.0001"
    assert 0.0001 < float(p_seeds) < 0.05
    same = asked[f"{PRL} ({PROTOTYPE}) minus {RESNET}"]
    assert (same[1], same[-1]) == ("+0.00", "1")
    assert not any("SupCon" in name for name in asked), "no seed to compare it on"


def test_each_number_of_labels_has_its_tables_and_one_has_all(lines: list[dict]) -> None:
    found = tables([*lines, line(FINALISTS[0], 0, np.arange(N) < 700, labels=10)])
    assert len(found) == 4 + 4 + 2
    rows = rows_of(found[-2])
    assert list(rows) == ["10", "450"]
    assert rows["10"][0] == "70.0"
    assert rows["10"][1] == "", "not trained"
    questions = rows_of(found[-1])
    assert questions["10"][0] == "", "PRL-2 was not trained"
    heads = [float(rows["450"][k].split()[0]) for k in (0, 1)]
    assert float(questions["450"][0].split()[0]) == pytest.approx(heads[1] - heads[0], abs=0.1)


def test_the_picture_has_a_bar_for_each_training_and_a_line_for_more_than_one_number_of_labels(lines, tmp_path) -> None:
    few = [line(FINALISTS[0], seed, np.arange(N) < 700 + seed, labels=10) for seed in range(3)]
    draw([*lines, *few], tmp_path / "strong.svg")
    text = (tmp_path / "strong.svg").read_text(encoding="utf-8")
    for words in (RESNET, PRL, HEAD, PROTOTYPE, "450 labels a class", "fewer labels"):
        assert words in text, words
    draw(lines, tmp_path / "one.svg")
    assert "fewer labels" not in (tmp_path / "one.svg").read_text(encoding="utf-8")


def test_of_equal_validation_the_first_classifier_is_chosen() -> None:
    each = line(FINALISTS[0], 0, np.arange(N) < 300, np.arange(N) < 700)
    each["classifiers"][PROTOTYPE]["validation"] = 0.5
    assert answered(each, CHOSEN).mean() == 0.3
