"""The forecast of `streamer plan` against the memory of a loaded Redis."""

import numpy as np
import pytest
import redis
from worlds import item_model

from streamer.factors import FeatureDtype, ImportStamp, RecencyFoldIn, encode_imported
from streamer.history import Interactions, pack_words
from streamer.pipeline.step import FeatureFormat, Known, LiveModel, plan
from streamer.stores import ImportedVectors, RedisStore
from streamer.stores.footprint import redis_bytes

N_USERS = 40_000
CHUNK = 1_000
NOON_MS = 1_764_000_000_000


def histories_of(n_interactions):
    """Evidence of CHUNK users: so many plays each, of different items."""
    items = np.tile(np.arange(1, n_interactions + 1, dtype=np.uint64), CHUNK)
    return Interactions(
        np.repeat(np.arange(CHUNK), n_interactions),
        items,
        pack_words(NOON_MS + items, np.full(len(items), 200 << 8 | 1, np.uint64)),
        np.zeros(CHUNK, np.uint64),
    )


@pytest.mark.parametrize(
    ("n_interactions", "dtype", "expire_after_days", "has_imported"),
    [
        (20, FeatureDtype.F16, 0.0, False),
        (3, FeatureDtype.F32, 30.0, False),
        (20, FeatureDtype.F16, 0.0, True),
    ],
)
def test_the_forecast_is_within_5_percent_of_what_a_loaded_redis_uses(
    redis_url, eventually, n_interactions, dtype, expire_after_days, has_imported
):
    model = item_model()
    live = LiveModel("default", 1, model, RecencyFoldIn())
    stamp = ImportStamp(model.model_id, 0, dtype, NOON_MS)
    evidence = histories_of(n_interactions)
    with redis.Redis.from_url(redis_url) as client:
        store = RedisStore(client, "g", tombstone_days=30, expire_after_days=expire_after_days)
        for first in range(0, N_USERS, CHUNK):
            user_ids = [f"u{number:07}" for number in range(first, first + CHUNK)]
            step = plan(
                user_ids, Known.nothing(CHUNK), evidence, [live], FeatureFormat(dtype, NOON_MS)
            )
            assert not store.write(step.writes).conflicts
            if has_imported:
                values = encode_imported(np.ones((CHUNK, model.n_factors), np.float32), stamp)
                assert ImportedVectors(client, "default").write(user_ids, values) == 0
        assert client.dbsize() == (2 + has_imported) * N_USERS + 1  # and our sequence
        forecast = redis_bytes(
            N_USERS,
            id_bytes=8,
            n_interactions=n_interactions,
            n_factors=model.n_factors,
            dtype=dtype,
            n_variants=1,
            expires=expire_after_days > 0,
            has_imported=has_imported,
        )
        # Buffers and the table that a growing one leaves are given back after a while.
        near = pytest.approx(forecast, rel=0.05)
        eventually(lambda: client.info("memory")["used_memory"] == near)
