"""Images that are kept decoded: read back as they were, after a kill, beside another process, and not if damaged."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from prl_keras.data import rows
from prl_keras.data.parallel import in_order
from prl_keras.data.rows import Rows, joined, opened
from prl_keras.data.splits import image_digests
from prl_keras.data.store import open_or_build
from prl_keras.errors import InputError

ROOT = Path(__file__).parents[1]
SHAPE, COUNT = (4, 5, 3), 23
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), np.uint8)
IMAGES[7] = 0  # no image is no image


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_SHARD_BYTES", 6 * 60)  # six images a file, five in the last of four


def reader(log: list[int] | None = None, fail: Callable[[int], None] = lambda row: None):
    def read(start: int, stop: int) -> Iterator[tuple[np.ndarray, int]]:
        for row in range(start, stop):
            fail(row)
            if log is not None:
                log.append(row)
            yield IMAGES[row], 100 - row

    return read


def build(folder: Path, read=None, **kwargs) -> Rows:
    return open_or_build("pets", SHAPE, COUNT, read or reader(), folder, **kwargs)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def stored(images: Rows) -> None:
    np.testing.assert_array_equal(images, IMAGES)
    assert images.labels.tolist() == [100 - row for row in range(COUNT)]


def test_what_is_built_is_read_once_and_opened_again(tmp_path: Path) -> None:
    log, done = [], []
    built = build(tmp_path / "deep" / "cache", reader(log), facts={"bits": 12}, progress=done.append)
    assert log == list(range(COUNT))
    assert (done[-1], sorted(set(done))) == (COUNT, list(range(1, COUNT + 1)))
    again = build(tmp_path / "deep" / "cache", reader(log))
    assert len(log) == COUNT
    for images in (built, again, opened("pets", tmp_path / "deep" / "cache")):
        stored(images)
        assert images.store.facts == {"bits": 12}
    assert names(tmp_path / "deep" / "cache") == {"pets"}
    assert len(names(tmp_path / "deep" / "cache" / "pets")) == 2 * 4 + 1
    assert opened("cats", tmp_path) is opened("pets", tmp_path / "none") is None


def test_rows_are_indexed_as_an_array_is(tmp_path: Path) -> None:
    images = build(tmp_path)
    assert (images.shape, images.ndim, images.dtype, len(images)) == (IMAGES.shape, 4, np.uint8, COUNT)
    mask = np.arange(COUNT) % 3 == 0
    order = np.array([22, 3, 3, 0, 11, 5, 6])
    for which in (
        0,
        -1,
        np.int64(8),
        slice(4, 15),
        slice(None, None, -2),
        slice(9, 9),
        order,
        mask,
        [2, -2],
        order[:0],
    ):
        found = images[which]
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, IMAGES[which])
    for outside in (COUNT, -COUNT - 1, np.array([0, COUNT])):
        with pytest.raises(IndexError):
            images[outside]
    taken = images.take(order).take(np.array([5, 1, 6]))
    np.testing.assert_array_equal(taken, IMAGES[order[[5, 1, 6]]])
    assert taken.labels.tolist() == [95, 97, 94]
    assert list(map(bytes, taken.digests)) == image_digests(IMAGES[[5, 3, 6]])
    assert [image.tolist() for image in taken] == IMAGES[[5, 3, 6]].tolist()
    both = joined(taken, images.take(slice(2)))
    assert isinstance(both, Rows)
    np.testing.assert_array_equal(both, IMAGES[[5, 3, 6, 0, 1]])
    np.testing.assert_array_equal(joined(taken, IMAGES[:2]), both)
    taken[0][:] = 1  # a copy: the files stay
    np.testing.assert_array_equal(taken[0], IMAGES[5])


def test_no_images_are_a_store_too(tmp_path: Path) -> None:
    empty = open_or_build("none", SHAPE, 0, reader(), tmp_path)
    assert np.asarray(empty).shape == (0, *SHAPE)
    assert opened("none", tmp_path).digests.shape == (0, 32)


# --- what stops a conversion ----------------------------------------------------------------------------


class Stop(BaseException):
    pass


def at(row: int, error: BaseException) -> Callable[[int], None]:
    def fail(now: int) -> None:
        if now == row:
            raise error

    return fail


@pytest.mark.parametrize(("row", "again_from"), [(0, 0), (5, 0), (6, 6), (20, 18)])
def test_a_stopped_conversion_goes_on_behind_its_whole_files(tmp_path: Path, row: int, again_from: int) -> None:
    with pytest.raises(Stop):
        build(tmp_path, reader(fail=at(row, Stop())))
    assert opened("pets", tmp_path) is None
    log = []
    stored(build(tmp_path, reader(log)))
    assert log == list(range(again_from, COUNT))
    assert names(tmp_path) == {"pets"}


def test_of_a_killed_conversion_only_files_that_are_whole_are_kept(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        build(tmp_path, reader(fail=at(19, Stop())))
    partial = tmp_path / "pets.partial"
    (partial / ".tmp-left.bin").write_bytes(b"half")
    flip(partial / "00000.bin", 3)
    (partial / "00001.rows").write_bytes(b"short")
    log = []
    stored(build(tmp_path, reader(log)))
    assert log == [*range(12), *range(18, COUNT)]
    assert not any(name.startswith(".tmp") for name in names(tmp_path / "pets"))


CHILD = """
import os, signal, sys
sys.path.insert(0, {root!r})
sys.path.insert(0, {tests!r})
from pathlib import Path
import test_store
test_store.rows._SHARD_BYTES = 6 * 60
def fail(row):
    if row == {row}:
        print("there", flush=True)
        {then}
