"""k replicas with batch B/k are one with batch B."""

import json
import os
import subprocess
import sys

import pytest
from faults import ROOT


def figures(case: str) -> dict:
    """What tests/replicas.py prints."""
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "tests/replicas.py", case], cwd=ROOT, capture_output=True, text=True, timeout=600, env=quiet
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(("case", "count"), [("quick", 3), pytest.param("all", 24, marks=pytest.mark.slow)])
def test_loss_and_gradients_do_not_depend_on_the_number_of_replicas(case: str, count: int) -> None:
    """Five losses, 2 and 4 replicas, with and without batch normalisation, and its moving statistics."""
    differences = figures(case)
    assert len(differences) == count
    assert {name: pair for name, pair in differences.items() if max(pair) > 1e-5} == {}
