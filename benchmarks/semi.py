"""What unlabelled pictures of fashion_500 are worth beside the labelled ones: each figure outlasts its run.

    python benchmarks/semi.py run --seeds 0 1 2    # what docs/results/semi.jsonl lacks, seed by seed
    python benchmarks/semi.py table                # what there is so far, and the differences

Rows: PRL-2 and FixMatch with the 45,000 unlabelled images beside the labelled ones, for as many steps as the strong
recipe takes of labels alone (one of each: the command's usual seven would take four times as long); and SimCLR on the
unlabelled ones, of as many images through the encoder, to the nearest epoch, then fine-tuned.
They stand beside what the same seeds reached by labels alone (docs/results/finals.jsonl, mixed_bfloat16).

Each line of the file is one training: which images of the development set, which is there for choices, and of test, by
which none is made, each classifier answered rightly. An interrupted training is continued.
"""

import argparse
import json
import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from finals_tables import ALL, HEAD, between, chance, over_images
from lines import add, packed, read, unpacked
from processes import done_side_by_side

from prl_keras.cli import main as command_line
from prl_keras.evaluation.statistics import compare_seeds, mean_over_seeds
from prl_keras.files import write_json
from prl_keras.markdown import pipe_table
from prl_keras.recipes import MOST_EPOCHS, RECIPES
from prl_keras.runs import Run
from prl_keras.screen.console import mean_and_interval
from prl_keras.startup import forget_models, start_keras

RESULTS, FINALS = (ROOT / "docs" / "results" / name for name in ("semi.jsonl", "finals.jsonl"))
UNLABELLED, CLASSES = 45_000, 10
SETS, MEASURED = ("development", "test"), "measured.json"
PROBE = "linear probe"
_BESIDE = ["--recipe", "strong", "--unlabelled"]
_SIMCLR = ["pretrain", "--variant", "simclr", "--recipe", "strong", "--unlabelled"]
ROWS = {
    "prl-unlabelled": [["pretrain", "--variant", "prl", *_BESIDE]],
    "fixmatch": [["baseline", "--model", "resnet18", *_BESIDE]],
    "simclr-tuned": [_SIMCLR, ["finetune", "--recipe", "strong", "--no-freeze", "--augment", "strong"]],
}
OURS = "prl-unlabelled"
ALONE = {"prl": ("strong-prl-frozen-linear", PROBE), "ce": ("strong-resnet18", HEAD)}  # of the finalists, by what
ANSWERS_BY = {OURS: PROBE, "fixmatch": HEAD, "simclr-tuned": HEAD} | {row: by for row, (_, by) in ALONE.items()}
COLUMNS = (HEAD, "nearest prototype", "centred prototype", PROBE, "kNN", "average")

Trained = dict[int, dict[str, Any]]  # seed -> its line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "one"), help="one: the first row and seed, in its folder")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--labels", type=int, default=ALL, help=f"training images a class, {ALL} at most")
    parser.add_argument("--ratio", type=int, default=1, help="unlabelled images for each labelled one")
    parser.add_argument("--jobs", type=int, default=2, choices=range(1, 65), metavar="N")
    parser.add_argument("--precision", default="float32", help="of all trainings")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "saved_models" / "semi")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    lines = read(options.results)
    if options.action == "table":
        print("\n\n".join(tables(lines, read(FINALS))))
        return 0
    if options.action == "one":
        return one(commands(options.rows[0], options.seeds[0], options), options.runs_dir)
    if other := {line["precision"] for line in lines} - {options.precision}:
        parser.error(f"{options.results} is of --precision {', '.join(sorted(other))}; one file has one")
    asked = (options.labels, options.ratio)
    known = {(line["row"], line["seed"]) for line in lines if (line["labels"], line["ratio"]) == asked}
    wanted = [(row, seed) for seed in options.seeds for row in options.rows]
    return run([each for each in wanted if each not in known], options)


def run(todo: list[tuple[str, int]], options: argparse.Namespace) -> int:
    """So many at a time; a line and no folder is left of each."""
    command = [sys.executable, __file__, "one", "--labels", str(options.labels), "--ratio", str(options.ratio)]
    command += ["--precision", options.precision, "--runs-dir", str(options.runs_dir)]
    started = {(row, seed): [*command, "--rows", row, "--seeds", str(seed)] for row, seed in todo}
    with closing(done_side_by_side(started, options.jobs)) as done:
        for (row, seed), code, left in done:
            if code:
                return code
            runs = [Run(options.runs_dir / name) for name, _ in commands(row, seed, options)]
            line = {"row": row, "labels": options.labels, "ratio": options.ratio, "seed": seed}
            line |= {"precision": options.precision, "seconds": round(sum(run.result["seconds"] for run in runs), 1)}
            line |= json.loads((runs[-1].path / MEASURED).read_text(encoding="utf-8"))
            add(options.results, line | {"versions": runs[-1].part("versions")})
            for each in runs:
                shutil.rmtree(each.path)
            print(f"{row}, seed {seed}: measured; {left} to begin", flush=True)
    return 0


def one(made: list[tuple[str, list[str]]], runs_dir: Path) -> int:
    """Train what is not finished, and measure the last of it."""
    for name, words in made:
        if Run(runs_dir / name).result is None and (code := command_line(words)):
            return code
        forget_models()
    run = Run(runs_dir / made[-1][0])
    if not (run.path / MEASURED).exists():
        write_json(run.path / MEASURED, measure(run))
    return 0


