"""Image files and arrays -> RGB uint8. Files with more than 8 bits a value: see `deep`."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

import numpy as np

from prl_keras.data.deep import BITS, check_tiff, is_deep, largest, to_8_bits
from prl_keras.data.formats import readable, reader_of
from prl_keras.errors import InputError
from prl_keras.files import OF_THE_SYSTEM

if TYPE_CHECKING:
    from PIL.Image import Image

Resize = Literal["crop", "pad", "stretch"]
SMALLEST_SIDE, LARGEST_SIDE = 8, 1024
PADDING = (128, 128, 128)  # the middle of the range: about 0 for an encoder that centres its images
MEGAPIXELS = 1024**3 / 12 / 1e6  # 89: of RGB a quarter of a gigabyte; Pillow's own limit

_EXIF_ORIENTATION, _EXIF_SIDEWAYS = 0x0112, (5, 6, 7, 8)
_MAY_TURN = (b"XML:com.adobe.xmp", b"Raw profile type")
_REPLACE = "replace it or leave it out"


def load_image(
    path: str | Path,
    size: int | Sequence[int] | None = None,
    bits: int | None = None,
    resize: Resize = "crop",
    max_megapixels: float | None = None,
) -> np.ndarray:
    """The image as uint8 (height, width, 3).

    Args:
        size: a side in pixels, or (height, width[, 3]).
        bits: of the values of a file that has more than 8, the same for a whole data set: 2**bits - 1 becomes 255.
            None: 16, if the image has values that need them. PGM and PPM say it themselves.
        resize: to a size of another shape. crop: around the centre; pad: with grey bars; stretch.
        max_megapixels: larger images are refused before they are decoded. None: `MEGAPIXELS`.

    Raises:
        InputError: the file cannot be read, or its values do not fit `bits`; the line names it.
    """
    with pillow_ready():
        return decode(Path(path), size, bits, resize, max_megapixels)


@contextmanager
def pillow_ready() -> Iterator[None]:
    """Around everything else here that reads files: settings of the whole process, so once around all its threads."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF and the like
            Image.MAX_IMAGE_PIXELS = None  # `_opened` has its own
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def decode(
    path: Path,
    size: int | Sequence[int] | None = None,
    bits: int | None = None,
    resize: Resize = "crop",
    max_megapixels: float | None = None,
) -> np.ndarray:
    """`load_image` within `pillow_ready`, from any thread."""
    with _opened(path, max_megapixels) as image:
        if size is not None:
            _draft(image, as_shape(size))
        rgb = _to_rgb(image, bits)
        return np.array(rgb if size is None else _fit(rgb, as_shape(size), resize), dtype=np.uint8)


class Header(NamedTuple):
    """shape: (height, width) as it will be shown; deep: more than 8 bits a value, and it does not say which is white;
    frames: of an animation, or pages of a TIFF, of which the first is read."""

    shape: tuple[int, int]
    deep: bool
    frames: int


def look(path: Path, max_megapixels: float | None = None) -> tuple[tuple[int, int], bool]:
    """(shape, deep) of its `Header`, from the file's header where that tells it; within `pillow_ready`."""
    with _opened(path, max_megapixels) as image:
        return _look(image)


def header(path: Path, max_megapixels: float | None = None) -> Header:
    """As `look`, with the number of frames, for which some formats are read to their end."""
    with _opened(path, max_megapixels) as image:
        shape, deep = _look(image)
        frames = 1
        if image.format != "MPO":  # a telephone's photograph: its others are previews and maps of brightness
            with suppress(Exception):  # damaged behind the first
                frames = getattr(image, "n_frames", 1)
        return Header(shape, deep, frames)


def _look(image: Image) -> tuple[tuple[int, int], bool]:
    deep = image.format != "PPM" and is_deep(image)
    width, height = image.size
    if width == height or (image.format == "PNG" and not _may_turn(image.fp)):
        return (height, width), deep
    if image.getexif().get(_EXIF_ORIENTATION) not in _EXIF_SIDEWAYS:
        return (height, width), deep
    if image.format != "TIFF":
        return (width, height), deep
    image.load()  # which turns a TIFF; what the header says of it depends on Pillow's version
    return image.size[::-1], deep


def largest_value(path: Path, max_megapixels: float | None = None) -> int:
    """Of a file with more than 8 bits a value; of colours the upper 8 bits are known, and the lower ones taken as 1.

    Within `pillow_ready`.
    """
    with _opened(path, max_megapixels) as image:
        return largest(image)


