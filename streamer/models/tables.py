"""Tables from elsewhere: Parquet files, pandas, Polars and Arrow, as ids and matrices.

Columns are asked by name, so that no library is needed that the caller does not have. Only Parquet
files need `pyarrow`, the extra ``streamer[parquet]``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ConfigError, ModelError

ROWS_AT_ONCE: Final = 65_536
OnRows = Callable[[int, int], None]
"""Told how many rows were read, and of how many."""


class Column(NamedTuple):
    """Names of the columns of a table of vectors.

    Attributes:
        ids: Strings or integers.
        vectors: A column of lists; or ``NAME_0``, ``NAME_1`` and so on, one number each.
    """

    ids: str
    vectors: str


def column_names(frame: Any) -> list[str]:  # noqa: ANN401  any library's table
    """Return the names of a table's columns."""
    found = getattr(frame, "column_names", None)  # Arrow, where `columns` are the columns
    return [str(name) for name in (frame.columns if found is None else found)]


def ids_of(frame: Any, name: str) -> list[object]:  # noqa: ANN401
    """Return a column as Python values.

    Raises:
        ModelError: There is no such column.
    """
    column = _column(frame, name)
    values: list[object] = column.to_pylist() if hasattr(column, "to_pylist") else column.to_list()
    return values


def matrix_of(frame: Any, name: str) -> NDArray[np.floating[Any]]:  # noqa: ANN401
    """Return vectors, floats of shape (n_rows, n_factors): of lists, or of numbered columns.

    Raises:
        ModelError: No such column; a list is missing, or is not as long as the first one.
    """
    names = column_names(frame)
    if name not in names:
        numbered = [each for each in names if re.fullmatch(re.escape(name) + r"_\d+", each)]
        if numbered:
            ordered = sorted(numbered, key=lambda each: int(each.rpartition("_")[2]))
            return np.column_stack([_floats(_column(frame, each), each) for each in ordered])
    column = _column(frame, name)
    if hasattr(column, "to_pylist"):
        return _arrow_matrix(column, name)
    rows = column.to_list()
    lengths = {-1 if row is None or np.ndim(row) != 1 else len(row) for row in rows}
    if len(lengths) > 1 or min(lengths, default=-1) < 1:
        raise ModelError(f"column {name!r}: {_ragged(rows)}")
    return _floats(rows, name)


def open_parquet(path: Path, columns: Sequence[str] = ()) -> tuple[int, Iterator[Any]]:
    """Return how many rows a Parquet file, or a folder of them, has, and its record batches.

    Args:
        path: A file, or a folder as Spark writes it; names that begin with ``_`` or ``.`` are left
            out.
        columns: Which must be there.

    Raises:
        ConfigError: `pyarrow` is not installed.
        ModelError: Not such a file, or it lacks a column.
    """
    try:
        # Inside the function: only Parquet needs it, and it is an optional extra.
        from pyarrow import ArrowInvalid, parquet  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "Parquet needs the package `pyarrow`: pip install 'streamer[parquet]'"
        ) from error
    try:
        files = [parquet.ParquetFile(part) for part in _parts(path)]
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ArrowInvalid as error:
        raise ModelError(f"{path}: not a Parquet file") from error
    for file in files:
        for name in columns:
            if name not in file.schema_arrow.names:
                found = ", ".join(file.schema_arrow.names[:20])
                raise ModelError(f"{path}: no column {name!r}; found: {found}")
    n_rows = sum(file.metadata.num_rows for file in files)
    return n_rows, (batch for file in files for batch in file.iter_batches(ROWS_AT_ONCE))


def read_vectors(
    path: Path, column: Column, on_rows: OnRows = lambda _done, _of: None
) -> tuple[list[object], NDArray[np.floating[Any]]]:
    """Read ids and vectors of Parquet whole; raises as `open_parquet` and `matrix_of`."""
    n_rows, batches = open_parquet(path, (column.ids,))
    ids: list[object] = []
    blocks: list[NDArray[np.floating[Any]]] = []
    for batch in batches:
        block = matrix_of(batch, column.vectors)
        if blocks and block.shape[1] != blocks[0].shape[1]:
            raise ModelError(
                f"column {column.vectors!r}: row {len(ids)} has {block.shape[1]} numbers, the "
                f"first one {blocks[0].shape[1]}"
            )
        ids += ids_of(batch, column.ids)
        blocks.append(block)
        on_rows(len(ids), n_rows)
    if not blocks:
        raise ModelError(f"{path}: no rows")
    return ids, np.concatenate(blocks)


def _parts(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    parts = sorted(
        part for part in path.iterdir() if part.is_file() and not part.name.startswith(("_", "."))
    )
    if not parts:
        raise ModelError(f"{path}: no Parquet files in it")
    return parts


def _column(frame: Any, name: str) -> Any:  # noqa: ANN401
    names = column_names(frame)
    if name not in names:
        raise ModelError(f"no column {name!r}; found: {', '.join(names[:20])}")
    return frame[name]


def _arrow_matrix(column: Any, name: str) -> NDArray[np.floating[Any]]:  # noqa: ANN401
    """Of an Arrow column of lists, without a Python object a number."""
    from pyarrow import compute  # noqa: PLC0415  whoever has such a column has it

    if not hasattr(column.type, "value_type"):
        raise ModelError(f"column {name!r}: of type {column.type}, expected lists of numbers")
    lengths = compute.list_value_length(column)
    sizes = lengths.unique().to_pylist()
    if len(sizes) != 1 or not sizes[0]:
        raise ModelError(f"column {name!r}: {_ragged(column.to_pylist())}")
    numbers = compute.list_flatten(column)
    if numbers.null_count:
        raise ModelError(f"column {name!r}: a list has a missing number")
    return _floats(numbers, name).reshape(len(column), sizes[0])


def _floats(values: Any, name: str) -> NDArray[np.floating[Any]]:  # noqa: ANN401
    try:
        found = np.asarray(values)
        return found if found.dtype.kind == "f" else found.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"column {name!r}: expected numbers") from error


def _ragged(rows: Sequence[Any]) -> str:
    if not rows:
        return "no rows"
    sizes = [None if row is None or np.ndim(row) != 1 else len(row) for row in rows]
    row = next((row for row, size in enumerate(sizes) if not size or size != sizes[0]), 0)
    if not sizes[row]:
        return f"row {row} is not a list of numbers"
    return f"row {row} has {sizes[row]} numbers, row 0 has {sizes[0]}"
