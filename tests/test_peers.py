"""benchmarks/peers.py: work is counted as it is known, differences of both sides are seen, tables are of their file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import peers  # noqa: E402
from peers_agreement import DisagreementError, compared  # noqa: E402
from peers_ours import multiply_adds, multiply_adds_of  # noqa: E402


def test_multiply_adds_are_those_that_are_known() -> None:
    assert multiply_adds((3, 3, 64, 128), (None, 7, 7, 128)) == 3 * 3 * 64 * 128 * 49
    assert multiply_adds((512, 10), (None, 10)) == 5120


@pytest.mark.usefixtures("whole_network")
def test_a_resnet18_has_the_multiply_adds_of_the_literature() -> None:
    from prl_keras.models import resnet18

    assert multiply_adds_of(resnet18((224, 224, 3), "imagenet")) == 1_814_073_344 - 512_000  # less its classifier


@pytest.fixture
def sides() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    ours = {"a/kernel": rng.normal(size=(3, 4)), "b/bias": np.zeros(4)}
    return ours, {name: values.copy() for name, values in ours.items()}


def test_what_agrees_is_reported(sides: tuple) -> None:
    ours, theirs = sides
    theirs["b/bias"] += 1e-9  # 0 but for rounding
    found = compared("x", (2.0, 2.000002), ours, theirs, (1e-5, 1e-3))
    assert found["loss"] == pytest.approx(1e-6, rel=1e-3)
    assert 0 < found["gradient"] < 1e-5


@pytest.mark.parametrize("name", ["a/kernel", "b/bias"])
def test_a_gradient_that_differs_is_named(sides: tuple, name: str) -> None:
    ours, theirs = sides
    theirs[name].flat[0] += 0.1
    with pytest.raises(DisagreementError, match=f"the gradient of {name} differs by .* nothing is measured"):
        compared("x", (2.0, 2.0), ours, theirs, (1e-5, 1e-3))


@pytest.mark.parametrize("losses", [(2.0, 2.1), (2.0, float("nan")), (0.0, 0.0)])
def test_a_loss_that_differs_or_tells_nothing_ends_the_comparison(sides: tuple, losses: tuple) -> None:
    with pytest.raises(DisagreementError, match="the loss differs"):
        compared("x", losses, *sides, (1e-5, 1e-3))


def test_a_gradient_that_only_one_side_has_is_named(sides: tuple) -> None:
    ours, theirs = sides
    del theirs["b/bias"]
    with pytest.raises(DisagreementError, match="b/bias on one side only"):
        compared("x", (2.0, 2.0), ours, theirs, (1e-5, 1e-3))


def test_the_tables_are_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = {
        "ours": {"multiply_adds_a_step": 10**9, "seconds": 0.2, "ratio": [1.0, 1.0, 1.0]},
        "PyTorch, eager": {"seconds": 0.5, "ratio": [2.4, 2.5, 2.7]},
        "PyTorch, the same, compiled": {"failed": "BackendError: something long"},
    }
    both = {
        "ours": {"seconds": 0.2, "ratio": [1.0, 1.0, 1.0], "rounds": [0.2, 0.3]},
        "ours, bfloat16": {"seconds": 0.1, "ratio": [0.5, 0.5, 0.5], "rounds": [0.1, 0.1]},
        "PyTorch, eager": {"seconds": 0.4, "ratio": [2.0, 2.0, 2.0], "rounds": [0.4, 0.4]},
    }
    found = {
        "machine": {"processor": "P", "cores": 2, "flags": ["avx2"], "memory_gb": 8.0, "versions": {"keras": "3"}},
        "peak": {"gflops": {"float32": {"NumPy": 90.0, "TensorFlow": 100.0}}},
        "steps": {
            name: {"size": size, "batch": 100, "stem": "small", "variant": "query", "rows": these}
            for name, size, these in (("28-small", 28, rows), ("96-small", 96, both))
        },
    }
    file = tmp_path / "peers.json"
    file.write_text(json.dumps(found), encoding="utf-8")
    assert peers.main([str(file), "--table"]) == 0
    shown = capsys.readouterr().out
    assert "P, 2 cores (avx2), 8.0 GB; keras 3." in shown
    assert "| ours | 500 | 1.00 (1.00 - 1.00) | 10 % |" in shown
    assert "| PyTorch, eager | 200 | 2.50 (2.40 - 2.70) | 4 % |" in shown
    assert "| PyTorch, the same, compiled | failed: BackendError |" in shown
    assert "ours at best (float32) has 2.50 (2.40 - 2.70) times its speed" in shown, "an older file has no rounds"
    assert "ours at best (bfloat16) has 4.00 (4.00 - 4.00) times its speed" in shown


def test_a_file_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "mine.json"
    file.write_text("[1]", encoding="utf-8")
    assert peers.main([str(file), "--only", "startup"]) == 2
    assert "name another file" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == "[1]"


@pytest.mark.slow
def test_both_sides_find_the_same_losses_and_gradients(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    words = [
        str(ROOT / "benchmarks" / "peers.py"),
        str(tmp_path / "x.json"),
        "--only",
        "agreement",
        "--cases",
        "28-small",
    ]
    subprocess.run([sys.executable, *words], check=True, timeout=600)
    found = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["agreement"]["differences"]
    assert len(found) == 10
