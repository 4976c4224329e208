"""Training that is interrupted, locked, or goes wrong: what is kept, what is said, and that the bits are the same."""

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from faults import save_checkpoint, stop_after_first_checkpoint
from test_training import MAKERS, Interrupt, pictures, small_encoder

from prl_keras.cli import main
from prl_keras.data.augment import augmentation
from prl_keras.data.batches import Batches
from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.models import build_classifier, classification_head
from prl_keras.runs import Run, create_run, list_runs
from prl_keras.runs.interruption import Stopped
from prl_keras.runs.locks import locked, working_on
from prl_keras.training import callbacks
from prl_keras.training.average import adam
from prl_keras.training.fit import fit
from prl_keras.training.monitor import RepresentationMonitor

ROOT = Path(__file__).parents[1]
TINY = ["--dataset", "digits", "--samples-per-class", "12", "--image-size", "16", "--epochs", "2", "--batch-size", "30"]
TIMING = ("seconds", "images_per_second")


def dropout_classifier() -> keras.Model:
    head = classification_head("mlp", 4, 16, dropout=0.3)
    classifier = build_classifier(small_encoder(), 4, head)
    return keras.Sequential([keras.Input((8, 8, 3)), augmentation("light", (8, 8), 5), classifier])


def trained(name: str, run: Run, steps: int | None, interrupt_at: int | None = None) -> list[np.ndarray]:
    """Five epochs of three steps; every variable at the end."""
    options = adam(1e-3, steps=15, average=True)
    if name == "classifier":
        keras.utils.set_random_seed(2)
        model = dropout_classifier()
        model.compile(options, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    else:
        model = MAKERS[name]()
        model.build((None, 8, 8, 3))
        model.compile(options)
    batches = Batches(*pictures(96), 32, seed=1, drop_remainder=True)
    monitors = [] if interrupt_at is None else [Interrupt(interrupt_at)]
    fit(model, batches, 5, run, pictures(32, seed=9), monitors, checkpoint_steps=steps)
    return [np.array(variable) for variable in [*model.variables, *model.optimizer.variables]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["query, light", "simclr", "classifier"])
def test_a_run_that_is_continued_within_an_epoch_is_bit_identical(name: str, tmp_path: Path) -> None:
    reference, broken = create_run(tmp_path, "reference", {}), create_run(tmp_path, "broken", {})
    expected = trained(name, reference, steps=None)
    for interrupt_at in (0, 2):
        with pytest.raises(InterruptedError):
            trained(name, broken, steps=1, interrupt_at=interrupt_at)
        (newest,) = sorted((broken.path / "checkpoint").glob("*.npz"))[-1:]
        assert newest.name == f"epoch-{interrupt_at:05d}.step-0000001.npz"
    for want, got in zip(expected, trained(name, broken, steps=2), strict=True):
        np.testing.assert_array_equal(want, got)
    lines = [[{k: v for k, v in e.items() if k not in TIMING} for e in run.metrics] for run in (reference, broken)]
    assert lines[0] == lines[1]


@pytest.mark.skipif(os.name == "nt", reason="there os.kill ends this process")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_says_how_to_continue(
    number: int, code: int, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second step of the first epoch: the step is finished, the state kept, the same command continues."""
    usual = callbacks.FiniteGuard.on_train_batch_end

    def kill_in_second_step(self: callbacks.FiniteGuard, batch: int, logs: dict | None = None) -> None:
        usual(self, batch, logs)
        if batch == 1:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(callbacks.FiniteGuard, "on_train_batch_end", kill_in_second_step)
    arguments = ["baseline", "--model", "mlp", *TINY, "--runs-dir", str(tmp_path)]
    assert main(arguments) == code
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("stopped: the last checkpoint is after epoch 0, step 2 of the next; to continue: python")
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    command = error[0].split("main.py ")[1].split()
    assert command == [*arguments, "--name", "mlp-digits-1"]
    assert main(command) == 0
    assert "Continuing mlp-digits-1 after epoch 0 of 2, step 2 of 4 of the next." in capsys.readouterr().out
    assert main([*arguments, "--name", "whole"]) == 0
    both = [Run(tmp_path / name) for name in ("mlp-digits-1", "whole")]
    assert next(run.result["accuracy"] for run in both) == both[1].result["accuracy"]
    weights = [keras.saving.load_model(run.classifier_file).get_weights() for run in both]
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)
    assert main(command) == 2, "a finished run is never written again"
    assert "already exists" in capsys.readouterr().err


def test_a_run_has_one_process(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["baseline", "--model", "mlp", *TINY, "--runs-dir", str(tmp_path), "--name", "one"]
    assert main(arguments) == 0
    (tmp_path / "one" / "result.json").unlink()
    capsys.readouterr()
    with locked(Run(tmp_path / "one")):
        assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        rf"error: run 'one' is being written by process {os.getpid()} on .*: wait for it, or stop it\n", error
    )
    assert (tmp_path / "one" / "classifier.keras").exists()


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    run = create_run(tmp_path, "run", {})
    code = (
        "import sys, time; from pathlib import Path\n"
        "from prl_keras.runs.locks import locked; from prl_keras.runs import Run\n"
        "with locked(Run(Path(sys.argv[1]))): print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match=f"process {process.pid} on"), locked(run):
        pass
    process.kill()
    process.wait()
    with locked(run):
        pass


def test_what_a_kill_left_is_removed_and_what_a_user_made_is_not(tmp_path: Path) -> None:
    run = create_run(tmp_path, "run", {})
    (run.path / "checkpoint").mkdir()
    for name in (".tmp-1.npz", "checkpoint/.tmp-2.npz", "notes.txt", ".mine"):
        (run.path / name).write_text("x", encoding="utf-8")
    old, young = tmp_path / ".new-old", tmp_path / ".new-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (time.time() - 90_000,) * 2)
    with working_on(run):
        pass
    create_run(tmp_path, "other", {})
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["other/config.json", "run/.mine", "run/config.json", "run/notes.txt"]
    assert young.exists()
    assert not old.exists()


@pytest.mark.slow
def test_other_versions_are_named_and_other_options_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["baseline", "--model", "mlp", *TINY, "--runs-dir", str(tmp_path), "--name", "one"]
    stop_after_first_checkpoint(monkeypatch)
    assert main(arguments) == 130
    monkeypatch.undo()
    config = Run(tmp_path / "one").config
    write_json(tmp_path / "one" / "config.json", config | {"versions": config["versions"] | {"keras": "3.0.0"}})
    capsys.readouterr()
    assert main([*arguments, "--learning-rate", "0.01"]) == 2
    assert "learning_rate = 0.001, not 0.01" in capsys.readouterr().err
    changed = [word if word != "12" else "13" for word in arguments]
    assert main(changed) == 2
    assert "samples_per_class = 12, not 13" in capsys.readouterr().err
    assert main([*arguments, "--checkpoint-steps", "2"]) == 0, "changes no result"
    output = capsys.readouterr().out
    assert f"started with keras 3.0.0, this is {keras.__version__}" in output
    assert output.count("warning") == 1


@pytest.mark.slow
def test_the_same_command_continues_an_unfinished_run_without_being_told_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["baseline", "--model", "mlp", *TINY, "--runs-dir", str(tmp_path)]
    stop_after_first_checkpoint(monkeypatch)
    assert main(command) == 130
    with locked(Run(tmp_path / "mlp-digits-1")):
        assert main(command) == 130, "another process is at work on the first: a new run"
    monkeypatch.undo()
    capsys.readouterr()
    assert [main(command), main(command), main([*command, "--learning-rate", "0.01"])] == [0, 0, 0]
    output = capsys.readouterr().out
    assert "Continuing mlp-digits-2 after epoch 1 of 2." in output
    assert "Continuing mlp-digits-1 after epoch 1 of 2." in output
    runs = {run.name: run.result["accuracy"]["test"]["value"] for run in list_runs(tmp_path)}
    assert sorted(runs) == [f"mlp-digits-{number}" for number in (1, 2, 3)], "another command: a new run"
    assert runs["mlp-digits-1"] == runs["mlp-digits-2"]


@pytest.mark.slow
def test_latest_stays_the_encoder_that_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another pre-training between the start and the end of a fine-tuning must not slip in."""
    where = ["--runs-dir", str(tmp_path)]
    assert main(["pretrain", *TINY, "--epochs", "1", *where, "--name", "encoder0"]) == 0
    stop_after_first_checkpoint(monkeypatch)
    assert main(["finetune", "--epochs", "2", "--name", "tuned", *where]) == 130
    monkeypatch.undo()
    shutil.copytree(tmp_path / "encoder0", tmp_path / "encoder1")
    later = Run(tmp_path / "encoder1").config | {"created": "2999-01-01"}
    write_json(tmp_path / "encoder1" / "config.json", later)
    assert main(["finetune", "--epochs", "2", "--name", "tuned", *where]) == 0
    assert Run(tmp_path / "tuned").result["encoder_run"] == "encoder0"


@pytest.mark.slow
def test_another_encoder_under_the_same_name_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--runs-dir", str(tmp_path)]
    assert main(["pretrain", *TINY, "--epochs", "1", *where, "--name", "encoder"]) == 0
    command = ["finetune", "--encoder", "encoder", "--epochs", "2", "--name", "tuned", *where]
    stop_after_first_checkpoint(monkeypatch)
    assert main(command) == 130
    monkeypatch.undo()
    (tmp_path / "encoder").rename(tmp_path / "old")
    assert main(["pretrain", *TINY, "--epochs", "1", *where, "--name", "encoder", "--learning-rate", "0.01"]) == 0
    capsys.readouterr()
    assert main(command) == 2
    assert "was started with encoder_sha256 = " in capsys.readouterr().err


@pytest.mark.slow
def test_a_fine_tuning_continues_however_its_encoder_is_spelled(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", *TINY, "--epochs", "1", "--runs-dir", "a", "--name", "enc"]) == 0
    for number, (runs_dir, first, second, recorded) in enumerate(
        (
            ("a", "./a/enc", "enc", "enc"),
            ("b", "a/enc/", "moved", str(tmp_path / "moved")),
        )
    ):
        command = ["finetune", "--epochs", "2", "--name", f"tuned{number}", "--runs-dir", runs_dir, "--encoder"]
        with pytest.MonkeyPatch.context() as patch:
            stop_after_first_checkpoint(patch)
            assert main([*command, first]) == 130
        if second == "moved":
            (tmp_path / "a" / "enc").rename(tmp_path / "moved")
        assert main([*command, second]) == 0, capsys.readouterr().err
        assert Run(tmp_path / runs_dir / f"tuned{number}").result["encoder_run"] == recorded


@pytest.mark.parametrize("flags", [[], ["--resume"]])
@pytest.mark.parametrize("command", ["pretrain", "baseline", "finetune", "tune"])
def test_a_name_never_leaves_the_runs_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture, command: str, flags: list[str]
) -> None:
    outside = create_run(tmp_path, "outside", {"command": command, "options": {}, "data": {}, "versions": {}})
    before = (outside.path / "config.json").read_bytes()
    for name in ("../outside", str(outside.path)):
        assert main([command, "--name", name, "--runs-dir", str(tmp_path / "runs"), *flags]) == 2
        assert "not usable" in capsys.readouterr().err
    assert (outside.path / "config.json").read_bytes() == before


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    run = create_run(tmp_path, "run", {})
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    (run.path / ".lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(InputError, match="is a link"), locked(run):
        pass
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.slow
def test_a_search_has_one_process(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The second leaves the first's folder alone, also when it is stopped."""
    where = ["--runs-dir", str(tmp_path)]
    assert main(["pretrain", *TINY, "--epochs", "1", *where, "--name", "encoder"]) == 0
    search = ["tune", "--encoder", "encoder", "--max-trials", "1", "--epochs", "1", "--name", "search", *where]
    assert main(search) == 0
    (tmp_path / "search" / "result.json").unlink()
    capsys.readouterr()
    with locked(Run(tmp_path / "search")):
        assert main([*search, "--resume"]) == 2
    assert "is being written by process" in capsys.readouterr().err
    assert (tmp_path / "search" / "config.json").exists()


@pytest.mark.parametrize(
    ("stop", "code"),
    [(Stopped(signal.SIGTERM), 143), pytest.param(KeyboardInterrupt, 130, marks=pytest.mark.slow)],
)
def test_a_stop_outside_training_says_what_was_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, stop: BaseException, code: int
) -> None:
    from prl_keras.commands import finetune

    def stopped(*_: object, **__: object) -> None:
        raise stop

    arguments = ["baseline", "--model", "mlp", *TINY, "--runs-dir", str(tmp_path)]
    monkeypatch.setattr(finetune, "open_data", stopped)
    assert main(arguments) == code
    assert capsys.readouterr().err.strip().endswith("nothing was kept: repeat the command")
    monkeypatch.undo()
    monkeypatch.setattr(finetune, "_accuracies", stopped)
    assert main(arguments) == code
    error = capsys.readouterr().err.strip()
    assert error.endswith("--name mlp-digits-1")
    monkeypatch.undo()
    assert main(shlex.split(error.split("main.py ")[1])) == 0


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["baseline", "--model", "mlp", *TINY, "--runs-dir", str(tmp_path), "--learning-rate", "1e30"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(
        r"(the loss|a gradient) is not finite in epoch 1, step [123] \(images a class in its batch: 0: \d+,", error
    )
    assert "there is no checkpoint yet; start a new run with a lower --learning-rate" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir()), "nothing to continue from"


def test_a_gradient_that_is_not_finite_stops_the_run_though_the_loss_is(tmp_path: Path) -> None:
    """The gradient of a norm at 0: loss 0, gradient NaN."""
    images = keras.Input((8, 8, 3))
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(images))
    model = keras.Model(images, x)
    model.compile("adam", loss=lambda labels, x: keras.ops.sqrt(keras.ops.sum(keras.ops.square(0.0 * x), axis=-1)))
    run = create_run(tmp_path, "run", {})
    with pytest.raises(InputError, match=r"a gradient is not finite in epoch 1, step 1 \(images a class"):
        fit(model, Batches(*pictures(64), 32, seed=0), 2, run)
    assert not list(run.path.glob("checkpoint/*"))


@pytest.mark.usefixtures("restored_dtype_policy")
def test_float16_may_skip_some_steps_but_not_all_of_them(tmp_path: Path) -> None:
    """Keras skips a step whose gradient is not finite and halves the loss scale, 2**15 at first, for ever."""
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, kernel_initializer="zeros")])
    broken = tf.custom_gradient(lambda x: (x, lambda upstream: upstream * math.nan))
    model.compile("adam", loss=lambda labels, x: broken(keras.ops.sum(keras.ops.cast(x, "float32"), axis=-1)))
    model.build((None, 8, 8, 3))
    with pytest.raises(InputError, match=r"a gradient is not finite in epoch 8, step 2 \(images a class"):
        fit(model, Batches(*pictures(64), 32, seed=0), 20, create_run(tmp_path, "run", {}))


