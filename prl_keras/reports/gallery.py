"""Which pictures a page holds, and their thumbnails: sheets of JPEG that a browser cuts up, bounded in bytes."""

import base64
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prl_keras.data import Dataset
from prl_keras.data.splits import SPLITS
from prl_keras.visualization.sample import balanced_rows

MOST = {"train": 8_000, "validation": 2_000, "test": 10_000}  # thumbnails, beside those that a section names
COLUMNS, ROWS = 32, 64  # of a sheet
_CELL = 8  # a JPEG's blocks: cells of whole blocks do not run into each other
_PIXELS = 21e6  # of all thumbnails
_SIDES = 16, 64  # least and largest side of a thumbnail
_BYTES = 8e6  # of all sheets; a third more in the page
_QUALITIES = (90, 80, 65, 45, 25, 10)
_BLOCK = 1000  # images that are read together


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures by number: those of train, then validation, then test, each by ascending row.

    splits: (n,) place in `SPLITS`; rows: (n,) row in the split.
    """

    splits: np.ndarray
    rows: np.ndarray

    def of(self, split: str) -> np.ndarray:
        """Rows of the split, ascending."""
        return self.rows[self.splits == SPLITS.index(split)]

    def numbers(self, split: str, rows: np.ndarray) -> np.ndarray:
        """Of pictures that are in it."""
        start = int(np.searchsorted(self.splits, SPLITS.index(split)))
        return start + np.searchsorted(self.of(split), rows)


def gallery_of(dataset: Dataset, named: Mapping[str, np.ndarray], most: Mapping[str, int] = MOST) -> Gallery:
    """The pictures that sections name, by split, and as many others as the page may hold, alike of each class."""
    parts = []
    for split in SPLITS:
        labels = getattr(dataset, split).labels
        wanted = np.unique(np.asarray(named.get(split, []), int))
        room = max(most[split] - len(wanted), 0)
        if len(labels) <= most[split]:
            wanted = np.arange(len(labels))
        elif room:
            order = np.random.default_rng(0).permutation(len(labels))
            wanted = np.union1d(wanted, balanced_rows(labels, len(labels), order, room))
        parts.append(wanted)
    splits = np.repeat(np.arange(len(SPLITS)), [len(rows) for rows in parts])
    return Gallery(splits, np.concatenate(parts))


def thumbnails(dataset: Dataset, gallery: Gallery) -> Iterator[np.ndarray]:
    """In the gallery's order, (height, width, 3) uint8: never enlarged, and smaller the more there are."""
    from PIL import Image

    height, width, _ = dataset.image_shape
    size = thumbnail_size(height, width, len(gallery.rows))
    for split in SPLITS:
        rows, images = gallery.of(split), getattr(dataset, split).images
        for start in range(0, len(rows), _BLOCK):
            for image in images[rows[start : start + _BLOCK]]:
                small = size != (height, width)
                yield np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BOX)) if small else image


def thumbnail_size(height: int, width: int, count: int) -> tuple[int, int]:
    """(height, width), in the picture's proportions."""
    side = min(max(math.sqrt(_PIXELS / count), _SIDES[0]), _SIDES[1])
    if side < max(height, width):
        side -= side % _CELL
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def sheets(pictures: Iterator[np.ndarray]) -> dict[str, Any]:
    """Pictures of one size, row by row in sheets as data URIs, in the best quality that is small enough.

    Returns:
        width and height of a picture, cell_width and cell_height that it has in a sheet, columns and rows, and the
        sheets, of which each has as many rows.
    """
    pictures = np.stack(list(pictures))
    height, width = pictures.shape[1:3]
    cells = [-(-side // _CELL) * _CELL for side in (height, width)]
    padding = [(0, 0), (0, cells[0] - height), (0, cells[1] - width), (0, 0)]
    whole = [_sheet(pictures[at : at + COLUMNS * ROWS], padding) for at in range(0, len(pictures), COLUMNS * ROWS)]
    for quality in _QUALITIES:
        files = [_jpeg(sheet, quality) for sheet in whole]
        if sum(map(len, files)) <= _BYTES:
            break
    geometry = {"width": width, "height": height, "cell_width": cells[1], "cell_height": cells[0]}
    uris = [f"data:image/jpeg;base64,{base64.b64encode(file).decode()}" for file in files]
    return geometry | {"columns": COLUMNS, "rows": ROWS, "sheets": uris}


def _sheet(pictures: np.ndarray, padding: list[tuple[int, int]]) -> np.ndarray:
    """(ROWS x cell height, COLUMNS x cell width, 3); what is left over is black. Few pictures: one short sheet."""
    cells = np.pad(pictures, padding, mode="edge")
    sheet = np.zeros((ROWS * COLUMNS, *cells.shape[1:]), np.uint8)
    sheet[: len(cells)] = cells
    grid = sheet.reshape(ROWS, COLUMNS, *cells.shape[1:]).swapaxes(1, 2)
    return grid.reshape(ROWS * cells.shape[1], COLUMNS * cells.shape[2], 3)


def _jpeg(sheet: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()
