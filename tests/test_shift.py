"""Accuracy under corruptions: figures from answers, errors relative to another run's, and the command."""

import json
import shutil

import numpy as np
import pytest

from prl_keras.cli import main
from prl_keras.commands import shift
from prl_keras.data import weather
from prl_keras.data.augment import RECIPES
from prl_keras.data.catalog import load_dataset
from prl_keras.data.corruptions import corrupt
from prl_keras.data.severities import NAMES, SEVERITIES
from prl_keras.errors import InputError
from prl_keras.evaluation.probes import Features
from prl_keras.evaluation.shift import (
    ALIKE,
    CONDITIONS,
    Shifted,
    answers,
    figures,
    fitted,
    identity,
    loaded,
    relative_errors,
    shifted,
)
from prl_keras.files import write_json
from prl_keras.runs import Run, create_run
from prl_keras.visualization.shift import GROUPS


def random_answers(seed: int, n: int, ability: float) -> np.ndarray:
    """(76, n): images differ, and conditions too."""
    random = np.random.RandomState(seed)
    easy = random.normal(ability, 1, n)
    hard = np.concatenate([[0.0], random.uniform(0.5, 2, 75)])
    return easy - hard[:, None] + random.normal(0, 0.7, (76, n)) > 0


def slow_mce(correct: np.ndarray, reference: np.ndarray, relative: bool) -> dict[str, float]:
    def error(table, name, severity):
        clean = 1 - table[0].mean() if relative else 0.0
        return 1 - table[CONDITIONS.index((name, severity))].mean() - clean

    return {
        name: sum(error(correct, name, s) for s in SEVERITIES) / sum(error(reference, name, s) for s in SEVERITIES)
        for name in NAMES
    }


def test_mce_is_the_published_formula():
    one, other = random_answers(0, 500, 1.0), random_answers(1, 500, 2.0)
    found = relative_errors(one, other)
    for name, relative in (("mCE", False), ("relative_mCE", True)):
        expected = slow_mce(one, other, relative)
        assert found[name]["by_corruption"] == pytest.approx(expected)
        assert found[name]["value"] == pytest.approx(np.mean(list(expected.values())))
        assert found[name]["undefined"] == []
        assert found[name]["n"] == 500
    itself = relative_errors(one, one)["mCE"]
    assert [itself[end] for end in ("value", "low", "high")] == pytest.approx([1, 1, 1]), "paired"


def test_its_interval_is_that_of_a_bootstrap_of_the_images():
    one, other = random_answers(0, 400, 1.2), random_answers(0, 400, 1.5)
    random = np.random.RandomState(0)
    for name, relative in (("mCE", False), ("relative_mCE", True)):
        figure, drawn = relative_errors(one, other)[name], []
        for _ in range(100):
            rows = random.randint(0, 400, 400)
            drawn.append(np.mean(list(slow_mce(one[:, rows], other[:, rows], relative).values())))
        assert (figure["high"] - figure["low"]) / 3.92 == pytest.approx(np.std(drawn), rel=0.25)
        assert figure["low"] < figure["value"] < figure["high"]


def test_errors_that_cannot_be_told_from_none_are_no_unit():
    one, other = random_answers(0, 300, 1.0), random_answers(1, 300, 1.0)
    place = 1 + 5 * NAMES.index("fog")
    other[place : place + 5] = other[0]
    found = relative_errors(one, other)
    assert found["mCE"]["value"] is not None
    relative = found["relative_mCE"]
    assert (relative["value"], relative["low"], relative["undefined"]) == (None, None, ["fog"])
    assert relative["by_corruption"]["fog"] is None
    assert sum(value is not None for value in relative["by_corruption"].values()) == 14
    other[:] = True
    assert relative_errors(one, other)["mCE"]["undefined"] == list(NAMES)


