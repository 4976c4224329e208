"""Domains: what is held out is never trained on, whatever says where pictures are from, and figures by domain."""

import io
import json
import shlex
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from prl_keras.cli import main
from prl_keras.commands import domains
from prl_keras.commands.few_shot import check_episodes
from prl_keras.config import Evaluate, Reproduce
from prl_keras.data import load_dataset
from prl_keras.data.catalog import load_held_out
from prl_keras.data.domains import domain_names
from prl_keras.data.seen import seen_by, short_digests
from prl_keras.data.splits import Split
from prl_keras.errors import InputError
from prl_keras.evaluation.few_shot import episode_accuracies
from prl_keras.evaluation.spread import explained
from prl_keras.experiments.domains import across, as_markdown
from prl_keras.runs import Run
from prl_keras.runs.names import check_usable_name

DOMAINS, CLASSES, EACH = ("ink", "oil", "pen"), ("ant", "bee", "cat"), 8


@pytest.fixture(scope="module")
def art(tmp_path_factory) -> Path:
    """PATH/<domain>/<class>/*: a class is a colour, a domain a brightness."""
    root, random = tmp_path_factory.mktemp("art") / "art", np.random.RandomState(0)
    for d, domain in enumerate(DOMAINS):
        for c, name in enumerate(CLASSES):
            (root / domain / name).mkdir(parents=True)
            for number in range(EACH):
                image = random.randint(0, 60, (8, 8, 3)) + 40 * d
                image[..., c] += 80
                Image.fromarray(image.astype(np.uint8)).save(root / domain / name / f"{number}.png")
    return root


def table(root: Path, file: Path, column: str = "domain", splits: bool = False) -> Path:
    lines = [f"path,label,{column}" + ",split" * splits]
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        domain, name = path.parts[-3:-1]
        split = ("train", "train", "val", "test")[number % 4]
        lines.append(f"{path.relative_to(root).as_posix()},{name},{domain}" + f",{split}" * splits)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def pictures(split) -> set[str]:
    return set(split.files.tolist())


def test_domains_are_the_first_level_and_all_are_in_every_split(art):
    data = load_dataset(str(art), domains=True)
    assert data.class_names == CLASSES
    assert len(data.train) + len(data.validation) + len(data.test) == 72
    for split in (data.train, data.validation, data.test):
        assert [name.split("/")[0] for name in split.files] == split.domains.tolist()
        assert [CLASSES[label] for label in split.labels] == [name.split("/")[1] for name in split.files]
    assert set(data.train.domains) == set(DOMAINS)


@pytest.mark.parametrize("held", DOMAINS)
def test_a_held_out_domain_is_test_whole_and_nowhere_else(art, held):
    data = load_dataset(str(art), domains=True, hold_out_domain=held)
    assert set(data.test.domains) == {held}
    assert len(data.test) == 24
    others = pictures(data.train) | pictures(data.validation)
    assert len(others) == len(data.train) + len(data.validation) == 48
    assert not any(name.startswith(held) for name in others)
    assert any(f"Test: all 24 images of the domain {held!r}" in note for note in data.notes)


@pytest.mark.parametrize("column", ["domain", "group"])
def test_a_table_tells_them_too(art, tmp_path, column):
    file = table(art, tmp_path / "l.csv", column)
    for held in (None, "oil"):
        told = load_dataset(str(art), labels=file, domains=True, hold_out_domain=held)
        own = load_dataset(str(art), domains=True, hold_out_domain=held)
        assert told.fingerprint == own.fingerprint
        assert told.train.domains.tolist() == own.train.domains.tolist()


def test_a_tables_splits_stay_apart(art, tmp_path):
    file = table(art, tmp_path / "l.csv", splits=True)
    whole = load_dataset(str(art), labels=file, domains=True)
    data = load_dataset(str(art), labels=file, domains=True, hold_out_domain="pen")
    assert len(data.test) == 24
    for part in ("train", "validation"):
        kept = {name for name in pictures(getattr(whole, part)) if not name.startswith("pen")}
        assert pictures(getattr(data, part)) == kept
    assert "Not used: 12 test images of the other domains" in data.notes


