"""Classes added one by one to a run that was pre-trained without them, by `teach` and by heads that are trained anew.

    python main.py pretrain --variant prl --recipe strong --dataset fashion_500 --hold-out-classes 5 --name held
    python benchmarks/teaching.py held docs/results/teaching.json
    python benchmarks/teaching.py --table docs/results/teaching.json     # what docs/beyond.md shows

Each draw takes 1, 5 or 20 pictures of every held-out class and adds the classes in an order of its own; all other
pictures of theirs are test pictures, beside the data set's test pictures of the old classes. The encoder never changes.
"""

import argparse
import json
import statistics
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from prl_keras.data.catalog import load_dataset, load_held_out
from prl_keras.evaluation.probes import Features, linear_probe
from prl_keras.evaluation.prototype_classifier import PrototypeClassifier
from prl_keras.evaluation.statistics import mean_over_seeds
from prl_keras.evaluation.taught import FALSE_ALARMS, Examples, Taught, of_training
from prl_keras.files import write_json
from prl_keras.markdown import pipe_table
from prl_keras.models import load_encoder
from prl_keras.models.encode import encode
from prl_keras.runs import find_run

SHOTS, DRAWS = (1, 5, 20), 10
TAUGHT, COSINES = "`teach`", "cosine to prototypes"
HEAD, BALANCED = "head trained anew", "the same, classes weighing alike"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="latest")
    parser.add_argument("output", type=Path)
    parser.add_argument("--table", action="store_true", help="print the table of the file, and measure nothing")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "saved_models")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.output.read_text(encoding="utf-8"))))
        return 0
    run = find_run(options.run, options.runs_dir)
    own = load_dataset(**run.part("data", "request"))
    novel, names = load_held_out(**run.part("data", "request"))
    encoder = load_encoder(run)
    encoded = {name: encode(encoder, getattr(own, name).images) for name in ("train", "validation", "test")}
    base = {name: Features(encoded[name], getattr(own, name).labels) for name in encoded}
    new = Features(encode(encoder, novel.images), novel.labels)
    chosen = linear_probe(base["train"], base["validation"], Features(encoded["test"])).chosen["C"]
    known = of_training(encoder, own, run, FALSE_ALARMS).calibrate()
    cells = {
        str(shots): [one_draw(known, own.class_names, base, new, shots, draw, chosen) for draw in range(DRAWS)]
        for shots in SHOTS
    }
    facts = {"run": run.name, "options": run.part("options"), "old": list(own.class_names), "new": list(names)}
    facts |= {"train": len(own.train), "test": len(own.test), "pictures": len(novel), "draws": DRAWS, "C": chosen}
    write_json(options.output, facts | {"shots": cells})
    return 0


def one_draw(
    known: Taught,
    old_names: tuple[str, ...],
    base: dict[str, Features],
    new: Features,
    shots: int,
    draw: int,
    regularisation: float,
) -> dict[str, Any]:
    """Method -> its accuracies after each class, and its median seconds a class."""
    random, old = np.random.RandomState([draw, shots]), base["train"].labels.max() + 1
    order = random.permutation(new.labels.max() + 1)
    drawn = {k: random.permutation(np.flatnonzero(new.labels == k)) for k in order}
    tested, truth = [base["test"].features], [base["test"].labels]
    taught, answers = [base["train"].features], [base["train"].labels]
    run, cosines = deepcopy(known), PrototypeClassifier().fit(base["train"].features, base["train"].labels)
    names = list(old_names)
    steps: dict[str, list[dict[str, float]]] = {name: [] for name in (TAUGHT, COSINES, HEAD, BALANCED)}
    for place, k in enumerate(order):
        label = old + place
        rows, rest = drawn[k][:shots], drawn[k][shots:]
        taught.append(new.features[rows])
        answers.append(np.full(shots, label))
        tested.append(new.features[rest])
        truth.append(np.full(len(rest), label))
        names.append(f"new {place}")
        begun = time.perf_counter()
        files = np.full(shots, "")
        run = run.teach(Examples(taught[-1], np.full(shots, names[-1]), files, rows.astype(np.uint64) + 1)).calibrate()
        seconds = {TAUGHT: time.perf_counter() - begun}
        number = {name: index for index, name in enumerate(names)}
        predicted = {TAUGHT: np.array([number[name] for name in run.classifier.predict(np.concatenate(tested))])}
        begun = time.perf_counter()
        cosines.partial_fit(taught[-1], answers[-1])
        seconds[COSINES] = time.perf_counter() - begun
        predicted[COSINES] = cosines.predict(np.concatenate(tested))
        for name, weights in ((HEAD, None), (BALANCED, "balanced")):
            begun = time.perf_counter()
            head = _head(regularisation, weights).fit(np.concatenate(taught), np.concatenate(answers))
            seconds[name] = time.perf_counter() - begun
            predicted[name] = head.predict(np.concatenate(tested))
        for name, found in predicted.items():
            steps[name].append(_accuracies(found, np.concatenate(truth), old) | {"seconds": seconds[name]})
    return {
        name: {
            **{part: [round(step[part], 4) for step in found] for part in ("old", "new", "mean")},
            "seconds": statistics.median(step["seconds"] for step in found),
        }
        for name, found in steps.items()
    }


def _head(regularisation: float, weights: str | None) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=300, class_weight=weights))


def _accuracies(predicted: np.ndarray, truth: np.ndarray, old: int) -> dict[str, float]:
    """Of the old classes, of those added so far, and with every class weighing the same."""
    right = predicted == truth
    of_class = [right[truth == k].mean() for k in np.unique(truth)]
    return {"old": right[truth < old].mean(), "new": right[truth >= old].mean(), "mean": float(np.mean(of_class))}


def table(found: dict[str, Any]) -> str:
    head = ["pictures a new class", "method", "old classes", "new classes", "mean of all classes", "seconds a class"]
    rows = []
    for shots, draws in found["shots"].items():
        for name in draws[0]:
            cells = []
            for part in ("old", "new", "mean"):
                values = np.array([draw[name][part][-1] for draw in draws])
                figure = mean_over_seeds(values)
                interval = (f"{100 * figure[end]:.1f}" for end in ("low", "high") if figure[end] is not None)
                cells.append(f"{100 * figure['mean']:.1f} ({' - '.join(interval) or 'each time'})")
            seconds = statistics.median(draw[name]["seconds"] for draw in draws)
            rows.append([shots, name, *cells, f"{seconds:.3f}"])
    return pipe_table(head, rows, left=(1,))


if __name__ == "__main__":
    raise SystemExit(main())
