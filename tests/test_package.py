"""What people install: its files, its metadata, and that each way to install it gives a command that works."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
import yaml
from requirements import texts
from tutorial import run_cells

import prl_keras
from prl_keras.errors import InputError
from prl_keras.terminal import as_started

ROOT = Path(__file__).parents[1]
NOT_COPIED = (".*", "__pycache__", "build", "dist", "*.egg-info", "saved_models")
TINY = ["--samples-per-class", "8", "--test-per-class", "5", "--image-size", "16", "--epochs", "1"]


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(words: list[str | Path], folder: Path, expected: int = 0) -> subprocess.CompletedProcess:
    """As a user would: without what this process has set for itself."""
    done = subprocess.run(words, cwd=folder, env=clean_environment(), capture_output=True, encoding="utf-8")
    assert done.returncode == expected, (done.stdout[-1000:], done.stderr[-2000:])
    return done


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, in which builds may leave what they leave."""
    folder = tmp_path_factory.mktemp("source") / "project"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
    (folder / "saved_models").mkdir()
    shutil.copy(ROOT / "saved_models" / "README.md", folder / "saved_models")
    return folder


@pytest.fixture(scope="module")
def built(source: Path) -> dict[str, Path]:
    """A source distribution, and the wheel that is made from it."""
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."], source)
    return {"sdist": next(source.glob("dist/*.tar.gz")), "wheel": next(source.glob("dist/*.whl")), "folder": source}


def installed(thing: Path, environment: Path, editable: bool = False) -> Path:
    """The environment's folder of commands: it has the package, and sees the libraries of this one."""
    venv.create(environment)
    variables = {"base": str(environment), "platbase": str(environment)}
    scheme = "nt_venv" if os.name == "nt" else "posix_venv"
    packages = Path(sysconfig.get_path("purelib", scheme, variables))
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    commands = Path(sysconfig.get_path("scripts", scheme, variables))
    install = [sys.executable, "-m", "pip", "--python", environment, "install", "--no-deps", "--no-index"]
    run([*install, "--no-build-isolation", *(["-e"] if editable else []), thing], environment)
    return commands


def test_every_library_that_is_imported_is_declared() -> None:
    """The environments of these tests see all libraries of this one, so they would not miss any."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][name] for name in ("export", "tracking"))]
    declared = {re.match(r"[\w.-]+", line)[0].replace("_", "-") for lines in lists for line in lines}
    declared |= {"pillow-heif"}  # if it is installed, docs/data.md
    files = [ROOT / "main.py", *(f for d in ("prl_keras", "tuning") for f in (ROOT / d).rglob("*.py"))]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    libraries = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"prl_keras", "tuning"}
    assert len(libraries) > 12
    of = packages_distributions()
    for library in libraries:
        owners = {owner.lower().replace("_", "-") for owner in of.get(library, [library])}
        owners |= {"tensorflow"} if library == "tensorflow" else set()  # a clone has tensorflow-cpu
        assert owners & declared, (library, owners)


def command(commands: Path, name: str = "prl-keras") -> str:
    return shutil.which(name, path=str(commands))


@pytest.mark.parametrize(
    "way", ["wheel", "editable", *(pytest.param(way, marks=pytest.mark.slow) for way in ("sdist", "folder"))]
)
def test_what_is_installed_is_a_command_and_a_package(way: str, built: dict[str, Path], tmp_path: Path) -> None:
    commands = installed(built.get(way, built["folder"]), tmp_path / "environment", editable=way == "editable")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run([command(commands), "--version"], empty).stdout == f"prl-keras {prl_keras.__version__}\n"
    helped = run([command(commands), "tune", "--help"], empty).stdout
    assert helped.startswith("usage: prl-keras tune ")
    assert "Example: prl-keras tune " in helped
    assert "main.py" not in helped
    python = command(commands, "python")
    complaint = run([python, "-m", "prl_keras", "evaluate", "latest"], empty, expected=2).stderr
    assert "make one with `python -m prl_keras pretrain`" in complaint
    assert "make one with `prl-keras pretrain`" in run([command(commands), "evaluate", "latest"], empty, 2).stderr
    code = """
import importlib.util, prl_keras, prl_keras.tuning.command, prl_keras.tuning.space
assert importlib.util.find_spec("tuning") is None
print(prl_keras.__file__, prl_keras.tuning.command.__file__, sep="\\n")
"""
    home = built["folder"] if way == "editable" else tmp_path / "environment"
    for file in run([python, "-c", code], empty).stdout.splitlines():
        assert Path(file).is_relative_to(home)
    assert not list(empty.iterdir())


@pytest.mark.slow
def test_a_newcomer_pretrains_in_an_empty_folder_and_loads_it_in_python(built: dict[str, Path], tmp_path: Path) -> None:
    """Also the other way round: what this clone has saved, its interrupted training among it."""
    commands = installed(built["wheel"], tmp_path / "environment")
    empty = tmp_path / "empty"
    empty.mkdir()
    shown = run([command(commands), "pretrain", "--variant", "query", *TINY], empty).stdout
    assert [path.name for path in empty.iterdir()] == ["saved_models"]
    last = shown.splitlines()[-1].split()
    assert last[:3] == ["prl-keras", "finetune", "--encoder"]
    assert run([command(commands), *last[1:], "--epochs", "1"], empty).returncode == 0
    code = """