def test_held_out_classes_keep_their_domains(art):
    how = {"domains": True, "hold_out_domain": "ink", "hold_out_classes": ["bee"]}
    novel, names = load_held_out(str(art), **how)
    assert names == ("bee",)
    assert sorted(novel.domains.tolist()) == sorted(DOMAINS * EACH)
    data = load_dataset(str(art), **how)
    assert data.class_names == ("ant", "cat")
    assert not any("/bee/" in name for name in pictures(data.train) | pictures(data.test))


def test_a_store_of_images_serves_every_held_out_domain(art, tmp_path):
    stores = set()
    for held in DOMAINS:
        data = load_dataset(str(art), domains=True, hold_out_domain=held, cache_dir=tmp_path)
        memory = load_dataset(str(art), domains=True, hold_out_domain=held)
        assert data.fingerprint == memory.fingerprint
        stores |= {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert len(stores) == 1, "decoded once"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"hold_out_domain": "ink"}, "hold_out_domain is 'ink': add domains"),
        ({"domains": True, "hold_out_domain": "wax"}, "there is no domain 'wax'; there are ink, oil, pen"),
        ({"domains": True, "labels": "none"}, "these pictures have no classes"),
    ],
)
def test_what_cannot_be_held_out_is_one_line(art, how, message):
    with pytest.raises(InputError, match=message):
        load_dataset(str(art), **how)
    with pytest.raises(InputError, match="domains True does nothing with digits"):
        load_dataset("digits", domains=True)


def test_folders_that_are_no_domains_are_refused(art, tmp_path):
    for path in ("only/a/1.png", "flat/x/1.png", "flat/y.png", "flat/z/b/2.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / path)
    with pytest.raises(InputError, match="1 folders, at least 2 are needed; with domains, it holds <domain>/<class>"):
        load_dataset(str(tmp_path / "only"), domains=True)
    with pytest.raises(InputError, match="x: no class folders"):
        load_dataset(str(tmp_path / "flat"), domains=True)
    table(art, tmp_path / "l.csv", "camera")
    with pytest.raises(InputError, match="no column 'domain' or 'group'"):
        load_dataset(str(art), labels=tmp_path / "l.csv", domains=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "flat" / "x" / "a.png")


def test_a_class_of_one_domain_alone_cannot_be_tested_there(art, tmp_path):
    lines = table(art, tmp_path / "l.csv").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if "/cat/" not in line or line.startswith("pen")]
    (tmp_path / "l.csv").write_text("\n".join(kept) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="class 'cat' has training pictures in no other domain"):
        load_dataset(str(art), labels=tmp_path / "l.csv", domains=True, hold_out_domain="pen")


def test_groups_that_the_held_out_domain_shares_with_others_are_told(art, tmp_path):
    lines = table(art, tmp_path / "l.csv").read_text(encoding="utf-8").splitlines()
    grouped = [f"{lines[0]},group", *(f"{line},patient {number % 5}" for number, line in enumerate(lines[1:-24]))]
    alone = [f"{line},of pen {number}" for number, line in enumerate(lines[-24:])]
    (tmp_path / "l.csv").write_text("\n".join([*grouped, *alone]) + "\n", encoding="utf-8")
    how = {"labels": tmp_path / "l.csv", "domains": True}
    data = load_dataset(str(art), hold_out_domain="ink", **how)
    assert any("pictures of 5 groups, as of 'patient 0', are in the domain 'ink'" in note for note in data.notes)
    assert not any("groups" in note for note in load_dataset(str(art), hold_out_domain="pen", **how).notes)


