"""mixup and CutMix against a slow NumPy reference, and their random shares."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prl_keras.data import mixing
from prl_keras.data.mixing import Mixing
from prl_keras.errors import InputError

MIXED = ["mixup", "cutmix"]


def noise(count: int = 8, size: tuple[int, int] = (12, 12), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3)).astype("uint8")


def mixed_slowly(kind: str, images: np.ndarray, shares: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, list]:
    """One image after the other, one pixel after the other."""
    out, left = images.astype("float32"), []
    rows, columns = images.shape[1:3]
    for i, share in enumerate(shares):
        partner = images[i - 1].astype("float32")
        if kind == "mixup":
            out[i] = share * images[i] + (1 - share) * partner
            left.append(share)
            continue
        height, width = (int(np.float32(n) * np.sqrt(np.float32(1) - share)) for n in (rows, columns))
        top, first = int(centres[i, 0] * rows) - height // 2, int(centres[i, 1] * columns) - width // 2
        cut = 0
        for row in range(rows):
            for column in range(columns):
                if top <= row < top + height and first <= column < first + width:
                    out[i, row, column] = partner[row, column]
                    cut += 1
        left.append(1 - cut / (rows * columns))
    return out, left


@pytest.mark.parametrize("kind", MIXED)
@given(st.integers(1, 6), st.integers(1, 11), st.integers(1, 11), st.integers(0, 2**31))
def test_mixing_equals_the_slow_reference(kind: str, count: int, rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, centres = noise(count, (rows, columns), seed), rng.random((count, 2), "float32")
    shares = np.where(rng.random(count) < 0.3, rng.integers(0, 2, count), rng.random(count)).astype("float32")
    given = [tf.constant(images, tf.float32), tf.constant(shares)]
    got, left = mixing.mixup(*given) if kind == "mixup" else mixing.cutmix(*given, tf.constant(centres))
    expected, expected_left = mixed_slowly(kind, images, shares, centres)
    np.testing.assert_allclose(got, expected, atol=1e-3 if kind == "mixup" else 0)
    np.testing.assert_allclose(left, expected_left, atol=1e-6)


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("size", [(12, 12), (5, 17), (1, 9), (1, 1)])
def test_the_layer_mixes_what_it_draws(kind: str, size: tuple[int, int]) -> None:
    images = noise(16, size)
    shares, centres = Mixing(kind, 0.7, 0.6, seed=3).draw(16)
    out, left = Mixing(kind, 0.7, 0.6, seed=3)(images, training=True)
    assert (out.dtype, out.shape, left.dtype, left.shape) == (tf.float32, images.shape, tf.float32, (16,))
    expected, expected_left = mixed_slowly(kind, images, shares.numpy(), centres.numpy())
    np.testing.assert_allclose(out, expected, atol=1e-3)
    np.testing.assert_allclose(left, expected_left, atol=1e-6)
    assert out.numpy().min() >= 0
    assert out.numpy().max() <= 255


def test_the_share_is_that_of_the_pixels_that_are_left() -> None:
    """Image i is all i, so that every pixel tells whose it is; also where boxes hang over the border."""
    images = np.arange(64, dtype="float32")[:, None, None, None] + np.zeros((1, 10, 14, 3), "float32")
    out, left = Mixing("cutmix", seed=1)(images, training=True)
    own = (out.numpy()[..., 0] == images[..., 0]).mean((1, 2))
    np.testing.assert_allclose(left, own, atol=1e-6)
    partner = np.roll(np.arange(64), 1)[:, None, None]
    assert ((out.numpy()[..., 0] == images[..., 0]) | (out.numpy()[..., 0] == partner)).all()
    assert len(np.unique(left)) > 20  # boxes are whole pixels


def test_where_the_box_is_has_nothing_to_do_with_its_size() -> None:
    shares, centres = Mixing("cutmix", seed=0).draw(4000)
    assert np.abs(np.corrcoef(np.column_stack([shares, centres]).T)[~np.eye(3, dtype=bool)]).max() < 0.07
    for axis in range(2):
        assert stats.kstest(centres[:, axis], "uniform").pvalue > 1e-3
    # of neighbours, too
    assert abs(np.corrcoef(shares[:-1], shares[1:])[0, 1]) < 0.07


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 2.0, 8.0])
def test_shares_have_the_beta_distribution(alpha: float) -> None:
    shares = Mixing("mixup", alpha, seed=5).draw(4000)[0].numpy().astype(float)
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert abs(shares.mean() - 0.5) < 4 * math.sqrt(1 / (4 * (2 * alpha + 1)) / 4000)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("alpha", [1e-4, 1e-2, 0.05, 1e4])
def test_extreme_alphas_give_numbers(alpha: float) -> None:
    """x / (x + y) of two gamma numbers would be 0 / 0 in half of the cases."""
    shares = Mixing("mixup", alpha, seed=5).draw(4000)[0].numpy()
    assert np.isfinite(shares).all()
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert abs(shares.mean() - 0.5) < 0.04
    if alpha == 1e-4:
        assert ((shares < 1e-3) | (shares > 1 - 1e-3)).mean() > 0.99


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_a_share_of_the_images_stays_itself_to_the_bit(kind: str, probability: float) -> None:
    images = noise(2000, (6, 6)).astype("float32") * 0.999
    out, left = Mixing(kind, 4.0, probability, seed=2)(images, training=True)
    kept = left.numpy() == 1
    np.testing.assert_array_equal(out[kept], images[kept])
    if kind == "mixup":
        assert (np.abs(out[~kept] - images[~kept]).max((1, 2, 3)) > 0).all()
        deviation = 4 * math.sqrt(probability * (1 - probability) / 2000)
        assert abs((~kept).mean() - probability) <= deviation
    else:
        assert kept.all() == (probability == 0)


@pytest.mark.parametrize("kind", ["none", *MIXED])
def test_without_training_only_the_dtype_changes(kind: str) -> None:
    images, layer = noise(), Mixing(kind, seed=0)
    calls = [layer(images, training=False), layer(images), *([layer(images, training=True)] if kind == "none" else [])]
    for out, share in calls:
        assert out.dtype == share.dtype == tf.float32
        np.testing.assert_array_equal(out, images)
        np.testing.assert_array_equal(share, np.ones(8))
    assert layer.generator.state.numpy().tolist() == [0, 0]


@pytest.mark.parametrize("kind", MIXED)
def test_rounding_does_not_leave_the_range(kind: str) -> None:
    assert np.max(Mixing(kind, seed=0)(np.full((3000, 3, 3, 3), 255, "uint8"), training=True)[0]) <= 255


@pytest.mark.parametrize("kind", MIXED)
def test_calls_differ_and_graph_mode_draws_the_same(kind: str) -> None:
    images = noise(32)
    eager, traced, other = Mixing(kind, seed=5), Mixing(kind, seed=5), Mixing(kind, seed=6)
    call = tf.function(lambda x: traced(x, training=True), input_signature=[tf.TensorSpec((None, 12, 12, 3), tf.uint8)])
    views = [eager(images, training=True) for _ in range(3)]
    for out, share in views:
        again, again_share = call(images)
        np.testing.assert_allclose(again, out, atol=1e-3)
        np.testing.assert_allclose(again_share, share, atol=1e-6)
    shares = [share.numpy() for _, share in views] + [other(images, training=True)[1].numpy()]
    for i in range(4):
        assert len(np.unique(shares[i])) > 10
        assert not any(np.array_equal(shares[i], shares[j]) for j in range(i))


def test_the_stream_is_the_same_on_every_machine() -> None:
    layer = Mixing("cutmix", 0.5, 0.9, seed=42)
    layer.draw(3)
    shares, centres = layer.draw(3)
    np.testing.assert_allclose(shares, [0.521679, 0.25367, 0.11101], atol=1e-5)
    np.testing.assert_allclose(
        np.ravel(centres), [0.496923, 0.951899, 0.197998, 0.339888, 0.467912, 0.05691], atol=1e-6
    )


class Mixed(keras.Model):
    """Learns from mixed images and labels, as a training recipe would."""

    def __init__(self, kind: str):
        super().__init__()
        self.mixing = Mixing(kind, 1.0, 0.5, seed=9)
        self.dense = keras.layers.Dense(3)

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        mixed, share = self.mixing(images, training=training)
        return tf.cast(self.dense(keras.layers.Flatten()(mixed / 255)), tf.float32) * share[:, None]


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
def test_a_mixed_policy_changes_nothing(restored_dtype_policy: None, kind: str, policy: str) -> None:
    images = noise().astype("float32") * 0.999  # not representable in 16 bits
    expected = Mixing(kind, seed=3)(images, training=True)
    keras.config.set_dtype_policy(policy)
    for got, want in zip(Mixing(kind, seed=3)(images, training=True), expected, strict=True):
        assert got.dtype == tf.float32
        np.testing.assert_array_equal(got, want)
    model = Mixed(kind)
    model.compile("sgd", "mse")
    history = model.fit(noise(20), np.zeros((20, 3)), batch_size=8, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert model.mixing.generator.state.numpy()[1] >= 6


@pytest.mark.parametrize("kind", ["none", *MIXED])
def test_a_reloaded_model_continues_the_stream(tmp_path: Path, kind: str) -> None:
    images = noise()
    inputs = keras.Input((12, 12, 3), dtype="uint8")
    model = keras.Model(inputs, Mixing(kind, 0.5, 0.9, seed=9, name="mixing")(inputs))
    assert [output.shape for output in model.outputs] == [(None, 12, 12, 3), (None,)]
    assert [output.dtype for output in model.outputs] == ["float32", "float32"]
    model(images, training=True)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    expected = model(images, training=True)

    loaded = keras.models.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.load_weights(tmp_path / "model.weights.h5")
    for again in (loaded, clone):
        for got, want in zip(again(images, training=True), expected, strict=True):
            np.testing.assert_array_equal(got, want)
    layer, before = loaded.get_layer("mixing"), model.get_layer("mixing")
    assert layer.get_config() == before.get_config()
    assert (layer.kind, layer.alpha, layer.probability, layer.seed) == (kind, 0.5, 0.9, 9)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"kind": "cutmax"}, "unknown mixing 'cutmax'; choose one of: none, mixup, cutmix"),
        ({"kind": "mixup", "alpha": 0.0}, "mixing needs an alpha above 0, got 0.0"),
        ({"kind": "mixup", "alpha": float("nan")}, "mixing needs an alpha above 0, got nan"),
        ({"kind": "mixup", "probability": 1.5}, "the probability of mixing is 0 to 1, got 1.5"),
    ],
)
def test_what_makes_no_sense_is_one_line(given: dict, text: str) -> None:
    with pytest.raises(InputError) as error:
        Mixing(**given)
    assert str(error.value) == text
