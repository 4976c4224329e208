"""Our training step beside PyTorch's, plain Keras layers' and the machine's own matrix product; and all around it.

    pip install -r requirements-benchmark.txt
    python benchmarks/peers.py docs/results/peers.json
    python benchmarks/peers.py --table docs/results/peers.json        # what docs/performance.md shows
    python benchmarks/peers.py new.json --only steps --cases 28-small,96-imagenet --rounds 3

First both sides have to find the same losses and gradients from the same weights and images, or nothing is measured.
Then they take turns, each in a process of its own that only works when it is told to; a ratio is taken within its
round, and reported are the median of the ratios and their quartiles. A file that is there keeps the sections that are
not measured anew. Method and figures: docs/performance.md.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import peers_commands
from peers_agreement import DisagreementError, differences
from peers_machine import bfloat16_is_fast, load, machine
from peers_tables import EPOCHS, quartiles, tables
from peers_worker import OURS, THEIRS, TWO_VIEWS, Worker, WorkerError

from prl_keras.errors import InputError
from prl_keras.files import write_json


class Case(NamedTuple):
    size: int
    batch: int
    stem: str
    variant: str

    def settings(self, quick: bool) -> dict[str, Any]:
        return self._asdict() | ({"batch": 16} if quick else {})


CASES = {
    "28-small": Case(28, 256, "small", "query"),
    "28-stride2": Case(28, 256, "stride2", "query"),
    "28-imagenet": Case(28, 256, "imagenet", "query"),
    "32-small": Case(32, 256, "small", "query"),
    "96-imagenet": Case(96, 64, "imagenet", "query"),
    "96-small": Case(96, 64, "small", "query"),
    **{f"28-{variant}": Case(28, 256, "small", variant) for variant in ("standard", "loo")},
    **{f"28-{variant}": Case(28, 128, "small", variant) for variant in TWO_VIEWS},
    "28-prl": Case(28, 256, "small", "prl"),
}
NOT_IN_PYTORCH = ("views", "prl")  # ours alone
_FAST = {"channels_last": True, "fused": True}


def sides(case: Case, bfloat16: bool, torch: bool) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> (worker, settings); the first is the reference."""
    ours = {"ours": {}, "ours, moving average": {"average": True}}
    ours["ours, augmentation simclr"] = {"augment": "simclr"}
    ours["plain Keras"] = {"stock": True}
    theirs = {"PyTorch, eager": {}, "PyTorch, channels_last, fused Adam": _FAST}
    theirs["PyTorch, the same, compiled"] = _FAST | {"compiled": True}
    if bfloat16:
        own = {name: more for name, more in ours.items() if "stock" not in more}
        ours |= {f"{name}, bfloat16": more | {"precision": "mixed_bfloat16"} for name, more in own.items()}
        theirs["PyTorch, channels_last, fused Adam, bfloat16"] = _FAST | {"bfloat16": True}
        theirs["PyTorch, the same, bfloat16, compiled"] = _FAST | {"bfloat16": True, "compiled": True}
    if not torch or case.variant in NOT_IN_PYTORCH:
        theirs = {}
    return {name: (OURS, more) for name, more in ours.items()} | {name: (THEIRS, more) for name, more in theirs.items()}


def steps(options: argparse.Namespace, torch: bool) -> Iterator[dict[str, Any]]:
    """Case -> its figures, one after the other: each takes minutes, and a run that is cut keeps what it has."""
    for name in options.cases:
        case = CASES[name].settings(options.quick)
        jobs = {
            side: (worker, "step", case | more)
            for side, (worker, more) in sides(CASES[name], bfloat16_is_fast(), torch).items()
        }
        rows = in_turn(jobs, options.rounds)
        yield {name: case | {"load": load(), "rounds": options.rounds, "rows": rows}}


def in_turn(jobs: Mapping[str, tuple[str, str, dict[str, Any]]], rounds: int, calls: int = 2) -> dict[str, Any]:
    """Name -> its median seconds, and the quartiles of its ratio to the first of the jobs, taken within a round.

    jobs: name -> (worker, kind, settings). What torch.compile cannot do is reported with what failed.
    """
    with ExitStack() as stack:
        workers = {file: stack.enter_context(Worker(file)) for file in dict.fromkeys(job[0] for job in jobs.values())}
        rows: dict[str, Any] = {}
        for name, (file, kind, settings) in jobs.items():
            try:
                rows[name] = workers[file].ask("prepare", name=name, kind=kind, **settings)
            except WorkerError as error:
                if not settings.get("compiled"):
                    raise
                rows[name] = {"failed": str(error)}
        print("  all prepared; taking turns", file=sys.stderr, flush=True)
        able = [name for name, row in rows.items() if "failed" not in row]
        seconds: dict[str, list[float]] = {name: [] for name in able}
        for number in range(rounds):
            for name in able if number % 2 == 0 else reversed(able):
                times = workers[jobs[name][0]].ask("time", name=name, calls=calls)
                seconds[name].append(statistics.mean(times))
    for name in able:
        ratios = [one / first for one, first in zip(seconds[name], seconds[able[0]], strict=True)]
        rows[name] |= {"seconds": round(statistics.median(seconds[name]), 5), "ratio": quartiles(ratios)}
        rows[name]["rounds"] = [round(one, 5) for one in seconds[name]]
    return rows


def agreement(options: argparse.Namespace, torch: bool) -> dict[str, Any]:
    """Of the cases that were asked for, and of each loss. Raises DisagreementError."""
    cases = [CASES[name] for name in options.cases if CASES[name].variant not in NOT_IN_PYTORCH]
    kinds = {(case.size, case.stem, case.variant) for case in cases}
    return differences(kinds | {(28, "small", variant) for variant in ("query", "standard", "loo", "simclr", "supcon")})


