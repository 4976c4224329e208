"""Image files and arrays -> RGB uint8.

Files with more than 8 bits a value (16-bit PNG, TIFF) are scaled by their data set's number of bits: the least of
`BITS` that holds the largest value in it. No single file can tell it, as a dark image of 16 bits looks like a bright
one of 12. A PGM or PPM tells it: its header says which value is white, and Pillow has scaled that to 65,535.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prl_keras.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
HEIF_EXTENSIONS = (".heic", ".heif", ".hif", ".avif")
HEIF_CURE = "convert it to JPEG or PNG, for example with ImageMagick or Python's pillow-heif"
SMALLEST_SIDE, LARGEST_SIDE = 8, 1024
BITS = (8, 10, 12, 14, 16)

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # whatever the name says; EPS would run Ghostscript
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
_EXIF_ORIENTATION, _EXIF_SIDEWAYS = 0x0112, (5, 6, 7, 8)
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC, _TIFF_COLOURS, _TIFF_SAMPLE_FORMAT = 258, 262, 320, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2
_REPLACE, _CONVERT = "replace it or leave it out", "convert it to 8 bits (0..255)"


def image_shape(path: Path) -> tuple[int, int]:
    """(height, width) as it will be shown, from the file's header where that tells it."""
    with _opened(path) as image:
        width, height = image.size
        if width == height or image.getexif().get(_EXIF_ORIENTATION) not in _EXIF_SIDEWAYS:
            return height, width
        if image.format != "TIFF":
            return width, height
        image.load()  # which turns a TIFF; what the header says of it depends on Pillow's version
        return image.size[::-1]


def is_deep(path: Path) -> bool:
    """Whether the file has more than 8 bits a value and does not say which is white, from its header."""
    with _opened(path) as image:
        return image.format != "PPM" and _is_deep(image)


def load_image(path: str | Path, size: int | tuple[int, ...] | None = None, bits: int | None = None) -> np.ndarray:
    """The image as uint8 (height, width, 3).

    Args:
        size: a side in pixels, or (height, width[, 3]); the image is cropped around its centre and resized.
        bits: of the values of a file that has more than 8, the same for a whole data set: 2**bits - 1 becomes 255.
            None: 16, if the image has values that need them. PGM and PPM say it themselves.

    Raises:
        InputError: the file cannot be read, or its values do not fit `bits`; the line names it.
    """
    with _opened(Path(path)) as image:
        rgb = _to_rgb(image, bits)
        return np.array(_fit(rgb, size) if size is not None else rgb, dtype=np.uint8)


def largest_value(path: Path) -> int:
    """Of a file with more than 8 bits a value; of colours the upper 8 bits are known, and the lower ones taken as 1."""
    with _opened(path) as image:
        return _largest(image)


def bits_for(largest: int) -> int:
    return next(bits for bits in BITS if largest < 2**bits)


