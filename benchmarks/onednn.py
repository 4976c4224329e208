"""A training step with and without oneDNN, which TensorFlow leaves off on processors without AVX-512 VNNI.

    python benchmarks/onednn.py docs/results/onednn.json

Whether oneDNN is used is fixed for a process, so whole processes take turns (A B A B) and the median of the ratios of
neighbours counts. The images are those of fashion_500: 28 px, batch 256.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 2
STEPS = 2


def seconds_a_step() -> dict[str, float]:
    """Of Keras's layers and of the fast ones: the median of a few steps after two for tracing and caches."""
    sys.path.insert(0, str(ROOT))
    from prl_keras.startup import start_keras

    start_keras(0)
    from training_step import GROUPS, build

    seconds = {}
    for name in ("Keras's layers", "and small maps as matrices"):
        model, images, labels = build(*GROUPS["28 px"][name])
        times = []
        for _ in range(2 + STEPS):
            started = time.perf_counter()
            model.train_on_batch(images, labels)
            times.append(time.perf_counter() - started)
        seconds[name] = statistics.median(times[2:])
    return seconds


def in_a_process(switch: str) -> dict[str, float]:
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": switch}
    command = [sys.executable, __file__, "--child"]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1:] == ["--child"]:
        print(json.dumps(seconds_a_step()))
        raise SystemExit
    rounds = [(in_a_process("0"), in_a_process("1")) for _ in range(ROUNDS)]
    result = {
        name: {
            "seconds_without": round(statistics.median(off[name] for off, _ in rounds), 3),
            "seconds_with": round(statistics.median(on[name] for _, on in rounds), 3),
            "speed_ratio": round(statistics.median(off[name] / on[name] for off, on in rounds), 2),
        }
        for name in rounds[0][0]
    }
    text = json.dumps(result, indent=2)
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
