"""The finalists of the study on fashion_500: their figures outlast the folders of runs, so that any machine goes on.

    python benchmarks/finals.py run --seeds 5                # what docs/results/finals.jsonl lacks, seed by seed
    python benchmarks/finals.py run --seeds 3 --labels 50    # with 50 training images a class, trained end to end
    python benchmarks/finals.py table                        # as docs/results.md shows it
    python benchmarks/finals.py draw                         # docs/pictures/strong.svg

Each line of the file is one training of one row: what `reproduce --cell` made of it, and which of the 8,000 test images
its own head, and every classifier on its features, answered rightly. An interrupted training is continued. What is
compared was written down in docs/method.md before.
"""

import argparse
import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from prl_keras.evaluation import statistics
from prl_keras.experiments.table import ROWS
from prl_keras.markdown import pipe_table
from prl_keras.runs import Run
from prl_keras.startup import cores

RESULTS = ROOT / "docs" / "results" / "finals.jsonl"
PICTURE = ROOT / "docs" / "pictures" / "strong.svg"
ALL = 450  # training images a class
SUPERVISED, OURS = "strong-resnet18", "strong-prl-frozen-linear"
LOO, SUPCON, SIMCLR = (f"strong-{name}-frozen-linear" for name in ("loo", "supcon", "simclr"))
PAPER = "query-frozen-linear"  # whose recipe does not fit fewer images
FINALISTS = (SUPERVISED, OURS, SUPCON, LOO, SIMCLR, PAPER)
HEAD, PROTOTYPE, CHOSEN = "own head", "nearest prototype", "what validation chose"
CLASSIFIERS = ("linear probe", "kNN", PROTOTYPE, "centred prototype", "ridge", "average")
_PAUSE = 2.0  # seconds
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "draw"))
    parser.add_argument("--rows", nargs="+", choices=FINALISTS, help="default: all that fit so many labels")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=ALL, help=f"training images a class, {ALL} at most")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--precision", default="float32", help="of all trainings, as of `reproduce`")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "saved_models" / "finals")
    options = parser.parse_args()
    lines = read(options.results)
    if options.action == "table":
        print("\n\n".join(tables(lines)))
        return 0
    if options.action == "draw":
        draw(lines, PICTURE)
        return 0
    if other := {line["precision"] for line in lines} - {options.precision}:
        parser.error(f"{options.results} is of --precision {', '.join(sorted(other))}; one file has one")
    return run(options)


