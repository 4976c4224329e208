"""STL-10: binary files, archive, folds, unlabelled images, and the way through tensorflow-datasets."""

import gzip
import io
import os
import re
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from archives import (
    CLASS_NAMES,
    asymmetric_picture,
    fake_stl10,
    peak_bytes,
    to_binary,
    write_stl10_archive,
    write_stl10_folder,
)

from prl_keras.cli import main
from prl_keras.data import archive, default_dataset, load_dataset
from prl_keras.data.images import resize_images
from prl_keras.data.seen import seen_by, short_digests
from prl_keras.data.stl10 import fold_indices, load_unlabelled, read_binary, unlabelled_sha256
from prl_keras.errors import InputError
from prl_keras.runs import Run


@pytest.fixture(scope="module")
def fake():
    return fake_stl10()


@pytest.fixture
def no_tfds(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def fails(call, *parts: str) -> str:
    """The call raises InputError with one line that contains every part."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    return message


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- reading --------------------------------------------------------------------------------------------


def test_orientation_and_channels_survive(tmp_path, fake):
    files = fake.files()
    picture = asymmetric_picture()
    images = fake.test_images.copy()
    images[0] = picture
    write_stl10_folder(tmp_path, files | {"test_X.bin": to_binary(images)})
    first = read_binary(tmp_path).test.images[0]
    np.testing.assert_array_equal(first, picture)
    assert first[5, 10].tolist() == [255, 0, 0]  # row 5, column 10: red, top left
    assert first[2, 80].tolist() == [0, 255, 0]  # green, top right
    assert first[90, 2].tolist() == [0, 0, 255]  # blue, bottom left


def test_the_layout_is_that_of_the_published_reader(tmp_path, fake):
    """Stanford's reader: reshape (-1, 3, 96, 96), then transpose (0, 3, 2, 1)."""
    folder = write_stl10_folder(tmp_path, fake.files())
    raw = np.fromfile(folder / "train_X.bin", dtype=np.uint8)
    expected = np.transpose(np.reshape(raw, (-1, 3, 96, 96)), (0, 3, 2, 1))
    np.testing.assert_array_equal(read_binary(tmp_path).train.images, expected)


@pytest.mark.parametrize("way", ["parent", "folder itself", "archive's folder", "archive itself"])
def test_every_form_of_data_dir_gives_the_same_data(tmp_path, fake, way):
    if way.startswith("archive"):
        path = write_stl10_archive(tmp_path, fake.files())
        data_dir = tmp_path if way == "archive's folder" else path
    else:
        folder = write_stl10_folder(tmp_path, fake.files())
        data_dir = tmp_path if way == "parent" else folder
    dataset = load_dataset("stl10", data_dir, test_per_class=None)
    written = {image.tobytes(): label for image, label in zip(fake.test_images, fake.test_labels, strict=True)}
    read = {image.tobytes(): label for image, label in zip(dataset.test.images, dataset.test.labels, strict=True)}
    assert read == written
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (30, 10, 20)
    assert dataset.image_shape == (96, 96, 3)
    assert dataset.class_names == CLASS_NAMES
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int64


def test_class_names_come_from_the_file_or_are_the_known_ones(tmp_path, fake):
    files = fake.files()
    renamed = "".join(f"class {i}\n" for i in range(10)).encode()
    folder = write_stl10_folder(tmp_path, files | {"class_names.txt": renamed})
    assert read_binary(tmp_path).class_names[3] == "class 3"
    (folder / "class_names.txt").unlink()
    assert read_binary(tmp_path).class_names == CLASS_NAMES
    (folder / "class_names.txt").write_text("cat\ndog\n", encoding="utf-8")
    fails(lambda: read_binary(tmp_path), "class_names.txt: 2 different names, expected 10")


def test_a_truncated_image_file_is_named_with_its_size(tmp_path, fake):
    files = fake.files()
    folder = write_stl10_folder(tmp_path, files | {"train_X.bin": files["train_X.bin"][:-100]})
    size = len(files["train_X.bin"]) - 100
    fails(lambda: read_binary(tmp_path), f"{folder}/train_X.bin: truncated: {size} bytes", "multiple of 27648")
    (folder / "train_X.bin").write_bytes(b"")
    fails(lambda: read_binary(tmp_path), "train_X.bin: truncated: 0 bytes")


def test_a_label_count_that_does_not_fit_is_named(tmp_path, fake):
    files = fake.files()
    folder = write_stl10_folder(tmp_path, files | {"test_y.bin": files["test_y.bin"][:-1]})
    fails(lambda: read_binary(tmp_path), f"{folder}/test_y.bin: 19 labels, expected 20")


def test_whole_missing_images_are_noticed(tmp_path, fake):
    files = fake.files()
    write_stl10_folder(tmp_path, files | {"train_X.bin": files["train_X.bin"][: 27648 * 7]})
    fails(lambda: read_binary(tmp_path), "train_y.bin: 40 labels, expected 7")


@pytest.mark.parametrize("wrong", [0, 11, 255])
def test_labels_outside_1_to_10_are_refused(tmp_path, fake, wrong):
    files = fake.files()
    labels = bytearray(files["train_y.bin"])
    labels[3] = wrong
    write_stl10_folder(tmp_path, files | {"train_y.bin": bytes(labels)})
    fails(lambda: read_binary(tmp_path), f"train_y.bin: label {wrong} at byte 3, expected 1..10")


@pytest.mark.parametrize("name", archive.REQUIRED)
def test_a_missing_file_is_named(tmp_path, fake, name):
    folder = write_stl10_folder(tmp_path, fake.files())
    (folder / name).unlink()
    fails(lambda: read_binary(tmp_path), f"{folder}/{name}: no such file", archive.URL)


def test_an_empty_data_dir_says_what_to_fetch(tmp_path, no_tfds):
    fails(lambda: load_dataset("stl10", tmp_path), str(tmp_path), "stl10_binary.tar.gz", archive.URL)
    fails(lambda: load_dataset("stl10", tmp_path / "nope"), "nope: no such folder")


# --- folds and unlabelled images ------------------------------------------------------------------------


def test_folds_are_the_files_rows(tmp_path, fake):
    write_stl10_folder(tmp_path, fake.files())
    for read, expected in zip(fold_indices(tmp_path), fake.folds, strict=True):
        np.testing.assert_array_equal(read, expected)


def test_a_fold_restricts_train_and_validation_but_not_test(tmp_path):
    fake = fake_stl10(train_per_class=4)
    fake.folds = [np.flatnonzero(np.arange(40) % 2 == k % 2) for k in range(10)]
    fake.train_labels = np.arange(40) // 2 % 10  # every class is in every fold
    write_stl10_folder(tmp_path, fake.files())
    dataset = load_dataset("stl10", tmp_path, fold=3, validation_fraction=0.5)
    kept = {image.tobytes() for part in (dataset.train, dataset.validation) for image in part.images}
    assert kept == {image.tobytes() for image in fake.train_images[1::2]}
    labels = {image.tobytes(): label for image, label in zip(fake.train_images, fake.train_labels, strict=True)}
    assert [labels[image.tobytes()] for image in dataset.train.images] == dataset.train.labels.tolist()
    assert len(dataset.test) == 20


def test_a_fold_that_does_not_exist_is_refused(tmp_path, fake):
    write_stl10_folder(tmp_path, fake.files())
    fails(lambda: load_dataset("stl10", tmp_path, fold=10), "fold is 10", "0..9")
    fails(lambda: load_dataset("stl10", tmp_path, fold=-1), "fold is -1")
    fails(lambda: load_dataset("digits", fold=1), "only stl10 from binary files has folds")
    fails(lambda: load_dataset("stl10", fold=1), "--data-dir PATH")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 1\n" * 9, "fold_indices.txt: 9 lines, expected 10"),
        ("0 1\n" * 9 + "0 40\n", "fold_indices.txt line 10: rows 0..40, expected 0..39"),
        ("-1 1\n" + "0 1\n" * 9, "line 1: rows -1..1"),
        ("0 0\n" + "0 1\n" * 9, "line 1: 1 rows appear twice"),
        ("0 x\n" + "0 1\n" * 9, "line 1: not a list of whole numbers"),
    ],
)
def test_bad_folds_are_refused(tmp_path, fake, text, says):
    write_stl10_folder(tmp_path, fake.files() | {"fold_indices.txt": text.encode()})
    fails(lambda: fold_indices(tmp_path), says)


