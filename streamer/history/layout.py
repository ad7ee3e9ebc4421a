"""The constants of history format version 1: kinds, groups, capacities, and the packed word.

A history keeps, for each *group* of kinds, its newest entries. Groups depend on the kind alone,
which is part of an entry's key, and are no configuration: the cut commutes with the merge only
because every writer cuts alike.

An entry is two unsigned 64-bit numbers: ``item_key``, and a ``word`` that packs
``event_time_ms << 16 | value << 8 | kind``. Comparing (word, item_key) as numbers *is* the total
order (event_time_ms, value, kind, item_key).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.events import Kind

FORMAT_VERSION: Final = 1
MAX_EVENT_TIME_MS: Final = (1 << 48) - 1


GROUPS: Final[tuple[tuple[frozenset[Kind], int], ...]] = (
    (frozenset({Kind.PLAY, Kind.BRIEF_PLAY}), 30),
    (frozenset({Kind.THUMB}), 10),
    (frozenset({Kind.MY_LIST}), 5),
    (frozenset({Kind.DETAIL_VIEW, Kind.TRAILER_VIEW}), 10),
)
N_SLOTS: Final = sum(capacity for _, capacity in GROUPS)
CAPACITIES: Final = np.array([capacity for _, capacity in GROUPS], dtype=np.int64)

NO_GROUP: Final = len(GROUPS)
"""Group number of a byte that is no kind."""

GROUP_OF_KIND: Final = np.full(256, NO_GROUP, dtype=np.uint8)
for _number, (_kinds, _) in enumerate(GROUPS):
    GROUP_OF_KIND[list(_kinds)] = _number


def item_key(item_id: str) -> int:
    """Return the 64-bit key of an item id: blake2b of its UTF-8, 8-byte digest, little-endian."""
    return int.from_bytes(blake2b(item_id.encode(), digest_size=8).digest(), "little")


def item_keys(item_ids: Iterable[str]) -> NDArray[np.uint64]:
    """Return the key of each item id, uint64, shape (n_items,)."""
    digests = [blake2b(item_id.encode(), digest_size=8).digest() for item_id in item_ids]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def pack_word(event_time_ms: int, value: int, kind: Kind) -> int:
    """Pack one entry's order into a number; 0 <= event_time_ms < 2**48, 0 <= value < 256."""
    assert 0 <= event_time_ms <= MAX_EVENT_TIME_MS, event_time_ms
    assert 0 <= value <= 255, value
    return event_time_ms << 16 | value << 8 | kind


def pack_words(
    event_times_ms: NDArray[np.uint64], values_and_kinds: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Pack many: times below 2**48, and ``value << 8 | kind`` of each, same shapes."""
    return event_times_ms << np.uint64(16) | values_and_kinds


def kinds(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return the kind of each word, same shape; 0 in an empty slot."""
    return (words & np.uint64(0xFF)).astype(np.uint8)


def values(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return the value of each word, same shape."""
    return (words >> np.uint64(8) & np.uint64(0xFF)).astype(np.uint8)


def event_times_ms(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the event time of each word, in epoch milliseconds, same shape; 0 if empty."""
    return (words >> np.uint64(16)).astype(np.int64)