test_store.build(Path({folder!r}), test_store.reader(fail=fail))
"""


def child(folder: Path, row: int, then: str) -> subprocess.Popen:
    tests = str(Path(__file__).parent)
    code = CHILD.format(root=str(ROOT), tests=tests, row=row, then=then, folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_sigkill_in_the_middle(tmp_path: Path) -> None:
    process = child(tmp_path, 14, "os.kill(os.getpid(), signal.SIGKILL)")
    assert process.wait(60) == -signal.SIGKILL
    process.communicate()
    assert "pets" not in names(tmp_path)
    log = []
    stored(build(tmp_path, reader(log)))  # its lock went with it
    assert log == list(range(12, COUNT))
    assert names(tmp_path) == {"pets"}


def test_of_two_processes_one_converts_and_the_other_waits(tmp_path: Path) -> None:
    process = child(tmp_path, 14, "sys.stdin.read()")
    assert process.stdout.readline().strip() == b"there"
    found = []
    log: list[int] = []
    other = threading.Thread(target=lambda: found.append(build(tmp_path, reader(log))))
    other.start()
    other.join(0.2)
    assert other.is_alive()
    process.communicate(b"")
    assert process.returncode == 0
    other.join(60)
    stored(found[0])
    assert log == []
    assert names(tmp_path) == {"pets"}


def test_a_bad_image_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.png"):
        build(tmp_path, reader(fail=at(20, InputError("x.png: not a readable image"))))
    assert names(tmp_path) == set()


def test_a_full_disk_is_one_line_and_the_conversion_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail = at(20, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(InputError) as caught:
        build(tmp_path, reader(fail=fail))
    assert "\n" not in str(caught.value)
    for word in (str(tmp_path), "No space left on device", "make room", "--cache-dir"):
        assert word in str(caught.value)
    assert names(tmp_path) == {"pets.partial"}
    assert len(names(tmp_path / "pets.partial")) == 6
    log = []
    stored(build(tmp_path, reader(log)))
    assert log == list(range(18, COUNT))

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 100))
    with pytest.raises(InputError, match=r"0\.0 GB free"):
        open_or_build("other", SHAPE, COUNT, reader(), tmp_path)
    assert names(tmp_path) == {"pets"}


@pytest.mark.skipif(os.name == "nt", reason="RLIMIT_FSIZE")
def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, most))
        with pytest.raises(InputError, match="make room"):
            build(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        signal.signal(signal.SIGXFSZ, before)
    assert names(tmp_path / "pets.partial") == set()
    stored(build(tmp_path))


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(InputError, match="cannot keep decoded images there"):
        build(tmp_path / "file" / "cache")


def test_a_source_that_gives_other_images_than_it_said_is_an_error(tmp_path: Path) -> None:
    for read in (
        lambda start, stop: [(IMAGES[0], 0)] * (stop - start - 1),
        lambda start, stop: [(IMAGES[0], 0)] * (stop - start + 1),
        lambda start, stop: [(IMAGES[0][:2], 0)] * (stop - start),
        lambda start, stop: [(IMAGES[0] / 255, 0)] * (stop - start),
    ):
        with pytest.raises(ValueError, match="expected"):
            build(tmp_path, read)


# --- damage ---------------------------------------------------------------------------------------------


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("place", [0, 60 * 2 + 17, 359])
def test_a_flipped_byte_is_found_when_its_image_is_first_read(tmp_path: Path, place: int) -> None:
    build(tmp_path)
    flip(tmp_path / "pets" / "00002.bin", place)
    images, bad = opened("pets", tmp_path), 12 + place // 60
    good = np.delete(np.arange(COUNT), bad)
    np.testing.assert_array_equal(images[good], IMAGES[good])
    for read in (lambda: images[bad], lambda: images[:], images.check):
        with pytest.raises(InputError) as caught:
            read()
        assert "00002.bin" in str(caught.value)
        assert "data cache --clear pets" in str(caught.value)


@pytest.mark.parametrize("damage", ["index.json", "00001.rows", "00001.bin"])
@pytest.mark.parametrize("how", ["gone", "short", "other"])
def test_a_store_that_is_not_whole_is_made_whole(tmp_path: Path, damage: str, how: str) -> None:
    build(tmp_path)
    file = tmp_path / "pets" / damage
    if how == "gone":
        file.unlink()
    elif how == "short":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "00001.bin":
        return  # found when it is read, see above
    else:
        flip(file, 5)
    assert (opened("pets", tmp_path) is None) or (damage, how) == ("index.json", "short")  # only its last newline
    log = []
    stored(build(tmp_path, reader(log)))
    assert set(log) <= set(range(6, 12))  # the rest is taken over
    assert names(tmp_path) == {"pets"}


def test_a_store_that_is_removed_while_it_is_read_is_one_line(tmp_path: Path) -> None:
    images = build(tmp_path)
    shutil.rmtree(tmp_path / "pets")
    with pytest.raises(InputError, match="repeat the command"):
        images[3]


# --- threads --------------------------------------------------------------------------------------------


def test_results_come_in_order_and_errors_in_their_place() -> None:
    assert list(in_order(lambda item: item * item, range(100), threads=3)) == [item * item for item in range(100)]
    assert list(in_order(str, [])) == []
    results = in_order(lambda item: at(50, InputError("50"))(item) or item, range(1000), threads=2)
    assert [next(results) for _ in range(50)] == list(range(50))
    with pytest.raises(InputError, match="50"):
        next(results)


def test_only_a_few_results_wait() -> None:
    taken, most = 0, 0
    begun = []
    for _ in in_order(begun.append, range(500), threads=2):
        taken += 1
        most = max(most, len(begun) - taken)
    assert taken == 500
    assert most <= 17


def test_a_file_that_was_cut_under_an_open_store_is_one_line(tmp_path: Path) -> None:
    images = build(tmp_path)
    stored(images)  # its checksums are not looked at again
    os.truncate(tmp_path / "pets" / "00001.bin", 5 * 60)
    np.testing.assert_array_equal(images[6:11], IMAGES[6:11])
    with pytest.raises(InputError, match=r"00001\.bin: not as it was stored"):
        images[11]
