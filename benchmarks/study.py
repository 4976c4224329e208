"""Trials of training methods on fashion_500, measured on a development set that no table uses; test is never opened.

Each line of the file of trials is one training: {"name": ..., "command": "pretrain" or "baseline", "options": {...},
"seed": 0}; options as on the command line, and perhaps an "idea" of benchmarks/ideas.py. The development set is
10,000 training images of Fashion-MNIST that fashion_500 does not have. A training with "hold-out-classes" is
measured by few-shot episodes on those of the classes held out. What has a line among the results is not repeated; an
interrupted training is continued, and one that fails has a line that says so.

    python benchmarks/study.py docs/results/method_trials_planned.jsonl
    python benchmarks/study.py --table        # what there is so far, as docs/method.md shows it
    python benchmarks/study.py docs/results/novel_trials_planned.jsonl --results docs/results/novel_trials.jsonl
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lines import add, read

from prl_keras.cli import main as command_line
from prl_keras.runs import Run
from prl_keras.startup import forget_models, start_keras

RESULTS = ROOT / "docs" / "results" / "method_trials.jsonl"
DEVELOPMENT, DRAW = 10_000, 1
FAILED = 2  # exit code of a training that cannot go on, such as one whose loss is not finite


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=Path, nargs="?")
    parser.add_argument("--table", action="store_true", help="print the results so far")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "saved_models" / "study")
    parser.add_argument("--keep", action="store_true", help="keep the run folders")
    options = parser.parse_args()
    if options.table or options.trials is None:
        lines = read(options.results)
        print(table(lines))
        if not any("mAP" in line["result"] for line in lines):
            print(f"\n{differences(lines)}")
        return 0
    if not options.trials.is_file():
        parser.error(f"{options.trials}: no such file")
    for trial in read(options.trials):
        done = {(line["name"], line["seed"]) for line in read(options.results)}
        if (trial["name"], trial["seed"]) in done:
            continue
        run = Run(options.runs_dir / f"{trial['name']}-s{trial['seed']}")
        begun_before = run.path.exists()
        code = train(trial, run)
        if code and (code != FAILED or not run.path.exists()):
            return code
        if code and begun_before:  # perhaps another process trains it, or its recipe has changed since
            print(f"{run.name}: passed over; to begin it anew remove {run.path}", flush=True)
            continue
        line = trial | {"resolved": run.part("options"), "versions": run.part("versions")}
        if code == FAILED:
            line |= {"result": {}, "seconds": 0, "failed": "stopped by its command; repeat it to see why"}
        else:
            line |= {"result": measure(run), "seconds": run.result["seconds"]}
        add(options.results, line)
        print(f"{trial['name']} seed {trial['seed']}: {json.dumps(line['result'])}", flush=True)
        if not options.keep and code == 0:
            shutil.rmtree(run.path)
        forget_models()
    return 0


COLUMNS = ("head", "linear probe", "kNN", "nearest prototype", "centred prototype", "ridge", "average")
AGAINST = {  # what a trial's name begins with -> the trial that it changes; the first that fits
    "ce-20-": None,
    "prl-20-": None,
    **dict.fromkeys(("prl-25-", "prl-wide-25", "views-25"), "prl-25-neck"),
    **dict.fromkeys(("ce-25-", "ce-wide-25"), "ce-25-base"),
    "prl-": "prl-neck",
    "ce-": "ce",
    "supcon": "supcon-batch-64",
    "loo": "loo-batch-100",
    "simclr": "simclr",
}
FEW_SHOT_COLUMNS = (*(f"{k}-shot, {by}" for k in (1, 5) for by in ("centred prototype", "ridge")), "mAP")


def table(lines: list[dict[str, Any]]) -> str:
    """Accuracy on the development set in %, on validation in brackets; behind / with mirrored images too."""
    columns = FEW_SHOT_COLUMNS if any("mAP" in line["result"] for line in lines) else COLUMNS
    rows = [f"| trial | {' | '.join(columns)} | type | minutes |", f"|{'---|' * (len(columns) + 3)}"]
    for line in lines:
        cells = []
        for column in columns:
            plain, both = (line["result"].get(name) for name in (column, f"{column}, mirrored too"))
            if isinstance(plain, float):
                cells.append(f"{100 * plain:.1f}")
                continue
            cell = f"{100 * plain['development']:.1f} ({100 * plain['validation']:.1f})" if plain else ""
            cells.append(cell + (f" / {100 * both['development']:.1f}" if both else ""))
        of = "failed" if "failed" in line else line["resolved"].get("precision", "float32").removeprefix("mixed_")
        cells += [of, f"{line['seconds'] / 60:.0f}"]
        rows.append(f"| {line['name']}, seed {line['seed']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def differences(lines: list[dict[str, Any]]) -> str:
    """Each trial minus the one that it changes, by classifier, in points on the development set."""
    known = {(line["name"], line["seed"]): line["result"] for line in lines}
    rows = [f"| trial minus | {' | '.join(COLUMNS)} |", f"|{'---|' * (len(COLUMNS) + 1)}"]
    for (name, seed), result in known.items():
        against = next((other for start, other in AGAINST.items() if name.startswith(start)), None)
        reference = known.get((against, seed))
        if against == name or reference is None:
            continue
        pairs = [(result.get(column), reference.get(column)) for column in COLUMNS]
        cells = [f"{100 * (a['development'] - b['development']):+.1f}" if a and b else "" for a, b in pairs]
        rows.append(f"| {name} minus {against} | {' | '.join(cells)} |")
    return "\n".join(rows)


def train(trial: dict[str, Any], run: Run) -> int:
    """The exit code of the command that makes the run; 0 where it is made already."""
    if (run.path / "result.json").exists():
        return 0
    words = [trial["command"], "--name", run.name, "--runs-dir", str(run.path.parent), "--seed", str(trial["seed"])]
    for name, value in ({"dataset": "fashion_500"} | trial["options"]).items():
        words += [f"--{name}", *([] if value is True else [str(value)])]
    print(" ".join(words), flush=True)
    from ideas import trained_with  # imports Keras, which is to come after prl_keras

    with trained_with(trial.get("idea")):
        return command_line(words)


def measure(run: Run) -> dict[str, Any]:
    """Accuracy on the development set and on validation of every classifier; what they chose, on validation."""
    start_keras(0)
    from prl_keras import load_dataset, load_encoder
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_model
    from prl_keras.runs import has_classifier

    started = time.monotonic()
    dataset, encoder = load_dataset(**run.part("data", "request")), load_encoder(run)
    if dataset.held_out:
        return few_shot(run, dataset, encoder) | {"measuring": time.monotonic() - started}
    images, labels = development()
    sets = (dataset.train, dataset.validation)
    pictures = [*(part.images for part in sets), images]
    plain = [encode(encoder, part) for part in pictures]
    mirrored = [(each + encode(encoder, part[:, :, ::-1])) / 2 for each, part in zip(plain, pictures, strict=True)]
    figures = measured(plain, [part.labels for part in sets], labels, dataset.num_classes)
    both = measured(mirrored, [part.labels for part in sets], labels, dataset.num_classes)
    figures |= {f"{name}, mirrored too": value for name, value in both.items()}
    if has_classifier(run):
        classifier = load_model(run.classifier_file)
        pairs = {"development": (images, labels), "validation": (dataset.validation.images, dataset.validation.labels)}
        answers = {k: [softmax(encode(classifier, v)) for v in (x, x[:, :, ::-1])] for k, (x, _) in pairs.items()}
        figures["head"] = {k: mean(a[0].argmax(axis=1) == pairs[k][1]) for k, a in answers.items()}
        figures["head, mirrored too"] = {k: mean(sum(a).argmax(axis=1) == pairs[k][1]) for k, a in answers.items()}
    return figures | {"n": len(labels), "weights": encoder.count_params(), "measuring": time.monotonic() - started}


def few_shot(run: Run, dataset: Any, encoder: Any) -> dict[str, Any]:
    """Mean accuracy of 2,000 episodes on pictures of the classes that were held out, and retrieval.

    Of fashion_500 the development set's; of a folder all of them, across domains, where 20 classes of one picture a
    domain are told apart.
    """
    import numpy as np

    from prl_keras.data.catalog import is_folder, load_held_out
    from prl_keras.data.fashion import CLASS_NAMES
    from prl_keras.evaluation.few_shot import episode_accuracies, retrieval
    from prl_keras.models.encode import encode

    request, how, shots = run.part("data", "request"), {"ways": 5}, (1, 5)
    if is_folder(request["name"]):
        novel, held_out = load_held_out(**request)
        images, labels, held_out = novel.images, novel.labels, len(held_out)
        how, shots = {"ways": 20, "queries": 1, "domains": novel.domains}, (1,)
    else:
        images, labels = development()
        held_out = list(dataset.held_out)
        chosen = np.flatnonzero(np.isin(np.array(CLASS_NAMES)[labels], held_out))
        images, labels = images[chosen], labels[chosen]
    centre = encode(encoder, dataset.train.images).mean(axis=0, dtype=np.float64)
    pictures = encode(encoder, images), labels, centre
    figures: dict[str, Any] = {
        f"{k}-shot, {name}": mean(each)
        for k in shots
        for name, each in episode_accuracies(*pictures, shots=k, **how).items()
    }
    figures["mAP"] = round(retrieval(*pictures)["mAP"], 4)
    return figures | {"held_out": held_out, "n": len(labels)}


def measured(features: list[Any], known: list[Any], labels: Any, num_classes: int) -> dict[str, dict[str, float]]:
    """Accuracies of all classifiers: features and labels of train and validation; features, `labels` of development."""
    from prl_keras.evaluation.closed_form import classifiers
    from prl_keras.evaluation.probes import Features

    train, validation = (Features(f, y) for f, y in zip(features[:2], known, strict=True))
    return {
        name: {"development": mean(each.predicted == labels), "validation": round(each.validation_accuracy, 4)}
        for name, each in classifiers(train, validation, Features(features[2]), num_classes).items()
    }


def development() -> tuple[Any, Any]:
    """(10,000, 28, 28, 3) images and their labels: of Fashion-MNIST's training images, none of fashion_500's."""
    import numpy as np

    from prl_keras import load_dataset
    from prl_keras.data.splits import image_digests

    known, whole = load_dataset("fashion_500"), load_dataset("fashion_mnist")
    used = {digest for split in (known.train, known.validation) for digest in image_digests(split.images)}
    images = np.concatenate([whole.train.images, whole.validation.images])
    labels = np.concatenate([whole.train.labels, whole.validation.labels])
    digests = image_digests(images)
    free = np.array(sorted((d, i) for i, d in enumerate(digests) if d not in used), dtype=object)[:, 1].astype(int)
    rows = np.random.default_rng(DRAW).permutation(free)[:DEVELOPMENT]
    return images[rows], labels[rows]


def softmax(logits: Any) -> Any:
    from scipy.special import softmax

    return softmax(logits, axis=1)


def mean(values: Any) -> float:
    return round(float(values.mean()), 4)


if __name__ == "__main__":
    sys.exit(main())
