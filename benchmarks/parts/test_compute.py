"""What needs no server: decode, merge, fold in, encode, and the cache."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.parts.conftest import MIXES, N_USERS, NOW_MS, Timed, histories_of, one_play_each
from benchmarks.workload import World, draw, encode_events, user_id
from streamer.factors import (
    BUILT_INS,
    FeatureDtype,
    ItemModel,
    RecencyFoldIn,
    Stamp,
    encode_features,
    load_learner,
)
from streamer.history import decode, digests, encode, merge
from streamer.pipeline.records import Decoder, Partition, Record
from streamer.pipeline.step import Known
from streamer.runtime.cache import HistoryCache

N_EVENTS = 2000
every_length = pytest.mark.parametrize("n_entries", MIXES)


def test_decode(timed: Timed) -> None:
    partitions = Partition("play", 0), Partition("browse", 0)
    events = encode_events(draw(World(), N_EVENTS, NOW_MS))
    records = [
        Record(partitions[event.topic], offset, NOW_MS, event.key, event.value)
        for offset, event in enumerate(events)
    ]
    decoder = Decoder()
    decoded = timed(lambda: decoder.decode(records), N_EVENTS, "event")
    assert not decoded.rejected
    assert len(decoded.arrived.rows) == N_EVENTS


@every_length
def test_merge_one_play_into(timed: Timed, model: ItemModel, n_entries: int) -> None:
    histories, arrived = histories_of(model, n_entries), one_play_each()
    merged, _ = timed(lambda: merge(histories, arrived), N_USERS, "user")
    assert (merged.words != histories.words).any(axis=1).all()


@every_length
@pytest.mark.parametrize("name", BUILT_INS)
def test_learner(timed: Timed, model: ItemModel, name: str, n_entries: int) -> None:
    histories, learner = histories_of(model, n_entries), load_learner(name)
    factors = timed(lambda: learner(histories, model), N_USERS, "user")
    assert not factors.is_rejected.any()


def test_encode_histories(timed: Timed, model: ItemModel) -> None:
    histories = histories_of(model, 50)
    blobs = timed(lambda: encode(histories, digests(histories)), N_USERS, "user")
    assert len(blobs) == N_USERS


def test_decode_histories(timed: Timed, model: ItemModel) -> None:
    histories = histories_of(model, 50)
    blobs = encode(histories, digests(histories))
    _, _, is_broken = timed(lambda: decode(blobs), N_USERS, "user")
    assert not is_broken.any()


def test_encode_features(timed: Timed, model: ItemModel) -> None:
    histories = histories_of(model, 20)
    factors, stamp = RecencyFoldIn()(histories, model), Stamp(1, 1, 1, FeatureDtype.F16, NOW_MS)
    as_of = np.full(N_USERS, NOW_MS)
    _, is_rejected = timed(
        lambda: encode_features(factors, digests(histories), as_of, histories.counts, stamp),
        N_USERS,
        "user",
    )
    assert not is_rejected.any()


def cached(model: ItemModel) -> tuple[HistoryCache, list[str], Known]:
    """Return a cache, and a batch of users who are in it."""
    histories = histories_of(model, 50)
    known = Known(histories, digests(histories), {"default": np.ones(N_USERS, np.int64)})
    users = [user_id(number) for number in range(N_USERS)]
    cache = HistoryCache(100_000)
    cache.put(users, known)
    return cache, users, known


def test_cache_get(timed: Timed, model: ItemModel) -> None:
    cache, users, known = cached(model)

    def find_and_get() -> Known:
        return cache.get([slot for slot in cache.find(users) if slot is not None])

    found = timed(find_and_get, N_USERS, "user")
    assert (found.digests == known.digests).all()


def test_cache_put(timed: Timed, model: ItemModel) -> None:
    cache, users, known = cached(model)
    timed(lambda: cache.put(users, known), N_USERS, "user")
    assert len(cache) == N_USERS
