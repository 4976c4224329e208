"""Random damage to checkpoints, random command lines, random run names: one clear line each, never other weights."""

import warnings
from pathlib import Path

import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prl_keras.cli import COMMANDS, parse
from prl_keras.errors import InputError
from prl_keras.runs import check_usable_name, create_run
from prl_keras.training.checkpoint import restore_checkpoint, save_checkpoint


def test_a_damaged_checkpoint_never_passes_for_another(tmp_path: Path) -> None:
    """200 random damages: bits flipped, cut, bytes put in."""
    run = create_run(tmp_path, "run", {})
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam")
    saved = save_checkpoint(model, run, 7)
    content = saved.read_bytes()
    values = [np.array(variable) for variable in model.variables]
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        place = int(rng.integers(len(damaged)))
        kind = rng.integers(3)
        if kind == 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del damaged[place:]
        else:
            damaged[place:place] = rng.bytes(3)
        saved.write_bytes(damaged)
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


WORDS = st.one_of(
    st.sampled_from(["--seed", "--name", "--epochs", "--rows", "--variant", "latest", "--resume", "--", "-", "--x="]),
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
)


@settings(max_examples=150)
@given(st.sampled_from(sorted(COMMANDS)), st.lists(WORDS, max_size=4))
def test_any_command_line_is_understood_or_refused_in_one_line(command: str, words: list[str]) -> None:
    complaint = ""
    try:
        options = parse([command, *words])
    except InputError as error:
        options, complaint = None, str(error)
    assert "\n" not in complaint
    assert options is None or type(options) is COMMANDS[command][0]


@given(st.text(max_size=120))
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
