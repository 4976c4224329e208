"""Encoders, heads and their storage."""

import math
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import layers

from prl_keras.errors import InputError
from prl_keras.models import (
    build_classifier,
    classification_head,
    load_encoder,
    mlp_encoder,
    projection_head,
    resnet18,
)
from prl_keras.models.batch_norm import FusedBatchNormalization
from prl_keras.models.convolution import SmallMapConv2D, convolution
from prl_keras.models.encode import encode
from prl_keras.models.layer_types import FAST
from prl_keras.models.storage import copy_as, load_model, save_model, weights_sha256
from prl_keras.training.average import adam

WHOLE_NETWORK = True


def trainable_count(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def random_images(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def small_encoder() -> keras.Model:
    images = keras.Input((8, 8, 3), name="images")
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(layers.Rescaling(1 / 255)(images)))
    return keras.Model(images, layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(layers.ReLU()(x))), name="encoder")


@pytest.fixture(scope="module")
def encoder() -> keras.Model:
    keras.utils.set_random_seed(0)
    return resnet18((32, 32, 3))


def test_resnet18_has_the_known_number_of_weights() -> None:
    # torchvision's resnet18: 11,689,512, of which 513,000 belong to its classifier
    model = resnet18((96, 96, 3))
    assert trainable_count(model) == 11_689_512 - 513_000
    assert model.count_params() - trainable_count(model) == 2 * 4800  # statistics of 4,800 channels


