"""Data sets from the store of decoded images: the same data as from memory, opened without decoding, and cleared."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prl_keras.cli import main
from prl_keras.data import Dataset, catalog, folder, load_dataset, stl10
from prl_keras.data.cache import VARIABLE, Cache, cache_of, clear, stores
from prl_keras.data.duplicates import duplicates
from prl_keras.data.rows import Rows, opened
from prl_keras.data.seen import short_digests
from prl_keras.data.splits import RawData, Split
from prl_keras.data.store import open_or_build
from prl_keras.errors import InputError

PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRL_KERAS_CACHE", str(tmp_path / "user"))
    return tmp_path / "user"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    rng, root = np.random.default_rng(0), tmp_path / "pets"
    for split, count in (("train", 9), ("test", 4)):
        for name in ("ant", "bee", "cow"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def read_count(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that are opened from now on, to look at or to decode."""
    seen: list[Path] = []
    for name in ("decode", "look", "largest_value", "_file_digest"):
        was = getattr(folder, name)
        monkeypatch.setattr(
            folder, name, lambda path, *rest, was=was, **more: seen.append(path) or was(path, *rest, **more)
        )
    return seen


def same(a: Dataset, b: Dataset) -> None:
    assert (a.fingerprint, a.class_names, a.notes, a.bits) == (b.fingerprint, b.class_names, b.notes, b.bits)
    for part in PARTS:
        one, other = getattr(a, part), getattr(b, part)
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.files, other.files)
        assert one.sha256() == other.sha256()
        np.testing.assert_array_equal(short_digests(one.images), short_digests(other.images))


@pytest.mark.parametrize("options", [{}, {"image_size": 16}, {"samples_per_class": 4, "test_per_class": 2, "seed": 5}])
def test_a_folder_from_the_store_is_the_folder_from_memory(
    pets: Path, tmp_path: Path, options: dict, monkeypatch
) -> None:
    memory = load_dataset(str(pets), **options, cache_dir="none")
    kept = load_dataset(str(pets), **options, cache_dir=tmp_path / "cache")
    same(memory, kept)
    assert duplicates(memory) == duplicates(kept)
    files = read_count(monkeypatch)
    again = load_dataset(str(pets), **options, cache_dir=tmp_path / "cache")
    assert files == []
    same(memory, again)
    for part in PARTS:
        assert type(getattr(memory, part).images) is np.ndarray
        assert isinstance(getattr(again, part).images, Rows)
    assert len(stores(tmp_path / "cache")) == 1


def test_what_is_small_stays_in_memory_unless_a_folder_is_named(pets: Path, own_cache: Path, monkeypatch) -> None:
    assert type(load_dataset(str(pets)).train.images) is np.ndarray
    assert not own_cache.exists()
    for limit, value in (("MOST_IMAGES", 38), ("MOST_BYTES", 39 * 20 * 24 * 3 - 1)):
        with monkeypatch.context() as patch:
            patch.setattr(f"prl_keras.data.cache.{limit}", value)
            patch.setattr("prl_keras.data.folder._MEMORY_LIMIT", 1000)
            assert isinstance(load_dataset(str(pets)).train.images, Rows)  # which memory need not hold
            shutil.rmtree(own_cache)
            with pytest.raises(InputError, match="GB of memory"):
                load_dataset(str(pets), cache_dir="none")


def test_files_names_times_and_places_do_not_matter_for_what_the_data_are(
    pets: Path, tmp_path: Path, monkeypatch
) -> None:
    cache = tmp_path / "cache"
    first = load_dataset(str(pets), cache_dir=cache)
    moved = pets.rename(tmp_path / "moved")
    files = read_count(monkeypatch)
    assert load_dataset(str(moved), cache_dir=cache).fingerprint == first.fingerprint
    assert files == []
    os.utime(moved / "train" / "ant" / "0.png", (0, 0))
    (moved / "test" / "bee" / "1.png").rename(moved / "test" / "bee" / "x.png")
    other = load_dataset(str(moved), cache_dir=cache)
    assert files
    assert other.fingerprint == first.fingerprint
    for part in PARTS:
        np.testing.assert_array_equal(getattr(other, part).images, getattr(first, part).images)
    assert len(stores(cache)) == 2


