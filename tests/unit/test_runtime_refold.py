"""A published model reaches the viewers whom a worker knows, without any event of theirs."""

from dataclasses import replace
from random import Random

from worlds import NOW_MS, event, live_model, records

from streamer.factors import FeatureDtype, decode_features
from streamer.history import Interactions
from streamer.pipeline.records import Decoder
from streamer.runtime.cache import HistoryCache
from streamer.runtime.updater import Updater
from streamer.stores.keys import features_key
from streamer.stores.memory import MemoryStore


def updater_with(store, n_users, live):
    updater = Updater(
        store, HistoryCache(100), FeatureDtype.F16, lambda: NOW_MS / 1000, lambda _: None, Random(7)
    )
    decoded = Decoder().decode(records(*(event(f"u-{n}", "title-1") for n in range(n_users))))
    updater.apply(decoded.user_ids, decoded.arrived, [] if live is None else [live])
    return updater


def refold(updater, live, max_users=4):
    taken = []
    while user_ids := updater.take_refolds([] if live is None else [live], max_users):
        assert len(user_ids) <= max_users
        updater.apply(user_ids, Interactions.none(len(user_ids)), [live])
        taken += user_ids
    return taken


def generations(store, n_users):
    values = [store.values.get(features_key("default", f"u-{n}")) for n in range(n_users)]
    return [value and decode_features(value).generation for value in values]


def test_histories_without_features_get_them_once_a_model_is_published():
    store = MemoryStore()
    updater = updater_with(store, 10, None)
    assert generations(store, 10) == [None] * 10
    taken = refold(updater, live_model())
    assert sorted(taken) == sorted(f"u-{n}" for n in range(10))
    assert generations(store, 10) == [1] * 10


def test_features_of_the_old_model_are_replaced_once():
    store = MemoryStore()
    updater = updater_with(store, 10, live_model(generation=1))
    newer = live_model(generation=2, model_id=0xB2)
    assert len(refold(updater, newer)) == 10
    assert generations(store, 10) == [2] * 10
    assert refold(updater, newer) == []


def test_without_a_model_nobody_is_folded_in():
    assert refold(updater_with(MemoryStore(), 3, None), None) == []


def test_a_publish_to_one_variant_folds_in_for_that_variant_alone():
    updater = updater_with(MemoryStore(), 4, live_model(generation=1))
    first, other = live_model(generation=1), replace(live_model(generation=1), variant="b")
    refold(updater, first)
    user_ids = updater.take_refolds([first, other], 10)
    report = updater.apply(user_ids, Interactions.none(len(user_ids)), [first, other])
    assert report.folded == {"b": 4}
    assert updater.take_refolds([first, other], 10) == []