def test_resnet18_has_the_layers_of_he_et_al(encoder: keras.Model) -> None:
    convolutions = [layer for layer in encoder.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 1 + 4 * 4 + 3  # stem, two per block, three projection shortcuts
    assert not any(convolution.use_bias for convolution in convolutions)
    assert sum(isinstance(layer, keras.layers.BatchNormalization) for layer in encoder.layers) == 20
    assert sum(isinstance(layer, keras.layers.ReLU) for layer in encoder.layers) == 1 + 2 * 8
    assert sum(isinstance(layer, keras.layers.Add) for layer in encoder.layers) == 8


def test_the_imagenet_stem_shrinks_as_the_original_does() -> None:
    model = resnet18((96, 96, 3))
    sides = [model.get_layer(f"stage{stage}_block2_2_relu").output.shape[1] for stage in (1, 2, 3, 4)]
    assert sides == [24, 12, 6, 3]
    assert model.output_shape == (None, 512)


STEM_SIDES = {"imagenet": [7, 4, 2, 1], "small": [7, 4, 2, 1], "stride2": [14, 7, 4, 2], "stride1": [28, 14, 7, 4]}


def weights_of_resnet18(stem: str, width: float) -> int:
    """Counted by hand: kernels, and scale and offset of every normalisation."""
    kernel = 7 if stem == "imagenet" else 3
    first, *others = (max(8, 8 * math.floor(filters * width / 8 + 0.5)) for filters in (64, 128, 256, 512))
    total = kernel**2 * 3 * first + 2 * first + 4 * (9 * first**2 + 2 * first)
    for before, filters in zip([first, *others], others, strict=False):
        total += 9 * before * filters + 3 * 9 * filters**2 + before * filters + 5 * 2 * filters
    return total


@pytest.mark.parametrize("stem", STEM_SIDES)
@pytest.mark.parametrize("width", [1.0, 0.3])
def test_stem_and_width_set_the_maps_and_the_number_of_weights(stem: str, width: float) -> None:
    model = resnet18((28, 28, 3), stem, width=width)
    maps = [model.get_layer(f"stage{stage}_block2_2_relu").output.shape for stage in (1, 2, 3, 4)]
    assert [shape[1] for shape in maps] == [shape[2] for shape in maps] == STEM_SIDES[stem]
    assert [shape[3] for shape in maps] == ([64, 128, 256, 512] if width == 1 else [16, 40, 80, 152])
    assert model.output_shape == (None, maps[-1][3])
    assert trainable_count(model) == weights_of_resnet18(stem, width)
    if (stem, width) == ("imagenet", 1.0):
        assert trainable_count(model) == 11_689_512 - 513_000


def test_a_narrow_network_keeps_eight_channels_and_a_wide_one_has_more() -> None:
    assert resnet18((8, 8, 3), width=0.001).output_shape == (None, 8)
    assert resnet18((8, 8, 3), width=0.001).get_layer("stem_conv").filters == 8
    assert resnet18((8, 8, 3), width=1.5).output_shape == (None, 768)


@pytest.mark.parametrize(
    ("stem", "width"),
    [pytest.param(*each, marks=pytest.mark.slow) for each in (("stride2", 0.25), ("stride1", 0.125), ("small", 0.5))],
)
def test_every_stem_is_the_same_of_both_layer_types_and_opens_in_plain_keras(
    stem: str, width: float, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(1)
    trained = resnet18((16, 16, 3), stem, layer_types=FAST, width=width)
    images = random_images(4, 16)
    trained(images, training=True)  # moves the statistics
    stock = resnet18((16, 16, 3), stem, width=width)
    stock.set_weights(trained.get_weights())
    np.testing.assert_allclose(encode(stock, images), encode(trained, images), rtol=1e-4, atol=1e-5)
    batches = [model(images, training=True) for model in (stock, trained)]
    np.testing.assert_allclose(*batches, rtol=1e-2, atol=1e-3)  # normalised by few values
    stock.set_weights(trained.get_weights())
    save_model(copy_as(trained, "float32"), tmp_path / "encoder.keras")
    plain = keras.saving.load_model(tmp_path / "encoder.keras", custom_objects={}, safe_mode=True)
    assert not any(isinstance(layer, tuple(FAST)) for layer in plain.layers)
    np.testing.assert_allclose(encode(plain, images), encode(trained, images), rtol=1e-4, atol=1e-5)


def test_heads_follow_the_width_of_the_encoder() -> None:
    narrow = resnet18((16, 16, 3), width=0.125)
    assert build_classifier(narrow, 3, "mlp").get_layer("head").input_shape == (None, 64)
    assert projection_head(8, input_dim=narrow.output_shape[-1])(narrow(random_images(2, 16))).shape == (2, 8)


def test_small_images_get_the_small_stem() -> None:
    small, imagenet = resnet18((32, 32, 3)), resnet18((64, 64, 3))
    assert small.get_layer("stem_conv").kernel_size == (3, 3)
    assert imagenet.get_layer("stem_conv").kernel_size == (7, 7)


def test_padding_is_symmetric_where_the_stride_is_two() -> None:
    """Mirroring the image and all kernels must mirror nothing else: the features stay the same."""
    model = resnet18((33, 33, 3), stem="imagenet")
    images = random_images(2, 33)
    expected = encode(model, images)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([layer.get_weights()[0][:, ::-1]])
    np.testing.assert_allclose(encode(model, images[:, :, ::-1]), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (32, 32)}, "height, width, channels"),
        ({"input_shape": (32, 32, 3), "stem": "big"}, "imagenet, small, stride2, stride1"),
        ({"input_shape": (32, 32, 3), "width": 0.0}, "width is 0.0; expected a number above 0, at most 4"),
        ({"input_shape": (32, 32, 3), "width": -1}, "width is -1"),
        ({"input_shape": (32, 32, 3), "width": 4.01}, r"width is 4\.01"),
        ({"input_shape": (32, 32, 3), "width": math.nan}, "width is nan"),
        ({"input_shape": (32, 32, 3), "width": "1"}, "width is '1'"),
        ({"input_shape": (32, 32, 3), "preprocessing": "mean"}, "unit, centred"),
    ],
)
def test_resnet18_refuses_what_it_cannot_build(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resnet18(**arguments)


@pytest.mark.parametrize(("preprocessing", "low", "high"), [("unit", 0.0, 1.0), ("centred", -1.0, 1.0)])
def test_preprocessing_is_inside_the_model(preprocessing: str, low: float, high: float) -> None:
    model = resnet18((16, 16, 3), preprocessing=preprocessing)
    scale = keras.Model(model.inputs, model.get_layer("preprocessing").output)
    images = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (0, 255)])
    scaled = scale.predict_on_batch(images)
    np.testing.assert_allclose(scaled[:, 0, 0, 0], [low, high], atol=1e-6)


def test_uint8_and_float_images_give_the_same_features(encoder: keras.Model) -> None:
    images = random_images(3)
    np.testing.assert_array_equal(encode(encoder, images), encode(encoder, images.astype("float32")))