def test_a_domain_that_cannot_be_held_out_is_told_before_anything_is_trained(art, tmp_path, capsys):
    shutil.copytree(art, tmp_path / "art")
    shutil.copytree(art / "oil" / "ant", tmp_path / "art" / "pen" / "dog")
    words = ["reproduce", "--dataset", str(tmp_path / "art"), "--cache-dir", "none", "--domains", "--rows", "mlp"]
    assert main([*words, "--runs-dir", str(tmp_path / "runs")]) == 2
    assert "hold_out_domain 'pen': class 'dog' has training pictures in no other domain" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_domain_or_a_seed_that_leaves_too_few_images_is_told_before_anything_is_trained(art, tmp_path, capsys):
    shutil.copytree(art, tmp_path / "art")
    random = np.random.RandomState(0)
    for number, name in enumerate(CLASSES * EACH * 2):  # without pen there are few
        Image.fromarray(random.randint(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"art/pen/{name}/+{number}.png")
    how = ["--cache-dir", "none", "--rows", "query-frozen-linear", "--runs-dir", str(tmp_path / "runs")]
    words = ["reproduce", "--dataset", str(tmp_path / "art"), *how]
    few = len(load_dataset(str(tmp_path / "art"), domains=True, hold_out_domain="pen").train)
    assert main([*words, "--domains", "--batch-size", str(few + 1)]) == 2
    assert f"--batch-size {few + 1} is larger than the {few} training images" in capsys.readouterr().err
    lines = table(art, tmp_path / "l.csv", "group").read_text(encoding="utf-8").splitlines()
    grouped = [f"{line.rpartition(',')[0]},{number // 7}" for number, line in enumerate(lines[1:])]
    (tmp_path / "l.csv").write_text("\n".join([lines[0], *grouped]) + "\n", encoding="utf-8")
    sizes = [len(load_dataset(str(art), labels=tmp_path / "l.csv", seed=seed).train) for seed in range(9)]
    later = next(seed for seed in range(9) if sizes[seed] < sizes[0])
    words = ["reproduce", "--dataset", str(art), "--labels", str(tmp_path / "l.csv"), *how]
    assert main([*words, "--seeds", str(later + 1), "--batch-size", str(sizes[0])]) == 2
    assert f"--batch-size {sizes[0]} is larger than the {sizes[later]} training images" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_domains_that_give_no_support_are_told(art):
    """Of pen there is one picture of each class."""
    novel = load_held_out(str(art), domains=True, hold_out_classes=["bee"], cache_dir="none")[0]
    two = Split(np.concatenate([novel.images, novel.images]), np.repeat([0, 1], 24), domains=np.tile(novel.domains, 2))
    few = two.take(
        np.flatnonzero((two.domains != "pen") | (np.arange(48) % 24 == np.flatnonzero(two.domains == "pen")[0]))
    )
    how = {"ways": 2, "queries": 5, "episodes": 9}
    found = check_episodes(few, Evaluate(shots=(1, 3), **how))
    assert found == {"1": {"classes": 2, "domains": 3}, "3": {"classes": 2, "domains": 2}}


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_episodes_across_domains_are_what_the_slow_ones_are(seed, shots):
    random = np.random.RandomState(seed)
    labels, domains = np.repeat(np.arange(4), 12), np.tile(np.repeat(np.array(["a", "b", "c"], object), 4), 4)
    features = random.randn(4, 5)[labels] + random.randn(48, 5)
    found = episode_accuracies(features, labels, np.zeros(5), 3, shots, 2, 5, seed, domains)
    draws = np.random.RandomState([seed, 3, shots])
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    for episode in range(5):
        domain, means, correct = "abc"[draws.randint(3)], [], []
        classes = draws.permutation(4)[:3]
        own = {k: [r for r in range(48) if labels[r] == k and domains[r] == domain] for k in classes}
        others = {k: [r for r in range(48) if labels[r] == k and domains[r] != domain] for k in classes}
        for k in classes:
            means.append(np.mean([directions[own[k][i]] for i in draws.permutation(4)[:shots]], axis=0))
        for place, k in enumerate(classes):
            for i in draws.permutation(8)[:2]:
                scores = [directions[others[k][i]] @ (mean / np.linalg.norm(mean)) for mean in means]
                correct.append(np.argmax(scores) == place)
        assert found["nearest prototype"][episode] == pytest.approx(np.mean(correct))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 5))
