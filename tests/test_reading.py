"""How the pictures of a folder are read: splits that are drawn, damaged files, sizes, formats, on all cores."""

import errno
import json
import os
import random
import shutil
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from archives import peak_bytes, write_image_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prl_keras.cli import main, parse
from prl_keras.config import DataOptions, Pretrain, RunDataOptions
from prl_keras.data import folder, formats, load_dataset, load_image
from prl_keras.data.groups import connected
from prl_keras.data.images import PADDING, decode, resize_images
from prl_keras.data.request import data_request, data_request_of_run, data_words, open_data, reading_of
from prl_keras.errors import InputError
from prl_keras.runs import Run, create_run
from prl_keras.runs.lifecycle import run_config
from prl_keras.screen import console as screen
from prl_keras.screen import progress


def fails(call, *parts: str) -> str:
    with pytest.raises(InputError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def classes_alone(root: Path, per_class: int = 10, names: tuple[str, ...] = ("cat", "dog"), size: int = 8) -> Path:
    write_image_folder(root, names, train=per_class, test=0, size=size)
    for name in names:
        (root / "train" / name).rename(root / name)
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "test")
    return root


def digests(dataset, split: str) -> set[bytes]:
    return {digest.tobytes() for digest in getattr(dataset, split).digests}


# --- what cannot be looked at ---------------------------------------------------------------------------


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch, capsys):
    root, scandir = classes_alone(tmp_path / "pets"), os.scandir
    (root / "cat" / "2019").mkdir()

    def closed(path):
        if str(path).endswith("2019"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert main(["data", "verify", str(root)]) == 2
    assert f"{root / 'cat' / '2019'}: Permission denied; give yourself access to it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), InputError),
        (OSError(errno.EIO, "Input/output error"), OSError),
        (MemoryError(), MemoryError),
        (OSError("image file is truncated"), InputError),
    ],
)
def test_only_what_is_the_pictures_fault_is_skipped(tmp_path, monkeypatch, error, raised):
    root = classes_alone(tmp_path / "pets")
    bad = root / "cat" / "3.png"

    class Failing:
        def open(self, *args, path_open=Path.open, **options):
            if self == bad:
                raise error
            return path_open(self, *args, **options)

    monkeypatch.setattr(Path, "open", Failing.open)
    how = {"damaged": "skip", "cache_dir": tmp_path / "cache"}
    if raised is InputError:
        assert load_dataset(str(root), **how).skipped == ("cat/3.png",)
        return
    with pytest.raises(raised):
        load_dataset(str(root), **how)
    monkeypatch.undo()
    assert load_dataset(str(root), **how).skipped == ()


def test_a_time_after_2262_is_a_time(tmp_path):
    root = classes_alone(tmp_path / "pets")
    before = load_dataset(str(root)).fingerprint
    os.utime(root / "cat" / "1.png", ns=(2**63, 2**63))
    assert load_dataset(str(root)).fingerprint == before


