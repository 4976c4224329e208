"""What a training shows: one aligned line an epoch, a bar on a terminal only, all figures if asked for."""

import contextlib
import io
import itertools
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyte
import pytest
from faults import stop_after_first_checkpoint
from hypothesis import given
from hypothesis import strategies as st

import prl_keras.screen.training as module
from prl_keras.cli import main
from prl_keras.runs import Run
from prl_keras.screen.columns import all_figures, layout, taken
from prl_keras.screen.console import Terminal, is_watched
from prl_keras.screen.pace import Usual, duration
from prl_keras.screen.training import TrainingScreen

ROOT = Path(__file__).parents[1]
TINY = ["--dataset", "digits", "--samples-per-class", "8", "--test-per-class", "5", "--image-size", "16"]
CLASSIFIER = {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
PRETRAINING = {*CLASSIFIER, "val_effective_rank", "val_prototype_accuracy", "val_knn_accuracy", "masked_queries"}
LINE = {"loss": 1.25, "accuracy": 0.5, "val_loss": 1.5, "val_accuracy": 0.75, "learning_rate": 1e-3} | {
    "images_per_second": 1234.5
}
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\x9b]")


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch, width: int = 80, **options: Any) -> Tty:
    """From here on the screen believes that somebody watches; returns what it writes."""
    file = Tty()
    options = {"force_terminal": True, "color_system": "truecolor", "soft_wrap": True} | options
    monkeypatch.setattr(module, "console", Terminal(file=file, width=width, **options))
    return file


def looks(text: str, width: int = 80, height: int = 40) -> pyte.Screen:
    """The screen of a terminal that was sent this."""
    screen = pyte.Screen(width, height)
    pyte.Stream(screen).feed(text.replace("\n", "\r\n"))
    return screen


def lines(screen: pyte.Screen) -> list[str]:
    return [line.rstrip() for line in screen.display if line.strip()]


def clock(*seconds: float) -> Any:
    """Says these times, then the last one for ever."""
    times = itertools.chain(seconds, itertools.repeat(seconds[-1]))
    return lambda: next(times)


# Figures as cells ----------------------------------------------------------------------------------------

anything = st.none() | st.floats() | st.floats(0, 1) | st.floats(0, 1e5) | st.integers(-(10**9), 10**9)


@given(
    width=st.integers(80, 200),
    keys=st.sets(st.sampled_from(sorted(PRETRAINING | {"test_accuracy", "chance_loss", "images_per_second", "left"}))),
    values=st.dictionaries(
        st.sampled_from(sorted(PRETRAINING | {"left", "images_per_second", "chance_loss"})), anything
    ),
)
def test_any_figures_make_cells_of_their_columns_widths(width: int, keys: set[str], values: dict[str, Any]) -> None:
    columns, main_key = layout(keys, width)
    assert taken(columns) <= width
    assert main_key is None or main_key in {column.key for column in columns}
    for column in columns:
        assert len(column.cell(values.get(column.key))) == column.width
        assert len(column.title) <= column.width


def test_more_columns_are_shown_where_there_is_room() -> None:
    narrow, wide = ({column.key for column in layout(PRETRAINING | {"left"}, width)[0]} for width in (50, 130))
    assert {"loss", "val_loss", "val_prototype_accuracy", "left"} <= narrow < wide
    assert wide - narrow >= {"learning_rate", "val_effective_rank"}


@pytest.mark.parametrize(
    ("keys", "matters"),
    [
        (PRETRAINING, "val_prototype_accuracy"),
        ({"loss", "accuracy", "val_loss", "val_accuracy", "val_effective_rank"}, "accuracy"),  # without classes
        (CLASSIFIER, "val_accuracy"),
        ({"loss", "accuracy"}, "accuracy"),  # trained on validation too
    ],
)
def test_the_accuracy_that_matters_is_always_shown(keys: set[str], matters: str) -> None:
    columns, main_key = layout(keys, 10)
    assert main_key == matters
    assert matters in {column.key for column in columns}


