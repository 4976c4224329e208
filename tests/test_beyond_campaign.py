"""What benchmarks/beyond.py makes of the lines that it keeps, and that a line is a training with its measurements."""

import json
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from faults import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT / "benchmarks"))

import beyond
from beyond_campaigns import AS_USED, PLAIN, Campaign, Training
from beyond_tables import figures
from lines import add, read
from processes import done_side_by_side

from prl_keras import load_dataset
from prl_keras.cli import parse
from prl_keras.experiments.beyond import ERRORS
from prl_keras.experiments.table import OPEN, of_beyond
from prl_keras.runs import Run
from prl_keras.training.fitted import fitted


def line(method: str, seed: int, good: float, errors: dict[str, float]) -> dict:
    figures = {"5-shot, ridge": good + 0.01 * seed}
    return {
        "campaign": "fashion_500",
        "method": method,
        "seed": seed,
        "precision": "float32",
        "held_out": ["Bag", "Coat"],
        "n": {"held-out pictures": 6500 + seed},
        "figures": figures,
        "errors": errors,
    }


def write(file: Path, lines: list[dict]) -> int:
    return beyond.write(lines, "fashion_500", beyond.CAMPAIGNS["fashion_500"], list(OPEN), file)


def test_its_methods_are_those_of_the_table() -> None:
    for campaign in beyond.CAMPAIGNS.values():
        assert [f"{campaign.recipe}-{kind}" for kind in beyond.METHODS] == list(of_beyond(campaign.recipe))
        assert campaign.usual.endswith("-resnet18")
    assert not beyond.METHODS.keys() & beyond.MORE.keys()


def test_the_page_is_of_the_seeds_that_all_have_with_errors_relative_to_cross_entropys(tmp_path: Path, capsys) -> None:
    file = tmp_path / "lines.jsonl"
    for seed in range(3):
        for number, method in enumerate(OPEN):
            if (method, seed) != ("open-query", 2):  # a campaign that is not done
                add(
                    file,
                    line(method, seed, 0.5 + 0.05 * number, {"fog": 0.2 - 0.02 * number, "snow": 0.4 + 0.01 * seed}),
                )
    assert write(file, read(file)) == 0
    page = (tmp_path / "beyond-fashion_500.md").read_text(encoding="utf-8")
    assert "over 2 draws of held-out classes" in page
    assert "| 5-shot, ridge | 50.5 (44.1 - 56.9) | 55.5 (49.1 - 61.9) |" in page
    assert f"| {ERRORS} | 100.0 | 95.0 |" in page
    assert "|  | minus Open ResNet-18 | minus Open PRL leave-one-out |" in page
    assert "| 5-shot, ridge | +5.0" in page
    assert "All figures: lines.jsonl" in page
    assert "| fog | 80.0 | 82.0 | 84.0 |" in page
    assert "| snow | 59.5 (53.1 - 65.9) |" in page
    assert "held-out pictures: 6,500, 6,501." in page
    assert "40 epochs, 20 of two views, float32" in page
    assert "(beyond-fashion_500.png)" in page
    assert (tmp_path / "beyond-fashion_500.png").stat().st_size > 10_000
    other = [each | {"held_out": ["Shirt"]} if each["method"] == "open-loo" else each for each in read(file)]
    assert write(file, other) == 1
    assert "different classes held out" in capsys.readouterr().out
    assert write(file, read(file)[:5]) == 1
    assert "no seed has all of open-resnet18, " in capsys.readouterr().out


def test_where_cross_entropy_makes_no_errors_they_are_not_defined() -> None:
    usual = line("open-resnet18", 0, 0.5, {"fog": 0.0, "snow": 0.1})
    assert figures(line("open-prl", 0, 0.5, {"fog": 0.1, "snow": 0.1}), usual)[ERRORS] is None


def test_commands_run_side_by_side_and_end_with_whoever_started_them(tmp_path: Path) -> None:
    file, late = tmp_path / "written", tmp_path / "late"
    commands = {
        "good": [sys.executable, "-c", f"open({str(file)!r}, 'w').write('x')"],
        "bad": [sys.executable, "-c", "raise SystemExit(3)"],
        "slow": [sys.executable, "-c", f"import time; time.sleep(5); open({str(late)!r}, 'w')"],
    }
    seen = {}
    with closing(done_side_by_side(commands, 2)) as done:
        for key, code, _ in done:
            seen[key] = code
            if len(seen) == 2:
                break
    assert seen == {"good": 0, "bad": 3}
    assert file.read_text(encoding="utf-8") == "x"
    assert not late.exists(), "what was under way was stopped, and waited for"


