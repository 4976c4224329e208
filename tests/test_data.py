"""Splits, fingerprints, the catalog, the network probe and `python main.py data`."""

import contextlib
import gzip
import hashlib
import http.server
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from archives import fake_stl10, peak_bytes, write_fashion, write_image_folder, write_stl10_archive
from hypothesis import given, settings
from hypothesis import strategies as st

from prl_keras.commands.data import run
from prl_keras.config import Data
from prl_keras.data import Split, default_dataset, fashion, load_dataset, network, tfds_source
from prl_keras.data.reading import Reading
from prl_keras.data.rows import Rows
from prl_keras.data.splits import (
    _sorted,
    balanced_test,
    balanced_train,
    by_content,
    check_split,
    fingerprint,
    split_validation,
)
from prl_keras.errors import InputError

NAMES = ("a", "b", "c", "d", "e")


def fails(call, *parts: str) -> None:
    """The call raises InputError with one line that contains every part."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def split_of(labels) -> Split:
    """Every image is different: it holds its own number."""
    labels = np.array(labels, dtype=np.int64)
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(len(labels)), 256)
    return Split(images, labels)


def ids(split: Split) -> set[int]:
    return {int(image[0, 0, 0]) * 256 + int(image[0, 0, 1]) for image in split.images}


# --- splits ---------------------------------------------------------------------------------------------

class_sizes = st.lists(st.integers(2, 40), min_size=2, max_size=5)
seeds = st.integers(0, 2**32 - 1)
fractions = st.floats(0.01, 0.99)


def shuffled_labels(sizes, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


@given(class_sizes, fractions, seeds)
@settings(max_examples=60, deadline=None)
def test_validation_is_disjoint_complete_and_stratified(sizes, fraction, seed):
    whole = split_of(shuffled_labels(sizes))
    train, validation = split_validation(whole, fraction, seed, NAMES[: len(sizes)])
    assert not ids(train) & ids(validation)
    assert ids(train) | ids(validation) == ids(whole)
    for part in (train, validation):
        rows = [row for row in range(len(whole)) if row in ids(part)]
        np.testing.assert_array_equal(part.labels, whole.labels[rows])  # in the old order, labels still right
    for label, size in enumerate(sizes):
        count = int((validation.labels == label).sum())
        assert 1 <= count <= size - 1
        assert abs(count - fraction * size) <= 1


@given(class_sizes, seeds)
@settings(max_examples=40, deadline=None)
def test_the_seed_decides(sizes, seed):
    whole = split_of(shuffled_labels([size + 20 for size in sizes]))
    names = NAMES[: len(sizes)]
    first, again = (split_validation(whole, 0.5, seed, names)[1] for _ in range(2))
    other = split_validation(whole, 0.5, (seed + 1) % 2**32, names)[1]
    assert ids(first) == ids(again)
    assert ids(first) != ids(other)


@given(class_sizes, seeds)
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_images_does_not_matter(sizes, seed):
    whole = split_of(shuffled_labels(sizes))
    mixed = whole.take(np.random.default_rng(seed).permutation(len(whole)))
    names = NAMES[: len(sizes)]
    for a, b in zip(split_validation(whole, 0.3, seed, names), split_validation(mixed, 0.3, seed, names), strict=True):
        assert ids(a) == ids(b)
    assert fingerprint(names, {"train": whole}) == fingerprint(names, {"train": mixed})


@given(class_sizes, seeds, st.data())
@settings(max_examples=40, deadline=None)
def test_subsets_are_balanced_and_nested(sizes, seed, data):
    whole, names = split_of(shuffled_labels(sizes)), NAMES[: len(sizes)]
    few = data.draw(st.integers(1, min(sizes)))
    many = data.draw(st.integers(few, min(sizes)))
    small, large = balanced_train(whole, few, seed, names), balanced_train(whole, many, seed, names)
    assert np.bincount(small.labels).tolist() == [few] * len(sizes)
    assert ids(small) <= ids(large) <= ids(whole)


def test_draws_for_different_purposes_are_independent():
    whole = split_of(np.zeros(100, int).tolist() + [1] * 100)
    assert ids(balanced_train(whole, 30, 0, NAMES[:2])) != ids(balanced_test(whole, 30, 0, NAMES[:2]))


def test_images_that_are_equal_are_still_counted_one_by_one():
    same = Split(np.zeros((20, 2, 2, 3), np.uint8), np.repeat(np.arange(2), 10))
    train, validation = split_validation(same, 0.3, 0, NAMES[:2])
    assert (len(train), len(validation)) == (14, 6)


def test_a_fingerprint_changes_with_everything():
    names, base = ("a", "b"), {"train": split_of([0, 1, 0, 1]), "test": split_of([0, 1])}
    seen = {fingerprint(names, base)}
    for name in base:
        for row in range(len(base[name])):
            pixel = base[name].images.copy()
            pixel[row, 1, 1, 2] ^= 1
            labels = base[name].labels.copy()
            labels[row] ^= 1
            seen.add(fingerprint(names, base | {name: Split(pixel, base[name].labels)}))
            seen.add(fingerprint(names, base | {name: Split(base[name].images, labels)}))
        seen.add(fingerprint(names, base | {name: base[name].take(np.array([0]))}))
    seen.add(fingerprint(("a", "c"), base))
    seen.add(fingerprint(names, {"train": base["test"], "test": base["train"]}))
    seen.add(fingerprint(names, base | {"test": Split(base["test"].images.reshape(2, 1, 4, 3), base["test"].labels)}))
    assert len(seen) == 1 + 2 * 6 + 2 + 3
    assert fingerprint(names, base) in seen


def test_hashing_copies_no_images():
    split = Split(np.zeros((1_000, 96, 96, 3), np.uint8), np.zeros(1_000, np.int64))  # 28 MB
    assert peak_bytes(lambda: fingerprint(NAMES, {"train": split})) < 2**20
    assert peak_bytes(split.sha256) < 2**20
    strided = Split(split.images[::2, ::-1], np.arange(500))
    whole = strided.images.tobytes() + strided.labels.astype("<i8").tobytes()
    assert strided.sha256() == hashlib.sha256(whole).hexdigest()  # as it stands in the results of older runs


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 255), st.integers(0, 2)), min_size=1, max_size=9), st.data()
)
def test_images_sort_by_all_of_their_digests_then_by_label(rows, data):
    digests = np.zeros((len(rows), 32), np.uint8)
    digests[:, data.draw(st.sampled_from([0, 7]))], digests[:, data.draw(st.sampled_from([0, 7, 8, 31]))] = np.array(
        [row[:2] for row in rows]
    ).T
    labels = np.array([row[2] for row in rows])
    order = _sorted(digests, labels)
    assert order.tolist() == sorted(range(len(rows)), key=lambda row: (digests[row].tobytes(), labels[row], row))


@given(class_sizes, seeds)
@settings(max_examples=40, deadline=None)
def test_in_the_order_of_content_mixed_rows_are_equal(sizes, seed):
    whole = split_of(shuffled_labels(sizes))
    whole = Split(np.concatenate([whole.images, whole.images[:2]]), np.append(whole.labels, [0, 1]))  # twins
    whole = Split(whole.images, whole.labels, np.array([f"{row}.png" for row in range(len(whole))], dtype=object))
    mixed = whole.take(np.random.default_rng(seed).permutation(len(whole)))
    a, b = by_content(whole), by_content(mixed)
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.labels, b.labels)
    for image, label, name in zip(a.images, a.labels, a.files, strict=True):
        row = int(name.split(".")[0])
        np.testing.assert_array_equal(image, whole.images[row])
        assert label == whole.labels[row]


def test_impossible_splits_are_one_line():
    whole = split_of([0, 0, 0, 1, 1, 2])
    fails(lambda: split_validation(whole, 0.1, 0, NAMES[:3]), "class 'c' has 1 training images, at least 2")
    fails(lambda: split_validation(whole, 0.1, 0, NAMES[:4]), "class 'd' has 0 training images")
    for fraction in (0, 1, -0.1, 1.5, float("nan")):
        fails(lambda fraction=fraction: split_validation(whole, fraction, 0, NAMES[:3]), "validation_fraction is")
    fails(lambda: balanced_train(whole, 2, 0, NAMES[:3]), "samples_per_class is 2", "class 'c' has only 1 images")
    fails(lambda: balanced_train(whole, 0, 0, NAMES[:3]), "samples_per_class is 0: choose 1 or more")
    fails(lambda: balanced_test(whole, 3, 0, NAMES[:3]), "test_per_class is 3", "'c' has only 1", "choose 1 or less")
    nothing = "class 'd' has only 0 images to draw from: add some, or leave test_per_class out"
    fails(lambda: balanced_test(whole, 1, 0, NAMES[:4]), nothing)
    for seed in (-1, 2**32):
        fails(lambda seed=seed: balanced_train(whole, 1, seed, NAMES[:3]), f"seed is {seed}")


def test_splits_that_contradict_themselves_are_one_line():
    whole = split_of([0, 1, 2])
    check_split(whole, NAMES[:3], "x")
    fails(lambda: check_split(whole, NAMES[:2], "x, test"), "x, test: labels 0..2, expected 0..1")
    fails(lambda: check_split(split_of([-1, 0]), NAMES, "x"), "labels -1..0")
    fails(lambda: check_split(Split(whole.images, whole.labels[:2]), NAMES, "x"), "3 images but 2 labels")
    fails(lambda: check_split(split_of([]), NAMES, "x"), "x: no images")
    fails(lambda: check_split(Split(whole.images / 255, whole.labels), NAMES, "x"), "float64, expected uint8")


# --- the catalog ----------------------------------------------------------------------------------------


def test_importing_the_data_package_is_instant():
    heavy = "tensorflow keras sklearn tensorflow_datasets PIL rich scipy"
    code = f"import sys, prl_keras.data; print([m for m in '{heavy}'.split() if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert found.stdout.strip() == "[]"


def test_digits_are_scaled_rgb_and_enlarged():
    from sklearn.datasets import load_digits

    dataset = load_dataset("digits")
    assert dataset.image_shape == (32, 32, 3)
    assert dataset.num_classes == 10
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1295, 143, 359)
    assert (dataset.train.images.min(), dataset.train.images.max()) == (0, 255)
    assert (dataset.train.images == dataset.train.images[..., :1]).all()
    everything = np.concatenate([part.images for part in (dataset.train, dataset.validation, dataset.test)])
    assert abs(everything.mean() - load_digits().images.mean() * 255 / 16) < 3
    assert len({image.tobytes() for image in everything}) == 1797
    assert (dataset.order, dataset.notes, dataset.bits) == ("file", (), None)


def test_digits_are_the_same_wherever_scikit_learn_keeps_them(monkeypatch):
    from prl_keras.data.digits import read_digits

    monkeypatch.setattr("prl_keras.data.digits.find_spec", lambda name: None)
    found = read_digits()
    monkeypatch.undo()
    expected = read_digits()
    for split in ("train", "test"):
        assert getattr(found, split).sha256() == getattr(expected, split).sha256()


def test_digits_are_in_the_published_order():
    """If this fails, batches have changed, and every published figure on digits is void."""
    dataset = load_dataset("digits")
    assert [split.sha256()[:12] for split in (dataset.train, dataset.test)] == ["a30e7d7602c5", "8e0bb513a4a3"]


def test_seeds_subsets_and_sizes_touch_only_what_they_should():
    base, other = load_dataset("digits"), load_dataset("digits", seed=1)
    np.testing.assert_array_equal(base.test.images, other.test.images)
    assert base.fingerprint != other.fingerprint
    assert base.fingerprint == load_dataset("digits", None, 0).fingerprint
    small = load_dataset("digits", samples_per_class=7)
    np.testing.assert_array_equal(small.validation.images, base.validation.images)
    assert np.bincount(small.train.labels).tolist() == [7] * 10
    assert {image.tobytes() for image in small.train.images} <= {image.tobytes() for image in base.train.images}
    few = load_dataset("digits", test_per_class=20)
    assert few.test.sha256() == load_dataset("digits", seed=5, test_per_class=20).test.sha256() != base.test.sha256()
    assert np.bincount(few.test.labels).tolist() == [20] * 10
    np.testing.assert_array_equal(few.train.images, base.train.images)
    assert load_dataset("digits", image_size=16).image_shape == (16, 16, 3)
    assert len(load_dataset("digits", validation_fraction=0.5).validation) == pytest.approx(719, abs=5)


def test_unknown_names_list_the_known_ones_and_the_closest():
    known = "stl10, fashion_mnist, fashion_500, digits, tfds:NAME"
    fails(lambda: load_dataset("stl-10"), "unknown data set 'stl-10'", "did you mean 'stl10'?", known)
    fails(lambda: load_dataset("Digits"), "did you mean 'digits'?")
    fails(lambda: load_dataset("qqq"), "unknown data set 'qqq'; known: " + known)
    fails(lambda: load_dataset("digits", "/no/such/place"), "/no/such/place: no such folder")
    fails(lambda: load_dataset("./qqq"), "qqq: no such folder")


# --- Fashion-MNIST --------------------------------------------------------------------------------------


def test_fashion_mnist_is_read_from_a_given_folder(tmp_path):
    write_fashion(tmp_path)
    dataset = load_dataset("fashion_mnist", tmp_path)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (50, 10, 30)
    assert dataset.image_shape == (28, 28, 3)
    assert dataset.class_names[9] == "Ankle boot"
    labels = gzip.decompress((tmp_path / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    images = gzip.decompress((tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    assert dataset.test.labels.tolist() == list(labels)
    assert dataset.test.images[..., 1].tobytes() == images


def test_fashion_mnist_is_found_where_debian_or_keras_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion, "DEBIAN_DIR", tmp_path / "debian")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    write_fashion(tmp_path / "keras" / "datasets" / "fashion-mnist", seed=1)
    from_keras = load_dataset("fashion_mnist").fingerprint
    write_fashion(tmp_path / "debian", seed=2)
    assert load_dataset("fashion_mnist").fingerprint != from_keras  # Debian's comes first


def test_damaged_fashion_files_are_named(tmp_path):
    write_fashion(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    good = path.read_bytes()
    path.write_bytes(good[:-20])
    fails(lambda: load_dataset("fashion_mnist", tmp_path), f"{path}: cannot be unpacked")
    path.write_bytes(b"<html>")
    fails(lambda: load_dataset("fashion_mnist", tmp_path), f"{path}: cannot be unpacked")
    path.write_bytes(gzip.compress(gzip.decompress(good)[:-1]))
    fails(lambda: load_dataset("fashion_mnist", tmp_path), f"{path}: 47039 bytes of data, expected 47040")
    path.write_bytes((tmp_path / "train-labels-idx1-ubyte.gz").read_bytes())
    fails(lambda: load_dataset("fashion_mnist", tmp_path), f"{path}: not an IDX file that begins with 0x00000803")
    path.unlink()
    fails(lambda: load_dataset("fashion_mnist", tmp_path), f"{path}: no such file")


def test_fashion_500_is_the_same_for_every_seed(tmp_path):
    write_fashion(tmp_path, 520, 810)
    first, second = (load_dataset("fashion_500", tmp_path, seed=seed) for seed in (0, 1))
    together = []
    for dataset in (first, second):
        assert np.bincount(dataset.train.labels).tolist() == [450] * 10
        assert np.bincount(dataset.validation.labels).tolist() == [50] * 10
        assert np.bincount(dataset.test.labels).tolist() == [800] * 10
        parts = np.concatenate([dataset.train.images, dataset.validation.images])
        together.append({image.tobytes() for image in parts})
    assert together[0] == together[1]
    np.testing.assert_array_equal(first.test.images, second.test.images)
    assert first.fingerprint != second.fingerprint


@pytest.mark.skipif(not fashion.DEBIAN_DIR.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_500_holds_the_published_images():
    """If this fails, the draw has changed and every published figure on fashion_500 is void."""
    dataset = load_dataset("fashion_500")
    assert dataset.fingerprint.startswith("6b5a8ffc978f")  # at seed 0
    assert [split.sha256()[:12] for split in (dataset.train, dataset.test)] == ["56439d73468c", "c2b2a7412db5"]


# --- the network ----------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Every connection goes to a port where nobody listens; nothing is prepared."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(fashion, "DEBIAN_DIR", tmp_path / "debian")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("stl10", "fetch it by hand and pass --data-dir PATH"),
        ("tfds:mnist", "--data-dir PATH"),
        ("fashion_mnist", "dataset-fashion-mnist"),
        ("fashion_500", "dataset-fashion-mnist"),
    ],
)
def test_without_a_network_a_download_fails_in_one_line_before_it_begins(
    no_network, tmp_path, name, instead, monkeypatch
):
    import tensorflow_datasets as tfds

    def waits(*args, **kwargs):
        pytest.fail("tensorflow-datasets tries for 204 seconds")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", waits)
    fails(lambda: load_dataset(name), "cannot download", "is out of reach", instead)
    assert not list(tmp_path.iterdir())


def test_a_network_that_never_answers_is_given_up(no_network, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(network, "DEADLINE", 0.3)
    monkeypatch.setattr(network.urllib.request, "build_opener", lambda: over.wait(60))
    fails(lambda: load_dataset("stl10"), "stl10_binary.tar.gz is out of reach (no answer)")  # else: what follows 60 s
    over.set()


def test_a_download_that_breaks_leaves_no_empty_folders(no_network, tmp_path, monkeypatch):
    from tensorflow_datasets.core.download import downloader

    monkeypatch.setattr(downloader, "MAX_RETRIES", 0)
    monkeypatch.setattr(tfds_source, "require_reachable", lambda *args: None)
    fails(lambda: load_dataset("stl10"), "cannot prepare STL-10", "stl10_binary.tar.gz: ", "--data-dir PATH")
    assert not list(tmp_path.iterdir())
    (tmp_path / "tfds" / "downloads" / "mine").mkdir(parents=True)
    fails(lambda: load_dataset("tfds:mnist"), "cannot prepare tfds:mnist")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["downloads", "mine", "tfds"]


@contextlib.contextmanager
def server(status):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args):
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        listening.server_close()


@pytest.mark.parametrize(("status", "reachable"), [(200, True), (403, True), (405, True), (407, False), (503, False)])
def test_what_counts_as_reachable(status, reachable, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with server(status) as url:
        if reachable:
            network.require_reachable(url, "it", "do that")
        else:
            fails(lambda: network.require_reachable(url, "it", "do that"), f"(HTTP {status}); do that")


def test_the_proxy_of_the_environment_is_used(monkeypatch, no_network):
    with server(200) as url:
        monkeypatch.setenv("http_proxy", url)
        network.require_reachable("http://a-host-that-does-not-exist.invalid/x", "it", "do that")


# --- tensorflow-datasets other than stl10 ---------------------------------------------------------------


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """Small data sets prepared in tensorflow-datasets' own format, without their code."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    rng = np.random.default_rng(0)
    tfds.disable_progress_bar()

    def store(name, shapes, splits=("train", "test"), channels=1, label="label"):
        features = {"image": tfds.features.Image(shape=(None, None, channels), dtype=np.uint8)}
        features[label] = tfds.features.ClassLabel(names=["no", "yes"])

        def examples():
            for i in range(12):
                image = rng.integers(0, 256, (*shapes[i % len(shapes)], channels), dtype=np.uint8)
                yield i, {"image": image, label: i % 2}

        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=tfds.features.FeaturesDict(features),
            split_datasets={split: list(examples()) for split in splits},
            data_dir=str(folder),
            disable_shuffling=True,
        )

    store("grey", [(20, 24)])
    store("varied", [(20, 24), (30, 30)], channels=3)
    store("more", [(20, 20)], splits=("train", "test", "validation", "unlabelled"))
    store("untested", [(20, 20)], splits=("train",))
    store("unlike", [(20, 20)], label="answer")
    return folder