def test_unlabelled_images_stay_on_disk(tmp_path, fake):
    write_stl10_folder(tmp_path, fake.files())
    images = load_unlabelled(tmp_path)
    np.testing.assert_array_equal(images, fake.unlabelled)
    base = images
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not images.flags.writeable


@pytest.mark.parametrize("size", [32, 128])
def test_unlabelled_images_are_resized_as_they_are_taken(tmp_path, fake, size):
    write_stl10_folder(tmp_path, fake.files())
    images = load_unlabelled(tmp_path, size)
    expected = resize_images(fake.unlabelled, size)
    assert (images.shape, images.dtype, len(images)) == ((5, size, size, 3), np.uint8, 5)
    for rows in (np.array([3, 0, 3]), slice(1, 4), np.array([], int)):
        np.testing.assert_array_equal(images[rows], expected[rows])
    np.testing.assert_array_equal(images[2], expected[2])
    np.testing.assert_array_equal(np.stack(list(images)), expected)
    np.testing.assert_array_equal(load_unlabelled(tmp_path, 96), fake.unlabelled)
    fails(lambda: load_unlabelled(tmp_path, 4), "image_size is 4: choose 8 to 1024")


def test_resizing_takes_the_memory_of_a_batch(tmp_path):
    folder = write_stl10_folder(tmp_path, {})
    with (folder / "unlabeled_X.bin").open("wb") as file:
        file.truncate(20_000 * 27648)
    (folder / "train_X.bin").touch()
    assert peak_bytes(lambda: load_unlabelled(tmp_path, 32)[np.arange(0, 20_000, 1_000)]) < 3 * 20 * 27648


