"""Data flows one way: a module imports only from layers to its left."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Layer of each top-level part of prl_keras; a module may import its own layer or a lower one.
LAYERS = {
    "errors": 0,
    "recipes": 0,
    "applications": 0,
    "bounds": 0,
    "startup": 0,
    "files": 0,
    "paths": 0,
    "processors": 0,
    "arrays": 0,
    "terminal": 0,
    "markdown": 0,
    "extras": 0,
    "replicas": 0,
    "strategies": 0,
    "company": 1,
    "screen": 1,
    "labels": 1,
    "prototypes": 1,
    "runs": 1,
    "outputs": 1,
    "config": 1,
    "data": 2,
    "runs.lifecycle": 3,
    "runs.card": 3,
    "runs.alike": 3,
    "models": 3,
    "embedding_loss": 3,
    "episodes": 3,
    "contrastive": 3,
    "losses": 3,
    "memory": 3,
    "pseudo": 4,
    "export": 4,
    "tracking": 3,
    "training": 4,
    "evaluation": 5,
    "visualization": 6,
    "experiments": 7,
    "reports": 7,
    "commands": 8,
    "tuning": 8,
    "cli": 9,
    "__main__": 9,
}
EXCEPTIONS = {("losses", "models"), ("models", "losses")}  # same layer, but they do not know each other


def _part(path: list[str]) -> str:
    """Of a module's path below prl_keras: its part of the order, which a single module may have for itself."""
    exact = ".".join(path).removesuffix(".py")
    return exact if exact in LAYERS else path[0].removesuffix(".py")


def parts_imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "prl_keras":
            path = node.module.split(".")
            names |= {_part(path[1:])} if len(path) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {_part(a.name.split(".")[1:]) for a in node.names if a.name.startswith("prl_keras.")}
    return names & set(LAYERS)


def modules() -> list[Path]:
    return sorted(
        file for file in (ROOT / "prl_keras").rglob("*.py") if file.parent.name + file.name != "prl_keras__init__.py"
    )


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_only_from_its_left(file: Path) -> None:
    own = _part(list(file.relative_to(ROOT / "prl_keras").parts))
    assert own in LAYERS, f"{own} has no place in the order"
    for part in parts_imported(file):
        assert LAYERS[part] <= LAYERS[own], f"{file.name} imports {part}, which is to its right"
        assert (own, part) not in EXCEPTIONS


def imported(file: Path) -> set[str]:
    """Every module that is named in an import, at the top or inside a function."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return names | {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


def test_prl_keras_never_imports_tuning() -> None:
    """The command line only names its module, as that of every command; it is imported when it is called."""
    for file in modules():
        assert not any(name.startswith("prl_keras.tuning") for name in imported(file)), f"{file.name} imports tuning"
        if file.name != "cli.py":
            assert '"prl_keras.tuning' not in file.read_text(encoding="utf-8"), f"{file.name} names a module of tuning"


def test_tuning_has_one_name() -> None:
    """In a clone `import tuning` would work as well, and give every module and class of it a second time."""
    for folder in ("prl_keras", "tuning", "tests", "benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            assert "tuning" not in {name.split(".")[0] for name in imported(file)}, f"{file}: import prl_keras.tuning"


def test_no_module_of_tuning_imports_itself_by_way_of_others() -> None:
    """Imports inside functions count: they hide a circle, they do not open it."""
    imports = {}
    for file in (ROOT / "tuning").glob("*.py"):
        names = [name.split(".") for name in imported(file)]
        imports[file.stem] = {name[2] for name in names if name[:2] == ["prl_keras", "tuning"]}
    assert imports["command"] >= {"search", "finish"}
    for start in imports:
        seen, left = set(), list(imports[start])
        while left:
            if (name := left.pop()) not in seen:
                seen.add(name)
                left += imports[name]
        assert start not in seen, f"tuning/{start}.py imports itself"


def test_only_what_a_command_needs_of_tuning_comes_without_heavy_imports() -> None:
    code = """
import sys
import prl_keras.tuning.command
heavy = {"tensorflow", "keras", "keras_tuner", "sklearn", "scipy", "matplotlib", "grpc"}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_help_and_public_names_come_without_heavy_imports() -> None:
    code = """
import sys
import prl_keras, prl_keras.data
import prl_keras.commands.beyond, prl_keras.evaluation.few_shot  # asked before anything is trained or measured
from prl_keras.cli import COMMANDS, main
assert main(["--help"]) == 0
for command in COMMANDS:
    assert main([command, "--help"]) == 0
heavy = {"tensorflow", "keras", "tensorflow_datasets", "keras_tuner", "sklearn", "scipy", "matplotlib"}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(("chosen", "expected"), [(None, "1"), ("0", "0")])
def test_the_package_asks_for_onednn_unless_the_user_chose(chosen: str | None, expected: str) -> None:
    others = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    environment = others | ({} if chosen is None else {"TF_ENABLE_ONEDNN_OPTS": chosen})
    code = "import os, prl_keras; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.split() == [expected]


def test_where_tensorflow_came_first_the_record_says_that_it_chose() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    code = """
import sys, types
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
from prl_keras.runs.versions import package_versions
print("ONEDNN", package_versions()["oneDNN"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.splitlines()[-1] == "ONEDNN as TensorFlow chooses"


def test_every_public_name_can_be_imported() -> None:
    import prl_keras

    for name in prl_keras.__all__:
        assert callable(getattr(prl_keras, name))