def test_any_prepared_tfds_set_is_read(tfds_folder, capfd):
    dataset = load_dataset("tfds:grey", tfds_folder)
    assert dataset.image_shape == (20, 24, 3)
    assert dataset.class_names == ("no", "yes")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (10, 2, 12)
    assert (dataset.order, dataset.notes) == ("content", ())
    assert "WARNING" not in capfd.readouterr().err


def test_further_tfds_splits_are_not_read_and_it_is_said(tfds_folder):
    dataset = load_dataset("tfds:more", tfds_folder)
    assert dataset.notes == ("Not read: its further splits validation (12 images)",)


def test_tfds_images_are_in_memory_once(tfds_folder):
    import tensorflow_datasets as tfds

    from prl_keras.data.tfds_source import _read_split

    side, count = 512, 60
    builder = SimpleNamespace(
        info=SimpleNamespace(splits={"train": SimpleNamespace(num_examples=count)}),
        as_dataset=lambda **options: (
            {"image": np.full((side, side, 3), i, np.uint8), "label": i % 2} for i in range(count)
        ),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds, "as_numpy", lambda examples: examples)
        peak = peak_bytes(lambda: _read_split(builder, "train", "x", ("image", "label"), Reading()))
        split = _read_split(builder, "train", "x", ("image", "label"), Reading())
    assert peak < 1.2 * count * side * side * 3
    assert split.images[:, 0, 0, 0].tolist() == list(range(count))