@pytest.mark.slow
def test_pretraining_on_resized_unlabelled_images(tmp_path, fake, capsys):
    write_stl10_folder(tmp_path / "data", fake.files())
    data = ["--dataset", "stl10", "--data-dir", str(tmp_path / "data"), "--image-size", "32"]
    kind = ["--variant", "simclr", "--unlabelled", "--epochs", "1", "--batch-size", "4"]
    assert main(["pretrain", *data, *kind, "--name", "sim", "--runs-dir", str(tmp_path / "runs")]) == 0
    run = Run(tmp_path / "runs" / "sim")
    assert run.part("data")["image_shape"] == [32, 32, 3]
    assert run.part("data")["unlabelled_sha256"] == unlabelled_sha256(tmp_path / "data")
    assert sorted(seen_by(run)) == sorted(short_digests(resize_images(fake.unlabelled, 32)))


def test_a_missing_unlabelled_file_is_named(tmp_path, fake):
    folder = write_stl10_folder(tmp_path, fake.files())
    (folder / "unlabeled_X.bin").unlink()
    fails(lambda: load_unlabelled(tmp_path), "unlabeled_X.bin: no such file")
    assert len(load_dataset("stl10", tmp_path).test) == 20  # the labelled images do not need it


# --- the archive ----------------------------------------------------------------------------------------


def test_the_archive_is_unpacked_once_and_leaves_nothing_else(tmp_path, fake):
    path = write_stl10_archive(tmp_path, fake.files())
    folder = archive.extract(path)
    assert tree(tmp_path) == {"stl10_binary.tar.gz", "stl10_binary"} | {f"stl10_binary/{n}" for n in fake.files()}
    stamp = (folder / "train_X.bin").stat().st_mtime_ns
    for data_dir in (tmp_path, path, folder):
        read_binary(data_dir)
    assert (folder / "train_X.bin").stat().st_mtime_ns == stamp
    path.unlink()
    assert len(read_binary(tmp_path).train) == 40


