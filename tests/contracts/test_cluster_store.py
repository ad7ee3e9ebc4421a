"""The feature store on a real Redis Cluster of three shards, under the contract of every store."""

import oracle
import pytest
import redis
from contracts.test_feature_store import (
    ABSENT,
    P0,
    P1,
    TOMBSTONE_DAYS,
    FeatureStoreContract,
    Row,
    features_of,
    user_writes,
    watched,
)

from streamer.pipeline.ports import Mark, MarkMove
from streamer.stores import ClusterStore, connect


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

    def fresh_ms(self):
        return {
            partition: int(
                self.client.execute_command(
                    "HGET", "st:fresh", f"{self.group_id}/{partition.topic}/{partition.number}"
                )
            )
            for partition in (P0, P1)
        }

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

    def n_calls(self, command):
        """How often all nodes together have run a command since CONFIG RESETSTAT."""
        stats = [node.info("commandstats").get(f"cmdstat_{command}", {}) for node in self.nodes]
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