def resize_images(images: np.ndarray, size: int) -> np.ndarray:
    """RGB images (n, h, w, 3), cropped around their centre and resized with antialiasing to size x size."""
    from PIL import Image

    check_size(size)
    if images.shape[1:3] == (size, size):
        return images
    resized = np.empty((len(images), size, size, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        resized[i] = _fit(Image.fromarray(image), size)
    return resized


def grey_to_rgb(images: np.ndarray) -> np.ndarray:
    """(n, h, w), (n, h, w, 1) or (n, h, w, 3) -> (n, h, w, 3)."""
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[-1] == 3:
        return images
    if images.shape[-1] != 1:
        raise InputError(f"images have {images.shape[-1]} channels, expected 1 (grey) or 3 (RGB): convert them first")
    return np.repeat(images, 3, axis=-1)


def check_size(size: int) -> None:
    if not SMALLEST_SIDE <= size <= LARGEST_SIDE:
        raise InputError(f"image_size is {size}: choose {SMALLEST_SIDE} to {LARGEST_SIDE} pixels")


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """The open image; every way in which a file can be bad becomes one line with its path."""
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise InputError(f"{path}: no such image file; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); {_REPLACE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF and the like
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Of a path Pillow would map the file into memory, and mix up the rows of a grey TIFF that lies sideways.
            with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
                if math.prod(image.size) > (Image.MAX_IMAGE_PIXELS or math.inf):
                    raise Image.DecompressionBombError  # another thread may have changed what a warning does
                _check_tiff(image)
                yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: over {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    # Pillow raises many types on damaged bytes: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        if _is_heif(path):  # telephones write it, also under the name of a JPEG
            raise InputError(f"{path}: a HEIC or AVIF picture, which is not read; {HEIF_CURE}") from error
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else _first_line(error)
        raise InputError(f"{path}: not a readable image ({reason}); {_REPLACE}") from error


def _is_heif(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS


def _check_tiff(image: Image) -> None:
    """Raise InputError for values that Pillow would give as others, without a word."""
    if image.format != "TIFF":
        return
    tag = image.tag_v2.get
    bits = _tiff_bits(image)
    if bits <= 8 and _SIGNED in tag(_TIFF_SAMPLE_FORMAT, ()):
        raise InputError(f"8-bit values with a sign are not read: {_CONVERT}")
    if bits > 8 and tag(_TIFF_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO:
        raise InputError(f"more than 8 bits where 0 is white (WhiteIsZero) are not read: {_CONVERT}")
    if image.mode[0] == "P" and 0 < max(tag(_TIFF_COLOURS, (0,))) < 256:
        raise InputError("its palette has 8 bits a colour, where a TIFF's has 16: convert it to RGB")


def _tiff_bits(image: Image) -> int:
    return max(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,)))


def _is_deep(image: Image) -> bool:
    """Before it is decoded. Pillow gives all bits of grey values, and the upper 8 of colours."""
    if image.mode[0] in "IF":
        return True
    if image.format == "TIFF":
        return _tiff_bits(image) > 8
    return image.format == "PNG" and any("16" in str(tile.args) for tile in image.tile)


def _largest(image: Image) -> int:
    if image.mode == "F":
        raise InputError(f"floating-point numbers have no fixed range: {_CONVERT}")
    if image.mode[0] != "I":
        return 256 * int(np.asarray(image.convert("RGB")).max()) + 255
    values = np.asarray(image)
    if values.min() < 0 or values.max() >= 2 ** BITS[-1]:
        raise InputError(f"image values {values.min()}..{values.max()} do not fit 16 bits: {_CONVERT}")
    return int(values.max())


def _to_rgb(image: Image, bits: int | None) -> Image:
    """First frame, upright, 8-bit RGB; transparency is laid over white."""
    from PIL import Image, ImageOps

    deep = _is_deep(image)
    bits = BITS[-1] if image.format == "PPM" else bits
    image = ImageOps.exif_transpose(image)
    if deep:
        image = _to_8_bits(image, bits)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(image: Image, bits: int | None) -> Image:
    from PIL import Image

    largest = _largest(image)
    if bits is None and (bits := bits_for(largest)) < BITS[-1]:
        raise InputError(f"values up to {largest:,} in 16 bits: one image cannot tell which value is white; {_CONVERT}")
    white = 2**bits - 1
    if image.mode[0] != "I":
        if bits < BITS[-1]:
            raise InputError(f"colours of 16 bits in a data set that uses {bits} bits are not read: {_CONVERT}")
        return image
    if largest > white:
        raise InputError(f"values up to {largest:,}, but {white:,} is white in this data set: {_CONVERT}")
    values = np.asarray(image)
    grey = np.rint(values / (white / 255)).astype(np.uint8)
    grey[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)


def _fit(image: Image, size: int | tuple[int, ...]) -> Image:
    from PIL import Image, ImageOps

    height, width = (size, size) if isinstance(size, int | np.integer) else size[:2]
    if image.size == (width, height):
        return image
    # Pillow widens its bicubic filter when it shrinks: no aliasing.
    return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
