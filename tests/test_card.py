"""card.md says what the records of a run say, and keeps what its reader wrote into it."""

import copy
import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_hostile import CONFIG, ODD, RESULT

from prl_keras.errors import InputError
from prl_keras.files import write_json
from prl_keras.runs import Run, create_run
from prl_keras.runs.card import write_card

WORST = {"class": 1, "value": 0.25, "correct": 1, "n": 4}
FIGURE = {"value": 0.5, "low": 0.4, "high": 0.6, "correct": 500, "n": 1000, "balanced": 0.45, "worst": WORST}
NAMES = ["cat", "**dog** | <script>\n# x", *"23456789"]


def made(folder: Path, command: str = "finetune", result: dict[str, Any] | None = None, **options: Any) -> Run:
    """A finished run with a card."""
    config = copy.deepcopy(CONFIG) | {"command": command}
    config["options"] |= {"head": "mlp", "freeze": True, "encoder": "/home/someone/secret/pre"} | options
    config["data"] |= {"class_names": NAMES}
    config["data"]["request"] |= {"name": "/home/someone/secret/pets_2", "labels": "/home/someone/secret/labels.csv"}
    run = create_run(folder, "my_run", config)
    write_json(run.path / "result.json", result or {**RESULT, "accuracy": {"test": FIGURE, "validation": FIGURE}})
    if command != "pretrain":
        (run.prototypes_file if command == "teach" else run.classifier_file).touch()
    assert write_card(run) == run.path / "card.md"
    return run


def card(run: Run) -> str:
    return (run.path / "card.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """Cells of the table as a Markdown reader sees them."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark", {"html": False}).enable("table").parse(text.split("---\n", 2)[2])
    cells = [token for before, token in pairwise(tokens) if before.type in ("th_open", "td_open")]
    texts = ["".join(child.content for child in cell.children) for cell in cells]
    return [texts[at : at + 6] for at in range(0, len(texts), 6)]


def test_figures_have_their_interval_and_n(tmp_path: Path) -> None:
    head, test, validation = rows(card(made(tmp_path)))
    assert head == ["accuracy on", "%", "95 % interval", "n", "balanced %", "worst class"]
    assert test == ["test, the classifier", "50.0", "40.0 - 60.0", "1,000", "45.0", "25.0 % **dog** | <script> # x"]
    assert validation[0] == "validation, the classifier"


def test_what_it_says_of_each_kind_of_run(tmp_path: Path) -> None:
    tuned = card(made(tmp_path / "a"))
    assert "A classifier of images: a mlp head on the encoder of source, frozen, by" in tuned
    assert "1,000 test, 1,000 validation" in tuned
    assert "samples_per_class 12".replace("_", "\\_") in tuned
    pre = card(
        made(tmp_path / "b", "pretrain", {"epochs": 3, "saved_encoder": {"val_prototype": FIGURE}}, variant="prl")
    )
    assert "pre-trained with `prl`" in pre
    assert rows(pre)[1][:4] == ["validation, nearest prototype", "50.0", "40.0 - 60.0", "1,000"]
    assert "pipeline_tag: image-feature-extraction" in pre
    assert "resnet18, trained from scratch" in card(made(tmp_path / "c", "baseline", model="resnet18"))
    bare = card(made(tmp_path / "d", "pretrain", {"epochs": 3, "saved_encoder": {}}))
    assert "No accuracy has been measured" in bare
    assert "Licence of the images: not known to prl-keras" in tuned
    assert "It answers with one of its classes" in tuned
    assert "It answers with" not in pre
    for text in (tuned, pre, bare):
        assert text.startswith("---\nlicense: unknown\n")
        assert "secret" not in text, "of this computer's paths only the last part"
        assert "pets\\_2" in text


@pytest.mark.parametrize("threshold", [None, -3.5])
def test_a_taught_run_without_a_threshold_shows_nothing_that_raises(tmp_path: Path, threshold: float | None) -> None:
    run = made(tmp_path, "teach", {"epochs": 0, "saved_encoder": {}, "classes": 2, "threshold": threshold})
    shown = card(run)
    assert ("is_known" in shown) == (threshold is not None)
    assert ("names = classifier.predict(images)\n" in shown) == (threshold is None)


