"""How strong a corruption is: the constants that Hendrycks & Dietterich (2019) published for three sizes of picture.

32 px: CIFAR-10-C, 64 px: Tiny-ImageNet-C, 224 px: ImageNet-C, each with five severities. Between these sizes a constant
is interpolated linearly in the picture's shorter side, so that lengths (radii, displacements) grow with the picture;
below 32 px and above 224 px it is that of the nearest size. Those of elastic_transform are shares of the side.
"""

import numpy as np

from prl_keras.errors import InputError

RULE = "CIFAR-10-C (32 px), Tiny-ImageNet-C (64), ImageNet-C (224), between them linear in the shorter side"
SEVERITIES = (1, 2, 3, 4, 5)
_SIZES = (32, 64, 224)
_ZOOMS = ((1.06, 7), (1.11, 12), (1.15, 16), (1.20, 21), (1.25, 26))
_FEW_SNOW = (
    *((0.1, 0.2, 1, 0.6, 8, 3), (0.1, 0.2, 1, 0.5, 10, 4), (0.15, 0.3, 1.75, 0.55, 10, 4)),
    *((0.25, 0.3, 2.25, 0.6, 12, 6), (0.3, 0.3, 1.25, 0.65, 14, 12)),
)
_224 = 244 / 224  # its authors took 244 for the side

# Of each size the five severities, each a number or several.
_PUBLISHED = {
    "gaussian_noise": (  # standard deviation, of 1
        (0.04, 0.06, 0.08, 0.09, 0.10),
        (0.04, 0.08, 0.12, 0.15, 0.18),
        (0.08, 0.12, 0.18, 0.26, 0.38),
    ),
    "shot_noise": ((500, 250, 100, 75, 50), (250, 100, 50, 30, 15), (60, 25, 12, 5, 3)),  # photons of white
    "impulse_noise": (  # share of the values
        (0.01, 0.02, 0.03, 0.05, 0.07),
        (0.01, 0.02, 0.05, 0.08, 0.14),
        (0.03, 0.06, 0.09, 0.17, 0.27),
    ),
    "defocus_blur": (  # radius of the disk, sigma of the blur that softens it
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": (  # sigma, largest displacement, times
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": (  # radius, sigma
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": (_ZOOMS, _ZOOMS, ((1.11, 12), (1.15, 16), (1.20, 11), (1.24, 13), (1.30, 11))),  # largest zoom, zooms
    "snow": (  # mean and deviation of the flakes, their zoom, threshold, radius and sigma of their fall, darkening
        tuple((*few, kept) for few, kept in zip(_FEW_SNOW, (0.95, 0.9, 0.9, 0.85, 0.8), strict=True)),
        tuple((*few, kept) for few, kept in zip(_FEW_SNOW, (0.8, 0.8, 0.7, 0.65, 0.6), strict=True)),
        (
            *((0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7)),
            *((0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)),
        ),
    ),
    "frost": (  # share of the picture, share of the frost
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    "fog": (  # thickness, by how much finer detail is weaker
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": (  # added to HSV's value
        (0.05, 0.1, 0.15, 0.2, 0.3),
        (0.1, 0.2, 0.3, 0.4, 0.5),
        (0.1, 0.2, 0.3, 0.4, 0.5),
    ),
    "contrast": (  # share that is kept
        (0.75, 0.5, 0.4, 0.3, 0.15),
        (0.4, 0.3, 0.2, 0.1, 0.05),
        (0.4, 0.3, 0.2, 0.1, 0.05),
    ),
    "elastic_transform": (  # factor and sigma of the displacements, largest shift of the three points
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        ((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
        tuple(
            tuple(_224 * share for share in shares)
            for shares in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ),
    ),
    "pixelate": (  # side, of 1
        (0.95, 0.9, 0.85, 0.75, 0.65),
        (0.9, 0.8, 0.7, 0.6, 0.5),
        (0.6, 0.5, 0.4, 0.3, 0.25),
    ),
    "jpeg_compression": ((80, 65, 58, 50, 40), (65, 58, 50, 40, 25), (25, 18, 15, 10, 7)),  # quality
}
NAMES = tuple(_PUBLISHED)


def constants(name: str, severity: int, side: int) -> tuple[float, ...]:
    """Of a corruption at a severity from 1 to 5, for pictures whose shorter side has `side` pixels.

    Raises:
        InputError: there is no such corruption or severity.
    """
    if name not in _PUBLISHED:
        raise InputError(f"unknown corruption {name!r}; choose one of: {', '.join(NAMES)}")
    if severity not in SEVERITIES:
        raise InputError(f"severity is {severity!r}; expected a whole number from 1 to 5, or 0 for the clean picture")
    of_sizes = [np.atleast_1d(by_severity[severity - 1]) for by_severity in _PUBLISHED[name]]
    return tuple(float(np.interp(side, _SIZES, values)) for values in zip(*of_sizes, strict=True))
