"""`evaluate` and `runs`: which data and classes a figure is of, what is kept when a picture fails, what is listed."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from archives import write_fashion
from PIL import Image
from reference import CLASSIFIERS
from test_evaluation import Secret

from prl_keras import load_dataset
from prl_keras.cli import main
from prl_keras.commands import evaluate
from prl_keras.evaluation.encoded import encode_run
from prl_keras.evaluation.statistics import accuracy
from prl_keras.files import write_json
from prl_keras.models import build_classifier, classification_head
from prl_keras.models.storage import save_model
from prl_keras.runs import Run, create_run
from prl_keras.screen.console import accuracy_table, console, in_words
from prl_keras.visualization.confusion import plot_confusion

ROOT = Path(__file__).parents[1]
SIZE = 8


def write_shades(root: Path, shades: dict[str, int], train: int = 8, test: int = 4, size: int = SIZE) -> Path:
    """A folder of images, each class around a shade of grey."""
    rng = np.random.default_rng(len(shades))
    for split, count in (("train", train), ("test", test)):
        for name, shade in shades.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(shade + rng.integers(-9, 10, (size, size, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def shade_encoder(size: int = SIZE) -> keras.Model:
    """Two features: light, and dark."""
    images = keras.Input((size, size, 3), name="images")
    light = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    dense = keras.layers.Dense(2)
    model = keras.Model(images, dense(light), name="encoder")
    dense.set_weights([np.repeat([[1.0, -1.0]], 3, axis=0) / 3, np.array([0.0, 1.0])])
    return model


def make_run(runs_dir: Path, name: str, data: Path, class_names: list[str] | None = None, swapped: bool = False) -> Run:
    """A run on the data: of an encoder, or with `class_names` of a classifier whose outputs are light, dark."""
    dataset = load_dataset(str(data))
    config = {"command": "pretrain", "options": {"epochs": 1}, "data": {"request": {"name": str(data), "seed": 0}}}
    config["data"] |= {"fingerprint": dataset.fingerprint, "image_shape": list(dataset.image_shape)}
    config["data"]["class_names"] = class_names or list(dataset.class_names)
    run = create_run(runs_dir, name, config)
    if class_names is None:
        save_model(shade_encoder(), run.encoder_file)
        return run
    head = classification_head("linear", 2, 2)
    head.set_weights([np.eye(2)[::-1] if swapped else np.eye(2), np.zeros(2)])
    save_model(build_classifier(shade_encoder(), 2, head), run.classifier_file)
    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shades(tmp_path_factory.mktemp("two") / "my pets", {"cat": 200, "dog": 60})


def run_evaluate(name: str, runs_dir: Path, *more: str) -> int:
    return main(["evaluate", name, "--runs-dir", str(runs_dir), *more])


def test_another_folder_is_evaluated_under_its_own_name_inside_the_run(
    tmp_path: Path, two: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "a" / "runs", "run", two)
    write_shades(tmp_path / "b" / "[bold]x", {"low": 20, "mid": 128, "top": 240})
    monkeypatch.chdir(tmp_path / "a")
    outside = sorted(path for path in tmp_path.rglob("*") if run.path not in path.parents)
    assert run_evaluate("run", Path("runs"), "--dataset", "../b/[bold]x") == 0
    shown = capsys.readouterr().out
    assert "run on [bold]x, test split" in shown
    assert sorted(path for path in tmp_path.rglob("*") if run.path not in path.parents) == outside
    other = load_dataset(str(tmp_path / "b" / "[bold]x"))
    suffix = f"bold-x-{other.fingerprint[:6]}"
    content = json.loads((run.path / f"evaluation-{suffix}.json").read_text())
    assert content["class_names"] == ["low", "mid", "top"]
    assert content["fingerprint"] == other.fingerprint
    assert content["accuracy"]["linear probe"]["n"] == 12
    assert (run.path / "plots" / f"confusion-{suffix}.png").stat().st_size > 1000
    assert run_evaluate("run", Path("runs"), "--dataset", f"{two.parent}/./{two.name}/") == 0
    assert (run.path / "evaluation.json").exists(), "its own data, however they are spelled"


def test_a_classifiers_outputs_are_matched_to_the_classes_by_name(tmp_path: Path, two: Path) -> None:
    """Light and dark are cat and dog, whatever the order in which the classifier was told."""
    for name, class_names, swapped, right in (
        ("same", ["cat", "dog"], False, 8),
        ("reordered", ["dog", "cat"], True, 8),
        ("mistaken", ["dog", "cat"], False, 0),
    ):
        run = make_run(tmp_path, name, two, class_names, swapped)
        assert run_evaluate(name, tmp_path) == 0
        content = json.loads((run.path / "evaluation.json").read_text())
        assert content["accuracy"]["classifier"]["correct"] == right, name
        assert np.trace(content["confusion"]["rows_true_columns_predicted"]) == right, name


@pytest.mark.parametrize(
    ("class_names", "why"),
    [
        (["cat", "wolf"], "it knows no 'dog'"),
        (["Cat", "Dog"], "it knows no 'cat'"),
        (["cat", "cat"], "it knows no 'dog'"),
        (["cat", "dog", "cow"], "it has 3 classes, my pets 2"),
    ],
)
def test_a_classifier_is_not_scored_on_other_classes_but_its_encoder_is(
    tmp_path: Path, two: Path, capsys: pytest.CaptureFixture, class_names: list[str], why: str
) -> None:
    run = make_run(tmp_path, "run", two, class_names)
    assert run_evaluate("run", tmp_path) == 0
    shown = capsys.readouterr().out
    assert f"was trained on other classes ({why}): what is measured is its encoder alone\n" in shown
    figures = json.loads((run.path / "evaluation.json").read_text())["accuracy"]
    assert "classifier" not in figures
    assert figures["linear probe"]["correct"] == 8, "light and dark are told by its features"
    assert shown.rstrip().splitlines()[-1].strip().startswith("python main.py finetune --encoder run")


@pytest.mark.slow
def test_images_that_were_moved_are_asked_for_and_the_next_command_finds_them(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = write_shades(tmp_path / "pets", {"cat": 200, "dog": 60})
    make_run(tmp_path, "pre", data)
    data.rename(tmp_path / "moved")
    for command in (["evaluate", "pre"], ["finetune", "--encoder", "pre"], ["visualize", "pre"], ["tune"]):
        assert main([*command, "--runs-dir", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "the images of run 'pre' were there: if they were moved, add --dataset NEWPATH" in error
    assert run_evaluate("pre", tmp_path, "--dataset", str(tmp_path / "moved")) == 0
    following = shlex.split(capsys.readouterr().out.splitlines()[-1])[2:]
    assert following[-2:] == ["--dataset", str(tmp_path / "moved")]
    assert main([*following, "--epochs", "1", "--name", "tuned"]) == 0
    assert run_evaluate("tuned", tmp_path) == 0
    write_shades(data, {"cat": 100, "dog": 30})
    assert run_evaluate("pre", tmp_path) == 2
    assert "restore them, add --dataset NEWPATH if they were moved, or train anew" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_of_files_that_was_moved_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_fashion(tmp_path / "files", train_per_class=500, test_per_class=800)
    words = ["baseline", "--model", "pca", "--dataset", "fashion_500", "--samples-per-class", "10", "--name", "run"]
    where = ["--runs-dir", str(tmp_path)]
    assert main([*words, "--data-dir", str(tmp_path / "files"), *where]) == 0
    (tmp_path / "files").rename(tmp_path / "moved")
    assert main(["evaluate", "run", *where]) == 2
    assert "if they were moved, add --data-dir NEWPATH" in capsys.readouterr().err
    assert main(["evaluate", "run", *where, "--data-dir", str(tmp_path / "moved"), "--test-per-class", "5"]) == 0


def fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("no picture")


def test_a_picture_that_fails_loses_no_figures(
    tmp_path: Path, two: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, "run", two)
    monkeypatch.setattr("prl_keras.visualization.confusion.plot_confusion", fail)
    with pytest.raises(RuntimeError, match="no picture"):
        run_evaluate("run", tmp_path)
    assert json.loads((run.path / "evaluation.json").read_text())["accuracy"]["kNN"]["value"] == 1.0
    shown = capsys.readouterr().out
    assert "100.0 %" in shown
    assert "linear probe: C = " in shown


def test_the_title_of_the_confusions_says_what_a_large_class_hides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_shades(tmp_path / "pets", {"cat": 60, "dog": 200})
    for number in range(1, 4):
        (data / "test" / "dog" / f"{number}.png").unlink()
    make_run(tmp_path, "run", data)
    wrong = {"linear probe": np.zeros(5, int)}
    monkeypatch.setattr(evaluate, "_predictions", lambda *_: (wrong, {}))
    titles = []

    def plot(*args: Any, original: Any = plot_confusion) -> Path:
        titles.append((args[2], args[4]))
        return original(*args)

    monkeypatch.setattr("prl_keras.visualization.confusion.plot_confusion", plot)
    assert run_evaluate("run", tmp_path) == 0
    assert titles == [("run: linear probe", "test 80.0 %, balanced 50.0 %, worst class 0.0 % dog")]


def test_a_training_picture_that_fails_loses_no_figures(
    tmp_path: Path, two: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prl_keras.visualization.figures.plot_training", fail)
    words = ["baseline", "--model", "mlp", "--dataset", str(two), "--epochs", "1", "--batch-size", "4"]
    with pytest.raises(RuntimeError, match="no picture"):
        main([*words, "--name", "base", "--runs-dir", str(tmp_path)])
    assert Run(tmp_path / "base").result["accuracy"]["test"]["n"] == 8
    assert "correct / n" in capsys.readouterr().out


@pytest.mark.slow
def test_a_table_whose_pictures_fail_has_shown_its_figures_and_is_not_done(
    tmp_path: Path, two: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["reproduce", "--dataset", str(two), "--rows", "pca", "--seeds", "2"]
    monkeypatch.setattr("prl_keras.experiments.figures.draw_all", fail)
    with pytest.raises(RuntimeError, match="no picture"):
        main([*words, "--runs-dir", str(tmp_path)])
    assert not (tmp_path / "table-my-pets" / "result.json").exists(), "it is written last: other processes wait for it"
    shown = capsys.readouterr().out
    assert "worst class" in shown
    assert "100.0 %" in shown
    monkeypatch.undo()
    # a run that was made by hand, from other data: refused before anything is trained
    changed = Run(tmp_path / "table-my-pets" / "pca-s1")
    config = changed.config
    config["data"]["request"]["samples_per_class"] = 5
    write_json(changed.path / "config.json", config)
    (tmp_path / "table-my-pets" / "pca-s0" / "result.json").unlink()
    assert main([*words, "--runs-dir", str(tmp_path)]) == 2
    assert "samples_per_class = 5, the table needs None" in capsys.readouterr().err
    assert not (tmp_path / "table-my-pets" / "pca-s0" / "result.json").exists()


def test_what_is_chosen_is_chosen_without_the_labels_of_test(tmp_path: Path, two: Path) -> None:
    run = make_run(tmp_path, "run", two)
    dataset = load_dataset(str(two))
    hidden = replace(dataset, test=Secret(dataset.test))
    predictions, results = evaluate._predictions(encode_run(run, hidden, None), hidden)
    assert set(predictions) == set(results) == set(CLASSIFIERS)
    for result in results.values():
        assert result.validation_images == len(dataset.validation)


def test_it_says_by_how_many_images_was_chosen_and_that_they_are_too_few(
    tmp_path: Path, two: Path, capsys: pytest.CaptureFixture
) -> None:
    run = make_run(tmp_path, "run", two)
    assert run_evaluate("run", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "kNN: k = 5 by 2 validation images" in shown
    assert "warning: kNN: validation cannot choose k: its 2 images tell no other candidate from k = 5" in shown
    assert json.loads((run.path / "evaluation.json").read_text())["chosen_on_validation"]["kNN"].startswith(
        "k = 5 by 2"
    )
    words = ["baseline", "--model", "pca", "--dataset", str(two), "--runs-dir", str(tmp_path), "--name", "pca"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "3 components; C = " in shown
    assert "by 2 validation images" in shown
    assert "warning: validation cannot choose C: its 2 images" in shown
    assert Run(tmp_path / "pca").result["chosen_on_validation"]["decided"] is False


def test_confusions_of_many_classes_stand_beside_the_figures(
    tmp_path: Path, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "_MOST_IN_JSON", 1)
    run = make_run(tmp_path, "run", two)
    assert run_evaluate("run", tmp_path) == 0
    confusion = json.loads((run.path / "evaluation.json").read_text())["confusion"]
    assert confusion == {"method": "linear probe", "file": "confusion.npz"}
    with np.load(run.path / confusion["file"]) as arrays:
        assert arrays["rows_true_columns_predicted"].tolist() == [[4, 0], [0, 4]]


def shown_table(rows: dict[str, Any], class_names: list[str], capsys: pytest.CaptureFixture) -> str:
    console.print(accuracy_table("title", rows, class_names))
    return capsys.readouterr().out


def test_a_table_of_accuracies_shows_what_a_large_class_hides(capsys: pytest.CaptureFixture) -> None:
    labels = np.repeat([0, 1], [400, 20])
    shown = shown_table({"test": accuracy(np.zeros(420, int), labels)}, ["common", "[b]rare:cat:"], capsys)
    for part in ("95.2 %", "400 / 420", "50.0 %", "balanced", "0.0 % [b]rare:cat:"):
        assert part in shown, shown
    assert max(map(len, shown.splitlines())) <= 80
    equal = shown_table({"test": accuracy(np.zeros(40, int), np.arange(40) % 2)}, ["a", "b"], capsys)
    assert "balanced" not in equal
    assert "0.0 % b" in equal


FIGURE = {"value": 0.952, "low": 0.92, "high": 0.97, "correct": 400, "n": 420}


def listed_run(runs_dir: Path, name: str, test: dict[str, Any]) -> Run:
    data = {"request": {"name": "/x/[b]:cat:"}, "fingerprint": "0", "class_names": ["a", "[/]"]}
    data["image_shape"] = [8, 8, 3]
    run = create_run(runs_dir, name, {"command": "finetune", "options": {"epochs": 1}, "data": data})
    write_json(run.path / "result.json", {"epochs": 1, "accuracy": {"validation": FIGURE, "test": FIGURE | test}})
    return run


def test_runs_shows_balanced_accuracy_and_the_worst_class_where_they_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    worst = {"class": 1, "value": 0.0, "correct": 0, "n": 20}
    listed_run(tmp_path, "new", {"balanced": 0.5, "worst": worst})
    listed_run(tmp_path, "old", {})
    listed_run(tmp_path, "odd", {"balanced": 0.5, "worst": worst | {"class": 7}})
    pretrained = listed_run(tmp_path, "pre", {})
    saved = {"val_prototype_accuracy": 0.952, "val_prototype": FIGURE | {"balanced": 0.5, "worst": worst}}
    write_json(pretrained.path / "result.json", {"epochs": 1, "saved_encoder": saved})
    assert main(["runs", "--runs-dir", str(tmp_path)]) == 0
    lines = {words[0]: " ".join(words) for line in capsys.readouterr().out.splitlines() if (words := line.split())}
    assert "[b]:cat:" in lines["new"], "no name is markup, of a folder its last part"
    assert lines["new"].endswith("95.2 % (92.0 - 97.0) 50.0 % 0.0 % [/]")
    assert lines["old"].endswith("95.2 % (92.0 - 97.0)")
    assert lines["odd"].endswith("0.0 % 7")
    assert lines["pre"].endswith("95.2 % 50.0 % 0.0 % [/]")
    words = in_words(FIGURE | {"balanced": 0.5, "worst": worst}, ["a", "b"])
    assert words == "95.2 %, balanced 50.0 %, worst class 0.0 % b"
    assert in_words(FIGURE | {"balanced": 0.952, "worst": worst | {"value": 0.952}}, ["a", "b"]) == "95.2 %"


def test_runs_lists_what_it_can_and_names_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("good", "large", "broken", "half"):
        listed_run(tmp_path, name, {})
    os.truncate(tmp_path / "large" / "result.json", 100 * 2**20)
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "half" / "config.json").write_text('{"created": "2026"}')
    assert main(["runs", "--runs-dir", str(tmp_path)]) == 0
    streams = capsys.readouterr()
    assert "good" in streams.out
    complaints = streams.err.splitlines()
    assert len(complaints) == 3
    for name, line in zip(("broken", "half", "large"), complaints, strict=True):
        assert line.startswith("warning: not listed: ")
        assert f"{name}/" in line.replace("\\", "/")


@pytest.mark.slow
def test_a_thousand_classes_are_evaluated_in_four_gigabytes(tmp_path: Path) -> None:
    """512 features, in a process of its own, whose largest memory the system knows."""
    shades = {f"class {k:04d}": k % 250 for k in range(1000)}
    data = write_shades(tmp_path / "many", shades, train=3, test=2)
    run = make_run(tmp_path, "run", data)
    images = keras.Input((SIZE, SIZE, 3), name="images")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    save_model(keras.Model(images, keras.layers.Dense(512)(x), name="encoder"), run.encoder_file)
    process = subprocess.Popen([sys.executable, "main.py", "evaluate", "run", "--runs-dir", str(tmp_path)], cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert used.ru_maxrss < 4 * 2**20  # KB
    content = json.loads((run.path / "evaluation.json").read_text())
    assert {figure["n"] for figure in content["accuracy"].values()} == {2000}
    assert (run.path / "evaluation.json").stat().st_size < 10**6
    with np.load(run.path / content["confusion"]["file"]) as arrays:
        assert arrays["rows_true_columns_predicted"].sum() == 2000
    assert (run.path / "plots" / "confusion.png").stat().st_size < 10**7