@pytest.mark.parametrize("keep", [0, 10, 1000, -4, -2000])
def test_a_truncated_archive_is_refused_and_cleaned_up(tmp_path, fake, keep):
    path = write_stl10_archive(tmp_path, fake.files())
    path.write_bytes(path.read_bytes()[:keep])
    says = f"truncated or damaged ({path.stat().st_size:,} bytes; the complete archive has 2,640,397,119)"
    fails(lambda: read_binary(tmp_path), str(path), says, archive.URL)
    assert tree(tmp_path) == {"stl10_binary.tar.gz"}


def test_a_flipped_bit_is_noticed(tmp_path, fake):
    path = write_stl10_archive(tmp_path, fake.files())
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # gzip's checksum: everything before it unpacks without complaint
    path.write_bytes(content)
    fails(lambda: read_binary(tmp_path), "truncated or damaged")
    assert tree(tmp_path) == {"stl10_binary.tar.gz"}


def test_something_else_under_the_archives_name_is_refused(tmp_path):
    (tmp_path / "stl10_binary.tar.gz").write_bytes(b"<html>404</html>")
    fails(lambda: read_binary(tmp_path), "truncated or damaged")
    (tmp_path / "stl10_binary.tar.gz").write_bytes(gzip.compress(b"not a tar at all" * 100))
    fails(lambda: read_binary(tmp_path), "truncated or damaged")


def test_an_archive_without_a_needed_file_is_refused(tmp_path, fake):
    files = fake.files()
    del files["test_y.bin"]
    write_stl10_archive(tmp_path, files)
    fails(lambda: read_binary(tmp_path), "holds no stl10_binary/test_y.bin")
    assert tree(tmp_path) == {"stl10_binary.tar.gz"}


@pytest.mark.parametrize("name", ["../evil", "/tmp/prl-keras-evil", "stl10_binary/../../evil", "stl10_binary/x/evil"])
def test_members_with_other_paths_are_never_written(tmp_path, fake, name):
    member = tarfile.TarInfo(name)
    member.size = 4
    inner = tmp_path / "inner"
    write_stl10_archive(inner, fake.files(), [(member, b"evil")])
    read_binary(inner)
    assert not Path("/tmp/prl-keras-evil").exists()
    assert not [path for path in tree(tmp_path) if "evil" in path]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_needed_file_that_is_a_link_or_device_is_refused(tmp_path, fake, kind):
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    member = tarfile.TarInfo("stl10_binary/train_X.bin")
    member.type, member.linkname = kind, str(victim)
    inner = tmp_path / "inner"
    write_stl10_archive(inner, fake.files(), [(member, b"")])
    fails(lambda: read_binary(inner), "stl10_binary/train_X.bin is not a regular file")
    assert victim.read_bytes() == b"untouched"
    assert tree(inner) == {"stl10_binary.tar.gz"}


def test_a_link_as_the_folder_itself_is_ignored(tmp_path, fake):
    outside = tmp_path / "outside"
    outside.mkdir()
    member = tarfile.TarInfo("stl10_binary")
    member.type, member.linkname = tarfile.SYMTYPE, str(outside)
    inner = tmp_path / "inner"
    write_stl10_archive(inner, fake.files(), [(member, b"")])
    assert len(read_binary(inner).train) == 40
    assert not list(outside.iterdir())
    assert not (inner / "stl10_binary").is_symlink()


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, fake, monkeypatch):
    write_stl10_archive(tmp_path, fake.files())
    monkeypatch.setattr(archive, "SIZE_LIMIT", 1_000_000)
    fails(lambda: read_binary(tmp_path), "unpacks to more than")
    assert tree(tmp_path) == {"stl10_binary.tar.gz"}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path, fake, kind):
    bomb = tarfile.TarInfo("x")
    bomb.type, bomb.size = kind, 50 * 2**20
    write_stl10_archive(tmp_path, fake.files(), extra=[(bomb, bytes(bomb.size))])
    peak = peak_bytes(lambda: fails(lambda: load_dataset("stl10", tmp_path), "truncated or damaged"))
    assert peak < 30 * 2**20
    assert [path.name for path in tmp_path.iterdir()] == ["stl10_binary.tar.gz"]


