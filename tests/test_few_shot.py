"""Classes that no training saw: nothing of them gets into it, and few-shot figures are what their definitions say."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score

from prl_keras.cli import main
from prl_keras.commands.common import stronger
from prl_keras.commands.few_shot import check_episodes
from prl_keras.config import Evaluate, Pretrain
from prl_keras.data.catalog import load_dataset, load_held_out
from prl_keras.data.held_out import held_out_classes, one_of_each
from prl_keras.data.seen import seen_by, short_digests
from prl_keras.data.splits import Split
from prl_keras.errors import InputError
from prl_keras.evaluation.directions import unit
from prl_keras.evaluation.few_shot import CLASSIFIERS, episode_accuracies, retrieval
from prl_keras.evaluation.incremental import taught_accuracies
from prl_keras.evaluation.prototype_classifier import PrototypeClassifier
from prl_keras.evaluation.taught import Examples, Taught
from prl_keras.reports.record import run_record
from prl_keras.runs import Run

NAMES = ("ant", "bee", "cat", "dog", "elk")
DIGITS = {"name": "digits", "image_size": 8, "samples_per_class": 8}


@given(
    st.one_of(
        st.integers(1, 3).map(lambda n: [str(n)]),
        st.sampled_from(["0.2", "0.5", "0.01"]).map(lambda share: [share]),
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
    ),
    st.integers(0, 2**32 - 1),
)
def test_classes_are_named_or_drawn(wanted, seed):
    found = held_out_classes(wanted, NAMES, seed)
    assert found == held_out_classes(wanted, NAMES, seed)
    assert list(found) == [name for name in NAMES if name in found], "in the data set's order"
    counts = {"0.2": 1, "0.5": 2, "0.01": 1}
    assert len(found) == counts.get(wanted[0], int(wanted[0]) if wanted[0].isdigit() else len(wanted))
    if wanted[0] in NAMES:
        assert set(found) == set(wanted)


def test_every_class_can_be_drawn():
    drawn = {held_out_classes(["1"], NAMES, seed) for seed in range(60)}
    assert drawn == {(name,) for name in NAMES}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["owl"], "there is no class 'owl'; there are ant, bee"),
        (["4"], "takes 4 of 5 classes; at least two must be left"),
        (["0.9"], "takes 4 of 5 classes"),
        (["0"], "hold_out_classes is 0; expected names, a whole number, or a share below 1"),
        (["1.5"], "hold_out_classes is 1.5"),
        (["-1"], "hold_out_classes is -1"),
        (["nan"], "there is no class 'nan'"),
        (["1e0"], "there is no class '1e0'"),
    ],
)
def test_what_leaves_no_training_is_refused(wanted, message):
    with pytest.raises(InputError, match=message):
        held_out_classes(wanted, NAMES, 0)


def test_the_two_parts_are_the_whole_and_share_nothing():
    whole = load_dataset("digits", image_size=8)
    kept = load_dataset("digits", image_size=8, hold_out_classes=["3", "7"])
    novel, names = load_held_out("digits", image_size=8, hold_out_classes=["3", "7"])
    assert names == kept.held_out == ("3", "7")
    assert kept.class_names == tuple("01245689")

    def pictures(splits, labelled):
        return sorted((d, label) for s in splits for d, label in zip(short_digests(s.images), labelled(s), strict=True))

    def called(names):
        return lambda split: [names[label] for label in split.labels]

    own = pictures((kept.train, kept.validation, kept.test), called(kept.class_names))
    other = pictures([novel], called(names))
    everything = (whole.train, whole.validation, whole.test)
    assert sorted(own + other) == pictures(everything, called(whole.class_names))
    assert len(other) == sum(np.isin(split.labels, (3, 7)).sum() for split in everything)


def test_a_folder_of_pictures_is_parted_with_the_names_of_its_files(tmp_path):
    for part, count in (("train", 4), ("test", 2)):
        for k, name in enumerate(NAMES):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (6, 6), (40 * k, 40 * number, part == "test")).save(folder / f"{number}.png")
    kept = load_dataset(str(tmp_path), hold_out_classes=["bee", "dog"], cache_dir="none")
    novel, names = load_held_out(str(tmp_path), hold_out_classes=["bee", "dog"], cache_dir="none")
    assert kept.class_names == ("ant", "cat", "elk")
    assert len(novel) == 12
    for file, label in zip(novel.files, novel.labels, strict=True):
        assert Path(str(file)).parent.name == names[label]
    assert not np.isin(short_digests(novel.images), short_digests(kept.train.images)).any()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=20))
def test_one_picture_of_each_content_is_left_and_none_that_two_classes_have(pictures):
    images = np.array([content for content, _ in pictures], np.uint8).reshape(-1, 1, 1, 1)
    labels = np.array([label for _, label in pictures], np.int64)
    left, copies, in_two = one_of_each(Split(images, labels, np.arange(len(pictures))))
    classes = {content: {label for other, label in pictures if other == content} for content, _ in pictures}
    clear = [pair for pair in pictures if len(classes[pair[0]]) == 1]
    assert left.files.tolist() == sorted({pictures.index(pair) for pair in clear}), "the first of each"
    assert in_two == len(pictures) - len(clear)
    assert copies == len(clear) - len(set(clear))


def slow_episode(features, centre, support, labels, query):
    """By the definitions, one picture at a time."""
    ways = max(labels) + 1

    def direction(vector):
        return vector / np.linalg.norm(vector)

    answers = {name: [] for name in CLASSIFIERS}
    seen = np.array([direction(features[row] - centre) for row in support])
    wanted = np.eye(ways)[labels]
    model = Ridge(1.0, fit_intercept=False).fit(seen, wanted - wanted.mean(axis=0))
    for row in query:
        for name, base in (("nearest prototype", 0), ("centred prototype", centre)):
            mine = direction(features[row] - base)
            means = [
                np.mean(
                    [direction(features[s] - base) for s, label in zip(support, labels, strict=True) if label == k], 0
                )
                for k in range(ways)
            ]
            answers[name].append(int(np.argmax([mine @ direction(mean) for mean in means])))
        mine = direction(features[row] - centre)
        answers["nearest neighbour"].append(labels[int(np.argmax(seen @ mine))])
        answers["ridge"].append(int(np.argmax(model.predict(mine[None])[0])))
    return answers


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(2, 4))
def test_an_episode_is_what_the_slow_one_is(seed, shots, ways):
    random = np.random.RandomState(seed)
    labels = np.repeat(np.arange(5), 9)
    features = random.randn(5, 6)[labels] + random.randn(45, 6) + 3
    centre = features.mean(axis=0) + 0.1
    found = episode_accuracies(features, labels, centre, ways, shots, queries=3, episodes=4, seed=seed)
    draws = np.random.RandomState([seed, ways, shots])
    for episode in range(4):
        support, query, truth = [], [], []
        for place, k in enumerate(draws.permutation(5)[:ways]):
            rows = 9 * k + draws.permutation(9)[: shots + 3]
            support += list(rows[:shots])
            query += list(rows[shots:])
            truth += [place] * 3
        slow = slow_episode(features, centre, support, list(np.repeat(np.arange(ways), shots)), query)
        for name in CLASSIFIERS:
            assert found[name][episode] == pytest.approx(np.mean(np.array(slow[name]) == truth)), name


def test_features_that_know_nothing_are_at_chance_and_perfect_ones_are_perfect():
    labels = np.repeat(np.arange(8), 40)
    random = np.random.RandomState(0)
    nothing = episode_accuracies(random.randn(320, 16), labels, np.zeros(16), episodes=400)
    perfect = episode_accuracies(
        np.eye(8)[labels] + 1e-3 * random.randn(320, 8), labels, np.full(8, 1 / 8), episodes=50
    )
    for name in CLASSIFIERS:
        assert nothing[name].mean() == pytest.approx(0.2, abs=0.01)
        assert (perfect[name] == 1).all()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"ways": 9},
            r"8 classes have the 1 \+ 15 pictures that an episode takes, and it takes 9: ask for",
        ),
        ({"shots": (1, 30)}, r"0 classes have the 30 \+ 15 pictures"),
        ({"ways": 1}, "--ways is 1; expected at least 2"),
        ({"queries": 0}, "--queries is 0"),
        ({"shots": (5, 0)}, "--shots is 0"),
        ({"episodes": 1}, "--episodes is 1"),
    ],
)
def test_episodes_that_cannot_be_played_are_refused(how, message):
    split = Split(np.zeros((320, 8, 8, 3), np.uint8), np.repeat(np.arange(8), 40))
    with pytest.raises(InputError, match=message):
        check_episodes(split, Evaluate(**{"ways": 5, "shots": (1,), "queries": 15, "episodes": 9} | how))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_retrieval_is_what_scikit_learn_says(seed):
    random = np.random.RandomState(seed)
    labels = random.randint(0, 6, 30)
    features, centre = random.randn(30, 5), random.randn(5)
    if np.bincount(labels).max() < 2:
        return
    directions = (features - centre) / np.linalg.norm(features - centre, axis=1, keepdims=True)
    recalls, precisions = {1: [], 5: []}, []
    for row in range(30):
        others = np.arange(30) != row
        same = labels[others] == labels[row]
        if same.any():
            similar = directions[others] @ directions[row]
            precisions.append(average_precision_score(same, similar))
            for k, recall in recalls.items():
                recall.append(same[np.argsort(-similar)[:k]].any())
    found = retrieval(features, labels, centre)
    assert found["n"] == len(precisions)
    assert found["mAP"] == pytest.approx(np.mean(precisions))
    assert [found["recall@1"], found["recall@5"]] == pytest.approx([np.mean(recalls[1]), np.mean(recalls[5])])


def test_taught_classes_are_told_apart_beside_the_old_ones() -> None:
    """Against a loop over cosines from the centre; the old classes have no spread here."""
    random = np.random.RandomState(0)
    old, new = random.randn(3, 8) * 2, random.randn(2, 8) * 2
    train, tested = (np.concatenate([c + random.randn(n, 8) for c in old]) for n in (20, 30))
    novel, labels = np.concatenate([c + random.randn(25, 8) for c in new]), np.repeat([0, 1], 25)
    centre = train.mean(axis=0)
    classifier = PrototypeClassifier(centre=centre).fit(train, np.repeat(list("abc"), 20))
    none = Examples(train[:0], np.array([], str), np.array([], str), np.zeros(0, np.uint64))
    asked = Examples(tested, np.repeat(list("abc"), 30), np.full(90, ""), np.zeros(90, np.uint64))
    known = Taught(classifier, none, none, asked, 0.05, None, 3)
    found = taught_accuracies(known, novel, labels, shots=2, draws=4)
    expected = []
    for draw in range(4):
        order = np.random.RandomState([draw, 2])
        rows = [order.permutation(np.flatnonzero(labels == k)) for k in (0, 1)]
        groups = [train[20 * k : 20 * k + 20] for k in range(3)] + [novel[each[:2]] for each in rows]
        means = np.stack([unit(unit(group - centre).sum(axis=0, keepdims=True))[0] for group in groups])
        pictures = [tested[30 * k : 30 * k + 30] for k in range(3)] + [novel[each[2:]] for each in rows]
        right = [(unit(group - centre) @ means.T).argmax(axis=1) == k for k, group in enumerate(pictures)]
        expected.append(
            (np.concatenate(right[:3]).mean(), np.concatenate(right[3:]).mean(), np.mean([r.mean() for r in right]))
        )
    for part, values in zip(("old", "new", "mean"), zip(*expected, strict=True), strict=True):
        assert found[part]["mean"] == pytest.approx(np.mean(values))
        assert found[part]["n"] == 4
    assert known.classifier.classes_.tolist() == list("abc"), "as it was"
    assert taught_accuracies(known, novel, labels, shots=25) is None, "no picture is left"


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("held")
    words = ["--dataset", "digits", "--image-size", "8", "--samples-per-class", "8", "--batch-size", "32"]
    how = ["--epochs", "1", "--hold-out-classes", "3", "--name", "held", "--runs-dir", str(folder)]
    assert main(["pretrain", *words, *how]) == 0
    return Run(folder / "held")


def few_shot(run: Run, *words: str) -> int:
    how = ["--few-shot", "--ways", "3", "--episodes", "50", "--runs-dir", str(run.path.parent), *words]
    return main(["evaluate", run.name, *how])


def test_the_run_says_which_classes_it_never_saw_and_they_are_measured(held, capsys):
    data = held.part("data")
    assert len(data["held_out"]) == 3
    assert sorted([*data["held_out"], *data["class_names"]]) == list("0123456789")
    novel, names = load_held_out(**data["request"])
    assert not np.isin(short_digests(novel.images), seen_by(held)).any()
    assert few_shot(held) == 0
    found = json.loads((held.path / "few_shot.json").read_text(encoding="utf-8"))
    assert found["classes"] == list(names) == data["held_out"]
    assert found["pictures"] == len(novel)
    assert found["left_out_as_trained_on"] == 0
    with np.load(held.path / "few_shot.npz") as kept:
        for shots in ("1", "5"):
            for name in CLASSIFIERS:
                figure, values = found["accuracy"][shots][name], kept[f"{name}, {shots} shots"]
                assert values.shape == (50,)
                assert figure["mean"] == pytest.approx(values.mean())
                assert figure["low"] < figure["mean"] < figure["high"]
    for shots in ("1", "5"):
        taught = found["taught"][shots]
        assert taught["mean"]["n"] == 10
        assert taught["mean"]["mean"] == pytest.approx(
            (7 * taught["old"]["mean"] + 3 * taught["new"]["mean"]) / 10, abs=0.1
        )
    shown = capsys.readouterr().out
    assert "all taught with 5 pictures each, beside the classes of its training: old classes " in shown
    assert f"on {len(novel):,} pictures of 3 classes of digits, none of which it was trained on" in shown
    assert f"{100 * found['accuracy']['5']['ridge']['mean']:.1f} %" in shown
    assert few_shot(held) == 0
    assert json.loads((held.path / "few_shot.json").read_text(encoding="utf-8")) == found


def test_pictures_that_a_training_class_has_too_are_left_out(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in "abcde":
        (tmp_path / "art" / name).mkdir(parents=True)
        for k in range(24):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), "uint8")).save(tmp_path / "art" / name / f"{name}{k}.png")
    for k in range(3):
        shutil.copy(tmp_path / "art" / "a" / f"a{k}.png", tmp_path / "art" / "e" / f"as-a{k}.png")
    words = ["--dataset", str(tmp_path / "art"), "--cache-dir", "none", "--batch-size", "16", "--epochs", "1"]
    how = ["--hold-out-classes", "d", "e", "--name", "held", "--runs-dir", str(tmp_path)]
    assert main(["pretrain", *words, *how]) == 0
    run = Run(tmp_path / "held")
    capsys.readouterr()
    assert few_shot(run, "--ways", "2", "--shots", "1", "--queries", "5") == 0
    found = json.loads((run.path / "few_shot.json").read_text(encoding="utf-8"))
    left_out = found["left_out_as_trained_on"]
    assert 0 < left_out <= 3, "some of them are in train"
    assert found["pictures"] == 24 + 27 - left_out
    assert (
        f"{left_out} pictures are left out: pictures of the training classes have the same" in capsys.readouterr().out
    )


HELD_OUT = ("d", "e", "f")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Run:
    """Of pictures that are wider than high: a resize is seen. f has ten, e two copies; d and e have one in common."""
    folder, rng = tmp_path_factory.mktemp("drawn"), np.random.default_rng(0)
    for name in "abcdef":
        (folder / "art" / name).mkdir(parents=True)
        for k in range(10 if name == "f" else 24):
            Image.fromarray(rng.integers(0, 256, (8, 12, 3), "uint8")).save(folder / "art" / name / f"{k}.png")
    for source, copy in (("e/0", "e/as-0"), ("e/1", "e/as-1"), ("d/2", "e/of-d")):
        shutil.copy(folder / "art" / f"{source}.png", folder / "art" / f"{copy}.png")
    seed = next(seed for seed in range(999) if held_out_classes(["3"], "abcdef", seed) == HELD_OUT)
    words = ["--dataset", str(folder / "art"), "--cache-dir", "none", "--image-size", "8", "--batch-size", "16"]
    how = ["--hold-out-classes", "3", "--split-seed", str(seed), "--name", "held", "--runs-dir", str(folder)]
    assert main(["pretrain", *words, *how, "--epochs", "1"]) == 0
    return Run(folder / "held")


PLAYED = ("--ways", "2", "--shots", "1", "5", "--queries", "6")


def test_copies_and_pictures_of_two_classes_are_left_out_and_classes_that_are_not_played_are_told(drawn, capsys):
    assert few_shot(drawn, *PLAYED) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 pictures are left out: copies of another one of their class" in shown
    assert "2 pictures are left out: two classes have the same pixels" in shown
    found = json.loads((drawn.path / "few_shot.json").read_text(encoding="utf-8"))
    assert (found["left_out_as_copies"], found["left_out_in_two_classes"]) == (2, 2)
    assert found["pictures"] == found["retrieval"]["n"] == 23 + 24 + 10
    assert found["drawn_from"] == {"1": {"classes": 3}, "5": {"classes": 2}}
    assert "episodes with 5 a class are drawn from 2 of the 3 classes: others have too few pictures" in shown
    assert "episodes with 1 a class" not in shown
    assert found["taught"]["5"]["classes"] == 3
    assert few_shot(drawn, "--ways", "2", "--shots", "10", "--queries", "6") == 0
    assert "2 of the 3 classes taught with 10 pictures each" in " ".join(capsys.readouterr().out.split())


def test_held_out_classes_are_measured_however_they_are_read(drawn, capsys):
    assert few_shot(drawn, *PLAYED) == 0
    assert few_shot(drawn, *PLAYED, "--resize", "pad") == 0
    assert "of 3 classes of art, none of which" in capsys.readouterr().out
    usual, padded = (
        json.loads(file.read_text(encoding="utf-8"))
        for file in (drawn.path / "few_shot.json", next(drawn.path.glob("few_shot-art-*.json")))
    )
    assert padded["classes"] == usual["classes"] == list(HELD_OUT)
    assert padded["pictures"] == usual["pictures"]
    assert padded["accuracy"] != usual["accuracy"]
    assert padded["taught"]["1"]["old"] == pytest.approx(usual["taught"]["1"]["old"], abs=0.3)
    assert few_shot(drawn, *PLAYED, "--test-per-class", "1") == 2
    assert "--test-per-class does nothing to held-out classes" in capsys.readouterr().err


@pytest.mark.parametrize(("broken", "pictures"), [("d/7", 56), ("a/7", 57)])
def test_held_out_classes_are_measured_without_a_file_that_is_damaged_since(drawn, tmp_path, capsys, broken, pictures):
    run = Run(shutil.copytree(drawn.path, tmp_path / "held", ignore=shutil.ignore_patterns("few_shot*")))
    file = drawn.path.parent / "art" / f"{broken}.png"
    content = file.read_bytes()
    file.write_bytes(b"no picture")
    try:
        assert few_shot(run, *PLAYED, "--damaged", "skip") == 0
    finally:
        file.write_bytes(content)
    assert few_shot(run, *PLAYED) == 0
    files = next(run.path.glob("few_shot-art-*.json")), run.path / "few_shot.json"
    without, whole = (json.loads(each.read_text(encoding="utf-8")) for each in files)
    assert without["classes"] == whole["classes"] == list(HELD_OUT)
    assert (without["pictures"], whole["pictures"]) == (pictures, 57)
    capsys.readouterr()


def test_what_says_nothing_of_new_classes_is_refused_also_if_pictures_are_read_otherwise(drawn, tmp_path, capsys):
    art = drawn.path.parent / "art"
    lines = [f"{file.relative_to(art)},{file.parent.name}" for file in sorted(art.rglob("*.png"))]
    lines = [f"{line[:-1]}0" if line.startswith("a/1") else line for line in lines]  # the draw then moves by one
    (tmp_path / "l.csv").write_text("\n".join(["path,label", *lines]) + "\n", encoding="utf-8")
    assert few_shot(drawn, *PLAYED, "--labels", str(tmp_path / "l.csv")) == 2
    line = capsys.readouterr().err
    assert re.search("these options hold out '[abc]', which run 'held' was trained on", line)
    heir = Run(shutil.copytree(drawn.path, tmp_path / "heir"))
    novel, _ = load_held_out(**heir.part("data", "request"))
    np.save(heir.path / "train_digests.npy", np.unique([*seen_by(heir), *short_digests(novel.images)]))
    for more in ([], ["--resize", "pad"]):
        assert few_shot(heir, *PLAYED, *more) == 2
        assert "'heir' began with an encoder that was trained on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ""),
        ({"seed": 2}, " --seed 2"),
        ({"split_seed": 4, "seed": 2}, " --split-seed 4"),
        ({"validation_fraction": 0.2, "fold": 3}, " --validation-fraction 0.2 --fold 3"),
    ],
)
def test_the_command_of_a_stronger_training_holds_out_the_same(options, words):
    (line,) = stronger(Pretrain(dataset="digits", hold_out_classes=("3",), **options))
    start = "python main.py pretrain --variant prl --recipe open --dataset digits --hold-out-classes 3"
    assert line == f"{start}{words}   # docs/beyond.md"


@pytest.mark.parametrize(
    "words",
    [
        "evaluate --few-shot --shots",
        "evaluate --unknown --far --runs-dir x",
        "pretrain --dataset digits --hold-out-classes",
        "pretrain --hold_out_classes --dataset digits",
        "reproduce --rows",
        "reproduce --dataset digits --rows beyond --shots --seeds 1",
        "tune --encoder",
        "teach latest owl owl.jpg --forget",
    ],
)
def test_an_option_of_several_values_is_not_given_without_any(words, capsys):
    assert main(words.split()) == 2
    assert re.fullmatch(
        "error: --[a-z-]+ needs a value: give it one or several, or leave it out\n", capsys.readouterr().err
    )


def test_the_page_of_the_run_names_them(held):
    dataset = load_dataset(**held.part("data", "request"))
    made = dict(run_record(held, dataset, "", None)["options"])
    assert made["classes held out"] == ", ".join(held.part("data", "held_out"))


@pytest.mark.slow
def test_a_fine_tuned_run_keeps_them_held_out(held, capsys):
    folder = str(held.path.parent)
    assert main(["finetune", "--encoder", "held", "--epochs", "1", "--name", "tuned", "--runs-dir", folder]) == 0
    tuned = Run(held.path.parent / "tuned")
    assert tuned.part("data", "class_names") == held.part("data", "class_names")
    assert few_shot(tuned) == 0
    capsys.readouterr()


def test_its_own_data_by_name_are_its_held_out_classes(held):
    assert few_shot(held) == 0
    before = (held.path / "few_shot.json").read_bytes()
    assert few_shot(held, "--dataset", "digits") == 0
    assert (held.path / "few_shot.json").read_bytes() == before


def test_pictures_that_were_trained_on_are_left_out_of_another_data_set(held, capsys, tmp_path):
    """A folder of three classes, each of training pictures, two of them, and of pictures of held-out classes; one is
    called as a class that was trained on."""
    train = load_dataset(**held.part("data", "request")).train
    novel, _ = load_held_out(**held.part("data", "request"))
    known = held.part("data", "class_names")[0]
    for name, start in ((known, 0), ("two", 30), ("three", 60)):
        (tmp_path / name).mkdir()
        for number, image in enumerate(
            [*train.images[start // 15 : start // 15 + 2], *novel.images[start : start + 30]]
        ):
            Image.fromarray(image).save(tmp_path / name / f"{number}.png")
    words = ["--dataset", str(tmp_path), "--cache-dir", "none"]
    assert few_shot(held, *words, "--shots", "1") == 0
    shown = capsys.readouterr().out
    assert "6 pictures are left out: the run was trained on them" in shown
    assert f"has classes that the run was trained on, by their names: {known}\n" in shown
    found = json.loads(next(held.path.glob("few_shot-*.json")).read_text(encoding="utf-8"))
    assert found["pictures"] == 90
    assert found["left_out_as_trained_on"] == 6
    assert few_shot(held, *words, "--shots", "40") == 2
    assert "0 classes have the 40 + 15 pictures" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_began_with_an_encoder_that_saw_them_is_refused(held, trained, capsys):
    shutil.copytree(trained / "pre", held.path.parent / "pre", dirs_exist_ok=True)
    words = ["--dataset", "digits", "--image-size", "16", "--samples-per-class", "8", "--batch-size", "32"]
    how = ["--epochs", "1", "--hold-out-classes", "3", "--name", "heir", "--runs-dir", str(held.path.parent)]
    assert main(["pretrain", *words, *how, "--init", "pre"]) == 0
    assert few_shot(Run(held.path.parent / "heir")) == 2
    assert "'heir' began with an encoder that was trained on 24 pictures of its held-out" in capsys.readouterr().err


def test_perfect_features_are_perfect_in_every_episode_and_have_no_interval(held, capsys, monkeypatch):
    from prl_keras.models import encode

    usual = encode.encode
    split, _ = load_held_out(**held.part("data", "request"))

    def knowing(model, images, *more):
        features = usual(model, images, *more)
        return np.eye(features.shape[1], dtype="float32")[split.labels] if len(images) == len(split) else features

    monkeypatch.setattr(encode, "encode", knowing)
    assert few_shot(held) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.strip().startswith("nearest neighbour"))
    assert row.split() == ["nearest", "neighbour", "100.0", "%", "100.0", "%"]


@pytest.mark.slow  # three processes
@pytest.mark.parametrize("kind", ["--few-shot --ways 3 --shots 1 --queries 2", "--unknown", "--shift"])
def test_tensorflow_says_nothing_of_itself(held, kind):
    words = [sys.executable, "main.py", "evaluate", held.name, *kind.split(), "--runs-dir", str(held.path.parent)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert "oneDNN" not in done.stdout + done.stderr
    assert "cpu_feature_guard" not in done.stdout + done.stderr


def test_what_makes_no_sense_is_one_line(held, trained, capsys, tmp_path):
    for command, line in (
        (["evaluate", "pre", "--few-shot", "--runs-dir", str(trained)], "was trained on all classes of its data"),
        (["evaluate", "pre", "--ways", "3", "--runs-dir", str(trained)], "--ways does nothing with --no-few-shot"),
        (["pretrain", "--dataset", "digits", "--hold-out-classes", "owl"], "there is no class 'owl'"),
    ):
        assert main(command) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert line in lines[0]
    old = Run(shutil.copytree(held.path, tmp_path / "old"))
    (old.path / "train_digests.npy").unlink()
    assert few_shot(old) == 2
    assert "kept no record of its training images" in capsys.readouterr().err
