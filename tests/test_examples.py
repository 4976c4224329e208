"""What public docstrings and the pages of the API show is run."""

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
WHOLE_NETWORK = True  # a reader's has 512 features
MADE = ("load_dataset", "load_encoder", "pretrain", "finetune", "resnet18", "projection_head", "build_classifier")
LOSSES = ("PrototypicalLoss", "CrossViewLoss", "NTXentLoss", "SupervisedContrastiveLoss")
PRETRAINERS = ("PrototypicalPretrainer", "SimCLRPretrainer", "MemoryPretrainer")
TRAINING = {"pretrain", "finetune", "PrototypicalPretrainer", "MemoryPretrainer"}


def examples() -> Iterator[tuple[str, str]]:
    """(name, code) of each function and class of the package whose docstring has indented lines of Python."""
    for file in sorted((ROOT / "prl_keras").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                lines = (ast.get_docstring(node) or "").splitlines()
                first = next((i for i, line in enumerate(lines) if line.startswith("    ") and not lines[i - 1]), None)
                if first is not None:
                    block = "\n".join(lines[first:]).partition("\n\n")[0]
                    if is_code(code := textwrap.dedent(block)):
                        yield node.name, code


def is_code(text: str) -> bool:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Call) for node in ast.walk(tree))


EXAMPLES = dict(examples())


def test_every_public_name_has_an_example() -> None:
    assert len(EXAMPLES) == len(list(examples())), "two of one name"
    assert set(EXAMPLES) >= {*MADE, *LOSSES, *PRETRAINERS}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in TRAINING else name for name in EXAMPLES]
)
def test_an_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    import prl_keras
    from prl_keras import contrastive, losses, memory
    from prl_keras.data.augment import augmentation
    from prl_keras.data.batches import Batches
    from prl_keras.evaluation.taught import of_training, save_taught
    from prl_keras.models.storage import save_model
    from prl_keras.runs import create_run
    from prl_keras.training.memory import MemoryPretrainer

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (256, 28, 28, 3), "uint8"), np.arange(256) % 10
    names = {name: getattr(prl_keras, name) for name in prl_keras.__all__}
    names |= vars(losses) | vars(contrastive) | vars(memory)
    names |= {"prl_keras": prl_keras, "images": images, "labels": labels, "Batches": Batches}
    names |= {"MemoryPretrainer": MemoryPretrainer, "augmentation": augmentation("simclr", (28, 28), 0)}
    names |= {"embeddings": rng.normal(size=(256, 8)), "views": rng.normal(size=(256, 8))}
    if name in (*PRETRAINERS, "finetune"):
        names["encoder"] = prl_keras.resnet18((28, 28, 3))
    if name == "finetune":
        names["dataset"] = prl_keras.load_dataset("digits", samples_per_class=13, image_size=28)
    if name in ("load_encoder", "load_taught"):
        small = keras.Sequential([keras.Input((28, 28, 3)), keras.layers.GlobalAveragePooling2D()])
        run = create_run(tmp_path / "saved_models", "run", {"command": "pretrain"})
        save_model(small, run.encoder_file)
        (run.path / "result.json").write_text("{}", encoding="utf-8")
    if name == "load_taught":
        digits = prl_keras.load_dataset("digits", samples_per_class=8, image_size=28)
        save_taught(of_training(small, digits, run).calibrate(), run.prototypes_file)
    code = EXAMPLES[name].replace("epochs=25", "epochs=1").replace("epochs=5", "epochs=1")
    exec(code.replace('("digits")', '("digits", samples_per_class=26, image_size=16)'), names)


@pytest.mark.slow
def test_the_pages_of_the_api_are_made(tmp_path: Path) -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"^    \S*python (-m pdoc .*)$", guide, re.MULTILINE)
    command = [sys.executable, *words.replace("docs/api", str(tmp_path)).split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "MemoryPretrainer" in (tmp_path / "prl_keras" / "training" / "memory.html").read_text(encoding="utf-8")
