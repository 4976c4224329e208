"""The table: its plan, its analysis on runs with a known truth, its report, and the command itself."""

import json
import re
import shlex
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from archives import write_image_folder
from faults import kill_after, run_program

from prl_keras.cli import main, parse
from prl_keras.commands.progress import Progress
from prl_keras.commands.reproduce import _command, _default_name, _short_table
from prl_keras.config import Baseline, DataOptions, Finetune, Pretrain, Reproduce
from prl_keras.data import Dataset, Split, load_dataset
from prl_keras.errors import InputError
from prl_keras.evaluation.statistics import accuracy
from prl_keras.experiments import estimate
from prl_keras.experiments.analysis import Analysis, Comparison, analyse, as_json, write_confusions
from prl_keras.experiments.cells import Cell, plan, replicates
from prl_keras.experiments.findings import findings, listed
from prl_keras.experiments.labels import label_efficiency, nested_subset
from prl_keras.experiments.table import ENCODERS, GROUPS, PAPER, RECIPE_OF, ROWS, choose_rows, rows_by_recipe
from prl_keras.files import write_json
from prl_keras.recipes import RECIPES
from prl_keras.runs import Run, create_run

REQUEST = {
    "name": "digits",
    "data_dir": None,
    "seed": 0,
    "validation_fraction": 0.1,
    "samples_per_class": None,
    "test_per_class": None,
    "image_size": None,
    "fold": None,
}
CLASSES = 10
DATA = {"request": REQUEST, "fingerprint": "0" * 64, "class_names": [*"0123456789"], "image_shape": [32, 32, 3]}

VERSIONS = {"versions": {"keras": "3", "processors": "17"}}


def data_of(cell: Cell) -> dict:
    """What the cell's run records: a split of its own for each seed."""
    return DATA | {"request": REQUEST | {"seed": cell.options.seed}, "fingerprint": f"{cell.options.seed}" * 64}


# The plan


def test_the_table_has_the_papers_rows_and_ours() -> None:
    assert sorted(row.paper[0] for row in choose_rows(["paper"])) == list(range(1, 12))
    titles = [row.title for row in choose_rows(["table"])]
    assert len(titles) == len(set(titles)) == 23
    for ours in ("PCA + logistic regression", "Supervised ResNet-18, light augmentation", "SupCon, frozen, linear"):
        assert ours in titles
    assert len(GROUPS["all"]) == 4 + 8 * 4 == len(ROWS) - 1 - 5 * 4


def test_a_recipe_names_the_rows_that_are_by_it() -> None:
    assert rows_by_recipe(("table",), "paper") == ("table",)
    assert rows_by_recipe(("table",), "strong") == ("strong",)
    named = ("resnet18", "query-frozen-linear", "strong-prl-frozen-mlp")
    assert rows_by_recipe(named, "strong") == ("strong-resnet18", "strong-query-frozen-linear", "strong-prl-frozen-mlp")
    assert choose_rows(rows_by_recipe(rows_by_recipe(named, "strong"), "strong"))
    for name in ("mlp", "paper", "query-light-frozen-linear"):
        with pytest.raises(InputError, match=f"--recipe strong: there is no strong-{name}; known: strong, strong-"):
            rows_by_recipe((name,), "strong")
    with pytest.raises(InputError, match="nothing: no such row"):
        choose_rows(rows_by_recipe(("nothing",), "strong"))


def test_each_encoder_is_trained_once_and_before_its_rows(tmp_path: Path) -> None:
    cells = plan(Reproduce(seeds=2, rows=("all",)), REQUEST, tmp_path)
    encoders = [cell.name for cell in cells if isinstance(cell.options, Pretrain) and not cell.labels]
    assert len(encoders) == len(set(encoders)) == 8 * 2
    assert len({(cell.name, cell.labels) for cell in cells}) == len(cells)
    done = set()
    for cell in cells:
        if isinstance(cell.options, Finetune):
            assert cell.options.encoder in done
            assert cell.options.seed == int(cell.options.encoder[-1])
        done.add(cell.name)


def test_the_papers_protocol_is_the_papers(tmp_path: Path) -> None:
    options = parse(["reproduce", "--protocol", "paper", "--dataset", "digits"])
    assert replicates(options) == replicates(Reproduce(seeds=1))
    for cell in plan(options, REQUEST, tmp_path):
        assert not cell.options.average
        assert not cell.labels
        if not isinstance(cell.options, Pretrain):
            assert cell.options.test_each_epoch
            assert cell.options.batch_size == 128


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("digits", "table-digits"),
        ("/data/my pics", "table-my-pics"),
        ("tfds:mnist", "table-tfds-mnist"),
        ("./…", "table-data"),
    ],
)
def test_a_table_is_named_after_its_data(name: str, folder: str) -> None:
    dataset = replace(load_dataset("digits"), name=name)
    assert _default_name(Reproduce(), dataset) == folder
    command = _command(Reproduce(rows=("mlp", "pca"), data_dir=Path("my data"), seeds=2), dataset)
    assert (
        command
        == f"python main.py reproduce --dataset {shlex.quote(name)} --data-dir 'my data' --seeds 2 --rows mlp pca"
    )
    parse(shlex.split(command)[2:])


def test_a_size_of_two_sides_is_planned_and_typed(tmp_path: Path) -> None:
    options = Reproduce(rows=("mlp",), image_size=(16, 24))
    beyond = {"shots": (1, 5, 20), "far": ("digits", "my pics"), "hold_out_classes": ("a b", "c")}
    for given in (options, Reproduce(rows=("beyond",), **beyond)):
        asked = parse(shlex.split(_command(given, load_dataset("digits")))[2:])
        for name in ("rows", "image_size", *beyond):
            assert getattr(asked, name) == getattr(given, name)
    cells = plan(options, REQUEST | {"image_size": [16, 24]}, tmp_path)
    assert len(set(cells)) == len(cells)
    assert {cell.options.image_size for cell in cells} == {(16, 24)}


