"""Which files of a folder are in which split with which class."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prl_keras.data.layout import natural, picture_files


def touched(root: Path, *names: str) -> Path:
    """Empty files: who looks at their contents fails."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


# --- names ----------------------------------------------------------------------------------------------


def test_numbers_sort_as_numbers():
    names = ["img2", "img10", "img1", "2", "10", "1", "b", "01", "a10b2", "a10b10", "img"]
    assert sorted(names, key=natural) == ["01", "1", "2", "10", "a10b2", "a10b10", "b", "img", "img1", "img2", "img10"]
    assert natural("9" * 10_000) > natural("8" * 10_000)  # more digits than int() reads


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Nd")))))
def test_names_without_digits_sort_as_they_always_did(names):
    assert sorted(names, key=natural) == sorted(names)


@given(st.lists(st.text("ab01", max_size=5), unique=True), st.randoms())
def test_the_order_of_names_is_one(names, shuffler: random.Random):
    shuffled = names[:]
    shuffler.shuffle(shuffled)
    assert sorted(names, key=natural) == sorted(shuffled, key=natural)


# --- what is a picture ----------------------------------------------------------------------------------


def test_all_pictures_below_a_folder_are_found_in_natural_order(tmp_path):
    pictures = (
        "2.png",
        "10.JPG",
        "a/1.jfif",
        "a/b/c/1.heic",
        "a/b/c/2.webp",
        "z/1.avif",
        "z/2.jpe",
        "z/3.mpo",
        "z/4.jxl",
    )
    litter = (".DS_Store", "._2.png", "a/Thumbs.db", "a/1.xml", "@eaDir/2.png", "__MACOSX/a/._1.png", ".git/x.png")
    others = ("classes.txt", "_annotations.coco.json", ".ipynb_checkpoints/2-checkpoint.png", "movie.mov", "raw.psd")
    touched(tmp_path, *pictures, *litter, *others)
    assert [path.relative_to(tmp_path).as_posix() for path in picture_files(tmp_path)] == list(pictures)


@pytest.mark.parametrize("names", [(), ("notes.txt", "a/b/.hidden.png")])
def test_a_folder_without_pictures_has_none(tmp_path, names):
    assert picture_files(touched(tmp_path, *names)) == []
