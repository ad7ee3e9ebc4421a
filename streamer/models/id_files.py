"""Ids, and numbers by id, from the files that people have: JSON, text, ``.npy``, Parquet."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from numpy.typing import NDArray

from streamer.errors import ModelError
from streamer.models.arrays import read_array
from streamer.models.tables import ids_of, open_parquet


def read_ids(path: Path, column: str = "item_id") -> list[object]:
    """Return ids in the order of the file, as strings or integers; nothing else is checked.

    Args:
        path: ``.json``, an array; ``.npy``, an array of integers or text; ``.parquet`` or a folder,
            a column; anything else is text, an id a line.
        column: Of Parquet.

    Raises:
        ConfigError: Parquet without `pyarrow`.
        ModelError: The file is not what its name says, or cannot be read.
    """
    if path.is_dir() or path.suffix == ".parquet":
        _, batches = open_parquet(path, (column,))
        return [each for batch in batches for each in ids_of(batch, column)]
    if path.suffix == ".npy":
        found = _array(path)
        if found.ndim != 1 or found.dtype.kind not in "iuU":
            raise ModelError(f"{path}: {found.dtype} of shape {found.shape}; expected one of ids")
        return list(found.tolist())
    content = _read(path)
    if path.suffix == ".json":
        ids = _json(path, content)
        if not isinstance(ids, list):
            raise ModelError(f"{path}: not an array of ids")
        return ids
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not text in UTF-8") from error
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_popularity(path: Path) -> NDArray[Any] | Mapping[str, float] | list[float]:
    """Return popularity: in row order from ``.npy`` or an array of JSON, by id from an object.

    Raises:
        ModelError: Not such a file.
    """
    if path.suffix == ".npy":
        numbers = _array(path)
        if numbers.dtype.kind not in "fiu":
            raise ModelError(f"{path}: dtype {numbers.dtype}, expected numbers")
        return numbers
    found = _json(path, _read(path))
    values: Sequence[object] = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(found, dict | list) or not all(map(_is_number, values)):
        raise ModelError(f"{path}: expected an array of numbers, or an object of numbers by id")
    return found


def _array(path: Path) -> NDArray[Any]:
    with _opened(path) as file:
        try:
            return read_array(file, path.name, os.fstat(file.fileno()).st_size)
        except ModelError as error:
            raise ModelError(f"{path.parent}: {error}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _opened(path: Path) -> Any:  # noqa: ANN401  a file
    try:
        return path.open("rb")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def _read(path: Path) -> bytes:
    with _opened(path) as file:
        content: bytes = file.read()
    return content


def _json(path: Path, content: bytes) -> Any:  # noqa: ANN401  whatever is in it
    loads: Callable[[bytes], Any] = orjson.loads
    try:
        return loads(content)
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
