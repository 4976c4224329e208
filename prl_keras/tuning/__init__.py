"""The search with Keras Tuner: in a clone the folder `tuning/` beside this package, in a wheel its modules are here."""

from pathlib import Path

__path__ = [str(Path(__file__).parents[2] / "tuning")]
