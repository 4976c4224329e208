"""k replicas with batch B/k are one with batch B."""

import json
import os
import subprocess
import sys

import pytest
from faults import ROOT, free_ports

STEPS, RATE = 20, 1e-3  # as in tests/replicas.py


def start(case: str, **environment: str) -> subprocess.Popen:
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.Popen(
        [sys.executable, "tests/replicas.py", case],
        cwd=ROOT,
        env=quiet,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def figures(process: subprocess.Popen) -> dict:
    """What tests/replicas.py prints."""
    try:
        answer, errors = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-3000:]
    return json.loads(answer.splitlines()[-1])


@pytest.mark.parametrize(("case", "count"), [("quick", 15), pytest.param("all", 29, marks=pytest.mark.slow)])
def test_loss_and_gradients_do_not_depend_on_the_number_of_replicas(case: str, count: int) -> None:
    """Six losses, 2 and 4 replicas, with and without batch normalisation, and its moving statistics; and statistics of
    each replica's own rows, against NumPy."""
    differences = figures(start(case))
    assert len(differences) == count
    assert {name: pair for name, pair in differences.items() if max(pair) > 1e-5} == {}


@pytest.mark.slow
def test_a_classifier_does_not_depend_on_the_number_of_replicas() -> None:
    """Loss and weights after two epochs, accuracy to the last image; last batches that no number divides."""
    differences = figures(start("classifiers"))
    assert len(differences) == 4
    assert {name: pair for name, pair in differences.items() if max(pair) > 1e-5} == {}


def two_processes(case: str) -> list[dict]:
    """What each of two workers on loopback prints."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in (0, 1)]
    return list(map(figures, [start(case, TF_CONFIG=json.dumps(task)) for task in tasks]))


def test_two_processes_are_one() -> None:
    for differences in two_processes("workers"):
        assert len(differences) == 14
        assert {name: pair for name, pair in differences.items() if max(pair) > 1e-5} == {}


@pytest.mark.slow
def test_twenty_steps_of_two_processes_end_at_the_same_weights() -> None:
    for differences in two_processes("worker steps"):
        assert differences["SGD"] < 1e-5


@pytest.mark.slow
def test_twenty_steps_end_at_the_same_weights() -> None:
    """Adam's steps have a size of their own where the gradient is nothing but rounding (docs/scaling.md)."""
    differences = figures(start("steps"))
    assert differences["SGD"] < 1e-5
    assert differences["Adam, epsilon 1e-3"] < 1e-5
    assert differences["Adam"] < 2 * 1.16 * RATE * STEPS
