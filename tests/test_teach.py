"""`teach`: a class is what its pictures say, whenever they were shown; and `predict` says why it answers."""

import csv
import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.covariance import LedoitWolf

import prl_keras
from prl_keras.cli import main
from prl_keras.data.images import load_image
from prl_keras.errors import InputError
from prl_keras.evaluation.taught import read_taught
from prl_keras.models.encode import encode
from prl_keras.runs import Run
from prl_keras.runs.locks import locked

SIDE = 40


def draw(name: str, number: int) -> Image.Image:
    """A picture of a class that digits have not; another one for each number."""
    picture = Image.new("RGB", (SIDE, SIDE), (8 * number, 0, 0))
    pen, shift = ImageDraw.Draw(picture), number % 5
    if name == "ring":
        pen.ellipse((4 + shift, 4, 30 + shift, 34), outline="white", width=4)
    elif name == "cross":
        pen.line((2 + shift, 2, 34 + shift, 36), fill="white", width=5)
        pen.line((34 + shift, 2, 2 + shift, 36), fill="white", width=5)
    else:
        pen.rectangle((2, 14 + shift, 38, 20 + shift), fill="yellow")
    return picture


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<class>/<number>.png, six of each of three classes; and bad.png."""
    root = tmp_path_factory.mktemp("pictures") / "shapes"
    for name in ("ring", "cross", "bar"):
        (root / name).mkdir(parents=True)
        for number in range(6):
            draw(name, number).save(root / name / f"{number}.png")
    (root.parent / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return root


def files(pictures: Path, name: str, numbers: Sequence[int]) -> list[str]:
    return [str(pictures / name / f"{number}.png") for number in numbers]


@pytest.fixture(scope="module")
def teach(trained: Path) -> Callable[..., Run]:
    """Calls the command with these words; the run that it made or changed."""

    def call(run: str, *words: str, expected: int = 0) -> Run:
        assert main(["teach", run, *words, "--runs-dir", str(trained)]) == expected
        return Run(trained / (words[words.index("--name") + 1] if "--name" in words else run))

    return call


@pytest.fixture(scope="module")
def taught(teach: Callable[..., Run], pictures: Path) -> Run:
    teach("pre", "ring", *files(pictures, "ring", (0, 1, 2)), "--name", "taught")
    return teach("taught", "cross", *files(pictures, "cross", (0, 1, 2)))


@pytest.fixture
def own(taught: Run, trained: Path) -> Run:
    """A copy that the test may change."""
    copy = trained / "own"
    shutil.rmtree(copy, ignore_errors=True)
    return Run(shutil.copytree(taught.path, copy))


def complaint(capsys: pytest.CaptureFixture) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_taught_one_by_one_or_at_once_it_is_the_same(teach, taught, pictures, tmp_path):
    for name in ("ring", "cross"):
        (tmp_path / "two" / name).mkdir(parents=True)
        for file in files(pictures, name, (0, 1, 2)):
            shutil.copy(file, tmp_path / "two" / name)
    once = read_taught(teach("pre", str(tmp_path / "two"), "--name", "once"))
    steps = read_taught(taught)
    assert once.classifier.classes_.tolist() == steps.classifier.classes_.tolist() == [*"0123456789", "cross", "ring"]
    assert once.classifier.counts_.tolist() == [8] * 10 + [3, 3]
    np.testing.assert_allclose(once.classifier.sums_, steps.classifier.sums_, atol=1e-12)
    assert once.classifier.threshold_ == pytest.approx(steps.classifier.threshold_, abs=1e-12)
    assert once.classifier.temperature_ == steps.classifier.temperature_


def slow_answers(run: Run, trained: Path, shown: Sequence[str]) -> list[dict]:
    """By the definition: means of classes, and one covariance within them in which every class weighs alike."""
    encoder = prl_keras.load_encoder(run)
    data = prl_keras.load_dataset(**Run(trained / "pre").part("data", "request"))

    def feature(file: str) -> np.ndarray:
        return encode(encoder, load_image(file, (16, 16))[None])[0].astype(float)

    of_class: dict[str, list[np.ndarray]] = {}
    examples = []
    for image, label in zip(encode(encoder, data.train.images).astype(float), data.train.labels, strict=True):
        of_class.setdefault(str(label), []).append(image)
        examples.append((str(label), image))
    residuals = np.concatenate([np.array(each) - np.mean(each, axis=0) for each in of_class.values()])
    covariances = [LedoitWolf(assume_centered=True).fit(residuals).covariance_] * len(of_class)
    known = read_taught(run).examples
    for name, file in zip(known.labels[known.taught], known.files[known.taught], strict=True):
        of_class.setdefault(name, []).append(feature(file))
        examples.append((f"{name} {file}", feature(file)))
    covariances += [np.cov(np.array(of_class[name]).T) for name in ("cross", "ring")]
    precision = np.linalg.inv(np.mean(covariances, axis=0))

    def squared(one: np.ndarray, other: np.ndarray) -> float:
        return (one - other) @ precision @ (one - other)

    answers = []
    for file in shown:
        mine = feature(file)
        scores = {name: -squared(mine, np.mean(each, axis=0)) / (1 + 1 / len(each)) for name, each in of_class.items()}
        answers.append(
            {"scores": scores, "nearest": sorted(examples, key=lambda example: squared(mine, example[1]))[:3]}
        )
    return answers


def test_predict_says_what_the_definition_says(taught, trained, pictures, tmp_path):
    shown = [*files(pictures, "ring", (3, 4)), *files(pictures, "cross", (3, 4)), *files(pictures, "bar", (0, 1))]
    out = tmp_path / "answers.csv"
    assert main(["predict", "taught", *shown, "--out", str(out), "--runs-dir", str(trained)]) == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    classifier = read_taught(taught).classifier
    for file, slow in zip(shown, slow_answers(taught, trained, shown), strict=True):
        row, scores = rows[file], slow["scores"]
        best = max(scores, key=scores.get)
        shares = {name: np.exp((score - scores[best]) / classifier.temperature_) for name, score in scores.items()}
        assert row["class"] == best
        assert float(row["probability"]) == pytest.approx(shares[best] / sum(shares.values()), abs=1e-4)
        assert row["known"] == str(scores[best] > classifier.threshold_).lower()
        for number, (example, _) in zip(("", "_2", "_3"), slow["nearest"], strict=True):
            label, _, where = example.partition(" ")
            assert row[f"most_like_class{number}"] == label
            like = row[f"most_like{number}"]
            assert like == where if where else "digits, training image" in like
    right = [rows[file]["class"] == Path(file).parent.name for file in shown[:4]]
    assert sum(right) >= 3, "even after two epochs on digits"
    meta = json.loads(out.with_name("answers.csv.meta.json").read_text(encoding="utf-8"))
    assert meta["class_names"] == classifier.classes_.tolist()
    assert meta["prototypes_sha256"] == read_taught(taught).sha256()


def test_the_screen_says_which_picture_is_most_like_it(taught, trained, pictures, capsys):
    assert main(["predict", "taught", *files(pictures, "ring", (1, 5)), "--runs-dir", str(trained)]) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert "looksmostlike" in shown
    assert "ring:" in shown
    assert "".join(str(Path("shapes", "ring", "1.png")).split()) in shown.replace("│", "")
    assert "1of2imagesisamongthosethattaughtwastrainedon" in shown


def test_what_is_like_nothing_is_none_of_these(own, trained, pictures, capsys, monkeypatch):
    known = read_taught(own)
    known.classifier.threshold_ = -1e-6
    from prl_keras.evaluation.taught import save_taught

    save_taught(known, own.prototypes_file)
    shown = [*files(pictures, "bar", (0, 1)), *files(pictures, "ring", (5,))]
    assert main(["predict", "own", *shown, "--runs-dir", str(trained)]) == 0
    table = capsys.readouterr().out
    assert table.count("none of") == 3
    assert table.count("(nearest") == 3
    monkeypatch.setattr("prl_keras.commands.predict._FEW", 1)
    assert main(["predict", "own", *shown, "--runs-dir", str(trained)]) == 0
    assert "3  100.0 %  none of these" in capsys.readouterr().out


def test_what_is_forgotten_was_never_taught(teach, own, pictures, capsys):
    before = read_taught(own)
    teach("own", "bar", *files(pictures, "bar", (0, 1)))
    capsys.readouterr()
    teach("own", "--forget", "bar", "7")
    assert "bar: forgotten (2 pictures)\n7: forgotten (8 pictures)" in capsys.readouterr().out
    teach("own", "ring", *files(pictures, "ring", (0, 1, 2)), "--forget", "ring")
    after = read_taught(own)
    assert after.classifier.classes_.tolist() == [*"012345689", "cross", "ring"]
    kept = before.classifier.classes_ != "7"
    np.testing.assert_allclose(after.classifier.sums_, before.classifier.sums_[kept], atol=1e-12)
    assert "bar" not in after.examples.labels
    assert "7" not in after.examples.labels
    assert "7" not in after.held_out.labels
    assert "7" not in after.tested.labels
    assert json.loads((own.path / "result.json").read_text(encoding="utf-8"))["taught"] == {"cross": 3, "ring": 3}


def test_it_says_what_a_lesson_does_to_the_other_classes(teach, own, pictures, capsys):
    known = read_taught(own)
    right = (known.classifier.predict(known.held_out.features) == known.held_out.labels).mean()
    assert own.result["saved_encoder"]["val_prototype"]["value"] == pytest.approx(right)
    capsys.readouterr()
    teach("own", "bar", str(pictures / "bar"))
    after = read_taught(own)
    value = (after.classifier.predict(after.held_out.features) == after.held_out.labels).mean()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "bar: a new class of 6 pictures"
    said = next(line for line in lines if line.startswith("Validation, "))
    assert f"among all 13 classes: {100 * value:.1f} %" in said
    assert said.endswith(f"({100 * right:.1f} % before this lesson)")
    share, n = (~after.classifier.is_known(after.tested.features)).mean(), len(after.held_out.labels)
    assert (~after.classifier.is_known(after.held_out.features)).sum() == int(0.05 * (n + 1))
    assert (
        f"chosen by {n} validation pictures for 5 % of them; of 50 test pictures it is {100 * share:.1f} %" in lines[3]
    )
    assert lines[-1].startswith("  python main.py predict own --runs-dir ")
    assert lines[-1].endswith(" IMAGE...")
    card = (own.path / "card.md").read_text(encoding="utf-8")
    assert "It knows 13 classes; taught, with this many pictures: bar (6), cross (3), ring (3)." in card


def test_the_same_picture_again_teaches_nothing(teach, own, pictures, capsys):
    before = read_taught(own)
    teach("own", "ring", *files(pictures, "ring", (0, 5)))
    assert "ring: refined by 1 picture, 4 in all (1 taught before)" in capsys.readouterr().out
    teach("own", "ring", *files(pictures, "ring", (0,)))
    said = capsys.readouterr().out
    assert "ring: nothing new (1 taught before)" in said
    assert "Taught" not in said
    assert len(read_taught(own).examples.labels) == len(before.examples.labels) + 1


def test_a_picture_twice_in_a_lesson_counts_once_and_was_not_taught_before(teach, own, pictures, capsys, tmp_path):
    shutil.copy(pictures / "ring" / "5.png", tmp_path / "copy.png")
    teach("own", "ring", *files(pictures, "ring", (0, 5)), str(tmp_path / "copy.png"))
    said = capsys.readouterr().out
    assert "ring: refined by 1 picture, 4 in all (1 taught before, 1 twice in this lesson)" in said
    assert "Taught 1 picture in " in said


def test_its_seconds_are_of_the_whole_lesson(teach, own, pictures, capsys, monkeypatch):
    """What comes after the pictures are read takes a thousand of them here."""
    from prl_keras.evaluation.taught import Taught, save_taught

    clock, calibrate = [0.0], Taught.calibrate

    def wait(then: Callable, seconds: float) -> Callable:
        def call(*arguments: object) -> object:
            clock[0] += seconds
            return then(*arguments)

        return call

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Taught, "calibrate", wait(calibrate, 800))
    monkeypatch.setattr("prl_keras.evaluation.taught.save_taught", wait(save_taught, 200))
    teach("own", "bar", *files(pictures, "bar", (0, 1)))
    assert "Taught 2 pictures in 1000.00 s" in capsys.readouterr().out


def test_a_picture_of_the_encoders_training_is_told_and_counts_once(teach, own, trained, tmp_path, capsys):
    data = prl_keras.load_dataset(**Run(trained / "pre").part("data", "request"))
    label, file = str(data.train.labels[3]), str(tmp_path / "seen.png")
    Image.fromarray(data.train.images[3]).save(file)

    def counts() -> dict[str, int]:
        classifier = read_taught(own).classifier
        return dict(zip(classifier.classes_.tolist(), classifier.counts_.tolist(), strict=True))

    before = counts()
    teach("own", label, file)
    said = capsys.readouterr().out
    assert f"{label}: nothing new (1 of the encoder's training)" in said
    assert "warning: 1 of these pictures come from the training of the encoder or of its classes: figures" in said
    assert counts() == before
    teach("own", "owl", file)
    assert "owl: a new class of 1 picture\nwarning: 1 of these pictures come from" in capsys.readouterr().out
    teach("own", "--forget", label, "owl")
    teach("own", label, file)
    assert counts() == before | {label: 1}, "its training does not count any more"


def test_only_mine_has_no_other_classes(teach, pictures, capsys):
    run = teach("pre", str(pictures), "--only-mine", "--name", "mine")
    known = read_taught(run)
    assert known.classifier.classes_.tolist() == ["bar", "cross", "ring"]
    assert known.classifier.threshold_ is None
    assert 'says "none of these" of no picture: that takes 19 ' in capsys.readouterr().out
    assert main(["predict", "mine", *files(pictures, "ring", (0,)), "--runs-dir", str(run.path.parent)]) == 0
    assert "none of these" not in capsys.readouterr().out


def test_from_python_it_answers_as_predict_does(taught, trained, pictures):
    classifier = prl_keras.load_taught("taught", trained)
    images = np.stack([load_image(file, (16, 16)) for file in files(pictures, "cross", range(6))])
    kept = read_taught(taught).classifier
    features = encode(prl_keras.load_encoder(taught), images)
    assert classifier.predict(images).tolist() == kept.predict(features).tolist()
    assert classifier.is_known(images).tolist() == kept.is_known(features).tolist()
    np.testing.assert_allclose(classifier.predict_proba(images), kept.predict_proba(features), atol=1e-6)
    classifier.partial_fit(images[:1], ["plus"])
    assert "plus" not in read_taught(taught).classifier.classes_


def test_the_example_of_the_document_runs(taught, tmp_path, monkeypatch, pictures):
    text = (Path(__file__).parents[1] / "docs" / "use.md").read_text(encoding="utf-8")
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "load_taught" in code)
    shutil.copytree(taught.path, tmp_path / "saved_models" / "taught")
    monkeypatch.chdir(tmp_path)
    names = {"images": np.stack([load_image(file, (16, 16)) for file in files(pictures, "ring", range(3))])}
    exec(example, names)
    assert len(names["names"]) == len(names["known"]) == 3


def test_what_is_exported_has_all_classes_and_the_same_answers(taught, trained, pictures, tmp_path, capsys):
    import tensorflow as tf

    out = tmp_path / "exported"
    command = ["export", "taught", "--format", "savedmodel", "--out", str(out), "--runs-dir", str(trained)]
    assert main(command) == 0
    images = np.stack([load_image(file, (16, 16)) for file in files(pictures, "ring", range(6))])
    program = tf.saved_model.load(str(out)).signatures["serving_default"]
    found = program(images=tf.constant(images))["probabilities"].numpy()
    classifier = prl_keras.load_taught(taught)
    np.testing.assert_allclose(found, classifier.predict_proba(images), atol=1e-5)
    about = next(out.rglob("*.json"))
    assert json.loads(about.read_text(encoding="utf-8"))["class_names"] == classifier.classes_.tolist()


def test_after_a_lesson_its_own_export_is_renewed(teach, own, trained, pictures, tmp_path, capsys):
    command = ["export", "own", "--format", "savedmodel", "--runs-dir", str(trained)]
    elsewhere = [*command, "--out", str(tmp_path / "exported")]
    assert main(command) == main(elsewhere) == 0
    teach("own", "bar", *files(pictures, "bar", (0, 1)))
    assert main(command) == 0
    about = next((own.path / "export").rglob("about.json")).read_text(encoding="utf-8")
    assert json.loads(about)["class_names"] == read_taught(own).classifier.classes_.tolist()
    capsys.readouterr()
    assert main(elsewhere) == 2
    assert "is an export of run 'own'" in complaint(capsys)


def test_a_damaged_picture_is_named_and_the_others_are_taught(teach, own, pictures, capsys):
    bad = str(pictures.parent / "bad.png")
    teach("own", "bar", bad, *files(pictures, "bar", (0, 1)), expected=1)
    out, err = capsys.readouterr()
    assert "bad.png" in err
    assert "Taught 2 pictures in " in out
    assert read_taught(own).classifier.counts_[10] == 2


def test_a_validation_picture_that_is_taught_calibrates_nothing(teach, own, trained, tmp_path):
    data = prl_keras.load_dataset(**Run(trained / "pre").part("data", "request"))
    Image.fromarray(data.validation.images[3]).save(tmp_path / "seen.png")
    before = read_taught(own)
    teach("own", "mine", str(tmp_path / "seen.png"))
    after = read_taught(own)
    assert len(after.held_out.labels) == len(before.held_out.labels) - 1
    assert len(after.tested.labels) == len(before.tested.labels)


def refused(pictures: Path) -> dict[str, tuple[list[str], str]]:
    """What is wrong -> the words behind `teach RUN`, and what the line says."""
    ring, cross = files(pictures, "ring", (0,)), files(pictures, "cross", (5,))
    return {
        "nothing": ([], "name a class and its pictures"),
        "no pictures": (["owl"], "owl: name its pictures too"),
        "no name": ([*ring, *cross], "is a picture: name its class first"),
        "no class folders": ([str(pictures / "bar")], "has no folders, one a class"),
        "no such file": (["owl", "owl.png"], "owl.png: no such image file or folder"),
        "no name that can be printed": (["a\nb", *ring], "a class cannot be called"),
        "two folders": ([f"{pictures}/ring/", f"{pictures}/cross/"], "a class cannot be called"),
        "all damaged": (["owl", str(pictures.parent / "bad.png")], "bad.png: "),
        "taught as another": (["owl", *ring], "is to be 'owl', but the same picture is 'ring'"),
        "unknown": (["--forget", "owl"], "there is no class 'owl'"),
        "of the first lesson": (["owl", *cross, "--only-mine"], "--only-mine is for the first lesson"),
        "its data too": (["owl", *cross, "--image-size", "8"], "--image-size is for the first lesson"),
        "no share": (["owl", *cross, "--false-alarms", "1.5"], "--false-alarms is 1.5"),
    }


def test_what_makes_no_sense_is_one_line_and_changes_nothing(own, trained, pictures, capsys):
    before = {file: file.read_bytes() for file in own.path.rglob("*") if file.is_file()}
    for what, (words, line) in refused(pictures).items():
        assert main(["teach", "own", *words, "--runs-dir", str(trained)]) == 2, what
        assert line in complaint(capsys), what
    assert {file: file.read_bytes() for file in own.path.rglob("*") if file.is_file() and file.name != ".lock"} == {
        file: content for file, content in before.items() if file.name != ".lock"
    }


def test_a_name_is_no_second_folder_of_pictures(teach, own, pictures, tmp_path, monkeypatch, capsys):
    shutil.copytree(pictures, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for words in (["ring", "cross"], ["ring", "cross", "bar"], ["ring", "cross/0.png", "bar"]):
        teach("own", *words, expected=2)
        line = complaint(capsys)
        assert "are both folders of pictures: name the class first" in line
        assert "main.py teach RUN NAME FOLDER, or one folder with a folder for each class" in line
    for words in (["bar", "bar"], ["bar", "bar/0.png"], ["bar", str(pictures / "bar")], ["ring", "ring/5.png"]):
        teach("own", *words)
    assert own.result["taught"] == {"bar": 6, "cross": 3, "ring": 4}


def test_a_folder_of_splits_is_no_folder_of_classes(teach, own, pictures, tmp_path, capsys):
    for split in ("Train", "test", "val"):
        shutil.copytree(pictures / "bar", tmp_path / "data" / split / "bar")
    teach("own", str(tmp_path / "data"), expected=2)
    assert complaint(capsys).endswith(f"of a split, not of a class: name {tmp_path / 'data' / 'Train'}")
    teach("own", str(tmp_path / "data" / "Train"))
    assert own.result["taught"]["bar"] == 6


def test_a_first_lesson_that_is_refused_leaves_no_run(trained, pictures, capsys):
    runs = set(trained.iterdir())
    ring = files(pictures, "ring", (0,))
    for words, line in (
        (["owl", *ring, "--name", "tuned"], "a run named 'tuned' already exists"),
        (["owl", *ring, "--only-mine", "--forget", "3"], "--forget 3: there are no classes yet"),
        (["--forget", "owl"], "there is no class 'owl'"),
        (["owl", str(pictures.parent / "bad.png")], "bad.png"),
        (["owl", *ring, "--image-size", "8"], "takes 16x16x3 images, and 8x8x3 were asked for: leave out --image-size"),
    ):
        assert main(["teach", "pre", *words, "--runs-dir", str(trained)]) == 2
        assert line in complaint(capsys)
    assert set(trained.iterdir()) == runs


def test_an_accent_is_one_however_it_is_written(teach, own, pictures, capsys, tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    teach("own", composed, *files(pictures, "bar", (0, 1)))
    shutil.copytree(pictures / "bar", tmp_path / "lesson" / apart)
    teach("own", str(tmp_path / "lesson"))
    assert own.result["taught"][composed] == 6
    assert f"{composed}: refined by 4 pictures, 6 in all" in capsys.readouterr().out
    shutil.copytree(pictures / "ring", tmp_path / "lesson" / composed)
    teach("own", str(tmp_path / "lesson"), expected=2)
    assert "two folders have the name" in complaint(capsys)
    teach("own", "--forget", apart)
    assert composed not in own.result["taught"]


def test_a_file_that_does_not_name_the_training_pictures_is_read(teach, own, pictures):
    """It was written before they were kept; a record of another length is damage."""
    with np.load(own.prototypes_file) as parts:
        parts = dict(parts)
    np.savez(own.prototypes_file, **parts | {"trained_labels": parts["trained_labels"][1:]})
    with pytest.raises(InputError, match="is damaged"):
        read_taught(own)
    np.savez(own.prototypes_file, **{name: part for name, part in parts.items() if not name.startswith("trained_")})
    teach("own", "bar", *files(pictures, "bar", (0, 1)))
    assert own.result["taught"]["bar"] == 2


def test_two_lessons_at_once_are_refused(own, trained, pictures, capsys):
    with locked(own):
        assert main(["teach", "own", "bar", str(pictures / "bar"), "--runs-dir", str(trained)]) == 2
    assert "is being written by process" in complaint(capsys)


def test_a_lesson_that_is_cut_off_was_given_or_not(teach, own, trained, pictures, capsys, monkeypatch):
    """prototypes.npz alone is what the run knows; the next lesson brings the rest up to date."""

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("prl_keras.commands.teach.write_json", cut)
        teach("own", "bar", *files(pictures, "bar", (0, 1)), expected=130)
    capsys.readouterr()
    assert main(["predict", "own", *files(pictures, "bar", (0,)), "--runs-dir", str(trained)]) == 0
    assert "bar 9" in capsys.readouterr().out.replace("bar 100", "bar 9")
    teach("own", "bar", *files(pictures, "bar", (2,)))
    assert own.result["taught"] == {"bar": 3, "cross": 3, "ring": 3}


@pytest.mark.parametrize("damage", ["cut", "empty", "other size", "no file of ours", "a bit"])
def test_a_damaged_file_is_one_line(own, trained, pictures, capsys, damage):
    file = own.prototypes_file
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "a bit":
        where = len(content) // 2
        file.write_bytes(content[:where] + bytes([content[where] ^ 8]) + content[where + 1 :])
    else:
        with np.load(file) as parts:
            parts = dict(parts)
        parts["sums"] = parts["sums"][:, 1:]
        np.savez(file, **({"x": np.zeros(3)} if damage == "no file of ours" else parts))
    for command in (["predict", "own"], ["teach", "own", "bar"], ["export", "own", "--format", "savedmodel"]):
        pictures_too = [] if command[0] == "export" else files(pictures, "bar", (0,))
        assert main([*command, *pictures_too, "--runs-dir", str(trained)]) == 2
        assert "prototypes.npz is damaged" in complaint(capsys)


def test_other_commands_take_a_taught_run_for_its_encoder(taught, trained, tmp_path, pictures, capsys):
    folder = ["--runs-dir", str(trained)]
    assert main(["embed", "taught", str(pictures), "--out", str(tmp_path / "v.npy"), *folder]) == 0
    assert len(np.load(tmp_path / "v.npy")) == 18
    assert main(["runs", *folder]) == 0
    assert "teach" in capsys.readouterr().out
    assert main(["visualize", "taught", "--before", *folder]) == 2
    assert "leaves its encoder as it was: leave out --before" in complaint(capsys)