@pytest.mark.parametrize(
    ("key", "value", "cell"),
    [
        ("loss", 2.302585, "   2.303"),
        ("loss", 0.0, "   0.000"),
        ("loss", 0.00012, " 1.2e-04"),
        ("loss", 123456.789, "123456.8"),
        ("loss", -1.5e300, "-2e+300"),
        ("loss", float("nan"), "       -"),
        ("loss", None, "       -"),
        ("val_accuracy", 1.0, "100.0 %"),
        ("images_per_second", 12345.6, "   12,346"),
        ("images_per_second", 0.52, "      0.5"),
        ("left", 245, "    4:05"),
        ("left", 3750, " 1:02:30"),
    ],
)
def test_a_figure_is_written_as_people_read_it(key: str, value: float | None, cell: str) -> None:
    columns, _ = layout({key}, 80)
    assert columns[0].cell(value).lstrip() == cell.lstrip()
    assert len(columns[0].cell(value)) == columns[0].width


@given(st.floats(0, 1e9))
def test_a_duration_is_no_less_than_what_it_is_of(seconds: float) -> None:
    text = duration(seconds)
    assert len(text) <= 8
    if ":" in text:
        parts = [int(part) for part in text.split(":")]
        total = sum(part * 60**i for i, part in enumerate(reversed(parts)))
        assert seconds <= total <= seconds + 1
        assert all(len(part) == 2 for part in text.split(":")[1:])


@given(st.dictionaries(st.text("abc_", min_size=1, max_size=30), anything, max_size=30), st.integers(80, 200))
def test_all_figures_are_there_and_none_is_torn(figures: dict[str, Any], width: int) -> None:
    shown = all_figures({"epoch": 3, **figures}, width)
    assert all(len(line) <= width for line in shown)
    items = [item for line in shown for item in re.split(r"\s{2,}", line.strip())]
    assert items == [f"{key} {'nan' if value is None else value}" for key, value in figures.items()]


def test_the_usual_time_leaves_out_the_first() -> None:
    usual = Usual()
    assert usual.value is None
    for seconds in (60.0, 1.0, 3.0, 2.0):
        usual.add(seconds)
    assert usual.value == 2.0


# In a file -----------------------------------------------------------------------------------------------


def train(screen: TrainingScreen, first: int = 1, line: dict[str, Any] = LINE) -> None:
    for epoch in range(first, screen.epochs + 1):
        screen.begin_epoch(epoch)
        for done in range(1, screen.steps + 1):
            screen.step(done, lambda: 1.25)
        screen.end_epoch(line | {"epoch": epoch})


def test_a_file_gets_one_plain_aligned_line_an_epoch(capsys: pytest.CaptureFixture) -> None:
    with TrainingScreen(CLASSIFIER, 12, 5, 640, {"chance_loss": 2.302585, "least_loss": None}) as screen:
        train(screen)
    shown = capsys.readouterr().out
    assert not CONTROL.search(shown)
    header, *rows = shown.splitlines()
    assert re.split(r"\s{2,}", header) == [
        "epoch",
        "loss",
        "chance",
        "val loss",
        "val acc",
        "train acc",
        "images/s",
        "left",
    ]
    assert [row.split()[0] for row in rows] == [f"{epoch}/12" for epoch in range(1, 13)]
    assert {len(row) for row in rows} == {len(header)}
    assert rows[0].split()[:6] == ["1/12", "1.250", "2.303", "1.500", "75.0", "%"]
    assert rows[-1].split()[-2:] == ["1,234", "0:00"]


