"""Kill workers of a shared table at random, and see whether the table is the one that a single process makes.

    python benchmarks/shared.py docs/results/shared.json --rounds 10

Each round: four processes of `reproduce --shared` on a table of ten runs; at random times one of them is killed with
SIGKILL and another one started. Then every file of weights and answers, and the figures of result.json, are compared
with those of a table that one process made undisturbed.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
WORDS = [
    *("reproduce", "--dataset", "digits", "--image-size", "8", "--samples-per-class", "20", "--name", "table"),
    *("--rows", "pca", "mlp", "query-frozen-linear", "--epochs", "3", "--batch-size", "32", "--seeds", "2"),
]
WORKERS, KILLS, LEASE = 4, 4, 5
_LIMIT = 1800.0  # seconds a round


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prl-shared-") as folder:
        whole = Path(folder) / "whole"
        started = time.monotonic()
        subprocess.run(_command(whole, "--jobs", "1"), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        alone, expected = time.monotonic() - started, _contents(whole / "table")
        rounds = [_round(Path(folder) / str(number), number, expected) for number in range(options.rounds)]
    content = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "command": " ".join(WORDS),
        "workers": WORKERS,
        "lease_seconds": LEASE,
        "one_process_seconds": round(alone, 1),
        "compared": sorted(expected),
        "rounds": rounds,
    }
    options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    kills, same = sum(each["kills"] for each in rounds), sum(not each["different"] for each in rounds)
    print(f"{len(rounds)} rounds, {kills} kills, {same} tables as that of one process")
    return 0 if same == len(rounds) else 1


def _command(runs_dir: Path, *more: str) -> list[str]:
    return [sys.executable, "main.py", *WORDS, "--runs-dir", str(runs_dir), *more]


def _round(runs_dir: Path, seed: int, expected: dict[str, str]) -> dict[str, Any]:
    rng, log = random.Random(seed), runs_dir.with_suffix(".log").open("w", encoding="utf-8")

    def start() -> subprocess.Popen:
        words = _command(runs_dir, "--shared", "--lease-seconds", str(LEASE))
        return subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log)

    started, crew, kills, at = time.monotonic(), [start() for _ in range(WORKERS)], 0, []
    next_kill = time.monotonic() + rng.uniform(5, 25)
    while any(worker.poll() is None for worker in crew):
        time.sleep(0.2)
        if time.monotonic() - started > _LIMIT:
            for worker in crew:
                worker.kill()
            break
        alive = [worker for worker in crew if worker.poll() is None]
        if kills < KILLS and alive and time.monotonic() > next_kill:
            victim = rng.choice(alive)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            kills += 1
            at.append(round(time.monotonic() - started, 1))
            crew.append(start())
            next_kill = time.monotonic() + rng.uniform(5, 25)
    found = _contents(runs_dir / "table")
    codes = sorted(worker.returncode for worker in crew)
    different = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
    result = {
        "kills": kills,
        "killed_after_seconds": at,
        "exit_codes": codes,
        "seconds": round(time.monotonic() - started, 1),
        "different": different,
        "leases_left": len(list((runs_dir / "table" / "leases").glob("*"))),
    }
    print(f"round {seed + 1}: {result}", flush=True)
    return result


def _contents(table: Path) -> dict[str, str]:
    """A hash of each run's weights, answers and metrics, and of the table's figures; without times."""
    found = {}
    for result in sorted(table.glob("*/result.json")):
        content = json.loads(result.read_text(encoding="utf-8"))
        told = {key: content[key] for key in sorted(content) if key.endswith("sha256") or key in ("accuracy", "epochs")}
        found[f"{result.parent.name}/result.json"] = _hash(json.dumps(told, sort_keys=True).encode())
    for file in sorted(table.glob("*/predictions.npz")):
        with np.load(file, allow_pickle=False) as kept:
            found[f"{file.parent.name}/predictions.npz"] = _hash(b"".join(kept[name].tobytes() for name in kept))
    for file in sorted(table.glob("*/label_efficiency.json")):
        found[f"{file.parent.name}/label_efficiency.json"] = _hash(file.read_bytes())
    for file in sorted(table.glob("*/metrics.jsonl")):
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        timeless = [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]
        found[f"{file.parent.name}/metrics.jsonl"] = _hash(json.dumps(timeless).encode())
    if (table / "result.json").exists():
        rows = json.loads((table / "result.json").read_text(encoding="utf-8"))["rows"]
        told = [{key: row[key] for key in ("row", "accuracy", "test_over_images", "against")} for row in rows]
        found["result.json"] = _hash(json.dumps(told, sort_keys=True).encode())
    return found


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
