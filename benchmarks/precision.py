"""Whether a training in bfloat16 ends where one in float32 does: accuracy on test, the same seeds.

    python benchmarks/precision.py docs/results/precision.json

PRL query with a linear head on its frozen encoder, and a supervised ResNet-18 with light augmentation, by commands as
a user types them, two trainings at a time. A finished run is not made again, an interrupted one is continued. The file
has the accuracies of each seed in each precision, the difference with its 95 % interval over seeds, and its p over
images.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from peers_machine import machine

from prl_keras.evaluation.statistics import compare_images, compare_seeds
from prl_keras.files import write_json
from prl_keras.runs import Run

PRECISIONS = ("float32", "mixed_bfloat16")
ROWS = {  # seeds, and commands, of which the last one is tested; {} becomes the name of the one before
    "PRL query, frozen, linear": (
        6,
        [
            ("pretrain", "--variant", "query"),
            ("finetune", "--encoder", "{}", "--head", "linear", "--freeze"),
        ],
    ),
    "Supervised ResNet-18, light augmentation": (3, [("baseline", "--model", "resnet18", "--augment", "light")]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, help="of each row; 6 and 3 unless given")
    parser.add_argument("--dataset", default="fashion_500")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "saved_models" / "precision")
    options = parser.parse_args()
    if options.seeds is not None and options.seeds < 2:
        parser.error("--seeds: an interval over seeds takes two at least")
    with ThreadPoolExecutor(2) as pool:
        found = {
            row: {
                precision: [
                    pool.submit(trained, options, row, precision, seed) for seed in range(options.seeds or most)
                ]
                for precision in PRECISIONS
            }
            for row, (most, _) in ROWS.items()
        }
    rows = {
        row: compared({name: [each.result() for each in runs] for name, runs in by.items()})
        for row, by in found.items()
    }
    write_json(options.output, {"machine": machine(), "dataset": options.dataset, "rows": rows})
    for row, content in rows.items():
        figures = [f"{100 * content['over_seeds'][name]:+.2f}" for name in ("difference", "low", "high")]
        print("{}: bfloat16 minus float32 {} points (95 % over seeds: {} to {})".format(row, *figures))


def trained(options: argparse.Namespace, row: str, precision: str, seed: int) -> Run:
    name = None
    for words in ROWS[row][1]:
        source, name = name, f"{words[0]}-{precision}-s{seed}"
        run = Run(options.runs_dir / name)
        if run.result is None:
            words = [word.format(source) for word in words]
            words += ["--seed", str(seed), "--precision", precision, "--epochs", str(options.epochs)]
            words += ["--name", name, "--runs-dir", str(options.runs_dir)]
            words += [] if source else ["--dataset", options.dataset]
            subprocess.run(
                [sys.executable, "main.py", *words], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
            )
            print(f"{name}: {Run(run.path).result['seconds']:.0f} s", flush=True)
    return Run(run.path)


def compared(runs: dict[str, list[Run]]) -> dict[str, object]:
    right = {}
    for precision, seeds in runs.items():
        answers = [np.load(run.predictions_file) for run in seeds]
        right[precision] = np.stack([each["test_logits"].argmax(axis=1) == each["test_labels"] for each in answers])
    theirs, ours = (right[precision] for precision in PRECISIONS)
    return {
        "n": ours.shape[1],
        "accuracy": {name: [round(float(seed.mean()), 5) for seed in each] for name, each in right.items()},
        "over_seeds": compare_seeds(ours.mean(axis=1), theirs.mean(axis=1)),
        "p_over_images": compare_images(ours, theirs),
        "seconds": {name: [round(run.result["seconds"], 1) for run in seeds] for name, seeds in runs.items()},
    }


if __name__ == "__main__":
    main()
