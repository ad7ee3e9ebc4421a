"""NumPy's ``.npy`` files from strangers: the header is checked before any of the data is mapped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from streamer.errors import ModelError

_PICKLE_HEADS: Final = (b"\x80", b"(", b"]", b"}")
"""First byte of a pickle of protocol 2 and later, and the usual ones of protocol 0 and 1."""
_HEADER_READERS: Final = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}


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


def _map_array(
    path: Path, dtypes: tuple[str, ...], shape: tuple[int, ...]
) -> NDArray[np.floating[Any]]:
    with path.open("rb") as file:
        offset, found_shape, is_fortran, dtype = _read_header(file, path.name)
        size = os.fstat(file.fileno()).st_size
    if dtype.hasobject:
        raise ModelError(f"{path.name}: holds pickled objects, which could run any code; refused")
    if dtype not in [np.dtype(name).newbyteorder("<") for name in dtypes]:
        raise ModelError(f"{path.name}: dtype {dtype}, expected {' or '.join(dtypes)}")
    if found_shape != shape:
        raise ModelError(f"{path.name}: shape {found_shape}, the manifest says {shape}")
    expected_size = offset + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if size != expected_size:
        raise ModelError(f"{path.name}: {size} bytes, expected {expected_size}; cut short?")
    mapped = np.memmap(
        path, dtype, mode="r", offset=offset, shape=shape, order="F" if is_fortran else "C"
    )
    # The plain view keeps the mapping alive and is indexed several times faster than np.memmap.
    return mapped.view(np.ndarray)


def _read_header(file: BinaryIO, name: str) -> tuple[int, tuple[int, ...], bool, np.dtype[Any]]:
    """Return where the data begin, and what they are."""
    head = file.read(npy.MAGIC_LEN)
    if not head.startswith(npy.MAGIC_PREFIX):
        what = (
            "a pickle, which could run any code" if head.startswith(_PICKLE_HEADS) else "not .npy"
        )
        raise ModelError(f"{name}: {what}; refused")
    file.seek(0)
    try:
        # Version 3 is for structured dtypes alone, which no model has.
        read = _HEADER_READERS[npy.read_magic(file)]
        shape, is_fortran, dtype = read(file)
    except (KeyError, ValueError, TypeError, SyntaxError) as error:
        raise ModelError(f"{name}: broken .npy header") from error
    return file.tell(), shape, is_fortran, dtype
