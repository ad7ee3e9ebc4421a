"""Imported long-term vectors as bytes: docs/reference/redis.md byte by byte.

A 32-byte header, then one vector, f32 or f16; all little-endian. A vector says which item model it
belongs to: it must never be multiplied with the items of another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.factors.features import MAX_STORED_ERROR, FeatureDtype

MAGIC: Final = b"SU"
FORMAT_VERSION: Final = 1
HEADER: Final = np.dtype(
    [
        ("magic", "S2"),
        ("version", "u1"),
        ("dtype", "u1"),
        ("n_factors", "<u2"),
        ("reserved", "<u2"),
        ("model_id", "<u8"),
        ("trained_through_ms", "<u8"),
        ("written_ms", "<u8"),
    ]
)
assert HEADER.itemsize == 32
_RAW: Final = np.dtype((np.void, HEADER.itemsize))


@dataclass(frozen=True, slots=True)
class ImportStamp:
    """What all vectors of one import have in common.

    Attributes:
        model_id: 64-bit id of the item model whose space they are in.
        trained_through_ms: Newest event time that they were trained on; 0 for unknown.
        dtype: How to store them.
        written_ms: Epoch milliseconds.
    """

    model_id: int
    trained_through_ms: int
    dtype: FeatureDtype
    written_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class ImportedTable:
    """Imported vectors of n_users users, read back.

    Attributes:
        headers: dtype `HEADER`, shape (n_users,); zeros where there is no sound value.
        vectors: Per user float32, shape (n_factors,), read-only; None where there is none.
        is_broken: bool, shape (n_users,); there is a value, but not a sound one.
    """

    headers: NDArray[np.void]
    vectors: list[NDArray[np.float32] | None]
    is_broken: NDArray[np.bool_]


def encode_imported(vectors: NDArray[np.float32], stamp: ImportStamp) -> list[bytes]:
    """Return each user's bytes.

    Args:
        vectors: Finite, shape (n_users, n_factors).
        stamp: What they have in common.

    Returns:
        n_users values; f32 where f16 cannot hold a row within MAX_STORED_ERROR of its length.
    """
    assert np.isfinite(vectors).all()
    exact = vectors.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what f16 cannot hold is not near
        stored = vectors.astype(stamp.dtype.numpy)
        error = np.linalg.norm(stored.astype(np.float64) - exact, axis=1)
        is_near = error <= MAX_STORED_ERROR * np.linalg.norm(exact, axis=1)
    values = _pack(stored, stamp, stamp.dtype)
    wide = np.flatnonzero(~is_near)
    packed = _pack(vectors[wide].astype(FeatureDtype.F32.numpy), stamp, FeatureDtype.F32)
    for row, value in zip(wide.tolist(), packed, strict=True):
        values[row] = value
    return values


def decode_imported(blobs: Sequence[bytes | None]) -> ImportedTable:
    """Read the vectors of many users; hostile bytes are safe."""
    n_users = len(blobs)
    headers = np.zeros(n_users, HEADER)
    vectors: list[NDArray[np.float32] | None] = [None] * n_users
    lengths = np.array([-1 if blob is None else len(blob) for blob in blobs], np.int64)
    is_broken = lengths >= 0
    for length in np.unique(lengths[lengths > HEADER.itemsize]).tolist():
        users = np.flatnonzero(lengths == length)
        joined = b"".join([blobs[user] for user in users.tolist()])  # type: ignore[misc]
        table = np.frombuffer(joined, np.uint8).reshape(len(users), length)
        found = np.ascontiguousarray(table[:, : HEADER.itemsize]).view(HEADER).reshape(-1)
        bodies = table[:, HEADER.itemsize :]
        is_known = (found["magic"] == MAGIC) & (found["version"] == FORMAT_VERSION)
        for dtype in FeatureDtype:
            n_bytes = found["n_factors"].astype(np.int64) * dtype.numpy.itemsize
            rows = np.flatnonzero(
                is_known & (found["dtype"] == dtype) & (n_bytes == bodies.shape[1])
            )
            if len(rows) == 0:
                continue
            numbers = np.ascontiguousarray(bodies[rows]).view(dtype.numpy).astype(np.float32)
            finite = np.isfinite(numbers).all(axis=1)
            rows, numbers = rows[finite], numbers[finite]
            numbers.flags.writeable = False
            headers.view(_RAW)[users[rows]] = found.view(_RAW)[rows]
            is_broken[users[rows]] = False
            for user, vector in zip(users[rows].tolist(), numbers, strict=True):
                vectors[user] = vector
    return ImportedTable(headers, vectors, is_broken)


def _pack(vectors: NDArray[np.floating], stamp: ImportStamp, dtype: FeatureDtype) -> list[bytes]:
    n_users, n_factors = vectors.shape
    headers = np.zeros(n_users, HEADER)
    headers["magic"] = MAGIC
    headers["version"] = FORMAT_VERSION
    headers["dtype"] = dtype
    headers["n_factors"] = n_factors
    headers["model_id"] = stamp.model_id
    headers["trained_through_ms"] = stamp.trained_through_ms
    headers["written_ms"] = stamp.written_ms
    raw = headers.view(np.uint8).reshape(n_users, HEADER.itemsize)
    body = np.ascontiguousarray(vectors).view(np.uint8)
    table = np.hstack([raw, body.reshape(n_users, n_factors * vectors.itemsize)])
    packed, size = table.tobytes(), table.shape[1]
    return [packed[start : start + size] for start in range(0, len(packed), size)]
