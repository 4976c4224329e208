"""Which files of a folder are in which split with which class."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prl_keras.data.formats import is_picture
from prl_keras.data.layout import (
    _PLAIN,
    Layout,
    Pictures,
    _in_order,
    domain_layout,
    folder_layout,
    natural,
    picture_files,
    plain_layout,
)
from prl_keras.data.litter import is_litter
from prl_keras.errors import InputError


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


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Nd"), exclude_characters="\0"))))
def test_names_without_digits_sort_as_they_always_did(names):
    assert sorted(names, key=natural) == sorted(names)


@given(st.lists(st.text("aä.\x01019", max_size=7)))
def test_names_sort_as_lists_of_their_words_and_numbers_do(names):
    def parts(name: str) -> tuple:
        found: list = re.split("([0-9]+)", name)
        found[1::2] = map(int, found[1::2])
        return found, name

    assert sorted(names, key=natural) == sorted(names, key=parts)


@given(st.lists(st.text("b0109.\udce9", max_size=4) | st.sampled_from(["1" * 46, "0" * 50 + "2" * 47]), unique=True))
def test_the_names_of_a_folder_sort_all_at_once_as_each_for_itself(names):
    assert _in_order(names) == sorted(names, key=natural)


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


@given(
    st.from_regex(_PLAIN, fullmatch=True).filter(lambda name: not set(name) & set("/\\:\0"))
    | st.sampled_from(["PAXHEADERS.1.png", "@a.png", "~$a.png", "é.png"])
)
def test_what_one_look_takes_for_a_picture_is_one_and_no_litter(tmp_path_factory, name):
    if _PLAIN.fullmatch(name):
        there = tmp_path_factory.getbasetemp()  # a folder: the harder case
        assert is_picture(name)
        assert not is_litter(name)
        assert not is_litter(there / name)


# --- layouts --------------------------------------------------------------------------------------------


def labelled(part: Pictures | None) -> list[tuple[int, str]]:
    return [] if part is None else list(zip(part.labels, part.files, strict=True))


def told(layout: Layout) -> dict[str, list[str]]:
    """Split -> its files with their classes."""
    parts = {"train": layout.train, "validation": layout.validation, "test": layout.test}
    return {
        split: [
            f"{layout.class_names[k]}: {Path(file).relative_to(layout.root).as_posix()}" for k, file in labelled(part)
        ]
        for split, part in parts.items()
        if part is not None
    }


def refuses(root: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        folder_layout(root)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_of_classes_alone_are_all_train(tmp_path):
    layout = folder_layout(touched(tmp_path, "cat/1.png", "cat/10.png", "cat/2.png", "dog/old/2019/1.jpg", "dog/2.jpg"))
    assert layout.class_names == ("cat", "dog")
    assert told(layout) == {
        "train": ["cat: cat/1.png", "cat: cat/2.png", "cat: cat/10.png", "dog: dog/2.jpg", "dog: dog/old/2019/1.jpg"]
    }
    assert layout.notes == ()


@pytest.mark.parametrize("test", [None, "test", "Testing", "eval"])
@pytest.mark.parametrize("validation", [None, "val", "VALID", "validation", "dev"])
@pytest.mark.parametrize("train", ["train", "Training"])
def test_split_folders_in_any_combination_and_by_any_of_their_names(tmp_path, train, validation, test):
    folders = {"train": train} | ({"validation": validation} if validation else {}) | ({"test": test} if test else {})
    for folder in folders.values():
        touched(tmp_path, f"{folder}/cat/1.png", f"{folder}/dog/deep/2.png")
    expected = {split: [f"cat: {name}/cat/1.png", f"dog: {name}/dog/deep/2.png"] for split, name in folders.items()}
    assert told(folder_layout(tmp_path)) == expected


def test_two_names_of_one_split_are_refused(tmp_path):
    touched(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "validation/a/1.png")
    refuses(tmp_path, f"{tmp_path}: val/ and validation/ are both for validation; merge or move one")


def test_a_validation_folder_is_never_the_test_set(tmp_path):
    layout = folder_layout(touched(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png"))
    assert layout.test is None
    touched(tmp_path / "no train", "val/a/1.png", "test/a/1.png")
    refuses(tmp_path / "no train", "test/ is there, train/ is not")


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("art/train/dog/1.png", "art/test/dog/1.png", "ink/train/cat/1.png"), "its classes would be test, train"),
        (("train/art/dog/1.png", "Val/art/dog/1.png"), "its domains would be Val, train"),
    ],
)
def test_splits_are_neither_domains_nor_classes(tmp_path, names, line):
    with pytest.raises(InputError, match=f"{line}, which are names of splits; .* <domain>/<class>/.* split and domain"):
        domain_layout(touched(tmp_path, *names))


def test_a_domain_or_a_class_may_be_called_as_a_split(tmp_path):
    layout = domain_layout(touched(tmp_path, *(f"{d}/{c}/1.png" for d in ("test", "art") for c in ("train", "bus"))))
    assert (layout.class_names, layout.train.domains) == (("bus", "train"), ("art", "test") * 2)


def test_a_class_may_be_called_train(tmp_path):
    layout = folder_layout(touched(tmp_path, "bus/1.png", "train/1.png", "test/1.png", "dev/2.png"))
    assert layout.class_names == ("bus", "dev", "test", "train")
    touched(tmp_path / "b", "cat/1.png", "dog/1.png", "test/cat/1.png", "test/dog/1.png")
    refuses(tmp_path / "b", "test/ is there, train/ is not")  # and is no class of that name


def test_splits_without_class_folders_are_refused_and_are_no_classes(tmp_path):
    refuses(touched(tmp_path, "train/1.png", "test/2.png"), f"{tmp_path}/train: no class folders")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_train_lacks_is_named(tmp_path, split):
    touched(tmp_path, "train/a/1.png", "train/b/1.png", f"{split}/a/1.png", f"{split}/eel/1.png")
    refuses(tmp_path, f"{tmp_path}/{split}: class 'eel' is in", "not in train")


def test_classes_are_numbered_as_people_count(tmp_path):
    assert folder_layout(touched(tmp_path, "10/1.png", "2/1.png", "1/1.png")).class_names == ("1", "2", "10")


def test_a_class_that_would_speak_to_the_terminal_is_refused(tmp_path):
    for name in ("cat", "dog\x1b[2J"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    with pytest.raises(InputError, match=r"'dog\\x1b\[2J' cannot be printed; rename it"):
        folder_layout(tmp_path)
    (tmp_path / "dog\x1b[2J").rename(tmp_path / "動物\u3000犬")
    (tmp_path / "cat").rename(tmp_path / "می\u200cخواهم")
    assert len(folder_layout(tmp_path).class_names) == 2, "spaces and joiners that languages have"


def test_one_class_or_none_is_refused(tmp_path):
    refuses(tmp_path, f"{tmp_path}: no pictures")
    refuses(touched(tmp_path, "docs/a.pdf", "train.txt"), f"{tmp_path}: no pictures")
    refuses(touched(tmp_path, "pets/cat/1.png", "pets/dog/1.png"), "only the class 'pets', at least 2", "pass", "pets")
    refuses(touched(tmp_path / "x", "train/cat/1.png"), f"{tmp_path}/x/train: only the class 'cat', at least 2")


def test_pictures_without_classes_are_for_what_needs_none(tmp_path):
    refuses(
        touched(tmp_path, "1.png", "2.jpg", "notes.txt"),
        f"{tmp_path}: 2 pictures and no class folders",
        "embed, predict and pretrain --variant simclr --labels none",
        "--labels",
    )


def test_what_is_no_picture_of_a_class_is_said_in_one_line(tmp_path):
    touched(tmp_path, "cat/1.png", "dog/1.png", "cat/x.psd", "cat/deep/x.mov", "loose.png", "docs/a.pdf", "cat/1.xml")
    assert folder_layout(tmp_path).notes == (
        "Not read: 2 files of no known picture type (cat/x.psd, cat/deep/x.mov), 1 folder without pictures (docs), "
        "1 image outside of class folders (loose.png)",
    )


def test_a_link_to_a_folder_of_pictures_is_not_passed_over_without_a_word(tmp_path):
    touched(tmp_path, "elsewhere/3.png", "set/cat/1.png", "set/dog/1.png", "set/dog/x.mov")
    (tmp_path / "set" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    line = "Not read: 1 file of no known picture type (dog/x.mov), 1 link to a folder (cat/more)"
    for layout in (folder_layout(tmp_path / "set"), plain_layout(tmp_path / "set")):
        assert layout.notes == (line,)
        assert len(layout.train) == 2


NAMES = st.sampled_from(["cat", "dog", "2", "10", "train", "val", "Test", "a b", "é", ".hidden", "@eaDir", "x.png"])
FILES = st.sampled_from(["1.png", "2.JPG", "10.gif", ".DS_Store", "._1.png", "1.xml", "x.psd", "clip.mov"])
TREES = st.lists(st.tuples(st.lists(NAMES, max_size=4), FILES), max_size=12)


@given(TREES)
def test_any_tree_is_read_whole_or_refused_in_one_line(tmp_path_factory, tree):
    root = touched(tmp_path_factory.mktemp("tree"), *("/".join([*folders, f"f{file}"]) for folders, file in tree))
    try:
        layout = folder_layout(root)
    except InputError as error:
        assert (str(root) in str(error), "\n" in str(error)) == (True, False)  # noqa: PT017
        return
    parts = told(layout)
    read = [line.split(": ", 1)[1] for part in parts.values() for line in part]
    assert len(read) == len(set(read))
    for part in (layout.train, layout.validation, layout.test):
        for label, file in labelled(part):
            assert layout.class_names[label] in Path(file).relative_to(root).parts[:2]
    assert set(layout.train.labels) == set(range(len(layout.class_names)))
    unread = {path.relative_to(root).as_posix() for path in picture_files(root)} - set(read)
    assert bool(unread) <= bool(layout.notes)