def test_a_line_is_a_training_and_its_measurements_and_what_is_there_is_not_made_again(
    tmp_path: Path, monkeypatch
) -> None:
    short = Campaign(
        "digits",
        "--dataset digits --hold-out-classes 4 --samples-per-class 12 --test-per-class 5 --width 0.125 --batch-size 32",
        1,
        {beyond.FEW_SHOT: "--few-shot --ways 3 --shots 1 2 --queries 2 --episodes 20"},
    )
    monkeypatch.setitem(beyond.CAMPAIGNS, "digits", short)
    training = Training("open-prl", 3)
    assert beyond.one("digits", training, tmp_path, "float32") == 0
    run = Run(tmp_path / "digits-open-prl-s3")
    found = json.loads(json.dumps(beyond.collected(run, "digits", training)))
    assert found["held_out"] == run.part("data", "held_out")
    assert len(found["held_out"]) == 4
    assert found["options"]["recipe"] == "open"
    assert 0 < found["figures"]["2-shot, ridge"] <= 1
    assert "errors" not in found
    assert found["n"]["held-out pictures"] > 40
    shift = {"n": 20, "accuracy": {"clean": {"value": 0.9}, "mean": {"value": 0.5}}}
    probed = {"clean": {"value": 0.8}, "mean": {"value": 0.55}, "by_corruption": {"fog": {"mean": {"value": 0.5}}}}
    shift["by_classifier"] = {"linear probe": probed}
    shift["accuracy"]["by_corruption"] = {"fog": {"mean": {"value": 0.75}}}
    (run.path / beyond.SHIFT).write_text(json.dumps(shift), encoding="utf-8")
    monkeypatch.setitem(beyond.CAMPAIGNS, "digits", short._replace(measured=short.measured | {beyond.SHIFT: "--shift"}))
    with_shift = beyond.collected(run, "digits", training)
    assert (with_shift["errors"], with_shift["errors_by"]) == ({"fog": 0.25}, {"linear probe": {"fog": 0.5}})
    assert not [name for name in with_shift["figures"] if name.startswith(ERRORS)]
    assert with_shift["n"]["test pictures"] == 20
    monkeypatch.setattr(beyond, "command_line", lambda words: pytest.fail(str(words)))
    assert beyond.one("digits", training, tmp_path, "float32") == 0


def test_a_page_of_domains_says_their_mean_and_each_as_it_is_used(tmp_path: Path) -> None:
    campaign, file = beyond.CAMPAIGNS["vendors"], tmp_path / "lines.jsonl"
    for number, method in enumerate(("strong-resnet18", "strong-prl")):
        for seed in range(3):
            for part, better in zip(campaign.domains, (0.0, 0.2), strict=True):
                probe = 0.5 + 0.02 * number + better + 0.01 * seed
                each = {"campaign": "vendors", **Training(method, seed, part)._asdict(), "precision": "float32"}
                add(
                    file,
                    each | {"n": {"test pictures": 1906}, "figures": {"linear probe": probe, AS_USED: probe - 0.1}},
                )
    methods = ["strong-resnet18", "strong-prl"]
    assert beyond.write(read(file), "vendors", campaign, methods, file) == 0
    page = (tmp_path / "beyond-vendors.md").read_text(encoding="utf-8")
    assert page.startswith("# A vendor of emoji left out\n")
    assert "| mean, linear probe | 61.0 (58.5 - 63.5) | 63.0 (60.5 - 65.5) |" in page
    assert f"| google, {AS_USED} | 41.0 (38.5 - 43.5) | 43.0 (40.5 - 45.5) |" in page
    assert f"| twitter, {AS_USED} | 61.0 (58.5 - 63.5) | 63.0 (60.5 - 65.5) |" in page
    assert "| mean, linear probe | +2.0" in page
    assert "google left out, by seed, test pictures: 1,906, 1,906, 1,906." in page
    assert "eld-out classes" not in page
    assert "Made by\n\n    python benchmarks/beyond.py table vendors --methods resnet18 prl\n" in page
    assert "Beside these" not in page
    assert "whose name" not in page
    assert beyond.write(read(file)[:-1], "vendors", campaign, methods, file) == 0
    page = (tmp_path / "beyond-vendors.md").read_text(encoding="utf-8")
    assert "google left out, by seed, test pictures: 1,906, 1,906." in page, "the last seed lacks a domain"
    assert beyond.write(read(file), "vendors", campaign, [*methods, "strong-loo"], file) == 1


