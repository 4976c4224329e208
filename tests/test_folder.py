"""Image folders and the loader of a single image file."""

import io
import os
import shutil
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from archives import asymmetric_picture, write_image_folder
from PIL import Image

from prl_keras.data import load_dataset, load_image
from prl_keras.data.folder import read_folder
from prl_keras.errors import InputError


def fails(call, *parts: str) -> None:
    """The call raises InputError with one line that contains every part."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def png(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


# --- a single image -------------------------------------------------------------------------------------


def test_an_rgb_image_is_unchanged(tmp_path):
    pixels = asymmetric_picture()
    loaded = load_image(png(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(loaded, pixels)
    assert loaded.dtype == np.uint8
    assert loaded.flags.writeable
    np.testing.assert_array_equal(load_image(str(tmp_path / "a.png"), 96), pixels)  # same size: not resampled


@pytest.mark.parametrize("size", [(40, 20), (40, 20, 3)])
def test_size_may_be_a_shape(tmp_path, size):
    assert load_image(png(tmp_path / "a.png", asymmetric_picture()), size).shape == (40, 20, 3)


def test_resizing_crops_the_centre_and_keeps_the_aspect(tmp_path):
    pixels = np.zeros((50, 150, 3), np.uint8)
    pixels[:, 50:100] = 255  # only the central square is white
    loaded = load_image(png(tmp_path / "wide.png", pixels), 20)
    assert loaded.shape == (20, 20, 3)
    assert loaded[:, 2:-2].min() == 255


def test_shrinking_is_antialiased(tmp_path):
    checkers = (np.indices((96, 96)).sum(0) % 2 * 255).astype(np.uint8)
    loaded = load_image(png(tmp_path / "a.png", checkers), 24)
    assert abs(loaded.astype(int) - 127).max() < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = asymmetric_picture()[:, :60]
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), upright)


def test_16_bit_grey_is_scaled(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        loaded = load_image(png(tmp_path / name, values))
        assert loaded[0, :, 0].tolist() == [0, 1, 128, 255]
        assert (loaded == loaded[..., :1]).all()


def test_16_bit_rgb_is_scaled(tmp_path):
    """Pillow cannot write one, so the PNG is assembled by hand."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">6H", 65535, 0, 32896, 0, 65535, 257)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b""))
    assert load_image(path).tolist() == [[[255, 0, 128], [0, 255, 1]]]


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    loaded = load_image(png(tmp_path / "a.png", rgba))
    assert loaded[0, 0].tolist() == [255, 0, 0]
    assert loaded[0, 1].tolist() == [255, 255, 255]
    assert abs(int(loaded[0, 2, 0]) - 127) <= 1
    Image.fromarray(np.array([[[10, 0], [10, 255]]], np.uint8), "LA").save(tmp_path / "la.png")
    assert load_image(tmp_path / "la.png")[0, :, 1].tolist() == [255, 10]


def test_palettes_with_and_without_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 20, 30, 40, 250])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "plain.png")
    assert load_image(tmp_path / "plain.png").tolist() == [[[200, 10, 20], [30, 40, 250]]]
    image.save(tmp_path / "clear.png", transparency=1)
    assert load_image(tmp_path / "clear.png").tolist() == [[[200, 10, 20], [255, 255, 255]]]


