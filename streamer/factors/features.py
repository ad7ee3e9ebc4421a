"""Features as bytes: what readers get, docs/reference/redis.md byte by byte.

A 64-byte header, then `n_vectors` vectors row by row (`recent`, then `lasting`), f32 or f16; all
little-endian. Features say which model and which history they came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from streamer.factors.learner import UserFactors

MAGIC: Final = b"SF"
FORMAT_VERSION: Final = 1
HEADER: Final = np.dtype(
    [
        ("magic", "S2"),
        ("version", "u1"),
        ("dtype", "u1"),
        ("n_vectors", "u1"),
        ("reserved", "u1"),
        ("n_factors", "<u2"),
        ("model_id", "<u8"),
        ("history_digest", "<u8"),
        ("generation", "<u4"),
        ("learner_id", "<u4"),
        ("as_of_ms", "<u8"),
        ("written_ms", "<u8"),
        ("n_interactions", "<u2"),
        ("n_solved", "<u2"),
        ("reserved2", "V12"),
    ]
)
assert HEADER.itemsize == 64
MAX_STORED_ERROR: Final = 1e-3
"""‖Δ‖ / ‖u‖ by storing; what is promised of a vector read back."""


class FeatureDtype(IntEnum):
    """How the vectors of a value are stored; the number is part of the format."""

    F32 = 1
    F16 = 2

    @property
    def numpy(self) -> np.dtype[np.floating]:
        """The little-endian NumPy dtype."""
        return np.dtype("<f4" if self is FeatureDtype.F32 else "<f2")


@dataclass(frozen=True, slots=True)
class Stamp:
    """What all features of one write have in common.

    Attributes:
        model_id: 64-bit id of the item model.
        generation: Raised by every publish and roll-back; 0 to 2**32 - 1.
        learner_id: CRC-32 of the learner's name.
        dtype: How to store the vectors.
        written_ms: Epoch milliseconds.
    """

    model_id: int
    generation: int
    learner_id: int
    dtype: FeatureDtype
    written_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """One user's features, read back.

    Attributes:
        model_id: 64-bit id of the item model that the vectors belong to.
        history_digest: Digest of the history they were folded in from.
        generation: Generation of the model pointer at the time.
        learner_id: CRC-32 of the learner's name.
        as_of_ms: Newest event time in the history, epoch milliseconds.
        written_ms: When they were written, epoch milliseconds.
        n_interactions: Entries in the history.
        n_solved: Known entries with target 1; 0 is a cold user with zero vectors.
        vectors: float32, shape (n_vectors, n_factors); `recent`, then `lasting`.
    """

    model_id: int
    history_digest: int
    generation: int
    learner_id: int
    as_of_ms: int
    written_ms: int
    n_interactions: int
    n_solved: int
    vectors: NDArray[np.float32]


def learner_id(name: str) -> int:
    """Return the number that features carry for a learner: the CRC-32 of its name."""
    return crc32(name.encode())


def encode_features(
    factors: UserFactors,
    history_digests: NDArray[np.uint64],
    as_of_ms: NDArray[np.int64],
    n_interactions: NDArray[np.int64],
    stamp: Stamp,
) -> tuple[list[bytes], NDArray[np.bool_]]:
    """Return each user's bytes, and which users must not be published.

    Args:
        factors: n_users rows.
        history_digests: uint64, shape (n_users,).
        as_of_ms: Newest event time of each history, shape (n_users,).
        n_interactions: Entries of each history, shape (n_users,).
        stamp: What they have in common.

    Returns:
        n_users values, float32 where float16 cannot hold a row within MAX_STORED_ERROR; bool,
        shape (n_users,), true where the learner rejected the row or it is not finite.
    """
    n_users, n_vectors, n_factors = factors.vectors.shape
    headers = np.zeros(n_users, HEADER)
    headers["magic"] = MAGIC
    headers["version"] = FORMAT_VERSION
    headers["dtype"] = stamp.dtype
    headers["n_vectors"] = n_vectors
    headers["n_factors"] = n_factors
    headers["model_id"] = stamp.model_id
    headers["history_digest"] = history_digests
    headers["generation"] = stamp.generation
    headers["learner_id"] = stamp.learner_id
    headers["as_of_ms"] = as_of_ms
    headers["written_ms"] = stamp.written_ms
    headers["n_interactions"] = n_interactions
    headers["n_solved"] = factors.n_solved
    is_finite = np.isfinite(factors.vectors).all(axis=(1, 2))
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is rejected
        stored = factors.vectors.astype(stamp.dtype.numpy)
        exact = factors.vectors.astype(np.float64)
        error = np.linalg.norm(stored.astype(np.float64) - exact, axis=2)
        is_near = (error <= MAX_STORED_ERROR * np.linalg.norm(exact, axis=2)).all(axis=1)
    values = _pack(headers, stored)
    wide = np.flatnonzero(is_finite & ~is_near)
    wide_headers = headers[wide]
    wide_headers["dtype"] = FeatureDtype.F32
    wide_vectors = factors.vectors[wide].astype(FeatureDtype.F32.numpy)
    for row, value in zip(wide.tolist(), _pack(wide_headers, wide_vectors), strict=True):
        values[row] = value
    return values, factors.is_rejected | ~is_finite


def _pack(headers: NDArray[np.void], vectors: NDArray[np.floating]) -> list[bytes]:
    """Return each row's header and vectors as one value."""
    n_users, n_vectors, n_factors = vectors.shape
    table = np.hstack(
        [
            headers.view(np.uint8).reshape(n_users, HEADER.itemsize),
            vectors.view(np.uint8).reshape(n_users, n_vectors * n_factors * vectors.itemsize),
        ]
    )
    packed, size = table.tobytes(), table.shape[1]
    return [packed[start : start + size] for start in range(0, len(packed), size)]


def decode_features(blob: bytes) -> Features | None:
    """Read one value back; None if it is broken or of an unknown version."""
    if len(blob) < HEADER.itemsize:
        return None
    header = np.frombuffer(blob, HEADER, 1)[0]
    if header["magic"] != MAGIC or header["version"] != FORMAT_VERSION:
        return None
    if header["dtype"] not in tuple(FeatureDtype):
        return None
    dtype = FeatureDtype(int(header["dtype"])).numpy
    shape = (int(header["n_vectors"]), int(header["n_factors"]))
    if 0 in shape or len(blob) != HEADER.itemsize + shape[0] * shape[1] * dtype.itemsize:
        return None
    vectors = np.frombuffer(blob, dtype, offset=HEADER.itemsize).reshape(shape).astype(np.float32)
    if not np.isfinite(vectors).all():
        return None
    numbers = {
        name: int(header[name])
        for name in (
            "model_id",
            "history_digest",
            "generation",
            "learner_id",
            "as_of_ms",
            "written_ms",
            "n_interactions",
            "n_solved",
        )
    }
    return Features(**numbers, vectors=vectors)


def decode_many_features(blobs: Sequence[bytes | None]) -> list[Features | None]:
    """Read many values back, None where a value is absent or broken."""
    return [None if blob is None else decode_features(blob) for blob in blobs]