def resize_images(images: np.ndarray, size: int | Sequence[int], resize: Resize = "crop") -> np.ndarray:
    """RGB images (n, h, w, 3) in another size (side, or (height, width)), with antialiasing; see `load_image`."""
    from PIL import Image

    check_size(size)
    shape = as_shape(size)
    if images.shape[1:3] == shape:
        return images
    resized = np.empty((len(images), *shape, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        resized[i] = _fit(Image.fromarray(image), shape, resize)
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


def as_shape(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a side, or of (height, width[, 3])."""
    return (size, size) if isinstance(size, int | np.integer) else tuple(size[:2])


def check_size(size: int | Sequence[int]) -> None:
    for side in as_shape(size):
        if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
            raise InputError(f"image_size is {side}: choose {SMALLEST_SIDE} to {LARGEST_SIDE} pixels")


@contextmanager
def _opened(path: Path, max_megapixels: float | None) -> Iterator[Image]:
    """The open image; every way in which a file can be bad becomes one line with its path."""
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise InputError(f"{path}: no such image file; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); {_REPLACE}")
    try:
        # Of a path Pillow would map the file into memory, and mix up the rows of a grey TIFF that lies sideways.
        with path.open("rb") as file, Image.open(file, formats=readable()) as image:
            _check_pixels(image, max_megapixels or MEGAPIXELS)
            check_tiff(image)
            yield image
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except MemoryError:
        raise
    # Pillow raises many types on damaged bytes: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        if getattr(error, "errno", None) in OF_THE_SYSTEM:
            raise
        if isinstance(error, PermissionError):
            raise InputError(f"{path}: {error.strerror}; give yourself access to it, or leave it out") from error
        if reader := reader_of(path):
            raise InputError(f"{path}: only {reader} reads such a picture; or convert it to JPEG or PNG") from error
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else _first_line(error)
        raise InputError(f"{path}: not a readable image ({reason}); {_REPLACE}") from error


def _check_pixels(image: Image, megapixels: float) -> None:
    found = image.width * image.height / 1e6
    if found > megapixels:
        raise InputError(
            f"{found:,.1f} megapixels, over the limit of {megapixels:,.4g}: make it smaller, "
            f"or raise the limit with --max-megapixels {int(found) + 1}"
        )


def _may_turn(file: BinaryIO) -> bool:
    """Whether a PNG has a chunk, maybe behind its pixels, that may say how it lies; Pillow would decode it to see."""
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            after = file.tell() + length + 4
            if kind == b"eXIf" or (kind in (b"iTXt", b"tEXt", b"zTXt") and file.read(20).startswith(_MAY_TURN)):
                return True
            file.seek(after)
        return False
    finally:
        file.seek(place)


def _draft(image: Image, shape: tuple[int, int]) -> None:
    """Let a JPEG be decoded in a half, a quarter or an eighth of its size, if at least twice `shape` is left.

    Photographs are read five times as fast; their pixels differ by about one step of 255.
    """
    if image.format in ("JPEG", "MPO"):
        sideways = image.getexif().get(_EXIF_ORIENTATION) in _EXIF_SIDEWAYS
        height, width = reversed(shape) if sideways else shape
        image.draft(None, (2 * width, 2 * height))


def _to_rgb(image: Image, bits: int | None) -> Image:
    """First frame, upright, 8-bit RGB; transparency is laid over white."""
    from PIL import Image, ImageOps

    deep = is_deep(image)
    bits = BITS[-1] if image.format == "PPM" else bits
    image = ImageOps.exif_transpose(image)
    if deep:
        image = to_8_bits(image, bits)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _fit(image: Image, shape: tuple[int, int], resize: Resize) -> Image:
    from PIL import Image, ImageOps

    height, width = shape
    if image.size == (width, height):
        return image
    # Pillow widens its bicubic filter when it shrinks: no aliasing.
    if resize == "crop":
        return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    if resize == "stretch":
        return image.resize((width, height), Image.Resampling.BICUBIC)
    scale = min(width / image.width, height / image.height)
    inner = [max(1, round(side * scale)) for side in image.size]
    padded = Image.new("RGB", (width, height), PADDING)
    padded.paste(image.resize(inner, Image.Resampling.BICUBIC), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return padded


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
