"""Any name of a class, any number of classes: every picture is drawn, says the names as they are, and stays small."""

import json
import re
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from prl_keras.errors import InputError
from prl_keras.experiments import figures as report
from prl_keras.experiments.analysis import Analysis, RowFigures
from prl_keras.experiments.page import to_html
from prl_keras.experiments.table import ROWS
from prl_keras.visualization.canvas import new_figure, save_figure
from prl_keras.visualization.confusion import most_confused, plot_confusion
from prl_keras.visualization.embeddings import joint_map, map_quality
from prl_keras.visualization.figures import MapPanel, class_colours, plot_maps, plot_training
from prl_keras.visualization.projector import category_names
from prl_keras.visualization.sample import MOST, balanced_rows, shown_classes
from prl_keras.visualization.text import class_labels, drawable, shortened

FORMULA = r"a $\frac$ b"
UGLY = (
    FORMULA,
    "_hidden",
    "tab\tnew\nline",
    "猫",
    "犬",
    "🐈",
    "x" * 300,
    "",
    "%d %s {0}",
    "עברית",
    "\u202eflip",
    "a b",
    "a\tb",
)
UGLY += ("<script>alert(1)</script>", "|`*_#[]", "$$", "$x^2$", "\x1b[31mred\x07", "\ud800", "\\", "5", "nan")


@pytest.fixture(autouse=True)
def _no_warnings() -> Any:
    """A warning would be on the user's stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def texts_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the pictures drawn from now on will say."""
    said: list[str] = []
    saved = Figure.savefig

    def savefig(figure: Figure, *args: Any, **kwargs: Any) -> None:
        saved(figure, *args, **kwargs)
        said.extend(text.get_text() for text in figure.findobj(Text) if text.get_visible())

    monkeypatch.setattr(Figure, "savefig", savefig)
    return said


def pixels(file: Path) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.size


