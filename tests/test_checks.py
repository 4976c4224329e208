"""What `data verify` finds in real files, and what it does not."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from archives import write_image_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from prl_keras.cli import main, parse
from prl_keras.commands.data import _command
from prl_keras.config import Data
from prl_keras.data import Dataset, checks, near, verify
from prl_keras.data.duplicates import duplicates
from prl_keras.data.images import header, pillow_ready
from prl_keras.data.splits import Split

WHOLE_NETWORK = True  # no test here has one: it keeps TensorFlow away
SIZE = 96


def photograph(seed: int, size: int = SIZE) -> Image.Image:
    """Light, shapes and grain as in a photograph: most of it in large features, some in small ones."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((size, size, 3))
    for cells, weight in ((3, 110), (6, 80), (12, 30), (48, 6)):
        layer = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += weight / 128 * (np.asarray(layer.resize((size, size), Image.Resampling.BICUBIC), float) - 128)
    return Image.fromarray(np.clip(pixels + 120, 0, 255).astype(np.uint8))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """6 + 3 photographs of either class, without a fault: 12 to train on, so that imbalance and few images are none."""
    for number, name in enumerate(("cat", "dog")):
        for split, count in (("train", 6), ("test", 3)):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                photograph(1000 * number + 100 * (split == "test") + i).save(folder / f"{i}.png")
    return tmp_path / "pets"


def found(root: Path, *words: str, code: int = 0) -> dict[str, dict]:
    """Kind -> finding, as `--json` has them."""
    file = root.parent / "found.json"
    assert main(["data", "verify", str(root), "--json", str(file), *words]) == code
    return {finding["kind"]: finding for finding in json.loads(file.read_bytes())["findings"]}


def images(finding: dict) -> list[str]:
    return [example["image"] for example in finding["examples"]]


def test_nothing_is_found_in_a_sound_set(pets: Path, capsys: pytest.CaptureFixture) -> None:
    assert found(pets) == {}
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("nothing found: "))
    for what in ("unreadable files", "duplicates", "near-duplicates", "crop", "animations", "imbalance"):
        assert what in line
    assert lines[-1] == f"Next: python main.py pretrain --variant query --dataset {pets}"


# --- near-duplicates --------------------------------------------------------------------------------------


def test_the_same_picture_saved_otherwise_is_found_and_others_are_not(pets: Path) -> None:
    cat = pets / "train" / "cat"
    photo = Image.open(cat / "0.png")
    photo.save(pets / "test" / "cat" / "jpeg.jpg", quality=60)
    photo.resize((144, 144), Image.Resampling.BICUBIC).save(pets / "test" / "cat" / "larger.png")
    ImageEnhance.Brightness(photo).enhance(1.05).save(pets / "test" / "dog" / "brighter.png")
    brighter = ImageEnhance.Brightness(photo.resize((144, 144), Image.Resampling.BICUBIC)).enhance(1.05)
    brighter.save(pets / "test" / "dog" / "all.jpg", quality=60)
    kinds = found(pets, "--image-size", "96")
    assert list(kinds) == ["near-duplicates"]
    pairs = {example["image"]: example["twin"] for example in kinds["near-duplicates"]["examples"]}
    again = ["test/cat/jpeg.jpg", "test/cat/larger.png", "test/dog/all.jpg", "test/dog/brighter.png"]
    assert pairs == dict.fromkeys(again, "train/cat/0.png")


def test_equal_images_are_duplicates_and_not_near_ones(pets: Path) -> None:
    Image.open(pets / "train" / "cat" / "0.png").save(pets / "test" / "cat" / "same.bmp")
    assert list(found(pets, code=1)) == ["test-in-train"]


