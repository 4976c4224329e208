"""Labels as everything here takes them: one class number an image. NumPy only, so that any module can ask for it."""

from typing import Any

import numpy as np

from prl_keras.errors import InputError

_NUMBERS = ("int", "uint", "bool", "float", "bfloat")
_ADVICE = "expected a whole number an image: np.unique(labels, return_inverse=True)[1] numbers any classes"


def checked_labels(labels: Any, what: str = "labels") -> np.ndarray:
    """(n,) or (n, 1), as `keras.datasets` give them, whole numbers of any number type -> (n,) int64.

    Raises:
        InputError: another shape, such as one-hot rows; text; a fraction, NaN or infinity.
    """
    labels = np.asarray(labels)
    check_form(labels.shape, labels.dtype.name, what)
    labels = labels.reshape(-1)
    values = labels if labels.dtype.kind in "iub" else labels.astype("float64")
    with np.errstate(invalid="ignore"):  # NaN and infinity become some number, which they do not equal
        whole = values.astype("int64", copy=False)
    wrong = values[whole != values]
    if len(wrong):
        raise InputError(f"{what} hold {wrong[0]:g}; {_ADVICE}")
    return whole


def balanced_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean recall of the classes that (n,) labels hold, n > 0: accuracy with every class weighing the same."""
    return float(np.mean([np.mean(predicted[labels == k] == k) for k in np.unique(labels)]))


def check_form(shape: tuple[int | None, ...] | None, dtype: str, what: str = "labels") -> None:
    """What can be said without the values, as of a tensor in a graph; shape None: not even that is known.

    Raises:
        InputError: not (n,) or (n, 1), or no numbers.
    """
    if shape is not None and (len(shape) == 0 or tuple(shape)[1:] not in ((), (1,))):
        raise InputError(
            f"{what} have shape {tuple(shape)}; expected one class number an image, (batch,) or (batch, 1): "
            "for one-hot rows, labels.argmax(axis=1)"
        )
    if not dtype.startswith(_NUMBERS):
        kind = "text" if dtype.startswith(("str", "bytes")) else f"of type {dtype}"
        raise InputError(f"{what} are {kind}; {_ADVICE}")
