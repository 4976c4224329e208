"""export: programs that know nothing of this package or of Keras get the run's own answers, and what to call them."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from prl_keras.cli import main
from prl_keras.commands.export import _pictures
from prl_keras.data import load_dataset
from prl_keras.export.formats import FORMATS
from prl_keras.export.program import TOLERANCE
from prl_keras.extras import installed
from prl_keras.files import atomic_folder
from prl_keras.models import build_classifier, resnet18
from prl_keras.models.storage import save_model, weights_sha256
from prl_keras.runs import Run, create_run

ROOT = Path(__file__).parents[1]
SHAPE = (16, 20, 3)
REQUEST = {"name": "digits", "image_size": list(SHAPE[:2]), "samples_per_class": 8, "test_per_class": 5}
NAMES = ["cat", 'dog, "big"', "猫\nfish", "<b>"]
RUNTIMES = {
    "savedmodel": ("tensorflow",),
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
    "litert": ("tensorflow",),
}


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained run `pre` and a classifier `tuned`, with weights that no initialiser gives."""
    folder = tmp_path_factory.mktemp("runs")
    keras.utils.set_random_seed(0)
    encoder = resnet18(SHAPE, preprocessing="centred")
    random = np.random.RandomState(0)
    encoder.set_weights([w * random.uniform(0.8, 1.2, w.shape) + 0.01 * random.rand() for w in encoder.get_weights()])
    own = load_dataset(**REQUEST).fingerprint
    data = {"class_names": NAMES, "image_shape": list(SHAPE), "fingerprint": own, "bits": None, "request": REQUEST}
    for name, model in (("pre", encoder), ("tuned", build_classifier(encoder, len(NAMES), "mlp", dropout=0.5))):
        run = create_run(folder, name, {"command": name, "data": data})
        save_model(model, run.encoder_file if name == "pre" else run.classifier_file)
        (run.path / "result.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.RandomState(1).randint(0, 256, (7, *SHAPE)).astype("uint8")


@pytest.fixture(scope="module")
def exported(runs_dir: Path) -> dict[tuple[str, str], Path]:
    """(run, format) -> the file: every format that can be written and run here, and one of the encoder."""
    files = {}
    for run, name in [("tuned", name) for name in FORMATS] + [("pre", "savedmodel")]:
        form = FORMATS[name]
        if form.runtime and all(map(installed, form.writers)):
            assert main(["export", run, "--format", name, "--runs-dir", str(runs_dir)]) == 0
            files[run, name] = runs_dir / run / "export" / form.name
    return files


def skip_without(name: str) -> None:
    for package in RUNTIMES[name]:
        pytest.importorskip(package, reason=f"{name} needs {package}: pip install -r requirements-dev.txt")


def complaint(capsys: pytest.CaptureFixture, code: int) -> str:
    """Exit code 2 and one line."""
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(("run", "name"), [*(("tuned", name) for name in FORMATS), ("pre", "savedmodel")])
def test_the_formats_own_runtime_answers_as_keras(exported, runs_dir, images, run, name) -> None:
    skip_without(name)
    form, file = FORMATS[name], exported[run, name]
    model = keras.models.load_model(runs_dir / run / ("encoder.keras" if run == "pre" else "classifier.keras"))
    wanted = np.asarray(model.predict(images.astype("float32"), verbose=0), "float64")
    if run == "tuned":
        wanted = np.exp(wanted) / np.exp(wanted).sum(axis=-1, keepdims=True)
        assert wanted.max() < 0.999, "a certain answer would hide differences"
    output = "features" if run == "pre" else "probabilities"
    for rows in (images[:1], images[:3], images):
        found = form.answer(file, rows, output)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted[: len(rows)], rtol=1e-4, atol=TOLERANCE / 10)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_to_be_known_is_inside(exported, runs_dir, name) -> None:
    skip_without(name)
    classifier = keras.models.load_model(runs_dir / "tuned" / "classifier.keras")
    about = FORMATS[name].about_of(exported["tuned", name])
    if name == "onnx":  # its values are texts
        about |= {key: json.loads(about[key]) for key in ("class_names", "image_shape", "bits")}
    assert about["class_names"] == NAMES
    assert about["classifier_sha256"] == weights_sha256(classifier)
    assert about["encoder_sha256"] == weights_sha256(classifier.get_layer("encoder"))
    assert (about["run"], about["image_shape"], about["resize"]) == ("tuned", list(SHAPE), "crop")
    assert "class_names" not in FORMATS["savedmodel"].about_of(exported["pre", "savedmodel"]), "features have none"


