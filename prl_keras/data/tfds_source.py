"""Image classification sets of tensorflow-datasets, read into memory, or once into a store."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prl_keras.data.cache import Cache, file_facts, store_name
from prl_keras.data.images import grey_to_rgb, resize_images
from prl_keras.data.network import require_reachable
from prl_keras.data.reading import Reading
from prl_keras.data.splits import RawData, Split
from prl_keras.errors import InputError
from prl_keras.paths import expanded

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_NAME = re.compile(r"\w+(/[\w.-]+)?(:\d+\.\d+\.\d+)?")
_FALLBACK_URL = "https://storage.googleapis.com/tfds-data/"


def tfds_dir(data_dir: Path | None = None) -> Path:
    """Where tensorflow-datasets keeps what it has prepared."""
    default = os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")
    return Path(expanded(data_dir or default))


def is_prepared(name: str, data_dir: Path | None = None) -> bool:
    """A cheap look at the folder, without importing anything: is some version of `name` there?"""
    folder = tfds_dir(data_dir) / name.split(":")[0]
    return any(any(folder.glob(f"{below}/dataset_info.json")) for below in ("*", "*/*"))


def read_tfds(name: str, data_dir: Path | None, reading: Reading, download: str, instead: str, cache: Cache) -> RawData:
    """Train and test of `name`; `download` says what is fetched, `instead` what to do without a network."""
    with _quiet():
        builder = _builder(name, tfds_dir(data_dir))
        image_key, label_key = _keys(builder, name)
        if not builder.is_prepared():
            _prepare(builder, tfds_dir(data_dir), download, instead)
        for split in ("train", "test"):
            if split not in builder.info.splits:
                known = ", ".join(builder.info.splits)
                raise InputError(f"tfds:{name} has no {split} split (it has: {known}); choose one with train and test")
        if None not in builder.info.features[image_key].shape:
            reading = Reading()  # equal sizes: the catalog resizes after the splits are drawn
        keys, splits = (image_key, label_key), ("train", "test")
        count = sum(builder.info.splits[split].num_examples for split in splits)
        first = next(_examples(builder, "train[:1]", name, keys, reading), None) if cache.folder else None
        if first is not None and cache.takes(count, first[0].shape):
            parts = [_kept_split(builder, split, name, keys, reading, first[0].shape, cache) for split in splits]
        else:
            parts = [_read_split(builder, split, name, keys, reading) for split in splits]
        names = tuple(builder.info.features[label_key].names)
        return RawData(*parts, names, order="content", notes=_unread(builder))


def _unread(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
    """Unlabelled images are nobody's loss: no label could be read."""
    others = [
        f"{name} ({split.num_examples:,} images)"
        for name, split in builder.info.splits.items()
        if name not in ("train", "test") and not name.startswith("unlabel")
    ]
    return (f"Not read: its further splits {', '.join(others)}",) if others else ()


def _builder(name: str, folder: Path) -> tfds.core.DatasetBuilder:
    import tensorflow_datasets as tfds

    if not _NAME.fullmatch(name):
        raise InputError(f"'tfds:{name}' is not a name of tensorflow-datasets; write tfds:NAME or tfds:NAME/CONFIG")
    try:
        return tfds.builder(name, data_dir=str(folder))
    except tfds.core.DatasetNotFoundError as error:
        from difflib import get_close_matches

        close = get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=1)
        hint = f"did you mean tfds:{close[0]}?" if close else "see https://www.tensorflow.org/datasets/catalog"
        raise InputError(f"tensorflow-datasets has no data set {name!r}; {hint}") from error
    # A bad version, a bad configuration, a missing package: each raises its own type.
    except Exception as error:
        raise InputError(f"tensorflow-datasets cannot open {name!r}: {_first_line(error)}; check the name") from error


def _keys(builder: tfds.core.DatasetBuilder, name: str) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    keys, features = builder.info.supervised_keys or ("image", "label"), builder.info.features
    if len(keys) == 2 and all(isinstance(key, str) and key in features for key in keys):
        image, label = (features[key] for key in keys)
        if isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel):
            return keys
    raise InputError(f"tfds:{name} is not an image classification set (one image, one class label); choose another")


