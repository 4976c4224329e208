"""The finalists of the study on fashion_500: their figures outlast the folders of runs, so that any machine goes on.

    python benchmarks/finals.py run --seeds 5                # what docs/results/finals.jsonl lacks, seed by seed
    python benchmarks/finals.py run --seeds 3 --labels 50    # with 50 training images a class, trained end to end
    python benchmarks/finals.py table                        # as docs/results.md shows it

Each line of the file is one training of one row: what `reproduce --cell` made of it, which of the 8,000 test images
were answered rightly, and what `evaluate` says of its features. An interrupted training is continued.
"""

import argparse
import base64
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from prl_keras.evaluation import statistics
from prl_keras.experiments.table import ROWS
from prl_keras.runs import Run

RESULTS = ROOT / "docs" / "results" / "finals.jsonl"
ALL = 450  # training images a class
REFERENCE = "strong-resnet18"
FINALISTS = (
    *(REFERENCE, "strong-prl-frozen-linear", "strong-supcon-frozen-linear", "query-frozen-linear"),
    *("strong-loo-frozen-linear", "strong-simclr-frozen-linear"),
)
_PAUSE = 2.0  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--rows", nargs="+", default=FINALISTS, choices=FINALISTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=ALL, help="training images a class")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "saved_models" / "finals")
    options = parser.parse_args()
    if options.action == "table":
        print("\n\n".join(tables(read(options.results))))
        return 0
    return run(options)


