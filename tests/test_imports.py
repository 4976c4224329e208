"""Data flows one way: a module imports only from layers to its left."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Layer of each top-level part of prl_keras; a module may import its own layer or a lower one.
LAYERS = {
    "errors": 0,
    "bounds": 0,
    "startup": 0,
    "interruption": 0,
    "records": 0,
    "files": 0,
    "terminal": 0,
    "names": 0,
    "versions": 0,
    "labels": 1,
    "prototypes": 1,
    "runs": 1,
    "locks": 1,
    "config": 1,
    "recorded": 1,
    "data": 2,
    "models": 3,
    "embedding_loss": 3,
    "contrastive": 3,
    "losses": 3,
    "training": 4,
    "evaluation": 5,
    "visualization": 6,
    "experiments": 7,
    "commands": 8,
    "cli": 9,
}
EXCEPTIONS = {("losses", "models"), ("models", "losses")}  # same layer, but they do not know each other


def parts_imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "prl_keras":
            path = node.module.split(".")
            names |= {path[1]} if len(path) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("prl_keras.")}
    return names & set(LAYERS)


def modules() -> list[Path]:
    return sorted(
        file for file in (ROOT / "prl_keras").rglob("*.py") if file.parent.name + file.name != "prl_keras__init__.py"
    )


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_only_from_its_left(file: Path) -> None:
    own = file.relative_to(ROOT / "prl_keras").parts[0].removesuffix(".py")
    assert own in LAYERS, f"{own} has no place in the order"
    for part in parts_imported(file):
        assert LAYERS[part] <= LAYERS[own], f"{file.name} imports {part}, which is to its right"
        assert (own, part) not in EXCEPTIONS


def test_prl_keras_never_imports_tuning() -> None:
    """The command line only names its module, as that of every command; it is imported when it is called."""
    for file in modules():
        text = file.read_text(encoding="utf-8")
        imported = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
        assert "tuning" not in imported, f"{file.name} imports tuning"
        if file.name != "cli.py":
            assert '"tuning' not in text, f"{file.name} names a module of tuning"


def test_only_what_a_command_needs_of_tuning_comes_without_heavy_imports() -> None:
    code = """
import sys
import tuning.command
heavy = {"tensorflow", "keras", "keras_tuner", "sklearn", "scipy", "matplotlib", "grpc"}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_help_and_public_names_come_without_heavy_imports() -> None:
    code = """
import sys
import prl_keras, prl_keras.data
from prl_keras.cli import COMMANDS, main
assert main(["--help"]) == 0
for command in COMMANDS:
    assert main([command, "--help"]) == 0
heavy = {"tensorflow", "keras", "tensorflow_datasets", "keras_tuner", "sklearn", "scipy", "matplotlib"}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_every_public_name_can_be_imported() -> None:
    import prl_keras

    for name in prl_keras.__all__:
        assert callable(getattr(prl_keras, name))
