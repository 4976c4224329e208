"""predict and embed on any number of files: what they write is what the model says, however often they are killed."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prl_keras import __version__
from prl_keras.cli import main
from prl_keras.data.images import load_image
from prl_keras.models import build_classifier
from prl_keras.models.storage import save_model
from prl_keras.runs import Run, create_run

SIDE = 16
COLUMNS = ["path", "class", "probability", "class_2", "probability_2", "class_3", "probability_3", "error"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same two runs, written by hand, of a network that is loaded at once."""
    import keras

    folder = tmp_path_factory.mktemp("tiny")
    keras.utils.set_random_seed(0)
    layers = [keras.Input((SIDE, SIDE, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    encoder = keras.Sequential([*layers, keras.layers.Dense(6, "relu")], name="encoder")
    data = {"class_names": list("0123456789"), "image_shape": [SIDE, SIDE, 3], "fingerprint": "0" * 64}
    for name in ("pre", "tuned"):
        run = create_run(folder, name, {"command": name, "data": data | {"request": {"name": "digits"}, "bits": None}})
        model = encoder if name == "pre" else build_classifier(encoder, 10)
        save_model(model, run.encoder_file if name == "pre" else run.classifier_file)
        (run.path / "result.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve pictures of odd names in odd places, and litter; the working folder is the one that holds `photos`."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    names = [f"{i}.png" for i in range(1, 9)] + ['deep/er/a, "b".png', "deep/猫.jpg", "10.png", "Z9.PNG"]
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (SIDE + i, SIDE + 2 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "deep" / "._1.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prl_keras.models.encode._BATCH", 5)
    return folder


IN_ORDER = [f"photos/{i}.png" for i in (*range(1, 9), 10)] + [
    "photos/Z9.PNG",
    'photos/deep/er/a, "b".png',
    "photos/deep/猫.jpg",
]


def outputs(runs_dir: Path, kind: str, files: list[str]) -> np.ndarray:
    """Directly, an image at a time."""
    import keras

    if kind == "features":
        model = keras.models.load_model(runs_dir / "pre" / "encoder.keras")
    else:
        model = keras.models.load_model(runs_dir / "tuned" / "classifier.keras")
    images = np.stack([load_image(file, (SIDE, SIDE)) for file in files])
    return np.concatenate([np.asarray(model(images[i : i + 1], training=False)) for i in range(len(images))])


def probabilities(runs_dir: Path, files: list[str]) -> np.ndarray:
    logits = outputs(runs_dir, "logits", files).astype(np.float64)
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def predict(runs_dir: Path, *words: str) -> int:
    return main(["predict", "tuned", *words, "--runs-dir", str(runs_dir)])


def embed(runs_dir: Path, *words: str) -> int:
    return main(["embed", "pre", *words, "--runs-dir", str(runs_dir)])


def rows_of(file: Path) -> tuple[list[dict], dict]:
    """The rows, and what is said of them, read without any of the program's code."""
    if file.suffix == ".csv":
        with file.open(encoding="utf-8", newline="") as text:
            rows = [{key: value or None for key, value in row.items()} for row in csv.DictReader(text)]
        for row in rows:
            row |= {key: value and float(value) for key, value in row.items() if key.startswith("prob")}
        return rows, json.loads(file.with_name(f"{file.name}.meta.json").read_text(encoding="utf-8"))
    if file.suffix == ".json":
        content = json.loads(file.read_text(encoding="utf-8"))
        return content["images"], content["about"]
    from pyarrow import parquet

    table = parquet.read_table(file)
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    texts = ("run", "command", "resize", "prl_keras_version")
    about = {k: v if k in texts or k.endswith("sha256") else json.loads(v) for k, v in about.items()}
    return table.to_pylist(), about


def complaint(capsys: pytest.CaptureFixture, code: int) -> str:
    """Exit code 2 and one line."""
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(lines) == 1, lines
    return lines[0]


# What is written ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_predict_writes_what_the_classifier_says(tiny: Path, photos: Path, ending: str, capsys) -> None:
    assert predict(tiny, "photos", "--out", f"out.{ending}") == 0
    rows, about = rows_of(Path(f"out.{ending}"))
    assert [row["path"] for row in rows] == IN_ORDER
    assert list(rows[0]) == COLUMNS
    expected = probabilities(tiny, IN_ORDER)
    for row, values in zip(rows, expected, strict=True):
        assert row["error"] is None
        best = [int(row[f"class{rank}"]) for rank in ("", "_2", "_3")]
        shares = [row[f"probability{rank}"] for rank in ("", "_2", "_3")]
        assert shares == sorted(shares, reverse=True)
        np.testing.assert_allclose(shares, np.sort(values)[::-1][:3], atol=1e-5)
        np.testing.assert_allclose(values[best], shares, atol=1e-5)
    assert (about["run"], about["image_shape"], about["prl_keras_version"]) == ("tuned", [SIDE, SIDE, 3], __version__)
    assert (about["files"], about["damaged"], about["class_names"]) == (12, 0, list("0123456789"))
    assert (about["resize"], about["bits"]) == ("crop", None)
    left = {path.name for path in Path().iterdir()} - {"photos", f"out.{ending}"}
    assert left == ({"out.csv.meta.json"} if ending == "csv" else set())
    shown = capsys.readouterr().out
    assert "12 images by their likeliest class" in shown
    assert f"wrote out.{ending}" in shown


def test_embed_writes_the_encoders_features(tiny: Path, photos: Path) -> None:
    expected = outputs(tiny, "features", IN_ORDER)
    assert embed(tiny, "photos", "--out", "v.npy") == 0
    vectors = np.load("v.npy", mmap_mode="r")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
    with open("v.npy.csv", encoding="utf-8", newline="") as text:
        assert [row["path"] for row in csv.DictReader(text)] == IN_ORDER
    assert embed(tiny, "photos", "--out", "v.parquet") == 0
    rows, about = rows_of(Path("v.parquet"))
    assert [row["path"] for row in rows] == IN_ORDER
    np.testing.assert_array_equal(np.array([row["vector"] for row in rows], np.float32), vectors)
    assert json.loads(Path("v.npy.meta.json").read_text(encoding="utf-8")) == about | {"damaged_files": []}
    assert main(["embed", "tuned", "photos", "--out", "t.npy", "--runs-dir", str(tiny)]) == 0
    np.testing.assert_array_equal(np.load("t.npy"), vectors), "its encoder was frozen"


def test_a_trained_run_answers_with_the_weights_that_its_record_names(trained: Path, photos: Path) -> None:
    assert predict(trained, "photos", "--out", "out.parquet") == 0
    rows, about = rows_of(Path("out.parquet"))
    assert [int(row["class"]) for row in rows] == probabilities(trained, IN_ORDER).argmax(axis=-1).tolist()
    sha256 = Run(trained / "pre").result["encoder_sha256"]
    assert about["encoder_sha256"] == sha256 == Run(trained / "tuned").result["encoder_sha256_after"]
    assert embed(trained, "photos", "--out", "v.npy") == 0
    assert json.loads(Path("v.npy.meta.json").read_text(encoding="utf-8"))["encoder_sha256"] == sha256
    np.testing.assert_allclose(np.load("v.npy"), outputs(trained, "features", IN_ORDER), rtol=1e-4, atol=1e-5)


def test_the_examples_of_the_document_read_every_format(tiny: Path, photos: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "use.md").read_text(encoding="utf-8")
    csv_reader, _, parquet_reader, npy_reader = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[:4]
    (photos / "7.png").write_bytes(b"")
    for ending in ("csv", "parquet", "json"):
        assert predict(tiny, "photos", "--out", f"photos.{ending}") == 1
    shares = []
    for reader in ("read_csv(", "read_parquet(", "DataFrame(json.load(open("):
        found = {"json": json}
        ending = {"read_c": "csv", "read_p": "parquet"}.get(reader[:6], "json")
        end = '")' if ending != "json" else '"))["images"])'
        exec(csv_reader.replace('read_csv("photos.csv")', f'{reader}"photos.{ending}{end}'), found)
        assert list(found["table"]["path"]) == IN_ORDER
        shares.append(found["table"]["probability"].to_numpy(np.float32))
    np.testing.assert_array_equal(shares[0], shares[1])
    np.testing.assert_array_equal(shares[0], shares[2])
    Path("photos.parquet").unlink()
    for ending in ("npy", "parquet"):
        assert embed(tiny, "photos", "--out", f"photos.{ending}") == 1
    from_parquet, from_npy = {}, {}
    exec(parquet_reader, from_parquet)
    exec(npy_reader, from_npy)
    np.testing.assert_array_equal(from_parquet["vectors"], from_npy["vectors"])
    sound = [path for path in IN_ORDER if path != "photos/7.png"]
    assert from_parquet["table"]["path"].to_pylist() == list(from_npy["paths"]) == sound


# A kill at any moment -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "stop"),
    [*((ending, KeyboardInterrupt) for ending in ("csv", "json", "parquet", "npy")), ("csv", ZeroDivisionError)],
)
def test_what_is_interrupted_goes_on_to_the_same_bytes(
    tiny: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys, ending: str, stop: type[BaseException]
) -> None:
    from prl_keras.models import encode as encoding

    command = embed if ending == "npy" else predict
    (photos / "7.png").write_bytes(b"")
    assert command(tiny, "photos", "--out", f"whole.{ending}") == 1
    known, encoded = encoding.encode, []

    def counting(model, images):
        encoded.append(len(images))
        if len(encoded) == 2:
            raise stop
        return known(model, images)

    monkeypatch.setattr(encoding, "encode", counting)
    words = ("photos", "--out", f"out.{ending}")
    capsys.readouterr()
    if stop is KeyboardInterrupt:
        assert command(tiny, *words) == 130
        assert f"--out out.{ending}" in capsys.readouterr().err.splitlines()[-1]
    else:
        with pytest.raises(ZeroDivisionError):
            command(tiny, *words)
    assert not Path(f"out.{ending}").exists()
    assert len(list(Path(f"out.{ending}.partial").glob("*.npz"))) == 1
    assert command(tiny, *words) == 1
    assert len(encoded) == 2 + 2, "three batches; the first is not repeated"
    for name in [path.name for path in Path().glob("whole*")]:
        assert Path(name.replace("whole", "out")).read_bytes() == Path(name).read_bytes(), name
    assert not Path(f"out.{ending}.partial").exists()


def test_an_exception_while_a_file_is_decoded_keeps_the_batches_before(
    tiny: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prl_keras.data import stream

    assert predict(tiny, "photos", "--out", "whole.csv") == 0
    known = stream.decode

    def load(file: Path, **reading):
        if file.as_posix() == IN_ORDER[9]:
            raise MemoryError
        return known(file, **reading)

    monkeypatch.setattr(stream, "decode", load)
    assert predict(tiny, "photos", "--out", "out.csv") == 2, "not enough memory"
    assert len(list(Path("out.csv.partial").glob("*.npz"))) == 2
    monkeypatch.undo()
    os.chdir(photos.parent)
    monkeypatch.setattr("prl_keras.models.encode._BATCH", 5)
    assert predict(tiny, "photos", "--out", "out.csv") == 0
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()


# What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beside", ["", ".meta.json"])
def test_nothing_is_overwritten(tiny: Path, photos: Path, capsys, beside: str) -> None:
    Path(f"out.csv{beside}").write_text("mine", encoding="utf-8")
    assert f"out.csv{beside} is there already" in complaint(capsys, predict(tiny, "photos", "--out", "out.csv"))
    assert Path(f"out.csv{beside}").read_text(encoding="utf-8") == "mine"
    assert not Path("out.csv.partial").exists()


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (predict, ["photos", "--out", "out.txt"], r"\.csv, \.parquet, \.json"),
        (predict, ["photos", "--out", "nowhere/out.csv"], "no folder nowhere"),
        (predict, ["gone", "--out", "out.csv"], "gone: no such image file or folder"),
        (predict, ["empty"], "empty: no pictures in it"),
        (embed, ["photos", "--out", "out.csv"], r"\.parquet or \.npy"),
        (embed, ["photos"], "--out"),
        (embed, ["--out", "v.npy"], "at least one"),
        (embed, ["photos/notes.txt", "--out", "v.npy"], r"photos/notes\.txt: not a readable image"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    tiny: Path, photos: Path, capsys, command, words: list[str], message: str
) -> None:
    Path("empty").mkdir()
    before = sorted(Path().rglob("*"))
    assert re.search(message, complaint(capsys, command(tiny, *words)))
    assert sorted(Path().rglob("*")) == before


def test_an_unfinished_output_of_other_files_is_refused(
    tiny: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("prl_keras.outputs.work.Work.publish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict(tiny, "photos", "--out", "out.csv")
    (photos / "1.png").unlink()
    capsys.readouterr()
    assert re.search(r"files = '12 .*not '11 ", complaint(capsys, predict(tiny, "photos", "--out", "out.csv")))


# Damaged and odd files ------------------------------------------------------------------------------------


def spoil(photos: Path) -> dict[str, str]:
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:200])
    (photos / "3.png").write_bytes(b"")
    (photos / "4.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    Image.fromarray(np.full((SIDE, SIDE), 60000, np.uint16)).save(photos / "5.png")  # in a run of 8 bits: 16 bits
    Image.fromarray(np.full((SIDE, SIDE), 4095, np.uint16)).save(photos / "6.png")  # which nothing tells the bits of
    return {
        "photos/1.png": "truncated|readable",
        "photos/3.png": "empty",
        "photos/4.heic": "heif|readable",
        "photos/6.png": "16",
    }


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_damaged_files_are_rows_with_an_error(tiny: Path, photos: Path, capsys, ending: str) -> None:
    damaged = spoil(photos)
    assert predict(tiny, "photos", "--out", f"out.{ending}") == 1
    error = capsys.readouterr().err
    assert "4 of 13 files could not be read" in error
    rows, about = rows_of(Path(f"out.{ending}"))
    assert about["damaged"] == 4
    assert len(rows) == 13
    sound = [row["path"] for row in rows if row["error"] is None]
    assert sound == [path for path in IN_ORDER if path not in damaged]
    for row in rows:
        if row["path"] in damaged:
            assert re.search(damaged[row["path"]], row["error"])
            assert not row["error"].startswith("photos")
            assert {row[key] for key in COLUMNS[1:-1]} == {None}
            assert f"  {row['path']}: {row['error']}" in error
    best = [int(row["class"]) for row in rows if row["error"] is None]
    assert best == probabilities(tiny, sound).argmax(axis=-1).tolist(), "a damaged file moves no other's answer"


def test_a_large_picture_is_read_if_its_megapixels_are_allowed(tiny: Path, tmp_path: Path, capsys) -> None:
    Image.new("L", (1500, 1000)).save(tmp_path / "large.png")
    assert predict(tiny, str(tmp_path), "--max-megapixels", "1") == 2
    assert "--max-megapixels" in capsys.readouterr().err
    assert predict(tiny, str(tmp_path), "--max-megapixels", "2", "--out", str(tmp_path / "out.json")) == 0
    assert rows_of(tmp_path / "out.json")[1]["max_megapixels"] == 2
    out = ["--out", str(tmp_path / "out.npy"), "--runs-dir", str(tiny)]
    assert main(["embed", "pre", str(tmp_path / "large.png"), "--max-megapixels", "1", *out]) == 2
    assert main(["embed", "pre", str(tmp_path / "large.png"), *out]) == 0


def test_damaged_files_have_no_vector(tiny: Path, photos: Path) -> None:
    damaged = spoil(photos)
    sound = [path for path in IN_ORDER if path not in damaged]
    assert embed(tiny, "photos", "--out", "v.npy") == 1
    assert embed(tiny, "photos", "--out", "v.parquet") == 1
    np.testing.assert_allclose(np.load("v.npy"), outputs(tiny, "features", sound), rtol=1e-4, atol=1e-5)
    with open("v.npy.csv", encoding="utf-8", newline="") as text:
        assert [row["path"] for row in csv.DictReader(text)] == sound
    listed = json.loads(Path("v.npy.meta.json").read_text(encoding="utf-8"))["damaged_files"]
    assert sorted(row["path"] for row in listed) == sorted(damaged)
    rows, _ = rows_of(Path("v.parquet"))
    assert {row["path"] for row in rows if row["vector"] is None} == set(damaged)


def test_where_nothing_can_be_read_nothing_is_written(tiny: Path, photos: Path, capsys) -> None:
    for file in photos.rglob("*.*"):
        file.write_bytes(b"x")
    line = complaint(capsys, predict(tiny, "photos", "--out", "out.csv"))
    assert "none of 12 files can be read; the first: photos/1.png: " in line
    assert [path.name for path in Path().iterdir()] == ["photos"]


def test_300_tiny_files_are_counted_and_the_ten_first_damaged_are_listed(
    tiny: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("many").mkdir()
    rng = np.random.default_rng(1)
    for i in range(300):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(f"many/{i}.png")
    for i in range(0, 300, 25):
        Path(f"many/{i}.png").write_bytes(b"x")
    assert predict(tiny, "many") == 1
    shown = capsys.readouterr()
    assert "288 images by their likeliest class:" in shown.out
    assert "add --out" in shown.out
    counts = [int(line.split()[0]) for line in shown.out.splitlines() if re.match(r" +\d+ +[\d.]+ %", line)]
    assert sum(counts) == 288
    assert shown.err.splitlines()[0] == "12 of 300 files could not be read:"
    assert shown.err.splitlines()[-1] == "  and 2 more"
    assert len(shown.err.splitlines()) == 12
    assert predict(tiny, "many", "--out", "many.parquet") == 1
    rows, _ = rows_of(Path("many.parquet"))
    assert [row["path"] for row in rows] == [f"many/{i}.png" for i in range(300)]
    best = np.bincount([int(row["class"]) for row in rows if row["error"] is None])
    assert sorted(best[best > 0].tolist(), reverse=True) == counts
