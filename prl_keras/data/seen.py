"""Which images a run was trained on, and how many of a data set's validation and test images are among them.

A run keeps eight bytes of each training image's SHA-256 in train_digests.npy, those of the encoder that it began with
included. Images are the same if their pixels are, at the size of the training. Where a training began with a network
from elsewhere, not_recorded.txt names it, in that run and in all that go on from it.
"""

from contextlib import suppress

import numpy as np

from prl_keras.arrays import read_arrays
from prl_keras.data.rows import Rows
from prl_keras.data.splits import Dataset, Split, digests_of
from prl_keras.errors import InputError
from prl_keras.files import atomic_path, write_text
from prl_keras.runs import Run
from prl_keras.screen.console import say

_FILE, _NOT_RECORDED = "train_digests.npy", "not_recorded.txt"


def short_digests(images: np.ndarray | Rows) -> np.ndarray:
    """(n,) uint64, in the order of the images (n, height, width, 3)."""
    return short(digests_of(images))


def short(digests: np.ndarray) -> np.ndarray:
    """(n, 32) uint8 -> (n,) uint64."""
    return np.ascontiguousarray(digests[:, :8]).view("<u8").reshape(-1)


def record_seen(
    run: Run,
    images: np.ndarray | Rows,
    source: Run | None = None,
    unlabelled: np.ndarray | Rows | None = None,
    elsewhere: str | None = None,
) -> None:
    """Keep the digests of a run's training images, of the unlabelled ones that it learns from beside them, and of those
    that `source`, where its encoder is from, has seen; elsewhere: the network that it began with, if no run made it."""
    file = run.path / _FILE
    if file.exists():
        return
    earlier = None if source is None else seen_by(source)
    if source is not None and earlier is None:
        return  # half a record would vouch for what it does not know
    network = elsewhere if source is None else not_recorded(source)
    if network is not None:  # first: the record is whole when it is there
        write_text(run.path / _NOT_RECORDED, f"{network}\n")
    digests = np.concatenate([short_digests(each) for each in (images, unlabelled) if each is not None])
    with atomic_path(file) as temporary:
        np.save(temporary, np.unique(digests if earlier is None else np.concatenate([digests, earlier])))


def seen_by(run: Run) -> np.ndarray | None:
    """(n,) sorted uint64; None if the run is older than this record.

    Raises:
        InputError: the file is damaged.
    """
    file = run.path / _FILE
    if not file.exists():
        return None
    try:
        digests = read_arrays(file)[""]
        if digests.dtype != np.dtype("<u8") or digests.ndim != 1:
            raise ValueError(f"it holds {digests.dtype} {digests.shape}")
    except (ValueError, KeyError) as error:
        raise InputError(f"{file} is damaged: {error}; restore it, or remove it to go on without the check") from error
    return digests


def not_recorded(run: Run) -> str | None:
    """The network from elsewhere that the run, or one before it, began with: nobody knows what that has seen."""
    with suppress(FileNotFoundError):
        return (run.path / _NOT_RECORDED).read_text(encoding="utf-8", errors="replace").strip()
    return None


def warn_of_network(run: Run) -> str | None:
    """Say, of a run that began with a network from elsewhere, that nothing proves pictures new to it; the network."""
    network = not_recorded(run)
    if network is not None:
        say(f"warning: what {network} was trained on is not recorded: it may know these classes, or these pictures")
    return network


def warn_of_names(what: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Say which classes that are to be new have names of classes that the run was trained on."""
    trained = set(known)
    if same := [name for name in names if name in trained]:
        others = f" and {len(same) - 5} more" if len(same) > 5 else ""
        say(f"warning: {what} has classes that the run was trained on, by their names: {', '.join(same[:5])}{others}")


def unseen(run: Run, split: Split) -> np.ndarray | None:
    """(n,) bool: which pictures of the split the run was not trained on, by their pixels, as far as is recorded
    (`not_recorded`); None: it kept no record."""
    seen = seen_by(run)
    return None if seen is None else ~np.isin(short(split.digests), seen)


def never_seen(run: Run, split: Split) -> tuple[Split, int]:
    """The split without the pictures that the run was trained on, by their pixels, and how many those were.

    Raises:
        InputError: the run kept no record of them.
    """
    fresh = unseen(run, split)
    if fresh is None:
        raise InputError(f"run {run.name!r} kept no record of its training images, so that nothing proves others new")
    return (split, 0) if fresh.all() else (split.take(np.flatnonzero(fresh)), int((~fresh).sum()))


def count_seen(run: Run, dataset: Dataset, splits: tuple[str, ...] = ("validation", "test")) -> dict[str, int] | None:
    """How many images of these splits the run was trained on, for each; None if it kept no record.

    What the data set itself has in train too does not count: that is a fault of the data, which `data verify` shows.
    """
    seen = seen_by(run)
    if seen is None:
        return None
    seen = np.setdiff1d(seen, short(dataset.train.digests))
    return {name: int(np.isin(short(getattr(dataset, name).digests), seen).sum()) for name in splits}
