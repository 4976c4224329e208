"""A data set is its images: wherever it lies and however it is spelled; and who was trained on which of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from archives import write_fashion, write_image_folder
from faults import stop_after_first_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prl_keras import load_dataset
from prl_keras.cli import main
from prl_keras.config import Baseline, unused_but_given
from prl_keras.data.seen import count_seen, short_digests
from prl_keras.data.splits import dataset_label
from prl_keras.runs import Run, list_runs

SPELLINGS = ["A", "A/", "./A", "./A/", "A/../A", "ABSOLUTE", "COPY"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a data set A."""
    write_image_folder(tmp_path / "A", train=6, size=8)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set A and a run `enc` that was trained on all of it, 3 images a class of train."""
    folder = tmp_path_factory.mktemp("seen")
    write_image_folder(folder / "A", train=6, size=8)
    data = ["--dataset", str(folder / "A"), "--samples-per-class", "3"]
    assert main(["baseline", "--model", "mlp", *data, *RUN, "--name", "enc", "--runs-dir", str(folder / "runs")]) == 0
    return folder


RUN = ["--epochs", "1", "--batch-size", "4"]


def spelled(here: Path, spelling: str) -> str:
    if spelling == "COPY":
        shutil.copytree(here / "A", here / "B")
        return "B"
    return spelling.replace("ABSOLUTE", str(here / "A"))


@pytest.mark.parametrize(
    "spelling", [s if s == "A/../A" else pytest.param(s, marks=pytest.mark.slow) for s in SPELLINGS]
)
def test_an_interrupted_command_continues_however_its_data_set_is_spelled(
    here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    command = ["baseline", "--model", "mlp", "--epochs", "2", "--batch-size", "4"]
    with pytest.MonkeyPatch.context() as patch:
        stop_after_first_checkpoint(patch)
        assert main([*command, "--dataset", "A"]) == 130
    resume = ["--resume"] if spelling in ("./A/", "COPY") else []
    assert main([*command, "--dataset", spelled(here, spelling), *resume]) == 0
    assert "Continuing mlp-A-1 after epoch 1 of 2." in capsys.readouterr().out
    assert [run.name for run in list_runs(Path("saved_models"))] == ["mlp-A-1"]


@pytest.mark.slow
def test_a_run_works_from_another_working_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["baseline", "--model", "mlp", *RUN, "--dataset", "./A/", "--name", "run"]) == 0
    assert Run(here / "saved_models" / "run").part("data", "request", "name") == str(here / "A")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert main(["finetune", "--encoder", str(here / "saved_models" / "run"), *RUN, "--name", "head"]) == 0
    assert Run(Path("saved_models") / "head").result["encoder_run"] == str(here / "saved_models" / "run")
    assert main(["evaluate", str(here / "saved_models" / "run")]) == 0


def test_other_images_under_the_same_path_are_refused(here: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["baseline", "--model", "mlp", "--epochs", "2", "--batch-size", "4", "--dataset", "A", "--name", "run"]
    with pytest.MonkeyPatch.context() as patch:
        stop_after_first_checkpoint(patch)
        assert main(command) == 130
    Image.new("RGB", (8, 8), "red").save("A/train/cat/new.png")
    assert main(command) == 2
    assert "the images of A are not those that run 'run' was started with: restore them" in capsys.readouterr().err


def test_a_moved_copy_is_the_runs_own_data_with_its_subset(encoder_dir: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(encoder_dir / "A", encoder_dir / "moved", dirs_exist_ok=True)
    runs = ["--runs-dir", str(encoder_dir / "runs")]
    record = encoder_dir / "runs" / "enc" / "train_digests.npy"
    for seen in ({"validation": 0, "test": 0}, None):
        capsys.readouterr()
        assert main(["evaluate", "enc", "--dataset", str(encoder_dir / "moved"), *runs]) == 0
        output = capsys.readouterr().out
        assert "6 train / 2 validation / 4 test" in output
        assert "evaluation.json" in output
        assert json.loads((record.parent / "evaluation.json").read_text())["seen_in_training"] == seen
        if seen:
            record.rename(record.with_suffix(".kept"))
    record.with_suffix(".kept").rename(record)


@pytest.mark.parametrize(
    "climb", ["../../x/other", *(pytest.param(path, marks=pytest.mark.slow) for path in ("./other", "other/"))]
)
def test_evaluating_on_another_folder_stays_in_the_runs_folder(
    encoder_dir: Path, climb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = encoder_dir / "x" / "y" / "z"
    deep.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(deep)
    write_image_folder(Path(climb), train=5, size=8)
    before = {path for path in encoder_dir.rglob("*") if encoder_dir / "runs" not in path.parents}
    assert main(["evaluate", "enc", "--dataset", climb, "--runs-dir", str(encoder_dir / "runs")]) == 0
    assert main(["visualize", "enc", "--dataset", climb, "--runs-dir", str(encoder_dir / "runs")]) == 0
    assert {path for path in encoder_dir.rglob("*") if encoder_dir / "runs" not in path.parents} == before
    found = [path.name for path in (encoder_dir / "runs" / "enc").glob("evaluation-other-*.json")]
    assert len(found) == 1


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda text: "\0" not in text))
def test_a_label_is_one_part_of_a_path(name: str) -> None:
    label = dataset_label(str(Path("/", name)))
    assert label
    assert "/" not in label


# Who has seen what -------------------------------------------------------------------------------------------


def test_a_run_keeps_what_it_was_trained_on_and_counts_it_in_other_data(encoder_dir: Path) -> None:
    run = Run(encoder_dir / "runs" / "enc")
    own = load_dataset(str(encoder_dir / "A"), samples_per_class=3)
    assert count_seen(run, own) == {"validation": 0, "test": 0}
    other = load_dataset(str(encoder_dir / "A"), seed=1)
    seen = set(short_digests(own.train.images).tolist())
    expected = sum(int(digest) in seen for digest in short_digests(other.validation.images))
    seeds = [count_seen(run, load_dataset(str(encoder_dir / "A"), seed=seed))["validation"] for seed in range(6)]
    assert count_seen(run, other)["validation"] == expected
    assert max(seeds) > 0, "some split has such images"


@pytest.mark.slow
def test_an_encoder_that_knows_the_validation_images_is_not_tuned(
    encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The second encoder of a search, and another data set than the encoder's: both were never checked."""
    folder = tmp_path / "runs"
    runs = ["--runs-dir", str(folder)]
    write_image_folder(tmp_path / "grown", train=6, size=8)
    for i in range(6):
        for name in ("cat", "dog"):
            pixels = np.random.default_rng((i, len(name), ord(name[0]))).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "grown" / "train" / name / f"more{i}.png")
    train = ["pretrain", "--epochs", "1", "--batch-size", "8", *runs]
    assert main([*train, "--dataset", str(encoder_dir / "A"), "--name", "small"]) == 0
    assert main([*train, "--dataset", str(tmp_path / "grown"), "--name", "grown"]) == 0
    tune = ["tune", "--max-trials", "1", "--epochs", "1", *runs, "--encoder"]
    for encoders in (["small", "grown"], ["grown", "--dataset", str(encoder_dir / "A")]):
        capsys.readouterr()
        assert main([*tune, *encoders]) == 2
        assert "encoder 'grown' was trained on 1 of the 2 validation images of A" in capsys.readouterr().err
    finetune = ["finetune", *RUN, *runs, "--encoder", "grown", "--dataset", str(encoder_dir / "A"), "--name", "head"]
    assert main(finetune) == 0
    assert "warning: run grown was trained on 1 of 2 validation images" in capsys.readouterr().out
    assert Run(folder / "head").result["seen_by_encoder"] == {"validation": 1, "test": 0}
    assert main(["evaluate", "head", *runs]) == 0
    assert "warning: run head was trained on 1 of 2 validation images" in capsys.readouterr().out, "by its encoder"
    evaluation = folder / "head" / "evaluation.json"
    assert json.loads(evaluation.read_text())["seen_in_training"] == {"validation": 1, "test": 0}
    (folder / "small" / "train_digests.npy").unlink()
    assert main([*tune, "small", "--dataset", str(tmp_path / "grown")]) == 2, "an old run"
    assert "kept no record" in capsys.readouterr().err
    (folder / "small" / "train_digests.npy").write_bytes(b"no array")
    assert main(["evaluate", "small", *runs]) == 2
    assert "train_digests.npy is damaged" in capsys.readouterr().err