def test_folds_are_ten_replicates(tmp_path: Path) -> None:
    cells = plan(Reproduce(folds=True, rows=("resnet18",)), REQUEST | {"fold": 0}, tmp_path)
    assert [cell.options.fold for cell in cells if not cell.labels] == list(range(10))
    assert [cell.name for cell in cells if not cell.labels] == [f"resnet18-f{fold}" for fold in range(10)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "query-frozen"], "did you mean query-frozen-"),
        (["--seeds", "0"], "expected at least 1"),
        (["--folds", "--seeds", "2"], "leave out --seeds"),
        (["--batch-size", "5000"], "larger than the 1295 training images"),
        (["--folds"], "only stl10 from binary files has folds"),
        (["--protocol", "paper"], "give --test-per-class"),
        (["--name", "../x"], "not usable"),
        (["--rows", "pca", "--epochs", "3"], "--epochs does nothing with --rows pca: leave it out"),
        (["--rows", "pca", "--batch-size", "8"], "--batch-size does nothing with --rows pca: leave it out"),
        (["--rows", "pca", "mlp", "--batch-size", "1"], "--batch-size is 1; expected at least 2"),
    ],
)
def test_bad_options_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["reproduce", "--dataset", "digits", "--runs-dir", str(tmp_path), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_work_of_a_cell_counts_its_images() -> None:
    dataset = load_dataset("digits")
    n = len(dataset.train)
    cell = Cell("x", Pretrain(variant="query", epochs=2, batch_size=256))
    assert estimate.work(cell, dataset)["prototypes"] == 2 * (n // 256) * 256
    cell = Cell("x", Baseline(model="resnet18", epochs=3, augment="light"))
    assert estimate.work(cell, dataset)["classifier, augmented"] == 3 * n
    assert set(estimate.work(Cell("x", Finetune(freeze=True)), dataset)) == {"encode"}
    for kind in estimate.RELATIVE:
        assert estimate.RELATIVE[kind] > 0


# Analysis, on runs whose truth is known


def fake_table(folder: Path, options: Reproduce, accuracies: dict[str, float], n: int = 1000) -> list[Cell]:
    """Run folders as training leaves them, with answers drawn so that a row has (nearly) the accuracy given.

    Half of the chance is the image's own difficulty, which all rows and seeds share; the rest is the seed's.
    """
    cells = plan(options, REQUEST, folder)
    rng = np.random.default_rng(7)
    labels = np.arange(n) % CLASSES
    difficulty = rng.random(n)
    for cell in cells:
        if cell.labels:
            sizes = (10, 20, 45) if cell.name == "query-s1" else (10, 20, 50)
            points = [{"labels_per_class": size, "C": 1.0, "test": accuracy(labels, labels)} for size in sizes]
            write_json(cell.labels_file, {"seed": cell.options.seed, "points": points})
            continue
        elsewhere = {"resume", "name", "runs_dir", *DataOptions.__dataclass_fields__}
        chosen = {key: value for key, value in asdict(cell.options).items() if key not in elsewhere}
        command = type(cell.options).__name__.lower()
        run = create_run(folder, cell.name, {"command": command, "options": chosen, "data": data_of(cell), **VERSIONS})
        (run.path / "metrics.jsonl").write_text(
            json.dumps({"epoch": 1, "val_prototype_accuracy": 0.5, "val_accuracy": 0.5, "seconds": 1.0}) + "\n",
            encoding="utf-8",
        )
        result = {"epochs": 1, "seconds": 1.0}
        if isinstance(cell.options, Pretrain):
            figures = {"val_prototype_accuracy": 0.5, "val_knn_accuracy": 0.5, "val_effective_rank": 9.0}
            write_json(run.path / "result.json", result | {"saved_encoder": figures, "encoder_sha256": "0" * 64})
            continue
        target = accuracies.get(cell.name.rsplit("-", 1)[0], 0.6)
        right = 0.5 * difficulty + 0.5 * rng.random(n) < np.quantile(0.5 * difficulty + 0.5 * rng.random(n), target)
        predicted = np.where(right, labels, (labels + 1) % CLASSES)
        logits = 4 * np.eye(CLASSES, dtype="float32")[predicted]
        figure = accuracy(predicted, labels)
        elsewhere = {"train": accuracy(labels, labels), "validation": accuracy(labels[:200] // 2, labels[:200])}
        result["accuracy"] = elsewhere | {"test": figure}
        result |= {"test_sha256": "1" * 64, "encoder_sha256_before": "0" * 64}
        if options.protocol == "paper":
            result["maximum_over_epochs_on_test"] = {"value": figure["value"] + 0.02, "epoch": 1}
        kept = {"validation_logits": np.zeros((200, CLASSES)), "validation_labels": labels[:200]}
        np.savez(run.predictions_file, test_logits=logits, test_labels=labels, **kept)
        write_json(run.path / "result.json", result)
    return cells


OPTIONS = Reproduce(seeds=3, rows=("table",))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Every row has 60 %, but SupCon, frozen, linear has 70 % and the MLP 50 %."""
    folder = tmp_path_factory.mktemp("planted")
    cells = fake_table(folder, OPTIONS, {"supcon-frozen-linear": 0.70, "mlp": 0.50})
    return analyse(OPTIONS, folder, cells)


def test_planted_differences_are_found_and_planted_nulls_are_not(planted: Analysis) -> None:
    found = {f.row.key for f in planted.rows if "resnet18" in f.against and f.against["resnet18"].significant}
    assert found == {"supcon-frozen-linear", "mlp"}
    assert planted.row("supcon-frozen-linear").against["resnet18"].difference == pytest.approx(0.1, abs=0.03)


def test_the_findings_name_what_was_planted_and_nothing_else(planted: Analysis) -> None:
    text = next(text for text in findings(planted) if text.startswith("**Against supervised ResNet-18"))
    better, worse = re.search(
        r"Significantly better: (.*?)\. Significantly worse: (.*?)\. For the other 20", text
    ).groups()
    assert better.startswith("SupCon, frozen, linear (+")
    assert ";" not in better
    assert worse.startswith("Supervised MLP (-")
    assert ";" not in worse


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        (0.75, "PRL-2 is the better choice"),
        (0.45, "plain supervision is the better choice"),
        (0.6, "speak for neither; plain supervision is one training less"),
    ],
)
def test_the_findings_say_which_of_the_strong_ones_to_use(planted: float, words: str, tmp_path: Path) -> None:
    options = Reproduce(seeds=3, rows=("strong",))
    cells = fake_table(tmp_path, options, {"strong-prl-frozen-linear": planted})
    text = "\n".join(findings(analyse(options, tmp_path, cells)))
    assert re.search(rf"\*\*PRL-2 or plain supervision\?\*\* PRL-2 minus cross-entropy.*{words}\.", text)
    assert "**Against PRL-2 by the strong recipe**" in text


def test_of_a_long_list_the_findings_give_the_ends() -> None:
    numbers = (3, 7, 5, 2, 4, 6, 8)
    compared = [(f"row {n}", Comparison(n / 100, (n - 1) / 100, (n + 1) / 100, 0.0, 0.0)) for n in numbers]
    assert listed(compared[:6]).count(";") == 5
    assert listed(compared) == (
        "7 rows, from row 2 (+2.0 points, +1.0 to +3.0 over seeds) to row 8 (+8.0 points, +7.0 to +9.0 over seeds)"
    )


@pytest.mark.slow
def test_nulls_are_seldom_called_findings() -> None:
    """40 tables of five equally good rows and a control: few hold over images or over seeds, hardly any over both."""
    from prl_keras.evaluation.statistics import compare_images, compare_with_control, corrected

    rng = np.random.default_rng(3)
    by_images = by_seeds = by_both = 0
    for _ in range(40):
        control, *rows = rng.random((6, 3, 200)) < 0.6
        images = np.array(corrected([compare_images(row, control) for row in rows])) < 0.05
        tests = compare_with_control([row.mean(axis=1) for row in rows], control.mean(axis=1))
        seeds = np.array(corrected([test["p"] for test in tests])) < 0.05
        by_images, by_seeds = by_images + images.any(), by_seeds + seeds.any()
        by_both += (images & seeds).any()
    assert by_images <= 6
    assert by_seeds <= 6
    assert by_both <= 3


def test_one_seed_never_speaks_of_methods(tmp_path: Path) -> None:
    options = replace(OPTIONS, seeds=1)
    analysis = analyse(options, tmp_path, fake_table(tmp_path, options, {"mlp": 0.4}))
    mlp = analysis.row("mlp").against["resnet18"]
    assert mlp.over_images
    assert not mlp.significant
    text = findings(analysis)[0]
    assert "nothing can be said about the methods" in text
    assert "Significantly" not in text


def test_optimism_is_the_maximum_minus_the_last_epoch(tmp_path: Path) -> None:
    options = Reproduce(seeds=2, rows=("paper",), protocol="paper")
    analysis = analyse(options, tmp_path, fake_table(tmp_path, options, {}, n=1000))
    text = next(text for text in findings(analysis) if text.startswith("**Optimism"))
    assert "+2.0 to +2.0 points" in text


def test_every_figure_can_be_traced_to_a_run(planted: Analysis) -> None:
    content = as_json(planted)
    assert len(content["rows"]) == 23
    for row in content["rows"]:
        for name, value in zip(row["runs"], row["accuracy"]["test"]["values"], strict=True):
            assert Run(planted.folder / name).result["accuracy"]["test"]["value"] == value
    for name, figures in content["encoders"].items():
        assert Run(planted.folder / name).result["encoder_sha256"] == figures["encoder_sha256"]
    assert len(content["encoders"]) == 8 * 3
    assert set(content["label_efficiency"]) == {*ENCODERS, "resnet18"} - {*RECIPE_OF}
    json.dumps(content, allow_nan=False)


def test_each_column_is_of_its_own_split(planted: Analysis) -> None:
    """Train 100 % and validation 10 % in every run; test as it was planted."""
    for row in as_json(planted)["rows"]:
        assert row["accuracy"]["train"]["mean"] == 1.0
        assert row["accuracy"]["validation"]["mean"] == pytest.approx(0.1)
        assert row["accuracy"]["test"]["mean"] > 0.4
        assert row["test_over_images"]["low"] < row["accuracy"]["test"]["mean"] < row["test_over_images"]["high"]


def test_confusions_stand_beside_the_result(planted: Analysis) -> None:
    """23 rows of 500 classes were 71 MB of JSON, which no command would read."""
    file = write_confusions(planted)
    content = as_json(planted)
    assert (planted.folder / content["confusions"]["file"]) == file
    with np.load(file) as arrays:
        assert set(arrays) == {row["row"] for row in content["rows"]}
        for row in content["rows"]:
            matrix = arrays[row["row"]]
            assert matrix.sum() == 3 * 1000
            np.testing.assert_allclose(np.diag(matrix) / matrix.sum(axis=1), row["per_class"])
            assert np.trace(matrix) / matrix.sum() == pytest.approx(row["accuracy"]["test"]["mean"])
            assert row["worst"]["value"] == min(row["per_class"])
            assert row["balanced"] == pytest.approx(np.mean(row["per_class"]))
    assert len(json.dumps(content["rows"])) < 23 * 6000


def test_a_class_without_test_images_has_no_accuracy(planted: Analysis) -> None:
    confusion = planted.rows[0].confusion.copy()
    confusion[3] = 0
    row = replace(planted.rows[0], confusion=confusion)
    assert np.isnan(row.per_class).tolist() == [k == 3 for k in range(CLASSES)]
    content = as_json(replace(planted, rows=[row, *planted.rows[1:]]))
    assert content["rows"][0]["per_class"][3] is None
    assert content["rows"][0]["balanced"] == pytest.approx(np.nanmean(row.per_class))
    assert content["rows"][0]["worst"]["class"] != 3
    json.dumps(content, allow_nan=False)


def test_questions_are_asked_of_pairs_that_differ_in_one_thing(planted: Analysis) -> None:
    heads = ("frozen, linear", "frozen, MLP", "unfrozen, linear", "unfrozen, MLP")
    asked = {title: sorted(name for name, _ in family) for title, family in planted.families.items()}
    assert asked == {
        "Query against standard": sorted(f"PRL query, {head}" for head in heads),
        "Leave-one-out against query": sorted(f"PRL leave-one-out, {head}" for head in heads),
        "With light augmentation against without": sorted(
            [f"PRL {name}, light augmentation, frozen, linear" for name in ("query", "standard", "leave-one-out")]
            + ["Supervised ResNet-18, light augmentation"]
        ),
    }
    difference = dict(planted.families["Query against standard"])["PRL query, frozen, MLP"].difference
    values = [planted.row(f"{name}-frozen-mlp").accuracy["test"]["mean"] for name in ("query", "standard")]
    assert difference == pytest.approx(values[0] - values[1])


def test_label_curves_keep_the_sizes_that_all_runs_have(planted: Analysis) -> None:
    sizes = {
        tuple(p["labels_per_class"] for p in file["points"]) for files in planted.labels.values() for file in files
    }
    assert sizes == {(10, 20)}


def test_costs_count_views_shared_encoders_and_frozen_features(planted: Analysis) -> None:
    n, batches = 1000, 1000 // 256 * 256
    assert planted.row("resnet18").cost == {"images": n, "passes": n, "seconds": 1.0}
    assert planted.row("query-frozen-linear").cost == {"images": n + batches, "passes": n + batches, "seconds": 2.0}
    assert planted.row("simclr-frozen-linear").cost["passes"] == n + 2 * batches


def test_a_run_with_other_options_is_refused(tmp_path: Path) -> None:
    options = Reproduce(seeds=1, rows=("mlp", "resnet18"))
    cells = fake_table(tmp_path, options, {}, n=100)
    config = cells[0].run.config
    config["options"]["learning_rate"] = 0.1
    write_json(cells[0].run.path / "config.json", config)
    with pytest.raises(InputError, match=r"learning_rate = 0\.1, the table needs 0\.001"):
        analyse(options, tmp_path, cells)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("query-frozen-linear-s0/result.json", {"encoder_sha256_before": "2" * 64}, "made from another query-s0"),
        (
            "query-frozen-linear-s0/config.json",
            {"data": DATA | {"fingerprint": "e" * 64}},
            "made from another query-s0",
        ),
        ("mlp-s0/result.json", {"test_sha256": "2" * 64}, "other images"),
        (
            "mlp-s0/config.json",
            {"data": DATA | {"request": REQUEST | {"samples_per_class": 5}}},
            "samples_per_class = 5",
        ),
        (
            "mlp-s0/config.json",
            {"data": DATA | {"request": REQUEST | {"image_size": 16}}},
            "image_size = 16, the table",
        ),
        ("mlp-s0/config.json", {"data": DATA | {"request": REQUEST | {"seed": 5}}}, "seed = 5, the table needs 0"),
        ("query-s0/config.json", {"data": DATA | {"request": REQUEST | {"fold": 1}}}, "fold = 1, the table needs None"),
        (
            "query-frozen-linear-s0/config.json",
            {"data": DATA | {"request": REQUEST | {"test_per_class": 5}}},
            "test_per",
        ),
        ("pca-s0/config.json", {"data": DATA | {"request": REQUEST | {"validation_fraction": 0.2}}}, "fraction = 0.2"),
        ("query-s0/label_efficiency.json", {"fingerprint": "e" * 64}, "made from another run"),
        ("query-s0/label_efficiency.json", {"seed": 4}, "made from another run"),
        ("query-s0/label_efficiency.json", {"points": [{}]}, "is damaged"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path, file: str, change: dict, message: str) -> None:
    options = Reproduce(seeds=1, rows=("mlp", "pca", "query-frozen-linear"))
    cells = fake_table(tmp_path, options, {}, n=100)
    analyse(options, tmp_path, cells)
    write_json(tmp_path / file, json.loads((tmp_path / file).read_text(encoding="utf-8")) | change)
    with pytest.raises(InputError, match=message):
        analyse(options, tmp_path, cells)


def test_runs_of_older_versions_and_data_that_moved_belong_to_the_table(tmp_path: Path) -> None:
    """A request without the options that came later, and with another path: the images are the same."""
    options = Reproduce(seeds=2, rows=("mlp", "resnet18"))
    cells = fake_table(tmp_path, options, {}, n=100)
    config = cells[0].run.config
    config["data"]["request"] = {"name": "/elsewhere/digits", "seed": 0}
    write_json(cells[0].run.path / "config.json", config)
    analyse(options, tmp_path, cells)


def test_a_table_that_asks_for_the_same_images_in_other_words_is_the_same_table(tmp_path: Path) -> None:
    """All images a class, by their number or without it."""
    begun = Reproduce(seeds=2, rows=("mlp",))
    fake_table(tmp_path, begun, {}, n=100)
    write_json(tmp_path / "config.json", {"created": "2026", "data": DATA})
    cells = plan(begun, REQUEST | {"samples_per_class": 450}, tmp_path)
    analyse(begun, tmp_path, cells)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match="samples_per_class = None"):
        analyse(begun, tmp_path, cells)


def test_other_test_images_and_damaged_predictions_are_refused(tmp_path: Path) -> None:
    options = Reproduce(seeds=1, rows=("mlp", "resnet18"))
    cells = fake_table(tmp_path, options, {}, n=100)
    file = cells[0].run.predictions_file
    np.savez(file, test_logits=np.eye(10)[np.zeros(100, int)], test_labels=np.zeros(100, int))
    with pytest.raises(InputError, match="other images"):
        analyse(options, tmp_path, cells)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InputError, match="cannot read"):
        analyse(options, tmp_path, cells)


def test_subsets_of_labels_are_balanced_and_nested() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 300)
    small, large = nested_subset(labels, 5, seed=1), nested_subset(labels, 20, seed=1)
    assert set(small) < set(large)
    assert np.bincount(labels[large]).tolist() == [20] * 4
    assert not np.array_equal(small, nested_subset(labels, 5, seed=2))


class Encoder:
    """Stands for a network: its features are the images themselves."""

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1) / np.float32(255)


def test_label_efficiency_is_chosen_on_validation_and_measured_on_test(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = rng.integers(60, 196, (3, 2, 2, 3))

    def draw(n: int) -> Split:
        labels = np.arange(n) % 3
        return Split(np.clip(centres[labels] + rng.normal(0, 50, (n, 2, 2, 3)), 0, 255).astype(np.uint8), labels)

    data = Dataset("made", draw(75), draw(60), draw(150), ("a", "b", "c"), "f" * 64)
    label_efficiency(Encoder(), data, 1, tmp_path / "honest.json")
    spoiled = replace(data, test=Split(data.test.images, np.roll(data.test.labels, 1)))
    label_efficiency(Encoder(), spoiled, 1, tmp_path / "spoiled.json")
    honest, other = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("honest", "spoiled"))
    assert [point["labels_per_class"] for point in honest["points"]] == [10, 20, 25]
    chosen = [[(point["C"], point["decided"]) for point in content["points"]] for content in (honest, other)]
    assert chosen[0] == chosen[1]
    for point, same in zip(honest["points"], other["points"], strict=True):
        assert point["test"]["n"] == 150
        assert point["test"]["value"] > 0.7
        assert same["test"]["value"] < 0.3
    assert honest["validation_images"] == 60
    assert (honest["fingerprint"], honest["seed"]) == ("f" * 64, 1)


# The report


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href")]


@pytest.fixture(scope="module")
def report(planted: Analysis) -> tuple[str, str]:
    from prl_keras.experiments.figures import draw_all
    from prl_keras.experiments.report import write_report

    dataset = replace(load_dataset("digits"), class_names=("<script>alert(1)</script>", "a|b", *"23456789"))
    config = {"command": "reproduce", "options": {"protocol": "honest", "epochs": 25, "batch_size": 256}}
    config |= {
        "data": DATA,
        "versions": {"keras": "3"},
        "created": "2026-01-01",
    }
    write_json(planted.folder / "config.json", config)
    pictures = draw_all(planted, dataset, planted.folder / "figures")
    assert set(pictures) == {"intervals", "curves", "classes", "confusion", "reliability", "labels"}
    files = write_report(Run(planted.folder), planted, dataset, pictures, "python main.py reproduce --seeds 3")
    return tuple(file.read_text(encoding="utf-8") for file in files)


def test_the_page_needs_nothing_but_itself(report: tuple[str, str]) -> None:
    page = Page(report[1])
    assert "script" not in page.tags
    assert "link" not in page.tags
    pictures = [source for source in page.sources if source.startswith("data:image/")]
    assert len(pictures) == 6
    for source in set(page.sources) - set(pictures):
        assert source.startswith("#") or re.fullmatch(r"[a-z0-9-]+/", source), source


def test_a_command_of_several_lines_is_one_block_of_the_page(report: tuple[str, str], planted: Analysis) -> None:
    from markdown_it import MarkdownIt

    from prl_keras.experiments.report import _made

    command = "python main.py reproduce --dataset '/a\n\n# b\n- c\rd'"
    blocks = MarkdownIt("commonmark").parse(_made(Run(planted.folder), planted, command))
    assert blocks[0].content == command.replace("\r", "\n") + "\n"
    assert {block.type for block in blocks[1:]} == {"paragraph_open", "inline", "paragraph_close"}


def test_the_report_has_the_papers_numbers_beside_ours(report: tuple[str, str], planted: Analysis) -> None:
    lines = [line for line in report[0].splitlines() if line.startswith("|")]
    for key, (number, test, train) in PAPER.items():
        line = next(line for line in lines if line.startswith(f"| {number} | {ROWS[key].title} "))
        assert f"| {test} ({train}) |" in line
        assert f"**{100 * planted.row(key).accuracy['test']['mean']:.1f}**" in line
        assert "| 10.0 | 100.0 |" in line, "validation, then train"
    supcon = next(line for line in lines if "| SupCon, frozen, linear " in line)
    assert "\\*\\*" in supcon.split("|")[8]


def test_the_report_names_the_worst_class_and_the_runs_processors(report: tuple[str, str], planted: Analysis) -> None:
    names = ("&lt;script&gt;alert(1)&lt;/script&gt;", "a|b", *"23456789")
    page = re.sub(r"<t[dh][^>]*>", "<td>", report[1])
    for figures in planted.rows:
        worst = figures.by_class["worst"]
        assert f"<td>{100 * worst['value']:.1f} {names[worst['class']]}</td>" in page
    assert "balanced test" not in report[0], "equal classes: it is the accuracy"
    assert "trained on 17 CPU cores" in report[0], "of the runs, not of the machine that writes the report"
    assert "processors" not in report[0]
    assert "effective number of images" in report[0]
    assert "bootstrap" not in report[0]


def test_unequal_classes_have_a_column_for_balanced_accuracy(planted: Analysis, capsys: pytest.CaptureFixture) -> None:
    from prl_keras.experiments.report import _encoder_table, _main_table, _notes, _plain_note, _run_table
    from prl_keras.screen.console import console

    confusion = np.diag([400, *[0] * 8, 0])
    confusion[9, 0] = 20
    rows = [replace(figures, confusion=confusion) for figures in planted.rows]
    dataset = replace(load_dataset("digits"), class_names=(*"012345678", "[red]*rare*"))
    unequal = replace(planted, rows=rows)
    assert "| 50.0 | 0.0 [red]\\*rare\\* |" in _main_table(unequal, dataset).replace("\\[", "[").replace("\\]", "]")
    assert "balanced test %" in _run_table(unequal, dataset)
    notes = _notes(Run(planted.folder), unequal, dataset)
    assert "8 classes have no test images" in notes
    assert "Balanced: the mean" in notes
    assert "of plain accuracy" in _plain_note(unequal)
    assert _plain_note(planted) == ""
    assert "10-NN | balanced |" in _encoder_table(unequal, dataset)
    assert "balanced" not in _encoder_table(planted, dataset)
    console.print(_short_table(unequal, dataset))
    shown = capsys.readouterr().out
    assert "50.0 %" in shown
    assert "balanced" in shown


def test_the_table_of_label_efficiency_has_balanced_accuracy_where_classes_are_unequal(planted: Analysis) -> None:
    from prl_keras.experiments.report import _label_table

    figures = [{"value": 0.9, "balanced": balanced} for balanced in (0.5, 0.7)]
    files = [{"points": [{"labels_per_class": 10, "test": figure}]} for figure in figures]
    older = [{"points": [{"labels_per_class": 10, "test": {"value": 0.8}}]}]
    confusion = np.diag([400, *[0] * 8, 20])
    rows = [replace(f, confusion=confusion) for f in planted.rows]
    unequal = replace(planted, rows=rows, labels={"query": files, "loo": older})
    assert _label_table(unequal).splitlines()[2:] == [
        "| query | 90.0 |",
        "| query, balanced | 60.0 |",
        "| loo | 80.0 |",
    ]
    assert "balanced" not in _label_table(replace(planted, labels={"query": files}))


def test_progress_shows_what_a_large_class_hides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    options = Reproduce(seeds=1, rows=("pca", "mlp"))
    cells = fake_table(tmp_path, options, {})
    dataset = replace(load_dataset("digits"), class_names=(*"012345678", "[red]"))
    progress = Progress(Run(tmp_path), cells, options, dataset)

    def said() -> tuple[str, str]:
        progress.begin(cell)
        progress.end(cell)
        line = capsys.readouterr().out
        progress.terminal.print(progress.render())
        return line, capsys.readouterr().out

    cell = next(cell for cell in cells if cell.name == "mlp-s0")
    line, table = said()
    assert "balanced" not in line + table
    assert "(" not in table
    labels = np.repeat([0, 9], [8, 1])
    write_json(cell.run.path / "result.json", {"accuracy": {"test": accuracy(np.zeros(9, int), labels)}})
    progress = Progress(Run(tmp_path), cells, options, dataset)
    line, table = said()
    assert "mlp-s0, test 88.9 %, balanced 50.0 %, worst class 0.0 % [red], " in line
    assert "88.9 (50.0)" in table
    assert "in brackets: balanced accuracy" in table


def test_the_curves_say_by_how_many_images_c_was_chosen(planted: Analysis) -> None:
    from prl_keras.experiments.report import _label_note

    assert _label_note(planted) == [], "of older versions nothing is known"
    files = [{"validation_images": n, "points": [{"decided": True}, {"decided": n > 10}]} for n in (1143, 10)]
    (note,) = _label_note(replace(planted, labels={"query": files}))
    assert note == (
        "C is chosen by 10 to 1,143 validation images; for 1 of 4 probes they tell no other C from the chosen one."
    )


def test_the_report_lists_every_run(report: tuple[str, str], planted: Analysis) -> None:
    for f in planted.rows:
        for run in f.runs:
            correct = run.result["accuracy"]["test"]["correct"]
            figures = f"{correct:,} / 1,000 | {correct / 10:.2f} | 10.00 | 100.00 |"
            assert f"| [{run.name}]({run.name}/) | {figures}" in report[0]


# The command

TINY = ["--dataset", "digits", "--epochs", "1", "--samples-per-class", "13", "--batch-size", "64", "--image-size", "8"]
ROWS_OF_TINY = ["--seeds", "1", "--rows", "pca", "mlp", "query-frozen-linear"]


def figures_of(folder: Path) -> dict:
    """result.json without what a clock decides."""
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    for part in (*(row["cost"] for row in content["rows"]), *content["encoders"].values()):
        del part["seconds"]
    return content


@pytest.mark.parametrize(
    ("rows", "runs", "last"),
    [
        (["--seeds", "2", "--rows", "pca", "mlp"], 4, "pca-s1"),
        pytest.param(ROWS_OF_TINY, 5, "pca-s0", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_table_is_continued_without_repeating_a_run(
    rows: list[str],
    runs: int,
    last: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prl_keras.commands import cells

    made, run_cell = [], cells.run_cell

    def interrupted(cell: Cell) -> None:
        made.append(cell.description)
        run_cell(cell)
        if len(made) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cells, "run_cell", interrupted)
    command = ["reproduce", *TINY, *rows, "--runs-dir", str(tmp_path)]
    assert [main(command), main(command)] == [130, 0]
    output = capsys.readouterr().out
    assert f"{runs} runs in" in output
    assert "2 of them done" in output
    assert f"{runs} of {runs}: {last}, test" in output
    assert output.splitlines()[-1].strip().startswith("python -m webbrowser ")
    assert len(made) == len(set(made)) == runs, "a finished run was repeated"
    maps = ["figures/tsne_train.png"] if "query-frozen-linear" in rows else []
    for name in ("report.md", "report.html", "figures/intervals.svg", *maps):
        assert (tmp_path / "table-digits" / name).stat().st_size > 1000
    for more, message in (["--epochs", "2"], "epochs = 1, not 2"), (["--image-size", "16"], "image_size = 8, not 16"):
        for flags in [], ["--dry-run"]:
            assert main([*command, *more, *flags]) == 2
            assert message in capsys.readouterr().err
    assert main(["runs", "--runs-dir", str(tmp_path)]) == 0
    assert "table-digits" in capsys.readouterr().out


def test_strong_rows_train_by_their_own_recipe(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = Reproduce(seeds=1, rows=("strong",), epochs=3, batch_size=32)
    cells = {cell.name: cell.options for cell in plan(options, REQUEST, tmp_path) if not cell.labels}
    assert {name for name, o in cells.items() if o.recipe == "strong"} == {
        "strong-resnet18-s0",
        *(f"strong-{n}-s0" for n in ("prl", "loo", "supcon", "simclr", "query")),
        *(f"strong-{n}-frozen-linear-s0" for n in ("prl", "loo", "supcon", "simclr", "query")),
    }
    for name, kind in (("strong-prl-s0", "prl"), ("strong-resnet18-s0", "resnet18"), ("strong-supcon-s0", "supcon")):
        recipe = RECIPES["strong"][kind]
        chosen = cells[name]
        assert (chosen.epochs, chosen.batch_size, chosen.augment) == (recipe.epochs, recipe.batch_size, recipe.augment)
    assert (cells["query-s0"].epochs, cells["query-s0"].batch_size) == (3, 32)
    words = ["reproduce", "--dataset", "digits", "--rows", "strong-resnet18", "--runs-dir", str(tmp_path)]
    assert main([*words, "--epochs", "3"]) == 2
    assert "--epochs does nothing with --rows strong-resnet18" in capsys.readouterr().err


@pytest.mark.slow
def test_a_table_of_strong_rows_is_compared_with_strong_cross_entropy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("prl", "supcon", "resnet18", "finetune"):
        short = replace(RECIPES["strong"][kind], epochs=1, least_images=400, width=0.125)
        monkeypatch.setitem(RECIPES["strong"], kind, short)
    words = ["reproduce", "--dataset", "digits", "--samples-per-class", "13", "--image-size", "12", "--seeds", "1"]
    rows_asked_for = ["strong-resnet18", "strong-prl-frozen-linear", "strong-supcon-frozen-linear"]
    words += ["--rows", *rows_asked_for, "--jobs", "1", "--runs-dir", str(tmp_path)]
    assert main(words) == 0
    assert main(words) == 0, "the runs are those of the table, though batches and epochs were fitted to the few images"
    supcon, prl = (Run(tmp_path / "table-digits" / f"strong-{name}-s0") for name in ("supcon", "prl"))
    assert (supcon.part("options", "batch_size"), supcon.result["epochs"]) == (32, 2)
    assert (prl.part("options", "batch_size"), prl.result["epochs"]) == (32, 4)
    report = (tmp_path / "table-digits" / "report.md").read_text(encoding="utf-8")
    assert "against strong ResNet-18" in report
    assert "Strong rows train by a recipe of their own" in report
    assert "**Against the strong ResNet-18, cross-entropy by the strong recipe**" in report
    rows = json.loads((tmp_path / "table-digits" / "result.json").read_text())["rows"]
    assert [row["row"] for row in rows] == rows_asked_for
    assert "strong-resnet18" in rows[1]["against"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_only_run_of_a_seed_is_compared_with_the_images_of_its_seed(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture
) -> None:
    command = ["reproduce", *TINY, "--seeds", "2", "--rows", "mlp", "--runs-dir", str(tmp_path)]
    assert main(command) == 0
    run = Run(tmp_path / "table-digits" / f"mlp-s{seed}")
    config = run.config
    config["data"]["fingerprint"] = "e" * 64
    write_json(run.path / "config.json", config)
    capsys.readouterr()
    assert main(command) == 2
    assert f"mlp-s{seed} was made from other images" in capsys.readouterr().err


@pytest.mark.slow
def test_rows_without_a_pre_training_need_no_whole_batch_and_no_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prl_keras.commands import reproduce

    monkeypatch.setattr(reproduce, "_report", lambda *_: None)
    write_image_folder(tmp_path / "A", train=6, size=8)
    command = ["reproduce", "--dataset", str(tmp_path / "A"), "--seeds", "1", "--runs-dir", str(tmp_path)]
    for rows, name in ((["pca", "mlp", "--epochs", "2"], "both"), (["pca"], "both"), (["pca"], "pca")):
        assert main([*command, "--name", name, "--rows", *rows]) == 0, capsys.readouterr().err
    assert Run(tmp_path / "both" / "mlp-s0").result["epochs"] == 2
    assert main([*command, "--name", "pca", "--rows", "pca", "query-frozen-linear"]) == 2
    assert "--batch-size 256 is larger than the 10 training images" in capsys.readouterr().err


@pytest.mark.slow
def test_a_table_is_continued_with_images_that_were_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prl_keras.commands import cells, reproduce

    run_cell = cells.run_cell

    def interrupted(cell: Cell) -> None:
        run_cell(cell)
        raise KeyboardInterrupt

    write_image_folder(tmp_path / "A", train=6, size=8)
    command = ["reproduce", "--rows", "query-frozen-linear", "--seeds", "1", "--epochs", "1", "--batch-size", "8"]
    command += ["--name", "table", "--runs-dir", str(tmp_path), "--dataset"]
    monkeypatch.setattr(cells, "run_cell", interrupted)
    assert main([*command, str(tmp_path / "A")]) == 130
    monkeypatch.setattr(cells, "run_cell", run_cell)
    monkeypatch.setattr(reproduce, "_report", lambda *_: None)
    (tmp_path / "A").rename(tmp_path / "B")
    assert main([*command, str(tmp_path / "B")]) == 0, capsys.readouterr().err
    head = Run(tmp_path / "table" / "query-frozen-linear-s0")
    assert head.part("data", "fingerprint") == Run(tmp_path / "table" / "query-s0").part("data", "fingerprint")
    assert (tmp_path / "table" / "query-s0" / "label_efficiency.json").exists()
    assert main([*command, str(tmp_path / "B")]) == 0, "what was made from the moved images is the table's"


@pytest.mark.slow
@pytest.mark.usefixtures("whole_network")  # as in the processes
def test_a_table_killed_anywhere_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """SIGKILL in real processes: as it begins, within a training, after each run that it finishes, in its report."""
    words = ["reproduce", *TINY, *ROWS_OF_TINY, "--epochs", "3", "--jobs", "1", "--runs-dir"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main([*words, str(whole)]) == 0
    table, before = broken / "table-digits", {}

    def finished() -> dict[str, int]:
        return {file.parent.name: file.stat().st_mtime_ns for file in table.glob("*-s0/result.json")}

    moments = [
        (table / "config.json").exists,
        lambda: any(table.glob("query-s0/checkpoint/epoch-*.npz")),
        *[lambda: len(finished()) > len(before)] * 3,
        (table / "figures").exists,
    ]
    for happened in moments:
        before = finished()
        assert kill_after([*words, str(broken)], happened, delay=0), "it ended before it could be killed"
        assert before.items() <= finished().items(), "a finished run was made again"
    before = finished()
    run_program([*words, str(broken)])
    assert before == finished()
    assert figures_of(whole / "table-digits") == figures_of(broken / "table-digits")
    hashes = [Run(folder / "table-digits" / "query-s0").result["encoder_sha256"] for folder in (whole, broken)]
    assert hashes[0] == hashes[1]


@pytest.mark.slow
def test_the_papers_protocol_tests_every_epoch(tmp_path: Path) -> None:
    words = [*TINY, "--epochs", "2", "--protocol", "paper", "--rows", "mlp", "pca", "--test-per-class", "20"]
    assert main(["reproduce", *words, "--runs-dir", str(tmp_path)]) == 0
    folder = tmp_path / "table-digits-paper"
    run = Run(folder / "mlp-s0")
    values = [line["test_accuracy"] for line in run.metrics]
    result = run.result
    assert len(values) == 2
    assert result["maximum_over_epochs_on_test"]["value"] == max(values)
    assert result["accuracy"]["test"]["value"] == pytest.approx(values[-1], abs=1e-6), "the last step's weights"
    assert "| optimism |" in (folder / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["reproduce", *TINY, *ROWS_OF_TINY, "--runs-dir", str(tmp_path), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "query-frozen-linear-s0" in output
    assert re.search(r"5 runs, about \d+ (s|min) on this machine", output)
    assert not list(tmp_path.iterdir())


def test_a_pca_is_an_ordinary_classifier() -> None:
    from prl_keras.evaluation.pca import pca_classifier
    from prl_keras.models.encode import encode

    for classes in (10, 2):
        dataset = load_dataset("digits")
        if classes == 2:
            parts = {}
            for name in ("train", "validation", "test"):
                split = getattr(dataset, name)
                parts[name] = split.take(np.flatnonzero(split.labels < 2))
            dataset = replace(dataset, class_names=("0", "1"), **parts)
        classifier, chosen = pca_classifier(dataset, seed=0)
        figure = accuracy(encode(classifier, dataset.test.images).argmax(axis=-1), dataset.test.labels)
        assert figure["value"] > 0.94, chosen
        features = encode(classifier.get_layer("encoder"), dataset.train.images)
        np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-3)
        assert features.shape[1] == chosen["components"]
