"""Does a run notice what it does not know? Every score and figure against its definition."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from archives import write_image_folder, write_png16
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import logsumexp, softmax
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors

from prl_keras.cli import main
from prl_keras.data.catalog import load_held_out
from prl_keras.evaluation.novelty import SCORES, parting, strangeness
from prl_keras.evaluation.probes import Features
from prl_keras.evaluation.statistics import threshold
from prl_keras.runs import Run

VALUES = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=12)  # with ties


@given(VALUES, VALUES)
def test_auroc_is_the_share_of_pairs_in_order_and_ties_count_half(known, strange):
    pairs = [1.0 if s > k else 0.5 if s == k else 0.0 for s in strange for k in known]
    found = parting(np.array(known), np.array(strange))
    assert found["auroc"] == pytest.approx(np.mean(pairs))
    assert found["auroc"] == pytest.approx(roc_auc_score([0] * len(known) + [1] * len(strange), known + strange))
    assert 0 <= found["low"] <= found["auroc"] <= found["high"] <= 1
    alone = parting(np.array(known), np.array(strange[:1]))
    assert (alone["low"], alone["high"]) == (None, None), "one picture says nothing of others"
    assert (found["n_known"], found["n_strange"]) == (len(known), len(strange))


def test_its_interval_holds_the_truth_as_often_as_it_says():
    random, held = np.random.RandomState(0), 0
    truth = 0.7602499389  # of normal scores one apart: Phi(1 / sqrt 2)
    for _ in range(400):
        found = parting(random.randn(80), random.randn(60) + 1)
        held += found["low"] <= truth <= found["high"]
    assert 0.92 <= held / 400 <= 0.98


def test_the_false_positives_are_those_of_the_curve():
    random = np.random.RandomState(1)
    known, strange = random.randn(300), random.randn(200) + 1
    found = parting(known, strange)["fpr95"]
    false, true, _ = roc_curve([0] * 300 + [1] * 200, np.concatenate([known, strange]), drop_intermediate=False)
    assert found == pytest.approx(false[np.argmax(true >= 0.95)])


@given(st.integers(1, 60), st.sampled_from([0.05, 0.1, 0.3]))
def test_a_threshold_is_passed_as_seldom_as_was_asked(n, share):
    values = np.random.RandomState(n).permutation(n).astype(float)
    limit, place = threshold(values, share), int(share * (n + 1))
    assert (limit is None) == (place == 0)
    if limit is not None:
        assert (values >= limit).sum() == place


def test_the_promise_holds_for_new_pictures_whatever_their_distribution():
    random = np.random.RandomState(2)
    passed = [random.exponential() >= threshold(random.exponential(size=39), 0.1) for _ in range(4000)]
    assert np.mean(passed) == pytest.approx(0.1, abs=0.015)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 1000))
def test_scores_are_what_their_definitions_say(seed):
    random = np.random.RandomState(seed)
    labels = np.repeat(np.arange(3), 12)
    train = Features(random.randn(3, 5)[labels] * 2 + random.randn(36, 5), labels)
    asked, logits = random.randn(7, 5) * 2, random.randn(7, 3) * 4
    found = {name: groups["new"] for name, groups in strangeness(train, {"new": (asked, logits)}, 3).items()}
    assert tuple(found) == SCORES
    centre = train.features.mean(axis=0)

    def unit(vectors):
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    directions = unit(train.features - centre)
    prototypes = unit(np.stack([directions[labels == k].mean(axis=0) for k in range(3)]))
    np.testing.assert_allclose(
        found["nearest prototype"], -(unit(asked - centre) @ prototypes.T).max(axis=1), atol=1e-6
    )
    near = NearestNeighbors(n_neighbors=12, metric="cosine").fit(train.features - centre)
    np.testing.assert_allclose(found["kNN"], near.kneighbors(asked - centre)[0][:, -1], atol=1e-6)
    means = np.stack([train.features[labels == k].mean(axis=0) for k in range(3)])
    precision = LedoitWolf(assume_centered=True).fit(train.features - means[labels]).precision_
    slow = [min((x - m) @ precision @ (x - m) for m in means) for x in asked]
    np.testing.assert_allclose(found["Mahalanobis"], slow, rtol=1e-5)
    np.testing.assert_allclose(found["energy"], -logsumexp(logits, axis=1))
    np.testing.assert_allclose(found["maximum probability"], -softmax(logits, axis=1).max(axis=1))


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> Run:
    """A pre-training `held` without three classes of digits, and `tuned`, a classifier of it."""
    folder = tmp_path_factory.mktemp("held")
    words = ["--dataset", "digits", "--image-size", "8", "--samples-per-class", "8", "--batch-size", "32"]
    how = ["--epochs", "1", "--runs-dir", str(folder)]
    assert main(["pretrain", *words, *how, "--hold-out-classes", "3", "--name", "held"]) == 0
    assert main(["finetune", "--encoder", "held", *how, "--name", "tuned"]) == 0
    return Run(folder / "held")


@pytest.fixture
def noise(tmp_path) -> str:
    """A folder of two classes that look like nothing, one called as a digit is; twelve pictures for test."""
    pictures = np.random.RandomState(0).randint(0, 256, (24, 8, 8, 3)).astype("uint8")
    for number, image in enumerate(pictures):
        place = tmp_path / "noise" / ("train", "test")[number % 2] / "a7"[number // 12]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return str(tmp_path / "noise")


def check_measured(folder, name: str, groups: dict[str, int], logits: str, shown: str) -> None:
    found = json.loads((folder / name / "unknown.json").read_text(encoding="utf-8"))
    assert found["strange"] == groups
    assert tuple(found["scores"]) == SCORES
    assert found["logits"] == logits
    for score in SCORES:
        for group, count in groups.items():
            figure = found["scores"][score][group]
            assert figure["n_strange"] == count
            assert f"{100 * figure['auroc']:.1f} ({100 * figure['low']:.1f} - {100 * figure['high']:.1f})" in shown
        assert found["scores"][score]["at_5_percent_of_validation"]["test"]["n"] == found["known"]["test"]


def test_what_is_far_is_measured_on_the_screen_and_in_a_file(trained, noise, capsys):
    assert main(["evaluate", "tuned", "--unknown", "--far", noise, "--runs-dir", str(trained)]) == 0
    shown = capsys.readouterr().out
    assert "warning: far: noise has classes that the run was trained on, by their names: 7\n" in shown
    check_measured(trained, "tuned", {"far: noise": 12}, "the run's classifier", shown)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["held", "tuned"])
def test_held_out_classes_are_near(held, name, noise, capsys):
    folder = held.path.parent
    assert main(["evaluate", name, "--unknown", "--far", noise, "--runs-dir", str(folder)]) == 0
    novel, _ = load_held_out(**held.part("data", "request"))
    groups = {"near: held-out classes": len(novel), "far: noise": 12}
    logits = "a linear probe, C chosen on validation" if name == "held" else "the run's classifier"
    check_measured(folder, name, groups, logits, capsys.readouterr().out)


def test_a_classifier_says_none_of_these_if_it_is_asked_to(trained, noise, capsys, tmp_path):
    folder, pictures = str(trained), noise
    plain, wary = tmp_path / "plain.csv", tmp_path / "wary.csv"
    assert main(["predict", "tuned", pictures, "--out", str(plain), "--runs-dir", folder]) == 0
    assert not (trained / "tuned" / "known.npz").exists()
    for again in ("", "again-"):
        out = wary.with_name(f"{again}{wary.name}")
        assert main(["predict", "tuned", pictures, "--reject", "--out", str(out), "--runs-dir", folder]) == 0
        said = capsys.readouterr().out
        assert '"none of these": ' in said
        assert ("Data: digits" in said) == (not again), "the data set is encoded once"

    def rows(file):
        with file.open(encoding="utf-8", newline="") as text:
            return list(csv.DictReader(text))

    for one, other in zip(rows(plain), rows(wary), strict=True):
        assert {key: other[key] for key in ("path", "class", "class_2")} == {
            key: one[key] for key in ("path", "class", "class_2")
        }
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-5)
        assert other["known"] in ("true", "false")
    assert rows(wary) == rows(wary.with_name("again-wary.csv"))
    count = sum(row["known"] == "false" for row in rows(wary))
    assert count > 0, "noise is like no digit"
    assert f"{count:,}  {100 * count / 24:5.1f} %  none of these" in said


def test_pictures_alone_are_far_all_of_them_and_what_is_replaced_is_said(trained, noise, capsys, tmp_path):
    flat = tmp_path / "flat"
    (flat / ".thumbs").mkdir(parents=True)
    for path in Path(noise).rglob("*.png"):
        shutil.copy(path, flat)
    evaluate = ["evaluate", "tuned", "--unknown", "--runs-dir", str(trained), "--far"]
    assert main([*evaluate, str(flat)]) == 0
    file = trained / "tuned" / "unknown.json"
    assert json.loads(file.read_text(encoding="utf-8"))["strange"] == {"far: flat": 24}
    (tmp_path / "one").mkdir()
    shutil.copy(flat / "1.png", tmp_path / "one")
    assert main([*evaluate, str(tmp_path / "one")]) == 0, "nothing is drawn of them"
    assert main([*evaluate, str(flat)]) == 0
    capsys.readouterr()
    assert main([*evaluate, noise]) == 0
    assert f"unknown.json is replaced, which was measured with --far {flat}\n" in capsys.readouterr().out


def test_a_run_of_a_folder_knows_where_it_went_and_what_white_is(tmp_path, capsys):
    pictures, runs = write_image_folder(tmp_path / "pets", train=120, size=8), ["--runs-dir", str(tmp_path / "runs")]
    write_png16(pictures / "train" / "cat" / "0.png", np.full((8, 8), 4_000, np.uint16), 0)
    assert main(["baseline", "--model", "mlp", "--dataset", str(pictures), "--epochs", "1", "--name", "b", *runs]) == 0
    (tmp_path / "deep").mkdir()
    for number in range(3):
        write_png16(tmp_path / "deep" / f"{number}.png", np.full((8, 8), 18_000 * number, np.uint16), 0)
    assert main(["evaluate", "b", "--unknown", "--far", str(tmp_path / "deep"), *runs]) == 2
    assert "these images use 16 bits a value, those of pets 12: one white would be another" in capsys.readouterr().err
    moved = pictures.rename(tmp_path / "moved")
    asked, where = ["predict", "b", str(moved), *runs], ["--dataset", str(moved)]
    other = write_image_folder(tmp_path / "other", train=5, size=8)
    for words, line in (
        (["--reject"], "if they were moved, add --dataset NEWPATH"),
        (["--reject", "--dataset", str(other)], "other has other images"),
        (where, "--dataset does nothing with --no-reject"),
    ):
        assert main([*asked, *words]) == 2
        assert line in capsys.readouterr().err
    assert main([*asked, "--reject", *where]) == 0


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["evaluate", "pre", "--unknown"], "was trained on all classes of its data: add --far"),
        (["evaluate", "pre", "--unknown", "--far", "owls"], "--far owls: no such data set or folder"),
        (["evaluate", "pre", "--unknown", "--far", "digits"], "--far digits: these are the known pictures"),
        (["evaluate", "pre", "--far", "fashion_500"], "--far does nothing with --no-unknown"),
        (["evaluate", "pre", "--unknown", "--few-shot"], "--unknown does nothing with --few-shot"),
    ],
)
def test_what_makes_no_sense_is_one_line(trained, capsys, command, line):
    assert main([*command, "--runs-dir", str(trained)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert line in lines[0]
