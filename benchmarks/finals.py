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
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from finals_tables import ALL, FINALISTS, HEAD, PAPER, draw, tables
from lines import add, packed, read
from processes import done_side_by_side

from prl_keras.experiments.table import ROWS
from prl_keras.runs import Run

RESULTS = ROOT / "docs" / "results" / "finals.jsonl"
PICTURE = ROOT / "docs" / "pictures" / "strong.svg"


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


def run(options: argparse.Namespace) -> int:
    """Make what is missing, so many at a time."""
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
    commands = {(row, seed): [*command, "--cell", cells[f"{row}-s{seed}"]] for row, seed in todo}
    with closing(done_side_by_side(commands, options.jobs, ROOT)) as done:
        for (row, seed), code, left in done:
            if code:
                return code
            line = collected(folder, row, options.labels, seed)
            add(options.results, line)
            print(f"{row}, seed {seed}: {100 * line['accuracy']['test']:.2f} %, {left} to go", flush=True)
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
    return {"validation": on_validation, "right": packed(right)}


if __name__ == "__main__":
    sys.exit(main())