def commands(row: str, seed: int, options: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """(name of the run, words) of a row's trainings, one after the other."""
    found: list[tuple[str, list[str]]] = []
    data = ["--dataset", "fashion_500"]
    if options.labels != ALL:
        data += ["--samples-per-class", str(options.labels)]
    for number, words in enumerate(ROWS[row]):
        name = f"{row}-{options.labels}-x{options.ratio}-s{seed}" + ("-first" if number < len(ROWS[row]) - 1 else "")
        own = [*words, *(["--encoder", found[-1][0]] if number else data), "--seed", str(seed)]
        if words is _SIMCLR:  # as many images, in two views, as a training beside labels takes
            own += ["--epochs", str(max(1, round(images(options.labels) * (1 + options.ratio) / (2 * UNLABELLED))))]
        elif "--unlabelled" in words:
            own += ["--unlabelled-ratio", str(options.ratio)]
        own += ["--precision", options.precision, "--name", name, "--runs-dir", str(options.runs_dir)]
        found.append((name, own))
    return found


def images(labels: int) -> int:
    """Labelled ones that a training takes by the strong recipe, with so many of each class."""
    recipe, there_are = RECIPES["strong"]["prl"], labels * CLASSES
    return min(max(recipe.least_images, recipe.epochs * there_are), MOST_EPOCHS * there_are)


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
        answers[HEAD] = np.concatenate(logits).argmax(axis=1)
    truth, end = np.concatenate([asked[each].labels for each in SETS]), len(asked["development"])
    right = {}
    for name, given in answers.items():
        for part, values in zip(SETS, np.split(given == truth, [end]), strict=True):
            right[f"{name}/{part}"] = packed(values)
    n = {name: len(asked[name]) for name in SETS}
    return {"n": n, "right": right, "test_sha256": dataset.test.sha256()}


def tables(lines: list[dict[str, Any]], finals: list[dict[str, Any]]) -> list[str]:
    """Of each number of labels and ratio the accuracies, and PRL-2 with unlabelled images minus every other row."""
    found = []
    alone = {name: [_as_here(line) for line in finals if line["row"] == row] for name, (row, _) in ALONE.items()}
    for labels, ratio in sorted({(line["labels"], line["ratio"]) for line in lines}):
        asked = [line for line in lines if (line["labels"], line["ratio"]) == (labels, ratio)]
        rows = alone | {row: [line for line in asked if line["row"] == row] for row in ROWS}
        trained = {row: {line["seed"]: line for line in of if line["labels"] == labels} for row, of in rows.items()}
        seeds = {line["seed"] for line in asked}
        kept = {row: {seed: of[seed] for seed in sorted(seeds & of.keys())} for row, of in trained.items()}
        kept = {row: of for row, of in kept.items() if of}
        if len({line["test_sha256"] for of in kept.values() for line in of.values()}) > 1:
            raise SystemExit("the rows were asked about different test images: they cannot be compared")
        about = f"{labels} labels a class, {ratio} unlabelled for each, test"
        found += [_accuracies(about, kept), *([_differences(about, kept)] if OURS in kept else [])]
    return found


def _as_here(line: dict[str, Any]) -> dict[str, Any]:
    """A finalist's line, which has test images alone."""
    right = {f"{name}/test": of["right"] for name, of in line["classifiers"].items()}
    return line | {"right": right, "n": {"test": line["n"]}}


def answered(line: dict[str, Any], classifier: str, part: str) -> np.ndarray | None:
    """(n,) bool; None where the line has no such answers."""
    bits = line["right"].get(f"{classifier}/{part}")
    return None if bits is None else unpacked(bits, line["n"][part])


def _accuracies(about: str, rows: dict[str, Trained]) -> str:
    """Mean in % over seeds on test, with the interval over seeds of what a row answers by, and that on development."""
    found = []
    for row, trained in rows.items():
        by = ANSWERS_BY[row]
        cells = [_cell(trained, column, "test", column == by) for column in COLUMNS]
        cells.append(_cell(trained, by, "development", True))
        minutes = np.mean([line["seconds"] for line in trained.values()]) / 60
        precisions = ", ".join(sorted({line["precision"].removeprefix("mixed_") for line in trained.values()}))
        found.append([row, str(len(trained)), *cells, precisions, f"{minutes:.0f}"])
    head = [about, "seeds", *COLUMNS, "development set", "type", "minutes"]
    return pipe_table(head, found, left=(0,))


def _cell(trained: Trained, classifier: str, part: str, with_interval: bool) -> str:
    each = [answered(line, classifier, part) for line in trained.values()]
    if any(right is None for right in each):
        return ""
    means = np.array([right.mean() for right in each])
    return mean_and_interval(mean_over_seeds(means)) if with_interval else f"{100 * means.mean():.1f}"


def _differences(about: str, rows: dict[str, Trained]) -> str:
    """On test, each row by what it answers by; p is of seeds, of images: not corrected."""
    found = []
    for row, trained in rows.items():
        seeds = sorted(trained.keys() & rows[OURS].keys())
        if row == OURS or not seeds:
            continue
        ours, other = (np.stack([answered(rows[of][s], ANSWERS_BY[of], "test") for s in seeds]) for of in (OURS, row))
        test, images = compare_seeds(ours.mean(axis=1), other.mean(axis=1)), over_images(ours, other)
        figures = [f"{100 * test['difference']:+.2f}", between(test, "+.2f"), between(images, "+.2f")]
        found.append([f"{OURS} minus {row}", str(len(seeds)), *figures, chance(test["p"]), chance(images["p"])])
    head = [f"{about}, points", "seeds", "difference", "95 % over seeds", "95 % over images"]
    return pipe_table([*head, "p over seeds", "p over images"], found, left=(0,))


if __name__ == "__main__":
    sys.exit(main())
