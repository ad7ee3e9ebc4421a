"""What every scan of a store does, held against memory, a real Redis and a real cluster."""

import pytest
from contracts.test_cluster_store import ClusterBench
from contracts.test_feature_store import (
    ABSENT,
    AWKWARD_IDS,
    MemoryBench,
    RedisBench,
    Row,
    features_of,
    user_writes,
    watched,
)
from resharding import owner_of, slot_moving
from waiting import eventually

from streamer.dev.redis_cluster import RedisCluster
from streamer.dev.redis_server import RedisServer
from streamer.errors import StoreUnavailable
from streamer.host.ports import LOOPBACK
from streamer.pipeline.sweep import CURSOR_OF_ENDS, begun, encode_sweep
from streamer.stores import MemoryScan, RedisScan
from streamer.stores.keys import bucket_number, history_key
from streamer.stores.slots import SLOTS

NOON_MS = 1_763_900_000_000
VIEWERS = [f"viewer-{number}" for number in range(500)]


def state(generation, n_expected=1):
    return encode_sweep(begun(generation, n_expected, NOON_MS))


def fill(bench, user_ids, variant="default"):
    history = watched("x")
    rows = [Row(user, ABSENT, history.to_bytes(), features_of(history)) for user in user_ids]
    assert bench.store.write(user_writes(*rows, variant=variant)).conflicts == {}


def whole_pass(scan, part, n_keys=50, variant="default"):
    """Return {user: (history, features)} of a part, and the number of its pages."""
    found, cursor, n_pages = {}, CURSOR_OF_ENDS, 0
    while True:
        users = scan.scan(part, variant, cursor, n_keys)
        values = zip(users.histories, users.features, strict=True)
        found.update(zip(users.user_ids, values, strict=True))
        cursor, n_pages = users.cursor, n_pages + 1
        if cursor == CURSOR_OF_ENDS:
            return found, n_pages
        assert n_pages < 1000


class UserScanContract:
    """`bench` holds a `store`, `scan` goes through it."""

    def test_a_pass_over_all_parts_sees_everybody_with_their_values(self, bench, scan):
        fill(bench, [*VIEWERS, *AWKWARD_IDS])
        found = {}
        for part in scan.parts():
            seen, n_pages = whole_pass(scan, part)
            assert n_pages > 1
            assert not found.keys() & seen.keys()
            found |= seen
        history = watched("x")
        assert set(found) == {*VIEWERS, *AWKWARD_IDS}
        assert set(found.values()) == {(history.to_bytes(), features_of(history))}

    def test_a_user_without_features_of_the_variant_is_seen_too(self, bench, scan):
        fill(bench, ["ann"], variant="other")
        (found,) = [seen for part in scan.parts() for seen in [whole_pass(scan, part)[0]] if seen]
        assert found == {"ann": (watched("x").to_bytes(), None)}

    def test_whoever_is_there_all_the_time_is_seen_while_others_come(self, bench, scan):
        fill(bench, VIEWERS[:100])
        found = set()
        for number, part in enumerate(scan.parts()):
            cursor, n_pages = CURSOR_OF_ENDS, 0
            while not n_pages or cursor != CURSOR_OF_ENDS:
                users = scan.scan(part, "default", cursor, 10)
                found |= set(users.user_ids)
                fill(bench, [f"late-{number}-{n_pages}-{n}" for n in range(20 * (n_pages < 5))])
                cursor, n_pages = users.cursor, n_pages + 1
        assert set(VIEWERS[:100]) <= found

    def test_an_empty_store_is_seen_in_a_page(self, scan):
        for part in scan.parts():
            assert whole_pass(scan, part) == ({}, 1)

    def test_a_look_counts_keys_and_shows_what_was_claimed(self, bench, scan):
        fill(bench, VIEWERS)
        places = [scan.look(part, "default") for part in scan.parts()]
        assert sum(place.n_keys for place in places) >= 2 * len(VIEWERS)
        assert [place.state for place in places] == [None] * len(places)
        assert len({place.server for place in places}) == len(places)
        assert scan.claim("default", places[-1].server, None, state(1))
        again = [scan.look(part, "default") for part in scan.parts()]
        assert [place.state for place in again] == [None] * (len(places) - 1) + [state(1)]
        assert [place.server for place in again] == [place.server for place in places]

    def test_of_two_claims_of_the_same_page_one_wins(self, scan):
        assert scan.claim("default", "s", None, state(1))
        assert not scan.claim("default", "s", None, state(1, 7))
        assert scan.claim("default", "s", state(1), state(1, 2))
        assert not scan.claim("default", "s", state(1), state(1, 3))
        assert scan.claim("other", "s", None, state(1))  # variants have their own

    def test_a_newer_generation_drops_what_older_ones_left(self, scan):
        for server in ("gone", "other"):
            assert scan.claim("default", server, None, state(1))
        assert scan.claim("default", "newer", None, state(3))
        assert scan.claim("default", "s", None, state(2))
        assert scan.claim("default", "gone", None, state(2))  # was dropped
        assert not scan.claim("default", "newer", None, state(3))  # was not

    def test_a_server_that_forgot_is_another_one(self, bench, scan, forgetting):
        places = [scan.look(part, "default").server for part in scan.parts()]
        forgetting()
        again = [scan.look(part, "default").server for part in scan.parts()]
        assert again != places


