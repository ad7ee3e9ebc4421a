"""Sweepers that share a real Redis and a real Redis Cluster, each on a thread of its own."""

import threading
import time
from contextlib import suppress
from random import Random

import pytest
from resharding import owner_of, slot_moving
from unit.test_runtime_fakes import event, live_model
from waiting import eventually
from worlds import records

from streamer.dev.redis_cluster import RedisCluster
from streamer.errors import StoreUnavailable
from streamer.factors import FeatureDtype, decode_features
from streamer.pipeline.records import Decoder
from streamer.runtime.cache import HistoryCache
from streamer.runtime.sweeper import Sweeper
from streamer.runtime.updater import Updater
from streamer.stores import RedisScan, connect, open_store, read_values
from streamer.stores.slots import SLOTS

USERS = [f"viewer-{number}" for number in range(1500)]
OLD, NEW = live_model(generation=1), live_model(generation=2, seed=2)


class Member:
    """What a worker has of the sweep."""

    def __init__(self, url, seed):
        self.client = connect(url, timeout_seconds=5.0)
        store = open_store(self.client, "group", tombstone_days=1)
        cache, random = HistoryCache(10), Random(seed)
        self.updater = Updater(store, cache, FeatureDtype.F16, time.time, time.sleep, random)
        self.sweeper = Sweeper(RedisScan(self.client), self.fold_in, 1.0, random)
        self.folded = []
        self.error = None
        self.is_over = threading.Event()

    def fold_in(self, user_ids, stored, live):
        self.folded += user_ids
        return self.updater.fold_in(user_ids, stored, live)

    def learn(self, user_ids):
        decoded = Decoder().decode(records(*(event(user=user_id) for user_id in user_ids)))
        self.updater.apply(decoded.user_ids, decoded.arrived, [OLD])

    def generations(self):
        values = read_values(self.client, "default", USERS)
        return {decode_features(features).generation for _, features in values}

    def start(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.is_over.is_set():
                with suppress(StoreUnavailable):  # a slot was moving; as the loop does
                    self.sweeper.turn([NEW])
                time.sleep(min(self.sweeper.due_in_seconds([NEW]), 0.01))
        except Exception as error:  # noqa: BLE001  the test raises it
            self.error = error

    def stop(self):
        self.is_over.set()
        self.thread.join(60)
        self.client.close()
        if self.error is not None:
            raise self.error
        assert not self.thread.is_alive()


def members_of(url):
    members = [Member(url, seed) for seed in range(2)]
    members[0].learn(USERS)
    assert members[0].generations() == {1}
    return members


@pytest.mark.parametrize("servers", ["redis_url", "cluster_url"])
def test_two_sweepers_share_the_work_and_nobody_is_folded_in_twice(request, servers):
    members = members_of(request.getfixturevalue(servers))
    for member in members:
        member.start()
    eventually(lambda: all(member.sweeper.is_done(NEW) for member in members), 60)
    assert members[0].generations() == {2}
    for member in members:
        member.stop()
    assert all(member.folded for member in members)
    assert sorted(members[0].folded + members[1].folded) == sorted(USERS)


def test_nobody_is_left_behind_where_a_slot_moves_in_the_middle(redis_executable, tmp_path):
    cluster = RedisCluster(tmp_path)
    cluster.start()
    try:
        members = members_of(cluster.url)
        for member in members:
            member.start()
        eventually(lambda: members[0].folded and members[1].folded, 20, 0.001)
        source = owner_of(cluster.primaries, SLOTS[7])
        place = cluster.primaries.index(source)
        target, other = cluster.primaries[place - 1], cluster.primaries[place - 2]
        with slot_moving(SLOTS[7], source, target, [other]):
            pass  # at once: while it lasts, writes into the slot are refused
        eventually(lambda: members[0].generations() == {2}, 90)
        for member in members:
            member.stop()
    finally:
        cluster.stop()
