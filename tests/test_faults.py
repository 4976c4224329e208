"""What a machine can do to a run: kill it at any moment, fill its disk. The campaign is slow; the fuzzing is not."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prl_keras.cli import COMMANDS, main, parse
from prl_keras.errors import InputError
from prl_keras.models.storage import load_model, weights_sha256
from prl_keras.runs import Run, create_run, is_finished, list_runs
from prl_keras.training.checkpoint import restore_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[1]
KILLS = 10  # of each kind of run
TINY = ["--dataset", "digits", "--samples-per-class", "20", "--image-size", "16"]
PRETRAIN = ["pretrain", *TINY, "--epochs", "3", "--batch-size", "50", "--variant"]
FINETUNE = ["finetune", "--encoder", "encoder", "--head", "mlp", "--dropout", "0.2", "--batch-size", "50"]
KINDS = {
    "query": [*PRETRAIN, "query", "--augment", "light"],
    "loo": [*PRETRAIN, "loo"],
    "simclr": [*PRETRAIN, "simclr"],
    "frozen": [*FINETUNE, "--epochs", "20"],
    "unfrozen": [*FINETUNE, "--epochs", "3", "--no-freeze"],
}


def start(words: list[str], folder: Path) -> subprocess.Popen:
    command = [sys.executable, "main.py", *words, "--checkpoint-steps", "1", "--runs-dir", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def weights(run: Run) -> str:
    return weights_sha256(load_model(run.encoder_file if run.encoder_file.exists() else run.classifier_file))


def phase(run: Run) -> str:
    """Where a killed run stood."""
    if not run.path.exists():
        return "before the run began"
    if is_finished(run):
        return "after it was finished"
    if list((run.path / "checkpoint").glob(".tmp-*")):
        return "writing a checkpoint"
    if list(run.path.glob(".tmp-*")) or list(run.path.glob("*.keras")):
        return "saving the model"
    if not list((run.path / "checkpoint").glob("*.npz")):
        return "before the first checkpoint"
    return "training"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never interrupted, without checkpoints within epochs."""
    folder = tmp_path_factory.mktemp("reference")
    assert main([*PRETRAIN, "query", "--name", "encoder", "--runs-dir", str(folder)]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_ten_times_ends_with_the_same_bits(kind: str, reference: Path, tmp_path: Path) -> None:
    words = [*KINDS[kind], "--name", kind]
    assert main([*words, "--runs-dir", str(reference)]) == 0
    os.symlink(reference / "encoder", tmp_path / "encoder")
    run, rng = Run(tmp_path / kind), np.random.default_rng(sum(map(ord, kind)))
    began = time.monotonic()
    process = start(words, tmp_path)
    while not list((run.path / "checkpoint").glob("*.npz")):  # how long it takes to get to work, here and now
        time.sleep(0.02)
        assert process.poll() is None
    warm_up = time.monotonic() - began
    phases: list[str] = []
    while len(phases) < KILLS:
        try:
            process.wait(max(warm_up + rng.uniform(-2, 1.2), 0.5) if phases else rng.uniform(0, 0.3))
        except subprocess.TimeoutExpired:
            process.kill()
            phases.append(phase(run))
        assert process.wait() in (0, -signal.SIGKILL), process.stderr.read()
        list_runs(tmp_path)  # whatever was left can be read
        if is_finished(run):  # another life
            assert_same_bits(run, Run(reference / kind))
            shutil.rmtree(run.path)
        process = start(words, tmp_path)
    assert process.wait() == 0, process.stderr.read()
    assert_same_bits(run, Run(reference / kind))
    summary = os.environ.get("PRL_FAULTS")
    if summary:
        file = Path(summary)
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(known | {kind: phases}, indent=1) + "\n")


def assert_same_bits(run: Run, reference: Run) -> None:
    assert weights(run) == weights(reference)
    timing = ("seconds", "images_per_second")
    lines = [[{k: v for k, v in line.items() if k not in timing} for line in r.metrics] for r in (run, reference)]
    assert lines[0] == lines[1]
    assert not list(run.path.rglob(".tmp-*"))


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(tmp_path: Path) -> None:
    words = ["baseline", "--model", "mlp", *TINY, "--epochs", "2", "--name", "mlp", "--runs-dir", str(tmp_path)]
    command = [sys.executable, "main.py", *words]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))  # less than a checkpoint

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("File too large; make room, then repeat the command")
    assert not list(tmp_path.iterdir())
    assert main(words) == 0


@pytest.mark.slow
def test_two_processes_on_one_run(tmp_path: Path) -> None:
    words = [*KINDS["loo"], "--name", "run"]
    first = start(words, tmp_path)
    while not (tmp_path / "run" / "checkpoint").exists():
        time.sleep(0.05)
        assert first.poll() is None
    second = start(words, tmp_path)
    assert second.wait() == 2
    assert f"is being written by process {first.pid} on" in second.stderr.read()
    assert first.wait() == 0


def test_a_damaged_checkpoint_never_passes_for_another(tmp_path: Path) -> None:
    """200 random damages: bits flipped, cut, bytes put in."""
    run = create_run(tmp_path, "run", {})
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam")
    saved = save_checkpoint(model, run, 7)
    content = saved.read_bytes()
    values = [np.array(variable) for variable in model.variables]
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        place = int(rng.integers(len(damaged)))
        kind = rng.integers(3)
        if kind == 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del damaged[place:]
        else:
            damaged[place:place] = rng.bytes(3)
        saved.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                position = restore_checkpoint(model, run)
        except InputError:
            refused += 1
            continue
        assert position.epoch == 7  # the damage hit a byte that means nothing, such as a time in the archive
        for variable, value in zip(model.variables, values, strict=True):
            np.testing.assert_array_equal(variable, value)
    assert refused > 120


WORDS = st.one_of(
    st.sampled_from(["--seed", "--name", "--epochs", "--rows", "--variant", "latest", "--resume", "--", "-", "--x="]),
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
)


@settings(max_examples=150)
@given(st.sampled_from(sorted(COMMANDS)), st.lists(WORDS, max_size=4))
def test_any_command_line_is_understood_or_refused_in_one_line(command: str, words: list[str]) -> None:
    complaint = ""
    try:
        options = parse([command, *words])
    except InputError as error:
        options, complaint = None, str(error)
    assert "\n" not in complaint
    assert options is None or type(options) is COMMANDS[command][0]


@given(st.text(max_size=120))
def test_a_run_name_is_usable_or_refused_and_never_leaves_its_folder(name: str) -> None:
    from prl_keras.runs import check_usable_name

    complaint = ""
    try:
        check_usable_name(name)
    except InputError as error:
        complaint = str(error)
    assert "\n" not in complaint
    if not complaint:
        assert (Path("/runs") / name).resolve().parent == Path("/runs")
        assert name.isascii()