def test_encoding_in_batches_equals_encoding_at_once(encoder: keras.Model) -> None:
    images = random_images(7)
    np.testing.assert_allclose(encode(encoder, images, 3), encode(encoder, images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_fused_batch_normalisation_equals_the_stock_layer(dtype: str) -> None:
    tolerance = 1e-5 if dtype == "float32" else 0.05
    images = np.random.default_rng(0).normal(3.0, 2.0, (6, 5, 4, 7)).astype("float32")
    stock = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype="float32")
    fused = FusedBatchNormalization(momentum=0.9, epsilon=1e-5)
    results = []
    for layer, kind in ((stock, "float32"), (fused, dtype)):
        inputs = tf.Variable(tf.cast(images, kind))
        layer.build(images.shape)
        layer.gamma.assign(np.linspace(0.5, 2, 7))
        layer.beta.assign(np.linspace(-1, 1, 7))
        with tf.GradientTape() as tape:
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") ** 3)
        gradients = tape.gradient(loss, [inputs, *layer.trainable_variables])
        assert outputs.dtype == inputs.dtype
        results.append([outputs, *gradients, *layer.non_trainable_variables])
    for expected, got in zip(*results, strict=True):
        expected, got = np.asarray(expected, "float32"), np.asarray(tf.cast(got, "float32"))
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
    inference = [np.asarray(layer(images, training=False)) for layer in (stock, fused)]
    np.testing.assert_allclose(*inference, rtol=tolerance, atol=tolerance)


def test_a_frozen_fused_layer_keeps_its_statistics() -> None:
    layer = FusedBatchNormalization()
    layer.build((None, 4, 4, 3))
    layer.trainable = False
    before = [np.array(weight) for weight in layer.weights]
    layer(np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32"), training=True)
    for old, new in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (4, 4), (1, 3), (3, 2), (5, 4)])
def test_a_convolution_as_a_matrix_equals_the_stock_layer(size: tuple, kernel: int, stride: int, padding: str) -> None:
    if padding == "valid" and kernel > min(size):
        pytest.skip("no output")
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(3, *size, 5)), tf.float32)
    weights = rng.normal(size=(kernel, kernel, 5, 4))
    results = []
    for kind in (layers.Conv2D, SmallMapConv2D):
        layer = kind(4, kernel, stride, padding=padding, use_bias=False)
        layer.build(images.shape)
        layer.kernel.assign(weights)
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images)
            loss = tf.reduce_sum(outputs**3)
        results.append([outputs, *tape.gradient(loss, [images, layer.kernel.value])])
    for expected, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from(["SAME", "VALID"]),
)
@settings(max_examples=40, deadline=None)
def test_the_gradient_of_a_kernel_as_products_is_that_of_the_convolution(
    size: tuple, kernel: tuple, strides: tuple, padding: str
) -> None:
    assume(padding == "SAME" or all(k <= s for k, s in zip(kernel, size, strict=True)))
    rng = np.random.default_rng(0)
    images, weights = (tf.constant(rng.normal(size=shape)) for shape in ((3, *size, 2), (*kernel, 2, 4)))
    found = []
    for convolve in (tf.nn.conv2d, convolution):
        with tf.GradientTape() as tape:
            tape.watch([images, weights])
            outputs = convolve(images, weights, strides, padding)
            loss = tf.reduce_sum(outputs**3)
        found.append([outputs, *tape.gradient(loss, [images, weights])])
    for expected, got in zip(*found, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("size", "stride"), [(7, 1), (8, 2), (9, 1)])
