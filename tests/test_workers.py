"""Real workers of a shared training on loopback: killed, hung, stopped, and continued."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from faults import ROOT, checkpoints, free_ports, program, wait_until, weights

pytestmark = pytest.mark.slow
WORDS = [
    *("pretrain", "--dataset", "digits", "--image-size", "16", "--width", "0.125", "--batch-size", "48"),
    *("--epochs", "5", "--checkpoint-steps", "4", "--name", "shared"),
]
PATIENCE = 900  # seconds


class Crew:
    """Workers 0, 1, ... of one training; `errors` are the lines on standard error of each that has ended."""

    def __init__(self, runs_dir: Path, count: int, more: Sequence[str] = ()):
        self.run = runs_dir / "shared"
        self.names = [f"worker {index} (127.0.0.1:{port})" for index, port in enumerate(free_ports(count))]
        cluster = {"worker": [name.split("(")[1][:-1] for name in self.names]}
        tasks = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(count)]
        self.processes = [
            subprocess.Popen(
                program([*WORDS, *more, "--strategy", "multiworker", "--runs-dir", str(runs_dir)]),
                cwd=ROOT,
                env=os.environ | {"TF_CONFIG": json.dumps(task)},
                encoding="utf-8",
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            for task in tasks
        ]

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    def wait_for_a_checkpoint(self) -> None:
        """One that was not there before."""
        before = checkpoints(self.run)
        wait_until(lambda: checkpoints(self.run) - before or self.ended(), PATIENCE)
        assert not self.ended(), self.errors(0)

    def ended(self) -> bool:
        return any(process.poll() is not None for process in self.processes)

    def errors(self, index: int) -> list[str]:
        return self.processes[index].communicate(timeout=PATIENCE)[1].splitlines()

    def codes(self) -> list[int]:
        for index in range(len(self.processes)):
            self.errors(index)
        return [process.returncode for process in self.processes]


def epochs(run: Path) -> list[dict]:
    log = run / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    return [{key: line[key] for key in line if key not in ("seconds", "images_per_second")} for line in lines]


def test_a_killed_worker_is_named_and_the_same_command_ends_with_the_same_bits(tmp_path: Path) -> None:
    with Crew(tmp_path / "whole", 2) as crew:
        assert crew.codes() == [0, 0]
    with Crew(tmp_path / "killed", 2) as crew:
        crew.wait_for_a_checkpoint()
        crew.processes[1].kill()
        (line,) = crew.errors(0)
        assert line.startswith(f"error: {crew.names[1]} ended without a word: start all workers again")
        assert crew.codes() == [1, -signal.SIGKILL]
        assert checkpoints(crew.run)
    with Crew(tmp_path / "killed", 2) as crew:
        assert crew.codes() == [0, 0]
    whole, killed = tmp_path / "whole" / "shared", tmp_path / "killed" / "shared"
    assert weights(killed / "encoder.keras") == weights(whole / "encoder.keras")
    assert epochs(killed) == epochs(whole)


def test_two_views_are_trained_by_workers_too(tmp_path: Path) -> None:
    with Crew(tmp_path, 2, ["--samples-per-class", "24", "--variant", "supcon"]) as crew:
        assert crew.codes() == [0, 0]
    assert len(epochs(crew.run)) == 5


@pytest.mark.parametrize("victim", [0, 1])
def test_a_hung_worker_is_named_and_ends_when_it_wakes(victim: int, tmp_path: Path) -> None:
    with Crew(tmp_path, 2) as crew:
        crew.wait_for_a_checkpoint()
        crew.processes[victim].send_signal(signal.SIGSTOP)
        (line,) = crew.errors(1 - victim)
        assert line.startswith(f"error: {crew.names[victim]} was not heard of for 20 s: start all workers again")
        crew.processes[victim].send_signal(signal.SIGCONT)
        (line,) = crew.errors(victim)
        assert line.startswith(f"error: the other workers ended, as this one, {crew.names[victim]}, was not heard of")
        assert crew.codes() == [1, 1]


def test_a_training_goes_on_with_another_number_of_workers(tmp_path: Path) -> None:
    """A few steps: after more, Adam's steps of a size of their own have parted the weights (docs/scaling.md)."""
    few = ["--samples-per-class", "24"]
    with Crew(tmp_path / "2", 2, few) as crew:
        crew.wait_for_a_checkpoint()
        crew.processes[1].send_signal(signal.SIGTERM)
        assert crew.codes() == [128 + signal.SIGTERM] * 2
        assert len(epochs(crew.run)) < 5
    begun = len(epochs(crew.run))
    for other in ("1", "3"):
        shutil.copytree(tmp_path / "2", tmp_path / other)
    for count in (2, 3):
        with Crew(tmp_path / str(count), count, few) as crew:
            assert crew.codes() == [0] * count
    words = [*WORDS, *few, "--strategy", "none", "--runs-dir", str(tmp_path / "1")]
    subprocess.run(program(words), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    expected = epochs(tmp_path / "2" / "shared")
    for other in ("1", "3"):
        found = epochs(tmp_path / other / "shared")
        assert len(found) == len(expected)
        assert found[:begun] == expected[:begun]
        assert np.isclose(found[begun]["loss"], expected[begun]["loss"], rtol=2e-3), (found, expected)
