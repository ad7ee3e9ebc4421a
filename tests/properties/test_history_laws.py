"""The lattice, with the cut: any order, batching, repetition and merge gives the oracle's bytes."""

import random
from collections import Counter

import numpy as np
import numpy_merge
import oracle
from hypothesis import given
from hypothesis import strategies as st
from strategies import drawn_interactions, examples, logs, seeds, states

from streamer.history import HistoryBatch, Interactions, Outcome, decode, digests, encode, merge


def evidence_of_log(users, log):
    """What a batch of events brings, as columns over `users`."""
    row_of = {user: row for row, user in enumerate(users)}
    with_entry = [event for event in log if event.interaction]
    forgotten = np.zeros(len(users), np.uint64)
    for event in log:
        row = row_of[event.user_id]
        forgotten[row] = max(int(forgotten[row]), event.forgotten_before_ms or 0)
    return Interactions(
        rows=np.array([row_of[event.user_id] for event in with_entry], np.intp),
        item_keys=np.array([event.interaction.item_key for event in with_entry], np.uint64),
        words=np.array([event.interaction.word for event in with_entry], np.uint64),
        forgotten_before_ms=forgotten,
    )


def evidence_of_histories(histories):
    """Histories as evidence, to be merged into others."""
    rows, slots = np.nonzero(histories.words)
    return Interactions(
        rows,
        histories.item_keys[rows, slots],
        histories.words[rows, slots],
        histories.forgotten_before_ms,
    )


def as_bytes(histories):
    return encode(histories, digests(histories))


def as_histories(values):
    histories, _, is_broken = decode(values)
    assert not is_broken.any()
    return histories


def join(a, b):
    """Merge two batches that were read back from bytes."""
    return as_bytes(merge(as_histories(a), evidence_of_histories(as_histories(b)))[0])


def expected(users, log):
    final = oracle.replay(log)
    return [final.get(user, oracle.State()).to_bytes() for user in users]


