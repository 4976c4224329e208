"""Random damage to checkpoints, random command lines, random run names: one clear line each, never other weights."""

import errno
import json
import shutil
import warnings
from pathlib import Path, PureWindowsPath

import keras
import numpy as np
import pytest
from archives import fake_stl10, write_stl10_archive
from faults import save_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from prl_keras.arrays import read_arrays
from prl_keras.cli import COMMANDS, parse
from prl_keras.data.stl10 import read_binary
from prl_keras.errors import InputError
from prl_keras.runs import Run, create_run
from prl_keras.runs.locks import working_on
from prl_keras.runs.names import check_usable_name
from prl_keras.training.checkpoint import restore_checkpoint


def test_a_damaged_checkpoint_never_passes_for_another(tmp_path: Path) -> None:
    """200 random damages: bits flipped, cut, bytes put in."""
    run, model = small_model(tmp_path)
    saved = save_checkpoint(model, run, 7)
    content = saved.read_bytes()
    values = [np.array(variable) for variable in model.variables]
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        saved.write_bytes(damaged(content, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                position = restore_checkpoint(model, run)
        except InputError:
            refused += 1
            continue
        assert position.epoch == 7  # the damage hit a byte that means nothing, such as a time in the archive
        for variable, value in zip(model.variables, values, strict=True):
            np.testing.assert_array_equal(variable, value)
    assert refused > 120


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "npy"])
def test_damaged_arrays_are_told_in_one_way(tmp_path: Path, kind: str) -> None:
    """Header bytes too, of which NumPy's parser raises what it likes."""
    file, rng = tmp_path / "arrays", np.random.default_rng(0)
    arrays = {"names": np.array(["a", "b"]), "figures": rng.normal(size=(5, 7))}
    with file.open("wb") as stream:
        if kind == "npy":
            np.save(stream, arrays["figures"])
        else:
            (np.savez if kind == "npz" else np.savez_compressed)(stream, **arrays)
    content, refused = file.read_bytes(), 0
    assert set(read_arrays(file)) == ({""} if kind == "npy" else set(arrays))
    for place in range(min(len(content), 600)):
        for bit in (1, 32):
            file.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    read_arrays(file)
                except ValueError:
                    refused += 1
    assert refused > 100


def test_a_failing_disk_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))

    def failing(*args: object, **options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(np, "load", failing)
    with pytest.raises(OSError, match="Input/output error"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("change", [{"epoch": 9}, {"epoch": -1}, {"epoch": "x"}, {"step": 1}, {"crc32": 0}])
def test_a_checkpoint_with_another_header_is_refused(tmp_path: Path, change: dict) -> None:
    run, model = small_model(tmp_path)
    saved = save_checkpoint(model, run, 7)
    with np.load(saved) as content:
        arrays = dict(content)
    header = json.loads(str(arrays.pop("header"))) | change
    np.savez(saved, header=np.array(json.dumps(header)), **arrays)
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(InputError, match="all checkpoints"):
        restore_checkpoint(model, run)
    assert [path.suffix for path in saved.parent.iterdir()] == [".damaged"]
    with pytest.raises(InputError, match="all checkpoints"):  # nor does it begin anew the next time
        restore_checkpoint(model, run)


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), MemoryError()])
def test_a_checkpoint_that_cannot_be_read_now_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run, model = small_model(tmp_path)
    saved = save_checkpoint(model, run, 7)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(*((Path, "open") if isinstance(error, OSError) else (np, "load")), fail)
    with pytest.raises(type(error)), working_on(run):
        restore_checkpoint(model, run)
    monkeypatch.undo()
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert restore_checkpoint(model, run).epoch == 7


def test_a_run_whose_checkpoints_are_all_damaged_is_not_removed(tmp_path: Path) -> None:
    run, model = small_model(tmp_path)
    save_checkpoint(model, run, 7).write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(InputError, match="all checkpoints"),
        working_on(run),
    ):
        restore_checkpoint(model, run)
    assert [path.name for path in (run.path / "checkpoint").iterdir()] == ["epoch-00007.damaged"]