def test_what_is_turned_mirrored_darker_or_flat_is_no_near_duplicate() -> None:
    photo = np.asarray(photograph(1))
    darker = np.rint(0.7 * photo).astype(np.uint8)
    others = np.stack([photo[::-1], photo[:, ::-1], photo.transpose(1, 0, 2), np.roll(photo, 12, axis=0), darker])
    assert near.twins(near.thumbnails(others), near.thumbnails(photo[None])) == []
    flat = np.full((3, SIZE, SIZE, 3), 128, np.uint8)
    flat[1, :40] += 1
    assert near.twins(near.thumbnails(flat), near.thumbnails(flat)) == []


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_twins_are_those_of_all_pairs(seed: int, count: int, among: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 256, (5, 256))
    first, second = (
        np.clip(kinds[rng.integers(0, 5, n)] + rng.normal(0, 3, (n, 256)), 0, 255).astype(np.uint8)
        for n in (count, among)
    )
    alike = [[near._alike(row[None], other[None])[0] for other in second] for row in first]
    expected = [(row, max(each)) for row, each in enumerate(alike) if max(each) >= near.ALIKE]
    pairs = near.twins(first, second)
    assert [row for row, _ in pairs] == [row for row, _ in expected]
    assert all(alike[row][twin] >= near.ALIKE for row, twin in pairs)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (33, 50), (96, 20)])
def test_a_thumbnail_is_the_mean_of_areas(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    grey = image.mean(axis=3)
    exact = np.repeat(np.repeat(grey, near.SIDE, axis=1), near.SIDE, axis=2)  # each pixel as 16x16, then whole blocks
    exact = exact.reshape(2, near.SIDE, shape[0], near.SIDE, shape[1]).mean(axis=(2, 4))
    assert np.abs(near.thumbnails(image).reshape(exact.shape) - exact).max() <= 0.51


# --- what spoils a result ---------------------------------------------------------------------------------


def test_a_size_that_is_none_is_said_in_words(capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "verify", "digits", "--image-size", "64x"]) == 2
    assert "'64x' is no size: write one side, N, or height and width, HxW" in capsys.readouterr().err


