"""`pretrain --init`: a training that begins with another run's encoder, or with a network of the user's own."""

import inspect
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import prl_keras
from prl_keras.applications import WANTS, Application
from prl_keras.cli import main
from prl_keras.config import Pretrain
from prl_keras.data.request import warn_of_seen
from prl_keras.data.seen import not_recorded, record_seen, seen_by, short_digests
from prl_keras.errors import InputError
from prl_keras.models.begun import encoder_to_begin_with
from prl_keras.models.encode import encode
from prl_keras.models.layer_types import FAST, STOCK
from prl_keras.models.named import as_wanted
from prl_keras.models.storage import copy_as, save_model, weights_sha256
from prl_keras.runs import Run, create_run
from prl_keras.training.begin import begins_with

SMALL = ["--dataset", "digits", "--samples-per-class", "8", "--test-per-class", "5", "--batch-size", "32"]


def pretrain(folder: Path, name: str, *words: str, expected: int = 0) -> Run:
    command = ["pretrain", *SMALL, "--epochs", "1", "--name", name, "--runs-dir", str(folder), *words]
    assert main(command) == expected
    return Run(folder / name)


def complaint(capsys: pytest.CaptureFixture) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own: other layers than a ResNet's, a batch normalisation without scale, and another name."""
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    y = keras.layers.Conv2D(3, 3, activation="relu", padding="same")(x)
    x = keras.layers.BatchNormalization(scale=False)(x + y)
    x = keras.layers.DepthwiseConv2D(3, 2, padding="same", depth_multiplier=2)(x)
    x = keras.layers.LayerNormalization()(keras.layers.BatchNormalization()(x))
    block = keras.Sequential([keras.Input((8, 8, 6)), keras.layers.Conv2D(8, 3)])
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(block(x)), name="mine")
    file = tmp_path_factory.mktemp("own") / "mine.keras"
    save_model(model, file)
    return file


def test_a_training_goes_on_with_the_weights_of_the_other_run(trained):
    first = Run(trained / "pre")
    begun = encoder_to_begin_with(first, (16, 16, 3), None)
    assert weights_sha256(begun) == first.result["encoder_sha256"]
    run = pretrain(trained, "further", "--image-size", "16", "--init", "pre", "--learning-rate", "1e-12")
    after = prl_keras.load_encoder(run)
    for old, new in zip(prl_keras.load_encoder(first).trainable_weights, after.trainable_weights, strict=True):
        np.testing.assert_allclose(old, new, atol=1e-6)
    assert run.part("options", "init") == "pre"
    assert run.part("data", "init_sha256") == first.result["encoder_sha256"]


@pytest.mark.slow
def test_what_the_other_run_has_seen_counts_as_seen(trained, capsys):
    run = pretrain(trained, "other-draw", "--image-size", "16", "--init", "pre", "--split-seed", "5")
    mine = prl_keras.load_dataset(**run.part("data", "request")).train
    theirs = prl_keras.load_dataset(**Run(trained / "pre").part("data", "request")).train
    expected = np.union1d(short_digests(mine.images), short_digests(theirs.images))
    assert np.array_equal(seen_by(run), expected)
    assert main(["evaluate", "other-draw", "--runs-dir", str(trained)]) == 0
    assert "was trained on" in capsys.readouterr().out


@pytest.mark.slow
def test_it_takes_images_of_another_size(trained):
    run = pretrain(trained, "larger", "--image-size", "20", "--init", "pre", "--variant", "simclr")
    encoder = prl_keras.load_encoder(run)
    assert encoder.input_shape == (None, 20, 20, 3)


def test_another_size_leaves_the_weights_as_they_are(trained, tmp_path):
    layers = [keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()]
    save_model(keras.Sequential(layers), tmp_path / "plain.keras")
    plain = encoder_to_begin_with(tmp_path / "plain.keras", (20, 24, 3), None)
    assert plain.input_shape == (None, 20, 24, 3)
    np.testing.assert_array_equal(
        plain.get_weights()[0], keras.models.load_model(tmp_path / "plain.keras").get_weights()[0]
    )
    begun = encoder_to_begin_with(Run(trained / "pre"), (20, 24, 3), None)
    assert begun.input_shape == (None, 20, 24, 3)
    assert weights_sha256(begun) == Run(trained / "pre").result["encoder_sha256"]


