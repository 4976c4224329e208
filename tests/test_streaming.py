"""Training, evaluation and encoding from a store: the bits of the same from memory, and never all images at once."""

import json
import tracemalloc
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from prl_keras.cli import main
from prl_keras.data import Split, load_dataset
from prl_keras.data.batches import Batches, to_validate_on
from prl_keras.data.order import Permutation
from prl_keras.data.rows import Rows
from prl_keras.data.splits import by_content, fingerprint, split_validation
from prl_keras.data.store import open_or_build
from prl_keras.models.encode import encode
from prl_keras.runs import Run
from prl_keras.training import callbacks
from prl_keras.training.finetuning import with_validation

TIMING = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "pets"
    for split, count in (("train", 25), ("test", 9)):
        for label, name in enumerate(("ant", "bee", "cow")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(60 * label, 60 * label + 100, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def figures(run: Run) -> list[dict]:
    return [{key: value for key, value in line.items() if key not in TIMING} for line in run.metrics]


COMMANDS = {
    "pretrain": ["--variant", "query", "--augment", "light", "--batch-size", "16"],
    "pretrain, balanced": ["--variant", "prl", "--classes-per-batch", "3", "--batch-size", "15"],
    "baseline": ["--model", "mlp", "--batch-size", "16"],
    "baseline, tested": ["--model", "resnet18", "--batch-size", "16", "--test-each-epoch"],
}


@pytest.mark.slow
@pytest.mark.usefixtures("restored_dtype_policy")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_training_from_the_store_has_the_bits_of_one_from_memory(
    command: str, pets: Path, tmp_path: Path, capsys
) -> None:
    words = [command.split(",")[0], "--dataset", str(pets), "--epochs", "2", *COMMANDS[command]]
    runs = {}
    for name, cache_dir in (("memory", "none"), ("store", str(tmp_path / "cache"))):
        where = ["--cache-dir", cache_dir, "--runs-dir", str(tmp_path), "--name", name]
        assert main([*words, *where]) == 0, capsys.readouterr().err
        runs[name] = Run(tmp_path / name)
    memory, store = runs.values()
    assert figures(memory) == figures(store)
    assert (memory.path / "train_digests.npy").read_bytes() == (store.path / "train_digests.npy").read_bytes()
    ignored = {"seconds", "last_epoch"}  # of which `figures` speak
    results = [{key: value for key, value in run.result.items() if key not in ignored} for run in runs.values()]
    assert results[0] == results[1]
    file = "encoder_file" if command.startswith("pretrain") else "classifier_file"
    weights = [keras.saving.load_model(getattr(run, file)).get_weights() for run in (memory, store)]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert store.part("data")["request"]["cache_dir"] == str(tmp_path / "cache")
    assert any((tmp_path / "cache").iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("restored_dtype_policy")
def test_a_run_from_the_store_is_continued_from_memory_and_measured_from_either(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Where the images lie is no part of what a run is."""
    words = ["pretrain", "--dataset", str(pets), "--epochs", "2", "--batch-size", "16", "--checkpoint-steps", "1"]
    words += ["--runs-dir", str(tmp_path)]
    cache = ["--cache-dir", str(tmp_path / "cache")]
    assert main([*words, "--name", "whole", "--cache-dir", "none"]) == 0
    usual = callbacks.FiniteGuard.on_train_batch_end

    def stop(self: callbacks.FiniteGuard, batch: int, logs: dict | None = None) -> None:
        usual(self, batch, logs)
        if batch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.FiniteGuard, "on_train_batch_end", stop)
        assert main([*words, "--name", "broken", *cache]) == 130
    assert main([*words, "--name", "broken", "--cache-dir", "none"]) == 0
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    assert whole.result["encoder_sha256"] == broken.result["encoder_sha256"]
    assert figures(whole) == figures(broken)
    measured = []
    for more in (cache, ["--cache-dir", "none"]):
        assert main(["evaluate", "whole", "--runs-dir", str(tmp_path), *more]) == 0
        assert main(["visualize", "whole", "--runs-dir", str(tmp_path), *more]) == 0
        measured.append(json.loads((whole.path / "evaluation.json").read_text(encoding="utf-8")))
        head = ["finetune", "--encoder", "whole", "--epochs", "1", "--include-validation", "--runs-dir", str(tmp_path)]
        assert main([*head, *more]) == 0, capsys.readouterr().err
        measured[-1]["finetuned"] = {key: Run(tmp_path / "whole-linear-frozen-1").result[key] for key in ("accuracy",)}
    assert measured[0] == measured[1]


# --- never all at once ----------------------------------------------------------------------------------

SHAPE, COUNT = (32, 32, 3), 4000  # 12 MB


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    def read(start: int, stop: int):
        rng = np.random.default_rng(start)
        return ((rng.integers(0, 256, SHAPE, np.uint8), row % 4) for row in range(start, stop))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prl_keras.data.rows._SHARD_BYTES", 2**20)
        yield open_or_build("many", SHAPE, COUNT, read, tmp_path_factory.mktemp("cache"))


def test_no_step_of_the_way_holds_all_images(many: Rows) -> None:
    names = tuple("abcd")
    tracemalloc.start()
    split = by_content(Split(many, many.labels))
    train, validation = split_validation(split, 0.1, 0, names)
    fingerprint(names, {"train": train, "validation": validation})
    train.sha256()
    batches = Batches(train.images, train.labels, 64, seed=0)
    for step in range(len(batches)):
        batches[step]
    on = to_validate_on(validation.images, validation.labels)
    for step in range(len(on)):
        on[step]
    validation.images.check()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 0.5 * COUNT * np.prod(SHAPE)


def test_a_million_and_more_rows_are_shuffled_by_index() -> None:
    labels = np.zeros(1_000_001, np.int8)
    batches = Batches(np.arange(len(labels), dtype=np.int32), labels, 1000, seed=3)
    batches.epoch = 2
    inputs, _ = batches[7]
    np.testing.assert_array_equal(inputs, Permutation(len(labels), 3, 2)[7000:8000])
    last, _ = batches[len(batches) - 1]
    assert len(last) == 1001


def test_validation_in_parts_is_validation_at_once(many: Rows) -> None:
    keras.utils.set_random_seed(0)
    images, labels = many.take(slice(100)), many.labels[:100]
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(4)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    whole = model.evaluate(*to_validate_on(images[:], labels), verbose=0)
    assert model.evaluate(to_validate_on(images, labels), verbose=0) == whole
    np.testing.assert_array_equal(encode(model, images), encode(model, images[:]))


def test_train_and_validation_together_stay_in_the_store(pets: Path, tmp_path: Path) -> None:
    dataset = load_dataset(str(pets), cache_dir=tmp_path)
    both = with_validation(dataset).train.images
    assert isinstance(both, Rows)
    np.testing.assert_array_equal(both, np.concatenate([dataset.train.images, dataset.validation.images]))