def test_a_page_says_whether_what_was_drawn_in_training_is_known_better(tmp_path: Path) -> None:
    campaign, file = beyond.CAMPAIGNS["vendors_open"], tmp_path / "lines.jsonl"
    for method, more in (("open-resnet18", 0.2), ("open-prl", 0.0)):
        for seed in range(3):
            for part, better in zip(campaign.domains, (0.0, 0.2), strict=True):
                known = 0.3 + more + better + 0.01 * seed * (more > 0)
                each = {"campaign": "vendors_open", **Training(method, seed, part)._asdict(), "precision": "float32"}
                each |= {"n": {"test pictures": 1906}, "figures": {"linear probe": known, AS_USED: known}}
                asked = {"accuracy": {"kNN": {"validation": 0.6, "known": known, "new": 0.35 + 0.01 * seed}}}
                add(file, each | {"by_name": asked | {"n": {"validation": 190, "known": 1716, "new": 190}}})
    assert beyond.write(read(file), "vendors_open", campaign, ["open-resnet18", "open-prl"], file) == 0
    page = (tmp_path / "beyond-vendors_open.md").read_text(encoding="utf-8")
    assert "| kNN, known | 1,716 | 61.0 (58.5 - 63.5) | 40.0 | -21.0 (-23.5 to -18.5) |" in page
    assert "| kNN, new | 190 | 36.0 (33.5 - 38.5) | 36.0 (33.5 - 38.5) | +0.0 |" in page
    assert "kNN, validation: best" not in page, "validation is no result"


def test_a_page_of_corruptions_compares_by_the_same_classifier_too(tmp_path: Path) -> None:
    campaign, file = beyond.CAMPAIGNS["shift"], tmp_path / "lines.jsonl"
    for method, times in (("open-resnet18", 1.0), ("open-prl", 1.5)):
        for seed in range(3):
            error = 0.2 + 0.01 * seed
            spread = 0.1 * (seed - 1) * (times > 1)
            probed = {"fog": error * ((0.5 if times > 1 else 1) + spread)}
            each = {"campaign": "shift", **Training(method, seed)._asdict(), "precision": "float32"}
            each |= {"n": {"test pictures": 2000}, "figures": {"known classes, clean": 0.9 + 0.01 * seed}}
            by = {"linear probe": probed, "kNN": {"fog": 0.9}}
            add(file, each | {"errors": {"fog": error * (times + spread)}, "errors_by": by})
    assert beyond.write(read(file), "shift", campaign, ["open-resnet18", "open-prl"], file) == 0
    page = (tmp_path / "beyond-shift.md").read_text(encoding="utf-8")
    assert page.startswith("# fashion\\_500 under corruptions\n\nTest pictures under 15 corruptions")
    assert f"| {ERRORS} | 100.0 | 150.0 (125.2 - 174.8) |" in page
    assert f"| {ERRORS}, linear probe | 100.0 | 50.0 (25.2 - 74.8) |" in page
    assert "kNN" not in page
    assert "\n| fog | 79.0 (76.5 - 81.5) | 68.4 (" in page
    assert "\n| fog | 79.0 (76.5 - 81.5) | 89.4 (" in page, "the same by a linear probe"
    assert f"{ERRORS}, linear probe: best is Open PRL-2 with 50.0 %" in page
    assert "eld-out" not in page


