"""The projector's files, maps and their figures of quality, pictures; real files, no browser (see test_browser)."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prl_keras.cli import main
from prl_keras.visualization.embeddings import map_quality, tsne_map
from prl_keras.visualization.figures import class_colours
from prl_keras.visualization.projector import write_projector


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


@pytest.fixture(scope="module")
def runs_dir(shallow_module: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    small = ["--epochs", "1", "--samples-per-class", "12", "--image-size", "16", "--runs-dir", str(folder)]
    assert main(["pretrain", "--dataset", "digits", "--batch-size", "60", "--name", "p", *small]) == 0
    assert main(["finetune", "--encoder", "p", "--name", "frozen", *small]) == 0
    assert main(["finetune", "--encoder", "p", "--no-freeze", "--name", "free", *small]) == 0
    return folder


def test_before_is_the_untrained_network_of_the_same_seed(runs_dir: Path) -> None:
    from prl_keras.commands.visualize import _untrained
    from prl_keras.data import load_dataset
    from prl_keras.models.storage import weights_sha256
    from prl_keras.runs import Run
    from prl_keras.startup import start_keras
    from prl_keras.training.recipes import build_pretrainer

    run, dataset = Run(runs_dir / "p"), load_dataset("digits", samples_per_class=12, image_size=16)
    from prl_keras.config import Pretrain

    start_keras(0)
    expected = build_pretrainer(Pretrain(**run.config["options"]), dataset.image_shape, 10).encoder
    assert weights_sha256(_untrained(run, dataset)) == weights_sha256(expected)


def test_visualize_writes_embeddings_pictures_and_the_command(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["visualize", "p", "--before", "--samples-per-class", "5", "--runs-dir", str(runs_dir)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    logs = runs_dir / "p" / "logs"
    assert f"python -m tensorboard.main --logdir {logs} --host localhost" in printed
    assert sorted(path.name for path in (logs / "projector").iterdir()) == ["after-all", "before-all"]
    after, before = (
        np.fromfile(logs / "projector" / name / "tensors.bytes", "<f4") for name in ("after-all", "before-all")
    )
    assert after.size == before.size == (150 + 10) * 512
    assert not np.allclose(after, before)
    width, height = Image.open(runs_dir / "p" / "plots" / "tsne-all.png").size
    assert min(width, height) > 800
    state = json.loads((logs / "projector" / "after-all" / "bookmarks.json").read_text(encoding="utf-8"))
    assert state[0]["selectedColorOptionName"] == "class"


def test_before_of_an_unfrozen_run_is_the_pre_trained_encoder(runs_dir: Path) -> None:
    common = ["--split", "test", "--samples-per-class", "5", "--runs-dir", str(runs_dir)]
    assert main(["visualize", "free", "--before", *common]) == 0
    assert main(["visualize", "p", *common]) == 0
    before = runs_dir / "free" / "logs" / "projector" / "before-test" / "tensors.bytes"
    assert before.read_bytes() == (runs_dir / "p" / "logs" / "projector" / "after-test" / "tensors.bytes").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["frozen", "--before"], "use `visualize p --before`"),
        (["p", "--samples-per-class", "1"], "--samples-per-class is 1"),
        (["nothing"], "no run 'nothing'"),
    ],
)
def test_wrong_input_is_one_line(
    runs_dir: Path, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["visualize", *arguments, "--runs-dir", str(runs_dir)]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
