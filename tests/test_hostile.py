"""Files of a run that were damaged or made by someone else: one line, exit code 2, nothing half-written."""

import copy
import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prl_keras.cli import main
from prl_keras.config import Baseline, Finetune, Pretrain, RunOptions
from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.runs import Run, create_run, list_runs
from prl_keras.runs.lifecycle import check_same
from prl_keras.runs.locks import locked
from prl_keras.runs.recorded import recorded_options
from prl_keras.terminal import ready_streams
from prl_keras.training.limits import check_training

FIGURE = {"value": 0.5, "low": 0.4, "high": 0.6, "correct": 5, "n": 10}
CONFIG = {
    "created": "2026-01-01T00:00:00+00:00",
    "command": "finetune",
    "options": {"seed": 0, "epochs": 3, "learning_rate": 0.001, "encoder": "latest"},
    "data": {
        "request": {
            "name": "digits",
            "data_dir": None,
            "seed": 0,
            "validation_fraction": 0.1,
            "samples_per_class": 12,
            "test_per_class": None,
            "image_size": 16,
            "fold": None,
        },
        "fingerprint": "0" * 64,
        "class_names": [str(k) for k in range(10)],
        "image_shape": [16, 16, 3],
    },
    "versions": {"keras": "3.0.0"},
}
RESULT = {"epochs": 3, "seconds": 1.5, "accuracy": {"validation": FIGURE, "test": FIGURE}, "encoder_run": "source"}
PRETRAINED = {"epochs": 3, "seconds": 1.5, "saved_encoder": {"val_prototype_accuracy": 0.5}}
METRICS = {"epoch": 1, "loss": 0.5, "val_loss": None, "seconds": 1.5}
ODD = [None, True, -1, 1e9, float("nan"), "x", "../../etc", "\udcff", [], [None], {}, {"name": 3}]
BROKEN = [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b'{"epoch": 1}\x00', b"[" * 100_000]


def places(content: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


def variants(content: dict[str, Any]) -> Iterator[str]:
    """The content with each value in turn replaced by each odd one, or left out."""
    for path in places(content):
        for odd in [*ODD, ...]:
            changed = copy.deepcopy(content)
            part = changed
            for key in path[:-1]:
                part = part[key]
            del part[path[-1]]
            if odd is not ...:
                part[path[-1]] = odd
            yield json.dumps(changed)


def run_with(runs_dir: Path, config: dict[str, Any], result: dict[str, Any] | None) -> Run:
    run = create_run(runs_dir, "run", config)
    if result is not None:
        write_json(run.path / "result.json", result)
    return run


def check_one_line(capsys: pytest.CaptureFixture, arguments: list[str]) -> int:
    """No exception, and either it worked or one line says why not; returns the exit code."""
    code = main(arguments)
    error = capsys.readouterr().err
    assert (code, error.count("\n")) in ((0, 0), (2, 1)), (arguments, error)
    return code


@pytest.mark.parametrize(
    ("file", "config", "result", "content"),
    [
        ("config.json", CONFIG, RESULT, CONFIG),
        pytest.param("result.json", CONFIG, RESULT, RESULT, marks=pytest.mark.slow),
        ("result.json", CONFIG | {"command": "pretrain"}, PRETRAINED, PRETRAINED),
        ("metrics.jsonl", CONFIG, None, METRICS),
    ],
)
def test_a_damaged_record_is_listed_or_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, file: str, config: dict, result: dict | None, content: dict
) -> None:
    run = run_with(tmp_path, config, result)
    create_run(tmp_path, "sound", CONFIG)
    listed = set()
    for text in [*(text.encode() for text in variants(content)), *BROKEN]:
        (run.path / file).write_bytes(text)
        assert main(["runs", "--runs-dir", str(tmp_path)]) == 0
        captured = capsys.readouterr()
        assert captured.out.count("\n sound ") == 1, "one damaged run hides no other"
        is_listed = captured.out.count("\n run ") == 2  # the head of the table too
        listed.add(is_listed)
        complaint = rf"warning: not listed: .*{re.escape(str(run.path / file))}.*\n"
        assert is_listed != bool(re.fullmatch(complaint, captured.err)), captured
    assert listed == {True, False}, "some changes do no harm, some do"