def test_predict_says_which_images_it_was_trained_on(encoder_dir: Path, capsys: pytest.CaptureFixture) -> None:
    train, test = (sorted((encoder_dir / "A" / split).rglob("*.png")) for split in ("train", "test"))
    for files, line in ((test, ""), (train, "6 of 12 images are among those that enc was trained on")):
        capsys.readouterr()
        assert main(["predict", "enc", *map(str, files), "--runs-dir", str(encoder_dir / "runs")]) == 0
        output = capsys.readouterr().out
        assert line in output
        assert ("was trained on" in output) == bool(line)


@pytest.mark.slow
def test_the_built_in_sets_of_clothes_share_images_and_say_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """fashion_500's validation images are in fashion_mnist's train."""
    write_fashion(tmp_path / "files", train_per_class=500, test_per_class=800)
    where = ["--data-dir", str(tmp_path / "files"), "--runs-dir", str(tmp_path)]
    assert main(["baseline", "--model", "pca", "--dataset", "fashion_mnist", "--name", "pca", *where]) == 0
    capsys.readouterr()
    assert main(["evaluate", "pca", "--dataset", "fashion_500", "--split-seed", "1", *where]) == 2, "no such option"
    assert main(["evaluate", "pca", "--dataset", "fashion_500", *where]) == 0
    data = load_dataset("fashion_500", tmp_path / "files")
    seen = count_seen(Run(tmp_path / "pca"), data)["validation"]
    warned = f"was trained on {seen} of 500 validation images" in capsys.readouterr().out
    assert warned == bool(seen)


