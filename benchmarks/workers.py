"""Kill or stop workers of a shared training at random, and see whether the others name them and the repeated command
ends at the weights of a training that nobody disturbed.

    python benchmarks/workers.py docs/results/workers.json --rounds 10

Each round: two processes of `pretrain --strategy multiworker` on loopback; at a random moment one of them gets SIGKILL
or SIGSTOP, in turn the second one and the chief. The other one has to end by itself, with one line that names it; the
stopped one is woken, and has to end too. Then both are started again with the same command. The encoder's weights and
the epochs' figures are compared with those of an undisturbed pair. Stopped and started again, it goes on with the round
that is missing.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from loopback import tf_configs
from peers_machine import machine

from prl_keras.files import write_json

EPOCHS = 8
WORDS = [
    *("pretrain", "--strategy", "multiworker", "--dataset", "digits", "--image-size", "16", "--width", "0.125"),
    *("--batch-size", "64", "--epochs", str(EPOCHS), "--checkpoint-steps", "5", "--name", "shared"),
]
SIGNALS = ("SIGKILL", "SIGSTOP")
ALLOWED = 60.0  # seconds until the others have ended
_LIMIT = 1800.0  # seconds for a training
_TIMES = ("seconds", "images_per_second")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    content = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    with tempfile.TemporaryDirectory(prefix="prl-workers-") as folder:
        if "undisturbed" not in content or content["command"] != " ".join(WORDS):
            begun = time.monotonic()
            for crew in _finished(_start(Path(folder) / "whole")):
                assert crew == 0, "the undisturbed training failed"
            seconds = round(time.monotonic() - begun, 1)
            undisturbed = _contents(Path(folder) / "whole") | {"training_seconds": seconds}
            content = {"machine": machine(), "command": " ".join(WORDS), "undisturbed": undisturbed, "rounds": []}
            write_json(options.out, content)
        for number in range(len(content["rounds"]), options.rounds):
            content["rounds"].append(_round(Path(folder) / str(number), number, content["undisturbed"]))
            write_json(options.out, content)
            print(f"round {number + 1}: {content['rounds'][-1]}", flush=True)
    rounds = content["rounds"][: options.rounds]
    good = sum(each["named"] and each["others_ended_after"] <= ALLOWED and not each["different"] for each in rounds)
    print(f"{len(rounds)} rounds, {good} of them as they should be")
    return 0 if good == len(rounds) else 1


def _round(runs_dir: Path, number: int, undisturbed: dict[str, Any]) -> dict[str, Any]:
    rng = random.Random(number)
    name, victim = SIGNALS[number % 2], 1 - number // 2 % 2
    crew, log = _start(runs_dir), runs_dir / "shared" / "metrics.jsonl"
    _wait(lambda: bool(list((runs_dir / "shared").glob("checkpoint/*"))) or _any_ended(crew))
    epochs, rest = rng.randrange(EPOCHS - 1), rng.random()
    _wait(lambda: _lines(log) >= epochs or _any_ended(crew))
    wait = rest * min(line["seconds"] for line in undisturbed["times"])
    time.sleep(wait)
    was_running = not _any_ended(crew)
    crew[victim].send_signal(getattr(signal, name))
    struck, epochs = time.monotonic(), _lines(log)
    kept = sorted(file.name for file in (runs_dir / "shared" / "checkpoint").glob("epoch-*"))
    other = crew[1 - victim]
    _wait(lambda: other.poll() is not None)
    ended_after = round(time.monotonic() - struck, 1)
    result = {
        "signal": name,
        "victim": "the chief" if victim == 0 else "the other worker",
        "struck_in_epoch_seconds": round(wait, 1),
        "was_running": was_running,
        "epochs_done": epochs,
        "checkpoints": kept,
        "others_ended_after": ended_after,
        "others_exit_code": other.returncode,
    }
    if name == "SIGSTOP":
        crew[victim].send_signal(signal.SIGCONT)
        woken = time.monotonic()
        _wait(lambda: crew[victim].poll() is not None)
        result |= {"woken_ended_after": round(time.monotonic() - woken, 1)}
    crew[victim].wait()
    result["victims_exit_code"] = crew[victim].returncode
    lines = [_errors(runs_dir, index) for index in (0, 1)]
    result |= {"others_line": lines[1 - victim], "victims_line": lines[victim]}
    result["folders_left"] = len(list((runs_dir / "temporary").glob("prl-keras-*")))  # of a killed one, not the chief
    result["named"] = was_running and len(lines[1 - victim]) == 1 and f"worker {victim} (" in lines[1 - victim][0]
    begun = time.monotonic()
    result["again_exit_codes"] = _finished(_start(runs_dir))
    found = _contents(runs_dir)
    differ = [key for key in ("encoder_sha256", "saved_encoder", "epochs") if found.get(key) != undisturbed.get(key)]
    return result | {"again_seconds": round(time.monotonic() - begun, 1), "different": differ}


def _start(runs_dir: Path) -> list[subprocess.Popen]:
    """The two workers, each of which has its standard error in a file of its own."""
    (runs_dir / "temporary").mkdir(parents=True, exist_ok=True)
    crew = []
    for index, config in enumerate(tf_configs(2)):
        with (
            (runs_dir / f"{index}.err").open("w", encoding="utf-8") as errors,
            (runs_dir / f"{index}.out").open("a", encoding="utf-8") as log,
        ):
            words = [sys.executable, "main.py", *WORDS, "--runs-dir", str(runs_dir)]
            own = os.environ | {"TF_CONFIG": config, "TMPDIR": str(runs_dir / "temporary")}
            crew.append(subprocess.Popen(words, cwd=ROOT, env=own, stdout=log, stderr=errors))
    return crew


def _finished(crew: list[subprocess.Popen]) -> list[int]:
    try:
        _wait(lambda: all(worker.poll() is not None for worker in crew))
    finally:
        for worker in crew:
            worker.kill()
    return [worker.wait() for worker in crew]


def _any_ended(crew: list[subprocess.Popen]) -> bool:
    return any(worker.poll() is not None for worker in crew)


def _wait(happened: Any) -> None:
    end = time.monotonic() + _LIMIT
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing happened for {_LIMIT:.0f} s")
        time.sleep(0.05)


def _errors(runs_dir: Path, index: int) -> list[str]:
    return (runs_dir / f"{index}.err").read_text(encoding="utf-8", errors="replace").splitlines()


def _lines(log: Path) -> int:
    return log.read_text(encoding="utf-8").count("\n") if log.exists() else 0


def _contents(runs_dir: Path) -> dict[str, Any]:
    """The hash of the encoder, its figures, and a hash of the epochs' figures without times."""
    run = runs_dir / "shared"
    if not (run / "result.json").exists():
        return {}
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    timeless = [{key: value for key, value in line.items() if key not in _TIMES} for line in lines]
    return {
        "encoder_sha256": result["encoder_sha256"],
        "saved_encoder": result["saved_encoder"],
        "epochs": hashlib.sha256(json.dumps(timeless).encode()).hexdigest(),
        "times": [{key: line[key] for key in _TIMES} for line in lines],
    }


if __name__ == "__main__":
    sys.exit(main())
