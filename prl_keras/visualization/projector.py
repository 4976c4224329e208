"""One embedding as files for TensorBoard's projector: vectors, metadata, thumbnails, a ready-made view.

Formats: TensorBoard 2.21's projector plugin. The folder appears in one step, because a broken one hides the
projector's tab for every run.
"""

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prl_keras.errors import InputError
from prl_keras.files import atomic_folder, make_folder
from prl_keras.runs.names import usable
from prl_keras.visualization.text import distinct, one_line

_MAX_SPRITE_SIDE = 8192  # pixels; the browser refuses larger textures
_MAX_THUMBNAIL = 48  # pixels
_BORDER, _MARKED_BORDER = 1 / 12, 1 / 4  # of a thumbnail, in its class's colour
# What JavaScript takes for a number, an empty cell among it; a column of such would be coloured by a scale.
_DECIMAL = r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?"
_NUMBER = re.compile(rf"([+-]?(Infinity|{_DECIMAL})|0x[\da-f]+|0o[0-7]+|0b[01]+)?", re.IGNORECASE)
_OURS = re.compile(r"(tensors|metadata|sprite|bookmarks|projector_config|events\.out\.tfevents)\..*|\.DS_Store")
_SIDES = ("XLeft", "XRight", "YUp", "YDown")  # of the projector's custom view; a bookmark must have them


def write_projector(
    folder: Path,
    vectors: np.ndarray,
    metadata: dict[str, Sequence],
    images: np.ndarray,
    colours: np.ndarray,
    marked: np.ndarray,
) -> Path:
    """Write, or write anew, one embedding that TensorBoard's projector can open.

    Args:
        folder: for this embedding alone; its name is what the projector's menu shows. Only an embedding is replaced.
        vectors: (n, dim) float, dim > 1.
        metadata: at least two columns of n values; the column "class" colours the view, "domain" a second one.
        images: (n, height, width, 3) uint8, the thumbnails.
        colours: (n, 3) uint8, the frame of each thumbnail.
        marked: (n,) bool, who gets a thick frame.

    Raises:
        InputError: the folder's name is not a plain one, or it holds what is no embedding.
    """
    _check_replaceable(folder)
    make_folder(folder.parent)
    with atomic_folder(folder) as draft:
        tensor_file = _write_vectors(draft, np.asarray(vectors, "<f4"))
        _write_metadata(draft / "metadata.tsv", metadata)
        side = _write_sprite(draft / "sprite.png", images, colours, marked)
        states = [_bookmark(vectors.shape, colour) for colour in ("class", "domain") if colour in metadata]
        (draft / "bookmarks.json").write_text(json.dumps(states), encoding="utf-8")
        _write_event(draft, len(vectors))
        config = (
            f'embeddings {{\n  tensor_name: "features"\n  tensor_path: "{tensor_file}"\n'
            f"  tensor_shape: {vectors.shape[0]}\n  tensor_shape: {vectors.shape[1]}\n"
            '  metadata_path: "metadata.tsv"\n  bookmarks_path: "bookmarks.json"\n'
            f'  sprite {{ image_path: "sprite.png" single_image_dim: {side} single_image_dim: {side} }}\n}}\n'
        )
        (draft / "projector_config.pbtxt").write_text(config, encoding="utf-8")
    return folder


def category_names(names: Sequence[str]) -> list[str]:
    """Distinct words, which the projector takes for categories, of any names."""
    words = [one_line(name) for name in names]
    return distinct([f"class {word}".rstrip() if _NUMBER.fullmatch(word) else word for word in words])


def _check_replaceable(folder: Path) -> None:
    """It will be removed: nothing but an earlier embedding may be there, and nothing behind a link or a `..`."""
    if usable(folder.name) != folder.name or ".." in folder.parts[-3:]:
        raise InputError(f"{folder.name!r} is no plain name for the folder of an embedding ({folder})")
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(f"{folder}: a link or a file is in the way of an embedding; move it away")
    foreign = sorted(path.name for path in folder.iterdir() if path.is_dir() or not _OURS.fullmatch(path.name))
    if foreign:
        raise InputError(f"{folder}: holds {foreign[0]!r}, which is no part of an embedding; move it away")


def _write_vectors(folder: Path, vectors: np.ndarray) -> str:
    """Binary, unless TensorBoard would take the bytes for text (all features 0, for example)."""
    content = vectors.tobytes()
    try:
        content.decode()
    except UnicodeDecodeError:
        (folder / "tensors.bytes").write_bytes(content)
        return "tensors.bytes"
    np.savetxt(folder / "tensors.tsv", vectors, delimiter="\t", fmt="%.9g")
    return "tensors.tsv"


def _write_metadata(file: Path, columns: dict[str, Sequence]) -> None:
    rows = [columns.keys(), *zip(*columns.values(), strict=True)]
    lines = ["\t".join(one_line(str(value)) for value in row) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")  # TensorBoard keeps a \r in the last cell


def _write_sprite(file: Path, images: np.ndarray, colours: np.ndarray, marked: np.ndarray) -> int:
    """A square sheet of framed thumbnails, row by row; returns their side in pixels."""
    from PIL import Image, ImageOps

    columns = math.ceil(math.sqrt(len(images)))
    side = max(1, min(_MAX_THUMBNAIL, _MAX_SPRITE_SIDE // columns))
    sheet = Image.new("RGB", (columns * side, columns * side), "white")
    for i, (image, colour, mark) in enumerate(zip(images, colours, marked, strict=True)):
        border = round((_MARKED_BORDER if mark else _BORDER) * side)
        inner = Image.fromarray(image).resize((max(1, side - 2 * border),) * 2, Image.Resampling.BILINEAR)
        tile = ImageOps.expand(inner, border, fill=tuple(int(c) for c in colour))
        sheet.paste(tile, (i % columns * side, i // columns * side))
    sheet.save(file)
    return side


def _write_event(folder: Path, points: int) -> None:
    """TensorBoard lists a folder only if it holds an event file."""
    import tensorflow as tf

    with tf.summary.create_file_writer(str(folder)).as_default():
        tf.summary.scalar("projector/points", points, step=0)


def _bookmark(shape: tuple[int, int], colour: str) -> dict:
    """A state of the projector's page: points coloured by a column and labelled by class, its t-SNE running.

    Finished positions cannot be handed over: TensorBoard 2.21 starts its own t-SNE when such a bookmark is chosen.
    """
    custom = {f"custom{side}{part}": value for side in _SIDES for part, value in (("Text", ""), ("Regex", False))}
    return {
        **custom,
        "label": f"t-SNE, coloured by {colour}",
        "isSelected": False,
        "projections": [],
        "dataSetDimensions": list(shape),
        "selectedProjection": "tsne",
        "selectedPoints": [],
        "selectedColorOptionName": colour,
        "forceCategoricalColoring": True,
        "selectedLabelOption": "class",
        "customSelectedSearchByMetadataOption": "class",
        "tSNEIteration": 0,
        "tSNEPerplexity": 30,
        "tSNELearningRate": 1,  # the slider's position: 10 to this power
        "tSNEis3d": False,
        "umapIs3d": True,
        "umapNeighbors": 15,
        "umapMinDist": 0.1,
        "pcaComponentDimensions": [0, 1, 2],
        "cameraDef": {"orthographic": True, "position": [0, 0, 10], "target": [0, 0, 0], "zoom": 1},
    }
