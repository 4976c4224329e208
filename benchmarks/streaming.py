"""A training from the store of decoded images against one from memory: resident memory and seconds an epoch, as the
set grows 1, 4 and 16 times.

    python benchmarks/streaming.py read.json
    python benchmarks/streaming.py --images 2048 --steps 8 --width 0.125 --work fit fit.json
    python benchmarks/streaming.py --folder 200000 --side 96

Whole processes take turns (memory, store, memory, store) and the median of the ratios of neighbours counts. An epoch
has the same number of steps, whatever the set's size, so that only what the size does is seen. The first epoch of a
store compares each image that it reads with its checksum; it is reported apart. `--folder` makes a folder of so many
small JPEGs and says how long it takes to convert it, and to open it again.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
FACTORS = (1, 4, 16)
BATCH = 256
CLASSES = 10


def made_up(side: int, start: int, stop: int) -> Iterator[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(start)
    return ((rng.integers(0, 256, (side, side, 3), np.uint8), row % CLASSES) for row in range(start, stop))


def resident() -> dict[str, float]:
    """MB of this process now, and at most so far."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"now": pages * os.sysconf("SC_PAGE_SIZE") / 1e6, "most": most * 1024 / 1e6}


def child(options: argparse.Namespace) -> dict[str, object]:
    """Seconds and memory of some epochs."""
    from prl_keras.startup import start_keras

    start_keras(0)
    from prl_keras.data.batches import Batches
    from prl_keras.data.rows import opened

    images = opened(f"bench-{options.images}", Path(options.cache))
    labels = images.labels
    if options.source == "memory":
        images = images[:]
    step = training_step(options) if options.work == "fit" else lambda images, labels: images.sum()
    batches = Batches(images, labels, BATCH, seed=0)
    seconds, steps = [], min(options.steps, len(batches))
    for epoch in range(options.epochs):
        batches.epoch = epoch
        started = time.perf_counter()
        for number in range(steps):
            step(*batches[number])
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "steps": steps, "memory": resident()}


def training_step(options: argparse.Namespace):
    import keras

    from prl_keras.models import build_classifier, resnet18

    model = build_classifier(resnet18((options.side, options.side, 3), width=options.width), CLASSES)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = np.zeros((BATCH, options.side, options.side, 3), np.uint8)
    model.train_on_batch(images, np.zeros(BATCH))  # traced
    return model.train_on_batch


def in_a_process(options: argparse.Namespace, source: str, images: int) -> dict[str, object]:
    words = ["--child", "--source", source, "--images", str(images), "--cache", options.cache, "--work", options.work]
    words += ["--epochs", str(options.epochs), "--steps", str(options.steps), "--side", str(options.side)]
    command = [sys.executable, __file__, *words, "--width", str(options.width)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def grown(options: argparse.Namespace, factor: int) -> dict[str, object]:
    from prl_keras.data.store import open_or_build

    count, side = options.images * factor, options.side
    open_or_build(f"bench-{count}", (side, side, 3), count, partial(made_up, side), Path(options.cache))
    pairs = [[in_a_process(options, source, count) for source in ("memory", "store")] for _ in range(options.rounds)]
    later = [[statistics.median(one["seconds"][1:]) for one in pair] for pair in pairs]
    first = [[one["seconds"][0] for one in pair] for pair in pairs]
    result: dict[str, object] = {"images": count, "megabytes": round(count * side * side * 3 / 1e6, 1)}
    for number, source in enumerate(("memory", "store")):
        result[source] = {
            "resident_megabytes": round(statistics.median(pair[number]["memory"]["now"] for pair in pairs), 1),
            "most_megabytes": round(statistics.median(pair[number]["memory"]["most"] for pair in pairs), 1),
            "seconds_an_epoch": round(statistics.median(pair[number] for pair in later), 4),
        }
    result["time_ratio"] = round(statistics.median(store / memory for memory, store in later), 3)
    result["time_ratio_first_epoch"] = round(statistics.median(store / memory for memory, store in first), 3)
    return result | {"steps_an_epoch": pairs[0][0]["steps"]}


def write_folder(root: Path, count: int, side: int) -> None:
    """train/ and test/ with ten classes of random JPEGs, `count` in all, a tenth of them in test."""
    from PIL import Image

    from prl_keras.data.parallel import in_order

    for split in ("train", "test"):
        for label in range(CLASSES):
            (root / split / f"class{label}").mkdir(parents=True)

    def write(number: int) -> None:
        small = np.random.default_rng(number).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
        split = "test" if number % 100 < 10 else "train"
        path = root / split / f"class{number // 100 % CLASSES}" / f"{number:07}.jpg"
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=85)

    for _ in in_order(write, range(count)):
        pass


def folder_times(count: int, side: int, place: Path) -> dict[str, object]:
    """Of a folder of JPEGs: seconds to convert it, and to open it again in a process of its own."""
    write_folder(place / "jpegs", count, side)
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from prl_keras.data import load_dataset; "
        "t = time.perf_counter(); d = load_dataset(sys.argv[2], cache_dir=sys.argv[3]); "
        "print(time.perf_counter() - t, d.fingerprint)"
    )
    found = []
    for cache in ("none", "cache", "cache"):
        where = cache if cache == "none" else str(place / cache)
        command = [sys.executable, "-c", code, str(ROOT), str(place / "jpegs"), where]
        found.append(subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout.split())
    assert len({fingerprint for _, fingerprint in found}) == 1
    names = ("seconds_into_memory", "seconds_converted", "seconds_opened_again")
    seconds = {name: round(float(one), 2) for name, (one, _) in zip(names, found, strict=True)}
    return {"files": count, "side": side, **seconds}


def main() -> None:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("output", nargs="?", type=Path)
    add("--images", type=int, default=1024, help="of the smallest set")
    add("--side", type=int, default=96)
    add("--epochs", type=int, default=4)
    add("--steps", type=int, default=4, help="of an epoch, at most")
    add("--rounds", type=int, default=2)
    add("--work", choices=("read", "fit"), default="read", help="of a step: only read the batch, or train on it")
    add("--width", type=float, default=1.0, help="of the ResNet-18 that --work fit trains")
    add("--folder", type=int, default=0, metavar="N", help="also convert a folder of N JPEGs")
    add("--child", action="store_true", help=argparse.SUPPRESS)
    add("--source", help=argparse.SUPPRESS)
    add("--cache", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options)))
        return
    with tempfile.TemporaryDirectory() as place:
        options.cache = options.cache or place
        result = {
            "work": options.work,
            "side": options.side,
            "batch": BATCH,
            "grown": {f"{factor}x": grown(options, factor) for factor in FACTORS},
        }
        if options.folder:
            result["folder"] = folder_times(options.folder, options.side, Path(place))
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
