"""What has to be the same in all workers of a training, and how a difference is named."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import write_image_folder
from faults import ROOT, free_ports, program

from prl_keras import load_dataset
from prl_keras.config import Pretrain
from prl_keras.data import Split
from prl_keras.errors import InputError
from prl_keras.runs import create_run
from prl_keras.runs.alike import description, difference
from prl_keras.runs.lifecycle import check_same, run_config

REQUEST = {"name": "digits", "seed": 0, "samples_per_class": None, "data_dir": "/here"}


@pytest.fixture(scope="module")
def digits() -> Any:
    return load_dataset("digits")


def of(dataset: Any, request: dict | None = None, inputs: dict | None = None, **options: Any) -> dict:
    return description("pretrain", Pretrain(**options), REQUEST | (request or {}), dataset, inputs)


def test_where_a_worker_has_its_files_is_no_difference(digits: Any) -> None:
    own = of(digits, strategy="multiworker")
    other = {"runs_dir": Path("there"), "name": "x", "resume": True, "track": "mlflow", "cache_dir": Path("/c")}
    assert difference(own, of(digits, {"data_dir": "/there"}, strategy="multiworker", verbose=True, **other)) is None
    hashed = {"init_sha256": "1" * 64}
    assert difference(of(digits, inputs=hashed, init="a"), of(digits, inputs=hashed, init="b")) is None
    assert json.loads(json.dumps(own)) == own


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"seed": 3}, ("--seed", "0", "3")),
        ({"batch_size": 64}, ("--batch-size", "256", "64")),
        ({"recipe": "strong"}, ("--recipe", "paper", "strong")),
        ({"average": False}, ("--average", "True", "False")),
        ({"request": {"seed": 5}}, ("--split-seed", "0", "5")),
        ({"local_batch_norm": True}, ("--local-batch-norm", "False", "True")),
        ({"request": {"samples_per_class": 5}}, ("--samples-per-class", "none", "5")),
        ({"inputs": {"init_sha256": "1" * 64}}, ("init sha256", "none", "111111111111...")),
    ],
)
def test_an_option_that_differs_is_named(digits: Any, options: dict, expected: tuple) -> None:
    found = difference(of(digits), of(digits, **options))
    assert found[:3] == expected


def test_images_that_differ_are_named(digits: Any) -> None:
    train = digits.train
    moved = replace(digits, train=Split(train.images[::-1], train.labels[::-1]))
    assert difference(of(digits), of(moved))[0] == "training images of fingerprint"
    other = np.concatenate([train.labels[:1] + 1, train.labels[1:]])
    assert difference(of(digits), of(replace(digits, train=Split(train.images, other)))) is not None
    names = (*digits.class_names[:-1], "ten")
    what, own, theirs, cure = difference(of(digits), of(replace(digits, class_names=names)))
    assert (what, own, theirs) == ("class names", "10 ('9' among them)", "10 ('ten' among them)")
    assert cure == "give all the same images"


def test_versions_and_source_that_differ_are_named(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = of(digits), of(digits)
    other["versions"]["keras"] = "1.0"
    assert difference(own, other) == ("keras", own["versions"]["keras"], "1.0", "install the same on all")
    monkeypatch.setattr("prl_keras.runs.alike.code_digest", lambda: "abc")
    assert difference(own, of(digits))[0] == "prl_keras of source"


def test_a_run_continues_with_another_number_of_devices(digits: Any, tmp_path: Path) -> None:
    def config(**options: Any) -> dict:
        return run_config("pretrain", Pretrain(**options), (), REQUEST, digits)

    run = create_run(tmp_path, "shared", config(strategy="multiworker"))
    for strategy in ("none", "mirrored", "multiworker"):
        check_same(run, config(strategy=strategy))
    run = create_run(tmp_path, "local", config(strategy="multiworker", local_batch_norm=True))
    check_same(run, config(strategy="multiworker", local_batch_norm=True))
    with pytest.raises(InputError, match="strategy = multiworker, not none"):
        check_same(run, config(strategy="none"))


def started(words: list[list[str]], folder: Path) -> list[subprocess.Popen]:
    """A worker for each list of words."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(len(words))]
    cluster = {"cluster": {"worker": workers}}
    return [
        subprocess.Popen(
            program(["pretrain", "--strategy", "multiworker", "--runs-dir", str(folder / "runs"), *more]),
            cwd=ROOT,
            env=os.environ | {"TF_CONFIG": json.dumps(cluster | {"task": {"type": "worker", "index": index}})},
            encoding="utf-8",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index, more in enumerate(words)
    ]


@pytest.mark.parametrize("what", ["--seed", "fingerprint"])
def test_workers_that_were_started_with_something_else_refuse(what: str, tmp_path: Path) -> None:
    """Real processes, before TensorFlow is imported."""
    words = [["--dataset", "digits", "--seed", str(index)] for index in (0, 1)]
    if what == "fingerprint":
        words = []
        for name in ("a", "b"):
            write_image_folder(tmp_path / name / "flowers", size=8)
            words.append(["--dataset", str(tmp_path / name / "flowers"), "--batch-size", "4"])
        picture = next((tmp_path / "b" / "flowers").rglob("*.png"))
        picture.unlink()
    crew = started(words, tmp_path)
    lines = [process.communicate(timeout=120)[1].splitlines()[-1] for process in crew]
    assert [process.returncode for process in crew] == [2, 2], lines
    assert lines[0] == lines[1]
    assert lines[0].startswith("error: worker 1 (127.0.0.1:")
    assert what in lines[0]
    assert not (tmp_path / "runs").exists()