def sparse_map(old: bool) -> tuple[tarfile.TarInfo, bytes]:
    """A member whose map of holes has 4 MB: tarfile makes 300,000 pairs of numbers of it before we see its name."""
    member = tarfile.TarInfo("x")
    if old:  # the header's last byte but 12 says that blocks of the map follow
        member.type = tarfile.GNUTYPE_SPARSE
        pair = b"%011o\0%011o\0" % (1, 1)
        return member, (pair * 21 + b"\1" + bytes(7)) * 8000
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    content = b"1000000\n" + b"1\n" * 2_000_000
    member.size = len(content)
    return member, content


@pytest.mark.parametrize("old", [True, False])
def test_a_map_of_a_sparse_file_that_would_fill_the_memory_is_refused(tmp_path, fake, old):
    member, content = sparse_map(old)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(content))
    raw = bytearray(buffer.getvalue())
    if old:
        raw[482] = 1  # extended
        raw[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(raw[:512]))[0]
        raw = raw[:512] + content
    (tmp_path / "stl10_binary.tar.gz").write_bytes(gzip.compress(bytes(raw)))
    peak = peak_bytes(lambda: fails(lambda: load_dataset("stl10", tmp_path), "truncated or damaged"))
    assert peak < 15 * 2**20


def test_a_text_file_that_would_fill_the_memory_is_refused(tmp_path, fake):
    write_stl10_folder(tmp_path, fake.files())
    with (tmp_path / "stl10_binary" / "class_names.txt").open("wb") as file:
        file.truncate(10 * 2**30)
    fails(lambda: load_dataset("stl10", tmp_path), "10,737,418,240 bytes, expected at most 1,048,576")


def test_what_a_killed_process_left_unpacked_is_removed_but_not_what_one_is_writing(tmp_path, fake):
    write_stl10_archive(tmp_path, fake.files())
    old, young = tmp_path / "stl10_binary.partial.old", tmp_path / "stl10_binary.partial.young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "train_X.bin").write_bytes(b"x")
    for path in (old / "train_X.bin", old):
        os.utime(path, (time.time() - 1000,) * 2)
    load_dataset("stl10", tmp_path)
    assert not old.exists()
    assert young.exists()


def test_an_interrupted_extraction_is_not_taken_for_a_complete_one(tmp_path, fake, monkeypatch):
    write_stl10_archive(tmp_path, fake.files())
    copy, calls = shutil.copyfileobj, []

    def interrupted(source, destination, length):
        calls.append(length)
        if len(calls) == 3:
            raise KeyboardInterrupt
        copy(source, destination, length)

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_binary(tmp_path)
    assert tree(tmp_path) == {"stl10_binary.tar.gz"}
    monkeypatch.undo()
    assert len(read_binary(tmp_path).train) == 40


def test_of_two_processes_that_unpack_at_once_the_first_wins(tmp_path, fake, monkeypatch):
    path = write_stl10_archive(tmp_path, fake.files())
    unpack = archive._unpack

    def overtaken(*args):
        unpack(*args)
        write_stl10_folder(tmp_path, fake.files())

    monkeypatch.setattr(archive, "_unpack", overtaken)
    assert archive.extract(path) == tmp_path / "stl10_binary"
    assert len(read_binary(tmp_path).train) == 40
    assert not list(tmp_path.glob("*partial*"))


def test_a_folder_in_the_way_is_one_line(tmp_path, fake):
    write_stl10_archive(tmp_path, fake.files())
    folder = write_stl10_folder(tmp_path, {"my_notes.txt": b"keep"})
    fails(lambda: read_binary(tmp_path), f"{folder}: in the way of the unpacked archive")
    assert (folder / "my_notes.txt").read_bytes() == b"keep"


