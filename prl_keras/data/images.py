"""Image files and arrays -> RGB uint8. Used by data modules and the `predict` command; needs Pillow."""

from __future__ import annotations

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
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # whatever the name says; EPS would run Ghostscript
SMALLEST_SIDE, LARGEST_SIDE = 8, 1024

_EXIF_ORIENTATION, _EXIF_SIDEWAYS = 0x0112, (5, 6, 7, 8)


def load_image(path: str | Path, size: int | tuple[int, ...] | None = None) -> np.ndarray:
    """The image as uint8 (height, width, 3).

    `size`: a side in pixels, or (height, width[, 3]); the image is cropped around its centre and resized.
    """
    with _opened(Path(path)) as image:
        rgb = _to_rgb(image)
        return np.array(_fit(rgb, size) if size is not None else rgb, dtype=np.uint8)


def image_shape(path: Path) -> tuple[int, int]:
    """(height, width) as it will be shown, from the file's header alone."""
    with _opened(path) as image:
        width, height = image.size
        sideways = image.getexif().get(_EXIF_ORIENTATION) in _EXIF_SIDEWAYS
        return (width, height) if sideways else (height, width)


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
    from PIL import Image

    if not path.is_file():
        raise InputError(f"{path}: no such image file; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); replace or delete it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF and the like
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: over {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    # Pillow raises many types on damaged bytes: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise InputError(f"{path}: not a readable image ({_first_line(error)}); replace or delete it") from error


def _to_rgb(image: Image) -> Image:
    """First frame, upright, 8-bit RGB; transparency is laid over white."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"image values {values.min()}..{values.max()} do not fit 16 bits: convert it to 8 bits")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise InputError("images of floating-point numbers have no fixed range: convert it to 8 bits")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _fit(image: Image, size: int | tuple[int, ...]) -> Image:
    from PIL import Image, ImageOps

    height, width = (size, size) if isinstance(size, int | np.integer) else size[:2]
    if image.size == (width, height):
        return image
    # Pillow widens its bicubic filter when it shrinks: no aliasing.
    return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