@pytest.mark.parametrize(
    "words", [["--dataset", "~nobody"], ["--cache-dir", "~nobody/x"], ["--labels", "~nobody/l.csv"]]
)
def test_a_user_who_is_unknown_has_no_home(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    root = classes_alone(tmp_path / "pets")
    own = [] if words[0] == "--dataset" else ["--dataset", str(root)]
    assert main(["data", "verify", *own, *words]) == (0 if words[0] == "--cache-dir" else 2)
    assert "Traceback" not in capsys.readouterr().err
    (tmp_path / "~nobody").mkdir(exist_ok=True)
    classes_alone(tmp_path / "~nobody" / "pets")
    assert load_dataset("~nobody/pets").name == str(tmp_path / "~nobody" / "pets")


# --- a test set that is drawn ---------------------------------------------------------------------------


def test_without_a_test_folder_a_fifth_of_each_class_is_drawn_and_said(tmp_path):
    dataset = load_dataset(str(classes_alone(tmp_path / "pets", 10)))
    assert [np.bincount(getattr(dataset, s).labels).tolist() for s in ("train", "validation", "test")] == [
        [7, 7],
        [1, 1],
        [2, 2],
    ]
    assert dataset.notes == (
        "Test: 4 of 20 images, 20% of each class, drawn by what is in the files and not by --seed: "
        "always the same ones",
    )
    assert not digests(dataset, "test") & (digests(dataset, "train") | digests(dataset, "validation"))


def test_the_drawn_test_set_is_one_for_all_seeds_sizes_names_and_places(tmp_path):
    root = classes_alone(tmp_path / "pets", 12, size=16)
    before = load_dataset(str(root))
    assert digests(load_dataset(str(root), seed=5), "test") == digests(before, "test")
    small = load_dataset(str(root), image_size=8, resize="stretch").test.files
    assert sorted(small) == sorted(before.test.files)
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        path.rename(path.with_name(f"{random.Random(number).random()}.png"))
    (root / "cat" / "deep").mkdir()
    for path in sorted((root / "cat").glob("*.png"))[:4]:
        path.rename(root / "cat" / "deep" / path.name)
    root.rename(tmp_path / "moved")
    after = load_dataset(str(tmp_path / "moved"))
    assert after.fingerprint == before.fingerprint
    np.testing.assert_array_equal(after.train.images, before.train.images)


def test_equal_files_are_on_one_side_of_the_draw(tmp_path):
    root = classes_alone(tmp_path / "pets", 13)  # a fifth of 26 is odd
    for path in sorted(root.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    dataset = load_dataset(str(root))
    assert len(dataset.test) == 8
    assert not digests(dataset, "test") & (digests(dataset, "train") | digests(dataset, "validation"))


def test_equal_files_and_groups_are_on_one_side_together(tmp_path):
    """A copy in another group binds both groups; a picture without a group is bound by its copies alone."""
    root = classes_alone(tmp_path / "pets", 13)
    lines = ["path,label,group"]
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        copy = shutil.copy(path, path.with_name(f"copy of {path.name}"))
        names = (Path(each).relative_to(root).as_posix() for each in (path, copy))
        groups = (f"a{number // 2}", f"b{number // 2}" if number % 3 else "")
        lines += [f"{name},{path.parent.name},{group}" for name, group in zip(names, groups, strict=True)]
    (root / "l.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    dataset = load_dataset(str(root), labels=root / "l.csv", validation_fraction=0.2)
    train, validation, test = (digests(dataset, part) for part in ("train", "validation", "test"))
    assert len(dataset.test) >= 6
    assert not test & (train | validation)
    assert not validation & train
    assert not {g for g in dataset.test.groups if g[0] != "\0"} & {*dataset.train.groups, *dataset.validation.groups}


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_connected_as_a_slow_search_says(seed):
    keys = np.random.RandomState(seed).randint(0, 30, (2, 25)).tolist()
    reached = np.eye(25, dtype=bool) | np.any([np.equal.outer(each, each) for each in keys], axis=0)
    for _ in range(25):
        reached = (reached.astype(int) @ reached) > 0
    found = np.array(connected(*keys))
    np.testing.assert_array_equal(found[:, None] == found, reached)
    assert 2 < len(set(found)) < 25


def test_a_picture_more_moves_few_others(tmp_path):
    root = classes_alone(tmp_path / "pets", 40)
    before = digests(load_dataset(str(root)), "test")
    Image.new("RGB", (8, 8), "red").save(root / "cat" / "new.png")
    assert len(before & digests(load_dataset(str(root)), "test")) >= len(before) - 1


def test_a_class_that_cannot_be_parted_in_three_is_named(tmp_path):
    root = classes_alone(tmp_path / "pets", 3)
    assert len(load_dataset(str(root)).test) == 2
    (root / "dog" / "0.png").unlink()
    fails(lambda: load_dataset(str(root)), "class 'dog' has 2 images", "keep 2")


def test_a_class_without_a_training_picture_that_can_be_read_is_named(tmp_path):
    root = write_image_folder(tmp_path / "pets", train=4, test=3, size=8)
    shutil.copytree(root / "test", root / "val")  # so that nothing is drawn from train
    for file in (root / "train" / "dog").iterdir():
        file.write_bytes(b"no picture")
    fails(lambda: load_dataset(str(root), damaged="skip"), "class 'dog' has no training images")


def with_validation(root: Path, name: str = "val") -> Path:
    write_image_folder(root, train=4, test=3, size=8)
    (root / "test").rename(root / name)
    return root


def test_a_folder_for_validation_is_the_validation_set(tmp_path):
    root = with_validation(tmp_path / "pets")
    write_image_folder(tmp_path / "other", train=2, test=2, size=8)
    shutil.move(tmp_path / "other" / "test", root / "test")
    dataset = load_dataset(str(root), seed=3)
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [8, 6, 4]
    assert all(name.startswith("val/") for name in dataset.validation.files)
    fails(lambda: load_dataset(str(root), validation_fraction=0.2), "validation_fraction is 0.2", "of its own")
    (root / "val" / "dog" / "0.png").unlink()
    assert load_dataset(str(root)).fingerprint != dataset.fingerprint
    shutil.rmtree(root / "val" / "cat")
    assert load_dataset(str(root)).notes == (
        "No validation images of 1 of 2 classes: 'cat'; validation figures do not speak of them",
    )


def test_validation_is_not_test_if_there_is_no_test_folder(tmp_path):
    dataset = load_dataset(str(with_validation(tmp_path / "pets")))
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [6, 6, 2]
    assert all(name.startswith("train/") for name in [*dataset.test.files, *dataset.train.files])
    assert dataset.notes[0].startswith("Test: 2 of 8 images")


@settings(max_examples=8)
@given(st.integers(2, 4), st.integers(3, 7), st.booleans(), st.booleans(), st.randoms())
def test_names_and_places_of_files_never_matter(tmp_path_factory, classes, per_class, test, validation, shuffler):
    root = tmp_path_factory.mktemp("any") / "a"
    names = [f"class {k}" for k in range(classes)]
    rng = np.random.default_rng(shuffler.randrange(1000))
    splits = ["train"] + ["val"] * validation + ["eval"] * test
    for split in splits:
        for name in names:
            (root / split / name).mkdir(parents=True)
            for i in range(per_class):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / split / name / f"{i}.png")
    before = load_dataset(str(root))
    for path in [*root.rglob("*.png")]:
        place = path.parent / "abc"[shuffler.randrange(3)]
        place.mkdir(exist_ok=True)
        path.rename(place / f"{shuffler.random()}{path.name}")
        (place / ".DS_Store").touch()
    other = {"train": "Training", "val": "dev", "eval": "test"}
    for split in splits:
        (root / split).rename(root / other[split])
    after = load_dataset(str(root.rename(root.with_name("b"))))
    assert after.fingerprint == before.fingerprint
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(before, split).images, getattr(after, split).images)


# --- damaged files --------------------------------------------------------------------------------------


def damage(root: Path, count: int) -> list[str]:
    paths = sorted(root.rglob("*.png"))[:count]
    for number, path in enumerate(paths):
        path.write_bytes(path.read_bytes()[: (0, 40, 90)[number % 3]])  # nothing, half a header, half a picture
    return [path.relative_to(root).as_posix() for path in paths]


def test_all_damaged_files_are_told_at_once(tmp_path, capsys):
    root = write_image_folder(tmp_path / "pets", train=10, size=16)
    names = damage(root, 13)
    line = fails(lambda: load_dataset(str(root)), "13 of 24 pictures cannot be read", "--damaged skip")
    assert sum(name in line for name in names) == 10
    assert ", ...; the first: " in line
    command = line.rsplit("named by: python main.py ", 1)[1].split()
    capsys.readouterr()
    assert main(command) == 1
    shown = capsys.readouterr()
    assert all(f"  {root}/{name}: " in shown.out for name in names)
    assert not shown.err


def test_damaged_files_are_skipped_recorded_and_missed_when_they_come_back(tmp_path, capsys):
    root = write_image_folder(tmp_path / "pets", train=6, size=16)
    whole = load_dataset(str(root), samples_per_class=2)
    saved = {path: path.read_bytes() for path in root.rglob("*.png")}
    damage(root / "train", 2)
    dataset = load_dataset(str(root), damaged="skip", samples_per_class=2)
    assert dataset.skipped == ("train/cat/0.png", "train/cat/1.png")
    assert dataset.notes == ("Left out: 2 of 16 pictures, which cannot be read: train/cat/0.png, train/cat/1.png",)
    options = Pretrain(dataset=str(root), damaged="skip", samples_per_class=2)
    request = data_request(options, 0)
    config = run_config("pretrain", options, (), request, dataset)
    assert config["data"]["skipped"] == ["train/cat/0.png", "train/cat/1.png"]
    run = create_run(tmp_path, "run", {**config, "options": {}})
    assert load_dataset(**json.loads((run.path / "config.json").read_text())["data"]["request"]).skipped
    again = open_data(data_request_of_run(run, RunDataOptions()), run)
    assert again.fingerprint == dataset.fingerprint
    for path, content in saved.items():
        path.write_bytes(content)
    fails(lambda: open_data(data_request_of_run(run, RunDataOptions()), run), "are not those that run 'run' was")
    assert whole.fingerprint == load_dataset(str(root), samples_per_class=2, damaged="skip").fingerprint


def test_the_names_of_skipped_files_are_a_part_of_the_fingerprint(tmp_path):
    root = write_image_folder(tmp_path / "pets", size=16)
    whole = load_dataset(str(root)).fingerprint
    (root / "train" / "cat" / "more.png").write_bytes(b"x")
    skipped = load_dataset(str(root), damaged="skip")
    assert skipped.fingerprint != whole
    assert load_dataset(str(root), damaged="skip").fingerprint == skipped.fingerprint


def test_nothing_that_can_be_read_is_no_data(tmp_path):
    root = write_image_folder(tmp_path / "pets", size=16)
    damage(root, 12)
    fails(lambda: load_dataset(str(root), damaged="skip"), "12 of 12 pictures cannot be read")


def test_what_a_test_set_is_drawn_from_can_be_read(tmp_path):
    root = classes_alone(tmp_path / "pets", 10, size=16)
    damage(root, 5)
    assert np.bincount(load_dataset(str(root), damaged="skip").test.labels).tolist() == [1, 2]
    damage(root, 9)
    fails(lambda: load_dataset(str(root), damaged="skip"), "class 'cat' has 1 images")


# --- sizes ----------------------------------------------------------------------------------------------


def tall(path: Path) -> Path:
    """20 wide, 40 high: green with a red quarter above and a blue one below."""
    pixels = np.zeros((40, 20, 3), np.uint8)
    pixels[:10, :, 0], pixels[10:30, :, 1], pixels[30:, :, 2] = 255, 255, 255
    Image.fromarray(pixels).save(path)
    return path


def test_crop_pad_and_stretch(tmp_path):
    path = tall(tmp_path / "a.png")
    crop, pad, stretch = (load_image(path, 20, resize=way) for way in ("crop", "pad", "stretch"))
    assert (crop[1:-1, :, 1] == 255).all()  # only the middle
    assert (pad[:, [0, 4, 15, 19]] == PADDING).all()  # grey bars beside
    assert (pad[1, 5:15, 0] > 200).all()
    assert (pad[-2, 5:15, 2] > 200).all()
    assert (stretch[1, :, 0] > 200).all()
    assert (stretch[-2, :, 2] > 200).all()
    assert (resize_images(load_image(path)[None], 20, "pad")[0] == pad).all()
    wide = load_image(path, (10, 60), resize="pad")
    assert wide.shape == (10, 60, 3)
    assert (wide[:, [0, 26, 33, 59]] == PADDING).all()
    thin = np.zeros((1, 1000, 3), np.uint8)
    Image.fromarray(thin).save(tmp_path / "thin.png")
    for way in ("crop", "pad", "stretch"):
        assert load_image(tmp_path / "thin.png", 8, resize=way).shape == (8, 8, 3)


def test_images_may_have_any_shape(tmp_path):
    root = write_image_folder(tmp_path / "pets", size=20)
    dataset = load_dataset(str(root), image_size=(12, 30))
    assert dataset.image_shape == (12, 30, 3)
    assert load_dataset(str(root), image_size=[8, 10]).image_shape == (8, 10, 3)
    fails(lambda: load_dataset(str(root), image_size=(12, 4)), "image_size is 4: choose 8 to 1024")
    prints = {
        load_dataset(str(root), image_size=(12, 30), resize=way).fingerprint for way in ("crop", "pad", "stretch")
    }
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("typed", "size"), [("32", 32), ("32x48", (32, 48)), ("32X48", (32, 48)), ("32x32", 32), ("None", None)]
)
def test_a_size_as_it_is_typed(typed, size):
    options = parse(["pretrain", "--dataset", "digits", "--image-size", typed])
    assert options.image_size == size
    assert data_request(options, 0)["image_size"] == (list(size) if isinstance(size, tuple) else size)
    if size:
        assert data_words(RunDataOptions(image_size=size)) == f" --image-size {typed.lower() if size != 32 else 32}"


