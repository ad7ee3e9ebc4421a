"""Where a bucket of users is in a Redis Cluster."""

from __future__ import annotations

from binascii import crc_hqx
from typing import Final

from streamer.stores.keys import N_BUCKETS

N_SLOTS: Final = 16_384


def slot_of_tag(tag: str) -> int:
    """Return the slot of all keys with this hash tag: CRC-16/XMODEM, as the cluster has it."""
    return crc_hqx(tag.encode(), 0) % N_SLOTS


SLOTS: Final = tuple(slot_of_tag(f"{bucket:02x}") for bucket in range(N_BUCKETS))
"""The slot of each bucket."""
_SLOT_OF_BUCKET: Final = {f"{bucket:02x}": slot for bucket, slot in enumerate(SLOTS)}


def slot_of(key: str) -> int:
    """Return the slot of a key that has a bucket for its hash tag."""
    return _SLOT_OF_BUCKET[key.partition("{")[2][:2]]
