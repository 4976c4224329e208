"""What --strategy refuses, in one line, and what TF_CONFIG may say."""

import json
from pathlib import Path

import pytest

from prl_keras.cli import main
from prl_keras.errors import InputError
from prl_keras.startup import device
from prl_keras.strategies import Cluster, check_batch, check_last_batch, cluster, is_chief


def config(task: object = None, **jobs: object) -> str:
    return json.dumps({"cluster": jobs, "task": task or {"type": "worker", "index": 0}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        (config(worker=["a:1", "b:2"]), Cluster(("a:1", "b:2"), 0)),
        (config(worker=["[::1]:1", "node-1.net_a:65535"]), Cluster(("[::1]:1", "node-1.net_a:65535"), 0)),
        (config({"type": "worker", "index": 1}, worker=["a:1", "b:2"]), Cluster(("a:1", "b:2"), 1)),
        (config({"type": "worker", "index": 0}, chief=["c:1"], worker=["b:2"]), Cluster(("c:1", "b:2"), 1)),
        (config({"type": "chief", "index": 0}, chief=["c:1"], worker=["b:2"]), Cluster(("c:1", "b:2"), 0)),
    ],
)
def test_the_cluster_is_read_from_tf_config(text: str, expected: Cluster | None, monkeypatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    assert cluster() == expected
    assert is_chief("multiworker") == (expected is None or expected.index == 0)
    assert is_chief("mirrored")
    assert is_chief("none")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "is no JSON"),
        ("[]", "has no cluster and task"),
        ('{"cluster": {"worker": ["a:1"]}}', "has no cluster and task"),
        (config(worker="a:1"), "a list of HOST:PORT"),
        (config(worker=["a"]), "a list of HOST:PORT"),
        (config(chief=["a:1", "b:1"], worker=["c:1"]), "expected one, or none"),
        (config(chief=[], worker=["c:1", "d:1"]), "expected one, or none"),
        (config(worker=["a:0", "b:1"]), "a list of HOST:PORT"),
        (config(worker=["a:65536", "b:1"]), "a list of HOST:PORT"),
        (config(worker=["a:\u00b2", "b:1"]), "a list of HOST:PORT"),
        (config(worker=["http://a:1", "b:1"]), "a list of HOST:PORT"),
        (config(worker=["a b:1", "b:1"]), "a list of HOST:PORT"),
        (config(worker=[":1", "b:1"]), "a list of HOST:PORT"),
        (config(worker={"0": "a:1", "1": "b:1"}), "a list of HOST:PORT"),
        (config(worker=["a:1", "b:1", "a:1"]), "has a:1 twice"),
        (config({"type": "chief", "index": 0}, chief=["a:1"], worker=["a:1"]), "has a:1 twice"),
        (config(worker=["a:1"]), "has one worker"),
        (config({"type": "chief", "index": 0}, chief=["a:1"]), "has one worker"),
        (config(worker=["a:1"], ps=["b:1"]), "has a job 'ps'"),
        (config({"type": "worker", "index": 2}, worker=["a:1", "b:1"]), "is none of the cluster's"),
        (config({"type": "worker", "index": "0"}, worker=["a:1"]), "is none of the cluster's"),
        (config({"type": "evaluator", "index": 0}, worker=["a:1"]), "is none of the cluster's"),
        (config({"index": 0}, worker=["a:1"]), "is none of the cluster's"),
    ],
)
def test_a_wrong_tf_config_is_named_in_one_line(text: str, what: str, monkeypatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match=what) as error:
        cluster()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["x", "0", "-1", "1.5", "100000", "\u00b2"])
def test_a_bad_number_of_logical_devices_is_one_line(value: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PRL_KERAS_LOGICAL_DEVICES", value)
    assert main(["pretrain", "--dataset", "digits", "--runs-dir", str(tmp_path / "runs")]) == 2
    assert "error: PRL_KERAS_LOGICAL_DEVICES is " in capsys.readouterr().err


def test_a_batch_is_shared_equally() -> None:
    check_batch(256, 4)
    with pytest.raises(InputError, match="--batch-size 30 cannot be shared equally by 4 devices: use 28"):
        check_batch(30, 4)
    with pytest.raises(InputError, match="use 4"):
        check_batch(3, 4)


def test_a_last_batch_has_a_part_for_every_device() -> None:
    """It is cut into parts of as many images, rounded up: of 9 for 4 devices, 3, 3, 3 and none."""
    for images in (1, 8, 10, 13):
        check_last_batch(images, 1)
    for images in (4, 8, 10, 13):
        check_last_batch(images, 4)
    for images in (3, 6, 9):
        with pytest.raises(InputError, match=f"the last batch of an epoch has {images} images, too few for 4 devices"):
            check_last_batch(images, 4)


MLP = ["baseline", "--model", "mlp"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["pretrain", "--strategy", "mirrored"], "between the GPUs of a machine"),
        (["pretrain", "--strategy", "multiworker"], "needs the environment variable TF_CONFIG"),
        (["pretrain", "--local-batch-norm"], "--local-batch-norm"),
        (["pretrain", "--strategy", "mirrored", "--variant", "prl"], "is not for --variant prl"),
        (["pretrain", "--strategy", "mirrored", "--precision", "mixed_float16"], "not for --precision mixed_float16"),
        (["pretrain", "--strategy", "mirrored", "--local-batch-norm", "--neck", "norm"], "is not for --neck norm"),
        ([*MLP, "--strategy", "mirrored", "--precision", "mixed_float16"], "not for --precision mixed_float16"),
        ([*MLP, "--strategy", "mirrored"], "between the GPUs of a machine"),
        ([*MLP, "--strategy", "multiworker"], "needs the environment variable TF_CONFIG"),
        ([*MLP, "--local-batch-norm"], "--local-batch-norm"),
        ([*MLP, "--strategy", "mirrored", "--augment", "light", "--unlabelled"], "is not for --unlabelled"),
        (["baseline", "--model", "pca", "--strategy", "mirrored"], "--strategy does nothing"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_there_is_a_run(
    words: list[str], what: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert main([*words, "--dataset", "digits", "--runs-dir", str(tmp_path / "runs")]) == 2
    answer = capsys.readouterr()
    assert what in answer.err + answer.out
    assert "Traceback" not in answer.err
    assert not (tmp_path / "runs").exists()


def test_a_head_on_features_that_are_encoded_once_is_not_shared(trained: Path, capsys) -> None:
    assert main(["finetune", "--encoder", "pre", "--strategy", "mirrored", "--runs-dir", str(trained)]) == 2
    assert "encoded once" in capsys.readouterr().err


def test_the_machines_line_counts_the_gpus_that_are_used(monkeypatch) -> None:
    import tensorflow as tf

    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{number}", "GPU") for number in range(4)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "A100"})
    monkeypatch.setenv("TF_CONFIG", config({"type": "worker", "index": 1}, worker=["a:1", "b:2"]))
    assert device("float32") == "Computing on A100 (1 of 4 GPUs), float32"
    assert device("float32", "mirrored") == "Computing on A100 (all 4 GPUs), float32"
    assert device("float32", "multiworker") == "Computing on A100 (all 4 GPUs), as worker 2 of 2, float32"