def test_what_the_other_run_has_seen_is_recorded_without_training(trained, tmp_path):
    run = create_run(tmp_path, "heir", {"command": "pretrain"})
    images = np.random.RandomState(0).randint(0, 256, (3, 16, 16, 3)).astype("uint8")
    record_seen(run, images, Run(trained / "pre"))
    assert np.array_equal(seen_by(run), np.union1d(short_digests(images), seen_by(Run(trained / "pre"))))


@pytest.mark.slow
def test_from_python_it_gives_the_same_bits(trained):
    run = pretrain(trained, "by-command", "--image-size", "16", "--init", "pre")
    data = prl_keras.load_dataset("digits", samples_per_class=8, test_per_class=5, image_size=16)
    encoder = prl_keras.pretrain(data, init="pre", runs_dir=trained, epochs=1, batch_size=32, seed=0)
    assert weights_sha256(encoder) == run.result["encoder_sha256"]


def test_a_users_own_kind_of_layer_stays_what_it_is():
    @keras.saving.register_keras_serializable("tests")
    class Halved(keras.layers.Conv2D):
        def call(self, inputs):
            return super().call(inputs) / 2

    images = keras.Input((8, 8, 3))
    network = keras.Model(images, Halved(4, 3)(keras.layers.Conv2D(3, 3)(images)))
    pixels = np.random.RandomState(0).rand(2, 8, 8, 3).astype("float32")
    for kinds in (FAST, STOCK):
        copy = copy_as(network, "float32", kinds)
        assert type(copy.layers[2]) is Halved
        assert type(copy.layers[1]) is kinds.convolution
        np.testing.assert_allclose(copy(pixels), network(pixels), atol=1e-6)


@pytest.mark.filterwarnings("error:The structure of")
@pytest.mark.parametrize("variant", ["query", pytest.param("prl", marks=pytest.mark.slow)])
def test_a_network_of_ones_own_is_trained_saved_and_used(network, tmp_path, variant, capsys):
    run = pretrain(tmp_path, "own", "--image-size", "16", "--init", str(network), "--variant", variant)
    encoder = prl_keras.load_encoder(run)
    assert encoder.name == "encoder"
    assert encoder.output_shape == (None, 8)
    assert {type(layer).__module__.split(".")[0] for layer in encoder.layers} == {"keras"}, "stock"
    before = keras.models.load_model(network)
    changed = [not np.allclose(a, b) for a, b in zip(before.weights, encoder.weights, strict=True)]
    assert all(changed[:2]), "it was trained"
    train = prl_keras.load_dataset(**run.part("data", "request")).train
    assert np.array_equal(seen_by(run), np.unique(short_digests(train.images)))
    assert not_recorded(run) == network.name, "what it has seen before is not known"
    if variant == "prl":
        folder = ["--runs-dir", str(tmp_path)]
        assert main(["finetune", "--encoder", "own", "--epochs", "1", "--name", "tuned", *folder]) == 0
        assert main(["visualize", "own", "--before", "--samples-per-class", "3", *folder]) == 0
    capsys.readouterr()


