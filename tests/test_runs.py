"""The run folder."""

import json
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from prl_keras.errors import InputError
from prl_keras.locks import working_on
from prl_keras.runs import Run, atomic_path, check_new_name, create_run, find_run, free_name, list_runs, write_json


def test_a_created_run_is_found_by_name_folder_and_latest(tmp_path: Path) -> None:
    first = create_run(tmp_path, "first", {"command": "pretrain"})
    second = create_run(tmp_path, "second", {"command": "pretrain"})
    assert find_run("first", tmp_path).path == first.path
    assert find_run(str(second.path), tmp_path).name == "second"
    assert find_run("latest", tmp_path).name == "second"
    assert find_run("latest", tmp_path, lambda run: run.name == "first").name == "first"
    assert [run.name for run in list_runs(tmp_path)] == ["first", "second"]
    assert first.config["command"] == "pretrain"
    assert first.result is None
    assert first.metrics == []


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "latest", "a b", "x" * 101, "-x", "ä"])
def test_a_name_that_could_leave_the_folder_or_confuse_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="not usable"):
        create_run(tmp_path / "runs", name, {})
    assert not (tmp_path / "runs").exists()


def test_a_taken_name_is_refused_and_left_alone(tmp_path: Path) -> None:
    create_run(tmp_path, "mine", {"command": "pretrain"})
    before = (tmp_path / "mine" / "config.json").read_text()
    with pytest.raises(InputError, match="already exists"):
        create_run(tmp_path, "mine", {"command": "other"})
    assert (tmp_path / "mine" / "config.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_free_name_counts_up_and_cleans_the_data_sets_name(tmp_path: Path) -> None:
    assert free_name(tmp_path, "query-digits") == "query-digits-1"
    create_run(tmp_path, "query-digits-1", {})
    assert free_name(tmp_path, "query-digits") == "query-digits-2"
    name = free_name(tmp_path, "query-tfds:../fünf")
    check_new_name(tmp_path, name)


def test_latest_is_what_came_last_also_when_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (create_run(tmp_path, "damaged", {}).path / "config.json").write_text("{")

    class Clock(datetime):
        hours = 0

        @classmethod
        def now(cls, zone: tzinfo | None = None) -> datetime:
            cls.hours += 1
            return datetime.now(zone) - timedelta(hours=cls.hours)

    monkeypatch.setattr("prl_keras.runs.datetime", Clock)
    for name in ("first", "second", "a-third"):
        create_run(tmp_path, name, {})
    runs = list_runs(tmp_path, skip_damaged=True)
    assert [run.name for run in runs] == ["first", "second", "a-third"]
    assert Clock.hours == 3


def test_what_a_kill_left_of_a_finished_run_is_removed_with_the_next_run(tmp_path: Path) -> None:
    for name, finished in (("finished", True), ("unfinished", False)):
        run = create_run(tmp_path, name, {})
        (run.path / "checkpoint").mkdir()
        if finished:
            write_json(run.path / "result.json", {})
    create_run(tmp_path, "next", {})
    assert [path.parent.name for path in tmp_path.glob("*/checkpoint")] == ["unfinished"]


@pytest.mark.parametrize("reference", ["nothing", "../nothing", "latest"])
def test_an_unknown_run_is_one_line_that_says_where_to_look(tmp_path: Path, reference: str) -> None:
    with pytest.raises(InputError, match=r"python main\.py runs") as caught:
        find_run(reference, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    run = create_run(tmp_path, "broken", {})
    (run.path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json"):
        _ = run.config


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_json(target, {"value": 1})

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert json.loads(target.read_text()) == {"value": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_json_never_holds_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keeps", ["checkpoint", "result", "nothing"])
def test_only_a_run_with_something_to_continue_from_survives_a_failure(tmp_path: Path, keeps: str) -> None:
    run = create_run(tmp_path, "run", {})

    def fail() -> None:
        with working_on(run):
            if keeps == "checkpoint":
                (run.path / "checkpoint").mkdir()
                (run.path / "checkpoint" / "epoch-00001.npz").touch()
            if keeps == "result":
                write_json(run.path / "result.json", {})
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert Run(tmp_path / "run").path.exists() == (keeps != "nothing")
