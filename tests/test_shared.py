"""A table that several processes make together: every run once, those of dead processes too."""

import json
import shlex
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from prl_keras.cli import main, parse
from prl_keras.experiments.cells import plan
from prl_keras.experiments.shared import alone, work_together
from prl_keras.runs.leases import LEASES, take
from prl_keras.runs.locks import BusyError


@dataclass(frozen=True)
class Made:
    """What `experiments.cells.Cell` is to the work: a file that is there when it is done, and what it needs."""

    folder: Path
    name: str
    needs: str | None = None

    @property
    def gives(self) -> str:
        return self.name

    @property
    def lease(self) -> str:
        return self.name

    @property
    def done(self) -> bool:
        return (self.folder / f"{self.name}.done").exists()

    @property
    def description(self) -> str:
        return self.name


def cells(folder: Path) -> list[Made]:
    return [each for k in range(6) for each in (Made(folder, f"e{k}"), Made(folder, f"f{k}", f"e{k}"))]


def nothing(_: object) -> None:
    pass


def test_each_run_is_made_once_and_after_what_it_needs(tmp_path):
    made, lock = [], threading.Lock()

    def work(cell: Made) -> None:
        time.sleep(0.01)
        with lock:
            made.append(cell.name)
        (tmp_path / f"{cell.name}.done").touch()

    def worker() -> None:
        work_together(cells(tmp_path), tmp_path, work, nothing, nothing, nothing, nothing)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(made) == sorted(cell.name for cell in cells(tmp_path))
    assert all(made.index(f"e{k}") < made.index(f"f{k}") for k in range(6))
    assert not list((tmp_path / LEASES).iterdir())


def test_what_a_dead_process_was_at_is_taken_over(tmp_path):
    dead, made = take(tmp_path / LEASES, "e0"), []
    assert dead.held

    def work(cell: Made) -> None:
        made.append(cell.name)
        (tmp_path / f"{cell.name}.done").touch()

    started = time.monotonic()
    work_together(cells(tmp_path), tmp_path, work, nothing, nothing, nothing, nothing, seconds=1.5)
    assert time.monotonic() - started > 1.5
    assert made[-2:] == ["e0", "f0"], "the others first"
    assert len(made) == 12


def test_a_run_that_another_process_has_locked_is_left_for_later(tmp_path):
    left, made = [], []

    def work(cell: Made) -> None:
        if cell.name == "e0" and not left:
            raise BusyError("run 'e0' is being written by process 7")
        made.append(cell.name)
        (tmp_path / f"{cell.name}.done").touch()

    work_together(cells(tmp_path), tmp_path, work, nothing, nothing, lambda cell: left.append(cell.name), nothing)
    assert left == ["e0"]
    assert len(made) == 12


def test_a_job_of_an_array_makes_what_it_needs_and_no_more(tmp_path):
    made, all_of_them = [], cells(tmp_path)

    def work(cell: Made) -> None:
        made.append(cell.name)
        (tmp_path / f"{cell.name}.done").touch()

    alone(all_of_them, all_of_them[3], tmp_path, work, nothing)
    assert made == ["e1", "f1"]


def test_a_job_waits_for_the_process_that_makes_its_run(tmp_path, monkeypatch):
    cell = cells(tmp_path)[4]
    lease = take(tmp_path / LEASES, "e2")
    looked = []

    def sleep(seconds: float) -> None:
        looked.append(seconds)
        if len(looked) == 3:
            (tmp_path / "e2.done").touch()
            lease.release()

    monkeypatch.setattr("prl_keras.experiments.shared.time.sleep", sleep)
    alone([cell], cell, tmp_path, lambda cell: pytest.fail("it is made twice"), nothing)
    assert len(looked) == 3


