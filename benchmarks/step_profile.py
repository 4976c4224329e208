"""Where the time of a training step goes: operations by kind, from TensorFlow's profiler.

    python benchmarks/step_profile.py 96-imagenet --precision mixed_bfloat16
    python benchmarks/step_profile.py 28-stride2 --json docs/results/step_profile.json      # adds to the file

Kinds are those of the executed graph, after TensorFlow's optimizer has put oneDNN's operations in place. Milliseconds are
of processor time: an operation's share of its threads, without the operations that it waits for.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prl_keras.startup import start_keras

start_keras(0)

from peers import CASES
from peers_machine import bfloat16_is_fast, load, machine
from peers_ours import step

from prl_keras.files import write_json
from prl_keras.markdown import pipe_table

_STEPS = 5


def profile(job, folder: Path) -> tuple[Counter, float]:
    """Kind -> seconds a step, and the wall-clock seconds of a step."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    for _ in range(3):
        job()
    begun = time.perf_counter()
    with tf.profiler.experimental.Profile(str(folder)):
        for _ in range(_STEPS):
            job()
    seconds = (time.perf_counter() - begun) / _STEPS
    space = XSpace()
    space.ParseFromString(next(folder.rglob("*.xplane.pb")).read_bytes())
    found: Counter = Counter()
    for plane in space.planes:
        if plane.name != "/host:CPU":
            continue
        names = {key: entry.name for key, entry in plane.event_metadata.items()}
        for line in plane.lines:
            events = sorted(line.events, key=lambda event: (event.offset_ps, -event.duration_ps))
            open_events: list = []
            for event in events:
                while open_events and open_events[-1][0] <= event.offset_ps:
                    open_events.pop()
                name = names[event.metadata_id]
                own = event.duration_ps / 1e12 / _STEPS
                found[name] += own
                if open_events:
                    found[open_events[-1][1]] -= own
                open_events.append((event.offset_ps + event.duration_ps, name))
    return found, seconds


if __name__ == "__main__":
    name, precision = sys.argv[1], sys.argv[2]
    job, _ = step(**CASES[name].settings(False), precision=precision, average=True)
    with tempfile.TemporaryDirectory() as folder:
        found, seconds = profile(job, Path(folder))
    print(seconds)
    for key, value in found.most_common(60): print(f"{1000*value:8.2f} {key}")
