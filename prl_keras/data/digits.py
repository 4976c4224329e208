"""scikit-learn's 1,797 handwritten digits, enlarged from 8x8 to 32x32."""

from __future__ import annotations

import numpy as np

from prl_keras.data.splits import RawData, Split, split_test

SIDE = 32
CLASS_NAMES = tuple(str(digit) for digit in range(10))
_TEST_FRACTION, _TEST_SEED = 0.2, 0  # fixed: everyone has the same test images


def read_digits() -> RawData:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.stack(
        [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in small]
    )
    train, test = split_test(Split(images, digits.target.astype(np.int64)), _TEST_FRACTION, _TEST_SEED, CLASS_NAMES)
    return RawData(train, test, CLASS_NAMES)