def test_what_is_outside_the_budget_stands_below_the_table(tmp_path: Path, monkeypatch, capsys) -> None:
    file = tmp_path / "lines.jsonl"
    for seed in range(2):
        for number, method in enumerate(OPEN):
            add(file, line(method, seed, 0.5 + 0.02 * number, {"fog": 0.2 + 0.01 * number}))
    options = {"epochs": 60, "batch_size": 256, "classes_per_batch": 128, "label_smoothing": 0.0}
    add(file, line("open-supcon-128-classes-long", 1, 0.6, {"fog": 0.2}) | {"options": options})
    assert write(file, read(file)) == 0
    page = (tmp_path / "beyond-fashion_500.md").read_text(encoding="utf-8")
    assert "| open-supcon-128-classes-long | 1 |  | 60 | 256 | 128 | 0.0 | 61.0 |" in page
    for methods in (["prl", "loo"], ["resnet18", "loo"], ["resnet18", "prl", "prl-long"]):
        words = ["beyond.py", "table", "fashion_500", "--results", str(file), "--methods", *methods]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit, match="2"):
            beyond.main()
        assert "a table takes resnet18 and prl" in capsys.readouterr().err


def test_what_is_outside_the_budget_keeps_the_classes_of_a_batch() -> None:
    labels = np.repeat(np.arange(600), 2)
    options = parse([*beyond.MORE["supcon-128-classes-long"][0].split(), "--recipe", "open"])
    found = fitted(options, labels)[0]
    assert (found.batch_size, found.classes_per_batch) == (256, 128)
    projected = parse([*beyond.MORE["prl-projection"][0].split(), "--recipe", "open"])
    loo = parse(["pretrain", "--variant", "loo", "--recipe", "open"])
    assert (projected.projection_dim, projected.neck) == (loo.projection_dim, loo.neck) == (128, "none")
    plain = parse([*beyond.MORE["resnet18-no-smoothing"][0].split(), "--recipe", "open"])
    assert (plain.label_smoothing, fitted(plain, labels)[0].batch_size) == (0.0, 64)


def test_a_head_that_was_trained_with_the_encoder_is_what_is_used_else_validation_says() -> None:
    names = ("linear probe", "centred prototype", "ridge", "kNN")
    accuracy = {name: {"value": 0.1 * number} for number, name in enumerate(names, 5)}
    content = {"accuracy": accuracy, "best_on_validation": "kNN"}
    assert beyond.of_known_classes(content)[AS_USED] == accuracy["kNN"]["value"]
    content["accuracy"]["classifier"] = {"value": 0.3}
    assert beyond.of_known_classes(content)[AS_USED] == 0.3


def test_a_training_without_a_domain_is_measured_on_it(tmp_path: Path, monkeypatch) -> None:
    random = np.random.RandomState(0)
    for place, domain in enumerate(("ink", "oil")):
        for name, grey in (("dark", 60), ("light", 180)):
            folder = tmp_path / "art" / domain / name
            folder.mkdir(parents=True)
            for number in range(8):
                image = random.randint(grey, grey + 40 + 10 * place, (8, 8)).astype(np.uint8)
                Image.fromarray(image).save(folder / f"{name}-{number}.png")
    short = Campaign(
        "art",
        f"--dataset {tmp_path / 'art'} --domains --width 0.125 --batch-size 8",
        1,
        {PLAIN: ""},
        "strong",
        ("ink", "oil"),
        by_name=True,
    )
    monkeypatch.setitem(beyond.CAMPAIGNS, "art", short)
    training = Training("strong-resnet18", 0, "oil")
    assert beyond.one("art", training, tmp_path, "float32") == 0
    found = beyond.collected(Run(tmp_path / "art-strong-resnet18-oil-s0"), "art", training)
    dataset = load_dataset(**Run(tmp_path / "art-strong-resnet18-oil-s0").part("data", "request"))
    known = len(dataset.train)
    assert known < 16, "some of ink's are validation"
    assert (found["part"], found["n"]) == ("oil", {"test pictures": 16})
    assert found["by_name"]["n"] == {"validation": 16 - known, "known": known, "new": 16 - known}
    assert "held_out" not in found
    assert set(found["figures"]) == {"linear probe", "centred prototype", "ridge", AS_USED}
    by_name = found["by_name"]["accuracy"]
    assert by_name.keys() == {"linear probe", "kNN"}
    both = [by_name["linear probe"][part] for part in ("known", "new")]
    assert np.average(both, weights=[known, 16 - known]) == pytest.approx(found["figures"]["linear probe"])
    assert found["options"]["recipe"] == "strong"
