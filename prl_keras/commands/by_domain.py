"""What `evaluate` adds for data with domains: the accuracy of each, and what the features spread by."""

from typing import TYPE_CHECKING, Any

import numpy as np

from prl_keras.data import Dataset
from prl_keras.data.domains import domain_names
from prl_keras.data.splits import SPLITS
from prl_keras.screen.console import console, percent, percent_interval

if TYPE_CHECKING:
    from prl_keras.evaluation.encoded import Encoded


def of_domains(dataset: Dataset, encoded: "Encoded", predicted: np.ndarray, method: str) -> dict[str, Any]:
    """Accuracy of each domain in test, and what the features of all pictures spread by; nothing without domains."""
    from prl_keras.evaluation.spread import explained
    from prl_keras.evaluation.statistics import proportion

    if dataset.test.domains is None:
        return {}
    test, figures = dataset.test, {}
    for name in domain_names([test]):
        here = test.domains == name
        figures[name] = proportion(int((predicted[here] == test.labels[here]).sum()), int(here.sum()))
    features = np.concatenate([encoded.features[name] for name in SPLITS])
    columns = {"class": "labels", "domain": "domains"}
    spread = {
        what: explained(features, np.concatenate([getattr(getattr(dataset, name), column) for name in SPLITS]))
        for what, column in columns.items()
    }
    return {"method": method, "accuracy": figures, "share_of_variance": spread, "pictures": len(features)}


def print_domains(found: dict[str, Any]) -> None:
    words = (
        f"{name} {percent(figure)} ({percent_interval(figure)}), n = {figure['n']:,}"
        for name, figure in found["accuracy"].items()
    )
    console.print(f"By domain, {found['method']}: {'; '.join(words)}")
    shares = [f"{what} {100 * share:.1f} %" for what, share in found["share_of_variance"].items() if share is not None]
    console.print(f"Share of the features' variance, of all {found['pictures']:,} pictures, by {', by '.join(shares)}")
