"""Commands whose training several devices or processes share: stopped within an epoch and continued, they give the bits
of an undisturbed run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import ROOT, free_ports
from test_strategy import figures


def start(case: str, strategy: str, folder: Path, *parts: str, **environment: str) -> subprocess.Popen:
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.Popen(
        [sys.executable, "tests/commands_on_devices.py", case, strategy, str(folder), *parts],
        cwd=ROOT,
        env=quiet,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "epochs"), [("mlp", 1), *((case, 2) for case in ("baseline", "finetune", "frozen", "pretrain", "local"))]
)
def test_two_devices_continue_to_the_same_bits(case: str, epochs: int, tmp_path: Path) -> None:
    """Figures of each epoch too, accuracy on every training image among them."""
    answer = figures(start(case, "mirrored", tmp_path / "runs", PRL_KERAS_LOGICAL_DEVICES="2"))
    needed = ["pre"] if case in ("finetune", "frozen") else []
    assert answer == {
        "codes": [*(0 for _ in needed), 143, 0, 0],
        "same": True,
        "epochs": epochs,
        "runs": ["broken", *needed, "whole"],
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", ["baseline", "finetune", "pretrain"])
def test_two_processes_continue_to_the_same_bits(case: str, tmp_path: Path) -> None:
    """The signal comes to the second one only, and only the chief writes."""
    needed = ["pre"] if case == "finetune" else []
    for parts in (*((each,) for each in needed), ("stop",), ("broken",), ("whole", "compare")):
        workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
        tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in (0, 1)]
        processes = [
            start(case, "multiworker", tmp_path / "runs", *parts, TF_CONFIG=json.dumps(task)) for task in tasks
        ]
        chief, other = map(figures, processes)
        assert chief["codes"] == other["codes"] == [143 if parts == ("stop",) else 0], parts
    assert chief == {"codes": [0], "same": True, "epochs": 2, "runs": ["broken", *needed, "whole"]}
