"""How the cost of a pre-training grows with image size, batch, classes, images and epochs: seconds, and a figure.

    python benchmarks/growth.py docs/results/growth.json docs/pictures/growth.png
    python benchmarks/growth.py growth.json growth.png --quick      # to see that it works

The query variant, small stem, float32, as the program trains by default but without augmentation. Points of a series
take turns, in an order that is turned around each round; reported are medians and quartiles. Steps: `train_on_batch`;
an epoch is the third one of `fit` with its callbacks; "epochs" is a whole `fit`, its tracing included.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peers import in_turn, quartiles
from peers_machine import load, machine
from peers_worker import OURS, Worker

from prl_keras.files import write_json

_PANELS = {  # series -> label of the axis
    "image size": "pixels of a side",
    "batch": "images of a batch",
    "classes": "classes",
    "images": "images of an epoch",
    "epochs": "epochs",
}


def series(quick: bool) -> dict[str, dict[str, tuple[str, str, dict[str, Any]]]]:
    """Name -> value -> what a worker of peers.py is to time."""
    sizes, batches, classes, images = (
        (range(8, 25, 8), (8, 16), (2, 10), (32, 64))
        if quick
        else ((16, 28, 48, 64, 96), (16, 32, 64, 128, 256, 512), (2, 10, 100, 1000), (512, 1024, 2048, 4096))
    )
    few, many = (8, 16) if quick else (64, 256)
    usual = {"size": 28, "batch": few, "stem": "small", "variant": "query"}
    epoch = {"size": 28, "batch": few, "work": "fit", "variant": "query", "augment": "none", "warm": 1}
    return {
        "image size": {str(size): (OURS, "step", usual | {"size": size}) for size in sizes},
        "batch": {str(batch): (OURS, "step", usual | {"batch": batch}) for batch in batches},
        "classes": {str(count): (OURS, "step", usual | {"batch": many, "classes": count}) for count in classes},
        "images": {str(n): (OURS, "epoch", epoch | {"steps": n // few}) for n in images},
    }


def measured(quick: bool, rounds: int) -> dict[str, Any]:
    seconds: dict[str, dict[str, list[float]]] = {}
    for name, jobs in series(quick).items():
        print(name, file=sys.stderr, flush=True)
        seconds[name] = {value: row["rounds"] for value, row in in_turn(jobs, rounds, calls=1).items()}
    print("epochs", file=sys.stderr, flush=True)
    size = {"epochs": 4, "images": 32, "batch": 8} if quick else {"epochs": 16, "images": 1024, "batch": 128}
    with Worker(OURS) as worker:
        trained = [worker.ask("training", **size) for _ in range(min(rounds, 3))]
    seconds["epochs"] = {count: [each[count] for each in trained] for count in trained[0]}
    return {
        name: {value: {"seconds": statistics.median(each), "quartiles": quartiles(each)} for value, each in of.items()}
        for name, of in seconds.items()
    }


def ideal(name: str, values: list[int], seconds: list[float]) -> list[float]:
    """What the largest point's cost would be elsewhere: as its pixels, as many images, or the same for any classes."""
    power = {"image size": 2, "classes": 0}.get(name, 1)
    return [seconds[-1] * (value / values[-1]) ** power for value in values]


def draw(figures: Mapping[str, Any], file: Path) -> None:
    from matplotlib.ticker import LogLocator

    from prl_keras.visualization.canvas import new_figure, save_figure

    figure, axes = new_figure(11, 6.2, columns=3, rows=2)
    for panel, (name, label) in zip(axes.flat, _PANELS.items(), strict=False):
        values = [int(value) for value in figures[name]]
        middle = [point["seconds"] for point in figures[name].values()]
        low, high = (
            [abs(m - p["quartiles"][end]) for m, p in zip(middle, figures[name].values(), strict=True)]
            for end in (0, 2)
        )
        panel.errorbar(values, middle, (low, high), marker="o", capsize=3, label="measured")
        panel.plot(values, ideal(name, values, middle), linestyle="--", color="grey", label="ideal")
        panel.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds", title=f"{name}: {_PER[name]}")
        panel.set_xticks(values, [str(value) for value in values])
        if max(middle) < 2 * min(middle):  # what hardly grows is not to look steep
            panel.set_ylim(min(middle) / 2, max(middle) * 2)
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend()
    axes.flat[-1].set_axis_off()
    save_figure(figure, file)


_PER = dict.fromkeys(("image size", "batch", "classes"), "a step") | {"images": "an epoch", "epochs": "a training"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("figure", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the figures mean nothing")
    options = parser.parse_args()
    began = load()
    figures = measured(options.quick, 2 if options.quick else options.rounds)
    write_json(options.output, {"machine": machine(), "load": began, "rounds": options.rounds, "seconds": figures})
    draw(figures, options.figure)


if __name__ == "__main__":
    main()
