"""Whatever stops a run, the same command ends it with the same bits: real processes, signals and full disks.

With FAULTS_REPORT=docs/results/faults.json in the environment, what was tried and what happened is kept there.
"""

import json
import os
import resource
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults import (
    PHASES,
    ROOT,
    checkpoints,
    draw_delay,
    half_written,
    kill_after,
    moments,
    program,
    run_program,
    wait_until,
    weights,
)

from prl_keras.cli import main
from prl_keras.runs import Run

pytestmark = pytest.mark.slow

EPOCHS = 3
DATA = ["--dataset", "digits", "--samples-per-class", "12", "--test-per-class", "5", "--image-size", "16"]
TINY = [*DATA, "--batch-size", "40"]
KILLS_A_PHASE = 6  # times five phases
KILLS_A_RUN = 10
FINETUNE = ["finetune", "--encoder", "source", "--head", "mlp", "--dropout", "0.2", "--batch-size", "40"]
KINDS = {
    "query": ["pretrain", *TINY, "--variant", "query", "--augment", "light", "--epochs", "10"],
    "loo": ["pretrain", *TINY, "--variant", "loo", "--epochs", "10"],
    "standard": ["pretrain", *TINY, "--variant", "standard", "--epochs", "10"],
    "simclr": ["pretrain", *TINY, "--variant", "simclr", "--epochs", "10"],
    "supcon": ["pretrain", *TINY, "--variant", "supcon", "--epochs", "10"],
    "baseline": ["baseline", "--model", "resnet18", *TINY, "--epochs", "10"],
    "frozen": [*FINETUNE, "--epochs", "60"],
    "unfrozen": [*FINETUNE, "--epochs", "10", "--no-freeze"],
}


