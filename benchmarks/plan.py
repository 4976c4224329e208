"""What a training on many devices needs, on paper: the figures of docs/scaling.md, each from its formula.

    python benchmarks/plan.py

Counted from the network as the program builds it. Links and speeds are assumptions, written beside the figures; a
reader with other ones changes `MACHINES` and runs it again. Nothing here was measured but what `benchmarks/traffic.py`
did: the bytes a step.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.traffic import a_step

IMAGES, SIDE, DIM, CLASSES = 100_000_000, 96, 128, 1000
RATE = 30e12  # floating-point operations a second that a device reaches: about a tenth of an A100's peak in bfloat16
EACH = 256  # images of a batch on a device
INDEX = 52  # bytes of memory an image: docs/streaming.md


@dataclass(frozen=True)
class Machine:
    """Devices in a ring: bytes a second that one sends, seconds that a message takes at least."""

    name: str
    devices: int
    link: float
    latency: float


MACHINES = (
    Machine("8 GPUs of one machine", 8, 200e9, 5e-6),
    Machine("64 machines, a GPU each", 64, 12.5e9, 20e-6),
)


@dataclass(frozen=True)
class Network:
    """weights: that are trained; channels: of each batch normalisation; operations: of one image, forward;
    kept: values of one image that the way back needs; normalised: those of them that enter a batch normalisation."""

    weights: int
    channels: tuple[int, ...]
    operations: int
    kept: int
    normalised: int


def resnet(side: int = SIDE, width: float = 1.0) -> Network:
    """The program's ResNet-18 with its projection head.

    Kept are what convolutions, the pooling and dense layers take, what a batch normalisation takes (the convolution's
    answer), and what a ReLU gives, which is what the next convolution takes.
    """
    import keras

    from prl_keras.models import projection_head, resnet18

    encoder = resnet18((side, side, 3), width=width)
    head = projection_head(DIM, input_dim=encoder.output_shape[-1])
    operations = kept = normalised = 0
    channels = []
    for layer in (*encoder.layers, *head.layers):
        values = math.prod(layer.output.shape[1:])
        if isinstance(layer, keras.layers.Conv2D):
            operations += 2 * values * math.prod(layer.kernel.shape[:3])
        elif isinstance(layer, keras.layers.Dense):
            operations += 2 * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.BatchNormalization):
            channels.append(values // math.prod(layer.output.shape[1:-1]))
            normalised += values
        if not isinstance(layer, keras.layers.BatchNormalization | keras.layers.Add | keras.layers.InputLayer):
            kept += values
    weights = sum(math.prod(each.shape) for each in (*encoder.trainable_variables, *head.trainable_variables))
    return Network(weights, tuple(channels), operations, kept, normalised)


def memory(network: Network, images: int, views: int = 1) -> dict[str, float]:
    """Bytes on a device, float32. Synchronised statistics keep the deviations from the moving mean too."""
    return {
        "weights and their gradients": 2 * 4 * network.weights,
        "Adam's two slots and the average": 3 * 4 * network.weights,
        "activations": 4 * views * images * network.kept,
        "deviations": 4 * views * images * network.normalised,
    }


def seconds(
    network: Network, machine: Machine, case: str, each: int, local: bool = False, tree: bool = False
) -> dict[str, float]:
    """Of a step: operations (three times those of forward, of each view), bytes, and waiting for messages.

    For an all-reduce, whatever its size, a ring of k sends 2 (k - 1) messages after each other, a tree 2 log2 k.

    Args:
        local: batch normalisation by each device's own images.
        tree: of all messages; NCCL takes trees for small ones.
    """
    k, views = machine.devices, 2 if case in ("simclr", "supcon") else 1
    channels = () if local else network.channels
    sent = a_step(case, network.weights, channels, each * k, k, DIM, CLASSES)
    messages = 2 * len(channels) + 8  # two a normalisation, and of gradients, sums, counts, rows and the flag
    return {
        "operations": 3 * views * each * network.operations / RATE,
        "bytes": sum(sent.values()) / machine.link,
        "messages": messages * 2 * (math.ceil(math.log2(k)) if tree else k - 1) * machine.latency,
    }


def efficiency(parts: dict[str, float]) -> float:
    """Share of the time in which devices compute, if nothing is sent meanwhile."""
    return parts["operations"] / sum(parts.values())


def stops(network: Network, machine: Machine, case: str, local: bool = False, tree: bool = False) -> int:
    """Images a device at which half of the time is communication: the time of operations grows with them, that of
    messages and gradients does not."""
    each = 1
    while efficiency(seconds(network, machine, case, each, local, tree)) < 0.5:
        each += 1
    return each


def contrastive(each: int, devices: int) -> dict[str, float]:
    """Bytes of NT-Xent on a device: gathered embeddings of two views, and one matrix of its own rows with all."""
    return {"embeddings": 4 * 2 * each * devices * DIM, "matrix": 4 * 2 * each * 2 * each * devices}


def storage(machine: Machine, images_a_second: float) -> dict[str, float]:
    """Bytes of the store, of its index in each process, and what a device reads a second."""
    pixels = SIDE * SIDE * 3
    return {"store": IMAGES * pixels, "index": IMAGES * INDEX, "reads": images_a_second / machine.devices * pixels}


def size(value: float) -> str:
    """Bytes in words, by powers of ten."""
    unit = min(int(math.log10(max(value, 1)) // 3), 4)
    return f"{value / 1000**unit:.3g} {('B', 'KB', 'MB', 'GB', 'TB')[unit]}"


def report() -> str:
    """The tables of docs/scaling.md."""
    network = resnet()
    lines = ["| of the network | |", "|---|---|"]
    lines += [f"| weights W, with the projection head | {network.weights:,} |"]
    lines += [f"| batch normalisations, channels C in all | {len(network.channels)}, {sum(network.channels):,} |"]
    lines += [f"| operations of an image, forward F | {network.operations / 1e9:.3f} billion |"]
    lines += [f"| values that the way back needs, an image A | {network.kept:,} |"]
    lines += [f"| of these into batch normalisations N | {network.normalised:,} |", ""]
    lines += [f"| memory of a device with {EACH} images | one view | two views |", "|---|---|---|"]
    one, two = (memory(network, EACH, views) for views in (1, 2))
    lines += [f"| {name} | {size(one[name])} | {size(two[name])} |" for name in one]
    lines += [f"| all | {size(sum(one.values()))} | {size(sum(two.values()))} |", ""]
    lines += ["| a step | " + " | ".join(machine.name for machine in MACHINES) + " |", "|---" * 3 + "|"]
    rows: dict[str, list[str]] = {}
    for machine in MACHINES:
        k = machine.devices
        sent = a_step("query", network.weights, network.channels, EACH * k, k, DIM, CLASSES)
        ways = {
            "ring": seconds(network, machine, "query", EACH),
            "ring, --local-batch-norm": seconds(network, machine, "query", EACH, local=True),
            "tree": seconds(network, machine, "query", EACH, tree=True),
            "tree, --local-batch-norm": seconds(network, machine, "query", EACH, local=True, tree=True),
        }
        speeds = {name: EACH * k / sum(parts.values()) for name, parts in ways.items()}
        stored, matrix = storage(machine, max(speeds.values())), contrastive(EACH, k)
        cells = {
            "batch B": f"{EACH * k:,}",
            **{f"sent for {name}": size(value) for name, value in sent.items()},
            "time of operations": f"{1e3 * ways['ring']['operations']:.2f} ms",
            "time of bytes": f"{1e3 * ways['ring']['bytes']:.2f} ms",
            **{f"time of messages: {name}": f"{1e3 * parts['messages']:.2f} ms" for name, parts in ways.items()},
            **{f"share that computes: {name}": f"{100 * efficiency(parts):.0f} %" for name, parts in ways.items()},
            "images a device for a share of 50 %: ring": f"{stops(network, machine, 'query'):,}",
            "images a device for a share of 50 %: tree, --local-batch-norm": (
                f"{stops(network, machine, 'query', True, True):,}"
            ),
            **{f"an epoch: {name}": f"{IMAGES / speed / 60:.1f} min" for name, speed in speeds.items()},
            "a device reads a second": size(stored["reads"]),
            "NT-Xent: gathered embeddings": size(matrix["embeddings"]),
            "NT-Xent: one matrix of 2B/k x 2B": size(matrix["matrix"]),
        }
        for name, cell in cells.items():
            rows.setdefault(name, []).append(cell)
    lines += [f"| {name.strip()} | {' | '.join(cells)} |" for name, cells in rows.items()]
    stored = storage(MACHINES[0], 0)
    lines += ["", "| storage | |", "|---|---|", f"| store | {size(stored['store'])} |"]
    lines += [f"| its index, in the memory of each process | {size(stored['index'])} |"]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
