"""Unlabelled pictures of fashion_500: what they are worth to each kind of training, at equal steps.

    python benchmarks/semi.py --epochs 12 --seeds 5        # trains what is not finished, one training at a time
    python benchmarks/semi.py --epochs 12 --table          # what there is so far

Rows: the strong recipes on labels alone, PRL-2 and FixMatch with the 45,000 unlabelled images beside them, and SimCLR
on these, then fine-tuned. --epochs are passes over the labelled images, and the same for all; SimCLR has as many steps,
of as many images through the encoder as a step of PRL-2 with unlabelled ones, before its fine-tuning.

Accuracy on the development set, which all choices (ratio, weight) were made on, and on test, which none was. What has
been trained is not trained again, and an interrupted training is continued.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from prl_keras.cli import main as command_line
from prl_keras.data.batches import steps_per_epoch
from prl_keras.evaluation.statistics import interval_over_images, mean_over_seeds
from prl_keras.files import atomic_path, write_json
from prl_keras.runs import Run
from prl_keras.startup import forget_models, start_keras

RESULTS = ROOT / "docs" / "results" / "semi.json"
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ...")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "saved_models" / "semi")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="train nothing")
    options = parser.parse_args()
    for seed in range(0 if options.table else options.seeds):  # all rows of a seed before the next one
        for row in options.rows:
            if not done(row, seed, options.epochs, options.runs_dir):
                return 1
            write_json(options.results, summary(options.runs_dir, options.epochs))
    print(table(summary(options.runs_dir, options.epochs)))
    return 0


def commands(row: str, seed: int, epochs: int, runs_dir: Path) -> list[tuple[str, list[str]]]:
    """(name of the run, words) of a row's trainings, one after the other."""
    name, steps = f"{row}-{epochs}-s{seed}", epochs * (LABELLED // BATCH)
    found: list[tuple[str, list[str]]] = []
    for number, words in enumerate(ROWS[row]):
        last = number == len(ROWS[row]) - 1
        first_epochs = max(1, round(steps / steps_per_epoch(UNLABELLED, SIMCLR_BATCH, drop_remainder=True)))
        own = [*words, "--seed", str(seed), "--epochs", str(epochs if last else first_epochs)]
        own += ["--encoder", found[-1][0]] if number else ["--dataset", "fashion_500"]
        run = name if last else f"{name}-first"
        found.append((run, [*own, "--name", run, "--runs-dir", str(runs_dir)]))
    return found


def done(row: str, seed: int, epochs: int, runs_dir: Path) -> bool:
    """Train and measure what is missing; False if a command was interrupted or refused."""
    for name, words in commands(row, seed, epochs, runs_dir):
        run = Run(runs_dir / name)
        if run.result is None:
            print(" ".join(words), flush=True)
            if command_line(words) != 0:
                return False
            forget_models()
    if not (run.path / "semi.npz").exists():
        measure(run)
        forget_models()
    return True


def measure(run: Run) -> None:
    """Keep, for each classifier and set, which images are answered right: (n,) bool."""
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
    right = {name: given == np.concatenate([asked[each].labels for each in SETS]) for name, given in answers.items()}
    end = len(asked["development"])
    parts = {f"{name}/{part}": values for name, each in right.items() for part, values in _parted(each, end)}
    with atomic_path(run.path / "semi.npz") as temporary:
        np.savez_compressed(temporary, **parts)


def _parted(right: np.ndarray, end: int) -> list[tuple[str, np.ndarray]]:
    return list(zip(SETS, (right[:end], right[end:]), strict=True))


def summary(runs_dir: Path, epochs: int) -> dict[str, Any]:
    """Row -> its seeds, the seconds of their trainings, and classifier -> set -> accuracy over them."""
    rows = {}
    for row in ROWS:
        names = sorted(path.parent.name for path in runs_dir.glob(f"{row}-{epochs}-s*/semi.npz"))
        if not names:
            continue
        kept = [dict(np.load(runs_dir / name / "semi.npz")) for name in names]
        keys = [key.split("/") for key in kept[0]]
        figures: dict[str, dict[str, Any]] = {classifier: {} for classifier, _ in keys}
        for classifier, part in keys:
            figures[classifier][part] = accuracies(np.stack([each[f"{classifier}/{part}"] for each in kept]))
        seeds = [int(name.rpartition("-s")[2]) for name in names]
        seconds = [sum(_seconds(runs_dir, run) for run, _ in commands(row, s, epochs, runs_dir)) for s in seeds]
        rows[row] = {"seeds": seeds, "seconds": seconds, "figures": figures}
    return {"epochs": epochs, "steps": epochs * (LABELLED // BATCH), "rows": rows}


def accuracies(right: np.ndarray) -> dict[str, Any]:
    """(seeds, n) right or wrong -> mean and interval over trainings, and the interval over images."""
    over_seeds = mean_over_seeds(right.mean(axis=1))
    return {"n": right.shape[1], "seeds": over_seeds, "images": interval_over_images(right)}


def _seconds(runs_dir: Path, name: str) -> float:
    return float(Run(runs_dir / name).result["seconds"])


COLUMNS = ("head", "nearest prototype", "centred prototype", "linear probe", "kNN", "average")


def table(found: dict[str, Any]) -> str:
    """Mean accuracy in % over seeds on the development set, and on test behind the slash."""
    lines = [f"| row | seeds | {' | '.join(COLUMNS)} | minutes |", f"|{'---|' * (len(COLUMNS) + 3)}"]
    for name, row in found["rows"].items():
        cells = [_cell(row["figures"].get(column)) for column in COLUMNS]
        minutes = np.mean(row["seconds"]) / 60
        lines.append(f"| {name} | {len(row['seeds'])} | {' | '.join(cells)} | {minutes:.0f} |")
    return "\n".join(lines)


def _cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return ""
    shown = []
    for part in SETS:
        over_images, mean = figures[part]["images"], figures[part]["seeds"]["mean"]
        shown.append(f"{100 * mean:.1f} ({100 * over_images['low']:.1f} - {100 * over_images['high']:.1f})")
    return " / ".join(shown)


if __name__ == "__main__":
    sys.exit(main())
