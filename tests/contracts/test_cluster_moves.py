"""Slots that move between the nodes of a Redis Cluster while they are read and written."""

import threading
import time
from contextlib import ExitStack

import oracle
import pytest
from contracts.test_cluster_store import ClusterBench
from contracts.test_feature_store import (
    ABSENT,
    P0,
    Row,
    features_of,
    neighbours,
    user_writes,
    watched,
)
from resharding import n_refusals, owner_of, slot_moving

from streamer.dev.redis_cluster import RedisCluster
from streamer.errors import StoreUnavailable
from streamer.pipeline.ports import Mark, MarkMove
from streamer.stores import read_values
from streamer.stores.slots import SLOTS, slot_of_tag

BUCKET = 0


@pytest.fixture(scope="module")
def cluster(redis_executable, tmp_path_factory):
    """Three shards whose slots the tests of this file move."""
    cluster = RedisCluster(tmp_path_factory.mktemp("moving"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def bench(cluster):
    bench = ClusterBench(cluster)
    for node in bench.nodes:
        node.flushall()
        node.config_resetstat()
    yield bench
    bench.close()


@pytest.fixture
def moving(cluster):
    """``moving(bucket)`` moves a bucket's slot to the next node, within a `with`."""

    def begin(bucket=BUCKET):
        source = owner_of(cluster.primaries, SLOTS[bucket])
        place = cluster.primaries.index(source)
        target, other = cluster.primaries[place - 1], cluster.primaries[place - 2]
        return slot_moving(SLOTS[bucket], source, target, [other])

    return begin


def write(bench, users, title="x"):
    """Write new users, and return each one's history and features."""
    state = watched(title)
    history, features = state.to_bytes(), features_of(state)
    rows = [Row(user, ABSENT, history, features) for user in users]
    assert bench.store.write(user_writes(*rows)).conflicts == {}
    return history, features


def refused(cluster, code):
    return n_refusals(cluster.primaries, code)


def test_reads_find_every_key_of_a_slot_that_is_half_moved(cluster, bench, moving):
    users = neighbours(6)
    values = write(bench, users)
    with moving() as move:
        move.carry([oracle.history_key(user) for user in users[:3]])
        move.carry([oracle.features_key(user, "default") for user in users[:2]])
        nobody = neighbours(7)[6]
        found = read_values(bench.client, "default", [*users, nobody])
        assert found == [*[values] * 6, (None, None)]
        assert refused(cluster, "TRYAGAIN") == 1  # of the whole bucket
        assert refused(cluster, "ASK") == 5 + 2  # of each key that is there, and of nobody's
    assert read_values(bench.client, "default", users) == [values] * 6


def test_a_slot_that_has_moved_is_found(cluster, bench, moving):
    users = neighbours(4)
    values = write(bench, users[:2])
    with moving():
        pass
    write(bench, users[2:])
    assert refused(cluster, "MOVED") == 1
    assert read_values(bench.client, "default", users) == [values] * 4
    assert refused(cluster, "MOVED") == 1  # and remembered


def test_users_whose_keys_have_all_moved_are_written_where_they_are(cluster, bench, moving):
    """The source asks the writer to ask the target; nothing is refused."""
    old, new = watched("x"), watched("x", "y")
    user = neighbours(1)[0]
    write(bench, [user])
    with moving() as move:
        move.carry(move.left())
        outcome = bench.store.write(user_writes(Row(user, old.digest, new.to_bytes())))
        assert outcome.conflicts == {}
        assert refused(cluster, "ASK") == 1
        assert bench.store.read_histories([user]) == [new.to_bytes()]
    assert bench.store.read_histories([user]) == [new.to_bytes()]


def test_a_node_that_has_no_slot_yet_is_asked(cluster, bench):
    """Nobody lists it among those that serve: only the source's answer names it."""
    users = neighbours(3)
    write(bench, users)
    store, value = bench.another(), watched("x").to_bytes()
    store.write_fresh({P0: 7})
    new = cluster.add_server()
    slots = SLOTS[BUCKET], slot_of_tag("st:fresh")
    sources = [owner_of(cluster.primaries, slot) for slot in slots]
    try:
        with ExitStack() as stack:
            for slot, source in zip(slots, sources, strict=True):
                others = [server for server in cluster.primaries if server is not source]
                move = stack.enter_context(slot_moving(slot, source, new, others))
                move.carry(move.left())
            assert store.read_histories(users) == [value] * 3
            store.write_fresh({P0: 8})
            assert bench.fresh_ms_of(P0) == 8
        for slot, source in zip(slots, sources, strict=True):
            others = [server for server in cluster.primaries if server is not source]
            with slot_moving(slot, new, source, others):
                pass
    finally:
        new.stop()


def test_a_write_of_keys_that_are_here_and_there_fails_at_once_and_succeeds_later(
    cluster, bench, moving
):
    users = neighbours(4)
    old, new = watched("x"), watched("x", "y")
    write(bench, users)
    rows = [Row(user, old.digest, new.to_bytes(), features_of(new)) for user in users]
    with moving() as move:
        move.carry([oracle.history_key(user) for user in users[:2]])
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable) as caught:
                bench.store.write(user_writes(*rows))
            assert caught.value.kind == "slot_moving"
            assert time.monotonic() - started < 1  # who calls decides about the next try
        assert refused(cluster, "TRYAGAIN") == 2
    assert bench.store.write(user_writes(*rows)).conflicts == {}
    assert bench.store.read_histories(users) == [new.to_bytes()] * 4


def test_the_others_of_a_batch_are_written_when_one_bucket_cannot_be(bench, moving):
    ann, ben = neighbours(2)
    elsewhere = [f"viewer-{n}" for n in range(100)]
    elsewhere = [user for user in elsewhere if oracle.bucket(user) != "00"]
    write(bench, [ann])
    state = watched("x")
    rows = [Row(user, ABSENT, state.to_bytes()) for user in [ben, *elsewhere]]
    with moving(), pytest.raises(StoreUnavailable):
        bench.store.write(user_writes(*rows))  # what is new is in neither place
    assert bench.store.read_histories([ben, *elsewhere]) == [None] + [state.to_bytes()] * len(
        elsewhere
    )
    # What was acknowledged is remembered, so nothing looks lost, and repeating it is a conflict.
    assert bench.store.write(user_writes(*rows)).conflicts.keys() == set(range(1, len(rows)))
    bench.store.move_marks({P0: MarkMove(None, Mark(5))})


def test_marks_move_on_when_the_slot_has_moved(bench, moving):
    write(bench, neighbours(1))
    bench.store.move_marks({P0: MarkMove(None, Mark(5))})
    with moving() as move:
        move.carry(move.left()[:1])
        with pytest.raises(StoreUnavailable):
            bench.store.move_marks({P0: MarkMove(Mark(5), Mark(9))})
        assert bench.store.read_marks([P0]) == {P0: Mark(5)}  # 255 buckets have 9, one has 5
    assert bench.store.move_marks({P0: MarkMove(Mark(5), Mark(12))}) == {P0: Mark(12)}
    assert bench.another().read_marks([P0]) == {P0: Mark(12)}


def test_nothing_is_lost_while_slots_move_under_load(cluster, bench, moving):
    n_users, n_moves = 300, 40
    users = [f"viewer-{number}" for number in range(n_users)]
    is_over = threading.Event()

    def move_slots():
        for bucket in range(n_moves):
            with moving(bucket) as move:
                for key in move.left():
                    move.carry([key])
        is_over.set()

    mover = threading.Thread(target=move_slots)
    mover.start()
    titles, n_retries = [], 0
    while not is_over.is_set() or len(titles) < 3:
        before = watched(*titles).digest if titles else ABSENT
        titles.append(f"title-{len(titles)}")
        n_retries += write_until_done(bench.store, users, before, watched(*titles).to_bytes())
    mover.join()
    assert bench.store.read_histories(users) == [watched(*titles).to_bytes()] * n_users
    assert refused(cluster, "MOVED") > 0
    assert refused(cluster, "TRYAGAIN") >= n_retries > 0
    bench.store.move_marks({P0: MarkMove(None, Mark(5))})


def write_until_done(store, users, before, history):
    """Write one history to all users, as often as it takes; return how often it failed."""
    rows = [Row(user, before, history) for user in users]
    for n_failed in range(10_000):
        try:
            conflicts = store.write(user_writes(*rows)).conflicts
        except StoreUnavailable as error:
            assert error.kind == "slot_moving"  # noqa: PT017
            time.sleep(0.002)
        else:
            # After a failure some had been written already: comparing again shows it.
            assert set(conflicts.values()) <= {history}
            return n_failed
    return pytest.fail("the slots never came to rest")
