"""The run folder."""

import json
import os
import re
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from prl_keras.cli import main
from prl_keras.config import Baseline
from prl_keras.errors import InputError
from prl_keras.files import atomic_path, write_json
from prl_keras.runs import Run, create_run, find_run, folder, is_finished, list_runs
from prl_keras.runs.lifecycle import check_name, to_continue
from prl_keras.runs.locks import working_on
from prl_keras.runs.names import check_new_name, free_name, usable
from prl_keras.terminal import ready_streams


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


FOR_WINDOWS = ["con", "NUL", "aux.txt", "com1", "Lpt9.x.y", "x.", "prn.", "con.1"]


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "a\\b", "c:x", "", ".hidden", "latest", "Latest", "a b", "x ", "x" * 101, "-x", "ä", *FOR_WINDOWS],
)
def test_a_name_that_could_leave_the_folder_or_confuse_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="not usable"):
        create_run(tmp_path / "runs", name, {})
    assert not (tmp_path / "runs").exists()


def test_an_old_run_of_a_name_that_windows_refuses_still_opens_and_continues(tmp_path: Path) -> None:
    create_run(tmp_path, "old", {"command": "baseline"}).path.rename(tmp_path / "con.1")
    assert find_run("con.1", tmp_path).config["command"] == "baseline"
    options = Baseline(name="con.1", runs_dir=tmp_path)
    assert to_continue("baseline", options).name == "con.1"
    check_name("baseline", options)
    with pytest.raises(InputError, match="Windows keeps such names"):
        check_name("baseline", Baseline(name="con.2", runs_dir=tmp_path))


@pytest.mark.parametrize("text", [*FOR_WINDOWS, "aux", "a" * 79 + ". b", "../nul", "tfds:con.x"])
def test_what_is_made_of_any_text_is_a_name_for_any_system(tmp_path: Path, text: str) -> None:
    check_new_name(tmp_path, usable(text))
    check_new_name(tmp_path, free_name(tmp_path, text))
    assert usable(usable(text)) == usable(text)


def test_names_that_differ_only_in_case_are_one_name(tmp_path: Path) -> None:
    create_run(tmp_path, "Query-1", {})
    with pytest.raises(InputError, match="a run named 'Query-1' already exists"):
        create_run(tmp_path, "query-1", {})
    assert free_name(tmp_path, "query") == "query-2"