def test_another_picture_of_the_same_size_and_time_is_another_picture(pets: Path, tmp_path: Path) -> None:
    path = pets / "test" / "bee" / "1.bmp"
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(path)
    before, first = path.stat(), load_dataset(str(pets), cache_dir=tmp_path / "cache")
    Image.fromarray(np.full((20, 24, 3), 9, np.uint8)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert load_dataset(str(pets), cache_dir=tmp_path / "cache").fingerprint != first.fingerprint


def test_a_picture_that_came_went_or_changed_its_class_is_noticed(pets: Path, tmp_path: Path) -> None:
    def fingerprint() -> str:
        return load_dataset(str(pets), cache_dir=tmp_path / "cache").fingerprint

    there, elsewhere = pets / "train" / "ant" / "0.png", pets / "train" / "bee" / "new.png"
    found = [fingerprint()]
    shutil.copy2(there, elsewhere)
    found.append(fingerprint())
    there.unlink()
    found.append(fingerprint())
    elsewhere.rename(pets / "train" / "cow" / "new.png")
    found.append(fingerprint())
    assert len(set(found)) == 4


@pytest.mark.parametrize("size", [None, 16])
def test_a_bad_picture_is_the_same_line_and_left_out_without_decoding_the_others_again(
    pets: Path, tmp_path: Path, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pets / "test" / "cow" / "0.png").write_bytes((pets / "test" / "cow" / "1.png").read_bytes()[:500])
    lines = []
    for cache_dir in ("none", tmp_path / "cache"):
        with pytest.raises(InputError) as caught:
            load_dataset(str(pets), image_size=size, cache_dir=cache_dir)
        lines.append(str(caught.value))
    assert lines[0] == lines[1]
    files = read_count(monkeypatch)
    kept = load_dataset(str(pets), image_size=size, cache_dir=tmp_path / "cache", damaged="skip")
    assert files == [pets / "test" / "cow" / "0.png"]  # asked why
    same(kept, load_dataset(str(pets), image_size=size, cache_dir="none", damaged="skip"))
    assert kept.skipped == ("test/cow/0.png",)


def test_a_drawn_test_set_is_the_same_from_the_store_and_no_file_is_read_for_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "cow"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(9):
            image = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
            image.save(tmp_path / "pets" / name / f"{number}.png")
    (tmp_path / "pets" / "cow" / "bad.png").write_bytes(b"no picture")
    how = {"damaged": "skip", "image_size": 8}
    memory = load_dataset(str(tmp_path / "pets"), **how, cache_dir="none")
    same(memory, load_dataset(str(tmp_path / "pets"), **how, cache_dir=tmp_path / "cache"))
    files = read_count(monkeypatch)
    same(memory, load_dataset(str(tmp_path / "pets"), **how, cache_dir=tmp_path / "cache"))
    assert files == [tmp_path / "pets" / "cow" / "bad.png"]
    drawn = list((tmp_path / "cache").rglob("*.kept"))
    assert len(drawn) == 2
    for file in drawn:
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    same(memory, load_dataset(str(tmp_path / "pets"), **how, cache_dir=tmp_path / "cache"))


def source(images: np.ndarray) -> RawData:
    return RawData(*(Split(images[part], np.arange(30)[part] % 3) for part in (slice(20), slice(20, 30))), tuple("abc"))


@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 1), (12, 10, 3)])
@pytest.mark.parametrize("image_size", [None, 8])
def test_a_store_of_raw_images_is_converted_into_another_after_the_draws(
    tmp_path: Path, shape: tuple[int, ...], image_size: int | None, monkeypatch
) -> None:
    """As of tensorflow-datasets, whose images may be grey, and are drawn in the size that they have."""
    images = np.random.default_rng(1).integers(0, 256, (30, *shape), np.uint8)

    def loaded(cache_dir: Path | str) -> Dataset:
        def read(name, data_dir, size, fold, cache: Cache) -> RawData:
            if cache.folder is None:
                return source(images)
            rows = lambda start, stop: zip(images[start:stop], range(start, stop), strict=True)  # noqa: E731
            kept = cache.kept("0" * 16 + "-own", shape, 30, rows, "numbers")
            raw = source(np.arange(30))
            return RawData(*(Split(kept.take(s.images), s.labels) for s in (raw.train, raw.test)), raw.class_names)

        monkeypatch.setattr(catalog, "_read", read)
        return load_dataset("digits", image_size=image_size, samples_per_class=3, cache_dir=cache_dir)

    memory, kept = loaded("none"), loaded(tmp_path)
    same(memory, kept)
    again = loaded(tmp_path)
    same(memory, again)
    assert isinstance(again.train.images, Rows)
    assert len(stores(tmp_path)) == (1 if shape == (12, 10, 3) and image_size is None else 2)


