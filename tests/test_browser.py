"""A real TensorBoard on loopback, asked over HTTP and opened in a real headless Chromium."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FEATURES

from prl_keras.cli import main

RUN = "pre"
EMBEDDING = f"{RUN}/logs/projector/after-all"


@pytest.fixture(scope="module")
def runs_dir(trained: Path) -> Path:
    """A pre-trained and a fine-tuned run, both looked at, and one evaluated."""
    common = ["--runs-dir", str(trained)]
    assert main(["visualize", RUN, "--before", "--samples-per-class", "4", *common]) == 0
    assert main(["visualize", "tuned", "--split", "test", "--samples-per-class", "4", *common]) == 0
    assert main(["evaluate", "tuned", *common]) == 0
    return trained


@pytest.fixture(scope="module")
def tensorboard(runs_dir: Path) -> Iterator[str]:
    with serving(runs_dir, projectors=3) as url:
        yield url


@contextmanager
def serving(folder: Path, projectors: int) -> Iterator[str]:
    """The address of a TensorBoard that has found all runs of the folder, so many of them with embeddings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    )
    url = f"http://127.0.0.1:{port}"
    try:
        runs = {file.parent.relative_to(folder).as_posix() for file in folder.rglob("events.out.tfevents.*")}
        _wait(lambda: len(get(url, "projector/runs")) == projectors and runs == set(_runs(url)), process)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _runs(url: str) -> list[str]:
    with urllib.request.urlopen(f"{url}/data/runs") as answer:
        return json.loads(answer.read())