def test_of_two_processes_that_take_a_name_the_slower_is_told_that_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = folder.write_json

    def meanwhile(file: Path, content: dict) -> None:
        monkeypatch.undo()
        create_run(tmp_path, "run", {"command": "first"})
        write(file, content)

    monkeypatch.setattr(folder, "write_json", meanwhile)
    with pytest.raises(InputError, match="a run named 'run' already exists"):
        create_run(tmp_path, "run", {"command": "second"})
    assert [run.config["command"] for run in list_runs(tmp_path)] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_taken_name_is_refused_and_left_alone(tmp_path: Path) -> None:
    create_run(tmp_path, "mine", {"command": "pretrain"})
    before = (tmp_path / "mine" / "config.json").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="already exists"):
        create_run(tmp_path, "mine", {"command": "other"})
    assert (tmp_path / "mine" / "config.json").read_text(encoding="utf-8") == before
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
    (create_run(tmp_path, "damaged", {}).path / "config.json").write_text("{", encoding="utf-8")

    class Clock(datetime):
        hours = 0

        @classmethod
        def now(cls, zone: tzinfo | None = None) -> datetime:
            cls.hours += 1
            return datetime.now(zone) - timedelta(hours=cls.hours)

    monkeypatch.setattr("prl_keras.runs.folder.datetime", Clock)
    for name in ("first", "second", "a-third"):
        create_run(tmp_path, name, {})
    runs = list_runs(tmp_path)
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
def test_a_missing_run_is_one_line_with_one_command_that_works_on_this_folder(tmp_path: Path, reference: str) -> None:
    with pytest.raises(InputError) as caught:
        find_run(reference, tmp_path)
    assert re.findall("`(.*?)`", str(caught.value)) == [f"python main.py pretrain --runs-dir {tmp_path}"]
    assert "\n" not in str(caught.value)
    create_run(tmp_path, "other", {})
    if reference != "latest":
        with pytest.raises(InputError) as caught:
            find_run(reference, tmp_path)
        assert re.findall("`(.*?)`", str(caught.value)) == [f"python main.py runs --runs-dir {tmp_path}"]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["evaluate"], "pretrain"),
        (["visualize"], "pretrain"),
        (["finetune", "--encoder"], "pretrain"),
        (["tune", "--encoder"], "pretrain"),
        (["predict"], "baseline"),
    ],
)
def test_every_command_names_the_one_that_makes_what_it_wants(
    tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], command: str
) -> None:
    for reference in ("latest", "nothing", "old"):
        images = ["x.png"] if words == ["predict"] else []
        assert main([*words, reference, *images, "--runs-dir", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert re.findall("`(.*?)`", error) == [f"python main.py {command} --runs-dir {tmp_path}"]
        if reference == "nothing":
            write_json(create_run(tmp_path, "old", {"command": "baseline"}).path / "result.json", {})


def test_predict_asks_for_a_fine_tuning_where_there_is_an_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    create_run(tmp_path, "pre", {"command": "pretrain"}).encoder_file.touch()
    assert main(["predict", "latest", "x.png", "--runs-dir", str(tmp_path)]) == 2
    assert f"`python main.py finetune --runs-dir {tmp_path}`" in capsys.readouterr().err


def test_nothing_to_resume_names_the_command_that_begins_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    create_run(tmp_path, "other", {"command": "baseline"})
    for command in ("pretrain", "finetune"):
        assert main([command, "--resume", "--runs-dir", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert f"no unfinished {command} run in {tmp_path} yet: make one with `python main.py {command} " in error
        assert main([command, "--resume", "--name", "other", "--runs-dir", str(tmp_path)]) == 2
        assert "it is an unfinished baseline run; repeat the command that began it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "advice"),
    [("tune", "what it found is the run 'it-winner'"), ("reproduce", "runs --runs-dir {}/it` shows its runs")],
)
def test_a_run_without_a_model_says_where_the_models_are(
    tmp_path: Path, capsys: pytest.CaptureFixture, command: str, advice: str
) -> None:
    write_json(create_run(tmp_path, "it", {"command": command}).path / "result.json", {})
    assert main(["evaluate", "it", "--runs-dir", str(tmp_path)]) == 2
    assert advice.format(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("file", ["config.json", "result.json"])
def test_latest_passes_over_a_damaged_run_and_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture, file: str
) -> None:
    create_run(tmp_path, "sound", {})
    (create_run(tmp_path, "damaged", {}).path / file).write_text("{", encoding="utf-8")
    ready_streams()
    for _ in range(2):
        assert find_run("latest", tmp_path, lambda run: not is_finished(run)).name == "sound"
    error = capsys.readouterr().err
    assert error.startswith(f"warning: cannot read {tmp_path / 'damaged' / file}: ")
    assert error.count("\n") == 1, "said once"
    with pytest.raises(InputError, match=rf"damaged.{file}"):
        _ = (damaged := find_run("damaged", tmp_path)).config, damaged.result


def test_where_only_damaged_runs_are_they_are_named_in_the_one_line(tmp_path: Path) -> None:
    (create_run(tmp_path, "damaged", {}).path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"no run in .* yet: make one with .*passed over: .*damaged.config\.json"):
        find_run("latest", tmp_path)


def test_a_record_is_read_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(tmp_path, "run", {"command": "pretrain"})
    config, reads = run.path / "config.json", []
    read = folder.read_record
    monkeypatch.setattr(folder, "read_record", lambda *words: reads.append(words[0].name) or read(*words))
    assert [run.config["command"] for _ in range(3)] == ["pretrain"] * 3
    assert len(reads) == 3, "just written: another write of the same size might show the same time"
    os.utime(config, (time.time() - 60,) * 2)
    assert [run.config["command"] for _ in range(3)] == ["pretrain"] * 3
    assert len(reads) == 4
    write_json(config, run.config | {"command": "finetune"})
    assert run.config["command"] == "finetune"
    assert run.result is None
    write_json(run.path / "result.json", {"epochs": 3})
    os.utime(run.path / "result.json", (time.time() - 60,) * 2)
    assert [run.result["epochs"], run.result["epochs"]] == [3, 3]
    assert reads.count("result.json") == 1
    (run.path / "result.json").unlink()
    assert run.result is None


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    run = create_run(tmp_path, "broken", {})
    (run.path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.json"):
        _ = run.config


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_json(target, {"value": 1})

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert json.loads(target.read_text(encoding="utf-8")) == {"value": 1}
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