def test_the_plan_is_a_command_a_run(tmp_path, capsys):
    words = ["reproduce", "--dataset", "digits", "--rows", "mlp", "query-frozen-linear", "--seeds", "1"]
    assert main([*words, "--runs-dir", str(tmp_path), "--plan"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("python main.py")]
    assert [line.partition("# ")[2] for line in lines] == [
        *("mlp-s0", "query-s0", "query-frozen-linear-s0", "query-s0: label efficiency")
    ]
    assert all(f"--runs-dir {tmp_path} --cell {k}  #" in line for k, line in enumerate(lines, start=1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--cell", "9"], "--cell is 9; the plan has 1 runs (--plan shows them)"),
        (["--shared", "--jobs", "2"], "--jobs: with --shared or --cell each process makes one run at a time"),
        (["--shared", "--lease-seconds", "0"], "--lease-seconds is 0.0; expected at least 1"),
    ],
)
def test_what_makes_no_sense_together_is_one_line(tmp_path, capsys, words, line):
    how = ["reproduce", "--dataset", "digits", "--rows", "pca", "--seeds", "1", "--runs-dir", str(tmp_path)]
    assert main([*how, *words]) == 2
    assert line in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_table_that_was_made_together_is_the_table(tmp_path, capsys):
    how = ["reproduce", "--dataset", "digits", "--rows", "pca", "--seeds", "2", "--samples-per-class", "20"]
    how += ["--image-size", "8", "--runs-dir", str(tmp_path)]
    assert main([*how, "--name", "a", "--cell", "2"]) == 0
    assert "pca-s1 is done, 1 of 2" in capsys.readouterr().out
    assert main([*how, "--name", "a", "--shared"]) == 0
    assert "2 runs in" in capsys.readouterr().out
    before = (tmp_path / "a" / "result.json").stat().st_mtime_ns
    assert main([*how, "--name", "a", "--shared"]) == 0
    assert "All runs are done, and the report is written" in capsys.readouterr().out
    assert (tmp_path / "a" / "result.json").stat().st_mtime_ns == before
    assert main([*how[:6], "1", *how[7:], "--name", "a", "--shared"]) == 0
    assert json.loads((tmp_path / "a" / "result.json").read_text(encoding="utf-8"))["asked"]["seeds"] == 1, "its report"


def test_a_report_whose_pictures_failed_is_not_taken_for_written(tmp_path, monkeypatch, capsys):
    how = ["reproduce", "--dataset", "digits", "--rows", "pca", "--seeds", "1", "--samples-per-class", "20"]
    how += ["--image-size", "8", "--runs-dir", str(tmp_path), "--name", "a", "--shared"]
    with monkeypatch.context() as patch:
        patch.setattr("prl_keras.experiments.figures.draw_all", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(how)
    capsys.readouterr()
    assert main(how) == 0
    assert "the report is written" not in capsys.readouterr().out
    assert (tmp_path / "a" / "report.html").exists()


SCALING = Path(__file__).parents[1] / "docs" / "scaling"


def words_of(script: Path) -> list[str]:
    """Of its last command, which continues over lines."""
    text = script.read_text(encoding="utf-8").replace("\\\n", " ")
    words = shlex.split(text.splitlines()[-1].replace('"${PRL_RUNS:-saved_models}"', "saved_models"))
    return words[words.index("main.py") + 1 :]


@pytest.mark.parametrize("name", ["slurm.sh", "slurm-plan.sh"])
def test_the_scripts_for_slurm_are_shell_and_their_commands_are_ours(name):
    assert shutil.which("bash") is None or subprocess.run(["bash", "-n", SCALING / name], check=False).returncode == 0
    words = ["1" if word == "$SLURM_ARRAY_TASK_ID" else word for word in words_of(SCALING / name)]
    options = parse(words)
    assert (options.rows, options.seeds) == (("strong",), 5)
    if options.cell:
        request = {**dict.fromkeys(("data_dir", "samples_per_class", "test_per_class", "image_size"))}
        request |= {"name": "fashion_500", "validation_fraction": 0.1}
        count = len(plan(options, request, Path("table")))
        assert f"#SBATCH --array=1-{count}%8" in (SCALING / name).read_text(encoding="utf-8")


def test_the_job_for_kubernetes_runs_a_command_of_ours():
    job = yaml.safe_load((SCALING / "job.yaml").read_text(encoding="utf-8"))
    assert (job["kind"], job["spec"]["completionMode"]) == ("Job", "Indexed")
    container = job["spec"]["template"]["spec"]["containers"][0]
    options = parse(container["command"][1:])
    assert options.shared
    assert str(options.runs_dir) == container["volumeMounts"][0]["mountPath"]
