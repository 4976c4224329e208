"""Every option of a training reaches it: what `fit` is called with, seen just before the first step."""

import inspect
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest
from test_tuning import REQUEST, add_encoder

import prl_keras.training.finetuning
import prl_keras.training.fit
import prl_keras.training.pretraining
from prl_keras import load_dataset
from prl_keras.cli import main
from prl_keras.errors import InputError

TINY = ["--dataset", "digits", "--samples-per-class", "8", "--image-size", "16"]


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored_dtype_policy: None):
    """Give a command line, get the arguments of `fit` by name; nothing is trained."""
    signature = inspect.signature(prl_keras.training.fit.fit)

    def plan(*typed: str) -> SimpleNamespace:
        seen = {}

        def fit(*args, **kwargs) -> None:
            seen.update(signature.bind(*args, **kwargs).arguments)
            raise InputError("planned")

        with monkeypatch.context() as patch:
            patch.setattr(prl_keras.training.pretraining, "fit", fit)
            patch.setattr(prl_keras.training.finetuning, "fit", fit)
            assert main([*typed, "--runs-dir", str(tmp_path)]) == 2
        return SimpleNamespace(**seen)

    return plan


@pytest.fixture
def encoder(tmp_path: Path) -> list[str]:
    """An untrained one."""
    add_encoder(tmp_path, "enc", load_dataset(**REQUEST), seed=1)
    return ["finetune", "--encoder", "enc"]


def rate(plan: SimpleNamespace) -> float:
    return float(plan.model.optimizer.learning_rate)


def first_kernel(encoder: keras.Model) -> tuple[int, ...]:
    return next(layer for layer in encoder.layers if isinstance(layer, keras.layers.Conv2D)).kernel_size


def test_the_options_of_a_pretraining(planned) -> None:
    usual = planned("pretrain", *TINY, "--batch-size", "16")
    assert (first_kernel(usual.model.encoder), usual.model.projection_head.output_shape[-1]) == ((3, 3), 128)
    assert (rate(usual), usual.epochs) == (pytest.approx(1e-3), 25)
    assert usual.model.augmentation.recipe == "none"
    other = planned(
        *("pretrain", *TINY, "--batch-size", "20", "--epochs", "3", "--learning-rate", "0.02", "--no-average"),
        *("--stem", "imagenet", "--projection-dim", "32", "--augment", "light", "--seed", "7"),
        *("--checkpoint-steps", "2", "--distance", "cosine", "--temperature", "0.3", "--variant", "loo"),
        *("--precision", "mixed_bfloat16", "--verbose"),
    )
    assert (usual.verbose, other.verbose) == (False, True)
    assert (first_kernel(other.model.encoder), other.model.projection_head.output_shape[-1]) == ((7, 7), 32)
    assert (rate(other), other.epochs, other.checkpoint_steps) == (pytest.approx(0.02), 3, 2)
    assert (other.batches.batch_size, other.batches.seed, other.batches.drop_remainder) == (20, 7, True)
    assert (other.model.augmentation.recipe, other.model.augmentation.seed) == ("light", 7)
    loss = other.model.embedding_loss
    assert (loss.variant, loss.distance, loss.temperature) == ("loo", "cosine", 0.3)
    assert other.model.encoder.compute_dtype == "bfloat16"
    assert usual.model.optimizer.use_ema
    assert not other.model.optimizer.use_ema
    assert len(other.monitors[0].batches.labels) == 143


def test_the_options_of_a_finetuning(planned, encoder: list[str]) -> None:
    usual = planned(*encoder)
    assert [layer.name for layer in usual.model.layers] == ["logits"], "a linear head on features"
    assert (rate(usual), usual.epochs, usual.batches.batch_size) == (pytest.approx(1e-3), 25, 128)
    assert not usual.model.optimizer.weight_decay
    other = planned(
        *(*encoder, "--head", "mlp", "--dropout", "0.25", "--no-freeze", "--augment", "light", "--weight-decay", "0.1"),
        *("--learning-rate", "0.02", "--batch-size", "20", "--epochs", "3", "--seed", "7", "--checkpoint-steps", "2"),
        *("--no-average", "--test-each-epoch", "--verbose"),
    )
    assert (usual.verbose, other.verbose) == (False, True)
    augmentation, classifier = other.model.layers
    assert (augmentation.recipe, augmentation.seed) == ("light", 7)
    head = classifier.layers[-1]
    assert [layer.name for layer in head.layers] == ["hidden1", "hidden2", "dropout", "logits"]
    assert head.get_layer("dropout").rate == 0.25
    assert classifier.get_layer("encoder").trainable
    assert (rate(other), other.model.optimizer.weight_decay) == (pytest.approx(0.02), 0.1)
    assert (other.epochs, other.checkpoint_steps) == (3, 2)
    assert (other.batches.batch_size, other.batches.seed) == (20, 7)
    assert usual.model.optimizer.use_ema
    assert not other.model.optimizer.use_ema
    assert [type(monitor).__name__ for monitor in other.monitors] == ["TestAccuracy"]
    assert len(other.validation[1]) == 143
    assert planned(*encoder, "--include-validation").validation is None
    frozen = planned(*encoder, "--augment", "light").model.layers[-1]
    assert not frozen.get_layer("encoder").trainable


def test_the_options_of_a_baseline(planned) -> None:
    usual = planned("baseline", *TINY)
    assert first_kernel(usual.model.get_layer("encoder")) == (3, 3)
    other = planned(
        *("baseline", *TINY, "--stem", "imagenet", "--learning-rate", "0.02", "--weight-decay", "0.1"),
        *("--batch-size", "20", "--epochs", "3", "--seed", "7", "--augment", "simclr"),
    )
    augmentation, classifier = other.model.layers
    assert (augmentation.recipe, augmentation.seed) == ("simclr", 7)
    assert first_kernel(classifier.get_layer("encoder")) == (7, 7)
    assert (rate(other), other.model.optimizer.weight_decay) == (pytest.approx(0.02), 0.1)
    assert (other.batches.batch_size, other.batches.seed, other.epochs) == (20, 7, 3)
    mlp = planned("baseline", *TINY, "--model", "mlp").model.get_layer("encoder")
    assert mlp.get_layer("hidden1024")
