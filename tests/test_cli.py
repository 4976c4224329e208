"""The command line, called in this process: what a user types, sees and finds on disk."""

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from archives import fake_stl10, write_image_folder, write_stl10_archive
from conftest import DIGITS, FEATURES
from faults import stop_after_first_checkpoint
from PIL import Image
from reference import CLASSIFIERS

from prl_keras import load_dataset, load_encoder
from prl_keras.cli import COMMANDS, _how_to_continue, main
from prl_keras.commands.common import head_words
from prl_keras.runs import Run, create_run, list_runs
from prl_keras.screen.console import in_words, percent_interval

ROOT = Path(__file__).parents[1]


def complaint(capsys: pytest.CaptureFixture, arguments: list[str]) -> str:
    """Run a command that must fail: exit code 2, one line, nothing else on stderr."""
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


# What works ----------------------------------------------------------------------------------------------


def test_pretrain_leaves_a_complete_run(trained: Path) -> None:
    run = Run(trained / "pre")
    files = {path.name for path in run.path.iterdir()}
    assert files == {
        "card.md",
        "config.json",
        "metrics.jsonl",
        "result.json",
        "encoder.keras",
        "train_digests.npy",
        "logs",
        "plots",
    }
    config = run.config
    assert config["command"] == "pretrain"
    assert config["options"]["variant"] == "query"
    assert config["options"]["seed"] == 0
    assert "keras" in config["versions"]
    data = load_dataset("digits", samples_per_class=8, test_per_class=5, image_size=16)
    assert config["data"]["fingerprint"] == data.fingerprint
    assert [line["epoch"] for line in run.metrics] == [1, 2]
    assert run.metrics[0]["chance_loss"] == pytest.approx(np.log(10), abs=1e-5)
    assert 0 <= run.metrics[1]["val_prototype_accuracy"] <= 1
    assert run.metrics[1]["masked_queries"] >= 0
    saved = run.result["saved_encoder"]
    assert saved["val_prototype"]["value"] == pytest.approx(saved["val_prototype_accuracy"])
    assert saved["val_prototype"]["balanced"] == pytest.approx(saved["val_prototype_balanced"])
    assert in_words(saved["val_prototype"], "0123456789").startswith(f"{100 * saved['val_prototype']['value']:.1f} %")


def test_the_saved_encoder_takes_raw_images_in_plain_keras(trained: Path) -> None:
    encoder = keras.models.load_model(trained / "pre" / "encoder.keras")
    images = load_dataset("digits", image_size=16).test.images[:5]
    assert images.dtype == np.uint8
    assert encoder.predict(images, verbose=0).shape == (5, FEATURES)
    assert load_encoder("pre", trained).input_shape == (None, 16, 16, 3)


def test_finetune_records_that_the_encoder_stayed_frozen(trained: Path) -> None:
    result = Run(trained / "tuned").result
    assert result["encoder_frozen"] is True
    assert result["encoder_sha256_before"] == result["encoder_sha256_after"]
    assert result["encoder_sha256_before"] == Run(trained / "pre").result["encoder_sha256"]
    assert result["chosen_epoch"] == "last"


def test_the_recorded_test_accuracy_is_that_of_the_saved_classifier(trained: Path) -> None:
    figures = Run(trained / "tuned").result["accuracy"]
    data = load_dataset("digits", samples_per_class=8, test_per_class=5, image_size=16)
    classifier = keras.models.load_model(trained / "tuned" / "classifier.keras")
    for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        predicted = classifier.predict(split.images, verbose=0).argmax(axis=-1)
        assert figures[name]["correct"] == int(np.sum(predicted == split.labels))
        assert figures[name]["n"] == len(split)
        assert figures[name]["low"] <= figures[name]["value"] <= figures[name]["high"]


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        ({"variant": "query", "recipe": "paper"}, ""),
        ({"variant": "query", "recipe": "open"}, " --recipe strong"),
        ({"variant": "prl", "recipe": "paper"}, " --recipe strong"),
        ({}, ""),
    ],
)
def test_a_head_is_suggested_as_the_encoder_was_trained(tmp_path: Path, options: dict, recipe: str) -> None:
    assert head_words(create_run(tmp_path, "encoder", {"options": options})) == f"--head linear --freeze{recipe}"


