"""`--precision auto`: the fastest type that this machine computes in."""

from dataclasses import replace
from typing import Any

from prl_keras.config import RecipeOptions, changed
from prl_keras.startup import multiplies_bfloat16


def with_precision(options: Any, recorded: str | None = None) -> Any:
    """The options with a type in the place of auto.

    Args:
        options: of a training, or of a search.
        recorded: that of the run that is continued, which stays what it was.
    """
    if options.precision != "auto":
        return options
    here = "mixed_bfloat16" if multiplies_bfloat16() else "float32"
    return (changed if isinstance(options, RecipeOptions) else replace)(options, precision=recorded or here)
