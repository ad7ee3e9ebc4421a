"""The store that fits a client."""

from __future__ import annotations

import redis

from streamer.stores.client import RedisClient
from streamer.stores.cluster_store import ClusterStore
from streamer.stores.redis_store import DEFAULT_SUMS_DAYS, RedisStore


def open_store(
    client: RedisClient,
    group_id: str,
    *,
    tombstone_days: float,
    expire_after_days: float = 0.0,
    sums_days: float = DEFAULT_SUMS_DAYS,
) -> RedisStore | ClusterStore:
    """Return the store on a client's Redis; nothing is sent yet.

    Args:
        client: From `connect`.
        group_id: The consumer group whose marks and freshness these are.
        tombstone_days: How long a forgotten user's marker stays.
        expire_after_days: Drop users after this inactivity; 0 keeps them.
        sums_days: How long an experiment's sums stay after the last write to them.
    """
    days = {
        "tombstone_days": tombstone_days,
        "expire_after_days": expire_after_days,
        "sums_days": sums_days,
    }
    if isinstance(client, redis.Redis):
        return RedisStore(client, group_id, **days)
    return ClusterStore(client, group_id, **days)
