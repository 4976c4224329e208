"""--track: MLflow and Weights & Biases get what metrics.jsonl gets, once; whatever they do, the training goes on."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from prl_keras.cli import main
from prl_keras.config import Baseline, Pretrain
from prl_keras.data.batches import Batches
from prl_keras.extras import installed
from prl_keras.files import write_json
from prl_keras.runs import Run, create_run
from prl_keras.runs.interruption import Stopped
from prl_keras.terminal import ready_streams
from prl_keras.tracking import Mlflow, Wandb, facts, flat, send_result
from prl_keras.training.fit import fit

CONFIG = {
    "command": "pretrain",
    "options": {"seed": 3, "variant": "query", "warmup": 0.05, "resume": None},
    "data": {
        "request": {"name": "digits", "fold": None},
        "fingerprint": "ab" * 32,
        "class_names": ["a", "b"],
        "image_shape": [8, 8, 3],
    },
    "versions": {"keras": "3.15.1"},
}
RESULT = {
    "epochs": 3,
    "accuracy": {"test": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}},
    "encoder_frozen": True,
    "encoder_sha256": "cd" * 32,
    "saved_encoder": {"val_prototype_accuracy": None},
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "runs", "my-run", CONFIG)


class StopIn(keras.callbacks.Callback):
    """Raise in the middle of an epoch, counted from 1."""

    def __init__(self, epoch: int, error: BaseException):
        super().__init__()
        self.epoch, self.error = epoch, error

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if epoch + 1 == self.epoch:
            raise self.error


def train(run: Run, track: str | None, epochs: int = 3, *monitors: keras.callbacks.Callback) -> list[np.ndarray]:
    ready_streams()  # as a command does: what was said is forgotten
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile(
        keras.optimizers.Adam(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True
    )
    random = np.random.RandomState(0)
    batches = Batches(random.rand(32, 4).astype("float32"), random.randint(0, 2, 32), 16, seed=0)
    fit(model, batches, epochs, run, monitors=monitors, track=track)
    return model.get_weights()


def warnings(capsys: pytest.CaptureFixture) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]


# MLflow ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["file", pytest.param("sqlite", marks=pytest.mark.slow)])  # a new data base takes seconds
def store(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Any]]]:
    """A function that gives all runs of the store, the oldest first."""
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow")
    if request.param == "sqlite":
        pytest.importorskip("sqlalchemy", reason="mlflow-skinny has no data base")
    where = {"file": (tmp_path / "store").as_uri(), "sqlite": f"sqlite:///{tmp_path / 'store.db'}"}
    monkeypatch.chdir(tmp_path)  # where MLflow would put artifacts
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # which newer versions want to be rid of
    monkeypatch.setenv("MLFLOW_TRACKING_URI", where[request.param])

    def runs() -> list[Any]:
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name("prl-keras")
        found = client.search_runs([experiment.experiment_id]) if experiment else []
        return sorted(found, key=lambda run: run.info.start_time)

    yield runs
    mlflow.set_tracking_uri(None)


def history(store: Callable[[], list[Any]], number: int = 0) -> dict[str, list[tuple[int, float]]]:
    """Metric -> (step, value), as they were sent."""
    import mlflow

    client, run = mlflow.MlflowClient(), store()[number]
    names = [name for name in run.data.metrics if not name.startswith("result.")]
    return {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in names}


def lines(run: Run) -> dict[str, list[tuple[int, float]]]:
    """The same of metrics.jsonl."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in run.metrics:
        for name, value in line.items():
            if name != "epoch":
                found.setdefault(name, []).append((line["epoch"], value))
    return found


def test_mlflow_gets_config_lines_and_result(store, run) -> None:
    train(run, "mlflow")
    (tracked,) = store()
    assert (tracked.info.run_name, tracked.info.status) == ("my-run", "FINISHED")
    expected = {"seed": "3", "variant": "query", "warmup": "0.05", "command": "pretrain", "versions.keras": "3.15.1"}
    assert tracked.data.params.items() > expected.items()
    assert tracked.data.params["data.request.name"] == "digits"
    assert len(lines(run)["loss"]) == 3
    assert history(store) == lines(run)
    write_json(run.path / "result.json", RESULT)
    send_result(run, "mlflow")
    (tracked,) = store()
    assert tracked.data.metrics["result.accuracy.test.low"] == 0.4
    assert tracked.data.tags["result.encoder_sha256"] == RESULT["encoder_sha256"]
    assert tracked.data.tags["result.encoder_frozen"] == "True"
    assert history(store) == lines(run)