def test_weights_that_are_not_finite_are_never_kept(tmp_path: Path) -> None:
    from prl_keras.training.checkpoint import restore_checkpoint

    run = create_run(tmp_path, "run", {})
    model = MAKERS["query"]()
    model.build((None, 8, 8, 3))
    model.compile("adam")
    save_checkpoint(model, run, 1)
    model.trainable_variables[0].assign(model.trainable_variables[0] * np.nan)
    with pytest.raises(InputError, match="not finite: no checkpoint was written; the last checkpoint is after epoch 1"):
        save_checkpoint(model, run, 2)
    assert restore_checkpoint(model, run).epoch == 1
    assert np.isfinite(model.trainable_variables[0]).all()


def test_a_collapse_is_reported_once_while_it_happens(capsys: pytest.CaptureFixture) -> None:
    model = MAKERS["query"]()
    images, labels = pictures(40)
    for layer in model.projection_head.layers:
        for weight in layer.weights:
            weight.assign(0 * weight + ("bias" in weight.path))  # every embedding is the same vector
    monitor = RepresentationMonitor(model, (images, labels), (images, labels), 4)
    for epoch in range(3):
        monitor.on_epoch_end(epoch, {})
    output = capsys.readouterr().out
    assert output.count("warning: the embeddings collapse: after epoch 1 their effective rank is 1.00") == 1
    assert output.count("collapse") == 1


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_with_and_without_deterministic(tmp_path: Path) -> None:
    hashes = {}
    for name, flag in [("a", []), ("b", []), ("c", ["--deterministic"]), ("d", ["--deterministic"])]:
        words = ["pretrain", "--variant", "simclr", *TINY, "--runs-dir", str(tmp_path), "--name", name, *flag]
        subprocess.run([sys.executable, "main.py", *words], cwd=ROOT, check=True, capture_output=True)
        hashes[name] = Run(tmp_path / name).result["encoder_sha256"]
    assert hashes["a"] == hashes["b"]
    assert hashes["c"] == hashes["d"]


def test_no_pickle_anywhere() -> None:
    for file in [*(ROOT / "prl_keras").rglob("*.py"), *(ROOT / "tuning").rglob("*.py")]:
        text = file.read_text(encoding="utf-8")
        assert "allow_pickle=True" not in text, file
        assert not re.search(r"^\s*(import|from) (pickle|joblib|dill|cloudpickle)", text, re.MULTILINE), file


def test_a_config_that_is_not_one_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = create_run(tmp_path, "run", {"command": "pretrain"})
    run.encoder_file.write_bytes(b"no model")
    for content in ("", "[]", "{", '{"command": 3}', "\udcff", json.dumps({"created": None})):
        (run.path / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        for command in (["evaluate", "run"], ["finetune", "--encoder", "run"], ["visualize", "run"], ["runs"]):
            code = main([*command, "--runs-dir", str(tmp_path)])
            captured = capsys.readouterr()
            assert code in (0, 2), (content, command)
            assert captured.err.count("\n") <= 1
    shutil.rmtree(run.path)
