"""Bytes that a worker sends a step, by formula, and measured on the loopback interface.

    python benchmarks/traffic.py traffic.json

Two worker processes train with the program's own loop in a network namespace of their own (`unshare`, Linux), so that
nobody else's bytes are counted. The interface counts each byte once; half of them are one worker's. Counted are steps
of a training that runs, not its start. What is over the formula: gRPC's and TCP's headers, lengths that a gather sends
before its rows, and the keeping alive of connections.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from loopback import tf_configs

CASES = ("query", "loo", "simclr", "supcon", "classifier")
SIDE, CLASSES, DIM = 32, 10, 128
WARM = 5  # steps before the counted ones: the first is traced


def all_reduced(values: int, replicas: int, bytes_each: int = 4) -> float:
    """Bytes that each replica sends in a ring: 2 (k - 1) / k of them all."""
    return 2 * (replicas - 1) / replicas * bytes_each * values


def gathered(values: int, replicas: int, bytes_each: int = 4) -> float:
    """Bytes that each replica sends in a ring: all parts but one. `values` are those of all replicas."""
    return (replicas - 1) / replicas * bytes_each * values


def a_step(
    case: str, weights: int, channels: Sequence[int], batch: int, replicas: int, dim: int = DIM, classes: int = CLASSES
) -> dict[str, float]:
    """Bytes a replica sends a step, by what for.

    Args:
        case: "query", "standard" or "loo", "simclr" or "supcon" (of two views), or "classifier".
        weights: that are trained; channels: of each synchronised batch normalisation; batch: of all replicas.
    """
    found = {
        "gradients": all_reduced(weights, replicas),
        "batch normalisation": 2 * sum(all_reduced(2 * count + 1, replicas) for count in channels),
    }
    if case == "classifier":
        found["metrics"] = gathered(batch, replicas)
    elif case in ("simclr", "supcon"):  # embeddings of two views, for the loss and for the metric; back for the loss
        found["embeddings"] = 2 * gathered(2 * batch * dim, replicas) + all_reduced(2 * batch * dim, replicas)
        found["labels"] = gathered(2 * batch, replicas)
        found["metrics"] = gathered(2 * batch, replicas)
    else:  # sums and counts for the loss and for the metrics; back the sums of the loss
        found["prototypes"] = all_reduced(2 * classes * (dim + 1) + classes * dim, replicas)
        found["metrics"] = gathered(5 * batch, replicas)
    found["stop flag and counts"] = all_reduced(replicas + 5, replicas)
    return found


def child(options: argparse.Namespace) -> dict[str, object]:
    """Of this worker's training: what the formula needs, and the interface's bytes of the counted steps."""
    from prl_keras.startup import start_keras

    start_keras(0, strategy="multiworker")
    import keras
    import numpy as np

    from prl_keras.data.batches import Batches
    from prl_keras.runs.interruption import StopRequest
    from prl_keras.training.fit import create_variables
    from prl_keras.training.workers import fit_on_workers, leave_together

    class Counter(keras.callbacks.Callback):
        at: tuple[int, ...] = ()

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            if batch + 1 in (WARM, WARM + options.steps):
                self.at = (*self.at, interface())

    rng = np.random.default_rng(0)
    count = options.batch * (WARM + options.steps + 1)
    images = rng.integers(0, 256, (count, SIDE, SIDE, 3), "uint8")
    batches = Batches(images, rng.integers(0, CLASSES, count), options.batch, seed=0)
    model, counter = made(options), Counter()
    create_variables(model, batches)
    fit_on_workers(model, batches, 1, 0, [counter], StopRequest(), StopRequest())
    leave_together(model)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    return {
        "weights": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        "channels": [layer.gamma.shape[0] for layer in norms if layer.trainable],
        "measured": (counter.at[1] - counter.at[0]) / options.steps / 2,
    }


def made(options: argparse.Namespace):
    """The model of the case, compiled, in the strategy's scope."""
    import keras

    from prl_keras.config import Finetune
    from prl_keras.losses import NTXentLoss, PrototypicalLoss, SupervisedContrastiveLoss
    from prl_keras.models import build_classifier, projection_head, resnet18
    from prl_keras.models.layer_types import FAST
    from prl_keras.strategies import strategy_of
    from prl_keras.training.finetuning import augmented, compile_classifier
    from prl_keras.training.pretrain import PrototypicalPretrainer, SimCLRPretrainer

    with strategy_of("multiworker").scope():
        encoder = resnet18((SIDE, SIDE, 3), width=options.width, layer_types=FAST)
        if options.case == "classifier":
            settings = Finetune(augment="none")
            model = augmented(build_classifier(encoder, CLASSES), (SIDE, SIDE, 3), settings)
            compile_classifier(model, settings, 100)
            return model
        head = projection_head(DIM, input_dim=encoder.output_shape[-1])
        if options.case in ("query", "loo"):
            model = PrototypicalPretrainer(encoder, head, PrototypicalLoss(CLASSES, options.case))
        else:
            loss = NTXentLoss(0.1) if options.case == "simclr" else SupervisedContrastiveLoss(0.1)
            model = SimCLRPretrainer(encoder, head, loss)
        model.build((None, SIDE, SIDE, 3))
        model.compile(keras.optimizers.Adam())
    return model


def interface() -> int:
    """Bytes that the loopback interface has sent."""
    lines = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.strip().startswith("lo:")).split(":")[1].split()[8])


def measured(options: argparse.Namespace, case: str) -> dict[str, object]:
    """Two workers of the case, and the formula's figures beside theirs."""
    command = [sys.executable, __file__, "--child", "--case", case]
    command += [f"--{name}={getattr(options, name)}" for name in ("batch", "steps", "width")]
    processes = []
    for config in tf_configs(2):
        environment = os.environ | {"TF_CONFIG": config, "TF_CPP_MIN_LOG_LEVEL": "3"}
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        )
    answers = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"a worker of {case} failed")
    found = json.loads(answers[0].splitlines()[-1])
    parts = a_step(case, found["weights"], found["channels"], options.batch, 2)
    total = sum(parts.values())
    return {
        "weights": found["weights"],
        "formula": {name: round(value) for name, value in parts.items()} | {"all": round(total)},
        "measured": round(found["measured"]),
        "over": round(found["measured"] / total - 1, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("out", nargs="?", type=Path)
    add("--batch", type=int, default=64, help="of both workers")
    add("--steps", type=int, default=20, help="that are counted")
    add("--width", type=float, default=0.25, help="of the ResNet-18")
    add("--cases", nargs="+", choices=CASES, default=CASES)
    add("--child", action="store_true", help=argparse.SUPPRESS)
    add("--case", help=argparse.SUPPRESS)
    add("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options)))
        return
    if not options.inside:
        again = f'ip link set lo up && exec {sys.executable} {__file__} --inside "$@"'
        words = ["unshare", "--net", "--map-root-user", "sh", "-c", again, "sh", *sys.argv[1:]]
        raise SystemExit(subprocess.run(words, check=False).returncode)
    found = {}
    for case in options.cases:
        found[case] = measured(options, case)
        print(case, found[case]["measured"], found[case]["formula"]["all"], found[case]["over"], flush=True)
    setting = {"workers": 2, "batch": options.batch, "width": options.width, "side": SIDE, "bytes": "a worker and step"}
    if options.out:
        options.out.write_text(json.dumps(setting | {"cases": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