def test_figures_are_the_shares_of_right_answers():
    correct = random_answers(3, 250, 1.5)
    found = figures(correct)
    assert found["clean"]["value"] == correct[0].mean()
    assert found["mean"]["value"] == pytest.approx(correct[1:].mean())
    assert (found["mean"]["n"], found["mean"]["conditions"]) == (250, 75)
    for place, (name, severity) in enumerate(CONDITIONS[1:], 1):
        assert found["by_corruption"][name][str(severity)]["correct"] == correct[place].sum()
    for name in NAMES:
        rows = [place for place, (other, severity) in enumerate(CONDITIONS) if other == name and severity]
        assert found["by_corruption"][name]["mean"]["value"] == pytest.approx(correct[rows].mean())
    for severity in SEVERITIES:
        rows = [place for place, (_, other) in enumerate(CONDITIONS) if other == severity]
        figure = found["by_severity"][str(severity)]
        assert figure["value"] == pytest.approx(correct[rows].mean())
        assert figure["low"] < figure["value"] < figure["high"]
    spread = correct[1:].mean(axis=0).std() / np.sqrt(250)
    assert (found["mean"]["high"] - found["mean"]["low"]) / 3.92 == pytest.approx(spread, rel=0.05), "images, not 75 n"


def test_every_condition_shows_the_pictures_that_it_names(monkeypatch):
    monkeypatch.setattr(weather, "_DRAWN", 8)
    test = load_dataset("digits", image_size=8, test_per_class=2).test
    shown = []

    def predict(images):
        shown.append(images)
        return {"all": test.labels, "none": test.labels + 1}

    found = shifted(list(answers(test, predict, 4)), {})
    assert len(shown) == 76
    assert (found.classifier, found.own.shape) == ("all", (76, 20))
    assert np.array_equal(shown[0], test.images)
    for place in (1, 30, 75):
        assert np.array_equal(shown[place], corrupt(np.asarray(test.images), *CONDITIONS[place], seed=4))
    assert found.own.all()
    assert not found.correct["none"].any()


def parts(centres: np.ndarray) -> list[Features]:
    """Train, validation and test of three classes around these centres."""
    random, labels = np.random.RandomState(0), np.arange(300) // 3 % 3
    features = centres[labels] + 0.05 * random.randn(300, centres.shape[1])
    return [Features(features[i::3], labels[i::3]) for i in range(3)]


def test_validation_chooses_the_classifier():
    three = parts(np.eye(3))
    chosen, predict = fitted(*three[:2], 3)
    assert list(chosen) == ["centred prototype", "linear probe"], "of equals the one that chooses nothing is first"
    assert chosen["centred prototype"] == ""
    assert all((labels == three[2].labels).all() for labels in predict(three[2].features).values())
    three = parts(np.array([[1.0, 1.0], [3.0, 3.0], [9.0, 9.0]]))  # on a line two of them have one direction
    chosen, predict = fitted(*three[:2], 3)
    assert list(chosen) == ["linear probe", "centred prototype"]
    assert chosen["linear probe"].startswith("C = ")
    right = {name: (labels == three[2].labels).mean() for name, labels in predict(three[2].features).items()}
    assert list(right) == list(chosen)
    assert right["linear probe"] > 0.9 > right["centred prototype"]


def test_groups_and_policies_are_whole():
    assert sum(GROUPS.values(), ()) == NAMES
    like = {name for name, r in RECIPES.items() if r and (r.jitter_probability or r.blur_sigma or r.operations)}
    assert set(ALIKE) == like


def command(folder, name: str, *words: str) -> int:
    return main(["evaluate", name, "--shift", "--runs-dir", str(folder), *words])


@pytest.fixture(scope="module")
def measured(trained):
    """`tuned`, and `pre` with answers that nobody gave; with coarse frost, as it takes a second to grow."""
    weather.frosts.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weather, "_DRAWN", 8)
        test = load_dataset(**Run(trained / "pre").part("data", "request")).test
        given = {"linear probe": random_answers(0, 50, 1.0), "centred prototype": random_answers(1, 50, 1.0)}
        Shifted(given, identity(test, 0)).save(trained / "pre" / "shift.npz")
        yield trained
    weather.frosts.cache_clear()


def record(run: Run) -> dict:
    return json.loads((run.path / "shift.json").read_text(encoding="utf-8"))