def test_a_result_that_is_too_large_hides_no_other_run(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tables of many classes had before their confusions moved to a file of their own."""
    write_json(create_run(tmp_path, "big", CONFIG).path / "result.json", RESULT | {"confusions": [0] * 1000})
    write_json(create_run(tmp_path, "small", CONFIG).path / "result.json", RESULT)
    monkeypatch.setattr("prl_keras.runs.records._LARGEST", 5000)
    assert main(["runs", "--runs-dir", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "\n small " in captured.out
    assert re.fullmatch(
        r"warning: not listed: cannot read .*big/result\.json: it has more than 5,000 bytes\n", captured.err
    )


ON_A_RUN = [
    ["evaluate", "run"],
    ["report", "run"],
    ["finetune", "--encoder", "run"],
    ["finetune", "--resume"],
    ["visualize", "run", "--before"],
    ["predict", "run", "picture.png"],
    ["tune", "--encoder", "run"],
]


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("words", ON_A_RUN, ids=" ".join)
def test_no_command_trusts_a_damaged_config(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, words: list[str], every: int
) -> None:
    """With models that are none, so that each ends in one line, wherever it stops to read the config."""
    run = run_with(tmp_path / "runs", CONFIG, None if "--resume" in words else RESULT)
    for file in (run.encoder_file, run.classifier_file):
        file.write_bytes(b"no model")
    Image.new("RGB", (16, 16)).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    added = CONFIG["data"] | {"request": CONFIG["data"]["request"] | {"more": 1}}
    damaged = [json.dumps({"data": added}), *variants({part: CONFIG[part] for part in ("data", "options")})]
    for text in damaged[::every]:
        (run.path / "config.json").write_text(json.dumps(CONFIG | json.loads(text)), encoding="utf-8")
        assert check_one_line(capsys, [*words, "--runs-dir", "runs"]) == 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [Pretrain, Finetune, Baseline])
def test_recorded_options_are_those_that_were_given_or_refused(tmp_path: Path, kind: type[RunOptions]) -> None:
    recorded = {key: value for key, value in asdict(kind()).items() if not isinstance(value, Path)}
    run = create_run(tmp_path, "run", {"options": recorded})
    assert recorded_options(run, kind) == kind()
    file, config = run.path / "config.json", run.config
    accepted = []
    for key, odd in product([*recorded, "more"], ODD):
        file.write_text(json.dumps(config | {"options": recorded | {key: odd}}), encoding="utf-8")
        with suppress(InputError):
            recorded_options(run, kind)
            accepted.append((key, odd))
    assert ("learning_rate", -1) in accepted, "a number, if an odd one"
    several = [key for key, value in recorded.items() if isinstance(value, tuple)]
    assert not any(key == "more" or isinstance(odd, list | dict) for key, odd in accepted if key not in several)


def test_an_option_younger_than_the_run_had_its_default(tmp_path: Path) -> None:
    old = {"learning_rate": 0.001, "epochs": 25}
    run = create_run(tmp_path, "run", {"command": "finetune", "options": old, "data": CONFIG["data"]})
    new = {"command": "finetune", "data": CONFIG["data"]}
    defaults = {"deterministic": Finetune.deterministic, "dropout": Finetune.dropout}
    defaults |= {"recipe": "paper", "schedule": "constant", "label_smoothing": 0.0, "batch_size": 128}
    check_same(run, new | {"options": old | defaults})
    with pytest.raises(InputError, match=r"dropout = 0\.0, not 0\.5"):
        check_same(run, new | {"options": old | {"dropout": 0.5}})
    with pytest.raises(InputError, match=r"epochs = 25, not 30"):
        check_same(run, new | {"options": old | {"epochs": 30}})


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_used_without_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, number: int
) -> None:
    ready_streams()

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    run = create_run(tmp_path, "run", {})
    for _ in range(2):
        with locked(run):
            pass
    assert capsys.readouterr().err == (
        f"warning: {run.path}: no locks on this disk ({os.strerror(number)}); start no second process on this run\n"
    ), "said once"


def test_a_draft_that_vanishes_while_others_are_looked_at_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has just given its run the name."""
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [self / ".new-gone"])
    run = create_run(tmp_path, "run", {})
    monkeypatch.undo()
    assert [found.name for found in list_runs(tmp_path)] == [run.name]


def test_a_clock_that_goes_backwards_makes_no_draft_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".new-young").mkdir()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 1e7)
    create_run(tmp_path, "run", {})
    assert (tmp_path / ".new-young").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "x" * 5000], "too long"),
        (["pretrain", "--dataset", "x" * 5000], "too long"),
        (["pretrain", "--dataset", "digits", "--split-seed", "0", "--seed", "4294967296"], "--seed is 4294967296"),
        (["baseline", "--dataset", "digits", "--checkpoint-steps", "0"], "--checkpoint-steps is 0"),
        (["baseline", "--dataset", "digits", "--checkpoint-steps", "-5"], "--checkpoint-steps is -5"),
        (["baseline", "--dataset", "digits", "--validation-fraction", "nan"], "validation_fraction is nan"),
        (["visualize", "latest", "--seed", "-1"], "--seed is -1"),
        (["predict", "latest", "x.png", "--top", "0"], "--top is 0"),
    ],
)
def test_values_that_used_to_end_in_a_traceback_or_were_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    if arguments[0] == "visualize":
        run = run_with(tmp_path / "runs", CONFIG, RESULT)
        shutil.copy(run.path / "config.json", run.encoder_file)
    before = sorted(tmp_path.rglob("*"))
    assert main([*arguments, "--runs-dir", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert len(error) < 300
    assert sorted(tmp_path.rglob("*")) == before


def test_no_number_in_a_config_is_not_one(tmp_path: Path) -> None:
    """--dropout nan: refused before there is a folder, and a draft that fails leaves nothing."""
    with pytest.raises(InputError, match="--dropout is nan"):
        check_training(Finetune(dropout=float("nan")), 1000, whole_batches=False)
    with pytest.raises(ValueError, match="JSON"):
        create_run(tmp_path, "run", {"options": {"dropout": float("nan")}})
    assert list(tmp_path.iterdir()) == []
