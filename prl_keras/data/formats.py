"""Which files are pictures, by their names, and which formats the installed packages read."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

_ALWAYS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # MPO is read by JPEG; EPS would run Ghostscript
# Format -> how its files' names end, and what reads it where Pillow alone does not.
_SOMETIMES = {
    "AVIF": ((".avif",), "Pillow 11.3 or newer (pip install -U pillow)"),
    "HEIF": ((".heic", ".heif", ".hif"), "the package pillow-heif (pip install pillow-heif)"),
    "JXL": ((".jxl",), "the package pillow-jxl-plugin (pip install pillow-jxl-plugin)"),
}
IMAGE_EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"),
    *(extension for extensions, _ in _SOMETIMES.values() for extension in extensions),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_JXL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL ")


def is_picture(path: str | os.PathLike) -> bool:
    """By its name, also if it needs a package that is not installed."""
    return os.path.splitext(path)[1].lower() in IMAGE_EXTENSIONS


@cache
def readable() -> tuple[str, ...]:
    """Pillow's names of the formats that can be read here."""
    from PIL import Image, features

    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    with suppress(ImportError):
        import_module("pillow_jxl")
    found = {*Image.OPEN, *map(str.upper, features.get_supported_modules())}
    return (*_ALWAYS, *(name for name in _SOMETIMES if name in found))


def reader_of(path: Path) -> str | None:
    """What would read this file, in words; None: no package that we know of, or one that is there."""
    head = b""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(12)
    kinds = [name for name, (extensions, _) in _SOMETIMES.items() if path.suffix.lower() in extensions]
    if head[4:8] == b"ftyp":  # telephones write it, also under the name of a JPEG
        brand = head[8:]
        kinds = ["HEIF"] if brand in _HEIF_BRANDS else ["AVIF"] if brand in (b"avif", b"avis") else kinds
    elif head.startswith(_JXL_STARTS):
        kinds = ["JXL"]
    return next((_SOMETIMES[kind][1] for kind in kinds if kind not in readable()), None)
