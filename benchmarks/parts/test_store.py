"""500 users on a real Redis, as the worker writes and reads them; the server's side is included."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import redis

from benchmarks.parts.conftest import N_USERS, NOW_MS, Timed, histories_of
from benchmarks.workload import user_id
from streamer.factors import FeatureDtype, ItemModel, RecencyFoldIn, Stamp, encode_features
from streamer.history import digests, encode
from streamer.pipeline.step import UserWrites
from streamer.stores.redis_store import RedisStore

USERS = [user_id(number) for number in range(N_USERS)]


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    """An empty store."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield RedisStore(client, "parts", tombstone_days=1)


@pytest.fixture(scope="module")
def writes(model: ItemModel) -> UserWrites:
    """Histories of 20 entries and both vectors; what is stored already is expected, too."""
    histories = histories_of(model, 20)
    stamp = Stamp(1, 1, 1, FeatureDtype.F16, NOW_MS)
    features, _ = encode_features(
        RecencyFoldIn()(histories, model),
        digests(histories),
        np.full(N_USERS, NOW_MS),
        histories.counts,
        stamp,
    )
    nobody = np.zeros(N_USERS, bool)
    blobs = encode(histories, digests(histories))
    return UserWrites(
        USERS, digests(histories), blobs, {"default": features}, {"default": 1}, nobody, nobody
    )


def fill(store: RedisStore, writes: UserWrites) -> None:
    """Write everybody once, whatever is stored."""
    absent = np.zeros_like(writes.expected_digests)
    store.write(
        UserWrites(
            writes.user_ids,
            absent,
            writes.histories,
            writes.features,
            writes.generations,
            writes.is_forgotten,
            writes.is_tombstone,
        )
    )


def test_write_500_users(timed: Timed, store: RedisStore, writes: UserWrites) -> None:
    fill(store, writes)
    outcome = timed(lambda: store.write(writes), N_USERS, "user")
    assert not outcome.conflicts


def test_read_500_users(timed: Timed, store: RedisStore, writes: UserWrites) -> None:
    fill(store, writes)
    values = timed(lambda: store.read_histories(USERS), N_USERS, "user")
    assert values == list(writes.histories)
