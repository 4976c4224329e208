"""Runs of a table side by side: real processes, real signals; the slow ones train a real table."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from faults import wait_until

from prl_keras.cli import main
from prl_keras.config import Finetune, Pretrain
from prl_keras.errors import InputError
from prl_keras.experiments import jobs
from prl_keras.experiments.cells import Cell
from prl_keras.files import atomic_path
from prl_keras.runs.interruption import Stopped

HERE = Path(__file__).parent


def cells_in(folder: Path, encoders: int = 2) -> list[Cell]:
    """Of each encoder a pre-training, a head and a curve, those that need another first."""
    made = []
    for number in range(encoders):
        encoder = Cell(f"e{number}", Pretrain(name=f"e{number}", runs_dir=folder))
        head = Cell(f"h{number}", Finetune(name=f"h{number}", encoder=f"e{number}", runs_dir=folder))
        made += [head, replace(encoder, labels=True), encoder]
    return made


# What the processes do. They find these functions by name.


def note(cell: Cell) -> None:
    """Leave when it was begun and ended, and in which process; the encoders wait for each other."""
    begun, folder = time.monotonic(), cell.options.runs_dir
    (folder / f"{cell.description}.begun").touch()
    if cell.description in ("e0", "e1"):
        wait_until(lambda: all((folder / f"{name}.begun").exists() for name in ("e0", "e1")), 30)
    (folder / f"{cell.description}.json").write_text(json.dumps([begun, time.monotonic(), os.getpid()]))
    print(f"printed by {cell.description}")
    os.write(2, b"native\n")


def fail(cell: Cell) -> None:
    if cell.name == "e0":
        wait_until(lambda: (cell.options.runs_dir / "e1.at-work").exists(), 30)
        raise InputError("the loss is not finite")
    save_when_stopped(cell)


def fail_at_once(cell: Cell) -> None:
    if cell.name == "e0":
        raise InputError("the loss is not finite")
    time.sleep(60)
    (cell.options.runs_dir / f"{cell.name}.slept").touch()


def fail_in_words_that_cannot_be_sent(cell: Cell) -> None:
    class PrivateError(Exception):
        pass

    raise PrivateError("of this process")


def save_when_stopped(cell: Cell) -> None:
    folder = cell.options.runs_dir
    try:
        with atomic_path(folder / f"{cell.name}.at-work") as draft:
            draft.write_text(str(os.getpid()), encoding="utf-8")
        time.sleep(60)
    except Stopped:
        (folder / f"{cell.name}.saved").touch()
        raise


def be_stubborn(cell: Cell) -> None:
    try:
        save_when_stopped(cell)
    except Stopped:
        time.sleep(60)


def die(cell: Cell) -> None:
    if cell.name == "e0":
        wait_until(lambda: (cell.options.runs_dir / "e1.at-work").exists(), 30)
        os.kill(os.getpid(), signal.SIGKILL)
    save_when_stopped(cell)


def run(folder: Path, cells: list[Cell], work: Callable[[Cell], None], count: int = 2) -> tuple[list[str], list[str]]:
    begun, ended = [], []
    logs = [folder / f"log-{number}" for number in range(count)]
    jobs.run_all(cells, work, logs, lambda c: begun.append(c.description), lambda c: ended.append(c.description))
    return begun, ended


def test_all_is_done_two_at_a_time_and_what_needs_another_run_after_it(tmp_path: Path) -> None:
    cells = cells_in(tmp_path)
    begun, ended = run(tmp_path, cells, note)
    assert sorted(begun) == sorted(ended) == sorted(cell.description for cell in cells)
    assert begun[:2] == ["e0", "e1"], "what others need"
    times = {cell.description: json.loads((tmp_path / f"{cell.description}.json").read_text()) for cell in cells}
    for number in range(2):
        for name in (f"h{number}", f"e{number}: label efficiency"):
            assert times[name][0] > times[f"e{number}"][1]
    processes = {process for *_, process in times.values()}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert times["e0"][0] < times["e1"][1], "at the same time"
    assert times["e1"][0] < times["e0"][1]
    printed = "".join((tmp_path / f"log-{number}").read_text() for number in range(2))
    assert printed.count("native\n") == len(cells)
    assert all(f"printed by {cell.description}\n" in printed for cell in cells)


def test_what_one_refuses_stops_the_others_when_they_have_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the loss is not finite"):
        run(tmp_path, cells_in(tmp_path), fail)
    assert (tmp_path / "e1.saved").exists()


def test_one_that_fails_at_once_waits_for_nobody(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the loss is not finite"):
        run(tmp_path, cells_in(tmp_path), fail_at_once)
    assert not (tmp_path / "e1.slept").exists(), "it was stopped in its minute, or had not begun"


def test_an_error_that_cannot_be_sent_is_sent_as_text(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)fail_in_words_that_cannot_be_sent.*PrivateError: of this process"):
        run(tmp_path, cells_in(tmp_path, 1), fail_in_words_that_cannot_be_sent)


def test_a_process_that_the_system_ends_is_one_line_and_the_others_save(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ended the process of e0, .* repeat the command with --jobs 1"):
        run(tmp_path, cells_in(tmp_path), die)
    assert (tmp_path / "e1.saved").exists()


def test_a_command_hands_its_runs_to_as_many_processes_as_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from test_experiments import TINY

    seen: list[tuple] = []

    def record(cells: list[Cell], work: Callable[[Cell], None], logs: list[Path], *told: Callable) -> None:
        seen.append((cells, work, logs))
        for cell in cells[:2]:
            told[0](cell)
        raise InputError("seen")

    monkeypatch.setattr(jobs, "run_all", record)
    words = ["reproduce", *TINY, "--rows", "pca", "mlp", "--seeds", "2", "--runs-dir", str(tmp_path)]
    for count in (3, 9):
        assert main([*words, "--jobs", str(count)]) == 2
        assert "error: seen" in capsys.readouterr().err
        cells, work, logs = seen.pop()
        assert [cell.name for cell in pickle.loads(pickle.dumps(cells))] == ["mlp-s0", "pca-s0", "mlp-s1", "pca-s1"]
        assert pickle.loads(pickle.dumps(work)) is work
        assert [log.name for log in logs] == [f"reproduce{end}.log" for end in ("", "-2", "-3", "-4")][: min(count, 4)]


PARENT = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import test_jobs

from prl_keras.runs.interruption import Stopped, terminating

if __name__ == "__main__":
    folder = Path(sys.argv[2])
    try:
        with terminating():
            test_jobs.run(folder, test_jobs.cells_in(folder), getattr(test_jobs, sys.argv[3]))
    except KeyboardInterrupt:
        sys.exit(130)
    except Stopped as stop:
        sys.exit(128 + stop.signal)
"""


