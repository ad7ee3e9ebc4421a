from random import Random

import numpy as np
import pytest
from worlds import NOW_MS, event, live_model, records

from streamer.evaluation.golden import GoldenHistories
from streamer.evaluation.verify import Verdict, verify
from streamer.factors import FeatureDtype
from streamer.pipeline.records import Decoder
from streamer.runtime.cache import HistoryCache
from streamer.runtime.updater import Updater
from streamer.stores.keys import features_key, history_key
from streamer.stores.memory import MemoryStore

LIVE = live_model()
LOG = records(
    event("ann", "title-1", NOW_MS),
    event("ann", "title-2", NOW_MS + 1000),
    event("bob", "title-3", NOW_MS, "detail_view"),
    b"not json",
    event("cat", "title-4", NOW_MS),
    event("cat", None, NOW_MS, "forget"),
)


@pytest.fixture
def store():
    store = MemoryStore()
    updater = Updater(
        store, HistoryCache(10), FeatureDtype.F16, lambda: NOW_MS / 1000, lambda _: None, Random(7)
    )
    decoded = Decoder().decode(LOG)
    updater.apply(decoded.user_ids, decoded.arrived, LIVE)
    return store


def check(store, log=LOG, live=LIVE):
    def read(user_ids):
        return [
            (store.values.get(history_key(u)), store.values.get(features_key("default", u)))
            for u in user_ids
        ]

    return verify(log, read, live)


def test_what_the_worker_wrote_is_equal(store):
    result = check(store)
    assert result.verdicts == {Verdict.EQUAL: 3}
    assert (result.n_records, result.n_applied, result.n_rejected) == (6, 5, 1)
    assert 0 < result.worst_error < 1e-3


def test_the_order_of_the_log_does_not_matter(store):
    assert check(store, LOG[::-1]).n_different == 0


def test_a_lost_event_is_found(store):
    more = [*LOG, *records(event("ann", "title-9", NOW_MS + 9), first_offset=6)]
    assert check(store, more).verdicts[Verdict.HISTORY_DIFFERS] == 1


def test_a_lost_viewer_is_found(store):
    del store.values[history_key("bob")]
    assert check(store).verdicts[Verdict.HISTORY_MISSING] == 1


def test_missing_features_are_found(store):
    del store.values[features_key("default", "ann")]
    assert check(store).verdicts[Verdict.FEATURES_MISSING] == 1


def test_features_of_a_forgotten_viewer_are_found(store):
    store.values[features_key("default", "cat")] = store.values[features_key("default", "ann")]
    assert check(store).verdicts[Verdict.FEATURES_UNWANTED] == 1


def test_features_of_an_older_generation_are_found(store):
    assert check(store, live=live_model(generation=2)).verdicts[Verdict.FEATURES_BEHIND] == 2


def test_a_wrong_vector_is_found(store):
    key = features_key("default", "ann")
    value = bytearray(store.values[key])
    vectors = np.frombuffer(value, "<f2", offset=64).copy()
    vectors[0] *= np.float16(1.1)
    value[64:] = vectors.tobytes()
    store.values[key] = bytes(value)
    assert check(store).verdicts[Verdict.VECTORS_DIFFER] == 1


def test_without_a_model_histories_alone_are_compared(store):
    del store.values[features_key("default", "ann")]
    assert check(store, live=None).n_different == 0


def test_golden_histories_grow_with_the_number_of_users():
    golden = GoldenHistories()
    golden.apply(records(*(event(f"u-{n}", "title-1") for n in range(3000))))
    histories = golden.histories(golden.rows_of(golden.user_ids))
    assert len(histories) == 3000
    assert (histories.counts == 1).all()
