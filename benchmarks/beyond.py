"""What encoders are worth beyond their training classes, by the budget of docs/beyond.md: each figure outlasts its run.

    python benchmarks/beyond.py run fashion_500    # what docs/results/beyond.jsonl lacks, seed by seed
    python benchmarks/beyond.py table fashion_500  # the page docs/results/beyond-fashion_500.md and its picture

Each line of the file is one training of one method, measured by `evaluate` with --few-shot, --unknown and --shift. A
training that was interrupted is continued. Emoji are a folder that benchmarks/emoji.py makes: begin where it is.
"""

import argparse
import json
import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lines import add, read
from processes import done_side_by_side

from prl_keras.cli import main as command_line
from prl_keras.evaluation.statistics import mean_over_seeds
from prl_keras.experiments.beyond import ERRORS, FEW_SHOT, SHIFT, UNKNOWN, as_markdown, compared, draw, figures_of
from prl_keras.experiments.table import TITLES
from prl_keras.files import write_text
from prl_keras.markdown import pipe_table
from prl_keras.runs import Run
from prl_keras.screen.console import mean_and_interval
from prl_keras.startup import forget_models

RESULTS = ROOT / "docs" / "results" / "beyond.jsonl"


class Campaign(NamedTuple):
    """data: of all trainings; epochs: of one view an image, half of them of two; measured: of `evaluate`, by file."""

    title: str
    data: str
    epochs: int
    measured: dict[str, str]


CAMPAIGNS = {
    "fashion_500": Campaign(
        "fashion_500",
        "--dataset fashion_500 --hold-out-classes 5 --test-per-class 200",
        40,
        {FEW_SHOT: "--few-shot", UNKNOWN: "--unknown --far digits", SHIFT: "--shift"},
    ),
    "emoji": Campaign(
        "emoji of two vendors",
        "--dataset emoji/names --labels emoji/names/labels.csv --domains --image-size 32 --hold-out-classes 0.3",
        30,
        {FEW_SHOT: "--few-shot --ways 20 --shots 1 --queries 1"},
    ),
}
USUAL = "open-resnet18"  # what errors are relative to
METHODS = {  # as in prl_keras.experiments.table -> command, and how many views of an image a step sees
    USUAL: ("baseline", 1),
    "open-prl": ("pretrain --variant prl", 1),
    "open-loo": ("pretrain --variant loo", 1),
    "open-supcon": ("pretrain --variant supcon", 2),
    "open-simclr": ("pretrain --variant simclr", 2),
    "open-query": ("pretrain --variant query", 1),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "one"), help="one: the first method and seed, in its folder")
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, choices=range(1, 65), metavar="N")
    parser.add_argument("--precision", default="float32", help="of all trainings")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "saved_models" / "beyond")
    options = parser.parse_args()
    lines = [line for line in read(options.results) if line["campaign"] == options.campaign]
    if options.action == "table":
        return write(lines, options.campaign, options.results)
    if options.action == "one":
        return one(options.campaign, options.methods[0], options.seeds[0], options.runs_dir, options.precision)
    if other := {line["precision"] for line in lines} - {options.precision}:
        parser.error(f"{options.campaign} is of --precision {', '.join(sorted(other))} so far; a table has one")
    known = {(line["method"], line["seed"]) for line in lines}
    wanted = [(method, seed) for seed in options.seeds for method in options.methods]
    return run([each for each in wanted if each not in known], options)


def run(todo: list[tuple[str, int]], options: argparse.Namespace) -> int:
    """So many at a time; a line and no folder is left of each."""
    command = [sys.executable, __file__, "one", options.campaign, "--runs-dir", str(options.runs_dir)]
    command += ["--precision", options.precision]
    commands = {(method, seed): [*command, "--methods", method, "--seeds", str(seed)] for method, seed in todo}
    with closing(done_side_by_side(commands, options.jobs)) as done:
        for (method, seed), code, left in done:
            if code:
                return code
            folder = options.runs_dir / f"{options.campaign}-{method}-s{seed}"
            add(options.results, collected(Run(folder), options.campaign, method, seed))
            shutil.rmtree(folder)
            print(f"{method}, seed {seed}: measured; {left} to begin", flush=True)
    return 0


