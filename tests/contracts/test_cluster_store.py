"""The feature store on a real Redis Cluster of three shards, under the contract of every store."""

import itertools
import os
import signal
import time
from contextlib import ExitStack, contextmanager

import oracle
import pytest
import redis
from contracts.test_feature_store import (
    ABSENT,
    CALLS,
    P0,
    P1,
    TOMBSTONE_DAYS,
    FeatureStoreContract,
    Row,
    features_of,
    user_writes,
    watched,
)
from resharding import Shards, owner_of
from waiting import eventually

from streamer.dev.redis_cluster import RedisCluster
from streamer.errors import ConfigError, StoreForgot, StoreUnavailable
from streamer.host.ports import LOOPBACK, free_ports
from streamer.models import read_pointer
from streamer.pipeline.ports import Mark, MarkMove
from streamer.stores import (
    ClusterStore,
    RedisStore,
    cluster_exchange,
    connect,
    ping,
    read_sums,
)
from streamer.stores.keys import bucket_number
from streamer.stores.slots import SLOTS


class ClusterBench:
    group_id = "readers-of-the-contract"

    def __init__(self, cluster, timeout_seconds=5.0):
        self.client = connect(cluster.url, timeout_seconds=timeout_seconds)
        self.nodes = [redis.Redis.from_url(server.url) for server in cluster.primaries]
        self.store = self.another()

    def close(self):
        self.client.close()
        for node in self.nodes:
            node.close()

    def another(self):
        """Return the store of another worker."""
        return ClusterStore(self.client, self.group_id, tombstone_days=TOMBSTONE_DAYS)

    def value(self, key):
        return self.client.execute_command("GET", key)

    def put(self, key, value):
        self.client.execute_command("SET", key, value)

    def use_variant(self, variant):
        self.client.execute_command("SADD", "st:variants", variant)

    def sums(self, book):
        return read_sums(self.client, book)

    def fresh_ms(self):
        return {partition: self.fresh_ms_of(partition) for partition in (P0, P1)}

    def fresh_ms_of(self, partition):
        field = f"{self.group_id}/{partition.topic}/{partition.number}"
        return int(self.client.execute_command("HGET", "st:fresh", field))

    def keys(self):
        keys = {key.decode() for node in self.nodes for key in node.scan_iter(count=10_000)}
        return {key for key in keys if key.startswith(("st:h:", "st:f:", "st:q:"))}

    def copy(self, nodes=None):
        """Return what makes some nodes, by default all, forget what comes after."""
        nodes = self.nodes if nodes is None else nodes
        then = [{key: node.dump(key) for key in node.scan_iter(count=10_000)} for node in nodes]

        def restore():
            for node, values in zip(nodes, then, strict=True):
                node.flushall()
                for key, value in values.items():
                    node.restore(key, 0, value)

        return restore

    def n_calls(self, command, nodes=None):
        """How often some nodes, by default all, have run a command since CONFIG RESETSTAT."""
        nodes = self.nodes if nodes is None else nodes
        stats = [node.info("commandstats").get(f"cmdstat_{command}", {}) for node in nodes]
        return sum(each.get("calls", 0) for each in stats)


@pytest.fixture
def bench(cluster_url, redis_cluster):
    bench = ClusterBench(redis_cluster)
    yield bench
    bench.close()


class TestClusterStore(FeatureStoreContract):
    @pytest.fixture
    def bench(self, bench):
        return bench


def viewers(count):
    return [f"viewer-{number}" for number in range(count)]


def test_a_batch_is_one_call_a_bucket(bench):
    state = watched("x")
    users = viewers(2000)
    buckets = {oracle.bucket(user) for user in users}
    rows = [Row(user, ABSENT, state.to_bytes(), features_of(state)) for user in users]
    for node in bench.nodes:
        node.script_flush()
        node.config_resetstat()
    assert bench.store.write(user_writes(*rows)).conflicts == {}
    assert bench.n_calls("eval") == len(buckets) == 256  # sent once to each, as nobody knew it
    for node in bench.nodes:
        node.config_resetstat()
    assert bench.store.write(user_writes(*rows)).conflicts.keys() == set(range(2000))
    assert bench.n_calls("evalsha") == 256
    assert bench.n_calls("eval") == 0