def test_the_share_of_variance_is_that_of_an_analysis_of_variance(seed, k):
    random = np.random.RandomState(seed)
    groups = np.concatenate([np.arange(k), random.randint(0, k, 20)])
    features = random.randn(k + 20, 3) + 2 * random.randn(k, 3)[groups]
    within = sum(np.square(features[groups == g] - features[groups == g].mean(axis=0)).sum() for g in range(k))
    total = np.square(features - features.mean(axis=0)).sum()
    slow = 1 - within / total * (len(features) - 1) / (len(features) - k)
    assert explained(features, groups) == pytest.approx(slow)
    assert explained(features, np.array(["x", "y", "z", "u", "v"])[groups]) == pytest.approx(slow)


def test_a_share_that_cannot_be_told_is_none():
    assert explained(np.ones((6, 2)), np.arange(6) % 2) is None
    assert explained(np.random.RandomState(0).randn(6, 2), np.zeros(6)) is None
    assert explained(np.random.RandomState(0).randn(3, 2), np.arange(3)) is None
    chance = [explained(np.random.RandomState(k).randn(30, 2), np.arange(30) % 3) for k in range(200)]
    assert np.mean(chance) == pytest.approx(0, abs=0.01)


def test_a_run_that_leaves_a_domain_out_is_measured_on_it(art, tmp_path, capsys):
    words = ["--dataset", str(art), "--cache-dir", "none", "--runs-dir", str(tmp_path)]
    how = ["--domains", "--hold-out-domain", "pen", "--epochs", "1", "--batch-size", "16", "--name", "left"]
    assert main(["pretrain", *words, *how]) == 0
    assert "3 classes of 3 domains (ink, oil, pen)" in capsys.readouterr().out
    run = Run(tmp_path / "left")
    test = load_dataset(**run.part("data", "request")).test
    assert not np.isin(short_digests(test.images), seen_by(run)).any()
    assert main(["evaluate", "left", "--runs-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "By domain, linear probe: pen" in shown
    found = json.loads((run.path / "evaluation.json").read_text(encoding="utf-8"))["domains"]
    assert found["accuracy"]["pen"]["n"] == 24
    assert set(found["share_of_variance"]) == {"class", "domain"}


@pytest.mark.slow
def test_its_pictures_are_coloured_by_domain(art, tmp_path):
    words = ["--dataset", str(art), "--cache-dir", "none", "--runs-dir", str(tmp_path), "--domains", "--name", "left"]
    assert main(["pretrain", *words, "--hold-out-domain", "pen", "--epochs", "1", "--batch-size", "16"]) == 0
    run = Run(tmp_path / "left")
    assert main(["visualize", "left", "--runs-dir", str(tmp_path)]) == 0
    projector = run.path / "logs" / "projector" / "after-all"
    lines = (projector / "metadata.tsv").read_text(encoding="utf-8").splitlines()
    column = lines[0].split("\t").index("domain")
    assert {line.split("\t")[column] for line in lines[1:]} == {"-", *DOMAINS}
    states = json.loads((projector / "bookmarks.json").read_text(encoding="utf-8"))
    assert [state["selectedColorOptionName"] for state in states] == ["class", "domain"]
    assert (run.path / "plots" / "tsne-all-domains.png").exists()


def test_each_domain_gets_a_table_of_its_own(art, tmp_path, capsys):
    data = load_dataset(str(art), domains=True)
    asked = []

    def make_table(options: Reproduce) -> Path:
        asked.append((options.hold_out_domain, options.runs_dir / options.name))
        asked[-1][1].mkdir(parents=True)
        (asked[-1][1] / "result.json").write_text(json.dumps(results(mlp=([0.5, 0.7], [0.7, 0.7], 0.9))))
        return asked[-1][1]

    options = Reproduce(domains=True, runs_dir=tmp_path)
    domains.run(options, data, "all of it", make_table, "python main.py reproduce --domains")
    assert asked == [(name, tmp_path / "all of it" / name) for name in DOMAINS]
    shown = capsys.readouterr().out
    assert "Held out: oil (2 of 3)" in shown
    found = json.loads((tmp_path / "all of it" / "domains.json").read_text(encoding="utf-8"))
    assert found["rows"][0]["mean"]["mean"] == pytest.approx(0.6)
    assert "| mlp | 60.0" in (tmp_path / "all of it" / "domains.md").read_text(encoding="utf-8")
    assert f"--runs-dir '{tmp_path / 'all of it' / 'ink'}'" in shown
    assert main(["reproduce", "--dataset", str(art), "--hold-out-domain", "pen"]) == 2
    assert "--hold-out-domain pen: add --domains" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (("ink", "oil"), ["ink", "oil"]),
        (("a", "a!", "a-2"), ["a-1", "a-3", "a-2"]),
        (("domain-2", "中国", "日本"), ["domain-2", "domain-3", "domain-4"]),
        (("Latest", "x"), ["Latest-1", "x"]),
    ],
)
def test_every_domain_has_a_folder_of_its_own(names, folders):
    assert domains._folder_names(names) == folders
    for name in folders:
        check_usable_name(name)