def test_the_licence_of_known_images_is_named(tmp_path: Path) -> None:
    from prl_keras.data.catalog import CATALOG

    run = made(tmp_path)
    for name, entry in CATALOG.items():
        config = copy.deepcopy(run.config)
        config["data"]["request"]["name"] = name
        write_json(run.path / "config.json", config)
        (run.path / "card.md").unlink()
        write_card(Run(run.path))
        assert f"Licence of the images: {entry.licence}." in card(run)


def test_it_names_the_program_as_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/venv/bin/prl-keras"])
    run = made(tmp_path, result={"epochs": 3})
    for _ in range(2):  # new, then renewed
        assert "`prl-keras evaluate` does" in card(run)
        assert "`prl-keras export`" in card(run)
        assert "main.py" not in card(run)
        write_card(run)


def test_a_users_words_mean_nothing_in_markdown(tmp_path: Path) -> None:
    from markdown_it import MarkdownIt

    text = card(made(tmp_path)).split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert kinds <= {"text", "text_special", "code_inline", "softbreak"}
    headings = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings == ["my\\_run", "Data", "Figures", "How to load it", "Limits", "Licence"]


def test_evaluate_renews_the_figures_and_leaves_the_rest(tmp_path: Path) -> None:
    run = made(tmp_path)
    edited = card(run).replace("license: unknown", "license: cc-by-4.0") + "\r\nAsk Ada.\r\n"
    (run.path / "card.md").write_bytes(edited.encode())
    evaluation = {"accuracy": {"classifier": FIGURE, "kNN": FIGURE | {"value": 0.6}}, "best_on_validation": "kNN"}
    write_json(run.path / "evaluation.json", evaluation | {"seen_in_training": {"validation": 0, "test": 7}})
    assert write_card(run) is not None
    after = card(run)
    assert [row[:2] for row in rows(after)[1:]] == [
        ["test, the classifier", "50.0"],
        ["validation, the classifier", "50.0"],
        ["test, kNN", "60.0"],
    ]
    assert "Best on validation: kNN. Beware: it was trained on 7 test images." in after
    assert "license: cc-by-4.0" in after
    assert (run.path / "card.md").read_bytes().endswith(b"\r\nAsk Ada.\r\n")
    assert write_card(run) is not None
    assert card(run) == after


@pytest.mark.parametrize("content", [b"", b"mine", b"\xff\xfe", b"<!-- figures: kept up to date by `evaluate` -->"])
def test_a_card_without_a_place_for_figures_is_left_alone(tmp_path: Path, content: bytes) -> None:
    run = made(tmp_path)
    (run.path / "card.md").write_bytes(content)
    assert write_card(run) is None
    assert (run.path / "card.md").read_bytes() == content
    (run.path / "card.md").unlink()
    (run.path / "card.md").symlink_to(tmp_path / "nothing")
    assert write_card(run) is None
    assert not (tmp_path / "nothing").exists()


def places(content: Any, path: tuple = ()) -> list[tuple]:
    inner = content.items() if isinstance(content, dict) else ()
    return [path] * bool(path) + [place for key, value in inner for place in places(value, (*path, key))]


def test_odd_records_are_a_card_or_one_line(tmp_path: Path) -> None:
    run = made(tmp_path)
    evaluation = {"accuracy": {"kNN": FIGURE}, "best_on_validation": "kNN", "seen_in_training": {"test": 7}}
    records = {"config.json": run.config, "result.json": run.result | {"seen_by_encoder": {"test": 1}}}
    records["evaluation.json"] = evaluation
    for name, content in records.items():
        for path in places(content):
            for odd in ODD:
                changed = copy.deepcopy(content)
                part = changed
                for key in path[:-1]:
                    part = part[key]
                part[path[-1]] = odd
                (run.path / name).write_text(json.dumps(changed), encoding="utf-8")
                (run.path / "card.md").unlink(missing_ok=True)
                with suppress(InputError):  # one line; nothing else may come out
                    write_card(Run(run.path))
        write_json(run.path / name, content)