def _wait(ready: Any, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        assert process.poll() is None, "TensorBoard ended"
        try:
            if ready():
                return
        except OSError:  # not listening yet
            pass
        assert time.monotonic() < end, "TensorBoard did not get ready"
        time.sleep(0.5)


def get(url: str, route: str, raw: bool = False, **query: str) -> Any:
    with urllib.request.urlopen(f"{url}/data/plugin/{route}?{urllib.parse.urlencode(query)}") as answer:
        content = answer.read()
    return content if raw else json.loads(content)


def test_the_projector_lists_each_embedding_of_each_run(tensorboard: str) -> None:
    assert sorted(get(tensorboard, "projector/runs")) == [
        EMBEDDING,
        f"{RUN}/logs/projector/before-all",
        "tuned/logs/projector/after-test",
    ]


def test_the_projector_serves_vectors_metadata_sprite_and_bookmark_that_fit(tensorboard: str, runs_dir: Path) -> None:
    (info,) = get(tensorboard, "projector/info", run=EMBEDDING)["embeddings"]
    points, dim = info["tensorShape"]
    assert (points, dim) == (3 * 40 + 10, FEATURES)
    name = info["tensorName"]
    tensor = np.frombuffer(get(tensorboard, "projector/tensor", raw=True, run=EMBEDDING, name=name), "<f4")
    assert tensor.size == points * dim
    assert np.isfinite(tensor).all()
    table = get(tensorboard, "projector/metadata", raw=True, run=EMBEDDING, name=name).decode()
    header, *rows = [line.split("\t") for line in table.splitlines()]
    assert header == ["class", "kind", "split", "predicted", "correct", "confidence", "index"]
    assert len(rows) == points
    assert {row[0] for row in rows} == {f"class {k}" for k in range(10)}
    assert [row[1] for row in rows] == ["prototype"] * 10 + ["image"] * 120
    assert [row[2] for row in rows[10:]] == ["train"] * 40 + ["validation"] * 40 + ["test"] * 40
    for row in rows[10:]:
        assert (row[4] == "yes") == (row[0] == row[3])
        assert 0.1 <= float(row[5]) <= 1
    sprite = get(tensorboard, "projector/sprite_image", raw=True, run=EMBEDDING, name=name)
    assert sprite == (runs_dir / EMBEDDING / "sprite.png").read_bytes()
    (bookmark,) = get(tensorboard, "projector/bookmarks", run=EMBEDDING, name=name)
    assert bookmark["dataSetDimensions"] == [points, dim]


def test_scalars_of_an_epoch_are_the_lines_of_metrics_jsonl(tensorboard: str, runs_dir: Path) -> None:
    lines = [json.loads(line) for line in (runs_dir / RUN / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for name, tag, key in [
        ("train", "loss", "loss"),
        ("chance", "loss", "chance_loss"),
        ("validation", "loss", "val_loss"),
        ("validation", "prototype_accuracy", "val_prototype_accuracy"),
        ("validation", "knn_accuracy", "val_knn_accuracy"),
        ("validation", "effective_rank", "val_effective_rank"),
        ("validation", "class_spread", "val_class_spread"),
        ("train", "learning_rate", "learning_rate"),
        ("train", "images_per_second", "images_per_second"),
    ]:
        series = get(tensorboard, "scalars/scalars", run=f"{RUN}/logs/{name}", tag=f"epoch/{tag}")
        assert [step for _, step, _ in series] == [1, 2]
        assert [value for _, _, value in series] == pytest.approx([line[key] for line in lines])


def test_the_loss_of_every_step_averages_to_that_of_the_epoch(tensorboard: str, runs_dir: Path) -> None:
    series = get(tensorboard, "scalars/scalars", run=f"{RUN}/logs/train", tag="step/loss")
    steps, values = [row[1] for row in series], [row[2] for row in series]
    assert steps == [1, 2, 3, 4]  # 80 images in batches of 32, two epochs
    lines = [json.loads(line) for line in (runs_dir / RUN / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert np.mean(values[:2]) == pytest.approx(lines[0]["loss"], rel=1e-4)
    assert np.mean(values[2:]) == pytest.approx(lines[1]["loss"], rel=1e-4)


def test_views_configuration_and_confusion_matrix_are_there(tensorboard: str) -> None:
    images = get(tensorboard, "images/tags")
    assert any(tag.startswith("views: image, ") for tag in images[f"{RUN}/logs/run"])
    assert "confusion" in images["tuned/logs/run"]
    assert "config" in get(tensorboard, "text/tags")[f"{RUN}/logs/run"]


def test_hparams_compare_fine_tuned_runs_on_validation_only(tensorboard: str) -> None:
    request = urllib.request.Request(
        f"{tensorboard}/data/plugin/hparams/experiment", b"{}", {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        experiment = json.loads(answer.read())
    assert {"head", "freeze", "learning_rate", "dropout"} <= {hparam["name"] for hparam in experiment["hparamInfos"]}
    tags = get(tensorboard, "scalars/tags")["tuned/logs/run"]
    assert "validation_accuracy" in tags
    assert not any("test" in tag for tag in tags)


@contextmanager
def browser_page() -> Iterator[Any]:
    """A page of the system's Chromium; the test is skipped where there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on the PATH (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1400, "height": 900})
        browser.close()


def test_a_browser_shows_labelled_points_with_thumbnails(runs_dir: Path, tmp_path: Path) -> None:
    """Of one run alone, before and after: the page opens with whichever embedding TensorBoard happens to list first."""
    from PIL import Image

    with serving(runs_dir / RUN, projectors=2) as tensorboard, browser_page() as page:
        errors = []
        page.on("pageerror", lambda error: errors.append(error.message))
        page.goto(f"{tensorboard}/#projector")
        projector = page.frame_locator("iframe").frame_locator("iframe")
        projector.get_by_text("Points: 130").wait_for(timeout=60_000)
        assert projector.get_by_text("2 runs found").count() == 1
        projector.locator(".state-radio paper-icon-button").click()  # the bookmark
        for k in range(10):
            projector.locator("vz-projector-data-panel").get_by_text(f"class {k}", exact=True).first.wait_for()
        projector.get_by_text(re.compile(r"Iteration: [1-9]")).wait_for(timeout=90_000)  # its t-SNE runs
        file = Path(os.environ.get("PRL_SCREENSHOT", tmp_path / "projector.png"))
        page.screenshot(path=file)
    assert not errors
    scene = np.asarray(Image.open(file).convert("RGB"))[150:850, 330:1060]
    saturation = scene.max(axis=-1).astype(int) - scene.min(axis=-1)
    assert (saturation > 60).mean() > 0.02  # colours of the classes
    assert len(np.unique(scene.reshape(-1, 3), axis=0)) > 200  # shades of the thumbnails, not only flat points


@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.slow), 390])
def test_the_page_of_a_trained_run_shows_its_curves_and_asks_for_nothing(runs_dir: Path, width: int) -> None:
    """As `evaluate` left it; more of such pages in test_report."""
    file = runs_dir / "tuned" / "report.html"
    with browser_page() as page:
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(error.message))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda request: wrong.append(request.url))
        page.set_viewport_size({"width": width, "height": 844})
        page.goto(file.as_uri())
        assert page.locator("#curves svg").count() == 2
        assert page.locator("#figures tbody tr").count() == 3 + 6, "three splits, six classifiers on features"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [url for url in wrong if not url.startswith("data:")] == [file.as_uri()]


def test_a_report_opens_in_a_browser_without_a_network(tmp_path: Path) -> None:
    """All pictures are shown, nothing is fetched, and a laptop's screen is wide enough."""
    from prl_keras.experiments.page import to_html
    from prl_keras.visualization.figures import new_figure, save_figure

    text = "# A & B\n\n## One two\n\n| a | b |\n| :--- | ---: |\n| <b>x</b> | 1 |\n\n"
    for suffix in ("svg", "png"):
        figure, axes = new_figure(14, 3)
        axes.plot([1, 2])
        save_figure(figure, tmp_path / f"p.{suffix}")
        text += f"![p](p.{suffix})\n\n"
    page_file = tmp_path / "report.html"
    page_file.write_text(to_html(text, tmp_path), encoding="utf-8")
    for suffix in ("svg", "png"):
        (tmp_path / f"p.{suffix}").unlink()
    with browser_page() as page:
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.set_viewport_size({"width": 1366, "height": 768})
        page.goto(page_file.as_uri())
        assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
        assert page.title() == "A & B"
        assert page.inner_text("td") == "<b>x</b>"
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("document.images.length") == 2
        assert page.evaluate("document.documentElement.scrollWidth") <= 1366
        page.click("nav a")
        assert page.url.endswith("#one-two")