def _prepare(builder: tfds.core.DatasetBuilder, folder: Path, download: str, instead: str) -> None:
    import tensorflow_datasets as tfds

    url = next(iter(builder.url_infos), _FALLBACK_URL)
    if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        require_reachable(url, download, instead)
    print(f"Downloading {download} into {folder}", file=sys.stderr)
    before = set(_folders(folder, builder.name))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    # Servers, checksums, full disks, files to be fetched by hand: each raises its own type.
    except Exception as error:
        raise InputError(f"cannot prepare {download} from {url}: {_first_line(error)}; {instead}") from error
    finally:
        for left in _folders(folder, builder.name):
            if left not in before:
                with contextlib.suppress(OSError):
                    left.rmdir()  # removes empty folders only


def _folders(folder: Path, name: str) -> list[Path]:
    """Folders that tensorflow-datasets makes before it has anything to put into them, innermost first."""
    patterns = ("downloads/**/*.tmp.*", "downloads/*", "downloads", f"{name}/*", name)
    found = [path for pattern in patterns for path in folder.glob(pattern) if path.is_dir()]
    return [*found, folder] if folder.is_dir() else found


def _kept_split(
    builder: tfds.core.DatasetBuilder,
    split: str,
    name: str,
    keys: tuple[str, str],
    reading: Reading,
    shape: tuple[int, ...],
    cache: Cache,
) -> Split:
    """From a store, which is made of the prepared files first; those are known by names, sizes and times."""
    count = builder.info.splits[split].num_examples
    files = sorted(path for path in Path(builder.data_path).rglob("*") if path.is_file())
    known = [(path.name, file_facts(path)) for path in files]

    def read(start: int, stop: int) -> Iterator[tuple[np.ndarray, int]]:
        for image, label in _examples(builder, f"{split}[{start}:{stop}]", name, keys, reading):
            if image.shape != shape:
                raise _differ(name)
            yield image, label

    store = store_name([builder.info.full_name, split, *known], reading.image_size, reading.resize)
    images = cache.kept(store, shape, count, read, f"{name} ({split})")
    return Split(images, images.labels)


def _read_split(
    builder: tfds.core.DatasetBuilder, split: str, name: str, keys: tuple[str, str], reading: Reading
) -> Split:
    images = np.empty(0)  # all at once, as soon as the first one tells the size
    labels: list[int] = []
    count = builder.info.splits[split].num_examples
    for image, label in _examples(builder, split, name, keys, reading):
        if not labels:
            images = np.empty((count, *image.shape), dtype=np.uint8)
        if image.shape != images.shape[1:]:
            raise _differ(name)
        if len(labels) == count:
            raise InputError(f"tfds:{name}: its {split} split has more than its {count:,} images; prepare it again")
        images[len(labels)] = image
        labels.append(label)
    if not labels:
        raise InputError(f"tfds:{name}: its {split} split is empty; choose another data set")
    return Split(images[: len(labels)], np.array(labels, dtype=np.int64))


def _differ(name: str) -> InputError:
    return InputError(f"tfds:{name} has images of different sizes; pass an image size, for example --image-size 96")


def _examples(
    builder: tfds.core.DatasetBuilder, split: str, name: str, keys: tuple[str, str], reading: Reading
) -> Iterator[tuple[np.ndarray, int]]:
    """Images uint8 and labels, in the order of the files; `split` may be a part, as train[100:200]."""
    import tensorflow_datasets as tfds

    image_key, label_key = keys
    read = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
    whole = tfds.as_numpy(builder.as_dataset(split=split, read_config=read, shuffle_files=False))
    for example in _sound(builder, whole):
        image = example[image_key]
        if image.dtype != np.uint8:
            raise InputError(f"tfds:{name} has {image.dtype} images, expected uint8; choose another")
        if reading.image_size is not None:
            image = resize_images(grey_to_rgb(image[None]), reading.image_size, reading.resize)[0]
        yield image, int(example[label_key])


def _sound(builder: tfds.core.DatasetBuilder, examples: Iterable[Any]) -> Iterator[Any]:
    """Raises InputError where a prepared file is missing or damaged."""
    import tensorflow as tf

    try:
        yield from examples
    except tf.errors.OpError as error:
        raise InputError(
            f"{builder.data_path}: not as it was prepared ({error.message.splitlines()[0]:.200}); "
            "remove that folder and prepare it again"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[Any]:
    """Only errors on the log; progress bars only where somebody watches."""
    import tensorflow_datasets as tfds
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
