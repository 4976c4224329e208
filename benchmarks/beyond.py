"""What encoders are worth beyond their training classes, by the budget of docs/beyond.md: each figure outlasts its run.

    python benchmarks/beyond.py run fashion_500    # what docs/results/beyond.jsonl lacks, seed by seed
    python benchmarks/beyond.py table fashion_500  # the page docs/results/beyond-fashion_500.md and its picture

Each line of the file is one training of one method, measured by `evaluate`. A training that was interrupted is
continued. Emoji are a folder that benchmarks/emoji.py makes: begin where it is.
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
from beyond_campaigns import AS_USED, CAMPAIGNS, METHODS, MORE, PLAIN, Training, kind, training_of
from beyond_tables import write
from lines import add, read
from processes import done_side_by_side

from prl_keras.cli import main as command_line
from prl_keras.experiments.beyond import ERRORS, FEW_SHOT, SHIFT, figures_of
from prl_keras.files import write_json
from prl_keras.runs import Run
from prl_keras.startup import forget_models, start_keras

RESULTS = ROOT / "docs" / "results" / "beyond.jsonl"
BY_NAME = "by_name.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "one"), help="one: the first method and seed, in its folder")
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--methods", nargs="+", choices=METHODS | MORE, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)  # of `one`
    parser.add_argument("--jobs", type=int, default=2, choices=range(1, 65), metavar="N")
    parser.add_argument("--precision", default="float32", help="of all trainings")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "saved_models" / "beyond")
    options = parser.parse_args()
    lines = [line for line in read(options.results) if line["campaign"] == options.campaign]
    campaign = CAMPAIGNS[options.campaign]
    methods = [f"{campaign.recipe}-{kind}" for kind in options.methods]
    if options.action == "table":
        if not {"resnet18", "prl"} <= set(options.methods) <= METHODS.keys():
            parser.error("a table takes resnet18 and prl, and others of the budget; what else there is stands below it")
        return write(lines, options.campaign, campaign, methods, options.results)
    if options.action == "one":
        training = Training(methods[0], options.seeds[0], options.part)
        return one(options.campaign, training, options.runs_dir, options.precision)
    if other := {line["precision"] for line in lines} - {options.precision}:
        parser.error(f"{options.campaign} is of --precision {', '.join(sorted(other))} so far; a table has one")
    known = {training_of(line) for line in lines}
    wanted = [Training(method, seed, part) for seed in options.seeds for method in methods for part in campaign.parts]
    return run([each for each in wanted if each not in known], options)


def run(todo: list[Training], options: argparse.Namespace) -> int:
    """So many at a time; a line and no folder is left of each."""
    command = [sys.executable, __file__, "one", options.campaign, "--runs-dir", str(options.runs_dir)]
    command += ["--precision", options.precision]
    commands = {
        each: [*command, "--methods", kind(each.method), "--seeds", str(each.seed), "--part", each.part]
        for each in todo
    }
    with closing(done_side_by_side(commands, options.jobs)) as done:
        for training, code, left in done:
            if code:
                return code
            folder = folder_of(options.campaign, training, options.runs_dir)
            add(options.results, collected(Run(folder), options.campaign, training))
            shutil.rmtree(folder)
            print(f"{folder.name}: measured; {left} to begin", flush=True)
    return 0


def folder_of(campaign: str, training: Training, runs_dir: Path) -> Path:
    part = f"-{training.part}" if training.part else ""
    return runs_dir / f"{campaign}-{training.method}{part}-s{training.seed}"


def one(name: str, training: Training, runs_dir: Path, precision: str) -> int:
    """Train it and measure it, or what of this is missing."""
    campaign, run = CAMPAIGNS[name], Run(folder_of(name, training, runs_dir))
    command, share = (METHODS | MORE)[kind(training.method)]
    words = f"{command} --recipe {campaign.recipe} {campaign.data} --epochs {int(campaign.epochs * share)}".split()
    words += ["--seed", str(training.seed), *(["--hold-out-domain", training.part] if training.part else [])]
    place = ["--runs-dir", str(runs_dir)]
    wanted = [] if run.result is not None else [[*words, "--precision", precision, "--name", run.name, *place]]
    for file, how in campaign.measured.items():
        if not (run.path / file).exists():
            wanted.append(["evaluate", run.name, *how.split(), *place])
    for each in wanted:
        if code := command_line(each):
            return code
        forget_models()
    if campaign.by_name and not (run.path / BY_NAME).exists():
        write_json(run.path / BY_NAME, of_known_names(run))
    return 0


def collected(run: Run, campaign: str, training: Training) -> dict[str, Any]:
    """The line of a run that is trained and measured."""
    measured = CAMPAIGNS[campaign].measured
    line = {"campaign": campaign, **training._asdict(), "precision": run.part("options", "precision")}
    if PLAIN in measured:
        content = _content(run, PLAIN)
        line |= {"figures": of_known_classes(content)}
        line["n"] = {"test pictures": content["accuracy"]["linear probe"]["n"]}
        if CAMPAIGNS[campaign].by_name:
            line["by_name"] = _content(run, BY_NAME)
    else:
        line |= {"figures": figures_of(run, tuple(measured)), "n": {}}
    if FEW_SHOT in measured:
        line["held_out"] = run.part("data", "held_out")
        line["n"]["held-out pictures"] = _content(run, FEW_SHOT)["pictures"]
    if SHIFT in measured:
        shift = _content(run, SHIFT)
        line["n"]["test pictures"] = shift["n"]
        line["errors"] = _errors(shift["accuracy"])
        line["errors_by"] = {by: _errors(accuracy) for by, accuracy in shift["by_classifier"].items()}
        for name in [name for name in line["figures"] if name.startswith(ERRORS)]:
            del line["figures"][name]  # of what, is known when all are there
    return line | {
        "options": run.part("options"),
        "seconds": round(run.result["seconds"], 1),
        "versions": run.part("versions"),
    }


def _errors(accuracy: dict[str, Any]) -> dict[str, float]:
    """Of each corruption, the mean over severities."""
    return {name: 1 - each["mean"]["value"] for name, each in accuracy["by_corruption"].items()}


def of_known_classes(content: dict[str, Any]) -> dict[str, float]:
    """Test accuracies that evaluation.json holds, and that of what would be used: a head that was trained with the
    encoder, else what validation prefers."""
    accuracy = {name: figure["value"] for name, figure in content["accuracy"].items()}
    used = "classifier" if "classifier" in accuracy else content["best_on_validation"]
    return {name: accuracy[name] for name in ("linear probe", "centred prototype", "ridge")} | {AS_USED: accuracy[used]}


def of_known_names(run: Run) -> dict[str, Any]:
    """Accuracies on validation, which is of the domains that were trained on, and on the pictures of the one that was
    left out: those of a name that training has from another domain (what is drawn is known), and the others."""
    start_keras(0)
    from prl_keras import load_dataset
    from prl_keras.evaluation.encoded import encode_run
    from prl_keras.evaluation.probes import knn, linear_probe

    dataset = load_dataset(**run.part("data", "request"))
    names = {part: [Path(file).stem for file in getattr(dataset, part).files] for part in ("train", "test")}
    known = np.isin(names["test"], names["train"])
    parts, found = encode_run(run, dataset, None).labelled(dataset), {}
    for name, classifier in (("linear probe", linear_probe), ("kNN", knn)):
        result = classifier(*parts)
        right = result.predicted == dataset.test.labels
        answered = {"known": right[known], "new": right[~known]}
        found[name] = {"validation": result.validation_accuracy}
        found[name] |= {part: float(of.mean()) for part, of in answered.items()}
    n = {"validation": len(dataset.validation), "known": int(known.sum()), "new": int((~known).sum())}
    return {"accuracy": found, "n": n}


def _content(run: Run, name: str) -> dict[str, Any]:
    return json.loads((run.path / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
