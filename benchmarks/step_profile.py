"""Where the time of a training step goes: operations by kind, and convolutions by stage, from TensorFlow's profiler.

    python benchmarks/step_profile.py docs/results/step_profile.json 96-imagenet --precision mixed_bfloat16
    python benchmarks/step_profile.py --table docs/results/step_profile.json

The cases are those of peers.py; the file keeps what it has of others. Operations run one after the other here, each on
all cores: side by side their times would overlap. A kind is that of the graph as it is executed, where TensorFlow has
put oneDNN's operations in; a gradient that the layer makes itself bears no stage's name.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_NUM_INTEROP_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peers import CASES
from peers_machine import load, machine
from peers_ours import step

from prl_keras.files import write_json
from prl_keras.markdown import pipe_table
from prl_keras.startup import start_keras

_STEPS = 5
_MOST = 16  # rows of a table
_FORWARD, _INPUTS, _KERNEL = "Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"


def profile(job: Callable[[], Any]) -> tuple[Counter[str], float]:
    """Milliseconds a step of each operation, by name:kind, and of a step by the clock, with what the profiler costs."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    for _ in range(3):
        job()
    space = XSpace()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        with tf.profiler.experimental.Profile(folder):
            for _ in range(_STEPS):
                job()
        wall = 1e3 * (time.perf_counter() - begun) / _STEPS
        space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    found: Counter[str] = Counter()
    for plane in space.planes:
        names = {key: entry.name for key, entry in plane.event_metadata.items()}
        for line in plane.lines if plane.name == "/host:CPU" else ():
            around: list[tuple[int, str]] = []  # ends and names of events that the next one may be in
            for event in sorted(line.events, key=lambda one: (one.offset_ps, -one.duration_ps)):
                while around and around[-1][0] <= event.offset_ps:
                    around.pop()
                own, name = event.duration_ps / 1e9 / _STEPS, names[event.metadata_id]
                found[name] += own
                if around:
                    found[around[-1][1]] -= own
                around.append((event.offset_ps + event.duration_ps, name))
    return Counter({name: own for name, own in found.items() if ":" in name and "::" not in name}), wall


def summary(found: Counter[str]) -> dict[str, dict[str, float]]:
    """Milliseconds by kind; of convolutions and products by stage."""
    kinds: Counter[str] = Counter()
    stages: dict[str, Counter[str]] = {}
    for name, own in found.items():
        path, _, kind = name.rpartition(":")
        kind = re.sub("^_Mkl(Native)?", "", kind)
        kinds[kind] += own
        stage = re.search(r"stem|stage\d", path)
        if stage and kind in (_FORWARD, _INPUTS, _KERNEL, "MatMul"):
            stages.setdefault(stage[0], Counter())[kind] += own
    rounded = {stage: {kind: round(own, 2) for kind, own in by.items()} for stage, by in sorted(stages.items())}
    return {"kinds": {kind: round(own, 2) for kind, own in kinds.most_common(_MOST)}, "stages": rounded}


def tables(content: dict[str, Any]) -> str:
    blocks = []
    for name, case in content["cases"].items():
        whole = case["operations_ms"]
        rows = [[kind, f"{own:.1f}", f"{100 * own / whole:.0f} %"] for kind, own in case["kinds"].items()]
        blocks.append(pipe_table([f"{name}: operation", "ms a step", "of all"], rows, left=(0,)))
        kinds = (_FORWARD, _INPUTS, _KERNEL, "MatMul")
        stages = case["stages"]
        named = {kind: sum(by.get(kind, 0) for by in stages.values()) for kind in kinds}
        stages = stages | {"gradients as products": {k: max(0, case["kinds"].get(k, 0) - named[k]) for k in kinds}}
        rows = [[stage, *(f"{by.get(kind, 0):.1f}" for kind in kinds)] for stage, by in stages.items()]
        blocks.append(pipe_table([f"{name}: ms a step of", *kinds], rows, left=(0,)))
    return "\n\n".join(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("case", nargs="?", choices=CASES, default="96-imagenet")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--table", action="store_true", help="print the tables of the file, and measure nothing")
    options = parser.parse_args()
    content = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {"cases": {}}
    if not options.table:
        start_keras(0)
        job, _ = step(**CASES[options.case].settings(False), precision=options.precision, average=True)
        began, (found, wall) = load(), profile(job)
        facts = {"load": began, "step_ms": round(wall, 1), "operations_ms": round(sum(found.values()), 1)}
        content["machine"] = machine()
        content["cases"][f"{options.case}, {options.precision}"] = facts | summary(found)
        write_json(options.output, content)
    print(tables(content))


if __name__ == "__main__":
    main()
