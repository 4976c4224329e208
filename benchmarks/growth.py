"""How the cost of a pre-training grows with image size, batch, classes, images and epochs: seconds, and a figure.

    python benchmarks/growth.py docs/results/growth.json docs/pictures/growth.png
    python benchmarks/growth.py growth.json growth.png --quick      # to see that it works

The query variant, small stem, float32, as the program trains by default but without augmentation. Points of a series
take turns, in an order that is turned around each round; reported are medians and quartiles. Steps: `train_on_batch`;
an epoch is the second one of `fit` with its callbacks; "epochs" is a whole `fit`, its tracing included.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prl_keras.startup import start_keras

start_keras(0)

from peers import quartiles
from peers_machine import load, machine
from peers_ours import epoch, pretrainer, step
from peers_worker import made_up

from prl_keras.files import write_json

_PANELS = {  # series -> label of the axis
    "image size": "pixels of a side",
    "batch": "images of a batch",
    "classes": "classes",
    "images": "images of an epoch",
    "epochs": "epochs",
}


def series(quick: bool) -> dict[str, dict[int, Callable[[], float | None]]]:
    """Name -> value -> what is to be timed; it is ready and warm."""
    sizes, batches, classes, images = (
        (range(8, 25, 8), (8, 16), (2, 10), (32, 64))
        if quick
        else ((16, 28, 48, 64, 96), (16, 32, 64, 128, 256, 512), (2, 10, 100, 1000), (512, 1024, 2048, 4096))
    )
    few, many = (8, 16) if quick else (64, 256)
    found = {
        "image size": {size: step(size, few, "small", "query")[0] for size in sizes},
        "batch": {batch: step(28, batch, "small", "query")[0] for batch in batches},
        "classes": {count: step(28, many, "small", "query", classes=count)[0] for count in classes},
        "images": {n: epoch(28, few, n // few, "fit", "query", "none")[0] for n in images},
    }
    for points in found.values():
        for job in points.values():
            job()
    return found


def whole(epochs: int, images: int, batch: int) -> dict[int, float]:
    """Seconds from the beginning of a fresh `fit` to the end of its first epoch, second, fourth ..."""
    import tempfile

    import keras

    from prl_keras.data.batches import Batches
    from prl_keras.runs import create_run
    from prl_keras.training.average import adam
    from prl_keras.training.fit import fit

    model = pretrainer(28, batch, "small", "query")
    batches = Batches(*made_up(28, images), batch, 0, drop_remainder=True)
    model.compile(adam(1e-3, epochs * len(batches), average=True))
    ends: list[float] = []
    stamp = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    stamp.adds = ()
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder), "x", {"command": "pretrain"})
        begun = time.perf_counter()
        fit(model, batches, epochs, run, None, [stamp])
    return {number: ends[number - 1] - begun for number in (1, 2, 4, 8, 16, 32) if number <= epochs}


def measured(quick: bool, rounds: int) -> dict[str, Any]:
    seconds: dict[str, dict[int, list[float]]] = {}
    for name, points in series(quick).items():
        print(name, file=sys.stderr, flush=True)
        seconds[name] = {value: [] for value in points}
        for number in range(rounds):
            for value, job in points.items() if number % 2 == 0 else reversed(points.items()):
                begun = time.perf_counter()
                own = job()
                seconds[name][value].append(time.perf_counter() - begun if own is None else own)
    print("epochs", file=sys.stderr, flush=True)
    trained = [whole(4 if quick else 16, 32 if quick else 1024, 8 if quick else 128) for _ in range(min(rounds, 3))]
    seconds["epochs"] = {count: [each[count] for each in trained] for count in trained[0]}
    return {
        name: {
            str(value): {"seconds": statistics.median(each), "quartiles": quartiles(each)} for value, each in of.items()
        }
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