def test_a_domain_may_have_any_name_on_the_page():
    name = "a|b <img src=x onerror=alert(1)>"
    found = across({name: results(mlp=([0.5, 0.7], [0.7, 0.7], 0.9)), "c": results(mlp=([0.5, 0.7], [0.7, 0.7], 0.9))})
    page = as_markdown(found, "art", "python main.py reproduce --dataset 'a`b'")
    html = MarkdownIt().enable("table").render(page)
    assert "<img" not in html
    assert html.count("<th") - html.count("<thead") == 5
    assert "<code>python main.py reproduce --dataset 'a`b'\n</code>" in html


@pytest.mark.slow
def test_each_domain_is_left_out_once(art, tmp_path, capsys):
    words = ["reproduce", "--dataset", str(art), "--cache-dir", "none", "--domains", "--rows", "pca", "mlp"]
    how = ["--seeds", "2", "--epochs", "1", "--batch-size", "16", "--jobs", "1", "--runs-dir", str(tmp_path)]
    assert main([*words, *how]) == 0
    shown = capsys.readouterr().out
    folder = tmp_path / "table-art-domains"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(DOMAINS)
    found = json.loads((folder / "domains.json").read_text(encoding="utf-8"))
    row = next(row for row in found["rows"] if row["row"] == "mlp")
    each = []
    for domain in DOMAINS:
        results = [Run(folder / domain / f"mlp-s{seed}").result for seed in range(2)]
        each.append([result["accuracy"]["test"]["value"] for result in results])
        assert row["domains"][domain]["mean"] == pytest.approx(np.mean(each[-1]))
        assert results[0]["accuracy"]["test"]["n"] == 24
        assert "maximum_over_epochs_on_test" in results[0]
    assert row["mean"]["mean"] == pytest.approx(np.mean(each))
    assert row["mean"]["values"] == pytest.approx(np.mean(each, axis=0).tolist())
    assert "mean over domains" in shown
    before = {path: path.read_bytes() for path in folder.rglob("*.keras")}
    assert main([*words, *how]) == 0, "nothing is trained again"
    assert {path: path.read_bytes() for path in folder.rglob("*.keras")} == before
    capsys.readouterr()


def results(**rows: tuple[list[float], list[float], float]) -> dict:
    """row -> test of each seed, best epochs, validation."""
    return {
        "test_images": 10,
        "rows": [
            {
                "row": name.replace("_", "-"),
                "title": name,
                "accuracy": {
                    "test": {"mean": np.mean(test), "low": None, "values": test},
                    "validation": {"mean": validation},
                },
                "maximum_over_epochs_on_test": {"values": best},
            }
            for name, (test, best, validation) in rows.items()
        ],
    }


def test_beyond_the_classes_the_domains_are_in_one_table(art, capsys, monkeypatch):
    monkeypatch.setattr("prl_keras.commands.beyond.check", lambda *_: None)  # one class makes no episode
    words = ["reproduce", "--dataset", str(art), "--cache-dir", "none", "--domains", "--rows", "beyond"]
    assert main([*words, "--seeds", "2", "--hold-out-classes", "1", "--plan"]) == 0
    assert capsys.readouterr().out.count("--cell") == 2 * 6
    assert main([*words[:-2], "--plan"]) == 2
    assert "--plan and --cell are of one table: add --hold-out-domain NAME" in capsys.readouterr().err


