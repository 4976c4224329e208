"""The search: what it tries, what it may see, what survives a kill, and what it leaves."""

import contextlib
import csv
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import keras_tuner as kt
import numpy as np
import pytest
from faults import stop_after_first_checkpoint
from PIL import Image

from prl_keras import load_dataset
from prl_keras.cli import main, parse
from prl_keras.config import Finetune, Tune, unused_but_given
from prl_keras.data.seen import record_seen
from prl_keras.errors import InputError
from prl_keras.evaluation.statistics import proportion
from prl_keras.models.storage import save_model, weights_sha256
from prl_keras.runs import Run, create_run, list_runs
from prl_keras.screen.console import console
from prl_keras.tuning import command, features, hypermodel
from prl_keras.tuning.best import BestEpoch
from prl_keras.tuning.data import SearchData, search_data
from prl_keras.tuning.features import FeatureCache
from prl_keras.tuning.figures import plot_importance
from prl_keras.tuning.finish import command_line
from prl_keras.tuning.oracles import make_oracle
from prl_keras.tuning.parallel import process_role
from prl_keras.tuning.report import Row, best_first, best_table, cannot_choose, finished_rows
from prl_keras.tuning.search import search
from prl_keras.tuning.space import NAMES, PAPER, complete_values, paper_configurations
from prl_keras.tuning.together import Sharing
from prl_keras.tuning.tuner import SearchTuner

ROOT = Path(__file__).parents[1]
REQUEST = {"name": "digits", "data_dir": None, "seed": 0, "validation_fraction": 0.1}
REQUEST |= {"samples_per_class": 8, "test_per_class": 5, "image_size": 16, "fold": None}
TRIALS = 5
SEARCH = ["tune", "--encoder", "pre", "--max-trials", str(TRIALS), "--epochs", "3", "--patience", "1"]


def small_encoder(seed: int) -> keras.Model:
    """A network that trains in no time, with the layers that matter here: a random one and batch normalisation."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((16, 16, 3), name="images")
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Conv2D(8, 4, strides=4, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    return keras.Model(images, x, name="encoder")


@pytest.fixture(scope="module")
def data() -> Any:
    return load_dataset(**REQUEST)


def add_encoder(folder: Path, name: str, data: Any, seed: int, **request: Any) -> None:
    facts = {"fingerprint": data.fingerprint, "class_names": list(data.class_names), "image_shape": [16, 16, 3]}
    config = {"command": "pretrain", "options": {"epochs": 1}, "data": {"request": REQUEST | request, **facts}}
    save_model(small_encoder(seed), create_run(folder, name, config).encoder_file)


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory, data: Any) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    add_encoder(folder, "pre", data, seed=1)
    return folder


class Poisoned:
    """A data set whose test split must not be looked at."""

    def __init__(self, dataset: Any):
        self._dataset = dataset

    def __getattr__(self, name: str) -> Any:
        assert name != "test", "the search looked at the test split"
        return getattr(self._dataset, name)


@pytest.fixture(scope="module")
def finished(runs_dir: Path) -> tuple[Run, dict[str, int]]:
    """A search by the command, its data set's test split poisoned; and how often images were encoded."""
    counts = {"encode": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "open_data", lambda *args, original=command.open_data: Poisoned(original(*args)))

        def counted(*args: Any, original: Any = features.encode) -> np.ndarray:
            counts["encode"] += 1
            return original(*args)

        patch.setattr(features, "encode", counted)
        assert main([*SEARCH, "--name", "whole", "--runs-dir", str(runs_dir)]) == 0
    return Run(runs_dir / "whole"), counts


def stop(*args: Any) -> None:
    """A user's Ctrl-C."""
    raise KeyboardInterrupt


