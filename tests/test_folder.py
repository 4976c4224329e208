"""Image folders and the loader of a single image file."""

import io
import os
import shutil
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from archives import asymmetric_picture, peak_bytes, png_chunk, write_image_folder, write_png16
from PIL import Image, PngImagePlugin

from prl_keras.commands.data import run
from prl_keras.config import Data
from prl_keras.data import load_dataset, load_image
from prl_keras.data.folder import read_folder
from prl_keras.data.images import look, pillow_ready
from prl_keras.errors import InputError


def fails(call, *parts: str) -> None:
    """The call raises InputError with one line that contains every part."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def image_shape(path: Path) -> tuple[int, int]:
    with pillow_ready():
        return look(path)[0]


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


def stored(upright: np.ndarray, orientation: int) -> Image.Image:
    """What a camera stores with this EXIF orientation."""
    pixels = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    return Image.fromarray(np.ascontiguousarray(pixels))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def xmp(orientation: int) -> str:
    return f'<rdf:RDF><rdf:Description tiff:Orientation="{orientation}"/></rdf:RDF>'


def png_text(orientation: int) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp(orientation))
    return info


SIDEWAYS = {
    "png": lambda o: {"exif": exif(o)},
    "jpg": lambda o: {"exif": exif(o), "quality": 95, "subsampling": 0},
    "webp": lambda o: {"exif": exif(o), "lossless": True},
    "tif": lambda o: {"tiffinfo": {0x0112: o}},
    "tiff, packed": lambda o: {"tiffinfo": {0x0112: o}, "compression": "tiff_lzw"},
    "png, XMP": lambda o: {"pnginfo": png_text(o)},
    "jpg, XMP": lambda o: {"xmp": xmp(o).encode(), "quality": 95, "subsampling": 0},
    "tif, XMP": lambda o: {"tiffinfo": {700: xmp(o).encode()}},
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", SIDEWAYS)
def test_images_are_turned_once_and_their_header_tells_the_size(tmp_path, kind, orientation):
    upright = asymmetric_picture()[:, :60]
    path = tmp_path / f"a.{kind.split(',')[0]}"
    stored(upright, orientation).save(path, **SIDEWAYS[kind](orientation))
    assert image_shape(path) == (96, 60)
    for size in (None, (96, 60)):
        assert np.abs(load_image(path, size).astype(int) - upright).mean() < 6  # of JPEG; else 0
    halved = np.asarray(Image.fromarray(upright).resize((30, 48), Image.Resampling.BICUBIC))
    assert np.abs(load_image(path, (48, 30)).astype(int) - halved).mean() < 6  # nothing is cropped away


MODES = {
    "png": ("1", "L", "P", "LA", "RGBA", "I;16"),
    "tif": ("1", "L", "P", "LA", "RGBA", "I;16", "I", "CMYK"),
    "tiff, packed": ("1", "L", "P", "LA", "RGBA", "I;16", "I", "CMYK"),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
def test_every_mode_is_turned(tmp_path, kind, mode, orientation):
    """Pillow maps some of them into memory without knowing how they lie."""
    grey = np.arange(0, 60_000, 100, dtype=np.uint16).reshape(30, 20)
    path = tmp_path / f"a.{kind.split(',')[0]}"
    if mode in ("I", "I;16"):
        expected, lying = np.rint(grey / 257), stored(grey.astype(np.int32 if mode == "I" else np.uint16), orientation)
    else:
        expected = np.uint8(255) * (grey > 20_000) if mode == "1" else (grey // 256).astype(np.uint8)
        lying = stored(expected, orientation).convert("RGB" if mode == "CMYK" else "L").convert(mode)
    lying.save(path, **SIDEWAYS[kind](orientation))
    assert image_shape(path) == (30, 20)
    for size in (None, (30, 20)):
        np.testing.assert_array_equal(load_image(path, size)[..., 0], expected)


def test_a_folder_of_sideways_tiffs_has_the_size_of_the_upright_ones(tmp_path):
    root = write_image_folder(tmp_path / "pets")
    upright = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        stored(upright, 5 + number % 4).save(path.with_suffix(".tif"), tiffinfo={0x0112: 5 + number % 4})
        path.unlink()
    dataset = load_dataset(str(root))
    assert dataset.image_shape == (96, 64, 3)
    assert (dataset.train.images == upright).all()


# --- more than 8 bits -----------------------------------------------------------------------------------


def test_16_bit_grey_is_scaled(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif", "a.pgm"):
        loaded = load_image(png(tmp_path / name, values))
        assert loaded[0, :, 0].tolist() == [0, 1, 128, 255]
        assert (loaded == loaded[..., :1]).all()


def test_16_bit_colours_are_scaled(tmp_path):
    values = np.array([[[65535, 0, 32896, 65535], [0, 65535, 257, 65535]]])
    assert load_image(write_png16(tmp_path / "a.png", values[..., :3], 2)).tolist() == [[[255, 0, 128], [0, 255, 1]]]
    assert load_image(write_png16(tmp_path / "a.png", values, 6)).tolist() == [[[255, 0, 128], [0, 255, 1]]]
    assert load_image(write_png16(tmp_path / "a.png", values[..., [0, 3]], 4)).tolist() == [[[255] * 3, [0] * 3]]


def test_the_transparent_value_of_16_bit_grey_is_white(tmp_path):
    values = np.array([[0, 257, 65535]])
    path = write_png16(tmp_path / "a.png", values, 0, png_chunk(b"tRNS", struct.pack(">H", 257)))
    assert load_image(path)[0, :, 0].tolist() == [0, 255, 255]


def deep_folder(root: Path, save, dtype, top: int) -> Path:
    """Greys up to `top`, which only one test image has; every other image is darker."""
    write_image_folder(root)
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        values = np.linspace(0, top * (0.4 if number else 1), 64).reshape(8, 8).astype(dtype)
        path.unlink()
        save(path, values)
    return root


DEEP = {
    "png": (lambda path, values: png(path, values), np.uint16),
    "tif": (lambda path, values: png(path.with_suffix(".tif"), values), np.uint16),
    "big-endian tif": (
        lambda path, values: Image.fromarray(values.astype(">u2")).save(path.with_suffix(".tif")),
        np.uint16,
    ),
    "int32 tif": (lambda path, values: png(path.with_suffix(".tif"), values), np.int32),
}


@pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("kind", DEEP)
def test_values_are_scaled_by_what_the_data_set_holds(tmp_path, kind, top):
    root = deep_folder(tmp_path / "scans", *DEEP[kind], top)
    dataset = load_dataset(str(root))
    bits = top.bit_length()
    assert dataset.bits == bits
    brightest = np.concatenate([dataset.train.images, dataset.validation.images, dataset.test.images])
    assert brightest.max() == 255
    assert sorted(brightest.max(axis=(1, 2, 3)))[-2] == pytest.approx(102, abs=1)  # the same scale for dark images
    assert [note for note in dataset.notes if f"{top:,} is read as white" in note]
    path = next(path for path in (root / "train" / "cat").iterdir())
    assert load_image(path, bits=bits).tobytes() in {image.tobytes() for image in brightest}


def netpbm(path: Path, kind: str, values: np.ndarray, white: int) -> Path:
    """P2 and P5 are grey, P3 and P6 RGB; P2 and P3 are text."""
    values = values if kind in ("P2", "P5") else np.repeat(values[..., None], 3, axis=-1)
    body = " ".join(map(str, values.ravel())).encode() if kind in ("P2", "P3") else values.astype(">u2").tobytes()
    path.write_bytes(f"{kind}\n{values.shape[1]} {values.shape[0]}\n{white}\n".encode() + body)
    return path


@pytest.mark.parametrize("white", [300, 1000, 4095, 65535])
@pytest.mark.parametrize("kind", ["P2", "P5", "P3", "P6"])
def test_a_pgm_or_ppm_says_itself_which_value_is_white(tmp_path, kind, white):
    values = np.array([[0, white // 4, white // 2, white]])
    path = netpbm(tmp_path / "a.pgm", kind, values, white)
    for bits in (None, 12, 16):
        assert load_image(path, bits=bits)[0, :, 0] == pytest.approx(values[0] * 255 / white, abs=1)
        assert (load_image(path) == load_image(path)[..., :1]).all()
    dark = netpbm(tmp_path / "dark.pgm", kind, values // 4, white)
    assert load_image(dark)[0, :, 0] == pytest.approx(values[0] // 4 * 255 / white, abs=1)


@pytest.mark.parametrize("kind", ["P2", "P5", "P3", "P6"])
def test_files_that_say_their_white_are_not_scaled_by_those_that_do_not(tmp_path, kind):
    values = np.linspace(0, 1000, 64).astype(int).reshape(8, 8)
    root = write_image_folder(tmp_path / "scans")
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        path.unlink()
        netpbm(path.with_suffix(".ppm"), kind, np.maximum(values - number, 0), 4095)
    dataset = load_dataset(str(root))
    assert dataset.bits is None
    assert not dataset.notes
    assert dataset.test.images.max() == 62
    for split in ("train", "test"):
        png(root / split / "cat" / "deep.png", (values * 4).astype(np.uint16))  # up to 4,000: 12 bits
    mixed = load_dataset(str(root))
    assert mixed.bits == 12
    assert mixed.notes == (
        f"2 of {len(list(root.rglob('*.p*')))} images have 16 bits or more a value; no value needs more than 12 bits: "
        "4,095 is read as white",
    )
    assert sorted(mixed.test.images.max(axis=(1, 2, 3)))[-2:] == [62, 249]


def test_one_dark_image_of_16_bits_is_refused_where_nothing_tells_its_white(tmp_path):
    for name, values in (("a.png", np.full((4, 4), 4095, np.uint16)), ("b.tif", np.full((4, 4), 255, np.int32))):
        path = png(tmp_path / name, values)
        fails(lambda path=path: load_image(path), str(path), "cannot tell which value is white; convert it to 8 bits")
        assert load_image(path, bits=16).max() <= 16
    path = png(tmp_path / "a.png", np.full((4, 4), 5000, np.uint16))
    fails(lambda: load_image(path, bits=12), "values up to 5,000, but 4,095 is white in this data set")


def test_16_bit_colours_that_use_12_bits_are_refused_in_a_data_set_too(tmp_path):
    """Pillow reads their upper 8 bits: 16 levels would be left."""
    root = write_image_folder(tmp_path / "scans")
    for path in root.rglob("*.png"):
        write_png16(path, np.full((8, 8, 3), 4095), 2)
    fails(lambda: load_dataset(str(root)), "colours of 16 bits in a data set that uses 12 bits", "convert it to 8 bits")
    write_png16(path, np.full((8, 8, 3), 65535), 2)
    assert load_dataset(str(root)).bits == 16


def test_a_range_that_nothing_tells_is_refused(tmp_path):
    root = write_image_folder(tmp_path / "scans")
    path = root / "test" / "cat" / "x.tif"
    for values, says in (
        (np.ones((4, 4), np.float32), "floating-point numbers have no fixed range"),
        (np.full((4, 4), -1, np.int32), "-1..-1 do not fit 16 bits"),
        (np.full((4, 4), 70_000, np.int32), "70000..70000 do not fit 16 bits"),
    ):
        png(path, values)
        for call in (lambda: load_image(path), lambda: load_image(path, bits=16), lambda: load_dataset(str(root))):
            fails(call, str(path), says, "convert it to 8 bits")


def tiff(path: Path, pixels: bytes, *, bits: int, photometric: int, sample_format: int = 1, more: tuple = ()) -> Path:
    """4 x 2 grey values, or numbers of a palette, as they stand in the file; more: (tag, type, values)."""
    tags = [(256, 4, [4]), (257, 4, [2]), (258, 3, [bits]), (259, 3, [1]), (262, 3, [photometric]), (273, 4, [8])]
    tags += [(277, 3, [1]), (278, 4, [2]), (279, 4, [len(pixels)]), (339, 3, [sample_format]), *more]
    body, entries = pixels + b"\0" * (len(pixels) % 2), b""
    for tag, kind, values in sorted(tags):
        content = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(content) > 4:
            content, body = struct.pack("<I", 8 + len(body)), body + content
        entries += struct.pack("<HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    head = struct.pack("<2sHI", b"II", 42, 8 + len(body))
    path.write_bytes(head + body + struct.pack("<H", len(tags)) + entries + b"\0" * 4)
    return path


def test_tiffs_are_read_as_they_are_meant_or_refused(tmp_path):
    path = tmp_path / "a.tif"
    greys = [0, 10, 100, 127, 128, 200, 254, 255]
    for photometric, meant in ((1, greys), (0, [255 - grey for grey in greys])):
        loaded = load_image(tiff(path, bytes(greys), bits=8, photometric=photometric))
        assert loaded[..., 0].ravel().tolist() == meant
    assert load_image(tiff(path, b"\x50\xf0", bits=1, photometric=0))[..., 0].tolist() == [
        [255, 0, 255, 0],
        [0, 0, 0, 0],
    ]
    assert load_image(tiff(path, b"\x50\xf0", bits=1, photometric=1))[0, :, 0].tolist() == [0, 255, 0, 255]
    signed = struct.pack("<8b", -128, -1, 0, 1, 2, 3, 4, 127)
    fails(lambda: load_image(tiff(path, signed, bits=8, photometric=1, sample_format=2)), str(path), "with a sign")
    deep = struct.pack("<8H", 0, 1, 2, 3, 4, 5, 6, 65535)
    assert load_image(tiff(path, deep, bits=16, photometric=1))[0, 0, 0] == 0
    for read in (load_image, image_shape):
        fails(lambda read=read: read(tiff(path, deep, bits=16, photometric=0)), str(path), "0 is white", "convert it")
    for bits, code, sample_format in ((32, "I", 1), (32, "i", 2), (32, "f", 3), (16, "h", 2)):
        values = struct.pack(f"<8{code}", *range(8))
        deep_white = tiff(path, values, bits=bits, photometric=0, sample_format=sample_format)
        fails(lambda deep_white=deep_white: load_image(deep_white, bits=16), str(path))


def test_the_palette_of_a_tiff_has_16_bits(tmp_path):
    reds = [grey * 257 for grey in range(256)]
    path = tiff(tmp_path / "a.tif", bytes(range(8)), bits=8, photometric=3, more=((320, 3, [*reds, *[0] * 512]),))
    assert load_image(path).reshape(-1, 3)[7].tolist() == [7, 0, 0]
    path = tiff(path, bytes(range(8)), bits=8, photometric=3, more=((320, 3, [*range(256), *[0] * 512]),))
    fails(lambda: load_image(path), str(path), "palette has 8 bits")


def test_files_of_8_bits_are_not_scaled_nor_spoken_of(tmp_path):
    root = write_image_folder(tmp_path / "dark")
    for path in root.rglob("*.png"):
        png(path, np.full((8, 8), 15, np.uint8))
    Image.fromarray(np.full((8, 8), 15, np.uint8)).save(root / "train" / "cat" / "x.bmp")
    dataset = load_dataset(str(root))
    assert (dataset.bits, dataset.notes, dataset.train.images.max()) == (None, (), 15)


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


def test_decompression_bombs_and_huge_images_are_refused_until_the_limit_is_raised(tmp_path):
    black = zlib.compress(bytes(12_500 * (1 + 1250)), 9)  # 12,500 rows of 10,000 black points: 125 megapixels
    header = struct.pack(">IIBBBBB", 10_000, 12_500, 1, 0, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", black), png_chunk(b"IEND", b"")]
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert peak_bytes(lambda: fails(lambda: load_image(path), str(path), "125.0 megapixels", "limit of 89.48")) < 10**6
    fails(lambda: load_image(path, max_megapixels=124), "limit of 124", "raise the limit with --max-megapixels 126")
    limit = Image.MAX_IMAGE_PIXELS
    with pillow_ready():
        assert look(path, max_megapixels=126)[0] == (12_500, 10_000)
    assert limit == Image.MAX_IMAGE_PIXELS
    small = png(tmp_path / "small.png", np.zeros((40, 40), np.uint8))
    fails(lambda: load_image(small, max_megapixels=0.001), "0.0 megapixels")
    assert load_image(small, 8, max_megapixels=0.002).shape == (8, 8, 3)


# --- folders --------------------------------------------------------------------------------------------


def test_the_classes_are_in_sorted_order(tmp_path):
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


def test_litter_is_passed_over_wherever_it_lies(tmp_path):
    root = write_image_folder(tmp_path / "pets")
    before = load_dataset(str(root))
    folders = (
        "@eaDir",
        "__MACOSX",
        ".ipynb_checkpoints",
        "#recycle",
        "$RECYCLE.BIN",
        "lost+found",
        ".hidden",
        "@EADIR",
        "PaxHeaders",
        "PaxHeaders.1234",
        "_gsdata_",
        "~snapshot",
        "@SynoResource",
        "CVS",
        "RECYCLER",
        "Recycled",
        "FOUND.000",
        "$WINDOWS.~BT",
        "@sharebin",
    )
    places = (root, root / "train", root / "test", root / "train" / "cat", root / "test" / "dog")
    for place in places:
        for name in folders:
            shutil.copytree(root / "train" / "dog", place / name / "deeper")
            shutil.copy(root / "train" / "dog" / "0.png", place / name / "0.png")
        (place / "CVS" / "Entries").write_text("D")
        (place / "Recycled" / "INFO2").write_bytes(b"junk")
        (place / "RECYCLER" / "S-1-5-21-1").mkdir()
        (place / "_MACOSX" / "cat").mkdir(parents=True)
        (place / "_MACOSX" / "._0.png").write_bytes(b"junk")
        for name in (
            ".DS_Store",
            "Thumbs.db",
            "desktop.ini",
            "notes.txt",
            "._0.png",
            "boxes.XML",
            "0.xmp",
            "0.png:Zone.Identifier",
            "README.md",
            "README",
            "License",
            "COPYING",
            "0.png~",
            "0.png@SynoEAStream",
            "1.png.part",
            "1.png.tmp",
            "0.png.bak",
            "all.sha512",
            "0.tfw",
            "0.pgw",
            "0.png.pp3",
            "ZbThumbnail.info",
            "pspbrwse.jbf",
        ):
            (place / name).write_bytes(b"junk")
    after = load_dataset(str(root))
    assert after.class_names == ("cat", "dog")
    assert after.fingerprint == before.fingerprint
    assert after.notes == before.notes == ()


def test_a_class_may_be_named_cvs_and_a_folder_that_is_not_read_like_a_file(tmp_path):
    root = write_image_folder(tmp_path / "logos")
    for split in ("train", "test"):
        shutil.copytree(root / split / "dog", root / split / "CVS")
    shutil.copytree(root / "train" / "dog", root / "old" / "labels.txt")
    dataset = load_dataset(str(root))
    assert dataset.class_names == ("CVS", "cat", "dog")
    assert "in folders beside train, test (old/labels.txt/0.png, " in dataset.notes[0]


def test_what_is_litter_as_a_file_or_with_the_systems_own_files_may_be_a_class_or_a_picture(tmp_path):
    names = ("LICENSE", "Recycled", "_MACOSX", "cat~", "found.0001", "readme", "recycler", "x.bak")
    root = write_image_folder(tmp_path / "waste", classes=names)
    for old, new in (("0.png", "@0.png"), ("1.png", "found.000.png")):
        (root / "train" / "readme" / old).rename(root / "train" / "readme" / new)
    images = len([*(root / "train").rglob("*.png")])
    dataset = load_dataset(str(root))
    assert dataset.class_names == names
    assert len(dataset.train) + len(dataset.validation) == images


def test_one_line_says_what_was_not_read(tmp_path, capsys):
    root = write_image_folder(tmp_path / "pets")
    before = load_dataset(str(root)).fingerprint
    for name in ("train/loose.png", "old/cat/0.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "train" / "dog" / "0.png", root / name)
    (root / "old" / "cat" / "@eaDir").mkdir()
    (root / "old" / "cat" / "@eaDir" / "0.png").write_bytes(b"thumbnail")
    (root / "old" / "cat" / "IMG_1.HEIC").write_bytes(b"x")
    (root / "docs").mkdir()
    (root / "docs" / "paper.pdf").write_bytes(b"x")
    for name in ("train/cat/photo.psd", "train/cat/2.mov", "test/dog/3.cr2", "test/dog/no_ending"):
        (root / name).write_bytes(b"x")
    dataset = load_dataset(str(root))
    assert dataset.fingerprint == before
    assert dataset.notes == (
        "Not read: 4 files of no known picture type (train/cat/2.mov, train/cat/photo.psd, test/dog/3.cr2, ...), "
        "1 image outside of class folders (train/loose.png), "
        "2 images in folders beside train, test (old/cat/0.png, old/cat/IMG_1.HEIC)",
    )
    run(Data(action="verify", dataset=str(root)))
    assert capsys.readouterr().out.count(dataset.notes[0]) == 1


def test_names_that_cannot_be_printed_do_not_break_the_line(tmp_path):
    root = write_image_folder(tmp_path / "pets")
    shutil.copy(root / "train" / "dog" / "0.png", os.fsencode(root / "train") + b"/a\xff\n.png")
    (note,) = load_dataset(str(root)).notes
    assert note == r"Not read: 1 image outside of class folders ('train/a\udcff\n.png')"


@pytest.mark.parametrize("name", ["photo.heic", "photo.HEIF", "photo.jpg", "photo.avif"])
def test_a_telephones_picture_is_to_be_converted_never_deleted(tmp_path, name):
    root = write_image_folder(tmp_path / "pets")
    path = root / "train" / "cat" / name
    path.write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(40))  # iPhones give it the name .jpg, too
    for call in (lambda: load_dataset(str(root)), lambda: load_image(path)):
        fails(call, str(path), "convert it to JPEG or PNG", "pillow-heif")


def test_no_message_advises_to_delete_a_file_of_the_user():
    for module in (Path(__file__).parents[1] / "prl_keras" / "data").glob("*.py"):
        assert "delete" not in module.read_text(encoding="utf-8"), module


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
    (tmp_path / "l.csv").touch()
    fails(lambda: load_dataset(str(tmp_path / "l.csv")), f"{tmp_path}/l.csv: a file; name the folder", "--labels")
    fails(lambda: load_dataset(str(tmp_path)), f"{tmp_path}: no pictures", "<class>/*")
    (tmp_path / "train").mkdir()
    fails(lambda: load_dataset(str(tmp_path)), f"{tmp_path}/train: no class folders")
    root = write_image_folder(tmp_path / "one", ("only",))
    fails(lambda: load_dataset(str(root)), "only the class 'only', at least 2")


def test_what_would_not_fit_into_memory_is_refused_before_reading(tmp_path, monkeypatch):
    root = write_image_folder(tmp_path / "pets")
    monkeypatch.setattr("prl_keras.data.folder._MEMORY_LIMIT", 20_000)
    fails(lambda: load_dataset(str(root)), "12 images of 32x32 need", "--image-size 23")
    assert load_dataset(str(root), image_size=23).image_shape == (23, 23, 3)  # the advice can be followed
    monkeypatch.setattr("prl_keras.data.folder._MEMORY_LIMIT", 1000)
    fails(lambda: load_dataset(str(root)), "use fewer images")


# --- the same images are the same data ------------------------------------------------------------------


def same_rows(a, b) -> None:
    assert a.fingerprint == b.fingerprint
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(a, part).images, getattr(b, part).images)
        np.testing.assert_array_equal(getattr(a, part).labels, getattr(b, part).labels)


@pytest.mark.parametrize("image_size", [None, 16])
def test_renamed_files_and_other_formats_of_the_same_pixels_give_the_same_rows(tmp_path, image_size):
    root = write_image_folder(tmp_path / "pets", ("ant", "bee", "cow"), train=6)
    before = load_dataset(str(root), image_size=image_size)
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        new = path.with_name(f"{'zyxwvutsrq'[number % 10]}{number}.png")
        if number % 3:
            path.rename(new)
        else:
            Image.open(path).save(new.with_suffix(".bmp"))
            path.unlink()
    root.rename(tmp_path / "moved")
    after = load_dataset(str(tmp_path / "moved"), image_size=image_size)
    same_rows(before, after)
    assert before.order == after.order == "content"
    assert not np.array_equal(before.train.files, after.train.files)


def test_a_copy_from_a_system_that_spells_accents_otherwise_has_the_same_classes(tmp_path):
    names = ("caf\u00e9", "cafz")  # decomposed, the accent sorts before the z
    root = write_image_folder(tmp_path / "a", names)
    shutil.copytree(root, tmp_path / "b")
    for folder in list((tmp_path / "b").glob("*/caf?")):
        folder.rename(folder.with_name(unicodedata.normalize("NFD", folder.name)))
    same_rows(load_dataset(str(root)), load_dataset(str(tmp_path / "b")))


def test_labels_and_file_names_stay_with_their_images(tmp_path):
    root = write_image_folder(tmp_path / "pets", ("ant", "bee", "cow"), train=5, test=3)
    (root / "train" / "ant" / "extra.png").write_bytes((root / "train" / "ant" / "0.png").read_bytes())
    (root / "train" / "bee" / "wrong.png").write_bytes((root / "train" / "ant" / "0.png").read_bytes())
    dataset = load_dataset(str(root), samples_per_class=3, test_per_class=2)
    for split in (dataset.train, dataset.validation, dataset.test):
        for image, label, name in zip(split.images, split.labels, split.files, strict=True):
            np.testing.assert_array_equal(image, load_image(root / name))
            assert name.split("/")[1] == dataset.class_names[label]


def test_a_class_without_test_images_is_said_once(tmp_path):
    root = write_image_folder(tmp_path / "pets", ("ant", "bee", "cow"))
    shutil.rmtree(root / "test" / "bee")
    assert load_dataset(str(root)).notes == (
        "No test images of 1 of 3 classes: 'bee'; test figures do not speak of them",
    )
    fails(
        lambda: load_dataset(str(root), test_per_class=1),
        "test_per_class is 1 but class 'bee' has only 0 images to draw from: add some, or leave test_per_class out",
    )


# --- duplicates -----------------------------------------------------------------------------------------


def verify(root: Path, capsys) -> list[str]:
    run(Data(action="verify", dataset=str(root)))
    lines = capsys.readouterr().out.splitlines()
    found = [line.split(": ", 1)[1] for line in lines if line.startswith(("SPOILS RESULTS: ", "worth a look: "))]
    return [line for line in found if "another class" in line]


def test_verify_counts_test_images_that_are_in_train(tmp_path, capsys):
    root = write_image_folder(tmp_path / "pets", train=5)
    assert verify(root, capsys) == []
    shutil.rmtree(root / "test")
    shutil.copytree(root / "train", root / "test")
    (line,) = verify(root, capsys)
    assert line == (
        "10 test images are also in train, 0 with another class: "
        "test/cat/0.png = train/cat/0.png, test/cat/1.png = train/cat/1.png, test/cat/2.png = train/cat/2.png, ..."
    )


def test_verify_names_images_with_two_classes(tmp_path, capsys):
    root = write_image_folder(tmp_path / "pets", train=5, test=3)
    png(root / "train" / "cat" / "same.png", np.zeros((32, 32, 3), np.uint8))
    for place in ("train/dog/x.png", "test/dog/x.png", "test/cat/x.png", "test/cat/y.png"):
        png(root / place, np.zeros((32, 32), np.uint8))  # grey: other bytes in the file, the same pixels
    shutil.copy(root / "train" / "dog" / "1.png", root / "train" / "dog" / "again.png")
    lines = verify(root, capsys)
    (in_test,) = (line for line in lines if "test images are also in train" in line)
    assert in_test.startswith("3 test images are also in train, 3 with another class: test/cat/x.png = train/dog/x.png")
    (in_train,) = (line for line in lines if "of train (validation included)" in line)
    assert in_train == (
        "4 images of train (validation included) are in it more than once, 2 with another class: "
        "train/cat/same.png = train/dog/x.png, train/dog/x.png = train/cat/same.png"
    )
    (within_test,) = (line for line in lines if "of test are in it" in line)
    assert within_test.startswith("3 images of test are in it more than once, 3 with another class: ")


def test_verify_names_validation_images_that_are_trained_on(tmp_path, capsys):
    root = write_image_folder(tmp_path / "pets", train=2)
    for name in ("cat", "dog"):  # all of a class are equal, so the one that is set aside is in train
        shutil.copy(root / "train" / name / "0.png", root / "train" / name / "1.png")
    lines = verify(root, capsys)
    assert lines[0].startswith(
        "2 validation images are also among the training images, 0 with another class: train/cat/"
    )
    assert run(Data(action="verify", dataset=str(root))) == 0, "a test image is no part of it"


def test_many_equal_images_take_no_quadratic_memory_or_time(tmp_path):
    from prl_keras.data.duplicates import Image, _twins

    images, pairs = [Image(b"same", number % 2, "") for number in range(100_000)], []
    assert peak_bytes(lambda: pairs.extend(_twins(images, images))) < 50 * 2**20
    assert len(pairs) == 100_000


def test_a_class_named_like_a_companion_file_is_a_class(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "set", classes=("site.json", "water.log", "cat"))
    assert load_dataset(str(tmp_path / "set")).class_names == ("cat", "site.json", "water.log")


def test_two_dots_behind_a_link_mean_what_the_system_means(tmp_path: Path) -> None:
    (tmp_path / "deep" / "x").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "x")
    write_image_folder(tmp_path / "deep" / "set", classes=("a", "b"))
    write_image_folder(tmp_path / "set", classes=("p", "q"))
    assert load_dataset(str(tmp_path / "link" / ".." / "set")).class_names == ("a", "b")
