"""What Redis holds that is not ours, or not ours alone, and how much one call may carry."""

import oracle
import pytest
from contracts.test_feature_store import (
    ABSENT,
    P0,
    RedisBench,
    Row,
    features_of,
    forget,
    user_writes,
    watched,
)

from streamer.pipeline.ports import Mark, MarkMove
from streamer.stores.keys import MARKS, VARIANTS, quarantine_key
from streamer.stores.redis_store import MAX_USERS_PER_CALL

TOPIC_ID = "dyaXjV-zRQqJqxzkBfDVWA"
FOREIGN_MARKS = [
    b"not a number",
    b"",
    b"-5",
    b"+5",
    b" 5",
    b"5 ",
    b"5\n",
    b"1e3",
    b"0x10",
    b"1_000",
    b"9" * 19,
    b"5 " + b"x" * 65,
    b"5 two words",
    b"5 \xff",
    "\u0665".encode(),  # a digit to Python, not to us
]


@pytest.fixture
def bench(redis_url):
    bench = RedisBench(redis_url)
    yield bench
    bench.client.close()


def test_one_call_carries_at_most_125_users(bench):
    state = watched("x")
    bench.store.write(user_writes(Row("warm", ABSENT, state.to_bytes())))
    bench.client.config_resetstat()
    rows = [Row(f"viewer-{n}", ABSENT, state.to_bytes(), features_of(state)) for n in range(301)]
    assert bench.store.write(user_writes(*rows)).conflicts == {}
    assert MAX_USERS_PER_CALL == 125
    assert bench.n_calls("evalsha") == 3
    assert len(bench.keys()) == 1 + 2 * 301


@pytest.mark.parametrize("foreign", FOREIGN_MARKS)
def test_a_foreign_mark_vouches_for_nothing_and_gives_way_to_the_first_of_ours(bench, foreign):
    bench.client.hset(MARKS, f"{bench.group_id}/play-events/0", foreign)
    assert bench.store.read_marks([P0]) == {P0: None}
    assert bench.store.move_marks({P0: MarkMove(None, None)}) == {P0: None}
    ours = Mark(7, TOPIC_ID)
    assert bench.store.move_marks({P0: MarkMove(None, ours)}) == {P0: ours}
    assert bench.store.read_marks([P0]) == {P0: ours}


@pytest.mark.parametrize("mark", [Mark(0, ""), Mark(10**18 - 1, ""), Mark(5, "x" * 64)])
def test_a_mark_of_ours_is_never_taken_for_a_foreign_one(bench, mark):
    assert bench.store.move_marks({P0: MarkMove(None, mark)}) == {P0: mark}
    assert bench.store.move_marks({P0: MarkMove(None, Mark(1, ""))}) == {P0: mark}
    assert bench.store.move_marks({P0: MarkMove(mark, Mark(1, ""))}) == {P0: Mark(1, "")}


def test_forgetting_takes_foreign_names_for_no_variant(bench):
    before = watched("x")
    bench.store.write(user_writes(Row("ann", ABSENT, before.to_bytes(), features_of(before))))
    foreign = [b"\xff\xfe", b"", b"Upper", b"a:b", b"x" * 33, b"default\n"]
    bench.client.sadd(VARIANTS, "default", *foreign)
    bystander = oracle.features_key("ann", "a:b")
    bench.put(bystander, b"not ours to delete")
    outcome = bench.store.write(user_writes(forget("ann", before)))
    assert outcome.conflicts == {}
    assert bench.value(oracle.features_key("ann", "default")) is None
    assert bench.value(bystander) == b"not ours to delete"


@pytest.mark.parametrize("second", [b"broken again", b""])
def test_of_several_broken_values_the_first_is_kept(bench, second):
    key = oracle.history_key("ann")
    for broken in (b"the first", second):
        bench.put(key, broken)
        bench.store.quarantine("ann", broken)
        assert bench.value(key) is None
    assert bench.value(quarantine_key(key)) == b"the first"
