"""Users' vectors that were trained elsewhere, from files, a chunk at a time and from any row on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from streamer.errors import ModelError
from streamer.models.arrays import map_table
from streamer.models.id_files import read_ids
from streamer.models.imported import as_float32, as_ids, id_strings
from streamer.models.tables import Column, ids_of, matrix_of, open_parquet

COLUMN: Final = Column("user_id", "factors")
ROWS_AT_ONCE: Final = 10_000


class VectorChunk(NamedTuple):
    """Some rows of a file.

    Attributes:
        first_row: Number of the first of them.
        user_ids: Of the rows.
        vectors: float32, finite, shape (n_rows, n_factors).
    """

    first_row: int
    user_ids: list[str]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class VectorFile:
    """A file of users' vectors.

    Attributes:
        n_rows: How many there are; None where nobody knows before the end.
        chunks: Yields what is at and after a row, in order. Raises ModelError, with the row, for
            what is no id or no vector.
    """

    n_rows: int | None
    chunks: Callable[[int], Iterator[VectorChunk]]


def open_vectors(path: Path, ids: Path | None, column: Column = COLUMN) -> VectorFile:
    """Open a file by its name.

    Args:
        path: ``.npy``, floats of shape (n_users, n_factors); ``.jsonl`` or ``.ndjson``, an object a
            line; anything else is Parquet, a file or a folder of files.
        ids: Of the rows of an ``.npy`` file, as `read_ids` takes them; of nothing else.
        column: Names of columns, or of fields of an object.

    Raises:
        ConfigError: Parquet without `pyarrow`.
        ModelError: Not such a file; of an ``.npy`` also ids that do not fit, or are there twice.
    """
    if path.suffix == ".npy":
        return _open_array(path, ids, column)
    if ids is not None:
        raise ModelError(f"{path}: has ids of its own; ids in another file are for .npy")
    if path.suffix in (".jsonl", ".ndjson"):
        return VectorFile(None, lambda row: _json_chunks(path, column, row))
    n_rows, _ = open_parquet(path, (column.ids,))
    return VectorFile(n_rows, lambda row: _parquet_chunks(path, column, row))


def vectors_of_frame(frame: Any, column: Column = COLUMN) -> VectorChunk:  # noqa: ANN401  any library's
    """Return a data frame of pandas, Polars or Arrow as one chunk, one user a row.

    Raises:
        ModelError: A column is missing, or a row holds no id or no vector.
    """
    user_ids = as_ids(ids_of(frame, column.ids))
    return VectorChunk(0, user_ids, as_float32(matrix_of(frame, column.vectors)))


def _open_array(path: Path, ids: Path | None, column: Column) -> VectorFile:
    if ids is None:
        raise ModelError(f"{path}: has rows but no ids; give them in another file (--ids)")
    try:
        table = map_table(path)
    except ModelError as error:
        raise ModelError(f"{path.parent}: {error}") from error
    user_ids = as_ids(read_ids(ids, column.ids))
    if len(user_ids) != len(table):
        raise ModelError(f"{path}: {len(table)} rows, but there are {len(user_ids)} ids")

    def chunks(row: int) -> Iterator[VectorChunk]:
        for start in range(row, len(table), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            yield VectorChunk(start, user_ids[part], as_float32(table[part], start))

    return VectorFile(len(table), chunks)


def _parquet_chunks(path: Path, column: Column, row: int) -> Iterator[VectorChunk]:
    first_row = 0
    for batch in open_parquet(path, (column.ids,))[1]:
        rest = batch.slice(max(0, row - first_row))
        for start in range(0, len(rest), ROWS_AT_ONCE):
            part = rest.slice(start, ROWS_AT_ONCE)
            at = first_row + len(batch) - len(rest) + start
            user_ids = id_strings(ids_of(part, column.ids), at)
            yield VectorChunk(at, user_ids, as_float32(matrix_of(part, column.vectors), at))
        first_row += len(batch)


def _json_chunks(path: Path, column: Column, row: int) -> Iterator[VectorChunk]:
    try:
        with path.open("rb") as file:
            lines = islice(file, row, None)
            while chunk := list(islice(lines, ROWS_AT_ONCE)):
                yield _json_chunk(path, column, row, chunk)
                row += len(chunk)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def _json_chunk(path: Path, column: Column, row: int, lines: Sequence[bytes]) -> VectorChunk:
    ids: list[object] = []
    vectors: list[list[float]] = []
    for number, line in enumerate(lines, row):
        found = _object(line)
        if found is None or not {*column} <= found.keys():
            raise ModelError(
                f"{path}: line {number + 1} is not an object with {column.ids!r} and "
                f"{column.vectors!r}"
            )
        vector = found[column.vectors]
        n_factors = len(vectors[0]) if vectors else None
        if not _is_vector(vector) or n_factors not in (None, len(vector)):
            raise ModelError(
                f"{path}: line {number + 1}: {column.vectors!r} is not an array of "
                f"{n_factors or 'one or more'} numbers"
            )
        ids.append(found[column.ids])
        vectors.append(vector)
    return VectorChunk(row, id_strings(ids, row), as_float32(np.array(vectors, np.float64), row))


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _is_vector(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in value)
    )