def test_every_bucket_has_marks_and_they_are_moved_together(bench):
    bench.store.move_marks({P0: MarkMove(None, Mark(5))})
    field = f"{bench.group_id}/play-events/0".encode()
    for bucket in range(256):
        key = f"st:mark:{{{bucket:02x}}}"
        assert bench.client.execute_command("HGETALL", key) == {field: b"5"}


def test_the_smallest_mark_counts_and_the_next_move_makes_them_even(bench):
    bench.store.move_marks({P0: MarkMove(None, Mark(5))})
    bench.store.move_marks({P0: MarkMove(Mark(5), Mark(9))})
    field = f"{bench.group_id}/play-events/0"
    bench.client.execute_command("HSET", "st:mark:{77}", field, "7")
    another = bench.another()
    assert another.read_marks([P0]) == {P0: Mark(7)}
    assert another.move_marks({P0: MarkMove(Mark(7), Mark(12))}) == {P0: Mark(12)}
    assert bench.another().read_marks([P0]) == {P0: Mark(12)}


def test_a_mark_that_one_bucket_lacks_is_none(bench):
    bench.store.move_marks({P0: MarkMove(None, Mark(5))})
    bench.client.execute_command("DEL", "st:mark:{77}")
    assert bench.store.move_marks({P0: MarkMove(Mark(5), None)}) == {P0: None}
    assert bench.another().read_marks([P0]) == {P0: None}
    assert bench.store.move_marks({P0: MarkMove(None, Mark(3))}) == {P0: Mark(3)}
    assert bench.another().read_marks([P0]) == {P0: Mark(3)}


def test_a_mark_that_somebody_else_moved_in_one_bucket_stays_there(bench):
    bench.store.move_marks({P0: MarkMove(None, Mark(5))})
    field = f"{bench.group_id}/play-events/0"
    bench.client.execute_command("HSET", "st:mark:{77}", field, "3")
    assert bench.store.move_marks({P0: MarkMove(Mark(5), Mark(9))}) == {P0: Mark(3)}


# --- shards that forget, or fall silent, by themselves -------------------------------------------


def users_by_shard(cluster, users):
    """Return the users of each of the three shards."""
    servers = [owner_of(cluster.primaries, SLOTS[bucket]) for bucket in range(256)]
    return [
        [user for user in users if servers[bucket_number(user)] is server]
        for server in cluster.primaries
    ]


def test_a_shard_that_forgot_alone_lets_no_mark_pass_and_the_others_lose_nothing(
    bench, redis_cluster
):
    state = watched("x")
    users = viewers(600)
    bench.store.move_marks({P0: MarkMove(None, Mark(5))})
    restore = bench.copy(bench.nodes[1:2])
    bench.store.write(user_writes(*(Row(user, ABSENT, state.to_bytes()) for user in users)))
    restore()
    with pytest.raises(StoreForgot):
        bench.store.move_marks({P0: MarkMove(Mark(5), Mark(9))})
    assert bench.another().read_marks([P0]) == {P0: Mark(5)}
    lost = users_by_shard(redis_cluster, users)[1]
    found = dict(zip(users, bench.store.read_histories(users), strict=True))
    assert [user for user in users if found[user] is None] == lost
    assert 100 < len(lost) < 300
    # Read again from the marks: a conflict where it survived, and new where it was lost.
    rows = [Row(user, ABSENT, state.to_bytes()) for user in users]
    outcome = bench.store.write(user_writes(*rows))
    assert {users[row] for row in outcome.conflicts} == set(users) - set(lost)
    assert bench.store.move_marks({P0: MarkMove(Mark(5), Mark(9))}) == {P0: Mark(9)}