def read(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


def run(options: argparse.Namespace) -> int:
    """Make what is missing, so many at a time; whatever is stopped here is stopped there."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder = options.runs_dir / f"labels-{options.labels}"
    command = [sys.executable, "main.py", "reproduce", "--dataset", "fashion_500", "--seeds", str(options.seeds)]
    rows = [row for row in FINALISTS if row != PAPER or options.labels == ALL]
    command += ["--rows", *rows, "--runs-dir", str(folder.parent), "--name", folder.name]
    command += ["--precision", options.precision]
    if options.labels != ALL:
        command += ["--samples-per-class", str(options.labels)]
    plan = subprocess.run([*command, "--plan"], cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    if plan.returncode:
        return plan.returncode
    numbers = re.findall(r"--cell (\d+)  # ([\w-]+)(?:, done)?$", plan.stdout, re.MULTILINE)
    cells = {name: number for number, name in numbers}
    known = {(line["row"], line["labels"], line["seed"]) for line in read(options.results)}
    wanted = [(row, seed) for seed in range(options.seeds) for row in rows if row in (options.rows or rows)]
    todo = [(row, seed) for row, seed in wanted if (row, options.labels, seed) not in known]
    under_way: dict[tuple[str, int], subprocess.Popen] = {}
    threads = str(max(1, cores() // options.jobs))  # more would wait for each other
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, threads)}

    def begin() -> None:
        while todo and len(under_way) < options.jobs:
            row, seed = todo.pop(0)
            words = [*command, "--cell", cells[f"{row}-s{seed}"]]
            under_way[row, seed] = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment)

    try:
        begin()
        while under_way:
            time.sleep(_PAUSE)
            for row, seed in [each for each, process in under_way.items() if process.poll() is not None]:
                if code := under_way.pop((row, seed)).returncode:
                    return code
                begin()
                line = collected(folder, row, options.labels, seed)
                with options.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{row}, seed {seed}: {100 * line['accuracy']['test']:.2f} %, {len(todo)} to go", flush=True)
    finally:
        for process in under_way.values():
            process.terminate()
        for process in under_way.values():
            process.wait()
    return 0


def collected(folder: Path, row: str, labels: int, seed: int) -> dict[str, Any]:
    """The line of a finished run, with every classifier on its encoder's features, and their silhouette."""
    from sklearn.metrics import silhouette_score

    from prl_keras import load_dataset
    from prl_keras.evaluation.closed_form import classifiers
    from prl_keras.evaluation.probes import Features
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_encoder

    source, own = Run(folder / f"{ROWS[row].source}-s{seed}"), Run(folder / f"{row}-s{seed}")
    with np.load(own.predictions_file) as answers:
        labels_of_test = answers["test_labels"]
        right = answers["test_logits"].argmax(axis=1) == labels_of_test
    dataset, encoder = load_dataset(**source.part("data", "request")), load_encoder(source)
    splits = [Features(encode(encoder, s.images), s.labels) for s in (dataset.train, dataset.validation, dataset.test)]
    of_features = {
        name: _figures(each.predicted == dataset.test.labels, each.validation_accuracy)
        for name, each in classifiers(*splits, dataset.num_classes).items()
    }
    trained = [source] if source.path == own.path else [source, own]
    return {
        "row": row,
        "labels": labels,
        "seed": seed,
        "precision": source.part("options", "precision"),
        "accuracy": {split: figure["value"] for split, figure in own.result["accuracy"].items()},
        "classifiers": {HEAD: _figures(right, own.result["accuracy"]["validation"]["value"]), **of_features},
        "recall": {
            name: round(float(right[labels_of_test == k].mean()), 4) for k, name in enumerate(dataset.class_names)
        },
        "n": len(right),
        "test_sha256": own.result["test_sha256"],
        "silhouette": float(silhouette_score(splits[2].features, splits[2].labels)),  # Rousseeuw 1987
        "epochs": source.result["epochs"],
        "batch_size": source.part("options", "batch_size"),
        "seconds": round(sum(each.result["seconds"] for each in trained), 1),
        "versions": source.part("versions"),
    }


def _figures(right: np.ndarray, on_validation: float) -> dict[str, Any]:
    return {"validation": on_validation, "right": base64.b64encode(np.packbits(right).tobytes()).decode()}


def answered(line: dict[str, Any], classifier: str) -> np.ndarray:
    """(n,) bool: which test images that classifier of a training answered rightly."""
    if classifier == CHOSEN:  # of equals the first, as they stand in the line
        classifier = max(line["classifiers"], key=lambda name: line["classifiers"][name]["validation"])
    bits = np.frombuffer(base64.b64decode(line["classifiers"][classifier]["right"]), np.uint8)
    return np.unpackbits(bits, count=line["n"]) > 0


def tables(lines: list[dict[str, Any]]) -> list[str]:
    """Of each number of labels: accuracies, features, questions, classes; then all numbers of labels side by side."""
    counts = sorted({line["labels"] for line in lines}, reverse=True)
    by_labels = {labels: _by_row(lines, labels) for labels in counts}
    found = []
    for labels, rows in by_labels.items():
        found += [_accuracies(labels, rows), _features(labels, rows), _questions(labels, rows), _recalls(labels, rows)]
    return found + ([_by_number_of_labels(by_labels)] if len(counts) > 1 else [])


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
        own = [f"{100 * mean['mean']:.2f}{spread}", _between(mean), _between(statistics.interval_over_images(correct))]
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
        seeds = sorted(rows.get(question.row, {}).keys() & rows.get(question.other, {}).keys())
        if seeds:
            pairs = ((question.row, question.classifier), (question.other, question.of_other))
            first, second = (np.stack([answered(rows[row][seed], name) for seed in seeds]) for row, name in pairs)
            over_seeds = statistics.compare_seeds(first.mean(axis=1), second.mean(axis=1))
            asked.append((question, len(seeds), over_seeds, _over_images(first, second)))
    by_seeds = statistics.with_corrected([each[2] for each in asked])
    by_images = statistics.corrected([each[3]["p"] for each in asked])
    found = []
    for (question, seeds, _, images), test, p in zip(asked, by_seeds, by_images, strict=True):
        words = f"{_named(question.row, question.classifier)} minus {_named(question.other, question.of_other)}"
        figures = [f"{100 * test['difference']:+.2f}", _between(test, "+.2f"), _between(images, "+.2f")]
        found.append([words, str(seeds), *figures, _chance(test["p"]), _chance(p)])
    head = [f"{labels} labels a class, points", "seeds", "difference", "95 % over seeds", "95 % over images"]
    return pipe_table([*head, "p over seeds", "p over images"], found, left=(0,))


def _chance(p: float | None) -> str:
    return "" if p is None else f"{p:.2g}" if p >= _LEAST else f"below {_LEAST}"


def _over_images(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
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
            ends = f" ({_between(mean, '.1f')})" if mean and mean["low"] is not None else ""
            cells.append(f"{100 * mean['mean']:.1f}{ends}" if mean else "")
        rows.append([str(labels), *cells])
    return pipe_table(["labels a class", *(_named(*each) for each in shown)], rows)


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """Left, each row with all labels: its head and the nearest prototype; right, heads by the number of labels, if
    there is more than one. Without SimCLR's, which are ten points and more below the others."""
    from prl_keras.visualization.canvas import add_legend, new_figure, save_figure

    lines = [line for line in lines if line["row"] != SIMCLR]
    counts = sorted({line["labels"] for line in lines})
    figure, panels = new_figure(11 if len(counts) > 1 else 7, 3.6, columns=2 if len(counts) > 1 else 1)
    left, *others = np.ravel(panels)
    rows = list(_by_row(lines, ALL).items())
    for classifier, colour, shift in ((HEAD, "tab:blue", -0.12), (PROTOTYPE, "tab:orange", 0.12)):
        for place, (_, trained) in enumerate(rows):
            mean, half = _mean_and_half(trained, classifier)
            label = classifier if place == 0 else None
            left.errorbar(mean, place + shift, xerr=half, color=colour, marker="o", capsize=3, label=label)
    left.set(yticks=range(len(rows)), yticklabels=[_named(row, HEAD) for row, _ in rows])
    left.set(xlabel=f"test accuracy, %; bars: 95 % over {len(rows[0][1])} trainings", title=f"{ALL} labels a class")
    left.invert_yaxis()
    for right in others:
        for row in (row for row in FINALISTS if row != PAPER):
            points = [(labels, _by_row(lines, labels).get(row)) for labels in counts]
            means = [(labels, *_mean_and_half(trained, HEAD)) for labels, trained in points if trained]
            if len(means) > 1:
                x, y, half = zip(*means, strict=True)
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


def _between(figure: dict[str, Any], form: str = ".2f") -> str:
    return "" if figure["low"] is None else f"{100 * figure['low']:{form}} to {100 * figure['high']:{form}}"


if __name__ == "__main__":
    sys.exit(main())