def read_csv(run: Run) -> list[dict[str, str]]:
    with (run.path / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def open_oracle(folder: Path, kind: str, max_trials: int = 20, encoders: tuple[str, ...] = ("a",)) -> kt.Oracle:
    """As the tuner does it: reloaded if it was saved before."""
    oracle = make_oracle(kind, encoders, max_trials, epochs=9, seed=0)
    oracle._set_project_dir(str(folder), "trials")
    if (folder / "trials" / "oracle.json").exists():
        oracle.reload()
    return oracle


def end(oracle: kt.Oracle, trial: Any, accuracy: float = 0.5) -> None:
    metrics = {"val_accuracy": accuracy, "best_epoch": 1, "epochs": 1, "seconds": 1}
    oracle.update_trial(trial.trial_id, metrics)
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def test_a_trial_is_compiled_for_its_number_of_steps(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    known = hypermodel.compile_classifier
    monkeypatch.setattr(hypermodel, "compile_classifier", lambda *given: told.append(given[-1]) or known(*given))
    options = Tune(epochs=3, batch_size=26, precision="float32")
    hypermodel.FineTuning(search_data(data), {"a": small_encoder(0)}, None, options).build(kt.HyperParameters())
    assert len(data.train) == 80
    assert told == [3 * 3], "three batches an epoch, the last one of 28"


# What is tried -------------------------------------------------------------------------------------------


def test_the_papers_configurations_are_head_times_freezing() -> None:
    four = paper_configurations(("a",))
    assert {(c["head"], c["freeze"]) for c in four} == {(h, f) for h in ("linear", "mlp") for f in (True, False)}
    assert all(c["learning_rate"] == 1e-3 and c["weight_decay"] == 0 == c["dropout"] for c in four)
    assert all(c["augment"] == "none" for c in four)
    assert [c["encoder"] for c in paper_configurations(("a", "b"))] == ["a"] * 4 + ["b"] * 4
    assert Finetune().weight_decay == 0 == Finetune().dropout


@pytest.mark.parametrize("kind", ["random", "bayesian", "grid"])
@pytest.mark.parametrize("encoders", [("a",), ("a", "b")])
def test_a_search_begins_with_the_papers_configurations_also_after_a_kill_and_with_two_workers(
    tmp_path: Path, kind: str, encoders: tuple[str, ...]
) -> None:
    tried = []
    for worker in ("w0", "w1", "w0", "w0"):  # w1 never ends its trial: it is handed out again
        oracle = open_oracle(tmp_path, kind, encoders=encoders)
        trial = oracle.create_trial(worker)
        tried.append(trial.hyperparameters.values)
        if worker == "w0":
            end(oracle, trial)
    assert tried.pop(2) == tried[1]
    running = oracle.create_trial("w1")
    assert oracle.create_trial("w1") is running  # a worker that was killed and started again
    tried.append(running.hyperparameters.values)
    end(oracle, running)
    trials = (oracle.create_trial("w0") for _ in range(4 * len(encoders) - 4))
    for trial in trials:
        tried.append(trial.hyperparameters.values)
        end(oracle, trial)
    assert tried == paper_configurations(encoders)
    following = oracle.create_trial("w0")
    assert following.status == "RUNNING"
    assert following.hyperparameters.values not in tried


def test_grid_search_tries_every_combination_once_also_when_resumed(tmp_path: Path) -> None:
    tried = set()
    while True:
        oracle = open_oracle(tmp_path, "grid", max_trials=1000)
        trials = [oracle.create_trial("w0")]
        while len(trials) < 40 and trials[-1].status == "RUNNING":
            end(oracle, trials[-1])
            trials.append(oracle.create_trial("w0"))
        if trials[-1].status == "RUNNING":
            end(oracle, trials[-1])
        tried |= {tuple(sorted(t.hyperparameters.values.items())) for t in trials if t.status == "RUNNING"}
        tried |= {tuple(sorted(t.hyperparameters.values.items())) for t in trials if t.status == "COMPLETED"}
        if trials[-1].status == "STOPPED":
            break
    assert len(tried) == 2 * 2 * 2 * 3 * 2 * 2 == len(oracle.trials)


def test_bayesian_search_survives_a_workers_float32_values(tmp_path: Path) -> None:
    """Keras Tuner's messages carry float32: 0.001 comes back as 0.0010000000475, which is none of the choices."""
    oracle = open_oracle(tmp_path, "bayesian", max_trials=12)
    for number in range(11):
        trial = oracle.create_trial("w0")
        told = kt.engine.trial.Trial.from_proto(trial.to_proto())
        assert complete_values(told.hyperparameters.values, ("a",)) == complete_values(
            trial.hyperparameters.values, ("a",)
        )
        end(oracle, told, accuracy=0.1 * (number % 7))
    assert oracle.create_trial("w0").status == "RUNNING"
    assert oracle.create_trial("w1").status == "STOPPED"


def test_a_trial_that_was_killed_while_its_state_was_written_is_not_lost(tmp_path: Path) -> None:
    oracle = open_oracle(tmp_path, "random")
    end(oracle, oracle.create_trial("w0"))
    before = (tmp_path / "trials" / "oracle.json").read_text(encoding="utf-8")
    killed = oracle.create_trial("w0")
    # trial.json is there, the oracle does not know it
    (tmp_path / "trials" / "oracle.json").write_text(before, encoding="utf-8")
    again = open_oracle(tmp_path, "random").create_trial("w0")
    assert (again.trial_id, again.status) == (killed.trial_id, "RUNNING")
    assert again.hyperparameters.values == killed.hyperparameters.values
    assert not list((tmp_path / "trials").rglob(".tmp-*"))


def test_equal_seeds_try_equal_configurations_also_seed_0(tmp_path: Path) -> None:
    tried = []
    for name in ("one", "two"):
        oracle = open_oracle(tmp_path / name, "random")
        for _ in range(6):
            trial = oracle.create_trial("w0")
            end(oracle, trial)
        tried.append(trial.hyperparameters.values)
    assert tried[0] == tried[1]


# What the search sees ------------------------------------------------------------------------------------


def test_search_data_has_no_test_split(data: Any) -> None:
    seen = search_data(Poisoned(data))
    assert set(SearchData.__dataclass_fields__) == {"train", "validation", "num_classes", "image_shape"}
    assert len(seen.train) == 80
    assert not any(np.shares_memory(part.images, data.test.images) for part in (seen.train, seen.validation))


def test_features_are_encoded_once_and_shared_through_files(
    tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = small_encoder(3)
    first = FeatureCache(tmp_path / "features", search_data(data), "float32").features(encoder)
    assert [len(part) for part in first] == [len(data.train), len(data.validation)]
    np.testing.assert_array_equal(first[1], encoder.predict_on_batch(data.validation.images))
    monkeypatch.setattr(features, "encode", lambda *args: pytest.fail("encoded again"))
    cache = FeatureCache(tmp_path / "features", search_data(data), "float32")
    for _ in range(2):
        for old, new in zip(first, cache.features(encoder), strict=True):
            np.testing.assert_array_equal(old, new)
    monkeypatch.undo()
    other = cache.features(small_encoder(4))
    assert not np.array_equal(other[0], first[0])
    assert len(list((tmp_path / "features").iterdir())) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("error:Skipping variable loading")  # the optimizer's state is continued too
def test_the_shared_encoder_never_changes_and_hyperband_continues_its_trials(tmp_path: Path, data: Any) -> None:
    encoder = small_encoder(1)
    before, trainable = weights_sha256(encoder), encoder.trainable
    run = create_run(tmp_path, "band", {})
    options = Tune(tuner="hyperband", max_trials=10, epochs=3, encoder=("a",), precision="float32")
    rows = search(run, search_data(data), {"a": encoder}, options)
    assert (weights_sha256(encoder), encoder.trainable) == (before, trainable)
    assert any(not row.values["freeze"] for row in rows)
    later = [json.loads(file.read_text(encoding="utf-8")) for file in run.path.glob("trials/trial_*/trial.json")]
    continued = [trial for trial in later if trial["hyperparameters"]["values"].get("tuner/initial_epoch")]
    assert continued
    assert {row.epochs for row in rows} == {1, 3}
    assert {path.name for path in run.path.glob("trials/trial_*/*")} == {"trial.json"}
    assert not (run.path / "features").exists()


@pytest.mark.slow
def test_a_trial_whose_loss_is_not_finite_fails_at_its_step(
    tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_broken(model: keras.Model, *args: Any, original: Any = hypermodel.compile_classifier, **kwargs: Any):
        original(model, *args, **kwargs)
        bias = model.trainable_variables[-1]
        bias.assign(keras.ops.full_like(bias, np.nan))

    monkeypatch.setattr(hypermodel, "compile_classifier", compile_broken)
    with pytest.raises(InputError, match=r"three trials in a row failed: .*at batch 0\. Loss value: nan"):
        search(
            create_run(tmp_path, "nan", {}),
            search_data(data),
            {"a": small_encoder(1)},
            Tune(max_trials=4, epochs=2, encoder=("a",), precision="float32"),
        )


# The command ---------------------------------------------------------------------------------------------


def test_trials_csv_holds_every_trial_with_its_interval(finished: tuple[Run, dict[str, int]]) -> None:
    run, counts = finished
    rows = read_csv(run)
    assert [int(row["trial"]) for row in rows] == list(range(1, TRIALS + 1))
    assert set(NAMES) < set(rows[0])
    assert [row["paper"] for row in rows][:4] == ["True"] * 4
    for row in rows:
        low, value, high = (float(row[f"validation_{name}"]) for name in ("low", "value", "high"))
        assert low <= value <= high
        assert value == int(row["validation_correct"]) / int(row["validation_n"])
        assert 1 <= int(row["best_epoch"]) <= int(row["epochs"]) <= 3
        assert float(row["validation_loss"]) > 0
        worst = int(row["validation_worst_correct"]) / int(row["validation_worst_n"])
        assert worst == float(row["validation_worst_value"]) <= float(row["validation_balanced"])
        assert row["validation_worst_class"] in "0123456789"
    assert counts["encode"] == 2  # train and validation


def test_the_winner_is_an_ordinary_run_and_no_worse_than_the_papers(
    finished: tuple[Run, dict[str, int]], runs_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    run, _ = finished
    result = run.result
    best = result["best"]["validation"]["correct"]
    assert len(result["paper_configurations"]) == 4
    assert all(best >= one["validation"]["correct"] for one in result["paper_configurations"])
    winner = Run(runs_dir / result["winner_run"])
    assert winner.config["options"]["seed"] == 1
    assert winner.config["options"]["include_validation"] is True
    assert winner.result["epochs"] == result["best"]["epochs"]
    assert winner.result["accuracy"]["train"]["n"] == 80 + result["best"]["validation"]["n"]
    assert result["accuracy"]["test"] == winner.result["accuracy"]["test"]
    assert main(["evaluate", winner.name, "--runs-dir", str(runs_dir)]) == 0
    assert main(["runs", "--runs-dir", str(runs_dir)]) == 0
    shown = capsys.readouterr().out
    assert "whole-winner" in shown


def test_the_winners_command_line_is_the_winners_configuration(
    finished: tuple[Run, dict[str, int]], runs_dir: Path
) -> None:
    run, _ = finished
    options = parse(run.result["winner_command"].split()[2:])
    assert unused_but_given(options) is None
    recorded = Run(runs_dir / "whole-winner").config["options"]
    assert {name: getattr(options, name) for name in recorded} == recorded


def test_a_command_line_has_a_size_as_it_is_typed() -> None:
    settings = Finetune(encoder="a b", image_size=(24, 32), freeze=True, recipe="strong")
    options = parse(shlex.split(command_line(settings))[2:])
    assert (options.encoder, options.image_size, options.freeze) == ("a b", (24, 32), True)
    assert unused_but_given(options) is None


def test_the_pictures_and_the_event_files_are_there(finished: tuple[Run, dict[str, int]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = finished
    for name in ("parallel", "importance"):
        with Image.open(run.path / "plots" / f"{name}.png") as picture:
            assert picture.width > 600
    rates = set()
    for folder in (run.path / "logs").glob("*/execution0"):
        events = EventAccumulator(str(folder)).Reload()
        session = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        assert b"learning_rate" in session
        rates.add(session)
        assert "epoch_accuracy" in EventAccumulator(str(folder / "validation")).Reload().Tags()["tensors"]
    assert len(rates) == TRIALS
    assert sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file()) < 2e6


@pytest.mark.slow
def test_the_hparams_tab_of_a_real_tensorboard_compares_the_trials(finished: tuple[Run, dict[str, int]]) -> None:
    run, _ = finished
    port = free_port()
    arguments = ["--logdir", str(run.path / "logs"), "--port", str(port), "--load_fast=false"]
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *arguments], stderr=subprocess.DEVNULL)

    def ask(what: str, **body: Any) -> dict[str, Any]:
        url = f"http://127.0.0.1:{port}/data/plugin/hparams/{what}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    statuses = ["STATUS_SUCCESS", "STATUS_RUNNING", "STATUS_UNKNOWN", "STATUS_FAILURE"]
    groups = []
    try:
        for _ in range(90):
            time.sleep(1)
            with contextlib.suppress(OSError):
                ask("experiment")
                groups = ask("session_groups", allowedStatuses=statuses, colParams=[], startIndex=0, sliceSize=99)
                groups = groups["sessionGroups"]
            if len(groups) == TRIALS:
                break
    finally:
        server.terminate()
        server.wait()
    shown = {int(group["name"]) + 1: group for group in groups}
    for row in read_csv(run):
        group = shown[int(row["trial"])]
        assert group["hparams"]["head"] == row["head"]
        assert group["hparams"]["learning_rate"] == pytest.approx(float(row["learning_rate"]))
        tags = {(metric["name"]["group"], metric["name"]["tag"]) for metric in group["metricValues"]}
        assert ("validation", "epoch_accuracy") in tags


@pytest.mark.slow
def test_a_killed_search_loses_one_trial_and_a_killed_winner_is_finished(
    finished: tuple[Run, dict[str, int]],
    runs_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    arguments = [*SEARCH, "--name", "killed", "--runs-dir", str(runs_dir)]
    begun: list[str] = []

    def begin(tuner: SearchTuner, trial: Any, original: Any = SearchTuner.on_trial_begin) -> None:
        begun.append(trial.trial_id)
        if len(begun) == 3:
            raise KeyboardInterrupt
        original(tuner, trial)

    monkeypatch.setattr(SearchTuner, "on_trial_begin", begin)
    stop_after_first_checkpoint(monkeypatch)  # only the winner's training calls it
    assert main(arguments) == 130  # in trial 3
    assert capsys.readouterr().err.endswith("--resume\n")
    assert main([*arguments, "--resume"]) == 130  # after an epoch of the winner's training
    assert Run(runs_dir / "killed-winner").result is None
    assert begun == ["0", "1", "2", "2", "3", "4"]
    monkeypatch.undo()
    assert main([*arguments, "--resume"]) == 0
    uninterrupted, resumed = read_csv(finished[0]), read_csv(Run(runs_dir / "killed"))
    for old, new in zip(uninterrupted, resumed, strict=True):
        assert {**old, "seconds": ""} == {**new, "seconds": ""}
    whole, resumed = Run(runs_dir / "whole-winner"), Run(runs_dir / "killed-winner")
    assert resumed.result["encoder_sha256_after"] == whole.result["encoder_sha256_after"]
    assert resumed.result["accuracy"] == whole.result["accuracy"]
    assert [line["loss"] for line in resumed.metrics] == [line["loss"] for line in whole.metrics]


def test_a_search_that_never_began_leaves_nothing(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(features, "encode", stop)
    assert main([*SEARCH, "--name", "never", "--runs-dir", str(runs_dir)]) == 130
    assert capsys.readouterr().err.endswith("nothing was kept: repeat the command\n")
    assert not (runs_dir / "never").exists()


def test_a_search_says_before_it_begins_that_an_encoder_has_seen_test_images(
    tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name, images in (("pre", data.test.images[:3]), ("fair", data.train.images)):
        add_encoder(tmp_path, name, data, seed=1)
        record_seen(Run(tmp_path / name), images)
    monkeypatch.setattr(SearchTuner, "on_trial_begin", stop)
    search = ["tune", "--encoder", "pre", "fair", *SEARCH[3:]]
    assert main([*search, "--runs-dir", str(tmp_path)]) == 130
    shown = capsys.readouterr().out
    assert "warning: run pre was trained on 3 of 50 test images: figures on these are not of new images" in shown
    assert "run fair" not in shown


@pytest.mark.slow
def test_three_failures_in_a_row_end_the_search_in_one_line(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise MemoryError("no memory left")

    monkeypatch.setattr("prl_keras.tuning.hypermodel.FineTuning.fit", fail)
    assert main([*SEARCH, "--name", "broken", "--runs-dir", str(runs_dir)]) == 2
    streams = capsys.readouterr()
    assert streams.err.count("\n") == 1
    assert "no memory left" in streams.err
    assert f"trial 1 of {TRIALS}" in streams.out
    assert not (runs_dir / "broken").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-trials", "0"], "--max-trials is 0"),
        (["--epochs", "0"], "--epochs is 0"),
        (["--patience", "0"], "--patience is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--tuner", "magic"], "magic"),
        (["--encoder", "nobody"], "nobody"),
        (["--encoder", "pre", "pre"], "twice"),
        (
            ["--encoder", "pre", "elsewhere"],
            "'elsewhere' was trained on other images than these and kept no record of all of them",
        ),
        (["--image-size", "24"], "16x16x3"),
        (["--name", "../x"], "not usable"),
        (["--resume", "--name", "pre"], "unfinished tune run"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, data: Any, arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    for name, fingerprint in (("pre", data.fingerprint), ("elsewhere", "0" * 64)):
        config = {"command": "pretrain", "data": {"request": REQUEST}}
        config["data"] |= {"fingerprint": fingerprint, "image_shape": [16, 16, 3]}
        config["data"]["class_names"] = [*data.class_names]
        create_run(tmp_path, name, config).encoder_file.touch()
    arguments = arguments if "--encoder" in arguments else ["--encoder", "pre", *arguments]
    assert main(["tune", *arguments, "--runs-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert len(list_runs(tmp_path)) == 2


# Parts ---------------------------------------------------------------------------------------------------


def test_weight_decay_shrinks_weights_beside_the_gradient(data: Any) -> None:
    from prl_keras.training.finetuning import compile_classifier

    norms = []
    for decay in (0.0, 10.0):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(10)])
        compile_classifier(model, Finetune(weight_decay=decay), steps=1)
        for _ in range(20):
            model.train_on_batch(np.zeros((8, 4), "float32"), np.zeros(8, int))  # no gradient on the kernel
        norms.append(float(np.linalg.norm(model.get_weights()[0])))
    assert norms[1] == pytest.approx(norms[0] * (1 - 1e-3 * 10) ** 20, rel=1e-3)


def test_too_few_trials_have_no_picture_of_importances(tmp_path: Path) -> None:
    oracle = open_oracle(tmp_path, "random")
    for number in range(4):
        end(oracle, oracle.create_trial("w0"), number / 10)
    rows = finished_rows(list(oracle.trials.values()), ("a",), 10)
    assert len(rows) == 4
    assert plot_importance(rows, "few", tmp_path / "few.png") is None
    assert all(row.paper for row in rows)
    assert not replace(rows[0], values={**rows[0].values, "dropout": 0.5}).paper
    assert PAPER["learning_rate"] == 1e-3


def row(number: int, correct: int, loss: float | None, **facts: Any) -> Row:
    values = {**PAPER, "encoder": "a", "head": "linear", "freeze": True}
    return Row(number, values, proportion(correct, 40) | facts, 1, 1, 0.0, loss)


def test_of_equally_accurate_trials_the_one_with_the_lowest_loss_is_the_best() -> None:
    rows = [row(1, 38, 0.1), row(2, 39, 0.9), row(3, 39, 0.2), row(4, 39, 0.2)]
    assert [one.number for one in best_first(rows)] == [3, 4, 2, 1]
    rows.append(row(5, 39, None))  # of an older version: no losses to compare
    assert [one.number for one in best_first(rows)] == [2, 3, 4, 5, 1]


def test_a_search_says_where_validation_cannot_choose() -> None:
    assert "all 2 are within the best one's interval on 40 images" in cannot_choose([row(1, 38, 0.1), row(2, 36, 0.1)])
    assert cannot_choose([row(1, 40, 0.1), row(2, 40, 0.1)])
    hopeless = row(3, 20, 0.1)
    assert "1 of the 2 others are within" in cannot_choose([row(1, 38, 0.1), row(2, 36, 0.1), hopeless])
    assert cannot_choose([row(1, 38, 0.1), hopeless]) is None
    assert cannot_choose([row(1, 38, 0.1)]) is None, "one trial: nothing to choose"


def test_the_table_of_trials_shows_what_a_large_class_hides(capsys: pytest.CaptureFixture) -> None:
    worst = {"class": 1, "value": 0.0, "correct": 0, "n": 2}
    console.print(best_table([row(1, 38, 0.1, balanced=0.5, worst=worst), row(2, 38, None)], ("a", "[b]")))
    shown = capsys.readouterr().out
    for part in ("balanced", "50.0 %", "0.0 %", "[b]"):
        assert part in shown, shown


def test_the_best_epoch_is_the_most_accurate_then_the_likeliest_then_the_first() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    model.set_weights([np.eye(2)])
    labels = np.array([0, 0, 0, 1])
    best = BestEpoch(np.eye(2, dtype="float32")[[0, 0, 0, 0]], labels)
    best.set_model(model)
    seen = []
    for epoch, (value, loss) in enumerate([(0.5, 1.0), (0.75, 0.9), (0.75, 0.4), (0.75, 0.4), (0.5, 0.1)]):
        best.on_epoch_end(epoch, {"val_accuracy": value, "val_loss": loss})
        seen.append(best.figures["best_epoch"])
    assert seen == [1, 2, 3, 3, 3]
    assert best.figures | {"best_epoch": 0} == {
        "val_accuracy": 0.75,
        "val_loss": 0.4,
        "best_epoch": 0,
        "balanced": 0.5,
        "worst_class": 1,
        "worst_correct": 0,
        "worst_n": 1,
    }


def test_a_search_whose_pictures_fail_has_its_winner(
    finished: tuple[Run, dict[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prl_keras.tuning import finish

    run, _ = finished
    rows = [row(1, 38, 0.1), row(2, 30, 0.2)]
    copy = create_run(tmp_path, "copy", {"data": run.config["data"]})
    monkeypatch.setattr(finish, "_trained", lambda settings: run)
    monkeypatch.setattr(finish, "plot_parallel", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        finish.finish(copy, rows, Tune(encoder=("a",)))
    assert copy.result["best"]["trial"] == 1
    assert copy.result["accuracy"]["validation"]["correct"] == 38


def test_the_processes_role_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert process_role() == "alone"
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    with pytest.raises(InputError, match="KERASTUNER_ORACLE_IP is not"):
        process_role()
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "x")
    with pytest.raises(InputError, match="'x'"):
        process_role()
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8000")
    assert process_role() == "chief"
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "w1")
    assert process_role() == "worker"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(name: str, port: int, runs_dir: Path, *more: str) -> subprocess.Popen:
    environment = os.environ | {"KERASTUNER_TUNER_ID": name, "KERASTUNER_ORACLE_IP": "127.0.0.1"}
    environment |= {"KERASTUNER_ORACLE_PORT": str(port), "TF_NUM_INTRAOP_THREADS": "1"}
    arguments = [sys.executable, "main.py", *SEARCH, "--name", "shared", "--runs-dir", str(runs_dir), *more]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(arguments, cwd=ROOT, env=environment, **streams)


@pytest.mark.slow
def test_a_chief_and_two_workers_share_a_search(finished: tuple[Run, dict[str, int]], runs_dir: Path) -> None:
    port = free_port()
    processes = [start(name, port, runs_dir) for name in ("chief", "w0", "w1")]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    shared = read_csv(Run(runs_dir / "shared"))
    alone = read_csv(finished[0])
    assert [{name: row[name] for name in NAMES} for row in shared] == [{n: row[n] for n in NAMES} for row in alone]
    by_worker = [len(re.findall(rf"^trial \d of {TRIALS}  ", output, re.MULTILINE)) for output in outputs]
    assert by_worker[0] == TRIALS == by_worker[1] + by_worker[2]
    assert min(by_worker[1:]) >= 1
    assert Run(runs_dir / "shared-winner").result is not None


@pytest.mark.slow
def test_a_chief_gives_up_when_its_worker_was_killed_and_one_process_continues(tmp_path: Path, data: Any) -> None:
    add_encoder(tmp_path, "pre", data, seed=1)
    port = free_port()
    chief, worker = (start(name, port, tmp_path, "--worker-timeout", "30") for name in ("chief", "w0"))
    for line in worker.stdout:
        if line.startswith("trial 2 of"):
            break
    worker.kill()
    worker.wait()
    output = chief.communicate(timeout=200)[0]
    assert chief.returncode == 2, output
    assert "no worker was heard of for 30 s" in output.splitlines()[-1]
    assert main([*SEARCH, "--name", "shared", "--runs-dir", str(tmp_path), "--resume"]) == 0
    assert len(read_csv(Run(tmp_path / "shared"))) == TRIALS


def sharing(folder: Path, seconds: float = 60.0, lost: Any = None) -> Sharing:
    return Sharing(folder / "leases", lost or (lambda lease: pytest.fail(f"lost {lease.file}")), seconds)


@pytest.mark.parametrize("kind", ["random", "bayesian", "grid", "hyperband"])
def test_processes_that_share_a_folder_try_what_one_alone_tries(tmp_path: Path, kind: str) -> None:
    """Three oracles on one folder, which take turns; each knows of the others' trials by the files alone."""
    alone, expected = open_oracle(tmp_path / "alone", kind, 8), []
    for _ in range(8):
        trial = alone.create_trial("one")
        expected.append(dict(trial.hyperparameters.values))
        end(alone, trial, 0.5 + len(expected) / 100)
    found, crew = [], [open_oracle(tmp_path / "shared", kind, 8) for _ in range(3)]
    for number, oracle in enumerate(crew * 3):
        oracle.sharing = oracle.sharing or sharing(tmp_path / "shared")
        trial = oracle.create_trial(f"process-{number % 3}")
        if number < 8:
            assert trial.trial_id == str(number)
            found.append(dict(trial.hyperparameters.values))
            end(oracle, trial, 0.5 + len(found) / 100)
        else:
            assert trial.status == "STOPPED"
    assert found == expected
    assert not list((tmp_path / "shared" / "leases").iterdir())


def test_a_dead_process_s_trial_is_run_again_and_no_trial_twice_at_a_time(tmp_path: Path) -> None:
    told: list[Any] = []
    dead, living = (open_oracle(tmp_path, "random", 2) for _ in range(2))
    with sharing(tmp_path, 1.0, told.append) as dead.sharing, sharing(tmp_path, 1.0) as living.sharing:
        lost = dead.create_trial("dead")
        lease = next((tmp_path / "leases").glob("trial-*"))
        other = living.create_trial("living")
        assert (lost.trial_id, other.trial_id) == ("0", "1")
        end(living, other)
        assert living.create_trial("living").status == "IDLE", "what is left is being worked on"
        lease.write_text("process 1 on elsewhere, x", encoding="utf-8")  # whom nobody keeps alive
        old = time.time() - 100
        os.utime(lease, (old, old))
        again = living.create_trial("living")
        assert again.trial_id == "0"
        assert again.hyperparameters.values == lost.hyperparameters.values
        end(living, again)
        assert living.create_trial("living").status == "STOPPED"
        assert [trial.status for trial in living.trials.values()] == ["COMPLETED"] * 2
        end_of_wait = time.monotonic() + 30
        while not told and time.monotonic() < end_of_wait:  # at its next sign of life
            time.sleep(0.05)
    assert [lost.file.name for lost in told] == [lease.name], "who had it is told"


@pytest.mark.slow
def test_a_shared_search_is_the_search(
    finished: tuple[Run, dict[str, int]], runs_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    """One process joins what another one began, and whoever comes when all is done says so."""
    words = [*SEARCH, "--shared", "--name", "together", "--runs-dir", str(runs_dir)]
    with pytest.MonkeyPatch.context() as patch:
        usual = SearchTuner.on_trial_end
        patch.setattr(SearchTuner, "on_trial_end", lambda self, trial: (usual(self, trial), stop()))
        assert main(words) == 130
    folder = runs_dir / "together"
    assert len(list(folder.glob("trials/trial_*/trial.json"))) == 1
    assert main(words) == 0
    capsys.readouterr()
    shared, alone = read_csv(Run(folder)), read_csv(finished[0])
    assert [{name: row[name] for name in NAMES} for row in shared] == [{n: row[n] for n in NAMES} for row in alone]
    assert not list((folder / "leases").iterdir())
    assert not (folder / "features").exists()
    winners = [Run(runs_dir / f"{name}-winner") for name in ("together", "whole")]
    assert winners[0].result["accuracy"] == winners[1].result["accuracy"]
    assert main(words) == 2
    assert "is finished; nothing to resume" in capsys.readouterr().err