def test_pictures_without_classes_are_none_of_one_class(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for row in range(3):
        Image.fromarray(np.full((16, 16, 3), row, np.uint8)).save(tmp_path / f"{row}.png")
    main(["data", "verify", str(tmp_path), "--labels", "none"])
    assert "images 16 x 16 x 3, no classes" in capsys.readouterr().out


def test_unreadable_files_are_all_named_and_the_rest_is_checked(pets: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("train/cat/x.png", "test/dog/y.jpg", "train/dog/z.gif"):
        (pets / name).write_bytes(b"no picture")
    Image.new("RGB", (SIZE, SIZE), "red").save(pets / "train" / "cat" / "red.png")
    kinds = found(pets, code=1)
    assert list(kinds) == ["unreadable", "constant"]
    assert sorted(images(kinds["unreadable"])) == ["test/dog/y.jpg", "train/cat/x.png", "train/dog/z.gif"]
    assert "not a readable image" in kinds["unreadable"]["examples"][0]["reason"]
    out = capsys.readouterr().out
    assert "SPOILS RESULTS: 3 pictures cannot be read\n" in out
    last = out.splitlines()[-1]
    assert last.startswith("Next: repair these files, or without them: python main.py pretrain")
    assert last.endswith("--damaged skip")
    assert main(last.split("main.py ")[1].replace("pretrain --variant query", "data verify").split()) == 0, "accepted"


def test_what_can_be_read_is_no_data_set(pets: Path, capsys: pytest.CaptureFixture) -> None:
    files = sorted((pets / "train" / "cat").glob("*.png"))[1:]
    for file in files:
        file.write_bytes(b"")
    kinds = found(pets, code=1)
    assert images(kinds["unreadable"]) == [f"train/cat/{file.name}" for file in files]
    out = capsys.readouterr().out
    assert "no data set: class 'cat' has 1 training images" in out
    assert f"python main.py data verify --dataset {pets}" in out.splitlines()[-1]
    assert json.loads((pets.parent / "found.json").read_bytes())["fingerprint"] is None


def test_a_name_that_cannot_be_printed_has_its_reason_too(pets: Path) -> None:
    (pets / "train" / "cat" / "a\nb.png").write_bytes(b"")
    (example,) = found(pets, code=1)["unreadable"]["examples"]
    assert example["image"] == r"'train/cat/a\nb.png'"
    assert example["reason"] == "the file is empty (0 bytes); replace it or leave it out"


def test_a_name_that_begins_with_a_quote_is_a_name(tmp_path: Path) -> None:
    pets = write_image_folder(tmp_path / "pets", ("'80s", "dog"), train=10, size=8)
    (pets / "train" / "'80s" / "bad.png").write_bytes(b"")
    (example,) = found(pets, code=1)["unreadable"]["examples"]
    assert example["image"] == "train/'80s/bad.png"


def test_the_next_command_has_every_kind_of_option() -> None:
    given = Data(domains=True, hold_out_classes=("a cat", "dog"), image_size=(8, 9), max_megapixels=3)
    words = shlex.split(_command("pretrain", "digits", given))[2:]
    asked = parse(words)
    for name in ("domains", "hold_out_classes", "image_size", "max_megapixels"):
        assert getattr(asked, name) == getattr(given, name)


def test_what_spoils_a_result_comes_first(pets: Path) -> None:
    (pets / "train" / "cat" / "x.png").write_bytes(b"")
    Image.open(pets / "train" / "cat" / "0.png").save(pets / "test" / "cat" / "same.png")
    assert list(found(pets, "--damaged", "skip", code=1)) == ["test-in-train", "unreadable"]


def test_one_image_with_two_classes_spoils_a_result(pets: Path, capsys: pytest.CaptureFixture) -> None:
    Image.open(pets / "train" / "cat" / "0.png").save(pets / "train" / "dog" / "same.png")
    kinds = found(pets, "--seed", "1", code=1)
    finding = kinds["twice-in-train"]
    assert finding["severity"] == "spoils"
    assert finding["examples"][0] == {
        **{"image": "train/cat/0.png", "class": "cat"},
        **{"twin": "train/dog/same.png", "twin_class": "dog"},
    }
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Next: repair what spoils results, then python main.py data verify")


def test_a_copy_within_train_deserves_a_look(pets: Path) -> None:
    for name in ("again", "and_again"):
        Image.open(pets / "train" / "cat" / "0.png").save(pets / "train" / "cat" / f"{name}.png")
    finding = found(pets)["twice-in-train"]
    assert (finding["severity"], finding["count"]) == ("look", 3)


# --- what deserves a look ---------------------------------------------------------------------------------


def test_crop_frames_constants_and_ranges_are_found(pets: Path, capsys: pytest.CaptureFixture) -> None:
    cat, dog = pets / "train" / "cat", pets / "test" / "dog"
    photograph(50, 200).resize((SIZE * 4, SIZE)).save(cat / "wide.png")
    photograph(51, 200).resize((SIZE, SIZE * 2)).save(dog / "high.png")
    photograph(52, 200).resize((SIZE * 5 // 4, SIZE)).save(cat / "nearly.png")
    photograph(53).save(dog / "moves.gif", save_all=True, append_images=[photograph(54), photograph(55)])
    Image.new("RGB", (SIZE, SIZE), (255, 0, 10)).save(cat / "red.png")
    deep = np.random.default_rng(0).integers(0, 3000, (SIZE, SIZE)).astype(np.uint16)
    Image.fromarray(deep).save(cat / "dark.png")
    deep[0, 0] = 65535
    Image.fromarray(deep).save(cat / "bright.png")
    kinds = found(pets, "--image-size", "96")
    assert list(kinds) == ["constant", "range", "frames", "crop"]
    assert kinds["crop"]["examples"] == [
        {"image": "train/cat/wide.png", "used": 0.25, "size": [SIZE, SIZE * 4]},
        {"image": "test/dog/high.png", "used": 0.5, "size": [SIZE * 2, SIZE]},
    ]
    assert kinds["frames"]["examples"] == [{"image": "test/dog/moves.gif", "frames": 3}]
    assert images(kinds["constant"]) == ["train/cat/red.png"]
    assert images(kinds["range"]) == ["train/cat/dark.png"]
    assert kinds["range"]["examples"][0]["deep"]
    out = capsys.readouterr().out
    assert "2 pictures of 25 of which the crop to 96x96 uses less than 75% (--resize pad uses all): train/" in out
    assert "1 with 16 bits a value, of which 65,535 is read as white: train/cat/dark.png" in out
    padded = found(pets, "--image-size", "96", "--resize", "pad")
    assert list(padded) == ["constant", "range", "frames"], "a crop spoils nothing where nothing is cropped"


def test_bars_around_a_picture_are_no_part_of_its_colours(pets: Path) -> None:
    Image.new("RGB", (SIZE, SIZE // 2), "black").save(pets / "train" / "cat" / "night.png")
    Image.new("RGB", (SIZE, SIZE), (128, 128, 128)).save(pets / "train" / "cat" / "grey.png")
    kinds = found(pets, "--image-size", "96", "--resize", "pad")
    assert sorted(images(kinds["constant"])) == ["train/cat/grey.png", "train/cat/night.png"]


def test_a_telephones_photograph_is_no_animation(tmp_path: Path) -> None:
    photograph(1).save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[photograph(2)])
    photograph(1).save(tmp_path / "b.tif", save_all=True, append_images=[photograph(2)])
    photograph(1).save(tmp_path / "c.png")
    with pillow_ready():
        frames = [header(tmp_path / name).frames for name in ("a.jpg", "b.tif", "c.png")]
    assert frames == [1, 2, 1]


def test_counts_that_deserve_a_look() -> None:
    names = ("ant", "bee", "cow")
    found = checks.imbalanced(np.array([50, 10, 20]), names)
    assert found is not None
    assert "5 times as many images as the smallest: ant 50, bee 10" in found.line
    assert checks.imbalanced(np.array([49, 10, 20]), names) is None
    found = checks.few(np.array([4, 5, 1]), names)
    assert found is not None
    assert found.line == "2 classes of fewer than 5 training images, 1 of fewer than 2: ant (4), cow (1)"


def test_images_without_files_are_named_by_their_place() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    images[7] = images[2]  # test[1] of class 1, train[2] of class 2
    parts = (Split(images[rows], np.arange(3)) for rows in (slice(3), slice(3, 6), slice(6, 9)))
    dataset = Dataset("mine", *parts, class_names=("a", "b", "c"), fingerprint="")
    (duplicated,) = duplicates(dataset)
    finding = checks.duplicated(duplicated, dataset.class_names)
    assert finding.line == "1 test image is also in train, 1 with another class: test[1] = train[2]"


# --- the command ------------------------------------------------------------------------------------------


def test_images_of_a_store_are_read_in_blocks(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.open(pets / "train" / "cat" / "0.png").save(pets / "test" / "cat" / "jpeg.jpg", quality=60)
    plain = found(pets)
    monkeypatch.setattr(verify, "_BLOCK_BYTES", 2 * SIZE * SIZE * 3)
    assert found(pets, "--cache-dir", str(pets.parent / "cache")) == plain
    assert list(plain) == ["near-duplicates"]


def test_pictures_without_classes_are_verified_too(pets: Path, capsys: pytest.CaptureFixture) -> None:
    Image.new("RGB", (SIZE, SIZE)).save(pets / "loose.png")
    assert list(found(pets, "--labels", "none")) == ["constant"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"Next: python main.py pretrain --variant simclr --dataset {pets} --labels none"


def test_json_replaces_only_what_verify_wrote(pets: Path, capsys: pytest.CaptureFixture) -> None:
    file = pets.parent / "notes.json"
    words = ["data", "verify", str(pets), "--json", str(file)]
    for content in (b"{}", b"[1]", b"\xff", b'{"made_by": "me"}'):
        file.write_bytes(content)
        assert main(words) == 2
        assert "is there already" in capsys.readouterr().err
        assert file.read_bytes() == content
    file.unlink()
    assert main(words) == main(words) == 0
    record = json.loads(file.read_bytes())
    assert record["classes"]["cat"] == {"train": 5, "validation": 1, "test": 3}
    assert main(["data", "verify", str(pets), "--json", str(file / "no" / "x.json")]) == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["verify", "digits", "--dataset", "fashion_500"], "digits and --dataset fashion_500: name one data set"),
        (["list", "digits"], "digits does nothing with list"),
        (["cache", "--json", "x.json"], "--json does nothing with cache"),
        (["verify", "none/such"], "no such folder"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], complaint: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_names_with_markup_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write_image_folder(tmp_path / "my [bold]set", train=6)
    assert main(["data", "verify", str(root)]) == 0
    assert "my [bold]set: images" in capsys.readouterr().out
