"""What befalls a Redis Cluster: slots move, shards fail over and forget by themselves."""

import shutil

import pytest
from chaos.harness import SIZE
from resharding import Shards, n_refusals, owner_of, slot_moving

from streamer.dev.redis_cluster import RedisCluster
from streamer.stores.slots import SLOTS

N_MOVES = SIZE.pick(short=24, full=256)
MOVES_AT_ONCE = 8
N_FAIL_OVERS = SIZE.pick(short=2, full=6)


@pytest.fixture
def cluster(redis_executable, tmp_path):
    """Three shards that the scenario may harm."""
    cluster = RedisCluster(tmp_path)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def test_slots_move_under_load(run_on, broker, cluster):
    def refusals(*codes):
        return {code: n_refusals(cluster.primaries, code) for code in codes}

    run = run_on(broker.server.bootstrap_servers, cluster.url)
    run.open()
    run.start_workers()
    for first in range(0, N_MOVES, MOVES_AT_ONCE):
        before = run.consumed()
        run.feed(0.9 * MOVES_AT_ONCE / N_MOVES, seconds=1.5)
        for bucket in range(first, first + MOVES_AT_ONCE):
            source = owner_of(cluster.primaries, SLOTS[bucket])
            target, other = (server for server in cluster.primaries if server is not source)
            with slot_moving(SLOTS[bucket], source, target, [other]) as move:
                keys = move.left()
                half = len(keys) // 2
                for start in range(0, half, 10):
                    move.carry(keys[start : min(start + 10, half)])
                # A slot stays in two places until somebody has met that.
                run.wait_until(lambda: all(refusals("ASK", "TRYAGAIN").values()) or run.is_fed())
                for start in range(half, len(keys), 10):
                    move.carry(keys[start : start + 10])
            run.injected["slot moved"] += 1
        run.wait_for_progress(before)
    codes = refusals("MOVED", "ASK", "TRYAGAIN")
    run.injected.update(codes)
    assert all(codes.values()), codes
    run.finish()
    assert run.rewinds() == 0  # nothing ever looked lost


@pytest.fixture
def shards(redis_executable, tmp_path):
    """Three shards, each with a replica that can be cut off."""
    cluster = RedisCluster(tmp_path, n_replicas=1, arguments=Shards.ARGUMENTS)
    try:
        cluster.start()
        yield Shards(cluster)
    finally:
        cluster.stop()
    for folder in tmp_path.glob("node-*"):
        shutil.rmtree(folder)


def test_a_shard_fails_over_to_a_replica_that_lacks_acknowledged_writes(run_on, broker, shards):
    """The others go on as if nothing were, and keep everything: only this shard forgets."""
    run = run_on(broker.server.bootstrap_servers, shards.url)
    run.open()
    run.start_workers()
    run.feed(0.1)
    for number in range(N_FAIL_OVERS):
        shard = number % 3
        shards.cut_link(shard)
        known = shards.histories(shard)
        run.feed(0.8 / N_FAIL_OVERS, seconds=2.0)
        if number % 2 == 0:  # the group commits to Kafka what will be lost, before it is
            run.wait_until_applied()
        # Of this shard: after a rewind workers consume much that changes nothing.
        run.wait_until(lambda s=shard, known=known: shards.histories(s) != known)
        acknowledged, n_rewinds = shards.histories(shard), run.rewinds()
        left = shards.fail_over(shard)
        lost = [key for key, history in acknowledged.items() if left.get(key) != history]
        assert lost
        run.injected["shard failed over"] += 1
        run.injected["histories lost"] += len(lost)
        run.wait_until(lambda n=n_rewinds: run.rewinds() > n)
        shards.mend(shard)
    run.finish()
