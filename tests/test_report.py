"""The page of a run: which pictures are in it, that no text is markup, and, in a real browser, that it answers."""

import base64
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_browser import browser_page
from test_evaluate import make_run, write_shades
from test_evaluation import Secret

from prl_keras import load_dataset
from prl_keras.cli import main
from prl_keras.data import Dataset, Split
from prl_keras.errors import InputError
from prl_keras.evaluation.encoded import Encoded
from prl_keras.files import write_json
from prl_keras.reports import gallery as galleries
from prl_keras.reports import run_page
from prl_keras.reports.gallery import gallery_of, sheets, thumbnail_size, thumbnails
from prl_keras.reports.page import MARK, as_script, check_replaceable, page_of
from prl_keras.reports.sections import curves, file_names
from prl_keras.runs import Run

HOSTILE = ["<img src=x onerror=document.title='taken'>", "{{data}} \"quoted\" & 'plain'"]  # names that folders can have
LIMIT = 15e6  # bytes of a page


def dataset_of(images: dict[str, np.ndarray], labels: dict[str, np.ndarray], names: tuple[str, ...]) -> Dataset:
    files = {split: np.array([f"{split}/{i}.png" for i in range(len(rows))]) for split, rows in images.items()}
    parts = (Split(images[split], labels[split], files[split]) for split in ("train", "validation", "test"))
    return Dataset("/some/shades", *parts, names, "0" * 64)


def counted(counts: dict[str, int], side: int = 8, classes: int = 3) -> Dataset:
    """Picture i of a split is all of the shade i."""
    shades = {split: np.arange(n, dtype=np.uint8) for split, n in counts.items()}
    images = {split: np.tile(shade[:, None, None, None], (1, side, side, 3)) for split, shade in shades.items()}
    return dataset_of(images, {split: np.arange(n) % classes for split, n in counts.items()}, ("a", "b", "c"))


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_a_gallery_has_all_that_is_named_and_others_alike_of_each_class() -> None:
    dataset = counted({"train": 90, "validation": 6, "test": 60})
    most = {"train": 12, "validation": 50, "test": 10}
    gallery = gallery_of(dataset, {"train": np.array([88, 1]), "test": np.arange(0, 60, 3)}, most)
    assert {1, 88} <= set(gallery.of("train").tolist())
    assert len(gallery.of("train")) <= 12
    assert np.bincount(gallery.of("train") % 3).min() >= 3
    assert gallery.of("validation").tolist() == list(range(6))
    assert gallery.of("test").tolist() == list(range(0, 60, 3)), "what is named is there, however much it is"
    for split in ("train", "validation", "test"):
        numbers = gallery.numbers(split, gallery.of(split))
        assert gallery.rows[numbers].tolist() == gallery.of(split).tolist()


