"""Whether the workers of a shared training were all started with the same: options, data, versions. What differs would
make neither the one training nor the other, and nothing would complain."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from prl_keras.company import Company
from prl_keras.config import RunOptions
from prl_keras.data import Dataset
from prl_keras.data.request import WHERE
from prl_keras.errors import InputError
from prl_keras.runs.lifecycle import HASHED, deciding
from prl_keras.runs.versions import code_digest
from prl_keras.strategies import Cluster, cluster

# the others do not decide a training: processors, what reads pictures (their pixels are compared), Keras Tuner
_VERSIONS = ("python", "tensorflow", "tensorflow-cpu", "keras", "numpy", "oneDNN")


@contextmanager
def together(
    command: str, options: Any, request: dict[str, Any], dataset: Dataset, inputs: dict[str, str] | None = None
) -> Iterator[Company]:
    """Meet the other workers that TF_CONFIG names, before TensorFlow starts, and keep an eye on them until the end.

    Without `--strategy multiworker` this process is a company of one.

    Args:
        inputs: hashes of what else is trained on or from.

    Raises:
        InputError: one did not come, or was started with something else; names it and the difference.
    """
    found = cluster() if options.strategy == "multiworker" else None
    try:
        with Company(found or Cluster(("this",), 0)) as company:
            if found is not None:
                _check_alike(company, description(command, options, request, dataset, inputs))
            yield company
    except InputError as error:
        error.told = True
        raise


def _check_alike(company: Company, own: dict[str, Any]) -> None:
    """Raise InputError, in all workers, if one has another description than the chief."""
    descriptions = company.gather(own)
    for index, other in enumerate(descriptions):
        if found := difference(descriptions[0], other):
            what, chief, worker, cure = found
            raise InputError(f"{company.name(index)} has {what} {worker}, {company.name(0)} has {chief}: {cure}")


def description(
    command: str, options: RunOptions, request: dict[str, Any], dataset: Dataset, inputs: dict[str, str] | None = None
) -> dict[str, Any]:
    """What has to be the same in all workers: names, as they are shown, in groups. JSON."""
    config = deciding(command, options, request, dataset, inputs)
    where = {*WHERE, *(name for digest, names in HASHED.items() if digest in (inputs or {}) for name in names)}
    asked = config["options"] | {"split_seed" if key == "seed" else key: value for key, value in request.items()}
    asked = {key: value for key, value in asked.items() if key not in where}
    data = {key.replace("_", " "): value for key, value in config["data"].items() if key not in ("request", "bits")}
    data["training images of fingerprint"] = rows_sha256(dataset)
    versions = {key: value for key, value in config["versions"].items() if key in _VERSIONS}
    content = {
        "the command": {"the command": command},
        "options": {f"--{key.replace('_', '-')}": value for key, value in asked.items()},
        "versions": versions | {"prl_keras of source": code_digest()},
        "data": data,
    }
    return json.loads(json.dumps(content, default=str))


def difference(chief: dict[str, Any], worker: dict[str, Any]) -> tuple[str, str, str, str] | None:
    """Of two descriptions the first thing that differs, the chief's value, the worker's, and what to do; else None."""
    cures = {"versions": "install the same on all", "data": "give all the same images"}
    for group in chief:
        for what in {**chief[group], **worker[group]}:
            values = [content[group].get(what) for content in (chief, worker)]
            if values[0] != values[1]:
                return what, *map(_shown, values, reversed(values)), cures.get(group, "start all with the same command")
    return None


def rows_sha256(dataset: Dataset) -> str:
    """Of the training images and labels in their order, which the fingerprint of the data set leaves open."""
    digest = hashlib.sha256(np.ascontiguousarray(dataset.train.digests))
    digest.update(dataset.train.labels.astype("<i8"))
    return digest.hexdigest()


def _shown(value: Any, other: Any) -> str:
    """Short; of lists what the other one lacks."""
    if isinstance(value, list) and isinstance(other, list) and len(value) + len(other) > 8:
        own = [element for element in value if element not in other]
        return f"{len(value)} ({str(own[0])[:40]!a} among them)" if own else str(len(value))
    text = "none" if value is None else str(value)
    return f"{text[:12]}..." if len(text) == 64 else text[:80]