# Options that do nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("pretrain --variant simclr --distance cosine", "--distance does nothing with --variant simclr"),
        ("pretrain --variant supcon --distance squared", "--distance does nothing with --variant supcon"),
        ("baseline --model mlp --stem small", "--stem does nothing with --model mlp"),
        ("baseline --model pca --epochs 7", "--epochs does nothing with --model pca"),
        ("baseline --model pca --no-average", "--no-average does nothing with --model pca"),
        ("baseline --model pca --augment light", "--augment does nothing with --model pca"),
        ("baseline --model mlp --dataset digits --data-dir .", "digits does not use it"),
        ("data prepare --dataset digits --data-dir .", "digits does not use it"),
        ("data verify --dataset ./pets --data-dir .", "pets does not use it"),
        ("data list --dataset digits", "--dataset does nothing with list"),
        ("tune --worker-timeout 5", "--worker-timeout does nothing in a single process"),
    ],
)
def test_an_option_that_does_nothing_is_refused(
    typed: str, complaint: str, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(typed.split()) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_data_verify_says_to_type_next_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "verify", "--data-dir", str(tmp_path)]) == 0, "the built-in set, as in pretrain"
    following = capsys.readouterr().out.splitlines()[-1]
    assert following == "Next: python main.py pretrain --variant query --dataset digits"


def test_options_that_do_something_are_taken() -> None:
    assert unused_but_given(Baseline(model="resnet18", stem="small", epochs=7)) is None


def test_images_with_another_white_than_the_runs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, white in (("light", 3500), ("dark", 900)):
        write_image_folder(tmp_path / name, train=4, size=8)
        for number, file in enumerate(sorted((tmp_path / name).rglob("*.png"))):
            values = np.random.default_rng(number).integers(0, white, (8, 8)).astype(np.uint16)
            values[0, 0] = white
            Image.fromarray(values).save(file)
    run = ["--runs-dir", str(tmp_path / "runs")]
    assert main(["baseline", "--model", "pca", "--dataset", str(tmp_path / "light"), "--name", "run", *run]) == 0
    assert main(["evaluate", "run", "--dataset", str(tmp_path / "dark"), *run]) == 2
    assert "dark use 10 bits a value, those of run 'run' 12" in capsys.readouterr().err