def test_thumbnail_n_is_at_its_place_on_its_sheet() -> None:
    """More pictures than one sheet holds, of a shape that fills no whole blocks."""
    pictures = [np.full((9, 13, 3), i % 250, np.uint8) for i in range(galleries.COLUMNS * galleries.ROWS + 5)]
    sheet = sheets(iter(pictures))
    assert (sheet["width"], sheet["height"], sheet["cell_width"], sheet["cell_height"]) == (13, 9, 16, 16)
    found = [decoded(uri) for uri in sheet["sheets"]]
    each = sheet["columns"] * sheet["rows"]
    for n in (0, 1, sheet["columns"], each - 1, each, each + 4):
        x, y = n % each % sheet["columns"] * 16, n % each // sheet["columns"] * 16
        tile = found[n // each][y : y + 9, x : x + 13].astype(int)
        assert np.abs(tile - n % 250).max() <= 3, f"{n}: neighbours do not shine through"


def test_thumbnails_are_in_the_gallerys_order_and_never_enlarged() -> None:
    dataset = counted({"train": 5, "validation": 2, "test": 4}, side=80)
    gallery = gallery_of(dataset, {})
    small = list(thumbnails(dataset, gallery))
    assert {picture.shape for picture in small} == {(64, 64, 3)}
    assert [int(picture[0, 0, 0]) for picture in small] == [*range(5), *range(2), *range(4)]
    assert thumbnail_size(28, 28, 10) == (28, 28)
    assert thumbnail_size(96, 48, 20_000) == (32, 16)


def test_file_names_are_bounded_and_the_named_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = counted({"train": 5, "validation": 2, "test": 4})
    gallery = gallery_of(dataset, {})
    assert file_names(dataset, gallery, [10])[10] == "test/3.png"
    assert len(file_names(dataset, gallery, [])) == 11
    monkeypatch.setattr("prl_keras.reports.sections._NAMES", 22)
    assert list(file_names(dataset, gallery, [10, 9, 8])) == [10, 9]


def test_curves_leave_out_what_was_not_measured_and_what_is_no_number() -> None:
    lines = [{"epoch": 1, "loss": 2.0, "val_loss": None}, {"epoch": 2, "loss": float("nan"), "accuracy": 0.5}]
    loss, accuracy = curves(lines)
    assert (loss["epochs"], loss["series"]) == ([1, 2], [{"name": "train", "values": [2.0, None], "dashed": False}])
    assert accuracy["series"][0]["values"] == [None, 0.5]
    assert curves([]) == []


def test_no_text_ends_the_script_or_fills_a_place_of_the_template() -> None:
    text = "</script><!-- <script> {{style}} \u2028 \udcff é"
    page = page_of(text, {"text": text}, [])
    assert page.count("</script>") == 2
    assert "<!--" not in page
    content = page.split('id="data">')[1].split("</script>")[0]
    assert json.loads(content) == {"text": text}
    assert "<" not in as_script([text])
    page.encode("utf-8", "strict") if "\udcff" not in text else as_script([text]).encode("ascii")


def test_only_an_earlier_page_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    check_replaceable(file)
    file.write_text(f"<html>{MARK}")
    check_replaceable(file)
    for make in (lambda: file.write_text("<html>mine"), file.mkdir, lambda: file.symlink_to(tmp_path / "nowhere")):
        file.unlink()
        make()
        with pytest.raises(InputError, match="move it away"):
            check_replaceable(file)
        if file.is_dir():
            file.rmdir()
            file.write_text("")


def test_who_answers_is_chosen_without_the_labels_of_test() -> None:
    dataset = counted({"train": 30, "validation": 9, "test": 6})
    features = {split: np.eye(3, dtype="float32")[getattr(dataset, split).labels] for split in ("train", "validation")}
    hidden = Dataset(dataset.name, dataset.train, dataset.validation, Secret(dataset.test), dataset.class_names, "0")
    answers = run_page._answers(hidden, Encoded(features | {"test": np.eye(3, dtype="float32")}))
    assert answers.test.argmax(axis=1).tolist() == [0, 1, 2]


def test_where_validation_was_trained_on_it_chooses_no_threshold_and_is_judged_by_others() -> None:
    dataset = counted({"train": 60, "validation": 15, "test": 12})
    features = {split: 5 * np.eye(3, dtype="float32")[getattr(dataset, split).labels] for split in galleries.SPLITS}
    wrong = features["validation"][[1, 2, 0, *range(3, 15)]]
    encoded = Encoded(
        features | {"validation": wrong}, {"validation": features["validation"], "test": features["test"]}
    )
    data, _ = run_page.page_data(dataset, encoded, {}, validation_trained_on=True)
    assert data["reject"]["thresholds"] == []
    parts = {part["split"]: part for part in data["doubtful"]}
    assert "cross-validated" in parts["validation"]["how"]
    assert parts["validation"]["found"] == 3, "its own classifier has learned these labels by heart"
    honest, _ = run_page.page_data(dataset, encoded, {})
    assert {part["split"]: part["found"] for part in honest["doubtful"]}["validation"] == 0
    assert honest["reject"]["thresholds"]


@pytest.mark.slow
@pytest.mark.parametrize("classes", [10, 1000])
def test_ten_thousand_pictures_of_noise_are_less_than_15_megabytes(classes: int) -> None:
    rng = np.random.default_rng(0)
    counts = {"train": 12_000, "validation": 2_000, "test": 10_000}
    images = {split: rng.integers(0, 256, (n, 40, 40, 3), np.uint8) for split, n in counts.items()}
    labels = {split: rng.permutation(n) % classes for split, n in counts.items()}
    dataset = dataset_of(images, labels, tuple(f"class number {k}" for k in range(classes)))
    features = {split: rng.normal(size=(n, 16)).astype("float32") for split, n in counts.items()}
    logits = {split: rng.normal(size=(n, classes)) for split, n in counts.items()}
    data, pictures = run_page.page_data(dataset, Encoded(features, logits), {})
    assert data["pictures"]["split"].count(2) == 10_000
    assert len(page_of("noise", data, pictures)) < LIMIT


# A run with names that would be markup, by its command ---------------------------------------------------------------
@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("report")
    data = write_shades(folder / "<b>pets", dict(zip(HOSTILE, (200, 60), strict=True)), train=30, test=16)
    for split, count in (("train", 2), ("test", 3)):  # labels that are wrong
        for i in range(count):
            os.replace(data / split / HOSTILE[0] / f"{i}.png", data / split / HOSTILE[1] / f"wrong{i}.png")
    made = make_run(folder / "runs", "run", data, list(load_dataset(str(data)).class_names), swapped=False)
    lines = [{"epoch": e, "loss": 1 / e, "val_loss": 1.1 / e, "accuracy": 1 - 0.2 / e} for e in range(1, 6)]
    (made.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert main(["report", "run", "--runs-dir", str(folder / "runs")]) == 0
    return made


def data_of(page: Path) -> dict[str, Any]:
    return json.loads(page.read_text(encoding="utf-8").split('id="data">')[1].split("</script>")[0])


def test_the_command_writes_the_page_and_says_what_comes_next(run: Run, capsys: pytest.CaptureFixture) -> None:
    assert main(["report", "run", "--runs-dir", str(run.path.parent)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert f"wrote {run.path / 'report.html'}" in shown
    assert shown[-1].split()[:4] == ["python", "main.py", "evaluate", "run"]
    data = data_of(run.path / "report.html")
    assert np.sum(data["confusions"]["counts"]) == 32
    assert data["answers"]["figure"]["correct"] == np.trace(data["confusions"]["counts"])
    found = [data["files"][str(one["number"])] for part in data["doubtful"] for one in part["shown"]]
    assert len(found) >= 4, "of the five labels that are wrong; one is only as sure as half of the others are"
    assert all(Path(name).name.startswith("wrong") for name in found)


def test_evaluate_writes_the_page_with_its_figures(run: Run, capsys: pytest.CaptureFixture) -> None:
    folder, page = str(run.path.parent), run.path / "report.html"
    assert main(["evaluate", "run", "--runs-dir", folder]) == 0
    assert f"wrote {page}" in capsys.readouterr().out
    data, content = data_of(page), json.loads((run.path / "evaluation.json").read_text(encoding="utf-8"))
    assert {f["name"]: f["correct"] for f in data["figures"] if f["name"] != "classifier"} == {
        name: figure["correct"] for name, figure in content["accuracy"].items() if name != "classifier"
    }
    assert data["answers"]["figure"] == content["accuracy"]["classifier"]
    assert data["confusions"]["counts"] == content["confusion"]["rows_true_columns_predicted"]
    (run.path / "evaluation.json").write_text(json.dumps(content | {"accuracy": {"kNN": {"value": "high"}}}))
    capsys.readouterr()
    assert main(["report", "run", "--runs-dir", folder]) == 2
    assert "evaluation.json is damaged: accuracy.value is 'high'" in capsys.readouterr().err
    write_json(run.path / "evaluation.json", content)


def test_what_the_user_has_under_that_name_stays(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = run.path / "report.html"
    kept = page.read_bytes()
    page.write_text("mine")
    for command in ("report", "evaluate"):
        monkeypatch.setattr(
            "prl_keras.evaluation.encoded.encode_run", lambda *_: pytest.fail("work before the refusal")
        )
        assert main([command, "run", "--runs-dir", str(run.path.parent)]) == 2
        assert "not a page that `report` wrote" in capsys.readouterr().err
    assert page.read_text() == "mine"
    page.write_bytes(kept)


def test_a_run_without_a_classifier_says_who_answers(run: Run, tmp_path: Path) -> None:
    data = Path(run.part("data", "request", "name"))
    encoder = make_run(tmp_path, "encoder", data)
    assert main(["report", "encoder", "--runs-dir", str(tmp_path), "--map-per-class", "4"]) == 0
    shown = data_of(encoder.path / "report.html")
    assert shown["answers"]["how"].startswith("The run has no classifier of its own: the ")
    assert len(shown["map"]["numbers"]) <= 3 * 2 * 4
    assert shown["figures"] == []
    assert main(["report", "encoder", "--runs-dir", str(tmp_path), "--map-per-class", "1"]) == 2


# In a browser ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browser_page() as page:
        yield page.context.browser


def opened(browser: Any, file: Path, width: int, scheme: str = "light") -> tuple[Any, list[str]]:
    """The page, and what must stay empty: errors, words on the console, requests for anything but the page."""
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(error.message))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("request", lambda request: request.url.startswith(("data:", file.as_uri())) or wrong.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("canvas")
    return page, wrong


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), pytest.param(1280, "light", marks=pytest.mark.slow)])
def test_a_page_fits_any_screen_and_asks_for_nothing(run: Run, browser: Any, width: int, scheme: str) -> None:
    page, wrong = opened(browser, run.path / "report.html", width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title() == "run on <b>pets", "no class name has run as a script"
    assert page.locator("header b, th img, .pic img").count() == 0
    text = page.inner_text("body")
    for name in HOSTILE:
        assert name in text
    for heading in page.locator("main h2").all_inner_texts():
        assert heading.strip()
    assert page.locator("figure svg").count() == 4, "loss, accuracy, calibration, reject"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    assert dark == (scheme == "dark")
    assert page.evaluate("[...document.querySelectorAll('button')].every(b => b.innerText.trim() || b.ariaLabel)")
    assert wrong == []
    page.close()


def test_a_cell_shows_its_pictures_and_a_picture_its_neighbours(run: Run, browser: Any) -> None:
    page, wrong = opened(browser, run.path / "report.html", 1280)
    counts = data_of(run.path / "report.html")["confusions"]["counts"]
    cells = page.locator(".matrix button")
    assert cells.count() == np.count_nonzero(counts)
    for cell in cells.all():
        cell.click()
        assert page.locator("#cell .pic").count() == int(cell.inner_text())
        assert cell.get_attribute("aria-pressed") == "true"
    assert page.locator('.matrix [aria-pressed="true"]').count() == 1
    page.locator("#cell .pic").first.click()
    assert page.locator("dialog[open] .pic").count() == 6
    first = page.inner_text("#detail-title")
    page.locator("dialog .pic").first.click()
    assert page.inner_text("#detail-title").startswith("Train picture")
    page.get_by_role("button", name="Back").click()
    assert page.inner_text("#detail-title") == first
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert wrong == []
    page.close()


def test_the_keyboard_reaches_cells_pictures_curves_and_the_map(run: Run, browser: Any) -> None:
    page, wrong = opened(browser, run.path / "report.html", 1280)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator('.matrix button[tabindex="0"]').focus()
    page.keyboard.press("ArrowDown")
    label = page.evaluate("document.activeElement.ariaLabel")
    page.keyboard.press("Enter")
    assert page.locator("#cell h3").inner_text().split(" taken for ")[0].split(", answered")[0] in label
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    page.locator("figure svg").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#curves output").first.inner_text() == "epoch 2: train 0.5000, validation 0.5500"
    page.locator("canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    assert page.locator(".tip").is_visible()
    assert re.search(r"picture \d+: ", page.locator("#map output").inner_text())
    page.keyboard.press("Enter")
    assert page.locator("dialog[open]").count() == 1
    assert wrong == []
    page.close()


def test_the_map_answers_to_the_pointer_and_can_be_coloured(run: Run, browser: Any) -> None:
    page, wrong = opened(browser, run.path / "report.html", 1280)
    canvas = page.locator("canvas")
    canvas.scroll_into_view_if_needed()
    shot = canvas.screenshot()
    box = canvas.bounding_box()
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
    coloured = np.argwhere(pixels.max(axis=-1) - pixels.min(axis=-1) > 60)
    y, x = coloured[len(coloured) // 2]
    canvas.hover(position={"x": float(x) * box["width"] / pixels.shape[1], "y": float(y) * box["height"] / len(pixels)})
    assert page.locator(".tip").is_visible()
    assert page.locator(".tip i.thumb").evaluate("node => node.style.backgroundPosition")
    page.mouse.move(2, 2)
    assert not page.locator(".tip").is_visible()
    for way, groups in (("split", ["train", "validation", "test"]), ("error", ["right", "wrong"])):
        page.select_option("#map-colour", way)
        assert page.locator(".legend .button").all_inner_texts() == groups
    page.check("#map-pictures")
    page.locator(".legend .button").nth(1).click()
    page.wait_for_timeout(200)
    assert canvas.screenshot() != shot
    assert wrong == []
    page.close()