def test_a_file_gets_no_control_characters_even_if_colours_are_forced(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    forced = Terminal(soft_wrap=True, force_terminal=True, color_system="truecolor")
    monkeypatch.setattr(module, "console", forced)
    assert forced.is_terminal
    assert not is_watched(forced)
    with TrainingScreen(CLASSIFIER, 2, 5, 640, title="trial 1") as screen:
        train(screen)
    shown = capsys.readouterr().out
    assert not CONTROL.search(shown)
    assert shown.splitlines()[0] == "trial 1"


def test_a_terminal_that_becomes_a_file_writes_no_styles(capsys: pytest.CaptureFixture) -> None:
    """As the output of the trainings of `reproduce`, which goes into its log."""
    log = io.StringIO()
    terminal = Terminal(color_system="truecolor", soft_wrap=True)
    with contextlib.redirect_stdout(log):
        terminal.print("warning: something", style="yellow")
    assert log.getvalue() == "warning: something\n"
    assert capsys.readouterr().out == ""


def test_verbose_adds_every_figure_of_the_epoch(capsys: pytest.CaptureFixture) -> None:
    with TrainingScreen(CLASSIFIER, 1, 2, 64, verbose=True) as screen:
        train(screen, line=LINE | {"masked_queries": 7.0, "val_class_spread": None})
    shown = capsys.readouterr().out
    assert "masked_queries 7.0" in shown
    assert "val_class_spread nan" in shown
    assert all(f"{key} {value}" in shown for key, value in LINE.items())
    assert max(map(len, shown.splitlines())) <= 80


def test_lines_that_do_not_stay_are_not_in_a_file(capsys: pytest.CaptureFixture) -> None:
    with TrainingScreen(CLASSIFIER, 2, 2, 64, title="trial 1 of 3", stays=False) as screen:
        train(screen)
    assert capsys.readouterr().out == ""


def test_the_time_left_is_that_of_the_steps_and_of_the_ends_of_epochs(capsys: pytest.CaptureFixture) -> None:
    times = [0, 100, 102, 104, 160]  # begin; steps, the first slow; end of the epoch
    times += [200, 202, 204, 206, 216]  # the first end took 96 s and does not count, the second so far 10
    times += [226, 228, 230, 232, 242]  # it took 20
    with TrainingScreen(CLASSIFIER, 5, 3, 300, clock=clock(*times)) as screen:
        left = []
        for epoch in (1, 2, 3):
            screen.begin_epoch(epoch)
            for done in (1, 2, 3):
                screen.step(done, lambda: 1.0)
            screen.end_epoch({"loss": 1.0, "images_per_second": 7.0})
    speed, left = zip(*(line.split()[-2:] for line in capsys.readouterr().out.splitlines()[1:]), strict=True)
    assert [float(each) for each in speed] == [50, 7, 7], "the first epoch's own has a first step of 100 s in it"
    assert list(left) == [duration(4 * 3 * 2), duration(3 * 3 * 2 + 3 * 10), duration(2 * 3 * 2 + 2 * 20)]


def test_the_time_left_knows_which_ends_of_epochs_have_validation(capsys: pytest.CaptureFixture) -> None:
    """Steps of 1 s; ends of 10 s with validation (epochs 1, 4, 8), the first of 60, and of 1 s without."""
    now, times = 0.0, []
    for epoch in range(1, 6):
        times += [now, now + 1, now := now + 1 + (60 if epoch == 1 else 10 if epoch in (4, 8) else 1)]
    with TrainingScreen(CLASSIFIER, 8, 1, 64, validated=[1, 4, 8], clock=clock(*times)) as screen:
        for epoch in range(1, 6):
            screen.begin_epoch(epoch)
            screen.step(1, lambda: 1.0)
            screen.end_epoch({"loss": 1.0})
    left = [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert left[1] == duration(6 + 2 * 60 + 4 * 1), "all that is known of validation is its first look"
    assert left[3] == duration(4 + 1 * 10 + 3 * 1)
    assert left[4] == duration(3 + 1 * 10 + 2 * 1)


def test_a_continued_training_counts_on_and_estimates_what_is_left(capsys: pytest.CaptureFixture) -> None:
    times = [0, 0, 0, 50, 52, 54, 60]  # two steps were taken before and are skipped
    with TrainingScreen(CLASSIFIER, 7, 5, 500, earlier=[{"val_accuracy": 0.9}], clock=clock(*times)) as screen:
        screen.begin_epoch(6)
        screen.step(1, None)
        screen.step(2, None)
        for done in (3, 4, 5):
            screen.step(done, lambda: 1.0)
        screen.end_epoch(LINE | {"epoch": 6})
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[0] == "6/7"
    assert row[-1] == duration(5 * 2)
    assert screen.best == 0.9


# On a terminal -------------------------------------------------------------------------------------------


@given(
    width=st.integers(80, 160),
    epochs=st.integers(1, 5000),
    steps=st.integers(1, 10**6),
    keys=st.sampled_from([CLASSIFIER, PRETRAINING, {"loss"}]),
    line=st.dictionaries(st.sampled_from(sorted(PRETRAINING | {"images_per_second"})), anything),
    loss=st.floats(),
)
def test_nothing_wraps_whatever_the_figures(
    width: int, epochs: int, steps: int, keys: set[str], line: dict[str, Any], loss: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        sent = terminal(patch, width)
        with TrainingScreen(keys, epochs, steps, 999, {"chance_loss": 2.3}, clock=clock(0, 1, 2, 3)) as screen:
            screen.begin_epoch(1)
            screen.step(1, lambda: loss)
            screen.step(min(2, steps), lambda: loss)
            middle = lines(looks(sent.getvalue(), width))
            screen.end_epoch(line)
        header, bar = middle
        assert len(header) <= width - 3
        assert len(bar) <= width - 3
        header, row = lines(looks(sent.getvalue(), width))
        ends = [match.end() for match in re.finditer(r"\S+( \S+)*", header)]
        assert len(row) <= len(header)
        for end in ends:  # a cell ends where its column's name ends
            assert row[end - 1].strip()
            assert row[end : end + 2].strip() == ""


def test_the_bar_stands_where_the_late_figures_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = terminal(monkeypatch)
    times = clock(0, 10, 12, 14, 16, 18)
    with TrainingScreen(CLASSIFIER, 3, 4, 400, {"chance_loss": 2.302585}, clock=times) as screen:
        screen.begin_epoch(1)
        assert "preparing" in lines(looks(sent.getvalue()))[-1]
        screen.step(1, lambda: 2.5)
        screen.step(2, lambda: 2.4)
        header, bar = lines(looks(sent.getvalue()))
        assert bar.split()[:3] == ["1/3", "2.400", "2.303"]
        assert " 2/4 " in bar
        assert bar.index("━") == header.index("val loss")
        assert bar.split()[-2:] == ["50", duration(10 * 2)]
        assert len(bar) == len(header)
        screen.step(3, lambda: 2.3)
        screen.step(4, lambda: 2.3)
        assert "validating" in lines(looks(sent.getvalue()))[-1]
        screen.end_epoch(LINE | {"epoch": 1})
        assert len(lines(looks(sent.getvalue()))) == 2, "the bar is gone"
    assert lines(looks(sent.getvalue()))[1].split()[0] == "1/3"


def test_the_bar_goes_away_when_the_training_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = terminal(monkeypatch)
    screen = TrainingScreen(CLASSIFIER, 3, 4, 400)

    def interrupted() -> None:
        with screen:
            screen.begin_epoch(1)
            sent.write("^C")  # as the terminal does
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    shown = looks(sent.getvalue())
    assert [line.split()[0] for line in lines(shown)] == ["epoch"]
    assert not shown.cursor.hidden
    assert (shown.cursor.x, shown.cursor.y) == (0, 1)


def test_what_others_print_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = terminal(monkeypatch)
    with TrainingScreen(CLASSIFIER, 3, 4, 400) as screen:
        screen.begin_epoch(1)
        print("warning: something")
        screen.step(1, lambda: 1.0)
        shown = lines(looks(sent.getvalue()))
    assert [line.split()[0] for line in shown] == ["epoch", "warning:", "1/3"]


def colours(screen: pyte.Screen, row: int) -> set[str]:
    return {screen.buffer[row][x].fg for x in range(screen.columns)} - {"default"}


@pytest.mark.parametrize(("best", "loss", "colour"), [(0.8, 1.0, set()), (0.7, 1.0, {"green"}), (0.8, 2.4, {"brown"})])
def test_colour_tells_the_best_so_far_and_a_loss_above_chance(
    best: float, loss: float, colour: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyte calls ANSI's yellow brown."""
    sent = terminal(monkeypatch)
    earlier = [{"val_accuracy": best}, {"val_accuracy": None}]
    with TrainingScreen(CLASSIFIER, 4, 2, 64, {"chance_loss": 2.3}, earlier) as screen:
        screen.begin_epoch(3)
        screen.end_epoch(LINE | {"loss": loss})
    assert colours(looks(sent.getvalue()), 1) == colour


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    sent = terminal(monkeypatch)
    with TrainingScreen(CLASSIFIER, 2, 2, 64, {"chance_loss": 0.1}) as screen:
        train(screen)
    assert not re.search(r"\x1b\[[0-9;]*[34][0-7]", sent.getvalue())


def test_the_loss_is_asked_for_ten_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    asked = []
    times = clock(*(step / 1000 for step in range(1001)))
    with TrainingScreen(CLASSIFIER, 2, 2000, 64, clock=times) as screen:
        screen.begin_epoch(1)
        for done in range(1, 1001):
            screen.step(done, lambda: asked.append(1) or 1.0)
    assert 5 <= len(asked) <= 11


def test_a_trial_shows_its_last_epoch_above_the_bar_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = terminal(monkeypatch)
    with TrainingScreen(CLASSIFIER, 3, 2, 64, title="trial 2 of 9: linear head", stays=False) as screen:
        train(screen)
        screen.begin_epoch(3)
        shown = lines(looks(sent.getvalue()))
    assert [line.split()[0] for line in shown] == ["trial", "epoch", "3/3", "3/3"]
    assert lines(looks(sent.getvalue())) == []


def test_a_long_title_leaves_room_for_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """And its brackets are no markup."""
    from prl_keras.screen import console, progress

    monkeypatch.setattr(console, "Terminal", partial(Terminal, force_terminal=True, width=80))
    monkeypatch.setattr(console, "is_watched", lambda terminal: True)
    title = f"Decoding 1,234 images of /pictures/[red]{'cats and dogs ' * 5}once"
    with progress.progress(title, 1234) as done:
        done(617)
        time.sleep(0.3)  # a thread of its own draws it
        sent = capsys.readouterr().err
        shown = lines(looks(sent))
        assert "".join(shown[:-1]).startswith("Decoding 1,234 images of /pictures/[red]cats")
        assert "━" in shown[-1]
        assert "617/1,234" in shown[-1]
    assert lines(looks(sent + capsys.readouterr().err)) == shown[:-1], "the bar is gone"


def test_in_a_file_long_work_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from prl_keras.screen import progress

    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def pictures(seconds: float) -> Iterator[int]:
        for number in range(100):
            now[0] += seconds
            yield number

    assert sum(progress.with_progress(pictures(1.0), 100, "Pictures")) == 4950
    expected = ["33/100, 1:07", "63/100, 0:37", "93/100, 0:07"]
    assert capsys.readouterr().err.splitlines() == [f"Pictures: {each} left" for each in expected]
    assert sum(progress.with_progress(pictures(0.2), 100, "Pictures")) == 4950
    with progress.progress("Decoding 1,000 images", 1000) as done:
        for count in (250, 500, 1000):
            now[0] += 40
            done(count)
    assert capsys.readouterr().err.splitlines() == ["Decoding 1,000 images", "Done: 500/1,000, 1:20 left"]


# The commands --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def table(shown: str) -> list[str]:
    """Header and epochs."""
    return [line for line in shown.splitlines() if re.match(r"epoch |\s*\d+/\d+ ", line)]


@pytest.mark.slow
def test_a_pretraining_that_was_stopped_counts_on(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    command = ["pretrain", *TINY, "--epochs", "3", "--batch-size", "32", "--name", "pre", "--runs-dir", str(runs_dir)]
    with monkeypatch.context() as patch:
        stop_after_first_checkpoint(patch)
        assert main(command) == 130
    shown = capsys.readouterr().out
    assert re.search(r"^Computing on .*, float32$", shown, re.MULTILINE)
    assert [row.split()[0] for row in table(shown)] == ["epoch", "1/3"]
    assert main(command) == 0
    header, *rows = table(capsys.readouterr().out)
    assert [row.split()[0] for row in rows] == ["2/3", "3/3"]
    assert re.split(r"\s{2,}", header)[:5] == ["epoch", "loss", "chance", "val loss", "val proto"]
    written = Run(runs_dir / "pre").metrics
    for row, line in zip(rows, written[1:], strict=True):
        assert row.split()[1] == f"{line['loss']:.3f}"
        assert row.split()[2] == f"{line['chance_loss']:.3f}"
        assert f"{100 * line['val_prototype_accuracy']:.1f} %" in row


def test_a_notebook_gets_plain_lines_though_its_output_calls_itself_a_terminal() -> None:
    class OutStream(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert Terminal(file=OutStream()).is_terminal
    OutStream.__module__ = "ipykernel.iostream"
    stream = OutStream()
    terminal = Terminal(file=stream)
    with terminal.status("working"):
        terminal.print("done", style="green")
    assert not is_watched(terminal)
    assert stream.getvalue() == "done\n"


def test_verbose_shows_what_is_recorded_and_is_not_recorded_itself(
    runs_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["baseline", "--model", "mlp", *TINY, "--epochs", "2", "--name", "head", "--test-each-epoch", "--verbose"]
    assert main([*command, "--runs-dir", str(runs_dir)]) == 0
    shown = capsys.readouterr().out
    run = Run(runs_dir / "head")
    assert "verbose" not in run.part("options")
    header, first, second = table(shown)
    assert "test acc" in header
    assert "2.303" in first, "ten classes of one size: chance is ln 10"
    assert "chance_loss" not in run.metrics[0], "only the screen compares with it"
    for line in run.metrics:
        for key, value in line.items():
            assert key == "epoch" or f"{key} {value}" in shown
    assert second.split()[-1] == "0:00"


def test_the_chance_of_a_classifier_is_that_of_its_best_constant_answer() -> None:
    import keras

    from prl_keras.training.cross_entropy import SmoothedCrossEntropy, chance

    labels = np.repeat([0, 1, 2], [6, 3, 1])
    target = 0.8 * np.bincount(labels) / 10 + 0.2 / 3
    answer = np.tile(np.log(target), (10, 1)).astype("float32")
    expected = float(keras.ops.mean(SmoothedCrossEntropy(0.2)(labels, answer)))
    assert chance(labels, 3, 0.2) == pytest.approx(expected, rel=1e-5)
    assert chance(np.zeros(5, int), 2) == 0
    worse = float(keras.ops.mean(SmoothedCrossEntropy(0.2)(labels, np.zeros((10, 3), "float32"))))
    assert chance(labels, 3, 0.2) < worse


def test_figures_ahead_are_those_of_the_epoch(capsys: pytest.CaptureFixture) -> None:
    import keras

    from prl_keras.training.screen import EpochScreen, figures_ahead

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")])
    images, labels = np.eye(12, 4, dtype="float32"), np.arange(12) % 3
    model.compute_metrics(images, labels, np.zeros((12, 3), "float32"))
    keys = figures_ahead(model, validated=True)
    with TrainingScreen(keys, 2, 3, 12) as screen:
        data = {"validation_data": (images, labels), "batch_size": 4, "epochs": 2, "verbose": 0}
        history = model.fit(images, labels, callbacks=[EpochScreen(screen)], **data).history
    assert keys == set(history)
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[1] for row in rows] == [f"{value:.3f}" for value in history["loss"]]


@pytest.mark.parametrize(
    ("flags", "precision", "slow"),
    [("avx2 avx512f", "mixed_bfloat16", False), ("avx2", "mixed_bfloat16", True), ("avx2", "float32", False)],
)
def test_the_device_is_told_in_one_line(
    flags: str, precision: str, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prl_keras import startup

    monkeypatch.setattr(startup, "_processor_flags", lambda: f"flags : {flags}")
    line = startup.device(precision)
    assert re.match(rf"Computing on \d+ CPU cores?, {precision}", line)
    assert ("slow" in line) is slow


def test_a_trials_line_folds_only_its_configuration() -> None:
    from prl_keras.tuning.report import trial_header, trial_line

    figures = {"best_epoch": 3.0, "epochs": 7.0, "seconds": 65.0, "balanced": 0.6}
    values = {"head": "mlp", "freeze": False, "learning_rate": 0.00123, "weight_decay": 0.01, "dropout": 0.25}
    trial = SimpleNamespace(
        trial_id="04",
        status="COMPLETED",
        score=0.75,
        message=None,
        hyperparameters=SimpleNamespace(values=values | {"augment": "light"}),
        metrics=SimpleNamespace(metrics=figures, get_last_value=figures.get),
    )
    whole = trial_line(trial, 0.7, 20, ("a",), None).plain
    assert whole.startswith("trial  5 of 20  75.0 % best")
    assert "3 of 7" in whole
    assert "1:05" in whole
    assert whole.endswith("dropout 0.25, augment light (balanced 60.0 %)")
    folded = trial_line(trial, 0.8, 20, ("a",), 79).plain.splitlines()
    assert max(map(len, folded)) <= 79
    assert "best" not in folded[0]
    start = trial_header(20).plain.index("configuration")
    assert {len(line) - len(line[start:].lstrip()) for line in folded} >= {start}
    assert " ".join(line[start:] for line in folded) == whole[start:]
    trial.status, trial.message = "FAILED", "Traceback\nValueError: too much"
    assert "failed" in trial_line(trial, None, 20, ("a",), None).plain
    assert trial_line(trial, None, 20, ("a",), None).plain.endswith("ValueError: too much")


# The real program in a real terminal ---------------------------------------------------------------------


class RealTerminal:
    """A program in a pseudo-terminal, and what its screen shows."""

    def __init__(self, words: list[str], columns: int, rows: int = 60):
        import fcntl
        import pty
        import struct
        import termios

        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            words,
            cwd=ROOT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment | {"TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )
        os.close(slave)

    def read(self) -> Iterator[list[str]]:
        """What is seen after each piece that the program writes."""
        until = time.monotonic() + 240
        while time.monotonic() < until:
            if not select.select([self.master], [], [], 1)[0]:
                continue
            try:
                piece = os.read(self.master, 65536)
            except OSError:  # Linux: the other end is closed
                return
            if not piece:
                return
            self.stream.feed(piece)
            yield lines(self.screen)
        self.process.kill()
        raise AssertionError(f"not finished: {lines(self.screen)}")


def pretraining(epochs: int, runs_dir: Path) -> list[str]:
    words = [sys.executable, "main.py", "pretrain", *TINY, "--width", "0.125", "--batch-size", "16"]
    return [*words, "--epochs", str(epochs), "--name", "pre", "--runs-dir", str(runs_dir)]


pty_only = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")


@pytest.mark.slow
@pty_only
@pytest.mark.parametrize("columns", [80, 140])
def test_the_screen_of_a_real_pretraining(tmp_path: Path, columns: int) -> None:
    terminal = RealTerminal(pretraining(3, tmp_path), columns)
    seen = list(terminal.read())
    assert terminal.process.wait() == 0
    assert any("━" in line and re.search(r" \d/5 ", line) for view in seen for line in view), "a bar within the epoch"
    assert any("validating" in view[-1] for view in seen if view)
    final = seen[-1]
    rows = table("\n".join(final))
    assert [row.split()[0] for row in rows] == ["epoch", "1/3", "2/3", "3/3"]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(rows[0]) <= columns - 3
    assert ("rank" in rows[0]) is (columns == 140)
    assert not any("━" in line or "validating" in line or "preparing" in line for line in final)
    for row, line in zip(rows[1:], Run(tmp_path / "pre").metrics, strict=True):
        assert row.split()[1] == f"{line['loss']:.3f}"
    assert "python main.py finetune" in "".join(final[-4:])


@pytest.mark.slow
@pty_only
def test_a_real_interruption_leaves_its_message_alone(tmp_path: Path) -> None:
    terminal = RealTerminal(pretraining(500, tmp_path), 80)
    asked = False
    for view in terminal.read():
        if not asked and any(line.split()[0] == "2/500" for line in view):
            os.write(terminal.master, b"\x03")
            asked = True
    assert terminal.process.wait() in (130, -signal.SIGINT)
    final = lines(terminal.screen)
    stopped = next(i for i, line in enumerate(final) if line.startswith("stopped: "))
    assert re.match(r"\s*\d+/500 .*\d+:\d\d$", final[stopped - 1]), "the last whole epoch"
    assert not any("━" in line or "^C" in line for line in final)
    assert "to continue: python main.py pretrain" in " ".join(final[stopped:])
    assert not terminal.screen.cursor.hidden
