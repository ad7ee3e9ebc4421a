"""Histories as bytes: docs/reference/redis.md, byte by byte.

``"SH" | version u8 | reserved u8 | count u16 | reserved u16 | digest u64 | forgotten_before_ms
u64``, then `count` entries of ``item_key u64 | word u64``, newest first; all little-endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.history.batch import HistoryBatch
from streamer.history.digest import ABSENT_DIGEST, digests
from streamer.history.layout import (
    CAPACITIES,
    FORMAT_VERSION,
    GROUP_OF_KIND,
    N_SLOTS,
    NO_GROUP,
    kinds,
)

MAGIC: Final = b"SH"
HEADER: Final = np.dtype(
    [
        ("magic", "S2"),
        ("version", "u1"),
        ("reserved", "u1"),
        ("count", "<u2"),
        ("reserved2", "<u2"),
        ("digest", "<u8"),
        ("forgotten_before_ms", "<u8"),
    ]
)
ENTRY: Final = np.dtype([("item_key", "<u8"), ("word", "<u8")])
assert HEADER.itemsize == 24
assert ENTRY.itemsize == 16
MAX_BYTES: Final = HEADER.itemsize + N_SLOTS * ENTRY.itemsize


def encode(histories: HistoryBatch, history_digests: NDArray[np.uint64]) -> list[bytes]:
    """Return each history's bytes; `history_digests` are theirs, uint64, shape (n_users,)."""
    n_users = len(histories)
    headers = np.zeros(n_users, HEADER)
    headers["magic"] = MAGIC
    headers["version"] = FORMAT_VERSION
    headers["count"] = histories.counts
    headers["digest"] = history_digests
    headers["forgotten_before_ms"] = histories.forgotten_before_ms
    entries = np.empty((n_users, N_SLOTS), ENTRY)
    entries["item_key"] = histories.item_keys
    entries["word"] = histories.words
    table = np.empty((n_users, MAX_BYTES), np.uint8)
    table[:, : HEADER.itemsize] = headers.view(np.uint8).reshape(n_users, HEADER.itemsize)
    table[:, HEADER.itemsize :] = entries.view(np.uint8).reshape(n_users, N_SLOTS * ENTRY.itemsize)
    packed = table.tobytes()
    ends = HEADER.itemsize + ENTRY.itemsize * histories.counts
    return [
        packed[start : start + length]
        for start, length in zip(range(0, len(packed), MAX_BYTES), ends.tolist(), strict=True)
    ]


def decode(
    blobs: Sequence[bytes | None],
) -> tuple[HistoryBatch, NDArray[np.uint64], NDArray[np.bool_]]:
    """Read histories back; hostile bytes are safe.

    Args:
        blobs: One value of Redis per user; None where there is none.

    Returns:
        The histories; their digests, uint64, shape (n_users,), ABSENT_DIGEST for None; and which
        values are broken or of an unknown version, bool, shape (n_users,). A broken value reads
        as an empty history with ABSENT_DIGEST.
    """
    n_users = len(blobs)
    histories = HistoryBatch.empty(n_users)
    lengths = np.fromiter(
        (len(blob) if blob is not None else -1 for blob in blobs), np.int64, n_users
    )
    has_shape = (lengths >= HEADER.itemsize) & (lengths <= MAX_BYTES)
    has_shape &= (lengths - HEADER.itemsize) % ENTRY.itemsize == 0
    shaped = np.flatnonzero(has_shape)
    table = np.frombuffer(
        b"".join(blobs[row].ljust(MAX_BYTES, b"\0") for row in shaped.tolist()),  # type: ignore[union-attr]
        np.uint8,
    ).reshape(len(shaped), MAX_BYTES)
    headers = np.ascontiguousarray(table[:, : HEADER.itemsize]).view(HEADER).reshape(-1)
    entries = np.ascontiguousarray(table[:, HEADER.itemsize :]).view(ENTRY).reshape(-1, N_SLOTS)
    counts = (lengths[shaped] - HEADER.itemsize) // ENTRY.itemsize
    candidates = HistoryBatch(
        item_keys=entries["item_key"].astype(np.uint64),
        words=entries["word"].astype(np.uint64),
        counts=counts,
        forgotten_before_ms=headers["forgotten_before_ms"].astype(np.uint64),
    )
    is_whole = (
        (headers["magic"] == MAGIC)
        & (headers["version"] == FORMAT_VERSION)
        & (headers["count"] == counts)
        & (headers["digest"] == digests(candidates))
        & _is_in_form(candidates)
    )
    whole = shaped[is_whole]
    histories.put(whole, candidates.take(np.flatnonzero(is_whole)))
    found = np.full(n_users, ABSENT_DIGEST, np.uint64)
    found[whole] = headers["digest"][is_whole]
    is_broken = lengths >= 0
    is_broken[whole] = False
    return histories, found, is_broken


def _is_in_form(histories: HistoryBatch) -> NDArray[np.bool_]:
    """Say which rows are sorted, each key once, within their groups and not forgotten."""
    words, item_keys = histories.words, histories.item_keys
    is_used = np.arange(N_SLOTS) < histories.counts[:, None]
    groups = GROUP_OF_KIND[kinds(words)]
    newer, older = words[:, :-1], words[:, 1:]
    descends = (newer > older) | ((newer == older) & (item_keys[:, :-1] > item_keys[:, 1:]))
    fits = np.ones(len(histories), bool)
    for group, capacity in enumerate(CAPACITIES.tolist()):
        fits &= ((groups == group) & is_used).sum(axis=1) <= capacity
    alive = words >> np.uint64(16) > histories.forgotten_before_ms[:, None]
    order = np.lexsort((kinds(words), item_keys), axis=1)
    keys, key_kinds = (
        np.take_along_axis(item_keys, order, 1),
        np.take_along_axis(kinds(words), order, 1),
    )
    is_repeated = (keys[:, 1:] == keys[:, :-1]) & (key_kinds[:, 1:] == key_kinds[:, :-1])
    fits &= ~(is_repeated & (key_kinds[:, 1:] != 0)).any(axis=1)
    result: NDArray[np.bool_] = (
        fits
        & ((groups != NO_GROUP) & alive | ~is_used).all(axis=1)
        & (descends | ~is_used[:, 1:]).all(axis=1)
    )
    return result