def test_classes_held_out_of_a_network_of_ones_own_are_measured_with_a_warning(network, tmp_path, capsys):
    pretrain(tmp_path, "own", "--image-size", "16", "--init", str(network), "--hold-out-classes", "4")
    few = ["--few-shot", "--ways", "3", "--shots", "1", "--queries", "2", "--episodes", "20"]
    for words, file in ((few, "few_shot.json"), (["--unknown"], "unknown.json")):
        assert main(["evaluate", "own", *words, "--runs-dir", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        assert said.count(f"what {network.name} was trained on is not recorded") == 1
        assert json.loads((tmp_path / "own" / file).read_text(encoding="utf-8"))["not_recorded"] == network.name
    heir = create_run(tmp_path, "heir", {"command": "finetune"})
    record_seen(heir, np.zeros((1, 16, 16, 3), "uint8"), Run(tmp_path / "own"))
    assert not_recorded(heir) == network.name
    other = prl_keras.load_dataset("digits", samples_per_class=3, test_per_class=5, image_size=16)
    assert warn_of_seen(Run(tmp_path / "own"), other) is not None
    assert f"kept no record of the training images of {network.name}" in capsys.readouterr().out


def test_the_fast_layers_compute_what_the_users_do(network):
    images = np.random.RandomState(0).randint(0, 256, (5, 16, 16, 3)).astype("float32")
    assert encode(encoder_to_begin_with(network, (16, 16, 3), None), images).shape == (5, 8)
    own, fast = keras.models.load_model(network), encoder_to_begin_with(network, (16, 16, 3), None)
    for training in (False, True):
        np.testing.assert_allclose(own(images, training=training), fast(images, training=training), atol=1e-5)
    for old, new in zip(own.weights, copy_as(fast, "float32").weights, strict=True):
        np.testing.assert_allclose(old, new, atol=1e-5)


def test_a_network_as_it_is_becomes_a_run(network, tmp_path, capsys):
    words = ["--init", str(network), "--epochs", "0", "--image-size", "16", "--hold-out-classes", "3"]
    runs = ["--runs-dir", str(tmp_path)]
    begin = ["pretrain", "--dataset", "digits", "--samples-per-class", "9", *runs, *words, "--name"]
    assert main([*begin, "kept"]) == 0
    assert f"kept: the encoder of {network} as it is, " in capsys.readouterr().out
    run, mine = Run(tmp_path / "kept"), keras.saving.load_model(network)
    images = np.random.RandomState(0).randint(0, 256, (5, 16, 16, 3)).astype("uint8")
    found = prl_keras.load_encoder(run).predict(images, verbose=0)
    np.testing.assert_allclose(found, mine.predict(images, verbose=0), atol=1e-6)
    assert run.result["encoder_sha256"] == weights_sha256(mine)
    assert len(seen_by(run)) == 0, "it was trained on none of these"
    assert not_recorded(run) == "mine.keras"
    card = (run.path / "card.md").read_text(encoding="utf-8")
    assert "The encoder of mine.keras as it is, nothing was trained: kept, by `python main.py pretrain`" in card
    assert "query" not in card
    assert "Not trained on" not in card
    assert main(["evaluate", "kept", *runs]) == 0
    assert "kept no record of the training images of mine.keras: whether it has seen" in capsys.readouterr().out
    few_shot = ["evaluate", "kept", "--few-shot", "--ways", "3", "--episodes", "20", *runs]
    assert main([*few_shot, "--shots", "2"]) == 0
    capsys.readouterr()
    assert main(few_shot) == 0
    assert "few_shot.json is replaced, which was measured with --shots 2\n" in capsys.readouterr().out
    assert main(["finetune", "--encoder", "kept", "--head", "linear", "--freeze", "--epochs", "1", *runs]) == 0
    assert main(["runs", *runs]) == 0
    capsys.readouterr()
    for command, line in (
        ([*begin, "other", "--variant", "prl"], "--variant does nothing with --epochs 0: leave it out"),
        ([*begin, "other", "--no-average"], "--no-average does nothing with --epochs 0: leave it out"),
        ([*begin, "other", "--split-seed", "0", "--seed", "-1"], "--seed is -1; expected"),
        (["visualize", "kept", "--before", *runs], "leave out --before, nothing was trained"),
        (["pretrain", "--dataset", "digits", "--epochs", "0", *runs], "--epochs 0 trains nothing: name the encoder"),
    ):
        assert main(command) == 2
        assert line in complaint(capsys)


def test_a_kept_run_is_measured_on_pictures_that_are_read_otherwise(tmp_path):
    """None of its pictures was trained on, and all of them make its centre."""
    oblong = [keras.Input((12, 16, 3)), keras.layers.Conv2D(8, 3), keras.layers.GlobalMaxPooling2D()]
    save_model(keras.Sequential(oblong), tmp_path / "oblong.keras")
    runs = ["--runs-dir", str(tmp_path)]
    words = ["--samples-per-class", "9", "--hold-out-classes", "3", "--name", "kept"]
    begin = ["pretrain", "--init", str(tmp_path / "oblong.keras"), "--epochs", "0", "--image-size", "12x16"]
    assert main([*begin, "--dataset", "digits", *words, *runs]) == 0
    few_shot = ["evaluate", "kept", "--few-shot", "--ways", "3", "--episodes", "20", *runs]
    assert main([*few_shot, "--resize", "stretch"]) == 0
    assert len(list((tmp_path / "kept").glob("few_shot-digits-*.json"))) == 1, "other pixels than those of the run"


def test_a_classifiers_encoder_gets_another_head(tmp_path, capsys):
    """Also that of a fine-tuned run whose encoder was frozen; the latest encoder stays the one that was pre-trained."""
    runs = ["--runs-dir", str(tmp_path), "--epochs", "1"]
    small = ["--dataset", "digits", "--samples-per-class", "8", "--image-size", "8"]
    assert main(["baseline", "--model", "mlp", *small, "--name", "b", *runs]) == 0
    assert main(["finetune", "--encoder", "b", "--freeze", "--name", "one", *runs]) == 0
    assert Run(tmp_path / "one").result["encoder_run"] == "b"
    assert main(["finetune", "--encoder", "one", "--no-freeze", "--name", "two", *runs]) == 0
    result = Run(tmp_path / "two").result
    assert result["encoder_sha256_before"] == Run(tmp_path / "one").result["encoder_sha256_after"]
    assert result["encoder_sha256_after"] != result["encoder_sha256_before"]
    assert main(["teach", "b", "--forget", "3", *runs[:2]]) == 0
    capsys.readouterr()
    assert main(["finetune", "--encoder", "latest", *runs]) == 2
    assert "there is no pre-trained encoder in" in complaint(capsys)


def test_python_takes_paths_and_texts(network, tmp_path):
    dataset = prl_keras.load_dataset("digits", samples_per_class=8, image_size=16)
    assert prl_keras.pretrain(dataset, init=Path(network), epochs=1, batch_size=32).output_shape == (None, 8)
    model = keras.applications.MobileNetV3Small((32, 32, 3), include_top=False, pooling="avg", weights=None)
    file = tmp_path / "mobile.weights.h5"
    model.save_weights(file)
    found = begins_with(Pretrain(init="keras:MobileNetV3Small", weights=str(file)))
    assert found == Application("MobileNetV3Small", file)


@pytest.mark.slow
def test_a_mobile_net_is_an_encoder(tmp_path):
    model = keras.applications.MobileNetV3Small((32, 32, 3), include_top=False, pooling="avg", weights=None)
    save_model(model, tmp_path / "mobile.keras")
    run = pretrain(tmp_path, "mobile", "--init", str(tmp_path / "mobile.keras"))
    assert prl_keras.load_encoder(run).output_shape == (None, 576)
    assert main(["finetune", "--encoder", "mobile", "--epochs", "1", "--runs-dir", str(tmp_path)]) == 0


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_what_cannot_begin_a_training_is_one_line(trained, network, tmp_path, capsys):
    keras.utils.set_random_seed(0)
    flat = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    maps = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3)])
    grey = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.GlobalAveragePooling2D()])
    files = {}
    unbuilt = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()])
    for name, model in (("flat", flat), ("maps", maps), ("grey", grey), ("unbuilt", unbuilt)):
        files[name] = tmp_path / f"{name}.keras"
        save_model(model, files[name])
    (tmp_path / "text.keras").write_text("no model", encoding="utf-8")
    for words, line in (
        (["--init", "nobody"], "nobody"),
        (["--init", "nothing.keras"], "--init nothing.keras: no such file"),
        (["--init", str(tmp_path / "text.keras")], "as a Keras model"),
        (["--init", str(files["maps"])], "expected features (batch, dim): end it with a pooling"),
        (["--init", str(files["grey"])], "expected images (batch, height, width, 3)"),
        (["--init", str(files["unbuilt"])], "has no input size: begin it with keras.Input((height, width, 3))"),
        (["--init", str(files["flat"]), "--image-size", "20"], "takes 16x16 images and none of 20x20"),
        (["--init", "pre", "--width", "0.5"], "--width does nothing with --init pre"),
    ):
        pretrain(trained, "none", "--image-size", "16", *words, expected=2)
        assert line in complaint(capsys), words
        assert not (trained / "none").exists()