def test_a_write_into_a_shard_that_forgot_says_so(bench, redis_cluster):
    state = watched("x")
    in_shard = users_by_shard(redis_cluster, viewers(30))
    first, other = in_shard[0][0], in_shard[1][0]
    restore = bench.copy(bench.nodes[:1])
    bench.store.write(user_writes(Row(first, ABSENT, state.to_bytes())))
    restore()
    bench.store.write(user_writes(Row(other, ABSENT, state.to_bytes())))  # nothing lost there
    with pytest.raises(StoreForgot):
        bench.store.write(user_writes(Row(first, ABSENT, state.to_bytes())))


@contextmanager
def frozen(server):
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_a_shard_that_is_frozen_costs_one_time_out_and_what_the_others_did_is_kept(redis_cluster):
    bench = ClusterBench(redis_cluster, timeout_seconds=0.2)
    users, state = viewers(600), watched("x")
    for node in bench.nodes:
        node.flushall()
    rows = [Row(user, ABSENT, state.to_bytes()) for user in users]
    bench.store.write(user_writes(Row("warm", ABSENT)))
    bench.store.write(user_writes(*(Row(user, 1) for user in users)))  # connected to all
    n_buckets = len({oracle.bucket(user) for user in users_by_shard(redis_cluster, users)[0]})
    bench.nodes[0].config_resetstat()
    with frozen(redis_cluster.primaries[0]):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            bench.store.write(user_writes(*rows))
        assert time.monotonic() - started < 0.5
    assert caught.value.kind == "timeout"
    # It runs what was sent before it froze, each call once.
    eventually(lambda: bench.n_calls("evalsha", bench.nodes[:1]) >= n_buckets)
    assert bench.n_calls("evalsha", bench.nodes[:1]) == n_buckets
    others = [user for shard in users_by_shard(redis_cluster, users)[1:] for user in shard]
    outcome = bench.store.write(user_writes(*rows))
    assert {users[row] for row in outcome.conflicts} >= set(others)
    assert set(outcome.conflicts.values()) == {state.to_bytes()}
    assert bench.store.read_histories(users) == [state.to_bytes()] * len(users)
    bench.store.move_marks({P0: MarkMove(None, Mark(5))})  # nothing looks lost
    bench.close()


def test_all_shards_that_are_frozen_cost_one_time_out_together(redis_cluster):
    bench = ClusterBench(redis_cluster, timeout_seconds=0.2)
    users = [f"nobody-{number}" for number in range(600)]
    bench.store.read_histories(users)
    with ExitStack() as stack:
        for server in redis_cluster.primaries:
            stack.enter_context(frozen(server))
        started = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            bench.store.read_histories(users)
        assert time.monotonic() - started < 0.5
    assert caught.value.kind == "timeout"
    assert bench.store.read_histories(users) == [None] * len(users)
    bench.close()