def test_tfds_images_of_different_sizes_need_a_size(tfds_folder):
    fails(lambda: load_dataset("tfds:varied", tfds_folder), "images of different sizes; pass an image size")
    assert load_dataset("tfds:varied", tfds_folder, image_size=16).image_shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("name", "size"), [("varied", 16), *(pytest.param("grey", size, marks=pytest.mark.slow) for size in (None, 16))]
)
def test_tfds_images_from_the_store_are_those_from_memory(tfds_folder, tmp_path, monkeypatch, name, size):
    monkeypatch.setattr("prl_keras.data.rows._SHARD_BYTES", 5 * 20 * 24)  # of grey in files of five
    memory = load_dataset(f"tfds:{name}", tfds_folder, image_size=size, cache_dir="none")
    for _ in range(2):
        kept = load_dataset(f"tfds:{name}", tfds_folder, image_size=size, cache_dir=tmp_path / "cache")
        assert kept.fingerprint == memory.fingerprint
        for part in ("train", "validation", "test"):
            one, other = getattr(memory, part), getattr(kept, part)
            np.testing.assert_array_equal(one.images, other.images)
            np.testing.assert_array_equal(one.labels, other.labels)
            assert isinstance(other.images, Rows)
        monkeypatch.setattr(tfds_source, "_kept_split", only_opened(tfds_source._kept_split, monkeypatch))