def read(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


def run(options: argparse.Namespace) -> int:
    """Make what is missing, so many at a time; whatever is stopped here is stopped there."""
    command = [sys.executable, "main.py", "reproduce", "--dataset", "fashion_500", "--seeds", str(options.seeds)]
    command += ["--rows", *FINALISTS, "--runs-dir", str(options.runs_dir), "--name", f"labels-{options.labels}"]
    if options.labels != ALL:
        command += ["--samples-per-class", str(options.labels)]
    plan = subprocess.run(
        [*command, "--plan"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True
    ).stdout
    numbers = {name: number for number, name in re.findall(r"--cell (\d+)  # ([\w-]+)(?:, done)?$", plan, re.MULTILINE)}
    known = {(line["row"], line["labels"], line["seed"]) for line in read(options.results)}
    wanted = [(row, seed) for seed in range(options.seeds) for row in FINALISTS if row in options.rows]
    todo = [(row, seed) for row, seed in wanted if (row, options.labels, seed) not in known]
    under_way: dict[tuple[str, int], subprocess.Popen] = {}
    try:
        while todo or under_way:
            while todo and len(under_way) < options.jobs:
                row, seed = todo.pop(0)
                words = [*command, "--cell", numbers[f"{row}-s{seed}"]]
                under_way[row, seed] = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
            time.sleep(_PAUSE)
            for row, seed in [each for each, process in under_way.items() if process.poll() is not None]:
                if under_way.pop((row, seed)).returncode:
                    return 1
                line = collected(options.runs_dir / f"labels-{options.labels}", row, options.labels, seed)
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
    """The line of a finished run, with what `evaluate` measures of its encoder."""
    source = Run(folder / f"{ROWS[row].source}-s{seed}")
    own = Run(folder / f"{row}-s{seed}")
    evaluate = [sys.executable, "main.py", "evaluate", source.name, "--runs-dir", str(folder)]
    if not (source.path / "evaluation.json").exists():
        subprocess.run(evaluate, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    evaluation = json.loads((source.path / "evaluation.json").read_text(encoding="utf-8"))
    with np.load(own.predictions_file) as answers:
        right = answers["test_logits"].argmax(axis=1) == answers["test_labels"]
    trained = [source] if source.path == own.path else [source, own]
    return {
        "row": row,
        "labels": labels,
        "seed": seed,
        "accuracy": {split: figure["value"] for split, figure in own.result["accuracy"].items()},
        "right": base64.b64encode(np.packbits(right).tobytes()).decode(),
        "n": len(right),
        "test_sha256": own.result["test_sha256"],
        "of_features": {name: figure["value"] for name, figure in evaluation["accuracy"].items()},
        "best_on_validation": evaluation["best_on_validation"],
        "silhouette": silhouette(source),
        "epochs": source.result["epochs"],
        "seconds": round(sum(each.result["seconds"] for each in trained), 1),
        "versions": source.part("versions"),
    }


def silhouette(source: Run) -> float:
    """Of the test images' features (Rousseeuw 1987)."""
    from sklearn.metrics import silhouette_score

    from prl_keras import load_dataset
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_encoder

    test = load_dataset(**source.part("data", "request")).test
    return float(silhouette_score(encode(load_encoder(source), test.images), test.labels))


def tables(lines: list[dict[str, Any]]) -> list[str]:
    """A table of accuracy, then one of the features, for each number of labels; of seeds that the reference has too."""
    found = []
    for labels in sorted({line["labels"] for line in lines}, reverse=True):
        rows = {
            row: {each["seed"]: each for each in lines if (each["row"], each["labels"]) == (row, labels)}
            for row in FINALISTS
        }
        found += [_accuracies(labels, rows), _features(rows)]
    return found


def _accuracies(labels: int, rows: dict[str, dict[int, dict[str, Any]]]) -> str:
    text = [f"| {labels} labels a class | n | test % | 95 % over seeds | 95 % over images | {_AGAINST} | p, images |"]
    text += ["|---|---|---|---|---|---|---|"]
    for row, trained in rows.items():
        if not trained:
            continue
        seeds, values = sorted(trained), np.array([trained[s]["accuracy"]["test"] for s in sorted(trained)])
        mean, over = statistics.mean_over_seeds(values), statistics.interval_over_images(_right(trained, seeds))
        shared = [seed for seed in seeds if seed in rows[REFERENCE]]
        cells = ["", ""]
        if row != REFERENCE and shared:
            pair = [np.array([rows[name][s]["accuracy"]["test"] for s in shared]) for name in (row, REFERENCE)]
            test = statistics.compare_seeds(*pair)
            p = statistics.compare_images(_right(trained, shared), _right(rows[REFERENCE], shared))
            cells = [f"{100 * test['difference']:+.2f}{_between(test, '+.2f')}", f"{p:.2g}"]
        spread = "" if mean["sd"] is None else f" ± {100 * mean['sd']:.2f}"
        ends = [
            f"{100 * mean['mean']:.2f}{spread}",
            _between(mean, ".2f").strip(" ()"),
            _between(over, ".2f").strip(" ()"),
        ]
        text.append(f"| {ROWS[row].title} | {len(seeds)} | {' | '.join([*ends, *cells])} |")
    return "\n".join(text)


_AGAINST = f"minus {ROWS[REFERENCE].title} (95 % over seeds)"


def _features(rows: dict[str, dict[int, dict[str, Any]]]) -> str:
    names = ("linear probe", "kNN", "nearest prototype", "centred prototype", "ridge", "average")
    text = [f"| features of | {' | '.join(names)} | silhouette | minutes |", f"|{'---|' * (len(names) + 3)}"]
    for row, trained in rows.items():
        if trained:
            means = [100 * np.mean([line["of_features"][name] for line in trained.values()]) for name in names]
            apart, minutes = (np.mean([line[key] for line in trained.values()]) for key in ("silhouette", "seconds"))
            cells = [*(f"{mean:.2f}" for mean in means), f"{apart:.3f}", f"{minutes / 60:.0f}"]
            text.append(f"| {ROWS[row].title} | {' | '.join(cells)} |")
    return "\n".join(text)


def _right(trained: dict[int, dict[str, Any]], seeds: list[int]) -> np.ndarray:
    """(seeds, n) bool: which test images were answered rightly."""
    bits = [np.frombuffer(base64.b64decode(trained[seed]["right"]), np.uint8) for seed in seeds]
    return np.stack([np.unpackbits(each, count=trained[seed]["n"]) for each, seed in zip(bits, seeds, strict=True)]) > 0


def _between(figure: dict[str, Any], form: str) -> str:
    return "" if figure["low"] is None else f" ({100 * figure['low']:{form}} - {100 * figure['high']:{form}})"


if __name__ == "__main__":
    sys.exit(main())