def test_onnx_has_a_batch_of_any_size_and_passes_its_own_check(exported) -> None:
    skip_without("onnx")
    import onnx

    model = onnx.load(exported["tuned", "onnx"])
    onnx.checker.check_model(model, full_check=True)
    (image,), (output,) = model.graph.input, model.graph.output
    assert (image.name, image.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert image.type.tensor_type.shape.dim[0].dim_value == 0
    assert (output.name, output.type.tensor_type.shape.dim[1].dim_value) == ("probabilities", len(NAMES))


def test_litert_has_labels_where_its_tools_look_and_needs_no_kernels_of_tensorflow(exported) -> None:
    file = exported["tuned", "litert"]
    assert zipfile.ZipFile(file).read("labels.txt").decode() == 'cat\ndog, "big"\n猫 fish\n<b>\n'
    assert b"Flex" not in file.read_bytes()


@pytest.mark.slow
def test_a_savedmodel_needs_neither_keras_nor_this_package(exported, images, tmp_path) -> None:
    code = f"""
import sys
sys.modules["keras"] = sys.modules["prl_keras"] = None
import numpy as np, tensorflow as tf
model = tf.saved_model.load({str(exported["tuned", "savedmodel"])!r})
images = np.load({str(tmp_path / "images.npy")!r})
same = model.signatures["serving_default"](images=tf.constant(images))["probabilities"]
assert np.array_equal(model.serve(images)["probabilities"], same), "TensorFlow Serving calls the signature"
print(same.shape)
"""
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.stdout.strip() == f"(7, {len(NAMES)})", done.stderr


def test_an_export_has_no_weight_twice(exported, runs_dir) -> None:
    weights = 4 * keras.models.load_model(runs_dir / "tuned" / "classifier.keras").count_params()
    for (run, name), file in exported.items():
        files = [file] if file.is_file() else list(file.glob("variables/*"))
        size = sum(each.stat().st_size for each in files)
        assert run == "pre" or size < 1.5 * weights + 60_000, (name, size, weights)


# What may be replaced -------------------------------------------------------------------------------------


def test_an_earlier_export_of_the_run_is_replaced_and_nothing_else(runs_dir, exported, tmp_path, capsys) -> None:
    command = ["export", "tuned", "--format", "savedmodel", "--runs-dir", str(runs_dir)]
    own = exported["tuned", "savedmodel"]
    (own / "variables" / "variables.index").unlink()
    assert main(command) == 0
    assert "answers as the run's model does on 32 images of digits" in capsys.readouterr().out
    assert (own / "variables" / "variables.index").is_file()
    assert [path.name for path in own.parent.iterdir() if path.name.startswith(".")] == []
    assert "an export of run 'pre'" in complaint(capsys, main([*command, "--out", str(exported["pre", "savedmodel"])]))
    for name in ("empty", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years", encoding="utf-8")
    for name in ("empty", "mine", "mine/thesis.txt"):
        assert "is there already" in complaint(capsys, main([*command, "--out", str(tmp_path / name)]))
    assert (tmp_path / "mine" / "thesis.txt").read_text(encoding="utf-8") == "years"
    for target in (own, tmp_path / "nothing"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(target)
        assert "is there already" in complaint(capsys, main([*command, "--out", str(tmp_path / "link")]))


def test_it_is_compared_on_pictures_of_the_run_if_they_are_there(runs_dir, tmp_path) -> None:
    config = Run(runs_dir / "tuned").config
    images = load_dataset(**REQUEST).test.images
    found = _pictures(Run(runs_dir / "tuned"))
    assert len(found) == 32
    assert all((images == image).all(axis=(1, 2, 3)).any() for image in found)
    others = {"fingerprint": "0" * 64}, {"request": REQUEST | {"name": str(tmp_path / "gone")}}
    for number, other in enumerate(others):
        changed = config | {"data": config["data"] | other}
        assert _pictures(create_run(tmp_path, f"run-{number}", changed)) is None


def test_what_answers_otherwise_is_not_kept(runs_dir, tmp_path, monkeypatch, capsys) -> None:
    known = FORMATS["savedmodel"]
    wrong = type(known)(**vars(known) | {"answer": lambda *given: known.answer(*given) + 2 * TOLERANCE})
    monkeypatch.setitem(FORMATS, "savedmodel", wrong)
    command = ["export", "tuned", "--format", "savedmodel", "--runs-dir", str(runs_dir)]
    line = complaint(capsys, main([*command, "--out", str(tmp_path / "model")]))
    assert "gives other probabilities than the run's model (by 0.0002, 0.0001 would do)" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gone", [OSError("the disk is gone"), KeyboardInterrupt("gone")])
def test_a_folder_stays_as_it_was_if_its_successor_fails(tmp_path, monkeypatch, gone) -> None:
    target = tmp_path / "model"
    with atomic_folder(target) as draft:
        (draft / "a").touch()
    with pytest.raises(ZeroDivisionError), atomic_folder(target) as draft:
        (draft / "b").write_text(str(1 // 0), encoding="utf-8")
    known, moves = Path.rename, []

    def rename(path: Path, to: Path) -> None:
        moves.append(path)
        if len(moves) == 2:
            raise gone
        known(path, to)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(type(gone), match="gone"), atomic_folder(target) as draft:
        (draft / "c").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "a"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--format", "onnx", "--out", "model.tflite"), "must end in .onnx"),
        (("--format", "litert", "--out", "model"), "must end in .tflite"),
        (("--format", "savedmodel", "--out", "nowhere/model"), "there is no folder nowhere"),
    ],
)
def test_a_place_that_will_not_do_is_one_line(runs_dir, tmp_path, monkeypatch, capsys, words, expected) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prl_keras.extras.installed", lambda package: True)
    assert expected in complaint(capsys, main(["export", "tuned", *words, "--runs-dir", str(runs_dir)]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("clone", "command"), [(True, "pip install tf2onnx onnx onnxruntime"), (False, 'pip install "prl-keras[export]"')]
)
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(
    runs_dir, monkeypatch, capsys, clone, command
) -> None:
    monkeypatch.setattr("prl_keras.extras.installed", lambda package: False)
    monkeypatch.setattr("prl_keras.extras.is_clone", lambda: clone)
    line = complaint(capsys, main(["export", "tuned", "--format", "onnx", "--runs-dir", str(runs_dir)]))
    assert line.endswith(f"--format onnx needs tf2onnx and onnx, of the extra [export]: {command}")


@pytest.mark.slow
def test_without_a_runtime_it_is_written_and_said_that_it_was_not_compared(
    runs_dir, tmp_path, monkeypatch, capsys
) -> None:
    known = FORMATS["litert"]
    monkeypatch.setitem(FORMATS, "litert", type(known)(**vars(known) | {"runtimes": ("no-such-package",)}))
    out = tmp_path / "model.tflite"
    assert main(["export", "pre", "--format", "litert", "--out", str(out), "--runs-dir", str(runs_dir)]) == 0
    assert "Not compared with the run's model: pip install no-such-package" in capsys.readouterr().out
    assert out.is_file()


def test_a_record_that_does_not_fit_its_model_is_one_line(runs_dir, tmp_path, capsys) -> None:
    run = create_run(tmp_path, "run", Run(runs_dir / "tuned").config)
    config = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    config["data"]["class_names"].pop()
    (run.path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    os.link(runs_dir / "tuned" / "classifier.keras", run.classifier_file)
    line = complaint(capsys, main(["export", str(run.path), "--format", "savedmodel", "--runs-dir", str(tmp_path)]))
    assert "do not fit" in line
    assert not (run.path / "export").exists()


# The document ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_the_examples_of_the_document_work(exported, runs_dir, images, tmp_path, monkeypatch, name) -> None:
    skip_without(name)
    if name == "litert":
        pytest.importorskip("ai_edge_litert", reason="the example's own package: pip install ai-edge-litert")
    text = (ROOT / "docs" / "use.md").read_text(encoding="utf-8")
    example = next(
        e for e in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if f"export/{FORMATS[name].name}" in e
    )
    (tmp_path / "saved_models").symlink_to(runs_dir)
    monkeypatch.chdir(tmp_path)
    found: dict = {"images": images}
    exec(example.replace("NAME", "tuned"), found)
    classifier = keras.models.load_model(runs_dir / "tuned" / "classifier.keras")
    logits = classifier.predict(images, verbose=0)
    assert found["classes"] == [NAMES[k] for k in logits.argmax(axis=-1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("encoder", [True, False])
def test_a_whole_resnet_answers_alike_in_every_format(whole_network, tmp_path, capsys, name, encoder) -> None:
    skip_without(name)
    keras.utils.set_random_seed(0)
    data = {"class_names": NAMES, "image_shape": [64, 64, 3], "fingerprint": "0" * 64, "request": {"name": "digits"}}
    run = create_run(tmp_path, "whole", {"command": "baseline", "data": data})
    model = resnet18((64, 64, 3))
    save_model(*(model, run.encoder_file) if encoder else (build_classifier(model, len(NAMES)), run.classifier_file))
    assert main(["export", "whole", "--format", name, "--runs-dir", str(tmp_path)]) == 0  # it compares by itself
    assert "answers as the run's model does on made-up images" in capsys.readouterr().out
