"""NumPy's ``.npy`` files from strangers: the header is checked before any of the data is mapped."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from streamer.errors import ModelError

_PICKLE_HEADS: Final = (b"\x80", b"(", b"]", b"}")
"""First byte of a pickle of protocol 2 and later, and the usual ones of protocol 0 and 1."""
_LENGTH_BYTES: Final = {b"\1\0": 2, b"\2\0": 4}
"""Of the header's length. Version 3 is for structured dtypes alone, which no model has."""
_MAX_HEADER_BYTES: Final = 4096
"""Writers pad a plain array's header to a multiple of 64 bytes, a few to a page."""
_FIELD: Final = re.compile(
    r"""\s*(['"])(?P<name>descr|fortran_order|shape)\1\s*:\s*
    (?: (['"]) (?P<descr>[<>|=]?[A-Za-z?][0-9]{0,9}) \3
      | (?P<order>True|False)
      | \( (?P<shape>[0-9\s,]{0,80}) \) )\s*(?:,|$)""",
    re.VERBOSE | re.ASCII,
)
FLOATS: Final = ("float32", "float64", "float16")
_SIZES: Final = re.compile(r"(?:\s*[0-9]{1,18}\s*(?:,|$))*\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Header:
    """What stands before the data: where they begin, and what they are."""

    offset: int
    shape: tuple[int, ...]
    is_fortran: bool
    descr: str


def map_array(
    path: Path, dtypes: tuple[str, ...], shape: tuple[int, ...]
) -> NDArray[np.floating[Any]]:
    """Map an array read-only; its pages are shared between the processes that map it.

    The mapping ends with the last array that looks at it. The file must not be changed meanwhile.

    Args:
        path: An ``.npy`` file.
        dtypes: Names of the dtypes to accept, little-endian.
        shape: The only shape to accept.

    Raises:
        ModelError: Not such a file, or not such an array.
    """
    try:
        return _map_array(path, dtypes, shape)
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read: {error.strerror}") from error


def map_table(path: Path, n_dimensions: int = 2) -> NDArray[np.floating[Any]]:
    """Map an array of floats of any shape read-only, as `map_array`.

    Raises:
        ModelError: Not such a file, or not floats, or of another number of dimensions.
    """
    try:
        with path.open("rb") as file:
            header = _read_header(file, path.name)
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read: {error.strerror}") from error
    if len(header.shape) != n_dimensions:
        raise ModelError(
            f"{path.name}: shape {header.shape}, expected {n_dimensions} dimension"
            f"{'s' if n_dimensions > 1 else ''}"
        )
    return map_array(path, FLOATS, header.shape)


def read_array(file: BinaryIO, name: str, n_bytes: int) -> NDArray[Any]:
    """Read an array of numbers or of text into memory, header and all.

    Args:
        file: At the beginning of an ``.npy`` file, such as a member of an ``.npz``.
        name: For messages.
        n_bytes: Of the whole file.

    Raises:
        ModelError: Not such a file, or its content is not of the size that its header says.
    """
    header = _read_header(file, name)
    dtype = _plain_dtype(header, name)
    if dtype is None or dtype.kind not in "fiubU":
        raise ModelError(f"{name}: dtype {header.descr}, expected numbers")
    expected = dtype.itemsize * math.prod(header.shape)
    content = file.read(expected + 1) if header.offset + expected == n_bytes else b""
    if len(content) != expected:
        raise ModelError(
            f"{name}: {n_bytes} bytes, expected {header.offset + expected}; cut short?"
        )
    order: Literal["F", "C"] = "F" if header.is_fortran else "C"
    return np.frombuffer(content, dtype).reshape(header.shape, order=order)


def _plain_dtype(header: _Header, name: str) -> np.dtype[Any] | None:
    if header.descr.lstrip("|=<>").startswith("O"):
        raise ModelError(f"{name}: holds pickled objects, which could run any code; refused")
    return _dtype(header.descr)


def _map_array(
    path: Path, dtypes: tuple[str, ...], shape: tuple[int, ...]
) -> NDArray[np.floating[Any]]:
    with path.open("rb") as file:
        header = _read_header(file, path.name)
        size = os.fstat(file.fileno()).st_size
    dtype = _plain_dtype(header, path.name)
    # NumPy takes None for float64 when it compares dtypes.
    if dtype is None or dtype not in [np.dtype(name).newbyteorder("<") for name in dtypes]:
        shown = header.descr if dtype is None else dtype
        raise ModelError(f"{path.name}: dtype {shown}, expected {' or '.join(dtypes)}")
    if header.shape != shape:
        raise ModelError(f"{path.name}: shape {header.shape}, the manifest says {shape}")
    expected_size = header.offset + dtype.itemsize * math.prod(shape)
    if size != expected_size:
        raise ModelError(f"{path.name}: {size} bytes, expected {expected_size}; cut short?")
    order: Literal["F", "C"] = "F" if header.is_fortran else "C"
    mapped = np.memmap(path, dtype, mode="r", offset=header.offset, shape=shape, order=order)
    # The plain view keeps the mapping alive and is indexed several times faster than np.memmap.
    return mapped.view(np.ndarray)


def _dtype(descr: str) -> np.dtype[Any] | None:
    try:
        return np.dtype(descr)
    except (TypeError, ValueError):
        return None


def _read_header(file: BinaryIO, name: str) -> _Header:
    """Read the header of format 1 or 2, a Python literal, without evaluating it.

    NumPy's own reader takes any length, any nesting and the headers of Python 2, and raises
    whatever Python's parser and tokenizer may raise.
    """
    head = file.read(npy.MAGIC_LEN)
    if not head.startswith(npy.MAGIC_PREFIX):
        what = (
            "a pickle, which could run any code" if head.startswith(_PICKLE_HEADS) else "not .npy"
        )
        raise ModelError(f"{name}: {what}; refused")
    n_length_bytes = _LENGTH_BYTES.get(head[-2:], 0)
    length = int.from_bytes(file.read(n_length_bytes), "little")
    text = file.read(length).decode("latin-1") if length <= _MAX_HEADER_BYTES else ""
    fields = _fields(text.strip()) if len(text) == length else None
    if not fields:
        raise ModelError(f"{name}: broken .npy header")
    return _Header(
        offset=file.tell(),
        shape=tuple(int(size) for size in fields["shape"].split(",") if size.strip()),
        is_fortran=fields["fortran_order"] == "True",
        descr=fields["descr"],
    )


def _fields(text: str) -> dict[str, str] | None:
    """Return the three fields of a header of a plain array, or None if it is none."""
    if not (text.startswith("{") and text.endswith("}")):
        return None
    fields: dict[str, str] = {}
    body, position = text[1:-1].rstrip(), 0
    while position < len(body):
        found = _FIELD.match(body, position)
        if found is None:
            return None
        value = {
            "descr": found["descr"],
            "fortran_order": found["order"],
            "shape": found["shape"],
        }[found["name"]]
        if value is None:
            return None
        fields[found["name"]] = value
        position = found.end()
    if len(fields) != 3 or not _SIZES.fullmatch(fields["shape"]):
        return None
    return fields
