"""Pictures without classes: SimCLR learns from them, and what needs classes says so in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prl_keras import load_dataset
from prl_keras.cli import main
from prl_keras.errors import InputError
from prl_keras.runs import Run
from prl_keras.training.monitor import RepresentationMonitor


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loose ones, and some in folders that look like classes."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for name in [*(f"{i}.png" for i in range(12)), *(f"2019/{i}.png" for i in range(8)), "2020/May/a.png"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    words = ["pretrain", "--variant", "simclr", "--dataset", str(photos), "--labels", "none", "--epochs", "1"]
    assert main([*words, "--name", "run", "--runs-dir", str(folder)]) == 0
    return folder


def test_all_pictures_at_any_depth_are_read_as_no_class_and_none_is_for_test(photos: Path) -> None:
    dataset = load_dataset(str(photos), labels="none")
    assert dataset.class_names == ("unlabelled",)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [19, 2, 0]
    assert "2020/May/a.png" in {*dataset.train.files, *dataset.validation.files}
    assert not any("No test images" in note for note in dataset.notes)
    assert dataset.fingerprint == load_dataset(str(photos), labels="none", cache_dir=photos.parent / "c").fingerprint


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures, also not in its folders"):
        load_dataset(str(tmp_path), labels="none")


def test_simclr_learns_from_them_and_claims_no_accuracy(runs: Path, capsys: pytest.CaptureFixture) -> None:
    run = Run(runs / "run")
    assert run.part("data", "request")["labels"] == "none"
    assert set(run.result["saved_encoder"]) == {"val_effective_rank"}
    assert not any("prototype" in key or "knn" in key for key in run.metrics[-1])
    assert main(["runs", "--runs-dir", str(runs)]) == 0
    assert "run" in capsys.readouterr().out


@pytest.mark.slow
def test_its_encoder_serves_other_data_and_files(runs: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    assert main(["embed", "run", str(photos), "--out", str(out), "--runs-dir", str(runs)]) == 0
    assert len(np.load(out)) == 21
    words = ["finetune", "--encoder", "run", "--dataset", "digits", "--image-size", "16", "--samples-per-class", "5"]
    assert main([*words, "--epochs", "1", "--test-per-class", "5", "--runs-dir", str(runs)]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "run"],
        ["visualize", "run"],
        ["finetune", "--encoder", "run"],
        ["tune", "--encoder", "run"],
        ["pretrain", "--labels", "none", "--dataset", "PHOTOS"],
        ["baseline", "--labels", "none", "--dataset", "PHOTOS"],
        ["reproduce", "--labels", "none", "--dataset", "PHOTOS"],
        ["pretrain", "--variant", "simclr", "--labels", "none"],
    ],
    ids=" ".join,
)
def test_what_needs_classes_says_so(runs: Path, photos: Path, words: list[str], capsys: pytest.CaptureFixture) -> None:
    before = sorted(runs.rglob("*"))
    words = [str(photos) if word == "PHOTOS" else word for word in words]
    assert main([*words, "--runs-dir", str(runs)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "--labels none" in lines[0]
    assert "--dataset PATH" in lines[0]
    assert sorted(runs.rglob("*")) == before


def test_a_monitor_of_one_class_knows_the_rank_only() -> None:
    import keras

    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    pretrainer = keras.Model()
    pretrainer.encoder, pretrainer.projection_head = model, keras.Sequential([keras.Input((48,)), keras.layers.ReLU()])
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), np.uint8)
    monitor = RepresentationMonitor(pretrainer, (images, np.zeros(9, int)), (images, np.zeros(9, int)), 1)
    logs: dict = {}
    monitor.on_epoch_end(0, logs)
    assert set(logs) == {"val_effective_rank"}
    assert monitor.answers is None
