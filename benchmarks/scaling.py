"""How a shared training grows on one machine: images a second with 1, 2 and 4 replicas.

    python benchmarks/scaling.py scaling.json
    python benchmarks/scaling.py scaling.json --rounds 1 --steps 2 --batch 8 --side 16 --width 0.125    to see it work

Weak scaling: as many images a replica, whatever their number; strong scaling: as many images in all. Replicas are
logical devices of the processor in one process (`fit` under MirroredStrategy), or processes on loopback (the program's
own loop). All of them share the cores of this machine, so that this says what sharing costs, not what more machines
give: without any cost, images a second would stay the same. Each setting has processes of its own, which train, say
their seconds a step, and end; settings take turns, in one order and then in the other, and the median over the rounds
counts, with the least and the largest beside it. What is in the file is not measured again: a run that was stopped is
continued by the same command.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from loopback import tf_configs

HOW = {"devices": (1, 2, 4), "processes": (1, 2)}
CLASSES = 10
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")  # of each process; not set: TensorFlow's, all cores
SETTING = ("batch", "steps", "side", "width", "threads")
_LIMIT = 3600  # seconds for one measurement


def child(options: argparse.Namespace) -> dict[str, object]:
    """Seconds of each step but the first two, which are traced and warm up."""
    from prl_keras.startup import start_keras

    name = "none" if options.replicas == 1 else {"devices": "mirrored", "processes": "multiworker"}[options.how]
    start_keras(0, strategy=name)
    import keras
    import numpy as np
    import tensorflow as tf

    from prl_keras.data.batches import Batches
    from prl_keras.losses import PrototypicalLoss
    from prl_keras.models import projection_head, resnet18
    from prl_keras.models.layer_types import FAST
    from prl_keras.runs.interruption import StopRequest
    from prl_keras.strategies import strategy_of
    from prl_keras.training.average import adam
    from prl_keras.training.fit import create_variables
    from prl_keras.training.pretrain import PrototypicalPretrainer
    from prl_keras.training.workers import fit_on_workers, leave_together

    class Clock(keras.callbacks.Callback):
        ends: tuple[float, ...] = ()

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            self.ends = (*self.ends, time.perf_counter())

    shape, steps = (options.side, options.side, 3), options.steps + 2
    with strategy_of(name).scope():
        encoder = resnet18(shape, width=options.width, layer_types=FAST)
        head = projection_head(input_dim=encoder.output_shape[-1])
        model = PrototypicalPretrainer(encoder, head, PrototypicalLoss(CLASSES, "query"))
        model.build((None, *shape))
        model.compile(adam(1e-3, steps, True))
    rng = np.random.default_rng(0)
    count = options.batch * steps
    images, labels = rng.integers(0, 256, (count, *shape), "uint8"), rng.integers(0, CLASSES, count)
    batches, clock = Batches(images, labels, options.batch, seed=0), Clock()
    create_variables(model, batches)
    if name == "multiworker":
        fit_on_workers(model, batches, 1, 0, [clock], StopRequest(), StopRequest())
        leave_together(model)
    else:
        model.fit(batches, shuffle=False, verbose=0, callbacks=[clock])
    return {
        "seconds": [late - early for early, late in zip(clock.ends[1:-1], clock.ends[2:], strict=True)],
        "tensorflow": tf.__version__,
    }


def measured(options: argparse.Namespace, how: str, replicas: int, batch: int) -> dict[str, object]:
    """What the first of the setting's processes says."""
    command = [sys.executable, __file__, "-", "--child", "--how", how, f"--replicas={replicas}"]
    command += [f"--{name}={getattr(options, name)}" for name in SETTING[1:]] + [f"--batch={batch}"]
    tasks: list[dict[str, str]] = [{}]
    if how == "processes" and replicas > 1:
        tasks = [{"TF_CONFIG": config} for config in tf_configs(replicas)]
    elif replicas > 1:
        tasks = [{"PRL_KERAS_LOGICAL_DEVICES": str(replicas)}]
    quiet = {key: value for key, value in os.environ.items() if key not in THREADS} | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    quiet |= dict.fromkeys(THREADS, str(options.threads)) if options.threads else {}
    processes = [
        subprocess.Popen(command, env=quiet | task, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        for task in tasks
    ]
    try:
        answers = [process.communicate(timeout=_LIMIT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise SystemExit(f"{replicas} {how} failed")
    return json.loads(answers[0].splitlines()[-1])


def summary(measurements: dict[str, list[dict]]) -> dict[str, dict[str, float]]:
    """Images a second of each setting, over its rounds' medians; efficiency: relative to one replica of its kind."""
    found = {}
    for key, rounds in measurements.items():
        batch = int(key.split(", ")[2].split()[-1])
        speeds = [batch / statistics.median(each["seconds"]) for each in rounds]
        names = ("images_per_second", "least", "largest")
        values = (statistics.median(speeds), min(speeds), max(speeds))
        found[key] = {name: round(value, 2) for name, value in zip(names, values, strict=True)}
    for key, figures in found.items():
        kind, how, _ = key.split(", ")
        one = next((each for name, each in found.items() if name.startswith(f"{kind}, 1 {how.split()[1]}")), None)
        if one:
            figures["efficiency"] = round(figures["images_per_second"] / one["images_per_second"], 3)
    return found


def settings(batch: int) -> dict[str, tuple[str, int, int]]:
    """Name -> kind of replica, their number, images of a batch of all."""
    found = {}
    for kind, how in product(("weak", "strong"), HOW):
        for replicas in HOW[how]:
            of_all = batch * replicas if kind == "weak" else batch
            found[f"{kind}, {replicas} {how}, batch {of_all}"] = how, replicas, of_all
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("out", type=Path)
    add("--rounds", type=int, default=6)
    add("--steps", type=int, default=10, help="that are measured, after two that are not")
    add("--batch", type=int, default=64, help="images of a replica (weak), of all (strong)")
    add("--side", type=int, default=28)
    add("--width", type=float, default=0.5, help="of the ResNet-18")
    add("--threads", type=int, default=0, help="of TensorFlow, within and between operations; 0: its own choice")
    add("--child", action="store_true", help=argparse.SUPPRESS)
    add("--how", choices=HOW, help=argparse.SUPPRESS)
    add("--replicas", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options)))
        return
    content = {
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "setting": {name: getattr(options, name) for name in SETTING},
        **dict.fromkeys(THREADS, options.threads or "not set: as many as there are cores"),
        "measurements": {},
    }
    if options.out.exists():
        before = json.loads(options.out.read_text(encoding="utf-8"))
        if (before["machine"], before["setting"]) != (content["machine"], content["setting"]):
            raise SystemExit(
                f"{options.out} is of another setting or machine: {before['machine']}, {before['setting']}"
            )
        content = before
    for number in range(options.rounds):
        order = list(settings(options.batch).items())
        for key, (how, replicas, batch) in order if number % 2 == 0 else reversed(order):
            rounds = content["measurements"].setdefault(key, [])
            if len(rounds) > number:
                continue
            load = round(os.getloadavg()[0], 2)
            rounds.append(measured(options, how, replicas, batch) | {"load_before": load})
            content["summary"] = summary(content["measurements"])
            temporary = options.out.with_suffix(".part")
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            temporary.replace(options.out)
            print(f"round {number + 1}: {key}: {content['summary'][key]}", flush=True)


if __name__ == "__main__":
    main()