def confusions(classes: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(2 / classes, (classes, classes)) + np.diag(rng.integers(1, 20, classes))


def panel(positions: np.ndarray, labels: np.ndarray, classes: int) -> MapPanel:
    return MapPanel("after training, test", positions, labels, np.zeros((classes, 2)), {"silhouette": 0.5})


# Names ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_picture_says_ugly_names_and_warns_of_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = texts_of(monkeypatch)
    plot_confusion(confusions(len(UGLY)), UGLY, f"{FORMULA}: test", tmp_path / "confusion.png")
    assert {FORMULA, "_hidden", "tab new line", "(no name)", "%d %s {0}", "$x^2$", "a b", "a b (2)"} <= set(said)
    assert f"{FORMULA}: test" in said
    said.clear()
    few, places = UGLY[:20], np.random.default_rng(0).normal(size=(40, 2))
    plot_maps([[panel(places, np.arange(40) % 20, 20)]], few, FORMULA, tmp_path / "maps.png")
    assert {FORMULA, "_hidden", "(no name)", "<script>alert(1)</script>", "prototype"} <= set(said)
    said.clear()
    report._classes(analysis(len(UGLY)), dataset(UGLY), tmp_path / "classes.svg")
    report._confusion(analysis(len(UGLY)), dataset(UGLY), tmp_path / "confusion.svg")
    assert said.count(FORMULA) >= 1 + 2 * 2


def test_a_users_matplotlibrc_does_not_bring_formulas_back(tmp_path: Path) -> None:
    from matplotlib import rc_context

    with rc_context({"text.parse_math": True, "text.usetex": True}):
        plot_confusion(confusions(2), (FORMULA, "b"), "$", tmp_path / "c.png")
    assert pixels(tmp_path / "c.png")


@given(st.lists(st.text(max_size=40) | st.sampled_from(UGLY), min_size=2, max_size=5))
@settings(max_examples=6)
def test_any_names_can_be_drawn_as_png_and_svg(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        figure, axes = new_figure(2, 2)
        axes.set_xticks(range(len(names)), class_labels(names))
        axes.set_title(drawable(names[0]))
        save_figure(figure, Path(folder) / "deep" / "p.svg")
        save_figure(figure, Path(folder) / "deep" / "p.png")
        ElementTree.parse(Path(folder) / "deep" / "p.svg")


@given(st.lists(st.text(max_size=60) | st.sampled_from(UGLY), max_size=20))
def test_labels_are_short_single_lines_and_no_two_are_alike(names: list[str]) -> None:
    labels = class_labels(names, 24)
    assert len(set(labels)) == len(labels) == len(names)
    assert all(label and label.isprintable() and len(label) <= 24 + len(" (20)") for label in labels)


def test_long_names_keep_both_ends() -> None:
    assert shortened("ends differ: one", 20) == "ends differ: one"
    assert shortened("a" * 50 + "1", 9) == "aaaa…aaa1"
    assert (
        len({shortened(f"{k}{'x' * 90}", 24) for k in range(9)} | {shortened(f"{'x' * 90}{k}", 24) for k in range(9)})
        == 18
    )


def test_characters_that_no_font_has_are_boxes() -> None:
    assert drawable("a\U000f0000b") == "a□b"


@given(st.lists(st.text(max_size=20) | st.sampled_from(UGLY), min_size=1, max_size=10))
def test_the_projector_takes_no_class_name_for_a_number_or_a_new_column(names: list[str]) -> None:
    categories = category_names(names)
    assert len(set(categories)) == len(names)
    for name in categories:
        assert name == name.strip()
        assert not re.search(r"[\t\n\r\v\f\x00-\x1f\u2028\u2029]", name)
        assert name  # JavaScript: an empty cell is 0
        assert not is_number(name)


def is_number(word: str) -> bool:
    """Of JavaScript's, what Python takes for one too."""
    if "_" in word or word.lower().strip("+-") in ("nan", "inf", "infinity"):
        return word.strip("+-") == "Infinity"
    for parse in (float, lambda text: int(text, 0)):
        with suppress(ValueError):
            parse(word)
            return True
    return word == ""


@pytest.mark.parametrize("name", ["7", "-1.5", ".5", "1e5", "0x1F", "0b11", "Infinity", "", " 3 "])
def test_what_javascript_takes_for_a_number_becomes_a_word(name: str) -> None:
    assert category_names([name, "cat"]) == [f"class {name.strip()}".strip(), "cat"]


@given(st.text(max_size=80) | st.sampled_from(UGLY) | st.sampled_from(["![x](/etc/passwd)", "![x](http://e/x.png)"]))
def test_no_text_on_a_page_becomes_html_or_fetches_anything(tmp_path_factory: Any, text: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    page = to_html(f"# A {text}\n\n## B {text}\n\n| a | {text} |\n| --- | --- |\n| {text} | b |\n\n{text}\n", folder)
    assert not re.search(r"<(script|iframe|object|link|img)\b", page)
    assert page.count("<title>") == page.count("</html>") == 1


def test_a_page_needs_no_heading_and_takes_the_whole_of_one(tmp_path: Path) -> None:
    assert "<title>report</title>" in to_html("text", tmp_path)
    assert "<title>a b c</title>" in to_html("# a `b` *c*", tmp_path)


# Many classes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [30, 1_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 31))])
def test_a_confusion_matrix_is_at_most_twelve_inches(tmp_path: Path, classes: int, monkeypatch: Any) -> None:
    said = texts_of(monkeypatch)
    file = plot_confusion(confusions(classes), tuple(map(str, range(classes))), "run: test", tmp_path / "c.png")
    assert max(pixels(file)) < 12.7 * 130
    assert ("the 30 of" in "\n".join(said)) == (classes > 30)


def test_of_many_classes_those_that_are_taken_for_each_other_are_drawn() -> None:
    matrix = np.diag(np.full(200, 50))
    pairs = [(150, 3), (7, 199), (199, 8)]
    for true, predicted in pairs:
        matrix[true, predicted] = 9
    chosen = most_confused(matrix)
    assert len(chosen) == 30
    assert {k for pair in pairs for k in pair} <= set(chosen.tolist())
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert most_confused(np.diag(np.ones(200, int))).tolist() == list(range(30))
    assert most_confused(matrix[:30, :30]).tolist() == list(range(30))


def test_maps_of_a_thousand_classes_have_no_legend_and_colours_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = texts_of(monkeypatch)
    labels = np.arange(2_000) % 1_000
    places = np.random.default_rng(0).normal(size=(2_000, 2))
    file = plot_maps([[panel(places, labels, 1_000)] * 2], tuple(map(str, labels[:1_000])), "t", tmp_path / "m.png")
    assert max(pixels(file)) < 12 * 130
    assert "1,000 classes: too many to name" in "\n".join(said)
    assert "prototype" not in said
    assert len(np.unique(class_colours(1_000), axis=0)) == 1_000


@pytest.mark.slow
def test_the_report_draws_the_hardest_of_a_thousand_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = texts_of(monkeypatch)
    names = tuple(f"n{k:04}" for k in range(1_000))
    hard = analysis(1_000)
    for f in hard.rows:
        f.confusion[:] = np.diag(np.full(1_000, 9))
        f.confusion[444] = np.eye(1_000, dtype=int)[777] * 9
    for draw in (report._classes, report._confusion):
        said.clear()
        assert max(pixels(draw(hard, dataset(names), tmp_path / "p.png"))) < 21 * 130
        assert "n0444" in said
        assert len([text for text in said if text.startswith("n0")]) < 130
        assert "of 1,000 classes" in "\n".join(said)


def test_a_class_without_test_images_is_a_dash_and_not_nought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = texts_of(monkeypatch)
    monkeypatch.setattr(
        RowFigures, "per_class", property(lambda f: np.array([np.nan, *np.full(len(f.confusion) - 1, 0.5)]))
    )
    report._classes(analysis(4), dataset(("a", "b", "c", "d")), tmp_path / "p.svg")
    assert said.count("-") == len(analysis(4).rows)
    assert said.count("50") >= 3 * said.count("-")
    said.clear()
    matrix = confusions(3)
    matrix[1] = 0
    plot_confusion(matrix, ("a", "b", "c"), "t", tmp_path / "c.png")
    colours = np.asarray(Image.open(tmp_path / "c.png").convert("RGB")).reshape(-1, 3)
    assert (np.abs(colours.astype(int) - 217).max(axis=1) <= 1).mean() > 0.1  # a grey row


def test_no_side_of_a_figure_is_longer_than_twenty_inches(tmp_path: Path) -> None:
    figure, _ = new_figure(500, 300)
    assert max(figure.get_size_inches()) <= 20


def test_a_search_over_many_encoders_with_long_names_stays_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prl_keras.tuning.figures.TREES", 20)
    monkeypatch.setattr("prl_keras.tuning.figures.REPEATS", 3)
    from prl_keras.tuning.figures import plot_importance, plot_parallel
    from prl_keras.tuning.report import Row
    from prl_keras.tuning.space import PAPER

    rng = np.random.default_rng(0)
    rows = []
    for i, right in enumerate(rng.integers(50, 99, 120)):
        values = PAPER | {
            "encoder": f"runs/{FORMULA} {'long ' * 20}{i}",
            "head": ("linear", "mlp")[i % 2],
            "freeze": True,
        }
        rows.append(Row(i + 1, values, {"value": right / 100, "correct": int(right)}, 1, 1, 1.0))
    assert max(pixels(plot_parallel(rows, FORMULA, tmp_path / "parallel.png"))) < 13 * 130
    assert max(pixels(plot_importance(rows, "r" * 100, tmp_path / "importance.png"))) < 13 * 130


def test_a_sample_is_even_and_bounded() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(1_000), 30))
    rows = balanced_rows(labels, 100)
    assert len(rows) == MOST
    assert set(np.bincount(labels[rows])) == {2}
    order = np.random.default_rng(1).permutation(len(labels))
    drawn = balanced_rows(labels, 1, order)
    first = [next(row for row in order if labels[row] == k) for k in range(0, 1_000, 100)]
    assert set(first) <= set(drawn.tolist())
    many = np.arange(5_000)[::-1].copy()
    assert sorted(many[balanced_rows(many, 100)]) == list(range(MOST))
    assert shown_classes(many[balanced_rows(many, 100)], 5_000).tolist() == list(range(MOST))
    assert balanced_rows(np.array([1, 1, 0]), 100).tolist() == [0, 1, 2]
    assert balanced_rows(np.array([], int), 5).tolist() == []


def test_prototypes_that_are_not_shown_are_nowhere_on_the_map() -> None:
    features = np.random.default_rng(0).normal(size=(20, 5)).astype("float32")
    positions, prototypes = joint_map(features, np.ones((7, 5), "float32"), np.array([1, 4]))
    assert positions.shape == (20, 2)
    assert np.isfinite(prototypes).all(axis=1).tolist() == [False, True, False, False, True, False, False]


# Figures beside the maps ---------------------------------------------------------------------------------


def clear_classes(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).normal(size=(len(labels), 30)) + 50 * np.eye(30)[labels], labels


@pytest.mark.parametrize(
    ("counts", "given"),
    [
        ([4] * 12, {"silhouette", "trustworthiness"}),  # 10 neighbours, 3 of them of the class: "4.2 %" said nothing
        ([10] * 3, {"silhouette", "trustworthiness"}),
        ([11] * 3, {"silhouette", "trustworthiness", "knn_accuracy"}),
        ([40, 40, 3], {"silhouette", "trustworthiness"}),
        ([40, 1], {"trustworthiness"}),
        ([1] * 30, {"trustworthiness"}),
        ([60], {"trustworthiness"}),
        ([10, 10], {"silhouette"}),
    ],
)
def test_no_figure_where_right_neighbours_are_too_few(counts: list[int], given: set[str]) -> None:
    features, labels = clear_classes(counts)
    quality = map_quality(features, labels, features[:, :2])
    assert {key for key, value in quality.items() if value is not None} == given
    assert quality["knn_accuracy"] in (None, 1)


def test_old_maps_of_a_table_lose_figures_of_too_few_images() -> None:
    from prl_keras.experiments.maps import _panel

    labels = np.repeat(np.arange(12), 4)
    content = {"test": np.zeros((48, 2)), "test_labels": labels, "prototypes": np.zeros((12, 2))}
    quality = _panel("query", content | {"test_quality": np.array([0.8, 0.042, 0.9])}, "test").quality
    assert quality == {"silhouette": 0.8, "knn_accuracy": None}


# Learning curves -----------------------------------------------------------------------------------------


def curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Label in the legend -> heights."""
    drawn: dict[str, list[float]] = {}
    monkeypatch.setattr(
        "prl_keras.visualization.figures.save_figure",
        lambda figure, file: drawn.update(
            {f"{at} {line.get_label()}": list(line.get_ydata()) for at, a in enumerate(figure.axes) for line in a.lines}
        ),
    )
    plot_training(SimpleNamespace(metrics=lines, name="run", path=tmp_path))
    return drawn


def test_chance_of_training_and_of_validation_are_two_lines_where_they_differ(tmp_path: Path, monkeypatch: Any) -> None:
    line = {"loss": 2.0, "val_loss": 2.1, "accuracy": 0.5, "val_accuracy": 0.4}
    chance = {"chance_loss": 2.3, "chance_val_loss": 1.9, "chance_accuracy": 0.1, "chance_val_accuracy": 0.1}
    drawn = curves(tmp_path, monkeypatch, [{"epoch": e} | line | chance for e in (1, 2)])
    assert drawn["0 chance, train"] == [2.3, 2.3]
    assert drawn["0 chance, validation"] == [1.9, 1.9]
    assert drawn["1 chance"] == [10, 10]


def test_figures_of_nothing_are_gaps_and_columns_of_nothing_are_left_out(tmp_path: Path, monkeypatch: Any) -> None:
    lines = [{"epoch": e, "loss": 2.0, "val_loss": None if e == 2 else 1.0, "accuracy": 0.5} for e in (1, 2, 3)]
    lines = [
        line | {"val_accuracy": None, "chance_val_accuracy": 0.1, "val_prototype_accuracy": 0.25} for line in lines
    ]
    drawn = curves(tmp_path, monkeypatch, [*lines[:1], {"epoch": 1.5, "loss": 2.0}, *lines[1:]])  # one not validated
    assert np.array_equal(drawn["0 validation"], [1.0, np.nan, 1.0], equal_nan=True)
    assert drawn["1 validation, nearest prototype"] == [25, 25, 25]
    assert set(drawn) == {"0 train", "0 validation", "1 train, in its batch", "1 validation, nearest prototype"}


def test_metrics_of_old_versions_are_drawn(tmp_path: Path, monkeypatch: Any) -> None:
    lines = [{"epoch": 1, "loss": 2.0, "val_loss": 2.1, "accuracy": 0.5, "val_accuracy": 0.5, "chance_loss": 2.3}]
    assert curves(tmp_path, monkeypatch, lines)["0 chance"] == [2.3, 2.3]
    assert set(curves(tmp_path, monkeypatch, [{"epoch": 1, "loss": None}])) == set()
    monkeypatch.undo()
    plot_training(SimpleNamespace(metrics=[{"epoch": 1, "loss": None}], name="run", path=tmp_path))
    assert pixels(tmp_path / "plots" / "training.png")


def test_curves_and_reliability_of_a_report_may_have_nothing_to_show(tmp_path: Path) -> None:
    rows = analysis(3)
    for f in rows.rows:
        f.calibration["counts"] = [3, 3]
    assert report._reliability(rows, tmp_path / "r.svg") is None
    _, axes = new_figure(3, 3)
    report._band(
        axes, [[{"epoch": 1, "k": None}, {"epoch": 2, "k": 0.5}], [{"epoch": 1, "k": 1}, {"epoch": 2}]], "k", "l", "b"
    )
    report._band(axes, [[{"epoch": 1, "k": 0.25}, {"epoch": 2, "k": None}]], "k", "l", "b")
    assert [line.get_ydata()[0] for line in axes.lines] == [25]


# Where pictures go ---------------------------------------------------------------------------------------


def test_a_file_in_the_way_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("mine")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for name in ("plots", "plots/deeper", "gone"):
        with pytest.raises(InputError, match="is in the way"):
            save_figure(new_figure(1, 1)[0], tmp_path / name / "p.png")
    assert (tmp_path / "plots").read_text() == "mine"
    save_figure(new_figure(1, 1)[0], tmp_path / "a" / "b" / "p.png")


# A report without training -------------------------------------------------------------------------------


def dataset(names: tuple[str, ...]) -> Any:
    return SimpleNamespace(name="d", label="d", class_names=names, num_classes=len(names))


def analysis(classes: int) -> Analysis:
    rows = []
    for row in list(ROWS.values() if isinstance(ROWS, dict) else ROWS)[:3]:
        matrix = confusions(classes, len(rows))
        accuracy = {
            split: {"mean": 0.8 - len(rows) / 100, "low": 0.7, "high": 0.9, "values": [0.8], "sd": 0.0}
            for split in ("train", "validation", "test")
        }
        calibration = {"confidence": [0.5, 0.9], "accuracy": [0.4, 0.8], "counts": [30, 50], "eces": [0.1]}
        run = SimpleNamespace(metrics=[{"epoch": 1, "val_accuracy": 0.5}])
        interval = {"low": 0.7, "high": 0.9}
        rows.append(RowFigures(row, [run], accuracy, np.ones((1, 9), bool), interval, matrix, calibration, {}, None))
    return Analysis(Path(), rows, [SimpleNamespace(fold=None)], 9, {}, {})


# A thousand classes, from the command line ---------------------------------------------------------------

THOUSAND = """
import json, resource, sys
from pathlib import Path
import numpy as np
from PIL import Image
sys.path.insert(0, sys.argv[1])
from tests.conftest import small_network
from prl_keras.cli import main

folder = Path(sys.argv[2])
rng = np.random.default_rng(0)
for k in range(1000):
    colour = rng.integers(0, 256, 3)
    for split, count in (("train", 4), ("test", 2)):
        target = folder / "data" / split / f"class {k:04}"
        target.mkdir(parents=True)
        for i in range(count):
            noise = rng.integers(-9, 10, (16, 16, 3))
            Image.fromarray(np.clip(colour + noise, 0, 255).astype("uint8")).save(target / f"{i}.png")
runs = ["--runs-dir", str(folder / "runs")]
with small_network():
    words = ["pretrain", "--dataset", str(folder / "data"), "--variant", "supcon", "--epochs", "1", "--name", "p"]
    codes = [main([*words, "--batch-size", "500", *runs])]
    codes += [main(["evaluate", "p", *runs]), main(["visualize", "p", *runs])]
print("MEASURED", json.dumps([codes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


@pytest.mark.slow
def test_a_thousand_classes_need_less_than_four_gigabytes(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", THOUSAND, str(root), str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    codes, peak = json.loads(done.stdout.splitlines()[-1].removeprefix("MEASURED "))
    assert codes == [0, 0, 0]
    assert peak < 4e9
    assert "Showing 5,000 of the 6,000 images that --samples-per-class 100 asks for" in done.stdout
    for file in (tmp_path / "runs" / "p" / "plots").glob("*.png"):
        assert max(pixels(file)) < 2_700, file
    assert max(pixels(tmp_path / "runs/p/logs/projector/after-all/sprite.png")) <= 8192
