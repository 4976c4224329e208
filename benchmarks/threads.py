"""t-SNE as `visualize` calls it, against scikit-learn's threads as they come, alone and beside another job.

    python benchmarks/threads.py docs/results/threads.json

How OpenMP's threads wait is fixed for a process, so whole processes take turns (A B A B); the median of the seconds,
and of the ratios of neighbours, count. The other job is one process that never waits; "load" is that of the machine
when a pair began, so 0 where nobody else works on it. Features: 10 clusters in 512 dimensions.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
POINTS = {194: 5, 1_000: 3, 3_000: 1}  # rounds of each


def seconds(points: int, as_it_comes: bool) -> float:
    """Of one map, without the seconds of the imports."""
    sys.path.insert(0, str(ROOT))
    if not as_it_comes:
        import prl_keras.startup  # noqa: F401  before scikit-learn
    import numpy as np
    from sklearn.manifold import TSNE

    from prl_keras.visualization.embeddings import tsne_map

    rng = np.random.default_rng(0)
    features = rng.normal(size=(points, 512)) + 3 * rng.normal(size=(10, 512))[np.arange(points) % 10]
    started = time.perf_counter()
    if as_it_comes:
        TSNE(perplexity=30, init="pca", random_state=0).fit_transform(features.astype("float32"))
    else:
        tsne_map(features)
    return time.perf_counter() - started


def child(points: int, as_it_comes: bool) -> float:
    words = [sys.executable, __file__, "--child", str(points), str(int(as_it_comes))]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, encoding="utf-8", check=True)
    return float(done.stdout)


@contextmanager
def another_job(beside: bool):
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def main(file: str) -> None:
    results = {"processors": len(os.sched_getaffinity(0))}
    for beside in (False, True):
        with another_job(beside):
            for points, rounds in POINTS.items():
                load = round(os.getloadavg()[0], 1)
                pairs = [(child(points, True), child(points, False)) for _ in range(rounds)]
                before, now = (round(statistics.median(side), 2) for side in zip(*pairs, strict=True))
                ratio = round(statistics.median(a / b for a, b in pairs), 1)
                name = f"{points} points, {'beside another job' if beside else 'alone'}"
                results[name] = {"as it comes": before, "now": now, "ratio": ratio, "load": load}
                print(name, results[name], flush=True)
    Path(file).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        print(seconds(int(sys.argv[2]), sys.argv[3] == "1"))
    else:
        main(sys.argv[1])
