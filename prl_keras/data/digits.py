"""scikit-learn's 1,797 handwritten digits, enlarged from 8x8 to 32x32."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from prl_keras.data.splits import RawData, Split, split_test

SIDE = 32
CLASS_NAMES = tuple(str(digit) for digit in range(10))
_TEST_FRACTION, _TEST_SEED = 0.2, 0  # fixed: everyone has the same test images


def read_digits() -> RawData:
    from PIL import Image

    pixels, labels = _from_scikit_learn()
    small = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = np.stack(
        [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in small]
    )
    train, test = split_test(Split(images, labels), _TEST_FRACTION, _TEST_SEED, CLASS_NAMES)
    return RawData(train, test, CLASS_NAMES)


def _from_scikit_learn() -> tuple[np.ndarray, np.ndarray]:
    """Values 0..16 (1797, 64) and labels (1797,). Its file is read without it, as its import takes seconds."""
    found = find_spec("sklearn")
    file = found and found.origin and Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file and file.is_file():
        table = np.loadtxt(file, delimiter=",")
        return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.data, digits.target.astype(np.int64)