@pytest.fixture(scope="module")
def report() -> Iterator[dict[str, Any]]:
    content: dict[str, Any] = {}
    yield content
    if target := os.environ.get("FAULTS_REPORT"):
        Path(target).write_text(json.dumps(dict(sorted(content.items())), indent=2) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the runs `source` and `reference`, equal and never stopped."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("reference", "source"):
        run_program(pretrain(folder, name))
    assert weights(folder / "source" / "encoder.keras") == weights(folder / "reference" / "encoder.keras")
    return folder


def pretrain(runs_dir: Path, name: str, *more: str) -> list[str]:
    return ["pretrain", *TINY, "--epochs", str(EPOCHS), "--runs-dir", str(runs_dir), "--name", name, *more]


def check_ended_like(reference: Path, run: Path) -> None:
    """The same bits, the same metrics but for the time, and nothing left over."""
    for file in ("encoder.keras", "classifier.keras"):
        if (reference / file).exists():
            assert weights(run / file) == weights(reference / file), f"{run.name}: other weights"
    timing = ("seconds", "images_per_second")
    lines = [[{k: v for k, v in line.items() if k not in timing} for line in Run(r).metrics] for r in (reference, run)]
    assert lines[0] == lines[1], f"{run.name}: other metrics"
    assert not list(run.rglob(".tmp-*"))
    assert not (run / "checkpoint").exists()


def killed_once(runs_dir: Path, phase: str, number: int) -> tuple[float | None, bool, bool]:
    """Kill a new run in this phase, continue it.

    Returns how long after the phase began it was killed, None if it ended before; whether there was a state to
    continue from; whether one was left half-written.
    """
    name = f"killed-{phase.split()[0]}-{number}"
    words = pretrain(runs_dir, name, "--checkpoint-steps", "2")
    began, longest = moments(runs_dir / name, EPOCHS)[phase]
    delay: float | None = draw_delay(1000 * number + len(phase), longest)
    if not kill_after(words, began, delay):
        assert phase == "saving", f"{name} ended before it could be killed"
        delay = None  # what follows must hold all the same
    run = Run(runs_dir / name)
    kept, half = bool(checkpoints(run.path)), half_written(run.path)
    finished = (run.path / "result.json").exists()
    if run.path.exists():
        assert run.config["command"] == "pretrain"
        assert all(line["epoch"] for line in run.metrics)
    run_program(["runs", "--runs-dir", str(runs_dir)])
    output = run_program(words, 2 if finished else 0).stdout
    if not finished:
        assert (f"Continuing {name} after" in output) == kept
        check_ended_like(runs_dir / "reference", run.path)
    assert weights(run.encoder_file) == weights(runs_dir / "reference" / "encoder.keras")
    return None if delay is None else round(delay, 3), kept, half


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_killed_at_random_moments_of_its_life_ends_with_the_bits_of_one_never_stopped(
    runs_dir: Path, report: dict[str, Any], phase: str
) -> None:
    with ThreadPoolExecutor(2) as pool:
        lives = list(pool.map(lambda number: killed_once(runs_dir, phase, number), range(KILLS_A_PHASE)))
    killed = sorted(delay for delay, _, _ in lives if delay is not None)
    assert killed
    half = sum(half for _, _, half in lives)
    assert half or phase != "checkpoint writing"
    report.setdefault("killed_once", {})[phase] = {
        "kills": len(killed),
        "ended_before": len(lives) - len(killed),
        "continued_from_a_state": sum(kept for _, kept, _ in lives),
        "left_a_state_half_written": half,
        "same_bits": len(lives),
        "seconds_after_the_phase_began": killed,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_ten_times_ends_with_the_bits_of_one_never_stopped(
    runs_dir: Path, report: dict[str, Any], kind: str
) -> None:
    """Each life gets at least one step further, as a state is kept after every step."""
    words = [*KINDS[kind], "--runs-dir", str(runs_dir), "--name"]
    run_program([*words, f"{kind}-reference"])
    run, words = runs_dir / f"ten-{kind}", [*words, f"ten-{kind}", "--checkpoint-steps", "1"]
    progress = []
    for number in range(KILLS_A_RUN):
        before = checkpoints(run)
        moved = lambda before=before: bool(checkpoints(run) - before)  # noqa: E731
        assert kill_after(words, moved, draw_delay(number, 0.3)), f"it ended before kill {number + 1}"
        progress.append(max(checkpoints(run)).removesuffix(".npz"))
    assert progress == sorted(set(progress)), "a life that got no further"
    assert f"Continuing ten-{kind} after" in run_program(words).stdout
    check_ended_like(runs_dir / f"{kind}-reference", run)
    report.setdefault("killed_ten_times", {})[kind] = {"last_state_at_each_kill": progress, "same_bits": True}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_in_one_line_whose_command_continues(
    runs_dir: Path, report: dict[str, Any], number: int, code: int
) -> None:
    name = f"stopped-{code}"
    arguments = pretrain(runs_dir, name)
    process = subprocess.Popen(program(arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until(lambda: bool(checkpoints(runs_dir / name)))
    asked = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    seconds = time.monotonic() - asked
    assert process.returncode == code
    (line,) = error.decode().strip().splitlines()
    run_program(shlex.split(line.split("python main.py ")[1]))
    check_ended_like(runs_dir / "reference", runs_dir / name)
    report.setdefault("stopped_by_signal", {})[signal.Signals(number).name] = {
        "exit_code": code,
        "seconds_until_it_ended": round(seconds, 2),
        "same_bits": True,
    }


@contextmanager
def tmpfs(folder: Path, megabytes: int) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# The state of the training takes 180 MB, the encoder 45 MB, config.json 1 kB.
@pytest.mark.parametrize("megabytes", [0.001, 0.01, 20, 100])
def test_a_file_that_cannot_grow_is_one_line_and_the_run_goes_on_later(
    runs_dir: Path, report: dict[str, Any], megabytes: float
) -> None:
    words = pretrain(runs_dir, f"limited-{megabytes}")
    size = int(megabytes * 2**20)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: E731
    error = run_program(words, 2, preexec_fn=limit).stderr
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "File too large" in line
    assert str(runs_dir) in line, "names the file"
    run_program(words)
    check_ended_like(runs_dir / "reference", runs_dir / f"limited-{megabytes}")
    report.setdefault("file_size_limited", {})[f"{megabytes} MB"] = line.replace(str(runs_dir), "RUNS")


def test_a_model_that_cannot_be_saved_is_one_line_and_its_training_is_not_lost(
    runs_dir: Path, report: dict[str, Any]
) -> None:
    """The states of a linear head are small, its classifier with the encoder in it is not."""
    words = ["finetune", "--encoder", "source", "--epochs", "3", "--runs-dir", str(runs_dir), "--name"]
    run_program([*words, "head"])
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))  # noqa: E731
    error = run_program([*words, "head-limited"], 2, preexec_fn=limit).stderr
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "classifier.keras: File too large" in line
    assert "Continuing head-limited after epoch 3 of 3" in run_program([*words, "head-limited"]).stdout
    check_ended_like(runs_dir / "head", runs_dir / "head-limited")
    report.setdefault("file_size_limited", {})["1 MB, saving"] = line.replace(str(runs_dir), "RUNS")


@pytest.mark.parametrize("megabytes", [1, 200, 400])
def test_a_full_disk_is_one_line_and_the_run_goes_on_with_more_room(
    runs_dir: Path, tmp_path: Path, report: dict[str, Any], megabytes: int
) -> None:
    """200 MB hold one state of the training, 400 MB two but not the third that is written before one is removed."""
    disk = tmp_path / "disk"
    with tmpfs(disk, megabytes):
        words = pretrain(disk, "full")
        error = run_program(words, 2).stderr
        (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
        assert "No space left" in line
        assert str(disk) in line, "names the file"
        subprocess.run(["mount", "-o", "remount,size=2g", str(disk)], check=True)
        run_program(words)
        check_ended_like(runs_dir / "reference", disk / "full")
    report.setdefault("disk_full", {})[f"{megabytes} MB"] = line.replace(str(disk), "RUNS")


def test_a_disk_that_became_read_only_is_one_line_and_keeps_the_run(
    runs_dir: Path, tmp_path: Path, report: dict[str, Any]
) -> None:
    disk = tmp_path / "disk"
    with tmpfs(disk, 2000):
        words = pretrain(disk, "closed")
        assert kill_after(words, lambda: bool(checkpoints(disk / "closed")), 0)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        error = run_program(words, 2).stderr
        (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
        assert "Read-only file system" in line
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert "Continuing closed after" in run_program(words).stdout
        check_ended_like(runs_dir / "reference", disk / "closed")
    report["read_only_disk"] = line.replace(str(disk), "RUNS")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, report: dict[str, Any]) -> None:
    """Nobody writes into /proc, not even root."""
    folder = Path("/proc/1/runs") if os.geteuid() == 0 else tmp_path / "closed" / "runs"
    (tmp_path / "closed").mkdir(mode=0o555)
    error = run_program(pretrain(folder, "closed"), 2).stderr
    assert error.startswith("error: cannot create run")
    assert error.count("\n") == 1
    report["read_only_folder"] = error.strip().replace(str(folder), "RUNS")


def test_the_second_process_on_a_run_says_so_and_leaves_it_alone(runs_dir: Path, report: dict[str, Any]) -> None:
    words = pretrain(runs_dir, "shared")
    first = subprocess.Popen(program(words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: (runs_dir / "shared" / ".owner").exists())
    first.send_signal(signal.SIGSTOP)  # so that it is at work, however long the second takes to start
    error = run_program(words, 2).stderr
    first.send_signal(signal.SIGCONT)
    assert first.wait(timeout=120) == 0
    assert error.count("\n") == 1
    assert str(first.pid) in error
    assert "shared" in error
    check_ended_like(runs_dir / "reference", runs_dir / "shared")
    report["two_processes"] = error.strip().replace(str(first.pid), "PID").split(": wait")[0].split(" on ")[0]


def test_a_clock_that_goes_backwards_changes_nothing(
    runs_dir: Path, tmp_path: Path, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour back at every look, in the middle of a baseline; measured seconds stay above 0."""
    words = ["baseline", "--model", "mlp", *TINY, "--epochs", "3", "--runs-dir", str(tmp_path), "--name"]
    assert main([*words, "usual"]) == 0
    now, looks = time.time(), iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: now - 3600.0 * next(looks))
    assert main([*words, "backwards"]) == 0
    assert next(looks) > 0
    monkeypatch.undo()
    check_ended_like(tmp_path / "usual", tmp_path / "backwards")
    assert all(line["seconds"] > 0 for line in Run(tmp_path / "backwards").metrics)
    report["clock_backwards"] = {"same_bits": True}
