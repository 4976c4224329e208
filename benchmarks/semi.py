"""Unlabelled pictures of fashion_500: what they are worth to each kind of training, at equal steps.

    python benchmarks/semi.py --epochs 12 --seeds 0 1 2    # trains what docs/results/semi.jsonl lacks, one at a time
    python benchmarks/semi.py --table                      # what there is so far, and the differences

Rows: the strong recipes on labels alone, PRL-2 and FixMatch with the 45,000 unlabelled images beside them, and SimCLR
on these, then fine-tuned. --epochs are passes over the labelled images, and the same for all; SimCLR has as many steps,
of as many images through the encoder as a step of PRL-2 with unlabelled ones, before its fine-tuning.

Each line of the file is one training: which images of the development set, which all choices (ratio, weight) were made
on, and of test, which none was, each classifier answered rightly. What has a line is not trained again, on any machine,
and an interrupted training is continued; two processes with seeds of their own may share the file.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from finals_tables import between, chance, over_images
from lines import add, packed, read, unpacked

from prl_keras.cli import main as command_line
from prl_keras.data.batches import steps_per_epoch
from prl_keras.evaluation.statistics import compare_seeds, interval_over_images
from prl_keras.markdown import pipe_table
from prl_keras.runs import Run
from prl_keras.startup import forget_models, start_keras

RESULTS = ROOT / "docs" / "results" / "semi.jsonl"
LABELLED, UNLABELLED = 4_500, 45_000  # images
BATCH, SIMCLR_BATCH = 64, 256
SETS = ("development", "test")
_PRL = ["pretrain", "--variant", "prl", "--recipe", "strong"]
_CE = ["baseline", "--model", "resnet18", "--recipe", "strong"]
_SIMCLR = ["pretrain", "--variant", "simclr", "--recipe", "strong", "--batch-size", str(SIMCLR_BATCH), "--unlabelled"]
_TUNED = ["finetune", "--recipe", "strong", "--no-freeze", "--augment", "strong", "--batch-size", str(BATCH)]
ROWS = {
    "prl": [_PRL],
    "ce": [_CE],
    "prl-unlabelled": [[*_PRL, "--unlabelled"]],
    "fixmatch": [[*_CE, "--unlabelled"]],
    "simclr-tuned": [_SIMCLR, _TUNED],
}
OURS = "prl-unlabelled"
COLUMNS = ("head", "nearest prototype", "centred prototype", "linear probe", "kNN", "average")

Trained = dict[int, dict[str, Any]]  # seed -> its line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "saved_models" / "semi")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--precision", default="float32", help="of all trainings")
    parser.add_argument("--table", action="store_true", help="train nothing")
    options = parser.parse_args()
    if options.table:
        print("\n\n".join(tables(read(options.results))))
        return 0
    if other := {line["precision"] for line in read(options.results)} - {options.precision}:
        parser.error(f"{options.results} is of --precision {', '.join(sorted(other))}; one file has one")
    for seed in options.seeds:  # all rows of a seed before the next one
        for row in options.rows:
            if (row, seed, options.epochs) in {(e["row"], e["seed"], e["epochs"]) for e in read(options.results)}:
                continue
            made = commands(row, seed, options.epochs, options.runs_dir, options.precision)
            if not all(done(name, words, options.runs_dir) for name, words in made):
                return 1
            line = {"row": row, "seed": seed, "epochs": options.epochs, "precision": options.precision}
            runs = [Run(options.runs_dir / name) for name, _ in made]
            line |= {"seconds": round(sum(run.result["seconds"] for run in runs), 1), **measure(runs[-1])}
            add(options.results, line | {"versions": runs[-1].part("versions")})
            forget_models()
    return 0


def commands(
    row: str, seed: int, epochs: int, runs_dir: Path, precision: str = "float32"
) -> list[tuple[str, list[str]]]:
    """(name of the run, words) of a row's trainings, one after the other."""
    name, steps = f"{row}-{epochs}-s{seed}", epochs * (LABELLED // BATCH)
    found: list[tuple[str, list[str]]] = []
    for number, words in enumerate(ROWS[row]):
        last = number == len(ROWS[row]) - 1
        first_epochs = max(1, round(steps / steps_per_epoch(UNLABELLED, SIMCLR_BATCH, drop_remainder=True)))
        own = [*words, "--seed", str(seed), "--epochs", str(epochs if last else first_epochs)]
        own += ["--encoder", found[-1][0]] if number else ["--dataset", "fashion_500"]
        run = name if last else f"{name}-first"
        found.append((run, [*own, "--precision", precision, "--name", run, "--runs-dir", str(runs_dir)]))
    return found


def done(name: str, words: list[str], runs_dir: Path) -> bool:
    """Train what is not finished; False if the command was interrupted or refused."""
    if Run(runs_dir / name).result is None:
        print(" ".join(words), flush=True)
        if command_line(words) != 0:
            return False
        forget_models()
    return True


def measure(run: Run) -> dict[str, Any]:
    """Which images are answered right, "classifier/set" -> bits, and how many images each set has."""
    start_keras(0)
    from prl_keras import load_dataset, load_encoder
    from prl_keras.data.fashion import development_set
    from prl_keras.evaluation.closed_form import classifiers
    from prl_keras.evaluation.probes import Features
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_model

    dataset, encoder = load_dataset(**run.part("data", "request")), load_encoder(run)
    asked = {"development": development_set(), "test": dataset.test}
    known = [Features(encode(encoder, part.images), part.labels) for part in (dataset.train, dataset.validation)]
    features = np.concatenate([encode(encoder, asked[name].images) for name in SETS])
    answers = {name: each.predicted for name, each in classifiers(*known, Features(features), 10).items()}
    if run.classifier_file.exists():
        logits = [encode(load_model(run.classifier_file), asked[name].images) for name in SETS]
        answers["head"] = np.concatenate(logits).argmax(axis=1)
    truth, end = np.concatenate([asked[each].labels for each in SETS]), len(asked["development"])
    right = {}
    for name, given in answers.items():
        for part, values in zip(SETS, np.split(given == truth, [end]), strict=True):
            right[f"{name}/{part}"] = packed(values)
    return {"n": {name: len(asked[name]) for name in SETS}, "right": right}


def answered(line: dict[str, Any], classifier: str, part: str) -> np.ndarray:
    """(n,) bool."""
    return unpacked(line["right"][f"{classifier}/{part}"], line["n"][part])


def primary(line: dict[str, Any]) -> str:
    """What a row answers by: its own head, or a linear probe of an encoder alone."""
    return "head" if f"head/{SETS[0]}" in line["right"] else "linear probe"


def tables(lines: list[dict[str, Any]]) -> list[str]:
    """Of each number of epochs the accuracies, and PRL-2 with unlabelled images minus every other row."""
    found = []
    for epochs in sorted({line["epochs"] for line in lines}):
        of = [line for line in lines if line["epochs"] == epochs]
        rows = {row: {line["seed"]: line for line in of if line["row"] == row} for row in ROWS}
        rows = {row: dict(sorted(trained.items())) for row, trained in rows.items() if trained}
        found += [_accuracies(epochs, rows), *([_differences(epochs, rows)] if OURS in rows else [])]
    return found


def _accuracies(epochs: int, rows: dict[str, Trained]) -> str:
    """Mean in % over seeds on the development set / on test, with the interval over images of what a row answers by."""
    found = []
    for row, trained in rows.items():
        by = primary(next(iter(trained.values())))
        cells = [_cell(trained, column, column == by) for column in COLUMNS]
        minutes = np.mean([line["seconds"] for line in trained.values()]) / 60
        found.append([row, str(len(trained)), *cells, f"{minutes:.0f}"])
    steps = epochs * (LABELLED // BATCH)
    return pipe_table([f"{epochs} epochs, {steps} steps", "seeds", *COLUMNS, "minutes"], found, left=(0,))


def _cell(trained: Trained, classifier: str, with_interval: bool) -> str:
    if any(f"{classifier}/{SETS[0]}" not in line["right"] for line in trained.values()):
        return ""
    shown = []
    for part in SETS:
        right = np.stack([answered(line, classifier, part) for line in trained.values()])
        ends = f" ({between(interval_over_images(right), '.1f')})" if with_interval else ""
        shown.append(f"{100 * right.mean():.1f}{ends}")
    return " / ".join(shown)


def _differences(epochs: int, rows: dict[str, Trained]) -> str:
    """On test, each row by what it answers by; p is of seeds, of images: not corrected."""
    found = []
    for row, trained in rows.items():
        seeds = sorted(trained.keys() & rows[OURS].keys())
        if row == OURS or not seeds:
            continue
        pairs = [[of[seed] for seed in seeds] for of in (rows[OURS], trained)]
        ours, other = (np.stack([answered(line, primary(line), "test") for line in of]) for of in pairs)
        means = [right.mean(axis=1) for right in (ours, other)]
        test, images = compare_seeds(*means), over_images(ours, other)
        figures = [f"{100 * test['difference']:+.2f}", between(test, "+.2f"), between(images, "+.2f")]
        found.append([f"{OURS} minus {row}", str(len(seeds)), *figures, chance(test["p"]), chance(images["p"])])
    head = [f"{epochs} epochs, test, points", "seeds", "difference", "95 % over seeds", "95 % over images"]
    return pipe_table([*head, "p over seeds", "p over images"], found, left=(0,))


if __name__ == "__main__":
    sys.exit(main())