@pytest.mark.slow
def test_the_last_line_of_pretrain_is_the_command_that_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["pretrain", *DIGITS, "--epochs", "1", "--batch-size", "32", "--runs-dir", str(tmp_path)]
    assert main([*arguments, "--variant", "supcon"]) == 0
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last[:3] == ["python", "main.py", "finetune"]
    assert main([*last[2:], "--epochs", "1"]) == 0
    assert [run.config["command"] for run in list_runs(tmp_path)] == ["pretrain", "finetune"]
    assert list_runs(tmp_path)[0].name == "supcon-digits-1"


@pytest.mark.parametrize(("name", "output", "outputs"), [("pre", "features", FEATURES), ("tuned", "probabilities", 10)])
def test_the_card_of_a_run_shows_how_to_load_it(trained: Path, monkeypatch, name, output, outputs) -> None:
    card = (trained / name / "card.md").read_text(encoding="utf-8")
    monkeypatch.chdir(trained / name)
    found: dict = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], found)
    assert found[output].shape == (1, outputs)
    figure = Run(trained / name).result
    figure = figure["saved_encoder"]["val_prototype"] if name == "pre" else figure["accuracy"]["test"]
    assert f"| {100 * figure['value']:.1f} | {percent_interval(figure)} | {figure['n']} |" in card


