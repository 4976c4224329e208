"""The plan on paper of docs/scaling.md is what benchmarks/plan.py computes; its formulas are right where they can be
counted by hand."""

import sys

import pytest
from faults import ROOT

sys.path.insert(0, str(ROOT))
from benchmarks.plan import MACHINES, Network, contrastive, efficiency, memory, report, resnet, seconds, stops
from benchmarks.scaling import settings, summary
from benchmarks.traffic import a_step, all_reduced, gathered

WHOLE_NETWORK = True
TINY = Network(weights=100, channels=(4, 8), operations=1000, kept=50, normalised=20)


def test_a_ring_sends_each_part_twice_but_for_its_own() -> None:
    """Four replicas, eight values: parts of two go three steps around to be added, and three to be known."""
    assert all_reduced(8, 4) == 2 * 3 * 2 * 4
    assert gathered(8, 4) == 3 * 2 * 4
    assert all_reduced(8, 1) == gathered(8, 1) == 0


def test_a_step_sends_what_its_loss_needs() -> None:
    step = a_step("query", 100, (4, 8), batch=32, replicas=2, dim=16, classes=5)
    assert step["gradients"] == 400
    assert step["batch normalisation"] == 2 * 4 * (9 + 17)
    assert step["prototypes"] == 4 * (2 * 5 * 17 + 5 * 16)
    assert a_step("simclr", 100, (), 32, 2, dim=16)["embeddings"] == 4 * (2 * 64 * 16 / 2 + 64 * 16)
    assert a_step("classifier", 100, (), 32, 2)["metrics"] == 64


def test_the_network_is_counted_as_it_is() -> None:
    """He et al.: 1.8 billion multiplications and additions at 224 px, half a million of them in the last layer."""
    network = resnet(224)
    assert network.operations / 2 == pytest.approx(1.8e9, rel=0.02)
    assert network.weights == 11_176_512 + 512 * 512 + 512 + 512 * 128 + 128
    assert network.channels == (64,) * 5 + (128,) * 5 + (256,) * 5 + (512,) * 5


def test_memory_and_time_grow_as_their_formulas() -> None:
    assert sum(memory(TINY, 10).values()) == 5 * 4 * 100 + 4 * 10 * (50 + 20)
    assert contrastive(16, 4)["matrix"] == 4 * 32 * 128
    for machine in MACHINES:
        ring, local = (seconds(resnet(), machine, "query", 256, local) for local in (False, True))
        assert efficiency(local) > efficiency(ring)
        enough = stops(resnet(), machine, "query")
        assert efficiency(seconds(resnet(), machine, "query", enough)) >= 0.5
        assert efficiency(seconds(resnet(), machine, "query", enough - 1)) < 0.5


def test_the_document_has_the_tables_of_the_script() -> None:
    document = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in report().splitlines() if line not in document] == []


def test_scaling_compares_with_one_replica_of_the_same_kind() -> None:
    assert settings(8)["weak, 4 devices, batch 32"] == ("devices", 4, 32)
    assert settings(8)["strong, 2 processes, batch 8"] == ("processes", 2, 8)
    found = summary(
        {
            "weak, 1 devices, batch 8": [{"seconds": [1.0, 2.0, 3.0]}, {"seconds": [4.0]}],
            "weak, 2 devices, batch 16": [{"seconds": [8.0]}],
        }
    )
    assert found["weak, 1 devices, batch 8"] == {
        "images_per_second": 3.0,
        "least": 2.0,
        "largest": 4.0,
        "efficiency": 1.0,
    }
    assert found["weak, 2 devices, batch 16"]["efficiency"] == 0.667