@pytest.mark.parametrize("typed", ["big", "32x", "x32", "1x2x3", "3.5", ""])
def test_a_size_that_is_none(typed):
    fails(lambda: parse(["data", "verify", "--image-size", typed]), "--image-size")


@pytest.mark.parametrize(
    ("option", "value"), [("resize", "pad"), ("labels", "x.csv"), ("damaged", "skip"), ("max_megapixels", 100)]
)
def test_what_does_nothing_with_a_data_set_is_refused(option, value):
    fails(lambda: load_dataset("digits", **{option: value}), f"{option} {value} does nothing with digits")


def test_unknown_ways_are_refused(tmp_path):
    root = str(write_image_folder(tmp_path / "pets", size=8))
    fails(lambda: load_dataset(root, resize="zoom"), "resize is 'zoom': choose crop or pad or stretch")
    fails(lambda: load_dataset(root, damaged="mend"), "damaged is 'mend'")
    fails(lambda: load_dataset(root, max_megapixels=0), "max_megapixels is 0")


# --- requests: what a run's record says of all this -----------------------------------------------------


def recorded(tmp_path: Path, request: dict, dataset) -> Run:
    config = run_config("baseline", DataOptions(), (), request, dataset)
    return create_run(tmp_path / "runs", "run", {**config, "options": {}})