def peak(options: argparse.Namespace, torch: bool) -> dict[str, Any]:
    """Floating point operations a second (two a multiply-add) of square matrix products, the best of several sizes."""
    sizes = [256, 512] if options.quick else [512, 1024, 2048, 3072]
    found: dict[str, Any] = {}
    for dtype in ("float32", *(["bfloat16"] if bfloat16_is_fast() else [])):
        rates = {}
        with Worker(OURS) as worker:
            rates["TensorFlow"] = worker.ask("matmul", dtype=dtype, sizes=sizes)
            if dtype == "float32":
                rates["NumPy"] = worker.ask("numpy_matmul", sizes=sizes)
        if torch:
            with Worker(THEIRS) as worker:
                rates["PyTorch"] = worker.ask("matmul", dtype=dtype, sizes=sizes)
        best = {library: max(by_size.values()) for library, by_size in rates.items()}
        found[dtype] = {library: round(2 * rate / 1e9, 1) for library, rate in best.items()}
    return {"sizes": sizes, "gflops": found, "load": load()}


def fit(options: argparse.Namespace, torch: bool) -> dict[str, Any]:
    """An epoch of `fit` beside one of bare steps, in the precision that trainings take here."""
    found = {}
    for variant, augment in (("query", "none"), ("simclr", "simclr")):
        batch, steps = (16, 4) if options.quick else (128 if variant == "simclr" else 256, 18)
        shape = {"size": 28, "batch": batch, "steps": steps, "variant": variant, "augment": augment}
        shape["precision"] = "mixed_bfloat16" if bfloat16_is_fast() else "float32"
        jobs = {work: (OURS, "epoch", shape | {"work": work, "warm": 1}) for work in EPOCHS}
        found[variant] = shape | {"load": load(), "rows": in_turn(jobs, min(options.rounds, 7), calls=1)}
    return found


def losses(options: argparse.Namespace, torch: bool) -> list[dict[str, Any]]:
    """Value and gradient of losses alone, 128 dimensions, ours and PyTorch's."""
    sizes = [(64, 10)] if options.quick else [(256, 10), (1024, 100), (4096, 10), (4096, 1000)]
    cells = [(variant, *size) for variant in ("query", "loo") for size in sizes]
    cells += [("supcon", batch, 10) for batch in (sorted({batch for batch, _ in sizes}))]
    found = []
    for variant, batch, classes in cells:
        settings = {"variant": variant, "batch": batch, "classes": classes}
        files = {"ours": OURS} | ({"PyTorch, eager": THEIRS} if torch else {})
        jobs = {name: (file, "loss", settings) for name, file in files.items()}
        found.append(settings | {"rows": in_turn(jobs, options.rounds, calls=5)})
    return found


def memory(options: argparse.Namespace, torch: bool) -> dict[str, Any]:
    """MB of resident memory at most, of a process that takes three steps; the libraries are part of it."""
    found = {}
    for name in [name for name in options.cases if CASES[name].variant == "query"][: 1 if options.quick else 2]:
        case, found[name] = CASES[name].settings(options.quick), {}
        for side in ("ours", *(["PyTorch, eager"] if torch else [])):
            with Worker(OURS if side == "ours" else THEIRS) as worker:
                worker.ask("prepare", name="step", kind="step", **case)
                worker.ask("time", name="step", calls=1)
                found[name][side] = worker.ask("memory")
    return found


SECTIONS: dict[str, Callable[[argparse.Namespace, bool], Any]] = {
    "agreement": agreement,
    "peak": peak,
    "steps": steps,
    "fit": fit,
    "loss": losses,
    "memory": memory,
    "startup": lambda options, torch: peers_commands.startup(options.quick),
    "whole": lambda options, torch: peers_commands.whole(options.quick),
}
WITH_PYTORCH = ("agreement", "steps", "loss")


def sections(options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Name and figures of what was asked for; the agreement goes before all that compares."""
    torch = find_spec("torch") is not None
    wanted = [name for name in SECTIONS if name in options.only]
    if set(wanted) & set(WITH_PYTORCH):
        if not torch:
            raise InputError("peers.py compares with PyTorch: pip install -r requirements-benchmark.txt")
        wanted = ["agreement", *(name for name in wanted if name != "agreement")]
    for name in wanted:
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures = SECTIONS[name](options, torch)
        yield from ((name, part) for part in (figures if isinstance(figures, Iterator) else [figures]))


def read(file: Path) -> dict[str, Any]:
    """Raises InputError unless the file is one of this program's."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return content | {"machine": dict(content["machine"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} holds no results of peers.py: {error!r}; name another file") from error


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("output", type=Path)
    add("--table", action="store_true", help="print the tables of the file, and measure nothing")
    add("--only", type=_names(SECTIONS), default=list(SECTIONS), metavar="SECTION,...", help=", ".join(SECTIONS))
    add("--cases", type=_names(CASES), default=list(CASES), metavar="CASE,...", help=", ".join(CASES))
    add("--rounds", type=int, default=9)
    add("--quick", action="store_true", help="tiny batches, to see that all works; the figures mean nothing")
    options = parser.parse_args(words)
    options.rounds = 2 if options.quick else max(options.rounds, 2)
    try:
        result = read(options.output) if options.table or options.output.exists() else {}
        if options.table:
            print(tables(result))
            return 0
        for name, figures in sections(options):
            more = result.get(name, {}) | figures if name == "steps" else figures
            result |= {"machine": machine(), name: more}
            write_json(options.output, result)
    except (DisagreementError, WorkerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _names(known: Mapping[str, Any]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        if unknown := [name for name in text.split(",") if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected some of {', '.join(known)}")
        return text.split(",")

    return names


if __name__ == "__main__":
    raise SystemExit(main())