def only_opened(kept_split, monkeypatch):
    """The same, where nothing can be read from the prepared files any more."""

    def opened(*args):
        with monkeypatch.context() as patch:
            patch.setattr(tfds_source, "_examples", None)
            return kept_split(*args)

    return opened


def test_tfds_images_of_different_sizes_make_no_store(tfds_folder, tmp_path):
    cache = tmp_path / "cache"
    fails(lambda: load_dataset("tfds:varied", tfds_folder, cache_dir=cache), "images of different sizes; pass an image")
    assert list(cache.iterdir()) == []


def test_unfit_tfds_sets_are_one_line(tfds_folder):
    fails(lambda: load_dataset("tfds:untested", tfds_folder), "tfds:untested has no test split (it has: train)")
    fails(lambda: load_dataset("tfds:unlike", tfds_folder), "tfds:unlike is not an image classification set")
    fails(lambda: load_dataset("tfds:glue", tfds_folder), "tfds:glue is not an image classification set")
    fails(lambda: load_dataset("tfds:mnitz", tfds_folder), "'mnitz'; did you mean tfds:mnist?")
    fails(lambda: load_dataset("tfds:mnist:9.9.9", tfds_folder), "cannot open 'mnist:9.9.9'")
    for name in ("", "a/b/c", "../x", "huggingface:mnist"):
        fails(lambda name=name: load_dataset(f"tfds:{name}", tfds_folder), "not a name of tensorflow-datasets")