@given(logs(), st.integers(1, 500), seeds)
@examples(150)
def test_any_order_batching_and_repetition_of_a_log_gives_the_same_bytes(log, batch_size, seed):
    users = sorted({event.user_id for event in log})
    shuffled = log + random.Random(seed).choices(log, k=len(log) // 3) if log else []
    random.Random(seed).shuffle(shuffled)
    histories = HistoryBatch.empty(len(users))
    for start in range(0, len(shuffled), batch_size):
        batch = shuffled[start : start + batch_size]
        histories, _ = merge(histories, evidence_of_log(users, batch))
    assert as_bytes(histories) == expected(users, log)


@given(st.lists(drawn_interactions(), max_size=12), st.integers(0, 12))
@examples(100)
def test_equal_times_and_equal_words_are_settled_by_the_total_order(interactions, split):
    log = [oracle.Accepted("u", "play_stop", each) for each in interactions]
    histories = HistoryBatch.empty(1)
    for batch in (log[:split], log[split:]):
        histories, _ = merge(histories, evidence_of_log(["u"], batch))
    assert as_bytes(histories) == expected(["u"], log)


@given(logs())
@examples(80)
def test_users_of_one_batch_do_not_touch_each_other(log):
    users = sorted({event.user_id for event in log})
    together, _ = merge(HistoryBatch.empty(len(users)), evidence_of_log(users, log))
    for row, user in enumerate(users):
        own = [event for event in log if event.user_id == user]
        alone, _ = merge(HistoryBatch.empty(1), evidence_of_log([user], own))
        assert as_bytes(alone) == as_bytes(together)[row : row + 1]


@given(logs(), seeds)
@examples(80)
def test_a_log_split_over_zombies_is_joined_to_the_same_bytes(log, seed):
    users = sorted({event.user_id for event in log})
    rolls = random.Random(seed)
    parts = [[], [], []]
    for event in log:
        for part in rolls.sample(parts, rolls.choice([1, 1, 2])):
            part.append(event)
    values = [
        as_bytes(merge(HistoryBatch.empty(len(users)), evidence_of_log(users, part))[0])
        for part in parts
    ]
    rolls.shuffle(values)
    assert join(join(values[0], values[1]), values[2]) == expected(users, log)


@given(st.lists(st.tuples(states(), states(), states()), min_size=1, max_size=4))
@examples(100)
def test_a_join_of_stored_histories_is_associative_commutative_and_idempotent(triples):
    a, b, c = ([state.to_bytes() for state in column] for column in zip(*triples, strict=True))
    joined = join(join(a, b), c)
    assert joined == join(a, join(b, c))
    assert joined == join(join(c, a), b)
    assert joined == [x.merged(y).merged(z).to_bytes() for x, y, z in triples]
    assert join(a, a) == a
    assert join(joined, a) == joined
    assert join(b, joined) == joined


@given(logs(), st.integers(0, 300))
@examples(100)
def test_every_interaction_has_the_outcome_that_the_set_gives_it(log, split):
    users = sorted({event.user_id for event in log})
    before, batch = log[:split], log[split:]
    histories, _ = merge(HistoryBatch.empty(len(users)), evidence_of_log(users, before))
    arrived = evidence_of_log(users, batch)
    _, outcomes = merge(histories, arrived)
    held = oracle.replay(before)
    counted = Counter()
    for user in users:
        own = [event for event in batch if event.user_id == user]
        counted += oracle.merge_outcomes(
            held.get(user, oracle.State()),
            [event.interaction for event in own if event.interaction],
            max((event.forgotten_before_ms or 0 for event in own), default=0),
        )
    assert Counter(Outcome(outcome).name.lower() for outcome in outcomes.tolist()) == counted


@given(logs())
@examples(20)
def test_a_merge_leaves_its_inputs_as_they_were(log):
    users = sorted({event.user_id for event in log})
    half = len(log) // 2
    histories, _ = merge(HistoryBatch.empty(len(users)), evidence_of_log(users, log[:half]))
    arrived = evidence_of_log(users, log[half:])
    columns = [
        *(getattr(histories, name) for name in HistoryBatch.__slots__),
        *(getattr(arrived, name) for name in Interactions.__slots__),
    ]
    columns = [column for column in columns if column is not None]
    copies = [column.copy() for column in columns]
    merge(histories, arrived)
    for column, copy in zip(columns, copies, strict=True):
        np.testing.assert_array_equal(column, copy)


@given(logs(), st.lists(st.integers(0, 3), max_size=4, unique=True))
@examples(30)
def test_the_evidence_of_some_users_alone_is_what_they_had(log, wanted):
    users = [f"u-{number}" for number in range(4)]
    arrived = evidence_of_log(users, log)
    some = arrived.of_users(np.array(wanted, np.intp))
    histories, _ = merge(HistoryBatch.empty(len(wanted)), some)
    assert as_bytes(histories) == expected([users[row] for row in wanted], log)


@given(logs(), seeds)
@examples(150)
def test_the_compiled_merge_gives_the_histories_and_outcomes_of_the_one_in_numpy(log, seed):
    rolls = random.Random(seed)
    users = sorted({event.user_id for event in log})
    repeated = [*log, *rolls.sample(log, len(log) // 5)]
    rolls.shuffle(repeated)
    cut = rolls.randrange(len(repeated) + 1)
    held, _ = merge(HistoryBatch.empty(len(users)), evidence_of_log(users, repeated[:cut]))
    new = evidence_of_log(users, repeated[cut:])
    histories, outcomes = merge(held, new)
    expected, expected_outcomes = numpy_merge.merge(held, new)
    # Which of several equal interactions is the new one is left open.
    columns = new.rows, new.item_keys, new.words
    assert sorted(zip(*columns, outcomes, strict=True)) == sorted(
        zip(*columns, expected_outcomes, strict=True)
    )
    assert as_bytes(histories) == as_bytes(expected)
    np.testing.assert_array_equal(histories.words, expected.words)  # also beyond the counts
    np.testing.assert_array_equal(histories.item_keys, expected.item_keys)