def test_a_full_disk_is_one_line_before_and_during(tmp_path, fake, monkeypatch):
    write_stl10_archive(tmp_path, fake.files())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    fails(lambda: read_binary(tmp_path), f"{tmp_path}: 0.0 GB free")
    monkeypatch.undo()

    def full(*args):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    fails(lambda: read_binary(tmp_path), "unpacking stopped (No space left on device)")
    assert tree(tmp_path) == {"stl10_binary.tar.gz"}


def test_a_read_only_folder_is_one_line(tmp_path, fake, monkeypatch):
    path = write_stl10_archive(tmp_path, fake.files())

    def read_only(**kwargs):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(archive.tempfile, "mkdtemp", read_only)
    fails(
        lambda: read_binary(tmp_path),
        "cannot write there (Read-only file system)",
        f"tar xzf {path} -C FOLDER",
    )


# --- tensorflow-datasets --------------------------------------------------------------------------------


def prepare_tfds(archive_path: Path, data_dir: Path, monkeypatch) -> None:
    """Let tensorflow-datasets prepare the fake archive, under the fake's own checksum."""
    import tensorflow_datasets as tfds
    from etils import epath
    from tensorflow_datasets.core.download import checksums
    from tensorflow_datasets.datasets.stl10 import stl10_dataset_builder

    builder = tfds.builder("stl10", data_dir=str(data_dir))
    info = checksums.compute_url_info(epath.Path(archive_path))
    monkeypatch.setitem(builder.url_infos, stl10_dataset_builder.URL, info)
    manual = tfds.download.DownloadConfig(manual_dir=str(archive_path.parent), try_download_gcs=False)
    tfds.disable_progress_bar()
    builder.download_and_prepare(download_config=manual)


@pytest.fixture
def prepared(tmp_path, fake, monkeypatch):
    """A machine on which tensorflow-datasets has STL-10."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    prepare_tfds(write_stl10_archive(tmp_path / "archive", fake.files()), tmp_path / "tfds", monkeypatch)


def test_tfds_and_the_binary_files_give_the_same_splits_and_fingerprint(tmp_path, fake, prepared):
    binary = load_dataset("stl10", tmp_path / "archive", seed=3, samples_per_class=2, test_per_class=1)
    for data_dir in (None, tmp_path / "tfds"):
        shuffled = load_dataset("stl10", data_dir, seed=3, samples_per_class=2, test_per_class=1)
        assert shuffled.fingerprint == binary.fingerprint
        assert shuffled.class_names == CLASS_NAMES
        assert shuffled.order == binary.order == "content"
        for split in ("train", "validation", "test"):
            ours, theirs = getattr(binary, split), getattr(shuffled, split)
            np.testing.assert_array_equal(ours.images, theirs.images)
            np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert default_dataset()[0] == "stl10"
    halved = [
        load_dataset(name, data_dir, image_size=48).fingerprint
        for name, data_dir in (("stl10", tmp_path / "archive"), ("stl10", None), ("tfds:stl10", None))
    ]
    assert len(set(halved)) == 1
    named = load_dataset("tfds:stl10", seed=3, samples_per_class=2, test_per_class=1)
    assert named.fingerprint == binary.fingerprint


def test_the_default_is_stl10_where_it_is_and_digits_elsewhere(tmp_path, fake, no_tfds):
    name, reason = default_dataset()
    assert name == "digits"
    assert re.search("digits.*STL-10 is not on this machine.*main.py data prepare --dataset stl10", reason)
    write_stl10_archive(tmp_path, fake.files())
    name, reason = default_dataset(tmp_path)
    assert name == "stl10"
    assert str(tmp_path) in reason
    assert "--dataset digits" in reason
    (tmp_path / "empty").mkdir()
    assert default_dataset(tmp_path / "empty")[0] == "digits"
