"""Image files with more than 8 bits a value (16-bit PNG, TIFF) -> 8 bits.

They are scaled by their data set's number of bits: the least of `BITS` that holds the largest value in it. No single
file can tell it, as a dark image of 16 bits looks like a bright one of 12. A PGM or PPM tells it: its header says which
value is white, and Pillow has scaled that to 65,535.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prl_keras.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

BITS = (8, 10, 12, 14, 16)

_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC, _TIFF_COLOURS, _TIFF_SAMPLE_FORMAT = 258, 262, 320, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2
_CONVERT = "convert it to 8 bits (0..255)"


def bits_for(largest: int) -> int:
    return next(bits for bits in BITS if largest < 2**bits)


def check_white(given: str, bits: int | None, label: str, own: int | None) -> None:
    """Raise InputError if the images that an option names use other bits a value than those of the data set `label`."""
    if None not in (bits, own) and bits != own:
        raise InputError(
            f"{given}: these images use {bits} bits a value, those of {label} {own}: one white would be another; "
            "convert them to 8 bits"
        )


def is_deep(image: Image) -> bool:
    """Before it is decoded. Pillow gives all bits of grey values, and the upper 8 of colours."""
    if image.mode[0] in "IF":
        return True
    if image.format == "TIFF":
        return _tiff_bits(image) > 8
    return image.format == "PNG" and any("16" in str(tile.args) for tile in image.tile)


def check_tiff(image: Image) -> None:
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


def largest(image: Image) -> int:
    """The largest value of an image with more than 8 bits; see `images.largest_value`."""
    if image.mode == "F":
        raise InputError(f"floating-point numbers have no fixed range: {_CONVERT}")
    if image.mode[0] != "I":
        return 256 * int(np.asarray(image.convert("RGB")).max()) + 255
    values = np.asarray(image)
    if values.min() < 0 or values.max() >= 2 ** BITS[-1]:
        raise InputError(f"image values {values.min()}..{values.max()} do not fit 16 bits: {_CONVERT}")
    return int(values.max())


def to_8_bits(image: Image, bits: int | None) -> Image:
    """An image with more, of a data set with `bits`; None: it is alone."""
    from PIL import Image

    most = largest(image)
    if bits is None and (bits := bits_for(most)) < BITS[-1]:
        raise InputError(f"values up to {most:,} in 16 bits: one image cannot tell which value is white; {_CONVERT}")
    white = 2**bits - 1
    if image.mode[0] != "I":
        if bits < BITS[-1]:
            raise InputError(f"colours of 16 bits in a data set that uses {bits} bits are not read: {_CONVERT}")
        return image
    if most > white:
        raise InputError(f"values up to {most:,}, but {white:,} is white in this data set: {_CONVERT}")
    values = np.asarray(image)
    grey = np.rint(values / (white / 255)).astype(np.uint8)
    grey[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)


def _tiff_bits(image: Image) -> int:
    return max(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,)))
