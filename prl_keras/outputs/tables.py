"""Tables of any length, written a piece at a time: CSV, JSON, Parquet, and vectors as .npy. Heavy: pyarrow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prl_keras.files import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 4096  # a row group of Parquet


def write_table(file: Path, pieces: Iterable[pa.Table], about: dict[str, Any]) -> None:
    """By the file's suffix, all pieces of one schema, at least one.

    `about` becomes key-value metadata of Parquet, see `as_texts`, and the "about" of JSON; CSV has no place for it.
    """
    writers = {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}
    with atomic_path(file) as temporary:
        writers[file.suffix](temporary, _grouped(pieces), about)


def write_vectors(file: Path, pieces: Iterable[np.ndarray], count: int, dim: int) -> None:
    """float32 (count, dim) as .npy, which `np.load(file, mmap_mode="r")` opens without reading it."""
    with atomic_path(file) as temporary, temporary.open("wb") as out:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
        np.lib.format.write_array_header_1_0(out, header)
        for piece in pieces:
            out.write(np.ascontiguousarray(piece, "<f4").tobytes())


def vector_column(vectors: np.ndarray, missing: Iterable[int] = ()) -> pa.Array:
    """float32 (n, dim) -> a column of lists of fixed length, null in the rows that are missing."""
    import pyarrow as pa

    mask = np.zeros(len(vectors), bool)
    mask[list(missing)] = True
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=pa.array(mask))


def _grouped(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    import pyarrow as pa

    held: list[pa.Table] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= _ROWS:
            yield pa.concat_tables(held).combine_chunks()
            held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _write_csv(file: Path, tables: Iterator[pa.Table], about: dict[str, Any]) -> None:
    from pyarrow import csv

    first = next(tables)
    with csv.CSVWriter(file, first.schema) as writer:
        for table in chain([first], tables):
            writer.write(table)


def as_texts(about: dict[str, Any]) -> dict[str, str]:
    """For a format whose metadata are texts: those as they are, the rest as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in about.items()
    }


def _write_parquet(file: Path, tables: Iterator[pa.Table], about: dict[str, Any]) -> None:
    from pyarrow import parquet

    first = next(tables)
    texts = as_texts(about)
    schema = first.schema.with_metadata(texts)
    with parquet.ParquetWriter(file, schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table.replace_schema_metadata(texts))


def _write_json(file: Path, tables: Iterator[pa.Table], about: dict[str, Any]) -> None:
    """One object; a line an image, so that it can be read by eye and by `grep` too."""
    with file.open("wb") as out:
        out.write(f'{{"about": {json.dumps(about, ensure_ascii=False)},\n"images": ['.encode())
        before = b"\n"
        for table in tables:
            for row in table.to_pylist():
                out.write(before + json.dumps(row, ensure_ascii=False).encode())
                before = b",\n"
        out.write(b"\n]}\n")
