"""Processes that share a folder: one of them works on a thing, and what a dead one had is taken over."""

import os
import threading
import time
from pathlib import Path

import pytest

from prl_keras.errors import InputError
from prl_keras.runs.leases import Lease, take


def never(lease: Lease) -> None:
    raise AssertionError(f"{lease.file} was lost")


def old(lease: Lease, seconds: float = 100) -> None:
    """As if its holder had died so long ago."""
    then = time.time() - seconds
    os.utime(lease.file, (then, then))


def test_one_has_it_and_the_next_gets_it_when_it_is_released(tmp_path):
    first = take(tmp_path, "cell")
    assert first.held
    assert take(tmp_path, "cell") is None
    assert take(tmp_path, "cell-2") is not None, "another name"
    first.release()
    assert take(tmp_path, "cell").held


def test_of_many_that_try_at_once_one_has_it(tmp_path):
    for round_ in range(20):
        found, barrier = [], threading.Barrier(8)

        def attempt(name: str = f"cell-{round_}", found: list = found, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            found.append(take(tmp_path, name))

        threads = [threading.Thread(target=attempt) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert sum(lease is not None for lease in found) == 1


def test_what_a_dead_process_had_is_taken_over_by_one(tmp_path):
    old(take(tmp_path, "cell"))
    found, barrier = [], threading.Barrier(8)

    def attempt() -> None:
        barrier.wait()
        found.append(take(tmp_path, "cell"))

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sum(lease is not None for lease in found) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cell.0002"]


def test_a_lease_that_is_kept_does_not_grow_old(tmp_path):
    lease = take(tmp_path, "cell", seconds=0.2)
    with lease.kept(never):
        end = time.monotonic() + 1
        while time.monotonic() < end:
            assert take(tmp_path, "cell", seconds=2) is None
    assert not list(tmp_path.iterdir())


def test_who_lost_it_is_told_and_leaves_the_other_alone(tmp_path):
    first, told = take(tmp_path, "cell", seconds=0.2), threading.Event()
    old(first)
    second = take(tmp_path, "cell")
    with first.kept(lambda _: told.set()):
        assert told.wait(10)
    assert not first.held
    assert second.file.exists()


def test_a_name_that_began_anew_is_not_taken_for_ones_own(tmp_path):
    """A process that slept while its lease was taken over, finished, and begun again under the same number."""
    first, told = take(tmp_path, "cell", seconds=0.2), threading.Event()
    old(first)
    take(tmp_path, "cell").release()
    third = take(tmp_path, "cell")
    assert third.file == first.file
    with first.kept(lambda _: told.set()):
        assert told.wait(10)
    assert third.file.exists()


def test_a_clock_that_is_wrong_takes_nothing_over(tmp_path, monkeypatch):
    take(tmp_path, "cell")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert take(tmp_path, "cell") is None


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot keep leases there"):
        take(tmp_path, "cell")


def test_a_file_in_the_way_is_one_line(tmp_path: Path):
    (tmp_path / "leases").write_text("mine")
    with pytest.raises(InputError, match="leases: a file, or a link to no folder, is in the way"):
        take(tmp_path / "leases", "cell")


def test_who_slept_between_the_look_and_the_file_has_nothing(tmp_path, monkeypatch):
    """Its file is older than one that somebody has, who keeps it."""
    (tmp_path / "cell.0002").write_text("process 7 on other", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr("prl_keras.runs.leases._last", lambda *_: None)
        assert take(tmp_path, "cell") is None
    assert [file.name for file in tmp_path.iterdir()] == ["cell.0002"]
