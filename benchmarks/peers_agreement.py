"""Whether both sides compute the same: losses and gradients from the same weights and images."""

import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from peers_worker import OURS, THEIRS, Worker

# (loss, gradient) that may differ, relative. float64 tells whether the function is the same one, but for constants that
# Keras makes in float32. In float32 a value next to 0 is rounded to the other side of a ReLU now and then, in PyTorch
# as in ours, and its gradient is there or not.
TOLERANCES = {"float64": (1e-5, 1e-5), "float32": (1e-5, 3e-2)}


def differences(kinds: Iterable[tuple[int, str, str]]) -> dict[str, Any]:
    """The largest of each (size, stem, variant). Raises DisagreementError."""
    found = {}
    with Worker(OURS) as ours, Worker(THEIRS) as theirs, tempfile.TemporaryDirectory() as folder:
        for size, stem, variant in sorted(kinds):
            for dtype in TOLERANCES:
                file, name = f"{folder}/x", f"{variant}, {size} px, {stem} stem, {dtype}"
                setting = {"file": file, "stem": stem, "variant": variant, "dtype": dtype}
                own = ours.ask("gradients", **setting, size=size, batch=16)
                other = theirs.ask("gradients", **setting)
                with np.load(f"{file}-ours.npz") as first, np.load(f"{file}-theirs.npz") as second:
                    found[name] = compared(name, (own, other), dict(first), dict(second), TOLERANCES[dtype])
    return {"tolerances": TOLERANCES, "differences": found}


class DisagreementError(Exception):
    """Both sides compute something else, in one line."""


def compared(
    name: str,
    losses: tuple[float, float],
    ours: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
    tolerances: tuple[float, float],
) -> dict[str, float]:
    """Relative differences: of the losses; of gradients by the norm of each, and a thousandth of that of all, for those
    that are 0 but for rounding (the last bias, where only distances count).

    Raises:
        DisagreementError: one is beyond its tolerance, is not finite, or is missing on one side.
    """
    if ours.keys() != theirs.keys():
        missing = ", ".join(sorted(ours.keys() ^ theirs.keys()))
        raise DisagreementError(f"{name}: gradients of {missing} on one side only")
    of_all = float(np.sqrt(sum(np.sum(np.square(one, dtype="float64")) for one in ours.values())))
    nothing = float("nan")  # a loss of 0 has no gradients to compare
    errors = {"the loss": abs(losses[0] - losses[1]) / (abs(losses[0]) or nothing)}
    for key, own in ours.items():
        errors[key] = float(np.linalg.norm(own - theirs[key]) / (np.linalg.norm(own) + 1e-3 * of_all))
    for key, error in errors.items():
        allowed = tolerances[key != "the loss"]
        if not error <= allowed:
            what = key if key == "the loss" else f"the gradient of {key}"
            raise DisagreementError(
                f"{name}: {what} differs by {error:.2g}, more than {allowed:g}: nothing is measured"
            )
    return {"loss": errors.pop("the loss"), "gradient": max(errors.values())}