def parent_at_work(folder: Path, work: Callable[[Cell], None] = save_when_stopped) -> subprocess.Popen:
    (folder / "parent.py").write_text(PARENT, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(folder / "parent.py"), str(HERE), str(folder), work.__name__],
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
    )
    wait_until(lambda: all((folder / f"e{number}.at-work").exists() for number in range(2)), 30)
    return process


def all_saved(folder: Path) -> bool:
    return all((folder / f"e{number}.saved").exists() for number in range(2))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_to_the_parent_lets_all_save(tmp_path: Path, number: int) -> None:
    process = parent_at_work(tmp_path)
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert all_saved(tmp_path)


@pytest.mark.slow
def test_a_second_ctrl_c_waits_for_nobody(tmp_path: Path) -> None:
    process = parent_at_work(tmp_path, be_stubborn)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: all_saved(tmp_path), 30)
    assert process.poll() is None, "they are still at it"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_processes_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    process = parent_at_work(tmp_path)
    workers = [int((tmp_path / f"e{number}.at-work").read_text(encoding="utf-8")) for number in range(2)]
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 5)


@pytest.mark.parametrize(
    ("cores", "memory", "expected"),
    [(1, 64e9, 1), (2, 64e9, 2), (3, 64e9, 2), (8, 64e9, 4), (64, 64e9, 8), (8, 9e9, 2), (8, 1e9, 1), (4, None, 2)],
)
def test_how_many_pay_off(cores: int, memory: float | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MOST", 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(jobs, "_free_memory", lambda: float("inf") if memory is None else memory)
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter(()))
    assert jobs.automatic() == expected
    for gpu in ("nvidia[0-9]*", "dxg"):
        monkeypatch.setattr(Path, "glob", lambda path, pattern, gpu=gpu: iter([path] if pattern == gpu else []))
        assert jobs.automatic() == 1


@pytest.mark.parametrize("count", ["0", "-1"])
def test_less_than_one_is_refused(count: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["reproduce", "--dataset", "digits", "--jobs", count, "--runs-dir", str(tmp_path)]) == 2
    assert f"--jobs is {count}; expected at least 1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_table_has_the_same_bits_for_any_number_of_jobs_also_when_it_was_stopped(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    from test_experiments import TINY, figures_of

    words = [sys.executable, "main.py", "reproduce", *TINY, "--epochs", "2", "--seeds", "1"]
    words += ["--rows", "query-frozen-linear", "mlp"]
    one = subprocess.run([*words, "--runs-dir", str(tmp_path / "one"), "--jobs", "1"], cwd=HERE.parent, check=False)
    assert one.returncode == 0
    command = [*words, "--runs-dir", str(tmp_path / "two"), "--jobs", "2"]
    process = subprocess.Popen(command, cwd=HERE.parent)
    table = tmp_path / "two" / "table-digits"
    wait_until(lambda: any(table.glob("*/metrics.jsonl")), 120)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not any(path.name.startswith(".") and path.name != ".lock" for path in table.glob("*/*"))
    capfd.readouterr()
    assert subprocess.run(command, cwd=HERE.parent, check=False).returncode == 0
    shown, complaints = capfd.readouterr()
    assert "4 of 4: " in shown
    assert not complaints.strip()
    assert figures_of(tmp_path / "one" / "table-digits") == figures_of(table)
    assert {path.name for path in table.glob("reproduce*.log")} == {"reproduce.log", "reproduce-2.log"}
