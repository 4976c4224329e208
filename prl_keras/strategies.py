"""Which devices share a training: one, all of this machine, or those of several machines (TF_CONFIG)."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from prl_keras.errors import InputError

_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


class Cluster(NamedTuple):
    """workers: addresses HOST:PORT, the first one the chief's; index: which of them this process is."""

    workers: tuple[str, ...]
    index: int


def cluster() -> Cluster | None:
    """The workers that the environment variable TF_CONFIG names; None: it is not set.

    Raises:
        InputError: it is no JSON, or does not name two workers or more and which of them this one is.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"TF_CONFIG is no JSON ({error}); expected {_EXAMPLE}") from error
    jobs, task = (content.get(key) if isinstance(content, dict) else None for key in ("cluster", "task"))
    if not isinstance(jobs, dict) or not isinstance(task, dict):
        raise InputError(f"TF_CONFIG has no cluster and task; expected {_EXAMPLE}")
    if other := sorted(set(jobs) - {"chief", "worker"}):
        raise InputError(f"TF_CONFIG has a job {other[0]!r}; expected chief and worker only, as in {_EXAMPLE}")
    chiefs, workers = (jobs.get(job, []) for job in ("chief", "worker"))
    if not all(isinstance(part, list) and all(map(_is_address, part)) for part in (chiefs, workers)):
        raise InputError(f"TF_CONFIG's cluster is {jobs}; expected a list of HOST:PORT, as in {_EXAMPLE}")
    if "chief" in jobs and len(chiefs) != 1:
        raise InputError(f"TF_CONFIG's chief is {chiefs}; expected one, or none: then the first worker is the chief")
    if twice := sorted({address for address in (*chiefs, *workers) if (*chiefs, *workers).count(address) > 1}):
        raise InputError(f"TF_CONFIG has {twice[0]} twice; expected an address of its own for each worker")
    kind, index = task.get("type"), task.get("index")
    own = jobs.get(kind, []) if isinstance(kind, str) else []
    if type(index) is not int or not 0 <= index < len(own):
        raise InputError(f"TF_CONFIG's task is {task}, which is none of the cluster's; expected as in {_EXAMPLE}")
    if len(chiefs) + len(workers) < 2:
        raise InputError("TF_CONFIG has one worker, who shares a training with nobody: leave --strategy out")
    return Cluster((*chiefs, *workers), index if kind == "chief" else index + len(chiefs))


def is_chief(strategy: str) -> bool:
    """Whether this process is the one that keeps what a training writes."""
    found = cluster() if strategy == "multiworker" else None
    return found is None or found.index == 0


@contextmanager
def workplace(options: Any) -> Iterator[Any]:
    """The options as this process is to use them: all but the chief write into a folder that is thrown away."""
    if is_chief(options.strategy):
        yield options
        return
    with tempfile.TemporaryDirectory(prefix=_own_prefix()) as folder:
        own = replace(options, runs_dir=Path(folder), name="worker", resume=False, track=None)
        object.__setattr__(own, "given", options.given)
        yield own


def _own_prefix() -> str:
    return f"prl-keras-{os.getpid()}-"


def own_folders() -> list[Path]:
    """Of `workplace` in this process, for who ends it without leaving the context."""
    return list(Path(tempfile.gettempdir()).glob(f"{_own_prefix()}*"))


def _is_address(value: Any) -> bool:
    found = (
        re.fullmatch(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})", value, re.ASCII)
        if isinstance(value, str)
        else None
    )
    return found is not None and 0 < int(found[1]) < 2**16


def logical_devices(count: int) -> None:
    """Make the processor so many devices, for tests of what several share; before TensorFlow's first operation."""
    import tensorflow as tf

    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * count)


def strategy_of(name: str) -> Any:
    """The `tf.distribute.Strategy`; that of several machines has to be made before TensorFlow's first operation.

    Raises:
        InputError: there are not two devices, or no valid TF_CONFIG.
    """
    import tensorflow as tf

    makers = {"none": tf.distribute.get_strategy, "mirrored": mirrored, "multiworker": multiworker}
    return makers[name]()


@cache
def mirrored(devices: int | None = None) -> Any:
    """`tf.distribute.MirroredStrategy` of all GPUs of this machine, or without any of its logical CPU devices.

    The same object each time: TensorFlow numbers the collectives of each new one from 1, and confuses two in one
    process. CPU devices, which are there for tests, are summed on one of them instead.

    Args:
        devices: so many of them; None: all.

    Raises:
        InputError: there are not so many, or fewer than two.
    """
    import tensorflow as tf

    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    names = [f"{kind}:{number}" for number in range(len(tf.config.list_logical_devices(kind)))]
    if len(names) < max(2, devices or 2):
        found = "no GPU" if kind == "CPU" else f"{len(names)} GPU{'' if len(names) == 1 else 's'}"
        raise InputError(f"--strategy mirrored shares a training between the GPUs of a machine; here is {found}")
    return tf.distribute.MirroredStrategy(
        names[:devices], tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
    )


@cache
def multiworker() -> Any:
    """`tf.distribute.MultiWorkerMirroredStrategy` of the workers in TF_CONFIG; waits until all are there.

    Raises:
        InputError: no TF_CONFIG or a wrong one, or TensorFlow has begun.
    """
    import tensorflow as tf

    if cluster() is None:
        raise InputError(f"--strategy multiworker needs the environment variable TF_CONFIG, as {_EXAMPLE}")
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise InputError(f"--strategy multiworker has to be there before anything else: {error}") from error


def check_pretraining(options: Any) -> None:
    """Raise InputError for a pre-training that devices cannot share."""
    if options.strategy != "none" and options.variant == "prl":
        raise InputError(
            f"--strategy {options.strategy} is not for --variant prl, whose memory is on one device: leave it out"
        )
    if options.local_batch_norm and options.neck == "norm":
        raise InputError(
            "--local-batch-norm is not for --neck norm, which is one for all devices: leave one of them out"
        )


def check_classifier(options: Any) -> None:
    """Raise InputError for the training of a classifier that devices cannot share."""
    if options.strategy == "none":
        return
    if getattr(options, "unlabelled", False):
        raise InputError(f"--strategy {options.strategy} is not for --unlabelled: leave one of them out")
    if getattr(options, "freeze", False) and options.augment == options.mix == "none":
        raise InputError(
            f"--strategy {options.strategy} has nothing to share: features of a frozen encoder are encoded once, and a "
            "head on them takes seconds; leave it out, or use --no-freeze or --augment"
        )


def check_last_batch(images: int, replicas: int) -> None:
    """Raise InputError unless every replica has a part of an epoch's last batch, of so many images."""
    if (replicas - 1) * -(-images // replicas) >= images:
        raise InputError(
            f"the last batch of an epoch has {images} images, too few for {replicas} devices: use another --batch-size"
        )


def check_batch(batch_size: int, replicas: int) -> None:
    """Raise InputError unless every replica gets as many images of a batch."""
    if batch_size % replicas:
        raise InputError(
            f"--batch-size {batch_size} cannot be shared equally by {replicas} devices: "
            f"use {batch_size // replicas * replicas or replicas}"
        )
