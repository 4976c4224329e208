"""Pictures whose classes a CSV or TSV tells."""

from pathlib import Path

import numpy as np
import pytest
from archives import write_image_folder
from hypothesis import given
from hypothesis import strategies as st

from prl_keras.cli import main
from prl_keras.data import load_dataset
from prl_keras.data.groups import whole_groups
from prl_keras.data.layout import folder_layout
from prl_keras.data.table import table_layout
from prl_keras.errors import InputError


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "pets", train=10, size=8)


def table(file: Path, *lines: str, encoding: str = "utf-8") -> Path:
    file.write_text("\n".join(lines) + "\n", encoding=encoding)
    return file


def rows(root: Path, delimiter: str = ",") -> list[str]:
    """As the folders of `root` tell it, with splits."""
    found = sorted(root.rglob("*.png"))
    cells = [(path.relative_to(root).as_posix(), path.parent.name, path.parts[-3]) for path in found]
    return [delimiter.join(each) for each in [("path", "label", "split"), *cells]]


def refuses(file: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        table_layout(file, file.parent)
    for part in (str(file), *parts):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "delimiter"), [("l.csv", ","), ("l.tsv", "\t"), ("l.csv", ";"), ("l.txt", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_of_the_same_pictures_is_the_same_data(pets, name, delimiter, encoding):
    file = table(pets / name, *rows(pets, delimiter), encoding=encoding)
    dataset, told = load_dataset(str(pets)), load_dataset(str(pets), labels=file)
    assert dataset.fingerprint == told.fingerprint
    np.testing.assert_array_equal(dataset.train.images, told.train.images)
    assert dataset.train.files.tolist() == told.train.files.tolist()


def test_paths_may_be_seen_from_the_table_or_from_the_data_set(pets, tmp_path):
    inside = load_dataset(str(pets), labels=table(pets / "l.csv", *rows(pets)))
    outside = load_dataset(str(pets), labels=table(tmp_path / "elsewhere.csv", *rows(pets)))
    beside = [line.replace("train/", "pets/train/", 1).replace("test/", "pets/test/", 1) for line in rows(pets)]
    (tmp_path / "empty").mkdir()
    seen = load_dataset(str(tmp_path / "empty"), labels=table(tmp_path / "beside.csv", *beside))
    windows = load_dataset(str(pets), labels=table(pets / "w.csv", *(line.replace("/", "\\") for line in rows(pets))))
    assert inside.fingerprint == outside.fingerprint == seen.fingerprint == windows.fingerprint


def test_columns_may_be_in_any_order_and_more_are_no_matter(pets):
    lines = ["Notes, Label ,PATH", *(f'"x, y",{line.split(",")[1]},{line.split(",")[0]}' for line in rows(pets)[1:])]
    layout = table_layout(table(pets / "l.csv", *lines), pets)
    assert len(layout.train) == 24
    assert (layout.validation, layout.test) == (None, None)


def test_splits_have_the_names_of_folders(pets):
    words = {"train": "Training", "test": "eval"}
    lines = [line.rsplit(",", 1)[0] + "," + words[line.split("/")[0]] for line in rows(pets)[1:]]
    lines[-1] = lines[-1].replace("Training", "DEV")
    layout = table_layout(table(pets / "l.csv", "path,label,split", *lines), pets)
    assert tuple(map(len, (layout.train, layout.validation, layout.test))) == (19, 1, 4)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "no column 'path' in its first line; its columns are none"),
        (["file,label", "a.png,x"], "no column 'path' in its first line; its columns are 'file', 'label'"),
        (["path,label", "a.png,"], "line 2 has no label"),
        (["path,label", "a.png"], "line 2 has no label"),
        (["path,label", "a.png,x", ",y"], "line 3 has no path"),
        (["path,label,split", "a.png,x,"], "line 2 has no split"),
        (["path,label,split", "a.png,x,holdout"], "line 2: unknown split 'holdout'; write train, val or test"),
        (["path,label", "a.png,x", "b.png,y", "a.png,y"], "lines 2 and 4 name the same picture"),
        (["path,label", "a.png,x", "b.png,x"], "only the class 'x', at least 2 are needed"),
        (["path,label,split", "a.png,x,test"], "no row of the split train"),
        (["path,label,split", "a.png,x,train", "b.png,y,train", "c.png,z,val"], "class 'z' is in validation but not"),
        (["path,label", '"a.png,x'], "line"),
        (["path,label"], "no rows below the first line"),
        (["path,label, Label", "a.png,x,y"], "two columns 'label' in its first line"),
        (["path,label", "a.png,cat, tabby"], "line 2 has more cells than the first line has columns"),
        (["path,label", "a.png,x\x07y"], "cannot be printed"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(tmp_path, lines, says):
    refuses(table(tmp_path / "l.csv", *lines), says)


def test_a_table_that_is_none(tmp_path):
    refuses(tmp_path / "none.csv", "no such file", "columns path and label")
    refuses(
        table(tmp_path / "l.csv", "path,label", "é.png,x", encoding="utf-16"), "not UTF-8", "save it as CSV in UTF-8"
    )


@given(st.binary(max_size=60))
def test_any_bytes_are_a_table_or_one_line(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("t") / "l.csv"
    for start in (b"", b"path,label,split,group\n"):
        file.write_bytes(start + content)
        try:
            table_layout(file, file.parent)
        except InputError as error:
            assert str(file) in str(error)  # noqa: PT017


def test_pictures_that_are_not_there_are_all_counted(pets):
    file = table(pets / "l.csv", *rows(pets), "none/1.png,cat,train", "none/2.png,dog,train")
    with pytest.raises(InputError, match=r"2 of 26 pictures cannot be read: none/1.png, none/2.png; .* no such image"):
        load_dataset(str(pets), labels=file)


def test_labels_alone_name_the_data_set_too(pets, capsys):
    file = table(pets / "l.csv", *rows(pets))
    assert main(["data", "verify", "--labels", str(file)]) == 0
    out = capsys.readouterr().out
    assert f"--dataset {pets} --labels {file}" in out.splitlines()[-1]
    assert main(["data", "verify", "--dataset", "digits", "--labels", str(file)]) == 2
    assert "does nothing with digits" in capsys.readouterr().err


def test_a_path_that_is_spelled_twice_is_one_picture(pets):
    there = "train/cat/../cat/1.png"
    refuses(table(pets / "l.csv", "path,label", "train/cat/1.png,cat", f"{there},dog"), "name the same picture", there)
    refuses(table(pets / "l.csv", "path,label", "train/cat/1\0.png,cat", "b.png,dog"), "line 2", "a zero byte")
    (pets.parent / "linked").symlink_to(pets)
    file = table(pets / "l.csv", "path,label", "train/cat/1.png,cat", f"{there},dog")
    refuses(pets.parent / "linked" / file.name, "name the same picture", there)


# --- groups ---------------------------------------------------------------------------------------------


def grouped(root: Path, per_group: int, columns: str = "path,label,group") -> Path:
    """Pictures of both classes in groups of `per_group`, as of patients."""
    lines = [columns]
    for name in ("cat", "dog"):
        for i in range(10):
            lines.append(f"train/{name}/{i}.png,{name},patient {i // per_group}")
    return table(root / "groups.csv", *lines)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("per_group", [1, 2, 3])
def test_no_draw_parts_a_group(pets, seed, per_group):
    dataset = load_dataset(str(pets), labels=grouped(pets, per_group), seed=seed, validation_fraction=0.3)
    groups = [set(split.groups) for split in (dataset.train, dataset.validation, dataset.test)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert all(groups)
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 20


def test_other_names_of_the_groups_and_files_make_the_same_splits(pets):
    before = load_dataset(str(pets), labels=grouped(pets, 2))
    for path in sorted((pets / "train").rglob("*.png")):
        path.rename(path.with_name(f"{9 - int(path.stem)}x.png"))
    lines = ["path,label,group"]
    lines += [f"train/{name}/{9 - i}x.png,{name},{9 - i // 2}" for name in ("dog", "cat") for i in range(10)]
    assert load_dataset(str(pets), labels=table(pets / "b.csv", *lines)).fingerprint == before.fingerprint


def test_one_group_cannot_be_parted(pets):
    with pytest.raises(InputError, match="class 'cat' has 10 images, too few or of too few groups"):
        load_dataset(str(pets), labels=grouped(pets, 10))


def test_a_table_that_parts_a_group_itself_is_told(pets):
    lines = [f"{line},{'one' if i < 13 else 'two'}" for i, line in enumerate(rows(pets)[1:])]
    layout = table_layout(table(pets / "l.csv", "path,label,split,group", *lines), pets)
    assert layout.notes == (
        "warning: the table itself has pictures of one group in two splits: of 1 group, as of 'one'",
    )


def labelled_groups(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Labels and group names of rows, and the rows of each group."""
    labels = np.unique([label for label, _ in pairs], return_inverse=True)[1]
    names = np.array([group for _, group in pairs])
    return labels, names, [np.flatnonzero(names == name) for name in np.unique(names)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8)), min_size=6, max_size=40), st.floats(0.05, 0.6))
def test_whole_groups_are_drawn_near_to_what_is_wanted(pairs, fraction):
    labels, names, groups = labelled_groups(pairs)
    try:
        chosen = whole_groups(labels, groups, fraction, "abc")
    except InputError:
        return
    left = np.setdiff1d(np.arange(len(labels)), chosen)
    assert set(labels[chosen]) == set(labels[left]) == set(labels)
    assert not set(names[chosen]) & set(names[left])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=6, max_size=40), st.floats(0.05, 0.6))
def test_groups_of_one_are_drawn_by_the_rule_of_all_groups(pairs, fraction):
    labels, _, groups = labelled_groups(pairs)
    try:
        chosen = whole_groups(labels, groups, fraction, "abc")
    except InputError:
        return
    counts = np.bincount(labels)
    wanted, taken, expected = np.clip(np.rint(fraction * counts), 1, counts - 1), np.zeros(len(counts)), []
    for rows in groups:
        more = taken + np.bincount(labels[rows], minlength=len(counts))
        if abs(more - wanted).sum() < abs(taken - wanted).sum() and (counts - more >= 1)[labels[rows]].all():
            taken, expected = more, [*expected, *rows]
    if taken.all():  # else another rule has its say
        assert chosen.tolist() == sorted(expected)


def test_single_pictures_are_drawn_just_as_many_as_wanted():
    labels = np.repeat([0, 1, 2], [10, 5, 33])
    chosen = whole_groups(labels, [np.array([row]) for row in range(48)], 0.2, "abc")
    assert np.bincount(labels[chosen]).tolist() == [2, 1, 7]


def test_a_folder_and_its_table_have_one_layout(pets):
    told = table_layout(table(pets / "l.csv", *rows(pets)), pets)
    own = folder_layout(pets)
    assert told.class_names == own.class_names
    for split in ("train", "test"):
        first, second = (getattr(layout, split) for layout in (told, own))
        assert sorted(zip(first.files, first.labels, strict=True)) == sorted(
            zip(second.files, second.labels, strict=True)
        )
