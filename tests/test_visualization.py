"""The projector's files, maps and their figures of quality, pictures; real files, no browser (see test_browser)."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import FEATURES
from PIL import Image

from prl_keras import load_encoder
from prl_keras.cli import main
from prl_keras.errors import InputError
from prl_keras.visualization.embeddings import map_quality, tsne_map
from prl_keras.visualization.figures import class_colours
from prl_keras.visualization.projector import write_projector
from prl_keras.visualization.sample import MOST

ROOT = Path(__file__).parents[1]


def blobs(count: int = 90, distance: float = 20.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes in 12 dimensions, `distance` apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (rng.normal(size=(count, 12)) + distance * np.eye(12)[labels]).astype("float32"), labels


def write(folder: Path, vectors: np.ndarray, **changes) -> Path:
    n = len(vectors)
    arguments = {
        "metadata": {"class": ["a"] * n, "index": range(n)},
        "images": np.full((n, 8, 8, 3), 100, np.uint8),
        "colours": np.tile(np.array([255, 0, 0], np.uint8), (n, 1)),
        "marked": np.zeros(n, bool),
    }
    return write_projector(folder, vectors, **(arguments | changes))


def test_vectors_are_little_endian_float32_by_rows_and_the_config_says_their_shape(tmp_path: Path) -> None:
    vectors = np.arange(15, dtype="float64").reshape(5, 3) + 0.5
    folder = write(tmp_path / "e", vectors)
    assert np.fromfile(folder / "tensors.bytes", "<f4").reshape(5, 3).tolist() == vectors.tolist()
    config = (folder / "projector_config.pbtxt").read_text(encoding="utf-8")
    assert "tensor_shape: 5\n  tensor_shape: 3\n" in config


def test_bytes_that_could_be_text_are_written_as_text(tmp_path: Path) -> None:
    """All features 0 would hide the projector's tab for every run."""
    folder = write(tmp_path / "e", np.zeros((4, 3)))
    assert not (folder / "tensors.bytes").exists()
    assert np.loadtxt(folder / "tensors.tsv").tolist() == np.zeros((4, 3)).tolist()
    assert 'tensor_path: "tensors.tsv"' in (folder / "projector_config.pbtxt").read_text(encoding="utf-8")


def test_tabs_and_newlines_in_class_names_do_not_break_the_table(tmp_path: Path) -> None:
    metadata = {"class": ["a\tb", "c\nd", "é"], "index": [0, 1, 2]}
    folder = write(tmp_path / "e", np.ones((3, 2)), metadata=metadata)
    assert (folder / "metadata.tsv").read_text("utf-8") == "class\tindex\na b\t0\nc d\t1\né\t2\n"