@pytest.mark.slow
def test_a_continued_run_has_to_begin_alike(trained, capsys, tmp_path):
    run = pretrain(trained, "again", "--image-size", "16", "--init", "pre")
    shutil.copytree(trained / "pre", trained / "twin")
    (run.path / "result.json").unlink()
    pretrain(trained, "again", "--image-size", "16", "--init", "twin")  # the same weights under another name
    (run.path / "result.json").unlink()
    config = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    config["data"]["init_sha256"] = "0" * 64
    (run.path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    capsys.readouterr()
    pretrain(trained, "again", "--image-size", "16", "--init", "pre", expected=2)
    assert "was started with init_sha256" in complaint(capsys)


def test_latest_is_what_it_was_when_the_run_began(trained, monkeypatch):
    from prl_keras.config import Pretrain
    from prl_keras.training.begin import begins_with

    create_run(trained, "late", {"command": "pretrain", "options": {"init": "pre"}})
    asked = {"init": "latest", "runs_dir": trained}
    assert begins_with(Pretrain(**asked, name="late")).name == "pre"
    assert begins_with(Pretrain(**asked, name="new")).name != "pre"


def test_images_are_brought_to_what_a_network_of_keras_wants():
    """Of all that can be named, by the function that Keras gives beside each."""
    images = np.random.RandomState(0).randint(0, 256, (2, 5, 4, 3)).astype("float32")
    raw = keras.Input((5, 4, 3))
    layers = {kind: keras.Model(raw, keras.ops.copy(as_wanted(raw, kind))) for kind in set(WANTS.values())}
    for name, kind in WANTS.items():
        build = getattr(keras.applications, name)
        expected = inspect.getmodule(build).preprocess_input(images.copy())
        np.testing.assert_allclose(layers[kind](images), expected, atol=1e-3, err_msg=name)
        inside = inspect.signature(build).parameters.get("include_preprocessing")
        assert (inside is not None and inside.default) == (kind == "as they are"), name


def test_weights_of_a_network_by_name_are_loaded(monkeypatch, tmp_path):
    """A small one in the place of one that takes seconds to build."""

    def mobile(include_top, weights, pooling, input_shape):
        assert (include_top, weights, pooling) == (False, None, "avg")
        if input_shape[0] < 9:
            raise ValueError("Input size must be at least 9x9\nand so on")
        layers = [keras.Input(input_shape), keras.layers.Conv2D(6, 3), keras.layers.GlobalAveragePooling2D()]
        model = keras.Sequential(layers)
        return keras.Model(model.inputs, model.outputs)

    monkeypatch.setattr(keras.applications, "MobileNetV2", mobile)
    theirs = mobile(False, None, "avg", (20, 20, 3))
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    images = np.random.RandomState(0).randint(0, 256, (5, 16, 16, 3)).astype("float32")
    begun = encoder_to_begin_with(Application("MobileNetV2", tmp_path / "theirs.weights.h5"), (16, 16, 3), None)
    kernel, bias = theirs.get_weights()
    expected = keras.ops.mean(keras.ops.conv(images / 127.5 - 1, kernel), axis=(1, 2)) + bias
    np.testing.assert_allclose(encode(begun, images), expected, atol=1e-4)
    save_model(copy_as(begun, "float32"), tmp_path / "begun.keras")
    np.testing.assert_allclose(encode(prl_keras.load_encoder(tmp_path / "begun.keras"), images), expected, atol=1e-4)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "text.h5").write_text("nothing", encoding="utf-8")
    for file in ("other.weights.h5", "text.h5"):
        with pytest.raises(InputError, match=r"not the weights of MobileNetV2 without its top: .+") as refused:
            encoder_to_begin_with(Application("MobileNetV2", tmp_path / file), (16, 16, 3), None)
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="keras:MobileNetV2 cannot take images of 8x8 pixels: Input size"):
        encoder_to_begin_with(Application("MobileNetV2"), (8, 8, 3), None)