OLD_PRINT = (
    "8c3c5fefbe2fedfc428f35d16500eda410d61379717c4e42d09fa27fb8ff267e"  # of the version that knew train/ and test/ only
)


def test_a_request_of_today_without_new_options_is_that_of_an_older_version(tmp_path):
    root = tmp_path / "pets"
    for i in range(12):
        file = root / ("train", "train", "test")[i % 3] / ("cat", "dog")[i // 6] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.arange(192).reshape(8, 8, 3) * (i + 1) % 251).astype(np.uint8)).save(file)
    old = {
        "name": str(root),
        "data_dir": None,
        "seed": 0,
        "validation_fraction": 0.1,
        "samples_per_class": None,
        "test_per_class": None,
        "image_size": 8,
        "fold": None,
    }
    assert data_request(DataOptions(dataset=str(root), image_size=8), 0) == old
    dataset = load_dataset(**old)
    assert dataset.fingerprint == OLD_PRINT
    run = recorded(tmp_path, old, dataset)
    assert open_data(data_request_of_run(run, RunDataOptions()), run).fingerprint == dataset.fingerprint
    assert reading_of(run) == {"size": (8, 8), "bits": None, "resize": "crop", "max_megapixels": None}


def test_a_run_keeps_how_its_images_were_read(tmp_path):
    root = write_image_folder(tmp_path / "pets", size=20)
    options = DataOptions(dataset=str(root), image_size=(8, 12), resize="pad", max_megapixels=90)
    run = recorded(tmp_path, data_request(options, 0), load_dataset(**data_request(options, 0)))
    again = Run(run.path)
    assert reading_of(again) == {"size": (8, 12), "bits": None, "resize": "pad", "max_megapixels": 90}
    assert open_data(data_request_of_run(again, RunDataOptions()), again).image_shape == (8, 12, 3)
    other = data_request_of_run(again, RunDataOptions(dataset="digits"))
    assert {key: value for key, value in other.items() if value is not None} == {
        "name": "digits",
        "seed": 0,
        "validation_fraction": 0.1,
        "image_size": [8, 12],  # the encoder's
        "resize": "pad",  # and its way to them
    }
    changed = data_request_of_run(again, RunDataOptions(resize="crop", image_size=(9, 9)))
    assert (changed["image_size"], "resize" in changed) == ([9, 9], False)


def test_the_share_of_validation_is_that_of_the_runs_own_data(tmp_path):
    root = write_image_folder(tmp_path / "pets", train=10, size=8)
    request = data_request(DataOptions(dataset=str(root), validation_fraction=0.3), 0)
    run = recorded(tmp_path, request, load_dataset(**request))
    other = with_validation(tmp_path / "other")  # nothing else could be asked of it
    write_image_folder(tmp_path / "test", train=2, test=2, size=8)
    shutil.move(tmp_path / "test" / "test", other / "test")
    assert len(open_data(data_request_of_run(run, RunDataOptions(dataset=str(other))), run).validation) == 6
    root.rename(tmp_path / "moved")
    moved = data_request_of_run(run, RunDataOptions(dataset=str(tmp_path / "moved")))
    assert moved["validation_fraction"] == 0.3


def test_a_moved_folder_takes_its_table_along(tmp_path):
    root = write_image_folder(tmp_path / "pets", size=8)
    names = [path.relative_to(root).as_posix() for path in sorted((root / "train").rglob("*.png"))]
    (root / "l.csv").write_text("path,label\n" + "".join(f"{name},{name[6:9]}\n" for name in names), encoding="utf-8")
    options = DataOptions(labels=root / "l.csv")
    request = data_request(options, 0)
    assert (request["name"], request["labels"]) == (str(root), str(root / "l.csv"))
    run = recorded(tmp_path, request, load_dataset(**request))
    root.rename(tmp_path / "moved")
    moved = data_request_of_run(run, RunDataOptions(dataset=str(tmp_path / "moved")))
    assert load_dataset(**moved).fingerprint == run.part("data")["fingerprint"]
    other = write_image_folder(tmp_path / "other", size=8)
    assert "labels" not in data_request_of_run(run, RunDataOptions(dataset=str(other)))


@pytest.mark.parametrize("key", ["resize", "damaged", "labels", "max_megapixels", "image_size"])
def test_a_damaged_request_is_one_line(tmp_path, key):
    root = write_image_folder(tmp_path / "pets", size=8)
    run = recorded(tmp_path, data_request(DataOptions(dataset=str(root)), 0), load_dataset(str(root)))
    file = run.path / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    for value in ([], {}, True, 1.5, "zoom", [1, 2, 3]):
        if (key, value) != ("labels", "zoom"):
            config["data"]["request"][key] = value
            file.write_text(json.dumps(config), encoding="utf-8")
            fails(lambda: Run(run.path).config, f"data.request.{key}")


# --- formats and speed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.JPG", "a.mpo", "a.avif"])
def test_further_names_of_pictures_are_read(tmp_path, name):
    if name.endswith("avif") and "AVIF" not in formats.readable():
        pytest.skip("this Pillow reads no AVIF")
    root = write_image_folder(tmp_path / "pets", size=16)
    other = Image.new("RGB", (16, 16), "red")
    more = {"save_all": True, "append_images": [other]} if name.endswith("mpo") else {}
    kind = {"mpo": "MPO", "avif": "AVIF"}.get(name[-4:].strip("."), "JPEG")
    Image.new("RGB", (16, 16), "lime").save(root / "train" / "cat" / name, kind, **more)
    dataset = load_dataset(str(root))
    assert len(dataset.train) + len(dataset.validation) == 9
    assert np.abs(load_image(root / "train" / "cat" / name)[8, 8].astype(int) - [0, 255, 0]).max() < 4


@pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="pillow-heif reads them here")
@pytest.mark.parametrize("name", ["IMG_1.HEIC", "IMG_1.jpg"])
def test_a_telephones_pictures_need_a_package_that_is_named(tmp_path, name):
    root = write_image_folder(tmp_path / "pets", size=8)
    (root / "train" / "cat" / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    fails(lambda: load_dataset(str(root)), name, "pip install pillow-heif", "convert it to JPEG or PNG")
    assert load_dataset(str(root), damaged="skip").skipped == (f"train/cat/{name}",)


@pytest.mark.skipif(find_spec("pillow_heif") is None, reason="needs pillow-heif")
def test_a_telephones_pictures_are_read_with_pillow_heif(tmp_path):
    formats.readable()
    root = write_image_folder(tmp_path / "pets", size=16)
    Image.new("RGB", (16, 16), "lime").save(root / "train" / "cat" / "a.heic", quality=90)
    assert not load_dataset(str(root)).skipped
    assert load_image(root / "train" / "cat" / "a.heic")[8, 8, 1] > 240


def scene(size: tuple[int, int]) -> Image.Image:
    """Soft colours with some detail, (width, height)."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_large_jpegs_are_read_small_and_nearly_alike(tmp_path, kind, orientation, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    more = {"save_all": True, "append_images": [scene((8, 8))]} if kind == "MPO" else {}
    scene((1600, 1200)).save(tmp_path / "a.jpg", kind, exif=exif, quality=90, **more)
    whole = Image.fromarray(load_image(tmp_path / "a.jpg"))
    for way, size in (("crop", 96), ("pad", 96), ("stretch", (50, 96)), ("crop", (300, 20))):
        height, width = (size, size) if isinstance(size, int) else size
        exact = resize_images(np.asarray(whole)[None], (height, width), way)[0].astype(int)
        assert np.abs(load_image(tmp_path / "a.jpg", size, resize=way) - exact).mean() < 1.5
        assert peak_bytes(lambda way=way, size=size: load_image(tmp_path / "a.jpg", size, resize=way)) < 2**21


def test_jpegs_of_less_than_four_times_the_size_are_read_as_they_always_were(tmp_path):
    scene((383, 383)).save(tmp_path / "a.jpg")
    exact = resize_images(load_image(tmp_path / "a.jpg")[None], 96)[0]
    np.testing.assert_array_equal(load_image(tmp_path / "a.jpg", 96), exact)


def test_of_a_sideways_jpeg_height_and_width_are_those_that_are_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    scene((1600, 1200)).save(tmp_path / "a.jpg", exif=exif)  # 1,200 wide as it is seen: less than four times 400
    exact = resize_images(load_image(tmp_path / "a.jpg")[None], (100, 400))[0]
    np.testing.assert_array_equal(load_image(tmp_path / "a.jpg", (100, 400)), exact)


def test_a_png_is_decoded_once(tmp_path, monkeypatch):
    root = write_image_folder(tmp_path / "pets", size=8)
    for path in root.rglob("*.png"):
        Image.new("RGB", (8, 12), "red").save(path)
    from PIL import PngImagePlugin

    decoded, load = [], PngImagePlugin.PngImageFile.load_end
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load_end", lambda image: decoded.append(image) or load(image))
    assert load_dataset(str(root)).image_shape == (12, 8, 3)
    assert len(decoded) == 12


def test_files_are_read_by_several_threads_and_keep_their_order(tmp_path, monkeypatch):
    import threading

    root = write_image_folder(tmp_path / "pets", train=10, size=8)
    before, threads = folder.read_folder(root).train, set()
    monkeypatch.setattr("prl_keras.data.parallel.cores", lambda: 4)

    def slow(*args, **kwargs):
        threads.add(threading.current_thread())
        time.sleep(random.random() / 200)
        return decode(*args, **kwargs)

    monkeypatch.setattr(folder, "decode", slow)
    monkeypatch.setattr("prl_keras.data.parallel._AHEAD", 2)
    after = folder.read_folder(root).train
    np.testing.assert_array_equal(before.images, after.images)
    assert before.files.tolist() == after.files.tolist()
    assert 1 < len(threads) <= 4 * 4


def test_an_interruption_waits_for_no_further_files(tmp_path, monkeypatch):
    root, read = write_image_folder(tmp_path / "pets", train=40, size=8), []

    def stop(*args, **kwargs):
        read.append(1)
        time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "decode", stop)
    with pytest.raises(KeyboardInterrupt):
        folder.read_folder(root)
    assert len(read) < 40


def test_long_work_is_shown_on_a_terminal_only(monkeypatch, capsys):
    usual = screen.Terminal
    for terminal, patience in ((False, 0.0), (True, 60.0), (True, 0.0)):
        monkeypatch.setattr(screen, "Terminal", partial(usual, force_terminal=terminal, width=80))
        monkeypatch.setattr(screen, "is_watched", lambda console: console.is_terminal)
        monkeypatch.setattr(progress, "_PATIENCE", patience)
        assert list(progress.with_progress(iter("abc"), 3, "Reading pictures")) == ["a", "b", "c"]
        shown = capsys.readouterr()
        assert ("Reading pictures" in shown.err) == (terminal and not patience)
        assert not shown.out


def test_pillows_settings_are_put_back(tmp_path):
    limit = Image.MAX_IMAGE_PIXELS
    fails(lambda: load_image(tmp_path / "none.png"), "no such image file")
    assert Image.MAX_IMAGE_PIXELS == limit  # noqa: SIM300


def test_max_megapixels_of_a_folder(tmp_path, capsys):
    root = write_image_folder(tmp_path / "pets", size=8)
    big = root / "train" / "cat" / "big.png"
    Image.new("1", (1200, 1000)).save(big)
    verify = ["data", "verify", "--dataset", str(root), "--image-size", "8", "--max-megapixels"]
    assert main([*verify, "1"]) == 1
    assert (
        "train/cat/big.png: 1.2 megapixels, over the limit of 1: make it smaller, or raise" in capsys.readouterr().out
    )
    assert main([*verify, "2"]) == 0
    assert "--max-megapixels 2" in capsys.readouterr().out.splitlines()[-1]