def test_evaluate_writes_figures_and_a_confusion_matrix(trained: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", "pre", "--runs-dir", str(trained)]) == 0
    shown = capsys.readouterr().out
    content = json.loads((trained / "pre" / "evaluation.json").read_text(encoding="utf-8"))
    card = (trained / "pre" / "card.md").read_text(encoding="utf-8")
    assert {name for name in CLASSIFIERS if f"| test, {name} |" in card} == set(CLASSIFIERS)
    assert set(content["accuracy"]) == set(CLASSIFIERS)
    for name, figure in content["accuracy"].items():
        assert figure["n"] == 50
        assert name in shown
        assert f"{100 * figure['value']:.1f} %" in shown
    assert np.sum(content["confusion"]["rows_true_columns_predicted"]) == 50
    with Image.open(trained / "pre" / "plots" / "confusion.png") as picture:
        assert picture.width > 400
    assert main(["evaluate", "tuned", "--runs-dir", str(trained)]) == 0
    content = json.loads((trained / "tuned" / "evaluation.json").read_text(encoding="utf-8"))
    assert content["accuracy"]["classifier"]["correct"] == Run(trained / "tuned").result["accuracy"]["test"]["correct"]


def test_predict_names_the_class_that_the_classifier_gives(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    image = load_dataset("digits", image_size=16).test.images[0]
    Image.fromarray(image).save(tmp_path / "digit.png")
    classifier = keras.models.load_model(trained / "tuned" / "classifier.keras")
    best = classifier.predict(image[None], verbose=0).argmax()
    assert main(["predict", "tuned", str(tmp_path / "digit.png"), "--runs-dir", str(trained), "--top", "1"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "%" in line)
    assert re.search(rf"\b{best} \d+\.\d %", row)


def test_runs_lists_finished_and_unfinished_runs(trained: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["runs", "--runs-dir", str(trained)]) == 0
    shown = capsys.readouterr().out
    assert "pre" in shown
    assert "tuned" in shown
    assert main(["runs", "--runs-dir", str(trained / "empty")]) == 0
    assert "python main.py pretrain" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["--model", "mlp", "--augment", "light"], ["--model", "resnet18", "--precision", "mixed_bfloat16"]],
)
def test_baselines_train_and_are_tested(tmp_path: Path, arguments: list[str]) -> None:
    where = ["--runs-dir", str(tmp_path), "--name", "base"]
    assert main(["baseline", *DIGITS, "--epochs", "1", *arguments, *where]) == 0
    assert Run(tmp_path / "base").result["accuracy"]["test"]["n"] == 50
    assert main(["evaluate", "base", "--runs-dir", str(tmp_path)]) == 0


@pytest.mark.slow
def test_finetuning_the_whole_encoder_changes_it(trained: Path, tmp_path: Path) -> None:
    arguments = ["finetune", "--encoder", str(trained / "pre"), "--no-freeze", "--head", "mlp", "--epochs", "1"]
    assert main([*arguments, "--runs-dir", str(tmp_path), "--name", "all"]) == 0
    result = Run(tmp_path / "all").result
    assert result["encoder_frozen"] is False
    assert result["encoder_sha256_before"] != result["encoder_sha256_after"]


@pytest.mark.slow
def test_an_stl10_archive_runs_through_data_pretrain_and_finetune(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_stl10_archive(tmp_path, fake_stl10(train_per_class=4, test_per_class=2).files())
    data = ["--dataset", "stl10", "--data-dir", str(tmp_path)]
    runs = ["--runs-dir", str(tmp_path / "runs")]
    assert main(["data", "prepare", *data]) == 0
    following = capsys.readouterr().out.splitlines()[-1]
    assert "pretrain" in following
    assert str(tmp_path) in following
    assert main(["pretrain", *data, *runs, "--epochs", "1", "--batch-size", "20", "--name", "pre"]) == 0
    assert main(["finetune", "--encoder", "latest", *runs, "--epochs", "1", "--name", "tuned"]) == 0
    run = Run(tmp_path / "runs" / "tuned")
    assert run.config["data"]["image_shape"] == [96, 96, 3]
    assert run.config["data"]["class_names"][0] == "airplane"
    assert run.result["accuracy"]["test"]["n"] == 20
    strong = ["--variant", "prl", "--recipe", "strong", "--epochs", "1", "--name", "strong"]
    assert main(["pretrain", *data, *runs, *strong]) == 0
    assert np.isfinite(Run(tmp_path / "runs" / "strong").metrics[0]["loss"])
    unlabelled = ["--variant", "simclr", "--unlabelled", "--epochs", "1", "--batch-size", "4", "--name", "sim"]
    assert main(["pretrain", *data, *runs, *unlabelled]) == 0
    assert np.isfinite(Run(tmp_path / "runs" / "sim").metrics[0]["loss"])


@pytest.mark.slow
def test_an_interrupted_run_continues_to_the_same_weights(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        "pretrain",
        *DIGITS,
        "--epochs",
        "2",
        "--batch-size",
        "32",
        "--augment",
        "light",
        "--runs-dir",
        str(tmp_path),
        "--name",
        "pre",
    ]
    stop_after_first_checkpoint(monkeypatch)
    assert main(arguments) == 130
    assert Run(tmp_path / "pre").result is None
    monkeypatch.undo()
    assert main([*arguments, "--resume"]) == 0
    whole, resumed = Run(trained / "pre"), Run(tmp_path / "pre")
    assert resumed.result["encoder_sha256"] == whole.result["encoder_sha256"]
    assert [line["loss"] for line in resumed.metrics] == [line["loss"] for line in whole.metrics]


# What is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "fly"),
        (["pretrain", "--variant", "quary"], r"quary.*query"),
        (["pretrain", "--epochs", "many"], "--epochs"),
        (["pretrain", "--nonsense", "1"], "--nonsense"),
        (["predict"], "Missing"),
        (["pretrain", "--dataset", "fashion_mnits"], "fashion_mnist"),
        (["pretrain", "--dataset", "digits", "--epochs", "0"], "--epochs 0 trains nothing: name the encoder"),
        (["pretrain", "--dataset", "digits", "--batch-size", "100000"], r"larger than the 1295.*--batch-size 1295"),
        (["pretrain", "--dataset", "digits", "--batch-size", "1"], "at least 2"),
        (["pretrain", "--dataset", "digits", "--learning-rate", "-1"], "--learning-rate"),
        (["pretrain", "--dataset", "digits", "--learning-rate", "nan"], "--learning-rate"),
        (["pretrain", "--dataset", "digits", "--temperature", "0"], "temperature"),
        (["pretrain", "--dataset", "digits", "--projection-dim", "-4"], "projection"),
        (["pretrain", "--dataset", "digits", "--stem", "huge"], "imagenet"),
        (["pretrain", "--dataset", "digits", "--name", "../x"], "not usable"),
        (["pretrain", "--dataset", "digits", "--variant", "simclr", "--augment", "none"], "--augment light"),
        (["pretrain", "--dataset", "digits", "--unlabelled"], "--variant simclr"),
        (["pretrain", "--dataset", "digits", "--variant", "simclr", "--unlabelled"], "stl10"),
        (["pretrain", "--dataset", "digits", "--resume"], "no unfinished pretrain run"),
        (["pretrain", "--dataset", "digits", "--validation-fraction", "2"], "validation"),
        (["pretrain", "--dataset", "digits", "--samples-per-class", "0"], "samples"),
        (["baseline", "--dataset", "digits", "--batch-size", "0"], "at least 2"),
        (["finetune", "--encoder", "nobody"], "nobody"),
        (["evaluate", "latest"], "python main.py pretrain"),
        (["predict", "latest", "x.png"], "python main.py baseline"),
        (["data", "verify", "--dataset", "nothing"], "nothing"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    where = ["--runs-dir", str(tmp_path / "runs")] if arguments[0] not in ("fly", "data") else []
    assert re.search(message, complaint(capsys, [*arguments, *where]))
    assert not (tmp_path / "runs").exists()


def broken_folder(root: Path, fault: str) -> str:
    """An image folder with one fault; returns what the message must name."""
    write_image_folder(root, train=6)
    if fault == "empty class":
        for file in (root / "train" / "dog").iterdir():
            file.unlink()
        return "dog"
    if fault == "class only in test":
        write = root / "test" / "wolf"
        write.mkdir()
        Image.new("RGB", (32, 32)).save(write / "1.png")
        return "wolf"
    if fault == "corrupt image":
        (root / "train" / "cat" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
        return r"bad\.png"
    for file in (root / "test").rglob("*.png"):
        file.unlink()
    return "test"


@pytest.mark.parametrize("fault", ["empty class", "class only in test", "corrupt image", "no test"])
def test_a_broken_image_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture, fault: str) -> None:
    named = broken_folder(tmp_path / "images", fault)
    runs = tmp_path / "runs"
    line = complaint(capsys, ["pretrain", "--dataset", str(tmp_path / "images"), "--runs-dir", str(runs)])
    assert re.search(named, line)
    assert not runs.exists()


@pytest.mark.parametrize("fault", ["missing", "truncated", "label 11", "not a tar"])
def test_a_broken_stl10_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture, fault: str) -> None:
    files = fake_stl10(train_per_class=4).files()
    named = {"missing": "train_X", "truncated": "train_X", "label 11": "train_y", "not a tar": r"tar\.gz"}[fault]
    if fault == "missing":
        del files["train_X.bin"]
    if fault == "truncated":
        files["train_X.bin"] = files["train_X.bin"][:-7]
    if fault == "label 11":
        files["train_y.bin"] = files["train_y.bin"][:-1] + bytes([11])
    archive = write_stl10_archive(tmp_path, files)
    if fault == "not a tar":
        archive.write_bytes(b"hello")
    arguments = ["pretrain", "--dataset", "stl10", "--data-dir", str(tmp_path), "--runs-dir", str(tmp_path / "runs")]
    assert re.search(named, complaint(capsys, arguments))
    assert not (tmp_path / "runs").exists()


def test_a_name_that_exists_is_refused_before_any_work(trained: Path, capsys: pytest.CaptureFixture) -> None:
    before = sorted(path.name for path in trained.iterdir())
    line = complaint(capsys, ["pretrain", *DIGITS, "--name", "pre", "--runs-dir", str(trained)])
    assert "already exists" in line
    assert sorted(path.name for path in trained.iterdir()) == before


def test_an_encoder_for_another_image_size_is_refused(trained: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["finetune", "--encoder", "pre", "--image-size", "24", "--runs-dir", str(trained), "--name", "no"]
    line = complaint(capsys, arguments)
    assert "16x16x3" in line
    assert "24x24x3" in line
    assert "leave out --image-size" in line
    assert not (trained / "no").exists()


def test_pictures_of_another_data_set_come_in_the_encoders_size(trained: Path, tmp_path: Path) -> None:
    for number in range(24):
        file = tmp_path / "art" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 12), 10 * number).save(file)
    words = ["--dataset", str(tmp_path / "art"), "--cache-dir", "none", "--runs-dir", str(trained)]
    assert main(["finetune", "--encoder", "pre", *words, "--epochs", "1", "--name", "on-art"]) == 0
    assert Run(trained / "on-art").part("data", "image_shape") == [16, 16, 3]
    assert main(["evaluate", "pre", *words]) == 0
    assert len(list((trained / "pre").glob("evaluation-art-*.json"))) == 1


def test_changed_images_are_noticed(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = Run(trained / "pre").config
    run = create_run(tmp_path, "pre", {**config, "data": {**config["data"], "fingerprint": "0" * 64}})
    run.encoder_file.write_bytes((trained / "pre" / "encoder.keras").read_bytes())
    assert "fingerprint" in complaint(capsys, ["finetune", "--encoder", "pre", "--runs-dir", str(tmp_path)])
    assert len(list_runs(tmp_path)) == 1


def test_a_resume_with_another_option_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    where = ["--runs-dir", str(tmp_path), "--name", "run"]
    light = ["--augment", "light", *where]
    create_run(tmp_path, "run", Run(trained / "pre").config)  # as one that was stopped at once
    line = complaint(capsys, ["pretrain", *DIGITS, "--epochs", "2", "--batch-size", "16", *where, "--resume"])
    assert re.search(r"batch_size = 32, not 16", line)
    line = complaint(capsys, ["pretrain", *DIGITS[:-2], "--epochs", "2", "--batch-size", "32", *light, "--resume"])
    assert "image_size" in line


def test_a_pretrained_run_cannot_predict_and_says_what_to_do(trained: Path, capsys: pytest.CaptureFixture) -> None:
    assert "finetune" in complaint(capsys, ["predict", "pre", "x.png", "--runs-dir", str(trained)])


def test_a_missing_image_is_named(trained: Path, capsys: pytest.CaptureFixture) -> None:
    assert "gone.png" in complaint(capsys, ["predict", "tuned", "gone.png", "--runs-dir", str(trained)])


def test_a_damaged_encoder_is_named(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture) -> None:
    run = create_run(tmp_path, "bad", Run(trained / "pre").config)
    run.encoder_file.write_bytes((trained / "pre" / "encoder.keras").read_bytes()[:1000])
    assert r"encoder.keras" in complaint(capsys, ["finetune", "--encoder", "bad", "--runs-dir", str(tmp_path)])
    assert len(list_runs(tmp_path)) == 1


# The real program ----------------------------------------------------------------------------------------


def test_the_program_exits_with_2_and_0() -> None:
    command = [sys.executable, "main.py"]
    bad = subprocess.run(
        [*command, "pretrain", "--dataset", "nothing"], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    assert bad.returncode == 2
    assert bad.stderr.count("\n") == 1
    assert "Traceback" not in bad.stderr
    good = subprocess.run([*command, "--version"], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert good.returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_with_its_default(command: str, capsys: pytest.CaptureFixture) -> None:
    from dataclasses import fields

    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    for field in fields(COMMANDS[command][0]):
        assert field.name.replace("_", "-") in shown or field.name in ("run", "images", "action")
    assert shown.count("(default") + shown.count("(required)") >= len(fields(COMMANDS[command][0])) - 1


@pytest.mark.parametrize("arguments", [["--version"], ["pretrain", "--help"], ["runs"]])
def test_a_reader_that_goes_away_sees_no_traceback(arguments: list[str]) -> None:
    """`| head`: shorter than the buffer, longer, and printed by Rich."""
    words = [sys.executable, "main.py", *arguments]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize(
    "arguments", [["pretrain", "--dataset", "/pictures\udcff"], ["predict", "latest", "\udcff.png"]]
)
def test_a_path_that_is_not_utf_8_is_one_line(capsys: pytest.CaptureFixture, arguments: list[str]) -> None:
    assert r"\udcff" in complaint(capsys, arguments)


@pytest.mark.parametrize(
    ("typed", "run", "printed"),
    [
        ("pretrain", "query-digits-1", "pretrain --name query-digits-1"),
        ("pretrain --name=mine", "mine", "pretrain --name=mine"),
        ("tune", "search", "tune --name search --resume"),
        ("tune --name mine --resume", "mine", "tune --name mine --resume"),
        ("reproduce --seeds 3", "one-of-its-runs", "reproduce --seeds 3"),
    ],
)
def test_a_stopped_command_says_how_to_continue(typed: str, run: str, printed: str) -> None:
    assert _how_to_continue(typed.split(), run) == f"to continue: python main.py {printed}"