def test_what_is_measured_is_on_the_screen_and_in_files(measured, capsys):
    run = Run(measured / "tuned")
    assert command(measured, "tuned", "--relative-to", "pre") == 0
    shown, found = capsys.readouterr().out, record(run)
    assert (found["classifier"], found["n"], found["split"]) == ("classifier", 50, "test")
    clean = run.result["accuracy"]["test"]
    assert found["accuracy"]["clean"]["correct"] == clean["correct"], "severity 0 is the test that it had"
    kept = loaded(run.path / "shift.npz")
    assert list(kept.correct) == list(found["by_classifier"]) == list(found["chosen_on_validation"])
    assert {by: json.loads(json.dumps(figures(of))) for by, of in kept.correct.items()} == found["by_classifier"]
    assert found["by_classifier"]["classifier"] == found["accuracy"]
    other = loaded(measured / "pre" / "shift.npz")
    relative = relative_errors(kept.own, other.own)
    assert json.loads(json.dumps(relative)) == {name: found["relative_to"][name] for name in relative}
    assert found["relative_to"]["run"] == "pre"
    same = found["relative_to"]["by_the_same"]
    assert same.keys() == other.correct.keys(), "the head of the run has none beside it"
    probed = relative_errors(kept.correct["linear probe"], other.correct["linear probe"])["mCE"]["value"]
    assert same["linear probe"]["value"] == probed
    row = next(line for line in shown.splitlines() if line.strip().startswith("linear probe "))
    assert row.split()[-4] == f"{100 * probed:.1f}"
    row = next(line for line in shown.splitlines() if line.strip().startswith("jpeg compression"))
    by_severity = found["accuracy"]["by_corruption"]["jpeg_compression"]
    assert row.split()[2:7] == [f"{100 * by_severity[s]['value']:.1f}" for s in "12345"]
    assert row.split()[-1] == f"{100 * relative['mCE']['by_corruption']['jpeg_compression']:.1f}"
    assert f"= 100: {100 * relative['mCE']['value']:.1f} (" in shown
    assert (run.path / "plots" / "shift.png").stat().st_size > 10_000
    assert shown.rstrip().splitlines()[-1].strip().startswith("python main.py evaluate tuned")


