"""What is saved opens in another process, with this package and, where it is promised, without it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from test_training import CLASSES, pictures

from prl_keras.config import Finetune, Pretrain
from prl_keras.models import build_classifier, classification_head
from prl_keras.models.storage import copy_as, save_model
from prl_keras.training.average import adam
from prl_keras.training.build import KINDS, build_pretrainer
from prl_keras.training.finetuning import compile_classifier

ROOT = Path(__file__).parents[1]
PARTS = ("embedding_loss", "augmentation", "mixing", "optimizer", "loss")
LOAD = """
import json
import sys
from pathlib import Path

import numpy as np

if first == "without":
    sys.modules["prl_keras"] = None  # as where it is not installed
elif first == "prl_keras":
    import prl_keras
import keras
if first == "keras":
    import prl_keras

for file in sorted(Path().glob("*.keras")):
    model = keras.models.load_model(file)
    parts = [type(getattr(model, part, None)).__name__ for part in names]
    answer = np.asarray(getattr(model, "encoder", model)(np.load(file.with_suffix(".npy"))))
    print(json.dumps([file.stem, [type(model).__name__, *parts], answer.tolist()]))
"""
Found = dict[str, tuple[list[str], list]]


def loaded(folder: Path, first: str) -> Found:
    """Types and answers of the folder's models in a new process, which imports `first` before anything else."""
    done = subprocess.run(
        [sys.executable, "-c", f"first, names = {first!r}, {PARTS!r}{LOAD}"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {name: (types, answer) for name, types, answer in lines}


def saved(model: keras.Model, file: Path, inputs: np.ndarray) -> tuple[list[str], Any]:
    """Save it with what it is asked; what `loaded` must find."""
    model.save(file)
    np.save(file.with_suffix(".npy"), inputs)
    types = [type(part).__name__ for part in (model, *(getattr(model, part, None) for part in PARTS))]
    return types, np.asarray(getattr(model, "encoder", model)(inputs))


def check(found: Found, expected: Found) -> None:
    assert {name: types for name, (types, _) in found.items()} == {name: types for name, (types, _) in expected.items()}
    for name, (_, answer) in found.items():
        np.testing.assert_allclose(answer, expected[name][1], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["prl_keras", "keras"])
def test_importing_the_package_is_enough_to_load_what_it_saved(first: str, tmp_path: Path) -> None:
    """Every pre-trainer with fast layers, loss, augmentation and optimizer, and a classifier that goes on training."""
    images, labels = pictures(30)
    expected = {}
    for variant in set(KINDS) - {"standard", "loo"}:  # of the same classes as "query"
        mixed = {"mix": "cutmix"} if variant == "prl" else {}
        model = build_pretrainer(Pretrain(variant=variant, width=0.125, **mixed), (8, 8, 3), CLASSES, labels)
        model.compile(adam(1e-3, 10, average=True))
        expected[variant] = saved(model, tmp_path / f"{variant}.keras", images[:2])
    classifier = build_classifier(model.encoder, CLASSES, "mlp")
    compile_classifier(classifier, Finetune(encoder="e", label_smoothing=0.1), 10)
    expected["classifier"] = saved(classifier, tmp_path / "classifier.keras", images[:2])
    ours = {name for types, _ in expected.values() for name in types}
    assert ours >= {"PrototypicalPretrainer", "MemoryPretrainer", "SimCLRPretrainer", "CrossViewLoss", "NTXentLoss"}
    assert ours >= {"SupervisedContrastiveLoss", "PrototypicalLoss", "Augmentation", "Mixing", "FusedAdam"}
    assert "SmoothedCrossEntropy" in ours
    check(loaded(tmp_path, first), expected)


@pytest.mark.slow
def test_models_of_a_run_open_where_the_package_is_not_installed(tmp_path: Path) -> None:
    images, _ = pictures(4)
    encoder = build_pretrainer(Pretrain(), (8, 8, 3), CLASSES).encoder
    head = classification_head("mlp", CLASSES, encoder.output_shape[-1])
    classifier = build_classifier(encoder, CLASSES, head)
    inputs = {"encoder": (encoder, images), "classifier": (classifier, images), "head": (head, encoder(images))}
    expected = {}
    for name, (model, given) in inputs.items():
        kept = copy_as(model, "float32")
        expected[name] = saved(kept, tmp_path / f"{name}.keras", np.asarray(given))
        save_model(kept, tmp_path / f"{name}.keras")
    check(loaded(tmp_path, "without"), expected)