def test_a_network_that_cannot_be_named_is_one_line(trained, network, tmp_path, capsys):
    (tmp_path / "some.h5").touch()
    for words, line in (
        (["--init", "keras:EfficientNetB0"], "no network whose images are known here (ConvNeXtTiny, "),
        (["--init", "keras:MobileNetV3Small", "--weights", "none.h5"], "--weights none.h5: no such file"),
        (["--init", "keras:MobileNetV3Small", "--weights", str(network)], "expected a .weights.h5 or .h5 file"),
        (["--init", "keras:MobileNetV3Small", "--width", "0.5"], "--width does nothing with --init keras:Mobile"),
        (["--init", "pre", "--weights", str(tmp_path / "some.h5")], "--weights does nothing without --init keras:NAME"),
        (["--weights", str(tmp_path / "some.h5")], "--weights does nothing without --init keras:NAME"),
    ):
        pretrain(trained, "none", "--image-size", "16", *words, expected=2)
        assert line in complaint(capsys), words
        assert not (trained / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV3Small", "ResNet50V2", "DenseNet121", "ResNet50", "ConvNeXtTiny"])
def test_a_network_by_name_computes_what_keras_does(name, tmp_path):
    """One of each way to want images, and that with layers of its own; their files too."""
    build = getattr(keras.applications, name)
    theirs = build(include_top=False, weights=None, pooling="avg", input_shape=(32, 32, 3))
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    images = np.random.RandomState(0).randint(0, 256, (3, 32, 32, 3)).astype("float32")
    expected = theirs(inspect.getmodule(build).preprocess_input(images.copy()))
    begun = encoder_to_begin_with(Application(name, tmp_path / "theirs.weights.h5"), (32, 32, 3), None)
    np.testing.assert_allclose(begun(images), expected, atol=1e-3, rtol=1e-3)
    save_model(copy_as(begun, "float32"), tmp_path / "begun.keras")
    np.testing.assert_allclose(prl_keras.load_encoder(tmp_path / "begun.keras")(images), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_a_network_by_name_is_trained_and_its_first_weights_are_found_again(tmp_path, capsys):
    run = pretrain(tmp_path, "random", "--init", "keras:MobileNetV3Small")
    assert run.part("options", "init") == "keras:MobileNetV3Small"
    assert prl_keras.load_encoder(run).output_shape == (None, 576)
    assert not_recorded(run) is None, "random weights have seen nothing"
    folder = ["--runs-dir", str(tmp_path)]
    assert main(["visualize", "random", "--before", "--samples-per-class", "3", *folder]) == 0
    keras.applications.MobileNetV3Small((32, 32, 3), include_top=False, weights=None).save_weights(
        tmp_path / "mobile.weights.h5"
    )
    words = ["--init", "keras:MobileNetV3Small", "--weights", str(tmp_path / "mobile.weights.h5")]
    run = pretrain(tmp_path, "given", *words)
    assert run.part("options", "weights") == str(tmp_path / "mobile.weights.h5")
    assert not_recorded(run) == "mobile.weights.h5", "what these weights have seen is not known"
    assert main(["visualize", "given", "--before", "--samples-per-class", "3", *folder]) == 0
    capsys.readouterr()