def test_cmyk_grey_and_black_and_white(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    red = load_image(tmp_path / "cmyk.jpg")[8, 8]
    assert red[0] > 240
    assert red[1:].max() < 15
    assert load_image(png(tmp_path / "grey.png", np.full((2, 2), 77, np.uint8))).tolist() == [[[77] * 3] * 2] * 2
    Image.new("1", (2, 2), 1).save(tmp_path / "bw.png")
    assert load_image(tmp_path / "bw.png").min() == 255


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / f"a{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == ".webp" else {}))
    assert load_image(path)[4, 4].tolist() == [255, 0, 0]


def test_float_and_32_bit_images_are_refused(tmp_path):
    fails(
        lambda: load_image(png(tmp_path / "f.tif", np.ones((4, 4), np.float32))),
        "f.tif",
        "convert it to 8 bits",
    )
    wide = np.array([[0, 70000]], dtype=np.int32)
    fails(lambda: load_image(png(tmp_path / "i.tif", wide)), "i.tif", "0..70000 do not fit 16 bits")


def test_damaged_files_are_named(tmp_path):
    good = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(good, "PNG")
    contents = {
        "empty": b"",
        "half": good.getvalue()[:2000],
        "text": b"hello",
        "header": good.getvalue()[:20],
    }
    says = {"empty": "empty (0 bytes)"}
    for name, content in contents.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        fails(lambda path=path: load_image(path), str(path), says.get(path.stem, "not a readable image"))
    fails(lambda: load_image(tmp_path / "none.png"), f"{tmp_path}/none.png: no such image file")
    fails(lambda: load_image(tmp_path), f"{tmp_path}: no such image file")


def test_random_bytes_behind_a_valid_header_never_escape_as_another_error(tmp_path):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(asymmetric_picture())
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        whole = io.BytesIO()
        picture.save(whole, kind)
        for _ in range(15):
            content = bytearray(whole.getvalue())
            for place in rng.integers(8, len(content), 20):
                content[place] = rng.integers(0, 256)
            path = tmp_path / "fuzzed.png"
            path.write_bytes(bytes(content))
            try:
                assert load_image(path).dtype == np.uint8
            except InputError as error:
                assert str(path) in str(error)  # noqa: PT017


def test_decompression_bombs_and_huge_images_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = png(tmp_path / "bomb.png", np.zeros((40, 40), np.uint8))  # Pillow only warns up to twice the limit
    fails(lambda: load_image(path), str(path), "over 1,000 pixels")
    png(path, np.zeros((100, 100), np.uint8))
    fails(lambda: load_image(path), str(path), "over 1,000 pixels")


# --- folders --------------------------------------------------------------------------------------------


def test_a_folder_is_read_in_sorted_order(tmp_path):
    root = write_image_folder(tmp_path / "pets", ("zebra", "ant", "bee"), train=3)
    raw = read_folder(root)
    assert raw.class_names == ("ant", "bee", "zebra")
    assert raw.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    np.testing.assert_array_equal(raw.train.images[4], np.array(Image.open(root / "train" / "bee" / "1.png")))
    dataset = load_dataset(str(root))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (6, 3, 6)
    assert dataset.image_shape == (32, 32, 3)
    assert load_dataset(str(root)).fingerprint == dataset.fingerprint


def test_a_relative_folder_and_a_home_folder_are_found(tmp_path, monkeypatch):
    write_image_folder(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    prints = {load_dataset(name).fingerprint for name in ("pets", "./pets", "~/pets", str(tmp_path / "pets"))}
    assert len(prints) == 1


def test_sizes_common_size_is_kept_different_sizes_become_96(tmp_path):
    root = write_image_folder(tmp_path / "pets", size=40)
    assert load_dataset(str(root)).image_shape == (40, 40, 3)
    assert load_dataset(str(root), image_size=24).image_shape == (24, 24, 3)
    png(root / "test" / "cat" / "0.png", np.zeros((40, 41, 3), np.uint8))
    assert load_dataset(str(root)).image_shape == (96, 96, 3)
    fails(lambda: load_dataset(str(root), image_size=4), "image_size is 4: choose 8 to 1024")


def test_common_size_counts_after_exif_rotation(tmp_path):
    root = write_image_folder(tmp_path / "pets")
    for path in root.rglob("*.png"):
        png(path, np.zeros((20, 30, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    png(root / "train" / "cat" / "0.png", np.zeros((30, 20, 3), np.uint8), exif=exif)
    assert load_dataset(str(root)).image_shape == (20, 30, 3)


def test_names_may_be_non_ascii_in_either_unicode_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "pingüé 企鹅") for form in ("NFC", "NFD"))
    root = write_image_folder(tmp_path / "tiere", (composed, "жук"))
    (root / "test" / composed).rename(root / "test" / decomposed)
    (root / "train" / "жук" / "0.png").rename(root / "train" / "жук" / "фото №1.PNG")
    dataset = load_dataset(str(root))
    assert dataset.class_names == (composed, "жук")
    assert len(dataset.test) == 4


def test_a_class_in_two_spellings_or_none_is_refused(tmp_path):
    root = write_image_folder(tmp_path / "data", ("caf\u00e9", "dog"))
    shutil.copytree(root / "train" / "caf\u00e9", root / "train" / "cafe\u0301")
    fails(lambda: read_folder(root), "written differently")
    shutil.rmtree(root / "train" / "cafe\u0301")
    os.rename(os.fsencode(root / "train" / "dog"), os.fsencode(root / "train") + b"/d\xf6g")
    fails(lambda: read_folder(root), "not UTF-8")


def test_only_known_formats_are_decoded_whatever_the_name_says(tmp_path):
    """An EPS file would start Ghostscript."""
    Image.new("RGB", (9, 9)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    fails(lambda: load_image(tmp_path / "x.png"), "not a readable image")


def test_hidden_files_and_companions_are_ignored(tmp_path):
    root = write_image_folder(tmp_path / "pets")
    before = load_dataset(str(root)).fingerprint
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._0.png", "boxes.XML"):
        (root / "train" / "cat" / name).write_bytes(b"junk")
    (root / "train" / ".hidden").mkdir()
    (root / "train" / "README.md").write_text("about")
    (root / "train" / "cat" / "deeper").mkdir()
    assert load_dataset(str(root)).fingerprint == before


def test_a_file_of_an_unknown_type_is_named(tmp_path):
    root = write_image_folder(tmp_path / "pets")
    (root / "train" / "cat" / "photo.heic").write_bytes(b"x")
    fails(lambda: load_dataset(str(root)), f"{root}/train/cat/photo.heic: not a known image type", ".png")


def test_a_damaged_image_in_a_folder_is_named(tmp_path):
    root = write_image_folder(tmp_path / "pets")
    (root / "test" / "dog" / "1.png").write_bytes(b"broken")
    fails(lambda: load_dataset(str(root)), f"{root}/test/dog/1.png: not a readable image")


def test_an_empty_class_folder_is_named(tmp_path):
    root = write_image_folder(tmp_path / "pets")
    (root / "train" / "eel").mkdir()
    fails(lambda: load_dataset(str(root)), f"{root}/train/eel: the class folder holds no images")


def test_a_test_class_that_train_lacks_is_named(tmp_path):
    root = write_image_folder(tmp_path / "pets")
    (root / "test" / "eel").mkdir()
    fails(lambda: load_dataset(str(root)), "class 'eel' is in test but not in train")


def test_a_class_with_one_training_image_is_named(tmp_path):
    root = write_image_folder(tmp_path / "pets")
    for i in range(1, 4):
        (root / "train" / "dog" / f"{i}.png").unlink()
    fails(lambda: load_dataset(str(root)), "class 'dog' has 1 training images, at least 2 are needed")


def test_wrong_layouts_are_one_line(tmp_path):
    fails(lambda: load_dataset(str(tmp_path / "none")), f"{tmp_path}/none: no such folder", "train/<class>/*")
    fails(lambda: load_dataset(str(tmp_path)), f"{tmp_path}/train: no such folder")
    (tmp_path / "train").mkdir()
    fails(lambda: load_dataset(str(tmp_path)), f"{tmp_path}/train: no class folders")
    root = write_image_folder(tmp_path / "one", ("only",))
    fails(lambda: load_dataset(str(root)), "only the class 'only', at least 2")


def test_what_would_not_fit_into_memory_is_refused_before_reading(tmp_path, monkeypatch):
    root = write_image_folder(tmp_path / "pets")
    monkeypatch.setattr("prl_keras.data.folder._MEMORY_LIMIT", 1000)
    fails(lambda: load_dataset(str(root)), "12 images of 32x32 need", "--image-size 96")
