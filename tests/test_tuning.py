"""The search over fine-tuning: real trials on a few digits, killed and continued, and its winner."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from prl_keras.cli import main
from prl_keras.data import load_dataset
from prl_keras.models.storage import load_encoder, weights_sha256
from prl_keras.runs import Run
from tuning.hypermodel import FineTuning, SearchData
from tuning.report import plot_importance, with_intervals
from tuning.search import Search, make_oracle
from tuning.space import declare, paper_configurations

SMALL = ["--samples-per-class", "12", "--image-size", "16"]


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("a", "b"):
        pretrain = ["pretrain", "--dataset", "digits", *SMALL, "--epochs", "1", "--batch-size", "60", "--name", name]
        assert main([*pretrain, "--runs-dir", str(folder), "--variant", "query" if name == "a" else "loo"]) == 0
    return folder


@pytest.fixture
def data() -> SearchData:
    return SearchData.of(load_dataset("digits", samples_per_class=12, image_size=16))


def hypermodel(runs_dir: Path, data: SearchData, cache: Path, **changes) -> FineTuning:
    return FineTuning({"a": load_encoder("a", runs_dir)}, data, cache, **({"epochs": 2, "batch_size": 60} | changes))


def hyperparameters(**changes):
    space = declare(["a"])
    space.values |= paper_configurations(["a"])[0] | changes
    return space


def tune(runs_dir: Path, *arguments: str) -> int:
    return main(["tune", "--epochs", "2", "--batch-size", "60", "--runs-dir", str(runs_dir), *arguments])


def test_the_search_has_no_test_split(data: SearchData) -> None:
    assert set(vars(data)) == {"train", "validation", "num_classes", "image_shape"}


def test_trials_run_with_a_data_set_whose_test_split_cannot_be_read(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuning import command

    class Sealed:
        def __len__(self) -> int:
            return 0

        def __getattr__(self, name: str):
            raise AssertionError(f"a trial asked for the test split's {name}")

    dataset = load_dataset("digits", samples_per_class=12, image_size=16)
    object.__setattr__(dataset, "test", Sealed())
    monkeypatch.setattr(command, "open_data", lambda request, run: dataset)
    monkeypatch.setattr(command, "_finish", lambda run, oracle, *rest: finished.extend(oracle.trials))
    finished: list[str] = []
    assert tune(runs_dir, "--encoder", "a", "--tuner", "random", "--max-trials", "2", "--name", "sealed", *SMALL) == 0
    assert len(finished) == 2


def test_images_are_encoded_once_for_all_trials_and_for_the_next_process(
    runs_dir: Path, data: SearchData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuning import hypermodel as module

    calls = []
    encode = module.encode
    monkeypatch.setattr(module, "encode", lambda model, images: calls.append(len(images)) or encode(model, images))
    first = hypermodel(runs_dir, data, tmp_path)
    for head in ("linear", "mlp"):
        hp = hyperparameters(head=head)
        first.fit(hp, first.build(hp))
    train, validation = hypermodel(runs_dir, data, tmp_path).features("a")
    assert calls == [len(data.train), len(data.validation)]
    np.testing.assert_array_equal(train, encode(first.encoders["a"], data.train.images))
    assert len(validation) == len(data.validation)


@pytest.mark.parametrize("freeze", [True, False])
def test_a_trial_on_images_never_changes_the_shared_encoder(
    runs_dir: Path, data: SearchData, tmp_path: Path, freeze: bool
) -> None:
    trial = hypermodel(runs_dir, data, tmp_path, epochs=1)
    before = weights_sha256(trial.encoders["a"])
    hp = hyperparameters(freeze=freeze, augment="light")
    model = trial.build(hp)
    trial.fit(hp, model)
    assert weights_sha256(trial.encoders["a"]) == before
    own = weights_sha256(model.layers[-1].get_layer("encoder"))
    assert (own == before) == freeze


def test_a_trial_stops_when_validation_stops_improving(runs_dir: Path, data: SearchData, tmp_path: Path) -> None:
    trial = hypermodel(runs_dir, data, tmp_path, epochs=50, patience=2)
    hp = hyperparameters(learning_rate=1e-4)
    model = trial.build(hp)
    model.optimizer.learning_rate = 0.0  # nothing can improve
    assert len(trial.fit(hp, model).history["val_accuracy"]) == 3


def test_equal_trials_give_equal_figures(runs_dir: Path, data: SearchData, tmp_path: Path) -> None:
    histories = []
    for _ in range(2):
        trial = hypermodel(runs_dir, data, tmp_path)
        hp = hyperparameters(dropout=0.5)
        histories.append(trial.fit(hp, trial.build(hp)).history)
    assert histories[0] == histories[1]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kind", ["random", "bayesian"])
def test_the_papers_configurations_come_first_also_after_a_kill(kind: str, tmp_path: Path) -> None:
    """The trial that was under way is run again; finished ones are not."""
    ran = []

    class Stub(FineTuning):
        def __init__(self, kill_at: int):
            super().__init__({"a": None}, None, tmp_path)
            self.kill_at = kill_at

        def build(self, hp):
            return None

        def fit(self, hp, model, epochs=None):
            if len(ran) == self.kill_at:
                self.kill_at = -1
                raise Killed
            ran.append(dict(hp.values))
            history = keras.callbacks.History()
            history.history = {"val_accuracy": [0.5, 0.5 + len(ran) / 100, 0.1]}
            return history

    def search(kill_at: int) -> Search:
        given = paper_configurations(["a"])
        oracle = make_oracle(kind, declare(["a"]), given, 6, 25, seed=0)
        found = Search(oracle, Stub(kill_at), tmp_path / "trials", lambda *_: None)
        found.search(verbose=0)
        return found

    for kill_at in (2, 5):
        with pytest.raises(Killed):
            search(kill_at)
    oracle = search(-1).oracle
    assert [{key: values[key] for key in ("head", "freeze")} for values in ran[:4]] == [
        {"head": "linear", "freeze": True},
        {"head": "mlp", "freeze": True},
        {"head": "linear", "freeze": False},
        {"head": "mlp", "freeze": False},
    ]
    assert len(ran) == len(oracle.trials) == 6
    assert oracle.get_best_trials(1)[0].score == pytest.approx(0.56)
    assert oracle.get_best_trials(1)[0].metrics.get_best_value("best_epoch") == 2


def test_the_grid_holds_head_freezing_and_learning_rate_only(tmp_path: Path) -> None:
    space = declare(["a"], grid=True)
    oracle = make_oracle("grid", space, [], 20, 25, seed=0)
    oracle._set_project_dir(tmp_path, "grid")
    seen = set()
    while (trial := oracle.create_trial("tuner0")).status == "RUNNING":
        values = trial.hyperparameters.values
        seen.add((values["head"], values["freeze"], values["learning_rate"]))
        assert (values["weight_decay"], values["dropout"], values["augment"]) == (0.0, 0.0, "none")
        oracle.update_trial(trial.trial_id, {"val_accuracy": 0.5})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert len(seen) == len(oracle.trials) == 2 * 2 * 3


def test_tune_ends_with_a_table_pictures_and_an_ordinary_run(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--encoder", "a", "b", "--tuner", "random", "--max-trials", "5", "--name", "t"]
    assert tune(runs_dir, *arguments) == 0
    printed = capsys.readouterr().out
    assert "trial 5 of 5" in printed
    run, best = Run(runs_dir / "t"), Run(runs_dir / "t-best")
    with (run.path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    scores = [float(row["val_accuracy"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert all(float(row["low"]) <= score <= float(row["high"]) for row, score in zip(rows, scores, strict=True))
    assert (run.path / "plots" / "parallel.png").stat().st_size > 10_000
    assert not (run.path / "features").exists()
    assert run.result["winner_run"] == "t-best"
    chosen = run.result["best"]
    assert best.config["options"]["seed"] == 1
    assert best.config["options"]["epochs"] == chosen["best_epoch"]
    for key in ("head", "freeze", "learning_rate", "weight_decay", "dropout", "augment"):
        assert best.config["options"][key] == chosen[key]
    assert set(best.result["accuracy"]) == {"train", "test"}
    assert best.result["accuracy"]["train"]["n"] == 120 + 143  # validation was added
    assert main(["evaluate", "t-best", "--runs-dir", str(runs_dir)]) == 0
    assert main(["runs", "--runs-dir", str(runs_dir)]) == 0
    assert f"{100 * chosen['val_accuracy']:.1f} %" in capsys.readouterr().out


def test_a_finished_search_repeats_neither_trials_nor_the_test(runs_dir: Path, capsys: pytest.CaptureFixture) -> None:
    """Killed after the winner was tested and before the search was closed."""
    arguments = ["--encoder", "a", "--tuner", "random", "--max-trials", "2", "--name", "late"]
    assert tune(runs_dir, *arguments) == 0
    tested = (runs_dir / "late-best" / "result.json").stat().st_mtime_ns
    (runs_dir / "late" / "result.json").unlink()
    capsys.readouterr()
    assert tune(runs_dir, *arguments, "--resume") == 0
    assert "trial " not in capsys.readouterr().out.replace("trial ┃", "").split("Best trials")[0]
    assert (runs_dir / "late-best" / "result.json").stat().st_mtime_ns == tested


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--encoder", "nothing"], "no run 'nothing'"),
        (["--encoder", "a", "a"], "names a run twice"),
        (["--encoder", "a", "--tuner", "grid", "--max-trials", "3"], "plays no part"),
        (["--encoder", "a", "--max-trials", "0"], "--max-trials is 0"),
        (["--encoder", "a", "--patience", "0"], "--patience is 0"),
        (["--encoder", "a", "--name", "b"], "already exists"),
    ],
)
def test_wrong_input_is_one_line(runs_dir: Path, arguments: list[str], text: str, capsys) -> None:
    before = sorted(runs_dir.iterdir())
    assert tune(runs_dir, *arguments) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert sorted(runs_dir.iterdir()) == before


def test_encoders_with_another_validation_split_are_refused(runs_dir: Path, capsys) -> None:
    """A validation image of one would be a training image of the other."""
    other = ["pretrain", "--dataset", "digits", *SMALL, "--epochs", "1", "--batch-size", "60", "--name", "c"]
    if not (runs_dir / "c").exists():
        assert main([*other, "--seed", "1", "--runs-dir", str(runs_dir)]) == 0
    capsys.readouterr()
    assert tune(runs_dir, "--encoder", "a", "c") == 2
    assert "another validation split" in capsys.readouterr().err


def test_too_few_trials_give_no_importances(tmp_path: Path) -> None:
    rows = [{"trial": str(i), "head": "mlp", "val_accuracy": 0.5 + i / 100} for i in range(9)]
    assert plot_importance(with_intervals(rows, 100), tmp_path / "i.png") is None
    assert plot_importance([*rows, {**rows[0], "trial": "9"}], tmp_path / "i.png") == tmp_path / "i.png"


@pytest.mark.slow
def test_a_chief_and_two_workers_share_the_trials(runs_dir: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "main.py", "tune", "--encoder", "a", "--tuner", "random", "--max-trials", "8"]
    command += ["--epochs", "2", "--batch-size", "60", "--name", "shared", "--runs-dir", str(runs_dir)]
    common = os.environ | {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    processes = [
        subprocess.Popen(
            command,
            env=common | {"KERASTUNER_TUNER_ID": name},
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("chief", "worker-1", "worker-2")
    ]
    try:
        outputs = [process.communicate(timeout=400)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert outputs[1].count("on validation") >= 1
    assert outputs[2].count("on validation") >= 1
    assert outputs[1].count("on validation") + outputs[2].count("on validation") == 8
    assert Run(runs_dir / "shared").result["trials"] == 8
    assert json.loads((runs_dir / "shared-best" / "result.json").read_text())["accuracy"]["test"]["n"] > 0