def test_the_sprite_holds_thumbnail_i_at_row_and_column_of_i_in_its_frame(tmp_path: Path) -> None:
    images = np.stack([np.full((24, 24, 3), 10 * i, np.uint8) for i in range(5)])
    marked = np.arange(5) == 4
    folder = write(tmp_path / "e", np.ones((5, 2)), images=images, marked=marked)
    sheet = np.asarray(Image.open(folder / "sprite.png"))
    side = len(sheet) // 3  # 5 images: 3 columns
    for i in range(5):
        tile = sheet[i // 3 * side :, i % 3 * side :][:side, :side]
        assert (tile[side // 2, side // 2] == 10 * i).all()
        assert tile[0, 0].tolist() == [255, 0, 0]
        assert (tile[side // 6, side // 2].tolist() == [255, 0, 0]) == marked[i]  # only its frame is that thick


def test_an_embedding_is_replaced_as_a_whole_and_others_stay(tmp_path: Path) -> None:
    write(tmp_path / "other", np.ones((3, 2)))
    write(tmp_path / "e", np.zeros((3, 2)))
    write(tmp_path / "e", np.ones((4, 2)))
    assert not (tmp_path / "e" / "tensors.tsv").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "other"]


def test_a_failed_write_leaves_the_old_embedding_and_no_draft(tmp_path: Path) -> None:
    folder = write(tmp_path / "e", np.ones((3, 2)))
    before = (folder / "tensors.bytes").read_bytes()
    with pytest.raises(ValueError, match="argument"):
        write(tmp_path / "e", np.ones((3, 2)), metadata={"class": ["a"], "index": [0, 1]})
    assert (folder / "tensors.bytes").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


@pytest.mark.parametrize("name", ["after-..", "..", "-x", "a b", "é", "x/../../y"])
def test_a_folder_whose_name_is_not_plain_is_refused(tmp_path: Path, name: str) -> None:
    kept = tmp_path / "y"
    kept.mkdir()
    (kept / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="no plain name"):
        write(tmp_path / "runs" / "x" / name, np.ones((3, 2)))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["y", "y/mine.txt"]


def test_only_an_embedding_is_replaced(tmp_path: Path) -> None:
    """A folder of the user, a file, a link, and what a link leads to stay as they are."""
    folder, elsewhere = tmp_path / "e", tmp_path / "elsewhere"
    write(elsewhere, np.ones((3, 2)))
    for make in (
        lambda: (folder.mkdir(), (folder / "mine.txt").write_text("mine")),
        lambda: (folder / "sprite.png").mkdir(parents=True),
        lambda: folder.write_text("mine"),
        lambda: folder.symlink_to(elsewhere),
        lambda: folder.symlink_to(tmp_path / "nowhere"),
    ):
        make()
        before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
        with pytest.raises(InputError, match="move it away"):
            write(folder, np.ones((4, 2)))
        assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before
        shutil.rmtree(folder) if folder.is_dir() and not folder.is_symlink() else folder.unlink()
    folder.mkdir()
    write(folder, np.ones((4, 2)))  # an empty folder is nobody's
    linked = tmp_path / "linked"
    linked.symlink_to(elsewhere.parent)  # a user's logs on another disk
    write(linked / "elsewhere", np.ones((5, 2)))
    assert np.fromfile(elsewhere / "tensors.bytes", "<f4").size == 10


def test_few_points_are_mapped_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them wait for each other, beside another job for most of a minute."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_info

    def threads(points: int) -> set[int]:
        tsne_map(np.random.default_rng(0).normal(size=(points, 4)))
        return used

    used: set[int] = set()

    def fit_transform(self: TSNE, features: np.ndarray) -> np.ndarray:
        used.clear()
        used.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
        return features[:, :2]

    monkeypatch.setattr(TSNE, "fit_transform", fit_transform)
    usual = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"}
    assert threads(2_000) == {1}
    assert threads(2_001) == usual


def test_commands_let_waiting_threads_sleep() -> None:
    """Decided when the OpenMP runtime is loaded, so before any data are."""
    code = (
        "import os, sys, prl_keras.commands.visualize; print(os.environ['OMP_WAIT_POLICY'], 'sklearn' in sys.modules)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    for added, expected in (({}, "PASSIVE False"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE False")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | added, cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected


@pytest.mark.usefixtures("whole_maps")
def test_tsne_is_repeatable_and_separates_what_is_separate() -> None:
    features, labels = blobs()
    positions = tsne_map(features, seed=1)
    assert (positions == tsne_map(features, seed=1)).all()
    centres = np.stack([positions[labels == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(positions[:, None] - centres, axis=-1).argmin(axis=1)
    assert (nearest == labels).all()
    assert positions.max(axis=0) == pytest.approx(-positions.min(axis=0), rel=1e-4)  # centred


def test_a_collapsed_encoder_has_a_map() -> None:
    assert (tsne_map(np.ones((30, 5))) == 0).all()


@pytest.mark.usefixtures("whole_maps")
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_features_of_one_dimension_and_of_any_size_have_a_map(scale: float) -> None:
    values = scale * np.linspace(1, 2, 40)[:, None]
    positions = tsne_map(values)
    assert positions.shape == (40, 2)
    assert np.isfinite(positions).all()
    nearest = np.abs(np.diff(positions, axis=0)).max()
    assert nearest < np.ptp(positions, axis=0).max() / 4, "neighbours stay neighbours"


@pytest.mark.usefixtures("whole_maps")
def test_quality_is_high_for_separate_classes_and_low_for_labels_at_random() -> None:
    features, labels = blobs()
    positions = tsne_map(features)
    quality = map_quality(features, labels, positions)
    assert quality["silhouette"] > 0.7
    assert quality["knn_accuracy"] == 1
    assert quality["trustworthiness"] > 0.9
    shuffled = map_quality(features, np.random.default_rng(0).permutation(labels), positions)
    assert shuffled["silhouette"] < 0.1
    assert shuffled["knn_accuracy"] < 0.6
    noise = np.random.default_rng(0).normal(size=positions.shape)
    assert map_quality(features, labels, noise)["trustworthiness"] < 0.7


def test_a_point_is_not_its_own_neighbour() -> None:
    """Labels that alternate along a line: every vote of the others is wrong for the middle of a pair."""
    features, labels = np.repeat(np.arange(11.0), 2)[:, None], np.tile([0, 1], 11)
    assert map_quality(features, labels, np.zeros((22, 2)))["knn_accuracy"] < 0.6


def test_too_few_points_give_no_figure() -> None:
    features, labels = blobs(6)
    quality = map_quality(features, np.zeros_like(labels), features[:, :2])
    assert quality == {"silhouette": None, "knn_accuracy": None, "trustworthiness": None}


@pytest.mark.parametrize("classes", [2, 10, 11, 20, 21, 100])
def test_every_class_has_a_colour_of_its_own(classes: int) -> None:
    assert len(np.unique(class_colours(classes), axis=0)) == classes


def test_before_is_the_untrained_network_of_the_same_seed(trained: Path) -> None:
    from prl_keras.data import load_dataset
    from prl_keras.models.storage import weights_sha256
    from prl_keras.runs import Run
    from prl_keras.startup import start_keras
    from prl_keras.training.build import build_pretrainer
    from prl_keras.training.untrained import untrained_encoder

    run, dataset = Run(trained / "pre"), load_dataset("digits", samples_per_class=8, test_per_class=5, image_size=16)
    from prl_keras.config import Pretrain

    start_keras(0)
    expected = build_pretrainer(Pretrain(**run.config["options"]), dataset.image_shape, 10).encoder
    assert weights_sha256(untrained_encoder(run)) == weights_sha256(expected)


def test_visualize_writes_embeddings_pictures_and_the_command(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["visualize", "pre", "--before", "--samples-per-class", "5", "--runs-dir", str(trained)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    logs = trained / "pre" / "logs"
    assert f"python -m tensorboard.main --logdir {logs} --host localhost" in printed
    assert sorted(path.name for path in (logs / "projector").iterdir()) == ["after-all", "before-all"]
    after, before = (
        np.fromfile(logs / "projector" / name / "tensors.bytes", "<f4") for name in ("after-all", "before-all")
    )
    assert after.size == before.size == (150 + 10) * FEATURES
    assert not np.allclose(after, before)
    assert main(["visualize", "--help"]) == 0
    described = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"of a split at most {MOST:,}" in described
    (picture,) = re.findall(r"draws (plots/\S+\.png)", described)
    width, height = Image.open(trained / "pre" / picture.replace("SPLIT", "all")).size
    assert min(width, height) > 800
    state = json.loads((logs / "projector" / "after-all" / "bookmarks.json").read_text(encoding="utf-8"))
    assert state[0]["selectedColorOptionName"] == "class"


@pytest.mark.slow
def test_before_of_an_unfrozen_run_is_the_pre_trained_encoder(trained: Path) -> None:
    common = ["--split", "test", "--samples-per-class", "5", "--runs-dir", str(trained)]
    tune = ["finetune", "--encoder", "pre", "--no-freeze", "--name", "free", "--epochs", "1"]
    assert main([*tune, "--runs-dir", str(trained)]) == 0
    assert main(["visualize", "free", "--before", *common]) == 0
    assert main(["visualize", "pre", *common]) == 0
    before = trained / "free" / "logs" / "projector" / "before-test" / "tensors.bytes"
    assert before.read_bytes() == (trained / "pre" / "logs" / "projector" / "after-test" / "tensors.bytes").read_bytes()


@pytest.mark.slow
def test_the_encoder_of_a_run_in_another_folder_is_found_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the runs' folder has a run of the same name."""
    monkeypatch.chdir(tmp_path)
    small = ["--epochs", "1", "--encoder", str(trained / "pre"), "--runs-dir", "other"]
    look = ["--before", "--split", "test", "--samples-per-class", "5"]
    shutil.copytree(trained / "tuned", tmp_path / "other" / "pre")
    assert main(["finetune", "--no-freeze", "--name", "free", *small]) == 0
    assert main(["finetune", "--name", "tuned", *small]) == 0
    assert main(["visualize", "free", *look, "--runs-dir", "other"]) == 0
    assert main(["visualize", str(trained / "free"), *look]) == 0, "its encoder is beside it"
    capsys.readouterr()
    for command, where in (
        (["tuned", "--runs-dir", "other"], f"{trained / 'pre'} --runs-dir other"),
        ([str(trained / "tuned"), "--dataset", "digits"], f"{trained / 'pre'} --dataset digits"),
    ):
        assert main(["visualize", *command, *look]) == 2
        advice = capsys.readouterr().err.split("`")[1]
        assert advice == f"python main.py visualize {where} --before"
        assert main([*shlex.split(advice)[2:], "--split", "test", "--samples-per-class", "5"]) == 0
    shutil.rmtree(tmp_path / "other" / "pre")
    (tmp_path / "other" / "free").rename(tmp_path / "other" / "moved")
    shutil.copytree(trained / "free", tmp_path / "other" / "free")
    shutil.copytree(trained / "pre", tmp_path / "other" / "pre")
    encoder = load_encoder("pre", tmp_path / "other")
    encoder.set_weights([weight + 1 for weight in encoder.get_weights()])
    encoder.save(tmp_path / "other" / "pre" / "encoder.keras")
    capsys.readouterr()
    assert main(["visualize", "free", *look, "--runs-dir", "other"]) == 2
    assert "is not the encoder that run 'free' began with" in capsys.readouterr().err


NAMES = (r"a $\frac$ b", "_hidden", "7", "%s {0} | `<b>`")


def folder_of_images(root: Path, names: tuple[str, ...], side: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name in names:
        for split, count in (("train", 4), ("test", 2)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(root / split / name / f"{i}.png")
    return root


def test_a_folder_elsewhere_with_any_class_names_is_looked_at_and_nothing_of_it_is_touched(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a path that climbs, beside what the old names of its files would have replaced; in the encoder's size."""
    pets = folder_of_images(tmp_path / "my pets!", NAMES, side=24)
    deep = tmp_path / "1" / "2" / "3" / "4"
    deep.mkdir(parents=True)
    for path in (tmp_path / "my pets!-all", trained / "my pets!-all"):
        path.mkdir()
        (path / "mine.txt").write_text("mine")
    monkeypatch.chdir(deep)
    run = trained / "pre"
    outside = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    inside = {path for path in trained.rglob("*") if run not in path.parents}
    capsys.readouterr()
    assert main(["visualize", "pre", "--dataset", "../../../../my pets!", "--runs-dir", str(trained)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "16x16 px" in printed.out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == outside
    assert {path for path in trained.rglob("*") if run not in path.parents} == inside
    (embedding,) = (run / "logs" / "projector").glob("*pets*")
    (picture,) = (run / "plots").glob("*pets*")
    assert re.fullmatch(r"after-my-pets-[0-9a-f]{6}-all", embedding.name)
    assert picture.name == f"tsne{embedding.name.removeprefix('after')}.png"
    table = [line.split("\t") for line in (embedding / "metadata.tsv").read_text("utf-8").splitlines()]
    assert {row[0] for row in table[1:]} == {r"a $\frac$ b", "_hidden", "class 7", "%s {0} | `<b>`"}
    assert {row[3] for row in table[1:5]} == {"-"}  # of the prototypes
    assert len(table) == 1 + 4 + 4 * (3 + 1 + 2)
    assert pets.is_dir()


@pytest.mark.slow
def test_a_copy_of_the_runs_own_data_has_no_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets = folder_of_images(tmp_path / "pets", ("a", "b"), side=16)
    shutil.copytree(pets, tmp_path / "elsewhere" / "copy")
    monkeypatch.chdir(tmp_path)
    small = ["--batch-size", "4", "--variant", "standard", "--epochs", "1", "--name", "q", "--runs-dir", "runs"]
    assert main(["pretrain", "--dataset", "./pets/", *small]) == 0
    for spelling in ([], ["--dataset", "pets"], ["--dataset", "elsewhere/copy"]):
        assert main(["visualize", "q", *spelling, "--split", "train", "--runs-dir", "runs"]) == 0
    assert [path.name for path in (tmp_path / "runs/q/logs/projector").iterdir()] == ["after-train"]
    (tmp_path / "runs/q/logs/projector/after-train/mine.txt").write_text("mine")
    assert main(["visualize", "q", "--split", "train", "--runs-dir", "runs"]) == 2
    assert (tmp_path / "runs/q/logs/projector/after-train/mine.txt").exists()


def test_more_images_than_a_picture_can_show_are_left_out_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prl_keras.commands.visualize import draw_sample
    from prl_keras.config import Visualize
    from prl_keras.data import Dataset
    from prl_keras.data.splits import Split

    def split(n: int) -> Split:
        return Split(np.zeros((n, 2, 2, 3), np.uint8), np.arange(n) % 1_000)

    names = tuple(map(str, range(1_000)))
    data = Dataset("d", split(9_000), split(1_000), split(2_500), names, "f")
    sample = draw_sample(data, Visualize())
    assert {str(k): (sample.splits == k).sum() for k in np.unique(sample.splits)} == {
        "test": 2_000,
        "train": 2_000,
        "validation": 1_000,
    }
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Showing 5,000 of the 12,500 images")
    assert len(draw_sample(data, Visualize(split="test", samples_per_class=2)).rows) == 2_000
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["tuned", "--before"], "use `python main.py visualize pre --runs-dir "),
        (["pre", "--samples-per-class", "1"], "--samples-per-class is 1"),
        (["nothing"], "no run 'nothing'"),
    ],
)
def test_wrong_input_is_one_line(
    trained: Path, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["visualize", *arguments, "--runs-dir", str(trained)]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
