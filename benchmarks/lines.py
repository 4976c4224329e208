"""Files of results that grow by a line: JSON each, and which images were answered rightly as packed bits."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np


def read(file: Path) -> list[dict[str, Any]]:
    """Nothing of a file that is not there."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


def add(file: Path, line: dict[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(line) + "\n")


def packed(right: np.ndarray) -> str:
    """(n,) bool -> text."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked(text: str, n: int) -> np.ndarray:
    """(n,) bool."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=n) > 0