def test_a_call_that_is_interrupted_leaves_no_answer_for_the_next_one(bench, monkeypatch):
    users, state = viewers(300), watched("x")
    bench.store.write(user_writes(*(Row(user, ABSENT, state.to_bytes()) for user in users)))
    read, n_read = cluster_exchange._answer, itertools.count()

    def interrupted(connection):
        if next(n_read) == 100:
            raise KeyboardInterrupt
        return read(connection)

    monkeypatch.setattr(cluster_exchange, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.store.read_histories(users)
    assert bench.store.read_histories(users[::-1][:200]) == [state.to_bytes()] * 200
    assert bench.store.read_marks([P0]) == {P0: None}


def test_a_shard_that_failed_over_is_found_by_every_call(redis_executable, tmp_path):
    cluster = RedisCluster(tmp_path, n_replicas=1, arguments=Shards.ARGUMENTS)
    try:
        cluster.start()
        shards = Shards(cluster)
        clients = {name: connect(cluster.url, timeout_seconds=0.5) for name in ("ping", *CALLS)}
        stores = {
            name: ClusterStore(client, "group", tombstone_days=TOMBSTONE_DAYS)
            for name, client in clients.items()
        }
        for client in clients.values():
            ping(client)
        for shard in range(2):  # whichever has the keys of the calls, most likely
            shards.fail_over(shard)
            eventually(lambda: succeeds(lambda: ping(clients["ping"])), 30)
            for name, call in CALLS.items():
                eventually(lambda call=call, name=name: succeeds(lambda: call(stores[name])), 30)
            shards.mend(shard)
    finally:
        cluster.stop()


def test_user_and_password_reach_every_node(bench, redis_cluster):
    for node in bench.nodes:
        node.execute_command("ACL SETUSER", "worker", "on", ">se/cret", "~*", "+@all")

    def n_nodes_with_worker():
        users = ({each["user"] for each in node.client_list()} for node in bench.nodes)
        return sum("worker" in names for names in users)

    hosts = redis_cluster.url.removeprefix("redis+cluster://")
    given = {"username": "worker", "password": "se/cret"}
    clients = (
        connect(f"redis+cluster://worker:se%2Fcret@{hosts}"),
        connect(redis_cluster.url, **given),
    )
    for each in clients:
        eventually(lambda: n_nodes_with_worker() == 0)
        with each as client:
            ping(client)
            assert n_nodes_with_worker() == 3
    wrong = connect(redis_cluster.url, **given | {"password": "wrong"})
    with pytest.raises(StoreUnavailable) as caught:
        ping(wrong)
    assert caught.value.kind == "authentication"


def succeeds(call):
    try:
        call()
    except (StoreUnavailable, StoreForgot):
        return False
    return True


def test_a_cluster_that_is_not_there_is_unavailable_at_once():
    ports = free_ports(2)
    nodes = ",".join(f"{LOOPBACK}:{port}" for port in ports)
    client = connect(f"redis+cluster://{nodes}", timeout_seconds=1.0)
    store = ClusterStore(client, "group", tombstone_days=TOMBSTONE_DAYS)
    for call in CALLS.values():
        started = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            call(store)
        assert time.monotonic() - started < 1.5
        assert caught.value.kind == "connection"


# --- the wrong kind of address -------------------------------------------------------------------


def test_a_client_of_a_standalone_redis_is_told_that_this_is_a_cluster(bench, redis_cluster):
    client = connect(redis_cluster.primaries[0].url)
    store = RedisStore(client, "group", tombstone_days=TOMBSTONE_DAYS)
    calls = [
        lambda: ping(client),
        lambda: store.read_histories(viewers(9)),
        lambda: [store.read_histories([user]) for user in viewers(9)],
        lambda: [read_pointer(client, f"variant-{number}") for number in range(9)],
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="write redis\\+cluster://"):
            call()
    client.close()


def test_a_client_of_a_cluster_is_told_that_this_is_none(redis_url):
    client = connect(redis_url.replace("redis://", "redis+cluster://"))
    store = ClusterStore(client, "group", tombstone_days=TOMBSTONE_DAYS)
    for call in (lambda: ping(client), lambda: store.read_histories(["ann"])):
        with pytest.raises(ConfigError, match="no node of a cluster; write redis://"):
            call()


def test_every_shard_must_show_a_sign_of_life(bench, redis_cluster):
    impatient = connect(redis_cluster.url, timeout_seconds=0.2)
    ping(impatient)
    with frozen(redis_cluster.primaries[2]), pytest.raises(StoreUnavailable):
        ping(impatient)
    ping(impatient)
    impatient.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://127.0.0.1:1/3",
        "redis+cluster://127.0.0.1:1,127.0.0.1:x",
        "redis+cluster://u:a/b@127.0.0.1:1",
    ],
)
def test_an_address_that_cannot_be_understood_says_what_would_be_right(url):
    with pytest.raises(ConfigError, match="expected redis\\+cluster://") as caught:
        connect(url)
    assert "a/b" not in str(caught.value)


def test_one_seed_that_answers_is_enough(redis_cluster):
    url = f"redis+cluster://{LOOPBACK}:{free_ports(1)[0]},{LOOPBACK}:{redis_cluster.primaries[1].port}"
    with connect(url, timeout_seconds=0.5) as client:
        ping(client)
