"""Importing item factors of any trainer: arrays, ``.npy`` files, and data frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ModelError
from streamer.models.arrays import map_table
from streamer.models.imported import (
    ImportedModel,
    ImportOptions,
    Source,
    assemble,
)
from streamer.models.tables import Column, OnRows, ids_of, matrix_of, open_parquet

COLUMN: Final = Column("item_id", "factors")


def import_arrays(
    item_factors: NDArray[Any] | Path | str,
    item_ids: Sequence[object],
    options: ImportOptions,
) -> ImportedModel:
    """Make a matrix of item factors a model.

    Args:
        item_factors: Floats, shape (n_items, n_factors); or the path of an ``.npy`` file of them.
        item_ids: Of the rows.
        options: Must say α and λ, since nothing else does.

    Raises:
        ModelError: Not such a matrix, or `assemble` refuses it.
    """
    if isinstance(item_factors, str | Path):
        path = Path(item_factors)
        try:
            factors: NDArray[Any] = map_table(path)
        except ModelError as error:
            raise ModelError(f"{path.parent}: {error}") from error
    else:
        factors = np.asarray(item_factors)
    missing = "a matrix does not say it"
    return assemble(Source("npy", item_ids, factors, missing=missing), options)


def import_frame(
    frame: Any,  # noqa: ANN401  any library's
    options: ImportOptions,
    column: Column = COLUMN,
    popularity: str | None = None,
) -> ImportedModel:
    """Make a data frame of pandas, Polars or Arrow a model, one item a row.

    Args:
        frame: With a column of ids, and vectors as `Column` says.
        options: Must say α and λ.
        column: Which columns.
        popularity: A column of numbers; None takes that of `options`.

    Raises:
        ModelError: A column is missing or holds something else, or `assemble` refuses it.
    """
    if popularity is not None:
        options = replace(options, popularity=_numbers(ids_of(frame, popularity), popularity))
    source = Source(
        name="dataframe",
        item_ids=ids_of(frame, column.ids),
        item_factors=matrix_of(frame, column.vectors),
        missing="a data frame does not say it",
    )
    return assemble(source, options)


def import_parquet(
    path: Path | str,
    options: ImportOptions,
    column: Column = COLUMN,
    popularity: str | None = None,
    on_rows: OnRows = lambda _done, _of: None,
) -> ImportedModel:
    """Make a Parquet file of a data frame, or a folder of such files, a model.

    Raises:
        ConfigError: `pyarrow` is not installed.
        ModelError: As `import_frame`, or not such a file.
    """
    wanted = (column.ids,) if popularity is None else (column.ids, popularity)
    n_rows, batches = open_parquet(Path(path), wanted)
    found = []
    for batch in batches:
        found.append(batch)
        on_rows(sum(each.num_rows for each in found), n_rows)
    if not found:
        raise ModelError(f"{path}: no rows")
    from pyarrow import Table  # noqa: PLC0415  is there by now

    return import_frame(Table.from_batches(found), options, column, popularity)


def _numbers(values: Sequence[object], name: str) -> NDArray[np.float64]:
    try:
        return np.array([np.nan if value is None else value for value in values], np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"column {name!r}: expected numbers") from error