@pytest.mark.parametrize(
    "stop",
    [Stopped(15), *(pytest.param(stop, marks=pytest.mark.slow) for stop in (KeyboardInterrupt(), ZeroDivisionError()))],
    ids=repr,
)
def test_a_resumed_run_goes_on_in_the_same_mlflow_run_and_no_step_comes_twice(store, run, stop) -> None:
    with pytest.raises(type(stop)):
        train(run, "mlflow", 4, StopIn(3, stop))
    (tracked,) = store()
    assert tracked.info.status == ("FAILED" if isinstance(stop, ZeroDivisionError) else "KILLED")
    train(run, "mlflow", 4)
    (tracked,) = store()
    assert tracked.info.status == "FINISHED"
    assert history(store) == lines(run)
    assert [step for step, _ in history(store)["loss"]] == [1, 2, 3, 4]


def test_an_epoch_that_was_sent_and_then_lost_is_not_sent_again(store, run, monkeypatch) -> None:
    """A kill between the line and the checkpoint, and before it was noted that the line was sent."""
    with monkeypatch.context() as patch:
        save = "prl_keras.training.writer.CheckpointWriter.save"
        patch.setattr(save, lambda writer, model, epoch, *more: 1 // 0 if epoch == 2 else None)
        with pytest.raises(ZeroDivisionError):
            train(run, "mlflow")
    record = run.path / "tracking.json"
    record.write_text(record.read_text(encoding="utf-8").replace('"sent": 2', '"sent": 0'), encoding="utf-8")
    train(run, "mlflow")
    assert [step for step, _ in history(store)["loss"]] == [1, 2, 3]


def test_what_was_trained_without_is_sent_when_the_run_goes_on_with_it(store, run) -> None:
    train(run, None, 2)
    assert store() == []
    assert not (run.path / "tracking.json").exists()
    train(run, "mlflow", 3)
    assert history(store) == lines(run)


@pytest.mark.parametrize(
    "record",
    [
        "removed",
        b"{",
        *(pytest.param(it, marks=pytest.mark.slow) for it in ("another server", b"[]", b'{"mlflow": {"id": null}}')),
    ],
    ids=str,
)
def test_a_run_that_is_not_there_any_more_is_begun_anew(store, run, record) -> None:
    import mlflow

    train(run, "mlflow", 2)
    if record == "removed":
        mlflow.MlflowClient().delete_run(store()[0].info.run_id)
    elif record == "another server":
        write_json(run.path / "tracking.json", {"mlflow": {"id": "0" * 32, "sent": 2}})
    else:
        (run.path / "tracking.json").write_bytes(record)
    before = len(store())
    train(run, "mlflow", 3)
    assert len(store()) == before + 1
    assert history(store, before) == lines(run)


def test_mlflow_skinny_without_any_setting_writes_into_the_working_folder(tmp_path, monkeypatch, capsys) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    if installed("sqlalchemy"):
        pytest.skip("the whole mlflow has a data base")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # noted as not there before, so it is not there afterwards
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    train(create_run(tmp_path, "run", CONFIG), "mlflow")
    assert warnings(capsys) == []
    assert list((tmp_path / "mlruns").glob("*/*/metrics/loss"))
    mlflow.set_tracking_uri(None)


def test_a_server_that_is_not_there_is_one_warning_and_the_training_the_same(tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("mlflow", reason="pip install mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")
    expected = train(create_run(tmp_path, "without", CONFIG), None)
    run = create_run(tmp_path, "with", CONFIG)
    for want, got in zip(expected, train(run, "mlflow"), strict=True):
        np.testing.assert_array_equal(want, got)
    write_json(run.path / "result.json", RESULT)
    send_result(run, "mlflow")
    (line,) = warnings(capsys)
    assert line.startswith("warning: --track mlflow: ")
    assert line.endswith("(the training goes on without it; metrics.jsonl has all)")
    assert len(run.metrics) == 3


@pytest.mark.parametrize("kind", ["mlflow", pytest.param("wandb", marks=pytest.mark.slow)])
@pytest.mark.parametrize("at", ["__init__", "log", "end"])
def test_a_tracker_that_fails_at_any_moment_is_one_warning(run, monkeypatch, capsys, kind, at) -> None:
    """Also where neither is installed: then the import fails."""

    def fails(*given: Any) -> None:
        raise RuntimeError("two\nlines of <object at 0x7f12>")

    tracker = {"mlflow": Mlflow, "wandb": Wandb}[kind]
    for name in ("__init__", "log", "end"):
        monkeypatch.setattr(
            tracker, name, fails if name == at else lambda self, *given: vars(self).update(id="1", last=0)
        )
    train(run, kind)
    assert len(run.metrics) == 3
    (line,) = warnings(capsys)
    assert "two lines of <object>" in line


def test_a_command_tracks_also_what_has_no_epochs(store, tmp_path) -> None:
    tiny = ["--dataset", "digits", "--samples-per-class", "8", "--test-per-class", "5", "--image-size", "8"]
    words = ["baseline", *tiny, "--model", "pca", "--name", "floor", "--runs-dir", str(tmp_path / "runs")]
    assert main([*words, "--track", "mlflow"]) == 0
    run = Run(tmp_path / "runs" / "floor")
    (tracked,) = store()
    assert tracked.data.params["model"] == "pca"
    assert tracked.data.metrics["result.accuracy.test.value"] == run.result["accuracy"]["test"]["value"]
    assert tracked.info.status == "FINISHED"
    assert "track" not in run.config["options"]


# Weights & Biases -----------------------------------------------------------------------------------------


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    wandb = pytest.importorskip("wandb", reason="pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    yield wandb
    wandb.teardown()


def records(file: Path) -> Iterator[Any]:
    """Of a .wandb file: LevelDB's log format, blocks of 32 kB, after a head of 7 bytes."""
    from wandb.proto import wandb_internal_pb2 as protocol

    content, at, held = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := 2**15 - at % 2**15) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        held, at = held + content[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield protocol.Record.FromString(held)
            held = b""


def sent_to_wandb(run: Run) -> tuple[list[tuple[str, int, float]], dict[str, str], set[str]]:
    """(id, step, loss) of each line, config and summary of the last file, kinds of records."""
    found, config, kinds = [], {}, set()
    for file in sorted(run.path.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime):
        for record in records(file):
            kinds.add(record.WhichOneof("record_type"))
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if items:
                found.append((file.stem.removeprefix("run-"), int(items["_step"]), float(items["loss"])))
            config |= {item.key: item.value_json for item in record.run.config.update}
            config |= {f"summary {item.key}": item.value_json for item in record.summary.update}
    return found, config, kinds


def test_wandb_gets_the_same_and_a_resumed_run_goes_on_under_its_id(wandb, run) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(run, "wandb", 4, StopIn(3, KeyboardInterrupt()))
    train(run, "wandb", 4)
    write_json(run.path / "result.json", RESULT)
    send_result(run, "wandb")
    wandb.teardown()  # as at the end of a process: all is written
    found, config, kinds = sent_to_wandb(run)
    assert len({identity for identity, _, _ in found}) == 1
    assert [(step, loss) for _, step, loss in found] == lines(run)["loss"]
    assert (config["seed"], config["data.request.name"]) == ("3", '"digits"')
    assert '"low":0.4' in config["summary result"].replace(" ", "")
    assert not kinds & {"stats", "output", "output_raw", "environment"}, "nothing of this computer"


def test_wandb_without_a_key_is_one_warning(run, monkeypatch, tmp_path, capsys) -> None:
    pytest.importorskip("wandb", reason="pip install wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    train(run, "wandb")
    assert len(run.metrics) == 3
    assert len(warnings(capsys)) == 1


# The option -----------------------------------------------------------------------------------------------


def test_the_option_is_no_part_of_what_a_run_is(tmp_path) -> None:
    from prl_keras import load_dataset
    from prl_keras.runs.lifecycle import start_run

    data = load_dataset("digits", samples_per_class=8, image_size=8)
    for kind in (Pretrain, Baseline):
        command = kind.__name__.lower()
        request = {"name": "digits"}
        run = start_run(command, kind(track="mlflow", runs_dir=tmp_path), command, request, data)
        assert "track" not in run.config["options"]
        for track in (None, "wandb"):
            assert start_run(command, kind(track=track, runs_dir=tmp_path), command, request, data) == run


def test_a_tracker_that_is_not_installed_is_one_line_before_anything_is_done(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("prl_keras.extras.installed", lambda package: False)
    words = ["baseline", "--dataset", "digits", "--track", "wandb", "--runs-dir", str(tmp_path / "runs")]
    assert main(words) == 2
    assert capsys.readouterr().err == "error: --track wandb needs wandb, of the extra [tracking]: pip install wandb\n"
    assert not (tmp_path / "runs").exists()


def test_flat_names_lose_nothing_but_what_is_none() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": None}, "e": [1]}) == {"a.b.c": 1, "e": [1]}
    assert facts(CONFIG)["data.classes"] == 2
    assert "data.class_names" not in facts(CONFIG)
    assert "resume" not in facts(CONFIG)
    assert facts({}) == {"data.classes": 0}