def test_unlabelled_images_of_stl10(tmp_path: Path, monkeypatch) -> None:
    binary = tmp_path / "stl10_binary"
    binary.mkdir()
    (binary / "train_X.bin").touch()
    rng = np.random.default_rng(0)
    (binary / "unlabeled_X.bin").write_bytes(rng.integers(0, 256, 5 * stl10.IMAGE_BYTES, np.uint8).tobytes())
    for size in (None, 32):
        memory = stl10.load_unlabelled(tmp_path, size)
        assert not isinstance(stl10.load_unlabelled(tmp_path, size, cache=cache_of(None)), Rows)
        kept = [stl10.load_unlabelled(tmp_path, size, cache=Cache(tmp_path / "cache", always=True)) for _ in range(2)]
        for images in kept:
            assert isinstance(images, Rows)
            np.testing.assert_array_equal(images, memory[:])
        sha = stl10.unlabelled_sha256(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(stl10, "find_binary", None)
            assert stl10.unlabelled_sha256(tmp_path, kept[1]) == sha
    assert len(stores(tmp_path / "cache")) == 2


# --- where, and what is there ---------------------------------------------------------------------------


def test_the_folder_of_the_user(tmp_path: Path, monkeypatch) -> None:
    assert cache_of(None) == Cache(tmp_path / "user")
    assert cache_of("none") == Cache()
    assert cache_of(tmp_path / "x" / ".." / "y") == Cache(tmp_path / "y", always=True)
    monkeypatch.chdir(tmp_path)
    assert cache_of("./none").folder == tmp_path / "none"
    monkeypatch.delenv("PRL_KERAS_CACHE")
    home = tmp_path / "home"
    monkeypatch.setattr(Path, "home", lambda: home)
    for platform, variables, expected in (
        ("linux", {}, home / ".cache" / "prl-keras"),
        ("linux", {"XDG_CACHE_HOME": str(tmp_path / "xdg")}, tmp_path / "xdg" / "prl-keras"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, home / ".cache" / "prl-keras"),
        ("darwin", {}, home / "Library" / "Caches" / "prl-keras"),
        ("win32", {"LOCALAPPDATA": str(tmp_path / "local")}, tmp_path / "local" / "prl-keras" / "cache"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", platform)
            for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
                patch.delenv(variable, raising=False)
            for variable, value in variables.items():
                patch.setenv(variable, value)
            assert cache_of(None) == Cache(expected)


def test_the_cache_is_listed_and_cleared(pets: Path, own_cache: Path, capsys, monkeypatch) -> None:
    assert main(["data", "cache"]) == 0
    assert "0 in all" in capsys.readouterr().out
    monkeypatch.setattr("prl_keras.data.cache.MOST_IMAGES", 5)
    for size in ("16", "8"):
        assert main(["data", "verify", "--dataset", str(pets), "--image-size", size]) == 0
    assert "once, into" in capsys.readouterr().err
    (own_cache / "mine").mkdir()
    (own_cache / "mine" / "index.json").write_text("{}", encoding="utf-8")
    (own_cache / ("f" * 16 + "-96.partial")).mkdir()
    assert main(["data", "cache"]) == 0
    listed = capsys.readouterr().out
    names = [kept.name for kept in stores(own_cache)]
    assert len(names) == 3
    assert "3 in all" in listed
    for word in ("pets", "16x16", "8x8", "39", *names):
        assert word in listed.replace("\n", "")
    chosen = next(name for name in names if name.endswith("-16"))
    assert main(["data", "cache", "--clear", chosen]) == 0
    assert chosen not in [path.name for path in own_cache.iterdir()]
    assert main(["data", "cache", "--clear", chosen]) == 2
    assert f"no store {chosen!r}" in capsys.readouterr().err
    assert main(["data", "cache", "--clear", "all"]) == 0
    assert [path.name for path in own_cache.iterdir()] == ["mine"]  # no store: not ours to remove
    assert main(["data", "cache", "--clear", "all"]) == 0
    assert main(["data", "cache", "--cache-dir", "none"]) == 2
    assert main(["data", "list", "--clear", "all"]) == 2


def test_what_another_process_clears_first_is_no_fault(tmp_path: Path, monkeypatch) -> None:
    for letter in "ab":
        (tmp_path / f"{letter * 16}-own.partial").mkdir()
    known = stores(tmp_path)
    shutil.rmtree(tmp_path / known[0].name)
    monkeypatch.setattr("prl_keras.data.cache.stores", lambda folder: known)
    assert clear(tmp_path, "all") == known[1:]
    assert not list(tmp_path.iterdir())


def test_where_nobody_is_at_home_nothing_is_kept(monkeypatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_of(None) == Cache()


def test_what_is_being_written_is_not_cleared(tmp_path: Path, capsys) -> None:
    name = "a" * 16 + "-own"
    codes = []

    def read(start: int, stop: int):
        codes.append(main(["data", "cache", "--cache-dir", str(tmp_path), "--clear", "all"]))
        return [(np.zeros((2, 2, 3), np.uint8), 0)] * (stop - start)

    open_or_build(name, (2, 2, 3), 3, read, tmp_path)
    assert codes == [2]
    assert "another process" in capsys.readouterr().err
    assert opened(name, tmp_path) is not None


def test_verify_reads_every_pixel(pets: Path, tmp_path: Path, capsys) -> None:
    words = ["data", "verify", "--dataset", str(pets), "--cache-dir", str(tmp_path / "cache")]
    assert main(words) == 0
    file = next((tmp_path / "cache").glob("*/00000.bin"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "00000.bin" in error
    assert main(["data", "cache", "--cache-dir", str(tmp_path / "cache"), "--clear", file.parent.name]) == 0
    assert main(words) == 0