@pytest.mark.slow
def test_an_encoder_is_measured_by_what_validation_chose(measured, capsys, tmp_path):
    runs = shutil.copytree(measured, tmp_path / "runs")
    assert command(runs, "pre") == 0
    shown, found = capsys.readouterr().out, record(Run(runs / "pre"))
    assert found["classifier"] in ("linear probe", "centred prototype")
    assert found["accuracy"]["clean"]["value"] > 0.2
    assert f"pre ({found['classifier']}) on digits, 50 test pictures" in shown
    assert shown.rstrip().endswith(f"evaluate OTHER --shift --relative-to pre --runs-dir {runs}")
    before = (runs / "pre" / "shift.json").read_bytes()
    assert command(runs, "pre") == 0
    assert (runs / "pre" / "shift.json").read_bytes() == before, "the same bits again"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--shift", "--relative-to", "pre"], "was not measured so: first type: python main.py evaluate pre"),
        (["--shift", "--relative-to", "tuned"], "--relative-to tuned: that is the run itself"),
        (["--shift", "--relative-to", "owl"], "owl"),
        (["--shift", "--seed", "-1"], "--seed is -1; expected a whole number"),
        (["--relative-to", "pre"], "--relative-to does nothing with --no-shift"),
        (["--seed", "3"], "--seed does nothing with --no-shift"),
        (["--shift", "--few-shot"], "--shift does nothing with --few-shot"),
        (["--shift", "--unknown"], "--shift does nothing with --unknown"),
    ],
)
def test_what_makes_no_sense_is_one_line(trained, capsys, words, line, tmp_path):
    for name in ("pre", "tuned"):
        shutil.copytree(trained / name, tmp_path / name)
        (tmp_path / name / "shift.npz").unlink(missing_ok=True)
    assert main(["evaluate", "tuned", *words, "--runs-dir", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert line in lines[0]
    assert not (tmp_path / "tuned" / "shift.npz").exists()


def test_a_reference_is_found_by_what_it_was_measured_on(measured, capsys, tmp_path):
    """A run that was trained on other pictures, such as those of another seed, has another name for the same test."""
    runs = shutil.copytree(measured, tmp_path / "runs")
    (runs / "pre" / "shift.npz").rename(runs / "pre" / "shift-digits-123456.npz")
    (runs / "pre" / "shift-birds.npz").write_text("damaged, and of other data", encoding="utf-8")
    assert command(runs, "tuned", "--relative-to", "pre") == 0
    assert record(Run(runs / "tuned"))["relative_to"]["run"] == "pre"
    (runs / "pre" / "shift-digits-123456.npz").unlink()
    capsys.readouterr()
    assert command(runs, "tuned") == 0
    assert "shift.json is replaced, which was measured with --relative-to pre\n" in capsys.readouterr().out
    assert command(runs, "tuned", "--relative-to", "pre", "--seed", "3") == 2
    assert capsys.readouterr().err.endswith(f"python main.py evaluate pre --runs-dir {runs} --shift --seed 3\n")


@pytest.mark.slow
def test_another_seed_has_files_of_its_own_and_is_in_the_next_command(measured, capsys, tmp_path):
    runs = shutil.copytree(measured, tmp_path / "runs")
    before = (runs / "pre" / "shift.npz").read_bytes()
    assert command(runs, "pre", "--seed", "3") == 0
    assert capsys.readouterr().out.rstrip().endswith(f"--relative-to pre --runs-dir {runs} --seed 3")
    assert (runs / "pre" / "shift.npz").read_bytes() == before
    assert (runs / "pre" / "shift-seed3.npz").exists()


def test_a_reference_of_other_data_is_told_which_to_measure(measured, capsys, tmp_path):
    runs = shutil.copytree(measured, tmp_path / "runs")
    file = runs / "pre" / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    for data, line in (
        ({"request": config["data"]["request"] | {"name": "fashion_500"}}, "--shift --dataset digits"),
        ({"image_shape": [8, 8, 3]}, "run 'pre' takes 8x8 images, and no others can be compared image by image"),
    ):
        write_json(file, config | {"data": config["data"] | data | {"fingerprint": "0" * 64}})
        (runs / "pre" / "shift.npz").write_text("of other data", encoding="utf-8")
        assert command(runs, "tuned", "--relative-to", "pre") == 2
        assert line in capsys.readouterr().err


def test_the_augmentation_of_every_training_before_is_told(tmp_path, capsys):
    """Of a head on the encoder of a fine-tuned run, which began with one that was pre-trained."""
    runs = []
    for name, options, result in (
        ("first", {"augment": "simclr"}, {}),
        ("second", {"init": "first"}, {}),
        ("third", {}, {"encoder_run": "second"}),
        ("fourth", {}, {"encoder_run": "third"}),
    ):
        runs.append(create_run(tmp_path, name, {"command": "pretrain", "options": options, "created": name}))
        runs[-1].encoder_file.touch()
        write_json(runs[-1].path / "result.json", result)
    shift._say_what_was_seen(runs[-1])
    assert "the augmentation of the training, simclr, changes brightness" in capsys.readouterr().out


def test_a_reference_of_something_else_is_refused(measured, capsys, tmp_path):
    shutil.copytree(measured, tmp_path / "runs")
    words = ["--relative-to", "pre"]
    file = tmp_path / "runs" / "pre" / "shift.npz"
    content = dict(np.load(file))
    np.savez_compressed(file, **content | {"images": "0", "corruptions": "0"})
    assert command(tmp_path / "runs", "tuned", *words) == 2
    assert "run 'pre' was measured with other images and corruptions" in capsys.readouterr().err
    np.savez_compressed(file, **content | {"correct": content["correct"][1], "classifier": "centred prototype"})
    earlier = loaded(file)  # before several were asked
    assert (earlier.classifier, earlier.own.tolist()) == ("centred prototype", random_answers(1, 50, 1.0).tolist())
    for damage in (content | {"correct": content["correct"][:, :5]}, {"n": 3}):
        np.savez_compressed(file, **damage)
        with pytest.raises(InputError, match="is damaged"):
            loaded(file)
    file.write_bytes(b"PK")
    assert command(tmp_path / "runs", "tuned", *words) == 2
    assert len(lines := capsys.readouterr().err.splitlines()) == 1
    assert "is damaged" in lines[0]


def test_a_training_that_saw_something_like_it_is_said(measured, capsys, tmp_path):
    runs = shutil.copytree(measured, tmp_path / "runs")
    config = json.loads((runs / "pre" / "config.json").read_text(encoding="utf-8"))
    config["options"]["augment"] = "simclr"
    (runs / "pre" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    from prl_keras.commands.shift import _say_what_was_seen

    _say_what_was_seen(Run(measured / "tuned"))
    assert capsys.readouterr().out == ""
    for name in ("pre", "tuned"):
        _say_what_was_seen(Run(runs / name))
        assert "simclr, changes brightness and contrast, and blurs" in capsys.readouterr().out