def test_what_the_domains_say_together():
    found = across(
        {
            "a": results(strong_resnet18=([0.5, 0.6], [0.7, 0.7], 0.9), prl=([0.6, 0.8], [0.8, 0.8], 0.8)),
            "b": results(strong_resnet18=([0.7, 0.8], [0.8, 0.9], 0.7), prl=([0.8, 0.8], [0.8, 0.9], 0.9)),
        }
    )
    base, prl = found["rows"]
    assert base["mean"]["values"] == pytest.approx([0.6, 0.7])
    assert prl["mean"]["mean"] == pytest.approx(0.75)
    assert prl["oracle"]["mean"] == pytest.approx(0.825)
    assert prl["against"]["strong-resnet18"]["difference"] == pytest.approx(0.1)
    assert not base["against"]
    assert found["choice"]["a"]["validation"]["row"] == "strong-resnet18"
    assert found["choice"]["a"]["oracle"]["row"] == "prl"
    page = as_markdown(found, "art", "python main.py reproduce --domains")
    assert "| prl | 70.0 | 80.0 | 75.0" in page
    assert "The row that validation on the training domains chooses: 67.5 %" in page


def emoji_packages(folder: Path) -> list[str]:
    """Of the vendors one and two, who draw 24 and 23 emoji."""
    about = [
        {"short_name": f"e{k}", "unified": f"{k:04}", "image": f"{k:04}.png", "category": c, "has_img_one": True}
        for k, c in enumerate(["Flags", "Food & Drink"] * 12)
    ]
    for each in about:
        each["has_img_two"] = each["short_name"] != "e3"
    for vendor in ("one", "two"):
        with tarfile.open(folder / f"emoji-datasource-{vendor}-1.0.tgz", "w:gz") as archive:
            files = {"package/emoji.json": json.dumps(about).encode()}
            for k, each in enumerate(about):
                picture = io.BytesIO()
                Image.new("RGB", (8, 8), (10 * k, 99 if vendor == "one" else 0, 0)).save(picture, "png")
                files[f"package/img/{vendor}/64/{each['image']}"] = picture.getvalue()
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return [str(path) for path in sorted(folder.glob("*.tgz"))]


def test_pictures_of_emoji_become_domains(tmp_path, capsys):
    from benchmarks import emoji

    assert emoji.main([str(tmp_path / "out"), *emoji_packages(tmp_path)]) == 0
    assert "23 emoji of one, two" in capsys.readouterr().out
    categories = load_dataset(str(tmp_path / "out" / "categories"), domains=True, hold_out_domain="two")
    assert categories.class_names == ("Flags", "Food and Drink")
    assert len(categories.test) == 23
    root = tmp_path / "out" / "names"
    names = load_dataset(str(root), labels=root / "labels.csv", domains=True)
    assert names.num_classes == 23
    assert [len(names.train), len(names.validation), len(names.test)] == [43, 2, 1]
    assert domain_names([names.validation]) == ("one", "two")


def test_emoji_that_cannot_be_read_are_one_line_and_leave_nothing(tmp_path, capsys, monkeypatch):
    from benchmarks import emoji

    packages, out = emoji_packages(tmp_path), tmp_path / "my emoji"
    cut, foreign, gone = (tmp_path / f"emoji-datasource-{name}-1.0.tgz" for name in ("cut", "foreign", "gone"))
    cut.write_bytes(b"\x1f\x8b")
    with tarfile.open(foreign, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/package.json"))
    for file, line in ((gone, "cannot be read"), (cut, "cannot"), (foreign, "cannot"), ("pack.tgz", "expected emoji-")):
        assert emoji.main([str(out), packages[0], str(file)]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(str(file))
        assert line in said

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(emoji, "_write_names", cut_off)
        with pytest.raises(KeyboardInterrupt):
            emoji.main([str(out), *packages])
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert emoji.main([str(out), *packages]) == 0
    assert shlex.split(capsys.readouterr().out.splitlines()[-1])[5] == str(out / "categories")
