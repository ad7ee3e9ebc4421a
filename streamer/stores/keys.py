"""The names of our keys in Redis: docs/reference/redis.md.

``{B}`` is a Redis Cluster hash tag: two hex digits of the user id's CRC-32, so all keys of a
bucket are in one slot and nothing in a user id can move a key.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from zlib import crc32

from streamer.experiments import Book
from streamer.pipeline.records import Partition

N_BUCKETS: Final = 256
_BUCKETS: Final = tuple(f"{number:02x}" for number in range(N_BUCKETS))

HISTORIES_OF_BUCKET: Final = tuple(f"st:h:{{{bucket}}}:" for bucket in _BUCKETS)
"""Before a user's id."""
FEATURES_OF_BUCKET: Final = tuple(f"st:f:{{{bucket}}}:" for bucket in _BUCKETS)
"""Before ``VARIANT:USER``."""
MARKS_OF_BUCKET: Final = tuple(f"st:mark:{{{bucket}}}" for bucket in _BUCKETS)
"""Each shard of a cluster forgets by itself, and buckets move between shards: each has marks."""
MARKS: Final = MARKS_OF_BUCKET[0]
"""A standalone Redis is one replication stream, so one bucket's marks vouch for all."""
FRESH: Final = "st:fresh"
VARIANTS: Final = "st:variants"

SEQUENCES_OF_BUCKET: Final = tuple(f"st:seq:{{{bucket}}}:" for bucket in _BUCKETS)
"""Before a writer's id: the number of its last acknowledged write into this bucket's shard."""
SEQUENCES: Final = SEQUENCES_OF_BUCKET[0]
SUMS_OF_BUCKET: Final = tuple(f"st:sum:{{{bucket}}}:" for bucket in _BUCKETS)
"""Before ``EXPERIMENT:START_S``: beside the histories that they sum over, in the same slot."""


def bucket_number(user_id: str) -> int:
    """Return the user's bucket, 0 to 255."""
    return crc32(user_id.encode()) & 0xFF


def bucket(user_id: str) -> str:
    """Return the user's bucket, two lowercase hex digits."""
    return _BUCKETS[bucket_number(user_id)]


def history_key(user_id: str) -> str:
    """Return the key of the user's history."""
    return HISTORIES_OF_BUCKET[bucket_number(user_id)] + user_id


def features_key(variant: str, user_id: str) -> str:
    """Return the key of the user's features of one variant."""
    return f"{FEATURES_OF_BUCKET[bucket_number(user_id)]}{variant}:{user_id}"


def imported_key(variant: str, user_id: str) -> str:
    """Return the key of the user's imported long-term vector of one variant."""
    return f"st:u:{{{bucket(user_id)}}}:{variant}:{user_id}"


def sweep_key(variant: str) -> str:
    """Return the key of the hash that says where a variant's sweep stands."""
    return f"st:sweep:{variant}"


@lru_cache(maxsize=64 * N_BUCKETS)  # a worker asks for the same ones all the time
def sums_key(bucket: int, book: Book) -> str:
    """Return the key of an experiment's sums over the users of a bucket, 0 to 255."""
    return f"{SUMS_OF_BUCKET[bucket]}{book.experiment}:{book.start_ms // 1000}"


def forgettable_keys(user_id: str, variants: Iterable[str]) -> list[str]:
    """Return every key that a forgotten user loses: all but the history's, also what was set aside.

    Args:
        user_id: Who.
        variants: Every variant ever used.
    """
    keys = [features_key(variant, user_id) for variant in variants]
    keys += [imported_key(variant, user_id) for variant in variants]
    return [*keys, *map(quarantine_key, [history_key(user_id), *keys])]


def quarantine_key(key: str) -> str:
    """Return where a broken value of `key` is kept."""
    return f"st:q:{key.removeprefix('st:')}"


def partition_field(group_id: str, partition: Partition) -> str:
    """Return the field of a partition in the hashes of marks and of freshness."""
    return f"{group_id}/{partition.topic}/{partition.number}"
