"""The results of benchmarks/peers.py as Markdown."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from prl_keras.markdown import pipe_table

EPOCHS = {  # what is measured -> how the table calls it
    "bare": "bare steps",
    "fit": "`fit` with its callbacks",
    "writing": "`fit` while a checkpoint is written",
    "validated": "`fit` with validation",
    "monitored": "`fit` with validation and monitor",
}
_OF = "ours / this: median (quartiles)"


def tables(result: Mapping[str, Any]) -> str:
    """One paragraph or table a section that the result has."""
    makers = {
        "machine": _machine,
        "agreement": _agreement,
        "peak": _peak,
        "steps": _steps,
        "fit": _fit,
        "loss": _loss,
        "memory": _memory,
        "startup": _startup,
        "whole": _whole,
    }
    return "\n\n".join(block for name, make in makers.items() if name in result for block in make(result[name], result))


def _machine(found: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {one}" for name, one in found["versions"].items())
    processor = f"{found['processor']}, {found['cores']} cores ({', '.join(found['flags'])})"
    yield f"{processor}, {found['memory_gb']} GB; {versions}."


def _agreement(found: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for dtype, (loss_allowed, gradient_allowed) in found["tolerances"].items():
        those = [one for name, one in found["differences"].items() if name.endswith(dtype)]
        loss, gradient = (max(one[key] for one in those) for key in ("loss", "gradient"))
        rows.append(
            [dtype, str(len(those)), f"{loss:.1g} ({loss_allowed:g})", f"{gradient:.1g} ({gradient_allowed:g})"]
        )
    head = ["ours and PyTorch", "comparisons", "loss differs by at most (allowed)", "gradient by at most (allowed)"]
    yield pipe_table(head, rows, left=(0,))


def _peak(found: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    rows = [[dtype, library, f"{rate:,.0f}"] for dtype, by in found["gflops"].items() for library, rate in by.items()]
    yield pipe_table(["matrix product", "library", "GFLOP/s at best"], rows, left=(0, 1))


def _steps(found: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    peaks = {dtype: max(by.values()) for dtype, by in result.get("peak", {}).get("gflops", {}).items()}
    for case in found.values():
        rows = []
        work = next((row["multiply_adds_a_step"] for row in case["rows"].values() if "multiply_adds_a_step" in row), 0)
        for name, row in case["rows"].items():
            if "failed" in row:
                rows.append([name, f"failed: {row['failed'].partition(':')[0]}", "", ""])
                continue
            top = peaks.get("bfloat16" if "bfloat16" in name else "float32")
            share = f"{100 * 2 * work / row['seconds'] / 1e9 / top:.0f} %" if top and work else ""
            rows.append([name, f"{case['batch'] / row['seconds']:,.0f}", _spread(row), share])
        title = f"{case['size']} px, batch {case['batch']}, {case['stem']} stem, {case['variant']}"
        yield pipe_table([title, "images/s", f"speed: {_OF}", "of the matrix product"], rows, left=(0,))
        yield from _best(case["rows"])


def _best(rows: Mapping[str, Any]) -> Iterator[str]:
    """The fastest of ours, of the program's own settings, beside the fastest of PyTorch's."""
    measured = {name: row for name, row in rows.items() if "failed" not in row}
    theirs = [name for name in measured if name.startswith("PyTorch")]
    if not theirs:
        return
    own = measured.keys() & {"ours", "ours, bfloat16"}
    their, our = (min(names, key=lambda name: measured[name]["seconds"]) for names in (theirs, own))
    rounds = [measured[name].get("rounds", []) for name in (their, our)]
    ratio = quartiles([a / b for a, b in zip(*rounds, strict=True)]) if rounds[0] else measured[their]["ratio"]
    precision = "bfloat16" if "bfloat16" in our else "float32"
    best = their.removeprefix("PyTorch, ")
    yield f"PyTorch's best here: {best}; ours at best ({precision}) has {_spread({'ratio': ratio})} times its speed."


def quartiles(values: list[float]) -> list[float]:
    cuts = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return [round(cut, 3) for cut in cuts]


def _spread(row: Mapping[str, Any]) -> str:
    low, middle, high = row["ratio"]
    return f"{middle:.2f} ({low:.2f} - {high:.2f})"


def _fit(found: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    head = ["an epoch", "variant", "seconds", "time relative to bare steps: median (quartiles)"]
    rows = [
        [EPOCHS[work], variant, f"{row['seconds']:.2f}", _spread(row)]
        for variant, case in found.items()
        for work, row in case["rows"].items()
    ]
    yield pipe_table(head, rows, left=(0, 1))


def _loss(found: list[Mapping[str, Any]], result: Mapping[str, Any]) -> Iterator[str]:
    head = ["loss", "batch", "classes", "ours, ms", "PyTorch, eager, ms", "speed: ours / PyTorch: median (quartiles)"]
    rows = []
    for cell in found:
        ours, theirs = cell["rows"]["ours"], cell["rows"].get("PyTorch, eager", {})
        other = [f"{1000 * theirs['seconds']:.2f}", _spread(theirs)] if "seconds" in theirs else ["", ""]
        size = [cell["variant"], f"{cell['batch']:,}", f"{cell['classes']:,}"]
        rows.append([*size, f"{1000 * ours['seconds']:.2f}", *other])
    yield pipe_table(head, rows, left=(0,))


def _memory(found: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    rows = [[case, side, f"{most:,.0f}"] for case, by in found.items() for side, most in by.items()]
    yield pipe_table(["case", "side", "most resident memory, MB"], rows, left=(0, 1))


def _startup(found: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    rows = [["`--help`", f"{found['help']:.2f}"]]
    rows += [[f"one epoch of digits: {name}", f"{at:.1f}"] for name, at in found["digits, one epoch"].items()]
    yield pipe_table(["from typing to", "seconds"], rows, left=(0,))


def _whole(found: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    rows = [[f"`{name}`", f"{seconds:.0f}"] for name, seconds in found.items() if name != "load"]
    yield pipe_table(["whole command, digits, defaults", "seconds"], rows, left=(0,))
