"""The table of what encoders are worth beyond their training classes."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import false_discovery_control

from prl_keras.cli import main
from prl_keras.commands import beyond as command
from prl_keras.config import Reproduce
from prl_keras.data import load_dataset
from prl_keras.data.held_out import held_out_classes
from prl_keras.errors import InputError
from prl_keras.evaluation.statistics import compare_seeds, compare_with_control
from prl_keras.experiments.beyond import ERRORS, as_markdown, compared, draw, figures_of, sentences, together
from prl_keras.experiments.cells import Replicate, encoder_run, plan
from prl_keras.experiments.table import OPEN, STRONG, TITLES
from prl_keras.runs import Run
from prl_keras.runs.leases import LEASES, take

OURS = "strong-prl"
REPLICATES = [Replicate(seed) for seed in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for source in STRONG:
        for replicate in REPLICATES:
            run = encoder_run(tmp_path, source, replicate)
            run.path.mkdir()
            data = {"request": {"name": "digits"}, "fingerprint": "f", "class_names": ["0", "1"]}
            data |= {"image_shape": [8, 8, 3], "held_out": [f"{replicate.seed}", "9"]}
            config = {"created": "2026-01-01", "command": "pretrain", "options": {"seed": replicate.seed}, "data": data}
            (run.path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def planted(run: Run) -> dict[str, float]:
    """PRL-2 is better at one thing by more than its draws differ, worse at another, and equal at the third."""
    source, _, seed = run.name.rpartition("-s")
    noise = 0.002 * np.random.RandomState([int(seed), STRONG.index(source)]).randn(3)
    ours = source == OURS
    return {"good": 0.7 + 0.1 * ours + noise[0], ERRORS: 1 + 0.1 * ours + noise[1], "same": 0.5 + noise[2]}


def test_each_figure_is_over_the_draws_and_differences_are_paired(folder):
    found = together(folder, REPLICATES, planted)
    raw = []
    for name, measure in found["measures"].items():
        values = {
            source: [planted(encoder_run(folder, source, each))[name] for each in REPLICATES] for source in STRONG
        }
        for source in STRONG:
            assert measure["methods"][source]["values"] == pytest.approx(values[source])
            assert measure["methods"][source]["n"] == 4
        assert OURS not in measure["differences"]
        for source, test in measure["differences"].items():
            assert test["difference"] == pytest.approx(np.mean(values[OURS]) - np.mean(values[source]))
        others = [source for source in STRONG if source != OURS]
        tests = compare_with_control([values[source] for source in others], values[OURS])
        raw += [(test["p"], measure["differences"][source]["p"]) for source, test in zip(others, tests, strict=True)]
        for source, test in zip(others, tests, strict=True):
            assert [measure["differences"][source][end] for end in ("low", "high")] == pytest.approx(
                [-test["high"], -test["low"]]
            )
    assert [p for _, p in raw] == pytest.approx(false_discovery_control([p for p, _ in raw]).tolist())
    assert found["classes"]["s2"] == ["2", "9"]


def test_the_page_says_what_holds_and_what_does_not(folder):
    found = together(folder, REPLICATES, planted)
    good, worse, same = sentences(found)
    assert good.startswith(f"good: best is {TITLES[OURS]} with 80.")
    assert "it is better than Strong ResNet-18, " in good
    assert "number 6" in worse, "of errors the smaller is better"
    assert "it is worse than Strong ResNet-18, " in worse
    assert same.endswith("no difference to it is beyond chance.")
    page = as_markdown(found, "digits", "python main.py reproduce --rows beyond")
    for source in STRONG:
        assert f"| {TITLES[source]} |" in page
        assert (f"| minus {TITLES[source]} |" in page) == (source != OURS)
    assert "\\*" in page
    assert "- s2: 2, 9\n" in page
    found["classes"]["s2"] = [f"c{number}" for number in range(1_100)]
    assert ", c19, and 1,080 more (result.json)" in as_markdown(found, "digits", "python main.py")
    assert draw(found, folder / "beyond.png").stat().st_size > 10_000


def test_what_is_not_defined_for_every_run_is_named_and_left_out(folder):
    def some(run: Run) -> dict[str, float | None]:
        return planted(run) | ({ERRORS: None} if run.name == "strong-loo-s1" else {})

    found = together(folder, REPLICATES, some)
    assert found["undefined"] == [ERRORS]
    assert list(found["measures"]) == ["good", "same"]
    assert f"- {ERRORS}: not defined for every run" in as_markdown(found, "digits", "python main.py")


def test_the_best_score_is_compared_with_what_most_programs_use(folder):
    def figures(run: Run) -> dict[str, float]:
        ours = run.name.startswith(OURS)
        return {
            "unknown, near, Mahalanobis": 0.9 if ours else 0.1,
            "unknown, near, maximum probability": (0.2 if ours else 0.7) + 0.01 * int(run.name[-1]),
        }

    found = together(folder, REPLICATES, figures)
    theirs = 0.7 + 0.01 * np.arange(4)
    assert found["near_unknown"] == pytest.approx(compare_seeds(np.full(4, 0.9), theirs))
    assert "by Mahalanobis minus Strong ResNet-18 by its maximum probability: +18.5 (+" in sentences(found)[-1]
    assert together(folder, REPLICATES, planted)["near_unknown"] is None


def test_the_references_own_errors_have_no_spread_that_others_could_share(folder):
    def figures(run: Run) -> dict[str, float]:
        return planted(run) | ({ERRORS: 1.0} if run.name.startswith("strong-resnet18") else {})

    found = together(folder, REPLICATES, figures)["measures"][ERRORS]
    ours = np.array(found["methods"][OURS]["values"])
    own = compare_seeds(ours, np.ones(4))
    assert found["differences"]["strong-resnet18"]["low"] == pytest.approx(own["low"])
    others = [source for source in STRONG if source not in (OURS, "strong-resnet18")]
    pooled = compare_with_control([np.array(found["methods"][source]["values"]) for source in others], ours)
    lows = [found["differences"][source]["low"] for source in others]
    assert lows == pytest.approx([-test["high"] for test in pooled])


def test_one_draw_has_no_interval_and_no_test(folder):
    found = together(folder, REPLICATES[:1], planted)
    assert found["measures"]["good"]["methods"][OURS]["low"] is None
    assert all(test["p"] is None for test in found["measures"]["good"]["differences"].values())
    assert "so few draws do not tell what is chance" in sentences(found)[0]
    draw(found, folder / "beyond.png")


def test_figures_are_those_of_the_runs_files(folder):
    run = encoder_run(folder, OURS, REPLICATES[0])
    by = {"centred prototype": {"mean": 0.4}, "ridge": {"mean": 0.5}, "nearest neighbour": {"mean": 0.1}}
    few_shot = {"accuracy": {"1": by, "5": by}, "retrieval": {"mAP": 0.3}, "taught": {"5": {"mean": {"mean": 0.55}}}}
    scores = {"near: held-out classes": {"auroc": 0.8}, "far: digits": {"auroc": 0.9}, "at_5_percent_of_validation": {}}
    unknown = {
        "scores": {"Mahalanobis": scores, "maximum probability": scores, "kNN": scores},
        "strange": {"near: held-out classes": 5, "far: digits": 6},
    }
    shift = {"accuracy": {"clean": {"value": 0.9}, "mean": {"value": 0.6}}, "relative_to": {"mCE": {"value": 1.2}}}
    shift["by_classifier"] = {"linear probe": {"clean": {"value": 0.8}, "mean": {"value": 0.55}}}
    shift["relative_to"]["by_the_same"] = {"linear probe": {"value": 1.1}}
    for name, content in (("few_shot", few_shot), ("unknown", unknown), ("shift", shift)):
        (run.path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    assert figures_of(run) == {
        **{
            f"{shots}-shot, {name}": value
            for shots in "15"
            for name, value in (("centred prototype", 0.4), ("ridge", 0.5))
        },
        "retrieval, mAP": 0.3,
        "all classes, new ones taught with 5": 0.55,
        **{f"unknown, near, {score}": 0.8 for score in ("Mahalanobis", "maximum probability")},
        **{f"unknown, far: digits, {score}": 0.9 for score in ("Mahalanobis", "maximum probability")},
        "known classes, clean": 0.9,
        "known classes, corrupted": 0.6,
        ERRORS: 1.2,
        "known classes, clean, linear probe": 0.8,
        "known classes, corrupted, linear probe": 0.55,
        f"{ERRORS}, linear probe": 1.1,
    }
    (run.path / "shift.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"shift.json: cannot be read .*; remove it and repeat the command"):
        figures_of(run)


def test_all_are_measured_alike_and_only_what_is_missing(folder, monkeypatch, capsys):
    asked = []

    def evaluated(options):
        asked.append(options)
        name = "few_shot" if options.few_shot else "unknown" if options.unknown else "shift"
        content = {"far": list(options.far), "drawn_from": {}, "accuracy": dict.fromkeys(map(str, options.shots))}
        content |= {"by_classifier": {}, "corruptions": {"seed": 0}}
        content |= {key: getattr(options, key) for key in ("ways", "queries", "episodes")}
        content |= {"relative_to": {"run": options.relative_to}} if options.relative_to else {}
        (options.runs_dir / options.run / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")

    monkeypatch.setattr(command.evaluate, "run", evaluated)
    monkeypatch.setattr(command, "forget_models", lambda: None)  # there are none, and it takes its time
    options = Reproduce(rows=("beyond",), seeds=2, ways=3, shots=(2,), far=("digits",), runs_dir=folder, jobs=1)
    request = dict.fromkeys(("data_dir", "samples_per_class", "test_per_class", "image_size"))
    request |= {"name": "digits", "validation_fraction": 0.1, "hold_out_classes": ["0.5"]}
    cells = plan(options, request, folder)
    assert [cell.name for cell in cells[:2]] == ["strong-resnet18-s0", "strong-prl-s0"]
    assert all(cell.options.hold_out_classes == ("0.5",) and cell.options.recipe == "strong" for cell in cells)
    assert len(cells) == 12
    command._measure(Run(folder), cells, options)
    assert len(asked) == 36
    first, of_prl = asked[:3], [each for each in asked if each.run == "strong-prl-s1"]
    assert [(each.few_shot, each.ways, each.shots, each.far) for each in first] == [
        (True, 3, (2,), ()),
        (False, 5, (1, 5), ("digits",)),
        (False, 5, (1, 5), ()),
    ]
    assert [each.relative_to for each in of_prl] == [None, None, "strong-resnet18-s1"]
    assert first[2].relative_to is None
    assert "measuring 36 of 36: strong-query-s1, shift" in capsys.readouterr().out
    command._measure(Run(folder), cells, options)
    assert len(asked) == 36, "nothing is missing"
    command._measure(Run(folder), cells, replace(options, ways=4))
    assert [each.few_shot for each in asked[36:]] == [True] * 12, "as it was measured in another way"
    for name in ("few_shot", "shift"):  # by hand: of another number of shots, and without a reference
        file = folder / "strong-prl-s1" / f"{name}.json"
        content = json.loads(file.read_text(encoding="utf-8")) | {"accuracy": {"7": None}}
        content.pop("relative_to", None)
        file.write_text(json.dumps(content), encoding="utf-8")
    command._measure(Run(folder), cells, replace(options, ways=4))
    assert [each.run for each in asked[48:]] == ["strong-prl-s1"] * 2
    old = {"relative_to": {"run": "strong-resnet18-s0"}, "corruptions": {"seed": 0}}
    for content in (old, old | {"by_classifier": {}, "corruptions": {"seed": 5}}):  # of one classifier; by hand
        asked.clear()
        (folder / "strong-prl-s0" / "shift.json").write_text(json.dumps(content), "utf-8")
        command._measure(Run(folder), cells, replace(options, ways=4))
        assert [each.run for each in asked] == ["strong-prl-s0"]


def test_the_table_of_the_open_recipe_has_runs_of_its_own(folder):
    options = Reproduce(rows=("beyond",), recipe="open", seeds=2, runs_dir=folder)
    request = dict.fromkeys(("data_dir", "samples_per_class", "test_per_class", "image_size"))
    request |= {"name": "digits", "validation_fraction": 0.1, "hold_out_classes": ["0.5"]}
    cells = plan(options, request, folder)
    assert [cell.name for cell in cells[:6]] == [f"{name}-s0" for name in OPEN]
    assert {cell.options.recipe for cell in cells} == {"open"}
    shifts = [each.how for each in command._measurements(cells, options) if each.how.shift]
    assert {each.relative_to for each in shifts} == {None, "open-resnet18-s0", "open-resnet18-s1"}
    figures = [{ERRORS: 1.0, "good": 0.5}, {ERRORS: 0.9, "good": 0.6}]
    found = compared({"open-resnet18": figures[:1] * 2, "open-prl": figures[1:] * 2}, {"s0": ["1"], "s1": ["2"]})
    assert sentences(found)[0].startswith("mCE, less is better: best is Open PRL-2 with 90.0 %")


def test_several_are_measured_at_a_time_and_the_reference_before_what_is_relative_to_it(folder, monkeypatch, capsys):
    options = Reproduce(rows=("beyond",), seeds=1, runs_dir=folder, jobs=2)
    request = dict.fromkeys(("data_dir", "samples_per_class", "test_per_class", "image_size"))
    request |= {"name": "digits", "validation_fraction": 0.1, "hold_out_classes": ["0.5"]}
    cells = plan(options, request, folder)
    seen: list[tuple] = []
    monkeypatch.setattr(command.jobs, "run_all", lambda *told: seen.append(told))
    command._measure(Run(folder), cells, options)
    ((tasks, work, logs, begin, _),) = seen
    assert pickle.loads(pickle.dumps(work)) is command.measure
    tasks = pickle.loads(pickle.dumps(tasks))
    assert len({task.gives for task in tasks}) == len(tasks) == 18
    reference = next(task for task in tasks if task.description == "strong-resnet18-s0, shift")
    assert [task.needs == reference.gives for task in tasks] == [task.how.relative_to is not None for task in tasks]
    assert reference.needs is None
    assert [log.name for log in logs] == ["reproduce.log", "reproduce-2.log"]
    begin(reference)
    assert "measuring 1 of 18: strong-resnet18-s0, shift" in capsys.readouterr().out


def test_processes_share_the_measurements_and_wait_for_what_another_one_is_at(folder, monkeypatch, capsys):
    options = Reproduce(rows=("beyond",), seeds=1, runs_dir=folder, shared=True)
    request = dict.fromkeys(("data_dir", "samples_per_class", "test_per_class", "image_size"))
    request |= {"name": "digits", "validation_fraction": 0.1, "hold_out_classes": ["0.5"]}
    cells, asked, waited = plan(options, request, folder), [], []

    def evaluated(how):
        name = "few_shot" if how.few_shot else "unknown" if how.unknown else "shift"
        asked.append((how.run, name))
        (how.runs_dir / how.run / f"{name}.json").write_text("damaged: told by who reads it", encoding="utf-8")

    reference = folder / "strong-resnet18-s0" / "shift.json"
    theirs = take(folder / LEASES, "strong-resnet18-s0-shift")

    def another_is_done(seconds):
        waited.append(len(asked))
        reference.write_text("another process wrote it", encoding="utf-8")
        theirs.release()

    monkeypatch.setattr(command.evaluate, "run", evaluated)
    monkeypatch.setattr("prl_keras.experiments.shared.time.sleep", another_is_done)
    command.measure_together(Run(folder), cells, options)
    assert waited == [12], "errors are relative to what is not measured yet"
    assert len(set(asked)) == len(asked) == 17
    assert ("strong-resnet18-s0", "shift") not in asked
    assert {name for _, name in asked[12:]} == {"shift"}
    assert "measuring strong-query-s0, shift" in capsys.readouterr().out
    command.measure_together(Run(folder), cells, options)
    assert len(asked) == 17, "nothing is missing"


def test_a_folder_has_the_table_of_one_recipe(folder):
    for source, other in (("strong", "open"), ("open", "strong")):
        table = Run(folder / source)
        (table.path / f"{source}-prl-s0").mkdir(parents=True)
        (table.path / f"{source}-prl-s0" / "config.json").write_text("{}", encoding="utf-8")
        command.check_recipe(table, source)
        with pytest.raises(InputError, match=f"has encoders by --recipe {source}: choose another --name"):
            command.check_recipe(table, other)


def test_what_another_process_measures_otherwise_is_not_measured_for_ever(folder, monkeypatch):
    options = Reproduce(rows=("beyond",), seeds=1, runs_dir=folder, shared=True, far=("digits",))
    request = dict.fromkeys(("data_dir", "samples_per_class", "test_per_class", "image_size"))
    request |= {"name": "digits", "validation_fraction": 0.1, "hold_out_classes": ["0.5"]}
    cells, asked = plan(options, request, folder), []

    def evaluated(how):
        """And at once another process, which was asked for another --far, writes over it."""
        name = "few_shot" if how.few_shot else "unknown" if how.unknown else "shift"
        asked.append((how.run, name))
        file = how.runs_dir / how.run / f"{name}.json"
        if name != "unknown":
            file.write_text("damaged: told by who reads it", encoding="utf-8")
        elif asked.count((how.run, name)) == 1:
            file.write_text(json.dumps({"far": ["digits"]}), encoding="utf-8")
            overwritten.append(file)

    overwritten: list[Path] = []
    done = command.Measurement.done.fget

    def looked_at(measurement):
        found = done(measurement)
        if measurement.file in overwritten:
            overwritten.remove(measurement.file)
            measurement.file.write_text(json.dumps({"far": ["fashion_500"]}), encoding="utf-8")
        return found

    monkeypatch.setattr(command.evaluate, "run", evaluated)
    monkeypatch.setattr(command.Measurement, "done", property(looked_at))
    command.measure_together(Run(folder), cells, options)
    assert len(asked) == len(set(asked)) == 18


def test_what_could_not_be_measured_is_told_before_anything_is_trained(tmp_path, capsys):
    words = ["reproduce", "--dataset", "digits", "--rows", "beyond", "--hold-out-classes", "4"]
    for more, line in (
        ([], "4 classes have the 1 + 15 pictures"),
        (["--ways", "3", "--far", "nowhere"], "--far nowhere: no such data set or folder"),
        (["--ways", "3", "--far", "digits"], "--far digits: these are the known pictures"),
        (["--ways", "3", "--far", "fashion_500", "fashion_500"], "--far names two data sets called fashion_500"),
        (["--ways", "3", "--far", str(tmp_path)], "no pictures"),
    ):
        assert main([*words, *more, "--runs-dir", str(tmp_path)]) == 2
        assert line in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_draw_of_classes_that_makes_no_episodes_is_told_too(tmp_path):
    """Seed 0 holds out the large classes, a later one others too."""
    drawn = [set(held_out_classes(["4"], "abcdefgh", seed)) for seed in range(3)]
    later = next(seed for seed in range(3) if drawn[seed] != drawn[0])
    for k, name in enumerate("abcdefgh"):
        for number in range(14 if name in drawn[0] else 4):
            file = tmp_path / "data" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 20 * k + number, np.uint8)).save(file)
    request = {"name": str(tmp_path / "data"), "hold_out_classes": ["4"], "cache_dir": "none", "seed": 0}
    options = Reproduce(rows=("beyond",), ways=4, shots=(1,), queries=9, seeds=later)
    data = load_dataset(**request)
    command.check(options, request, data)
    padded = request | {"resize": "pad"}
    command.check(replace(options, far=("digits",)), padded, load_dataset(**padded))  # in the size of the known ones
    able = len(drawn[0] & drawn[later])
    with pytest.raises(InputError, match=f"{able} classe?s? ha(ve|s) the 1 \\+ 9 pictures"):
        command.check(replace(options, seeds=later + 1), request, data)
    copied = tmp_path / "data" / min(drawn[0])
    for number in range(1, 6):
        shutil.copy(copied / "0.png", copied / f"{number}.png")
    with pytest.raises(InputError, match="3 classes have the 1"):
        command.check(replace(options, seeds=1), request, load_dataset(**request))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--rows", "beyond", "mlp"], "--rows beyond is a table of its own"),
        (["--rows", "beyond", "--folds"], "--rows beyond takes no --protocol paper, --folds"),
        (["--rows", "mlp", "--ways", "3"], "--ways does nothing without --rows beyond"),
        (["--rows", "mlp", "--hold-out-classes", "3"], "--hold-out-classes does nothing without --rows beyond"),
        (["--rows", "beyond", "--epochs", "3"], "--epochs does nothing with --rows beyond"),
        (["--recipe", "open"], "--recipe open is for classes to come: add --rows beyond"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path, capsys, words, line):
    assert main(["reproduce", "--dataset", "digits", "--runs-dir", str(tmp_path), *words]) == 2
    assert line in capsys.readouterr().err
