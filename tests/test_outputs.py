"""What predict and embed stand on, without TensorFlow: a list of files, decoding ahead, and work that is kept."""

import os
import shutil
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prl_keras.data import stream
from prl_keras.data.stream import all_picture_files, decoded, equal_batches
from prl_keras.errors import InputError
from prl_keras.outputs import work
from prl_keras.outputs.work import Answers, Work, check_targets, partial_folder
from prl_keras.screen.progress import with_progress

# Work that is kept ----------------------------------------------------------------------------------------

IDENTITY = {"run": "r", "files": "3"}


def make(folder: Path) -> None:
    """Two batches and an output of two files."""
    work = Work((folder / "out.csv", folder / "out.csv.meta.json"), IDENTITY)

    def write(drafts: tuple[Path, ...]) -> None:
        for i, draft in enumerate(drafts):
            draft.write_text(f"{i} {[work.answers(n).outputs.tolist() for n in range(2)]}", encoding="utf-8")

    check_targets(work.targets)
    with work.opened():
        for number in range(2):
            if not work.is_done(number):
                work.keep(number, Answers(np.full((2, 3), number, np.float32), {1: "bad"}, 4))
        work.publish(write)


def killed(folder: Path, step: int) -> bool:
    """`make` in a process that is gone right before a step on the disk; False if there are not so many."""
    folder.mkdir()
    if (child := os.fork()) == 0:
        left = iter(range(step))

        def before(event: str, arguments: tuple) -> None:
            on_disk = event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
            if on_disk and str(folder) in str(arguments[0]) and next(left, None) is None:
                os._exit(9)

        try:
            sys.addaudithook(before)
            make(folder)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_work_survives_a_kill_before_any_step_on_disk(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    make(tmp_path / "whole")
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert set(expected) == {"out.csv", "out.csv.meta.json"}
    step, refused = 0, []
    while killed(folder := tmp_path / str(step), step):
        with suppress(InputError):
            refused.append(step)
            make(folder)
            refused.pop()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected, step
        step += 1
    assert step >= 30
    assert refused == list(range(refused[0], step)), "as soon as the output is in its place"
    assert len(refused) < step / 2


def test_work_of_another_kind_or_a_damaged_batch_is_one_line(tmp_path: Path) -> None:
    work = Work((tmp_path / "out.csv",), IDENTITY)
    with work.opened():
        work.keep(0, Answers(np.zeros((2, 3), np.float32), {}))
    folder = partial_folder(tmp_path / "out.csv")
    assert list(folder.glob("*.npz"))
    other = Work((tmp_path / "out.csv",), IDENTITY | {"files": "4"})
    with pytest.raises(InputError, match=r"files = '3', not '4'.*--out"), other.opened():
        pass
    part = next(folder.glob("*.npz"))
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"\.npz is damaged"):
        make(tmp_path)
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="move it away"):
        make(tmp_path)
    assert (folder / "mine.txt").exists()


def test_two_processes_do_not_make_the_same_output(tmp_path: Path) -> None:
    work = Work((tmp_path / "out.csv",), IDENTITY)
    with (
        work.opened(),
        pytest.raises(InputError, match=r"unfinished output 'out.csv.partial' is being written by process"),
        work.opened(),
    ):
        pass
    assert not list(tmp_path.iterdir()), "nothing was finished, nothing is left"


def test_who_begins_at_the_same_moment_takes_nothing_for_its_own(tmp_path: Path, monkeypatch) -> None:
    """A looks, B begins and works, then A writes its record."""
    a, b = (Work((tmp_path / "out.csv",), IDENTITY | {"run": name}) for name in "ab")
    begin = work._begin

    def slowly(record: Path, content: dict) -> None:
        monkeypatch.setattr(work, "_begin", begin)
        with b.opened():
            b.keep(0, Answers(np.zeros((2, 3), np.float32), {}))
        begin(record, content)

    monkeypatch.setattr(work, "_begin", slowly)
    with pytest.raises(InputError, match="run = 'b', not 'a'"), a.opened():
        pass
    with b.opened():
        assert b.is_done(0)


def test_what_was_not_published_is_written_as_it_is_asked_for_now(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    made = Work((target, tmp_path / "out.meta"), IDENTITY)

    def write(text: str):
        return lambda files: [file.write_text(text, encoding="utf-8") for file in files]

    with made.opened():
        made.keep(0, Answers(np.zeros((2, 3), np.float32), {}))
        target.write_text("mine", encoding="utf-8")
        with pytest.raises(InputError, match="is there already"):
            made.publish(write("top 1"))
    assert not (tmp_path / "out.meta").exists()
    target.unlink()
    with made.opened():
        made.publish(write("top 3"))
    assert target.read_text("utf-8") == (tmp_path / "out.meta").read_text("utf-8") == "top 3"


# Files, listed and decoded --------------------------------------------------------------------------------


def test_numbers_count_and_each_file_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/10.png", "a/9.png", "a/009.png", "a/b2/1.png", "a/b10/1.png", "B.png", "a/²3.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")
    expected = ["B.png", "a/009.png", "a/9.png", "a/10.png", "a/b2/1.png", "a/b10/1.png", "a/²3.png"]
    assert all_picture_files([Path("B.png"), Path("a"), Path("a/9.png"), Path("a/")]) == expected
    assert all_picture_files([Path()])[0] == "B.png", "as it would be typed"


@given(st.integers(1, 2000), st.integers(1, 300))
def test_equal_batches_cover_all_files_once_and_waste_less_than_one_each(count: int, most: int) -> None:
    batches = equal_batches(count, most)
    assert [i for rows in batches for i in rows] == list(range(count))
    sizes = {len(rows) for rows in batches}
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


def test_decoding_runs_a_few_batches_ahead_and_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(
        stream, "decode", lambda file, size: read.append(file) or np.full((*size, 3), int(file.name), np.uint8)
    )
    files = [str(i) for i in range(100)]
    batches = decoded(files, equal_batches(100, 10), {"size": (8, 8)})
    for number, (rows, images, errors) in enumerate(batches):
        assert list(rows) == images[:, 0, 0, 0].tolist()
        assert errors == {}
        assert len(read) <= 10 * (number + 3), "constant memory"
    first = next(batches := decoded(files, equal_batches(100, 10), {"size": (8, 8)}))
    assert len(first[0]) == 10
    batches.close()
    assert len(read) < 100 + 40, "who stops early waits for nothing"


def test_threads_leave_the_warnings_of_the_process_as_they_were(tmp_path: Path) -> None:
    """Each picture is opened under filters of its own, which belong to the process."""
    files = []
    for i in range(200):
        files.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(files[-1])
    before = list(warnings.filters)
    for _ in range(5):
        assert sum(len(rows) for rows, *_ in decoded(files, equal_batches(200, 20), {"size": (8, 8)})) == 200
        assert warnings.filters == before


def test_a_bar_counts_what_each_result_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    monkeypatch.setattr("prl_keras.screen.progress._PATIENCE", -1)
    monkeypatch.setattr("prl_keras.screen.progress._bar", lambda *_: lambda completed: done.append(completed))
    assert list(with_progress(["abc", "de"], 5, "Letters", len)) == ["abc", "de"]
    assert done == [3, 5]