def one(name: str, method: str, seed: int, runs_dir: Path, precision: str) -> int:
    """Train it and measure it, or what of this is missing."""
    campaign, run = CAMPAIGNS[name], Run(runs_dir / f"{name}-{method}-s{seed}")
    command, views = METHODS[method]
    training = f"{command} --recipe open {campaign.data} --epochs {campaign.epochs // views} --seed {seed}".split()
    place = ["--runs-dir", str(runs_dir)]
    wanted = [] if run.result is not None else [[*training, "--precision", precision, "--name", run.name, *place]]
    for file, how in campaign.measured.items():
        if not (run.path / file).exists():
            wanted.append(["evaluate", run.name, *how.split(), *place])
    for each in wanted:
        if code := command_line(each):
            return code
        forget_models()
    return 0


def collected(run: Run, campaign: str, method: str, seed: int) -> dict[str, Any]:
    """The line of a run that is trained and measured."""
    measured = CAMPAIGNS[campaign].measured
    line = {"campaign": campaign, "method": method, "seed": seed, "precision": run.part("options", "precision")}
    line |= {"held_out": run.part("data", "held_out"), "figures": figures_of(run, tuple(measured))}
    line["n"] = {"held-out pictures": _content(run, FEW_SHOT)["pictures"]}
    if SHIFT in measured:
        shift = _content(run, SHIFT)
        line["n"]["test pictures"] = shift["n"]
        line["errors"] = {name: 1 - each["mean"]["value"] for name, each in shift["accuracy"]["by_corruption"].items()}
        del line["figures"][ERRORS]  # of what, is known when all are there
    return line | {
        "options": run.part("options"),
        "seconds": round(run.result["seconds"], 1),
        "versions": run.part("versions"),
    }


def _content(run: Run, name: str) -> dict[str, Any]:
    return json.loads((run.path / name).read_text(encoding="utf-8"))


def write(lines: list[dict[str, Any]], campaign: str, beside: Path) -> int:
    """The page of the seeds that every method has, and its picture."""
    by = {(line["method"], line["seed"]): line for line in lines}
    seeds = sorted({seed for _, seed in by if all((method, seed) in by for method in METHODS)})
    if not seeds:
        print(f"no seed has all of {', '.join(METHODS)} yet")
        return 1
    if any(by[method, s]["held_out"] != by[USUAL, s]["held_out"] for method in METHODS for s in seeds):
        print("the methods of a seed have different classes held out: they cannot be compared")
        return 1
    each = {method: [figures(by[method, s], by[USUAL, s]) for s in seeds] for method in METHODS}
    found = compared(each, {f"s{seed}": by[USUAL, seed]["held_out"] for seed in seeds})
    page = beside.with_name(f"beyond-{campaign}.md")
    picture = draw(found, page.with_suffix(".png"))
    command = f"python benchmarks/beyond.py table {campaign}"
    text = as_markdown(found, CAMPAIGNS[campaign].title, command, beside.name, picture.name)
    text += f"\n{budget(campaign, [by[USUAL, seed] for seed in seeds])}\n"
    if "errors" in by[USUAL, seeds[0]]:
        text += f"\n{by_corruption(by, seeds)}\n"
    write_text(page, text)
    print(page)
    return 0


def budget(campaign: str, lines: list[dict[str, Any]]) -> str:
    data, epochs = CAMPAIGNS[campaign].data, CAMPAIGNS[campaign].epochs
    counts = {what: ", ".join(f"{line['n'][what]:,}" for line in lines) for what in lines[0]["n"]}
    pictures = "; ".join(f"{what}: {each}" for what, each in counts.items())
    return (
        f"Each training: `--recipe open {data}`, {epochs} epochs, {epochs // 2} of two views, {lines[0]['precision']}. "
        f"By draw, {pictures}."
    )


def by_corruption(by: dict[tuple[str, int], dict[str, Any]], seeds: list[int]) -> str:
    def cell(method: str, name: str) -> str:
        return mean_and_interval(mean_over_seeds(np.array([1 - by[method, seed]["errors"][name] for seed in seeds])))

    rows = [
        [name.replace("_", " "), *(cell(method, name) for method in METHODS)] for name in by[USUAL, seeds[0]]["errors"]
    ]
    head = ["", *(TITLES[method] for method in METHODS)]
    return f"Accuracy in % under each corruption, mean of five severities:\n\n{pipe_table(head, rows, left=(0,))}"


def figures(line: dict[str, Any], usual: dict[str, Any]) -> dict[str, float | None]:
    """With mCE relative to the usual training of the same draw; where that makes no errors it is not defined."""
    if "errors" not in line:
        return line["figures"]
    ratios = [line["errors"][name] / error if error else np.nan for name, error in usual["errors"].items()]
    return line["figures"] | {ERRORS: None if np.isnan(ratios).any() else float(np.mean(ratios))}


if __name__ == "__main__":
    sys.exit(main())