class TestMemoryScan(UserScanContract):
    @pytest.fixture
    def bench(self):
        return MemoryBench()

    @pytest.fixture
    def scan(self, bench):
        return MemoryScan(bench.store.state)

    @pytest.fixture
    def forgetting(self, bench):
        return bench.store.state.forget


class TestRedisScan(UserScanContract):
    @pytest.fixture
    def server(self, redis_executable, tmp_path):
        server = RedisServer(tmp_path)
        server.start()
        yield server
        server.stop()

    @pytest.fixture
    def bench(self, server):
        bench = RedisBench(server.url)
        yield bench
        bench.client.close()

    @pytest.fixture
    def scan(self, bench):
        return RedisScan(bench.client)

    @pytest.fixture
    def forgetting(self, server, bench):
        def restart():
            server.kill()
            server.start()
            bench.client.close()

        return restart

    def test_keys_that_no_worker_writes_are_passed_over(self, bench, scan):
        fill(bench, ["ann"])
        for key in ("st:h:", "st:h:{zz}:ann", "st:h:{00}:ann", b"st:h:{00}:\xff\xfe", "st:hash"):
            bench.client.set(key, "what is this?")
        bench.client.rpush(history_key("list"), "what is this?")
        found, _ = whole_pass(scan, *scan.parts())
        assert found.pop("list") == (None, None)
        assert set(found) == {"ann"}

    def test_a_state_that_is_no_json_is_replaced_like_any_other(self, bench, scan):
        bench.client.hset("st:sweep:default", "s", "what is this?")
        assert scan.claim("default", "s", b"what is this?", state(1))
        bench.client.hset("st:sweep:default", "t", "[]")
        assert scan.claim("default", "s", state(1), state(2))
        assert bench.client.hkeys("st:sweep:default") == [b"s"]

    def test_a_redis_that_is_away_is_unavailable(self, server, scan):
        server.kill()
        for call in (
            lambda: scan.look("", "default"),
            lambda: scan.scan("", "default", CURSOR_OF_ENDS, 10),
            lambda: scan.claim("default", "s", None, state(1)),
        ):
            with pytest.raises(StoreUnavailable):
                call()


@pytest.fixture(scope="module")
def cluster(redis_executable, tmp_path_factory):
    """Three shards that the tests of this file harm."""
    cluster = RedisCluster(tmp_path_factory.mktemp("scanned"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class TestClusterScan(UserScanContract):
    @pytest.fixture
    def bench(self, cluster):
        bench = ClusterBench(cluster)
        for node in bench.nodes:
            node.flushall()
        yield bench
        bench.close()

    @pytest.fixture
    def scan(self, bench):
        return RedisScan(bench.client)

    @pytest.fixture
    def forgetting(self, cluster, scan):
        def restart():
            cluster.primaries[0].kill()
            cluster.primaries[0].start()
            eventually(lambda: answers(scan), 60)

        return restart

    def test_each_shard_has_the_users_of_its_own_buckets(self, bench, scan):
        fill(bench, VIEWERS)
        parts = scan.parts()
        assert len(parts) == 3
        for part in parts:
            found, _ = whole_pass(scan, part)
            buckets = set(bench.client.buckets_of(part))
            assert {bucket_number(user) for user in found} <= buckets
            assert len(buckets) > 50

    def test_a_shard_that_got_or_lost_a_slot_is_another_one(self, bench, scan, cluster):
        """Whoever came with the slot may be where the sweep has been already."""
        fill(bench, VIEWERS)
        before = {scan.look(part, "default").server for part in scan.parts()}
        source = owner_of(cluster.primaries, SLOTS[0])
        place = cluster.primaries.index(source)
        target, other = cluster.primaries[place - 1], cluster.primaries[place - 2]
        with slot_moving(SLOTS[0], source, target, [other]) as move:
            move.carry(move.left()[:1])
            seen = [user for part in scan.parts() for user in whole_pass(scan, part)[0]]
            assert set(seen) == set(VIEWERS)
        everybody = [user for part in scan.parts() for user in whole_pass(scan, part)[0]]
        assert sorted(everybody) == sorted(VIEWERS)  # reading has told us who has the slot
        after = {scan.look(part, "default").server for part in scan.parts()}
        assert len(after & before) == 1

    def test_a_part_that_is_gone_is_unavailable(self, scan):
        with pytest.raises(StoreUnavailable, match="no primary"):
            scan.look(f"{LOOPBACK}:1", "default")


def answers(scan):
    try:
        return [scan.look(part, "default") for part in scan.parts()]
    except StoreUnavailable:
        return []