# --- python main.py data --------------------------------------------------------------------------------


def test_list_says_what_is_here_without_tensorflow(tmp_path):
    code = (
        "import sys; from prl_keras.config import Data; from prl_keras.commands.data import run; run(Data());"
        "assert not {'tensorflow', 'keras', 'tensorflow_datasets', 'sklearn'} & set(sys.modules)"
    )
    environment = {"TFDS_DATA_DIR": str(tmp_path), "COLUMNS": "120", "PYTHONIOENCODING": "utf-8"}
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment, check=True
    )
    for name in ("stl10", "fashion_mnist", "fashion_500", "digits", "tfds:NAME", "PATH"):
        assert name in shown.stdout


def test_prepare_unpacks_reports_and_says_what_comes_next(tmp_path, capsys):
    fake = fake_stl10()
    write_stl10_archive(tmp_path, fake.files())
    run(Data(action="prepare", dataset="stl10", data_dir=tmp_path, split_seed=4))
    shown = capsys.readouterr().out
    assert (tmp_path / "stl10_binary" / "train_X.bin").is_file()
    assert "stl10: images 96 x 96 x 3, 10 classes" in shown
    assert "train           30 images, 3 a class" in shown
    assert "airplane" in shown
    assert "unlabelled: 5 images" in shown
    assert "folds: 10 of 20 images" in shown
    assert load_dataset("stl10", tmp_path, 4).fingerprint in shown
    command = f"python main.py pretrain --variant query --dataset stl10 --data-dir {tmp_path} --split-seed 4"
    assert shown.splitlines()[-1] == f"Next: {command}"
    run(Data(action="verify", data_dir=tmp_path))
    assert capsys.readouterr().out.startswith(default_dataset(tmp_path)[1])


def test_verify_never_downloads(no_network):
    fails(
        lambda: run(Data(action="verify", dataset="stl10")),
        "stl10 is not prepared; type: python main.py data prepare --dataset stl10",
    )
    fails(lambda: run(Data(action="verify", dataset="tfds:mnist")), "tfds:mnist is not prepared")


def test_verify_tolerates_missing_extras_and_quotes_paths(tmp_path, capsys):
    files = fake_stl10().files()
    del files["fold_indices.txt"]
    folder = tmp_path / "my data"
    write_stl10_archive(folder, files)
    run(Data(action="verify", dataset="stl10", data_dir=folder))
    shown = capsys.readouterr().out
    assert "not usable: " in shown
    assert f"--data-dir '{folder}'" in shown.splitlines()[-1]
    root = write_image_folder(tmp_path / "pets", ("[bold]cat", "dog"))
    run(Data(action="verify", dataset=str(root)))
    assert "[bold]cat" in capsys.readouterr().out