def test_bfloat16_has_the_gradient_as_products_where_maps_are_small(size: int, stride: int) -> None:
    images = np.random.default_rng(0).normal(size=(4, size, size, 8)).astype("float32")
    layer = SmallMapConv2D(8, 3, stride, padding="same", use_bias=False, dtype="mixed_bfloat16")
    layer.build(images.shape)

    @tf.function
    def gradient(images: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(tf.cast(layer(images), tf.float32) ** 2)
        return tape.gradient(value, layer.kernel.value)

    kinds = [operation.type for operation in gradient.get_concrete_function(images).graph.get_operations()]
    assert ("Conv2DBackpropFilter" in kinds) == (size == 9), "81 pixels are too many"
    stock = layers.Conv2D(8, 3, stride, padding="same", use_bias=False)
    stock.build(images.shape)
    stock.kernel.assign(layer.kernel)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(stock(images) ** 2)
    expected = tape.gradient(value, stock.kernel.value).numpy()
    assert np.abs(gradient(images) - expected).max() < 0.02 * np.abs(expected).max()


def test_which_convolutions_are_matrices() -> None:
    encoder = resnet18((28, 28, 3), layer_types=FAST)
    kinds = {layer.name: layer._taps is not None for layer in encoder.layers if isinstance(layer, SmallMapConv2D)}
    assert {name for name, matrix in kinds.items() if matrix} == {
        "stage3_block1_2_conv",
        "stage3_block2_1_conv",
        "stage3_block2_2_conv",
        "stage4_block1_1_conv",
        "stage4_block1_2_conv",
        "stage4_block2_1_conv",
        "stage4_block2_2_conv",
        "stage4_block1_shortcut_conv",
    }
    larger = resnet18((96, 96, 3), layer_types=FAST)
    assert not [layer.name for layer in larger.layers if getattr(layer, "_taps", None)], "3x3 to 3x3: too large"


@pytest.mark.parametrize(
    "options", [{"use_bias": True}, {"activation": "relu"}, {"groups": 3}, {"dilation_rate": 2, "padding": "same"}]
)
def test_other_convolutions_are_left_to_keras(options: dict) -> None:
    layer = SmallMapConv2D(3, 3, **{"use_bias": False, "padding": "same", **options})
    stock = layers.Conv2D.from_config(layer.get_config())
    images = np.random.default_rng(0).normal(size=(2, 2, 2, 3)).astype("float32")
    layer.build(images.shape)
    stock.build(images.shape)
    stock.set_weights(layer.get_weights())
    np.testing.assert_array_equal(layer(images), stock(images))


def test_projection_dim_0_is_the_identity() -> None:
    features = np.random.default_rng(0).normal(size=(3, 512)).astype("float32")
    np.testing.assert_array_equal(projection_head(0).predict_on_batch(features), features)
    assert projection_head(0).count_params() == 0


def test_a_neck_moves_the_features_around_0_before_they_are_projected() -> None:
    features = np.abs(np.random.default_rng(0).normal(5, 1, size=(64, 512))).astype("float32")
    head = projection_head(0, neck="norm")
    embeddings = head(features, training=True).numpy()
    np.testing.assert_allclose(embeddings, (features - features.mean(axis=0)) / features.std(axis=0), atol=2e-2)
    assert [layer.name for layer in projection_head(8, neck="norm").layers] == [
        "neck",
        "projection_hidden",
        "projection",
    ]
    with pytest.raises(InputError, match="none, norm"):
        projection_head(neck="cosine")


def test_heads_have_the_papers_sizes() -> None:
    assert projection_head(128).count_params() == 512 * 512 + 512 + 512 * 128 + 128
    assert classification_head("linear", 10).count_params() == 5130
    assert classification_head("mlp", 10).count_params() == 512 * 256 + 256 + 256 * 128 + 128 + 1290
    pixels = 96 * 96 * 3
    expected = pixels * 1024 + 1024 + 1024 * 512 + 512 + 512 * 256 + 256
    assert mlp_encoder((96, 96, 3)).count_params() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cubic", 10), "linear, mlp"),
        (("linear", 1), "at least 2"),
        (("linear", 10, 512, 1.0), "dropout is 1.0"),
    ],
)
def test_a_bad_head_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        classification_head(*arguments)


def test_a_head_that_does_not_fit_is_refused_with_both_sizes(encoder: keras.Model) -> None:
    with pytest.raises(InputError, match=r"512 features.*takes 256"):
        build_classifier(encoder, 10, classification_head("linear", 10, 256))
    with pytest.raises(InputError, match=r"gives 7 classes; expected 10"):
        build_classifier(encoder, 10, classification_head("linear", 7))


def test_freezing_leaves_only_the_head_trainable() -> None:
    encoder = resnet18((16, 16, 3))
    assert len(build_classifier(encoder, 10, freeze=True).trainable_weights) == 2
    assert len(build_classifier(encoder, 10, freeze=False).trainable_weights) == 20 * 3 + 2


@pytest.mark.usefixtures("narrow_network")
def test_a_frozen_classifier_stays_frozen_whatever_is_done_with_the_encoder() -> None:
    encoder = small_encoder()
    images, labels = random_images(8, 8), np.arange(8) % 3
    frozen = build_classifier(encoder, 3, freeze=True)
    frozen.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    assert encoder.trainable, "freezing has a copy"
    before = weights_sha256(frozen.get_layer("encoder"))
    unfrozen = build_classifier(encoder, 3, freeze=False)
    unfrozen.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    other = build_classifier(encoder, 3, freeze=True)
    start = weights_sha256(encoder)
    unfrozen.train_on_batch(images, labels)
    assert weights_sha256(encoder) != start, "a later freezing does not freeze what was built before"
    encoder.trainable = True
    head = frozen.get_layer("head").get_weights()
    frozen.train_on_batch(images, labels)
    assert weights_sha256(frozen.get_layer("encoder")) == before
    assert len(frozen.trainable_weights) == len(other.trainable_weights) == 2
    assert not np.array_equal(frozen.get_layer("head").get_weights()[0], head[0])