import prl_keras
encoder = prl_keras.load_encoder("latest")
data = prl_keras.load_dataset("digits", image_size=16)
print(prl_keras.__file__, encoder.predict(data.test.images[:3], verbose=0).shape)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    run_cells(notebook, command(commands, "python"), empty, clean_environment())
    file, shape = notebook.cells[0].outputs[-1].text.splitlines()[-1].split(maxsplit=1)
    assert Path(file).is_relative_to(tmp_path / "environment")
    assert shape == "(3, 512)"
    words = ["baseline", "--model", "mlp", *TINY[:-1], "2", "--batch-size", "20", "--runs-dir", empty / "cloned"]
    stop = """
import os, signal, sys
from prl_keras.cli import main
from prl_keras.training import callbacks
usual = callbacks.FiniteGuard.on_train_batch_end
def stopping(self, batch, logs=None):
    usual(self, batch, logs)
    if batch == 1:
        signal.raise_signal(signal.SIGINT)
callbacks.FiniteGuard.on_train_batch_end = stopping
sys.exit(main(sys.argv[1:]))
"""
    assert "--name mlp-digits-1" in run([sys.executable, "-c", stop, *words], ROOT, expected=130).stderr
    shown = run([command(commands), *words], empty).stdout
    assert "Continuing mlp-digits-1 after epoch 0 of 2, step 2" in shown
    assert (empty / "cloned" / "mlp-digits-1" / "classifier.keras").exists()


def test_a_wheel_has_the_modules_under_one_name_and_nothing_else(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        content = {name: archive.read(name) for name in names}
    ours = {file.relative_to(ROOT).as_posix(): file for file in (ROOT / "prl_keras").rglob("*.py")}
    ours |= {file.relative_to(ROOT).as_posix(): file for file in (ROOT / "prl_keras" / "reports").glob("page.*")}
    ours |= {f"prl_keras/tuning/{file.name}": file for file in (ROOT / "tuning").glob("*.py")}
    assert names == set(ours)
    for name, file in ours.items():
        assert content[name] == file.read_bytes(), name


def test_a_source_distribution_can_be_run_and_tested_from(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    parts = ("prl_keras", "tuning", "tests", "benchmarks", "docs")
    files = {file.relative_to(ROOT).as_posix() for part in parts for file in (ROOT / part).rglob("*.*")}
    files = {file for file in files if "__pycache__" not in file and (ROOT / file).is_file()}
    files |= {"main.py", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "requirements.txt"}
    assert files <= names
    assert not [name for name in names if name.startswith("saved_models/") and name != "saved_models/README.md"]


def test_metadata_says_what_pip_has_to_know(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as archive:
        (file,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        found = message_from_bytes(archive.read(file))
    assert found["Version"] == prl_keras.__version__
    assert set(found["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
    assert set(found.get_all("Provides-Extra")) == {"cpu", "cuda", "export", "tracking", "dev"}
    needed = [line for line in found.get_all("Requires-Dist") if "extra ==" not in line]
    assert [line for line in needed if line.startswith("tensorflow=")] == ["tensorflow==2.21.*"]
    of_cuda = [line for line in found.get_all("Requires-Dist") if 'extra == "cuda"' in line]
    assert len(of_cuda) == 1
    assert of_cuda[0].startswith("tensorflow[and-cuda]==2.21.*"), "the same package: two would fill one folder"


@pytest.mark.parametrize("name", texts())
def test_requirements_are_those_of_the_package(name: str) -> None:
    written = (ROOT / name).read_text(encoding="utf-8")
    assert written == texts()[name], "repair it with: python tests/requirements.py"


def test_one_version_everywhere() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d[^]]*)\]", changes, re.MULTILINE)[0] == prl_keras.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == prl_keras.__version__


@pytest.mark.parametrize(
    ("started", "shown"),
    [
        ("main.py", "python main.py"),
        ("/venv/bin/prl-keras", "prl-keras"),
        ("/venv/bin/prl-keras.exe", "prl-keras"),
        ("/venv/site-packages/prl_keras/__main__.py", "python -m prl_keras"),
        ("/venv/site-packages/pytest/__main__.py", "python main.py"),
        ("", "python main.py"),
    ],
)
def test_messages_name_the_program_as_it_was_started(
    started: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from prl_keras.screen.console import Terminal
    from prl_keras.terminal import warn

    monkeypatch.setattr(sys, "argv", [started])
    line = f"from {started!r}: type python main.py runs"
    expected = f"from {started!r}: type {shown} runs"
    assert as_started(line) == str(InputError(line)) == expected
    Terminal(width=120).print(line)
    warn(line)
    assert capsys.readouterr() == (f"{expected}\n", f"warning: {expected}\n")


def test_what_contributing_names_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`([\w./]+\.(?:py|toml|yml|md|cff))`", text)) - {"tests/test_<part>.py"}
    assert len(files) > 20
    for name in files:
        assert (ROOT / name).is_file(), name
    words = re.findall(r"((?:`\w+`(?:, | and in | and )?)+)(?: in)? ?\(?`?(prl_keras/[\w/]+\.py|tests/\w+\.py)", text)
    assert len(words) > 10
    for names, file in words:
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(?:class |def )?{name}\b", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (
                name
            )


def test_the_workflow_is_yaml_that_runs_the_readmes_commands() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    systems = workflow["jobs"]["tests"]["strategy"]["matrix"]["os"]
    assert {system.partition("-")[0] for system in systems} == {"ubuntu", "macos", "windows"}
    commands = "\n".join(step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"])
    for words in ("pip install -q -r requirements-dev.txt", "ruff check .", "ruff format --check .", "pytest -n 2"):
        assert words in commands
        assert words in (ROOT / "README.md").read_text(encoding="utf-8")