def test_a_compressed_checkpoint_is_refused_unread(tmp_path: Path) -> None:
    run, model = small_model(tmp_path)
    saved = save_checkpoint(model, run, 7)
    with np.load(saved) as content:
        arrays = dict(content)
    np.savez_compressed(saved, **arrays, v99999=np.zeros(10**7))
    with pytest.warns(UserWarning, match="compressed"), pytest.raises(InputError, match="all checkpoints"):
        restore_checkpoint(model, run)


def test_a_damaged_checkpoint_does_not_count_among_the_two_that_are_kept(tmp_path: Path) -> None:
    run, model = small_model(tmp_path)
    for epoch in (1, 2):
        save_checkpoint(model, run, epoch)
    newest = run.path / "checkpoint" / "epoch-00002.npz"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="using the one before"):
        assert restore_checkpoint(model, run).epoch == 1
    save_checkpoint(model, run, 1, step=1)
    names = sorted(path.name for path in newest.parent.glob("*.npz"))
    assert names == ["epoch-00001.npz", "epoch-00001.step-0000001.npz"]


def test_a_damaged_stl10_archive_is_refused_or_gives_the_same_images(tmp_path: Path) -> None:
    """60 random damages to the archive, then 60 to its unpacked files: one line each, nothing half-unpacked."""
    fake = fake_stl10(train_per_class=3, test_per_class=1, unlabelled=1)
    archive = write_stl10_archive(tmp_path / "whole", fake.files())
    expected = read_binary(tmp_path / "whole", None)
    rng = np.random.default_rng(0)
    complaints = []
    for number in range(120):
        folder = tmp_path / str(number)
        folder.mkdir()
        if number < 60:
            (folder / archive.name).write_bytes(damaged(archive.read_bytes(), rng))
        else:
            shutil.copytree(tmp_path / "whole" / "stl10_binary", folder / "stl10_binary")
            file = sorted((folder / "stl10_binary").iterdir())[number % 7]
            file.write_bytes(damaged(file.read_bytes(), rng))
        try:
            found = read_binary(folder, number % 10 if number % 2 else None)
        except InputError as error:
            complaints.append(str(error))
            assert number >= 60 or [path.name for path in folder.iterdir()] == [archive.name]
            continue
        assert found.train.images.shape[1:] == (96, 96, 3)
        if number < 60 and not number % 2:
            np.testing.assert_array_equal(found.train.images, expected.train.images)
        shutil.rmtree(folder)
    assert len(complaints) > 60
    assert not any("\n" in complaint for complaint in complaints)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """A bit flipped, cut off, bytes put in, or a piece moved."""
    result = bytearray(content)
    place = int(rng.integers(len(result)))
    kind = rng.integers(4)
    if kind == 0:
        result[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del result[place:]
    elif kind == 2:
        result[place:place] = rng.bytes(3)
    else:
        piece = bytes(result[place : place + 100])
        del result[place : place + 100]
        result += piece
    return bytes(result)


def small_model(tmp_path: Path) -> tuple[Run, keras.Model]:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    return create_run(tmp_path, "run", {}), model


WORDS = st.one_of(
    st.sampled_from(["--seed", "--name", "--epochs", "--rows", "--variant", "latest", "--resume", "--", "-", "--x="]),
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
)


@settings(max_examples=20)
@given(st.sampled_from(sorted(COMMANDS)), st.lists(WORDS, max_size=4))
def test_any_command_line_is_understood_or_refused_in_one_line(command: str, words: list[str]) -> None:
    complaint = ""
    try:
        options = parse([command, *words])
    except InputError as error:
        options, complaint = None, str(error)
    assert "\n" not in complaint
    assert options is None or type(options) is COMMANDS[command][0]


DEVICES = st.tuples(st.sampled_from(["con", "NUL", "Aux", "com1", "lpt9"]), st.sampled_from(["", ".", ".x", "-1"]))


@given(st.text(max_size=120) | DEVICES.map("".join))
def test_a_run_name_is_usable_or_refused_and_never_leaves_its_folder(name: str) -> None:
    complaint = ""
    try:
        check_usable_name(name)
    except InputError as error:
        complaint = str(error)
    assert "\n" not in complaint
    if not complaint:
        assert (Path("/runs") / name).resolve().parent == Path("/runs")
        assert name.isascii()
        assert not PureWindowsPath(name).is_reserved()
        assert not name.endswith((".", " "))
