"""Features of frozen encoders, encoded once and shared by trials, resumed searches and worker processes."""

from contextlib import suppress
from pathlib import Path

import keras
import numpy as np

from prl_keras.arrays import read_arrays
from prl_keras.files import atomic_path
from prl_keras.models.encode import encode
from prl_keras.models.storage import weights_sha256
from prl_keras.tuning.data import SearchData


class FeatureCache:
    """Train and validation features of each encoder: in memory, and as .npy files named after its weights.

    Args:
        folder: where the files go; several processes may share it.
        data: the images.
        precision: under which the encoders compute; part of the file names.
    """

    def __init__(self, folder: Path, data: SearchData, precision: str):
        self.folder, self.data, self.precision = folder, data, precision
        self._memory: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def features(self, encoder: keras.Model) -> tuple[np.ndarray, np.ndarray]:
        """(train, validation) features, (n, dim) float32 each."""
        if id(encoder) not in self._memory:
            stem = f"{weights_sha256(encoder)[:24]}-{self.precision}"
            splits = {"train": self.data.train, "validation": self.data.validation}
            self._memory[id(encoder)] = tuple(
                self._load_or_encode(self.folder / f"{stem}-{name}.npy", encoder, split.images)
                for name, split in splits.items()
            )
        return self._memory[id(encoder)]

    def _load_or_encode(self, file: Path, encoder: keras.Model, images: np.ndarray) -> np.ndarray:
        with suppress(FileNotFoundError, ValueError, KeyError):  # what is damaged is made again
            return read_arrays(file)[""]
        features = encode(encoder, images)
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            np.save(temporary, features)
        return features
