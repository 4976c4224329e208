"""`predict` reads an image as the training images of its run were read."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from prl_keras.cli import main
from prl_keras.models.storage import save_model
from prl_keras.runs import Run, create_run

SIDE = 8


@pytest.fixture
def trained(tmp_path: Path) -> Run:
    """A run whose classifier says how bright an image is: the first class's logit is its mean."""
    data = {"class_names": ["bright", "dark"], "image_shape": [SIDE, SIDE, 3], "fingerprint": "0" * 64}
    run = create_run(tmp_path, "run", {"command": "baseline", "data": data | {"request": {"name": "digits"}}})
    inputs = keras.Input((SIDE, SIDE, 3))
    mean = keras.layers.GlobalAveragePooling2D()(inputs)
    logits = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant([[1 / 3, 0]] * 3))(mean)
    save_model(keras.Model(inputs, logits), run.classifier_file)
    (run.path / "result.json").write_text("{}", encoding="utf-8")
    return run


def brightness(run: Run, path: Path, bits: object, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """The mean that the classifier saw; None if the image was refused. `bits`: what the run's record says, or ... ."""
    from prl_keras.models import encode

    config = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    config["data"].pop("bits", None)
    config["data"] |= {} if bits is ... else {"bits": bits}
    (run.path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    seen, known = [], encode.encode
    monkeypatch.setattr(encode, "encode", lambda model, images: seen.append(known(model, images)) or seen[-1])
    code = main(["predict", str(run.path), str(path), "--top", "1", "--runs-dir", str(run.path.parent)])
    monkeypatch.setattr(encode, "encode", known)
    return round(float(seen[0][0, 0])) if code == 0 else None


@pytest.mark.parametrize(
    ("value", "bits", "expected"),
    [
        (4095, 12, 255),
        (2048, 12, 128),
        (4095, 14, 64),
        (4095, 16, 16),
        (65535, 16, 255),
        (4095, ..., 16),  # an older run, which read 16 bits as such
        (65535, None, 255),  # trained on 8 bits
        (4095, None, None),  # and here nothing tells what 4,095 is
        (5000, 12, None),
        (200, 8, 200),
    ],
)
def test_16_bits_are_scaled_as_in_training(trained, tmp_path, capsys, monkeypatch, value, bits, expected):
    path = tmp_path / "scan.png"
    Image.fromarray(np.full((SIDE, SIDE), value, np.uint16)).save(path)
    assert brightness(trained, path, bits, monkeypatch) == expected
    error = capsys.readouterr().err
    assert error.count("\n") == (expected is None)
    assert expected is not None or (str(path) in error and "convert it to 8 bits" in error)


@pytest.mark.parametrize("bits", [12, 16, None, ...])
def test_8_bits_are_not_scaled_whatever_the_run(trained, tmp_path, monkeypatch, bits):
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((SIDE, SIDE), 100, np.uint8)).save(path)
    assert brightness(trained, path, bits, monkeypatch) == 100


@pytest.mark.parametrize("bits", ["12", 13, -1, [], {}, True, 1e9])
def test_a_damaged_record_is_one_line(trained, tmp_path, capsys, monkeypatch, bits):
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((SIDE, SIDE), 100, np.uint8)).save(path)
    assert brightness(trained, path, bits, monkeypatch) is None
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "data.bits" in error


def test_a_telephones_picture_is_to_be_converted(trained, tmp_path, capsys, monkeypatch):
    path = tmp_path / "IMG_0001.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    assert brightness(trained, path, None, monkeypatch) is None
    assert "convert it to JPEG or PNG" in capsys.readouterr().err