@pytest.mark.usefixtures("narrow_network")
def test_what_is_frozen_stays_frozen_in_copies_and_files(tmp_path: Path) -> None:
    frozen = build_classifier(small_encoder(), 3, freeze=True)
    save_model(copy_as(frozen, "float32"), tmp_path / "classifier.keras")
    for each in (copy_as(frozen, "float32", FAST), load_model(tmp_path / "classifier.keras")):
        assert len(each.trainable_weights) == 2
    encoder = small_encoder()
    encoder.layers[2].trainable = False
    copy = copy_as(encoder, "float32", FAST)
    assert [w.path for w in copy.trainable_weights] == [w.path for w in encoder.trainable_weights]
    assert (
        len(build_classifier(load_model(tmp_path / "classifier.keras").get_layer("encoder"), 3).trainable_weights) > 2
    )


class Sizes:
    """A model that notes how many images it is given at once."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(len(images))
        return np.zeros((len(images), 1))


@pytest.mark.parametrize(
    ("shape", "size"), [((8, 8, 3), 250), ((96, 96, 3), 250), ((224, 224, 3), 45), ((512, 128, 3), 35), ((512,), 250)]
)
def test_large_images_are_encoded_fewer_at_a_time(shape: tuple[int, ...], size: int) -> None:
    model = Sizes()
    images = np.broadcast_to(np.uint8(0), (size + 3, *shape))  # takes no memory
    assert encode(model, images).shape == (size + 3, 1)
    assert model.seen == [size, 3]


def test_an_image_larger_than_the_limit_is_encoded_alone() -> None:
    model = Sizes()
    encode(model, np.broadcast_to(np.uint8(0), (2, 4000, 3000, 1)))
    assert model.seen == [1, 1]


@pytest.mark.usefixtures("narrow_network")
def test_a_saved_encoder_opens_in_plain_keras_and_gives_the_same_features(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    trained = resnet18((16, 16, 3), layer_types=FAST)
    images = random_images(4, 16)
    trained(images, training=True)  # moves the statistics
    save_model(copy_as(trained, "float32"), tmp_path / "encoder.keras")
    code_free = keras.saving.load_model(tmp_path / "encoder.keras", custom_objects={}, safe_mode=True)
    assert not any(isinstance(layer, tuple(FAST)) for layer in code_free.layers)
    np.testing.assert_allclose(encode(code_free, images), encode(trained, images), rtol=1e-5, atol=1e-6)
    assert weights_sha256(code_free) == weights_sha256(trained)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.keras"]


@pytest.mark.usefixtures("restored_dtype_policy", "narrow_network")
def test_copying_a_classifier_keeps_its_parts_and_its_function() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    encoder = resnet18((16, 16, 3), layer_types=FAST)
    classifier = build_classifier(encoder, 4, "mlp", dropout=0.5)
    keras.mixed_precision.set_global_policy("float32")
    copy = copy_as(classifier, "float32")
    assert copy.get_layer("encoder").get_layer("stem_conv").compute_dtype == "float32"
    assert weights_sha256(copy) == weights_sha256(classifier)
    images = random_images(4, 16)
    np.testing.assert_allclose(encode(copy, images), encode(classifier, images), atol=0.1)


@pytest.mark.parametrize("part", ["classifier", pytest.param("head", marks=pytest.mark.slow)])
def test_the_copy_of_a_compiled_model_is_saved_without_its_optimizer(tmp_path: Path, part: str) -> None:
    head = classification_head("mlp", 4)
    classifier = build_classifier(resnet18((16, 16, 3)), 4, head)
    trained = classifier if part == "classifier" else head
    trained.compile(adam(1e-3, 10, average=True), "mse")
    trained.optimizer.build(trained.trainable_variables)
    save_model(copy_as(classifier, "float32"), tmp_path / "classifier.keras")
    assert trained.compiled
    with zipfile.ZipFile(tmp_path / "classifier.keras") as archive:
        assert "prl_keras" not in archive.read("config.json").decode()
        assert archive.getinfo("model.weights.h5").file_size < 1.05 * 4 * classifier.count_params()


@pytest.mark.usefixtures("narrow_network")
def test_load_encoder_finds_the_encoder_inside_a_classifier(tmp_path: Path) -> None:
    from prl_keras.runs import create_run

    encoder = resnet18((16, 16, 3))
    run = create_run(tmp_path, "tuned", {})
    save_model(build_classifier(encoder, 3), run.classifier_file)
    assert weights_sha256(load_encoder("tuned", tmp_path)) == weights_sha256(encoder)


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "encoder.keras"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"encoder\.keras") as caught:
        load_model(file)
    assert "\n" not in str(caught.value)


def test_a_model_with_code_in_it_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs)).save(tmp_path / "evil.keras")
    with pytest.raises(InputError, match="cannot load"):
        load_model(tmp_path / "evil.keras")
