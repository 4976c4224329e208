"""Read arrays from files that may be damaged. NumPy only."""

from pathlib import Path

import numpy as np

from prl_keras.files import OF_THE_SYSTEM


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Name -> array of a .npz; that of a .npy has the name "".

    Raises:
        ValueError: it is damaged.
        OSError: it cannot be opened, or the disk fails.
    """
    with file.open("rb") as stream:
        try:
            content = np.load(stream, allow_pickle=False)
            return {"": content} if isinstance(content, np.ndarray) else {name: content[name] for name in content.files}
        except MemoryError:
            raise
        except Exception as error:  # whatever damage makes zipfile, zlib, tokenize or NumPy raise
            if getattr(error, "errno", None) in OF_THE_SYSTEM:
                raise
            raise ValueError(str(error) or type(error).__name__) from error
