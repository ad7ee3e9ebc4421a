"""What every feature store does, held against the memory adapter and a real Redis."""

import os
import select
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import oracle
import pytest
import redis
from waiting import eventually

from streamer.dev.redis_server import RedisServer
from streamer.errors import StoreForgot, StoreUnavailable
from streamer.experiments import Additions, Book
from streamer.host.ports import LOOPBACK, free_ports
from streamer.pipeline.ports import Mark, MarkMove
from streamer.pipeline.records import Partition
from streamer.pipeline.step import UserWrites
from streamer.stores import MemoryStore, RedisStore, connect, read_sums
from streamer.stores.keys import MARKS, N_BUCKETS, quarantine_key, sums_key

ABSENT = 0
NOON_MS = 1_763_900_000_000
DAY_MS = 86_400_000
TOMBSTONE_DAYS = 30.0
P0, P1 = Partition("play-events", 0), Partition("browse-events", 1)

AWKWARD_IDS = (
    "{00}",
    "a}b{c",
    "st:h:{00}:x",
    "default:x",
    " ",
    "two words",
    "zoë-观众-🎬",
    "%s\\n*?[]",
    "v" * 128,
    "é" * 64,
)
BROKEN_VALUES = {
    "empty": b"",
    "magic alone": b"SH",
    "no digest": b"SH\1\0\0\0\0\0",
    "cut in the digest": b"SH\1" + b"x" * 12,
    "another magic": b"XX\1" + b"x" * 21,
    "unknown version": b"SH\2" + b"x" * 21,
    "all zeros": b"SH\1" + bytes(21),
    "text": b"hello, this is no history at all",
}


class Row(NamedTuple):
    """One user of a write."""

    user_id: str
    expected: int = ABSENT
    history: bytes = b""
    features: bytes = b""
    is_forgotten: bool = False
    is_tombstone: bool = False


def user_writes(*rows, generation=1, variant="default"):
    has_features = any(row.features for row in rows)
    return UserWrites(
        user_ids=[row.user_id for row in rows],
        expected_digests=np.array([row.expected for row in rows], np.uint64),
        histories=[row.history for row in rows],
        features={variant: [row.features for row in rows]} if has_features else {},
        generations={variant: generation} if has_features else {},
        is_forgotten=np.array([row.is_forgotten for row in rows], bool),
        is_tombstone=np.array([row.is_tombstone for row in rows], bool),
    )


MEMORY, ROWS = Book("memory", NOON_MS), Book("rows-2", NOON_MS - DAY_MS)


def adding(writes, *additions):
    """Return the writes with (row, book, field, amount) beside them."""
    parts = [
        Additions(np.array([row]), (book,), np.zeros(1, int), (field,), np.zeros(1, int), each)
        for row, book, field, amount in additions
        for each in [np.array([amount])]
    ]
    return replace(writes, additions=Additions.joined(parts))


def summed(sums):
    """Return the sums over all buckets, of the fields that are there."""
    total = Counter()
    for fields in sums:
        total.update(fields)
    return dict(total)


def watched(*titles, forgotten_before_ms=0):
    """A history of full plays, one second apart."""
    plays = [
        oracle.Interaction(oracle.item_key(title), oracle.PLAY, NOON_MS + 1000 * second, 200)
        for second, title in enumerate(titles)
    ]
    return oracle.State().learn(plays, forgotten_before_ms)


def features_of(state, generation=1, learner_id=7):
    vectors = np.full((2, 4), 0.5)
    header = (2, 2, 4, 11, state.digest, generation, learner_id, NOON_MS, NOON_MS, 1, 1)
    return oracle.write_features(oracle.Features(*header, vectors))


def neighbours(count):
    """Users of one bucket: what is written for them is kept, or lost, together."""
    users = (f"viewer-{number}" for number in range(10_000))
    return [user for user in users if oracle.bucket(user) == "00"][:count]


def forget(user_id, before, features=b""):
    """The write of a user who is forgotten, and perhaps begins anew."""
    state = watched(forgotten_before_ms=NOON_MS + DAY_MS)
    return Row(user_id, before.digest, state.to_bytes(), features, True, True)


class FeatureStoreContract:
    """`bench` holds a `store`, and lets a test look behind it."""

    def test_a_user_who_has_nothing_reads_as_none(self, bench):
        assert bench.store.read_histories(["ann", "ben"]) == [None, None]
        assert bench.store.read_histories([]) == []

    def test_a_new_user_is_written_under_the_keys_of_the_design(self, bench):
        state = watched("x")
        row = Row("ann", ABSENT, state.to_bytes(), features_of(state))
        outcome = bench.store.write(user_writes(row))
        assert outcome.conflicts == {}
        assert bench.value(oracle.history_key("ann")) == row.history
        assert bench.value(oracle.features_key("ann", "default")) == row.features
        assert bench.store.read_histories(["ben", "ann"]) == [None, row.history]
        assert outcome.n_bytes == len(row.history) + len(row.features)

    def test_a_history_changes_when_its_digest_is_the_expected_one(self, bench):
        old, new = watched("x"), watched("x", "y")
        bench.store.write(user_writes(Row("ann", ABSENT, old.to_bytes())))
        outcome = bench.store.write(user_writes(Row("ann", old.digest, new.to_bytes())))
        assert outcome.conflicts == {}
        assert bench.store.read_histories(["ann"]) == [new.to_bytes()]

    def test_a_conflict_leaves_history_and_features_and_returns_what_is_stored(self, bench):
        there, ours = watched("x"), watched("y")
        features = features_of(there)
        bench.store.write(user_writes(Row("ann", ABSENT, there.to_bytes(), features)))
        outcome = bench.store.write(
            user_writes(Row("ann", ABSENT, ours.to_bytes(), features_of(ours)))
        )
        assert outcome.conflicts == {0: there.to_bytes()}
        assert outcome.foreign == frozenset()
        assert bench.store.read_histories(["ann"]) == [there.to_bytes()]
        assert bench.value(oracle.features_key("ann", "default")) == features

    def test_a_history_that_is_gone_is_a_conflict_with_none(self, bench):
        outcome = bench.store.write(
            user_writes(Row("ann", watched("x").digest, watched("x", "y").to_bytes()))
        )
        assert outcome.conflicts == {0: None}
        assert bench.store.read_histories(["ann"]) == [None]

    def test_a_row_that_only_compares_conflicts_as_well(self, bench):
        state = watched("x")
        bench.store.write(user_writes(Row("ann", ABSENT, state.to_bytes())))
        assert bench.store.write(user_writes(Row("ann", state.digest))).conflicts == {}
        outcome = bench.store.write(user_writes(Row("ann", 99), Row("ben"), Row("cleo", 99)))
        assert outcome.conflicts == {0: state.to_bytes(), 2: None}
        assert bench.store.read_histories(["ann", "ben"]) == [state.to_bytes(), None]

    def test_a_row_that_only_compares_may_bring_features(self, bench):
        state = watched("x")
        bench.store.write(user_writes(Row("ann", ABSENT, state.to_bytes())))
        features = features_of(state)
        row = Row("ann", state.digest, b"", features)
        assert bench.store.write(user_writes(row)).conflicts == {}
        assert bench.value(oracle.features_key("ann", "default")) == features
        assert bench.store.read_histories(["ann"]) == [state.to_bytes()]

    def test_a_conflict_of_one_user_is_nobody_elses(self, bench):
        state = watched("x")
        users = [f"viewer-{number}" for number in range(7)]
        bench.store.write(user_writes(*(Row(user, ABSENT, state.to_bytes()) for user in users)))
        new = watched("x", "y")
        rows = [
            Row(user, state.digest if number % 3 else 5, new.to_bytes(), features_of(new))
            for number, user in enumerate(users)
        ]
        assert set(bench.store.write(user_writes(*rows)).conflicts) == {0, 3, 6}
        for number, user in enumerate(users):
            wanted = new if number % 3 else state
            assert bench.store.read_histories([user]) == [wanted.to_bytes()]
            has_features = bench.value(oracle.features_key(user, "default")) is not None
            assert has_features == bool(number % 3)

    @pytest.mark.parametrize(("second", "is_refused"), [(4, True), (5, False), (6, False)])
    def test_features_of_a_lower_generation_alone_are_refused(self, bench, second, is_refused):
        old, new = watched("x"), watched("x", "y")
        first = features_of(old, generation=5)
        bench.store.write(user_writes(Row("ann", ABSENT, old.to_bytes(), first), generation=5))
        late = features_of(new, generation=second)
        row = Row("ann", old.digest, new.to_bytes(), late)
        outcome = bench.store.write(user_writes(row, generation=second))
        assert outcome.conflicts == {}
        assert outcome.n_superseded == is_refused
        assert bench.value(oracle.features_key("ann", "default")) == (first if is_refused else late)
        assert bench.store.read_histories(["ann"]) == [new.to_bytes()]

    def test_each_variant_has_a_generation_of_its_own(self, bench):
        state = watched("x")
        for variant, generation in (("default", 5), ("other", 2)):
            row = Row("ann", ABSENT, state.to_bytes(), features_of(state, generation=generation))
            if variant == "other":
                row = row._replace(expected=state.digest, history=b"")
            bench.store.write(user_writes(row, generation=generation, variant=variant))
        late, newer = features_of(state, generation=4), features_of(state, generation=3)
        both = replace(
            user_writes(Row("ann", state.digest)),
            features={"default": [late], "other": [newer]},
            generations={"default": 4, "other": 3},
        )
        assert bench.store.write(both).n_superseded == 1
        stored = bench.value(oracle.features_key("ann", "default"))
        assert oracle.read_features(stored).generation == 5
        assert bench.value(oracle.features_key("ann", "other")) == newer

    def test_the_greatest_generation_fits(self, bench):
        state = watched("x")
        last = 2**32 - 1
        features = features_of(state, generation=last)
        bench.store.write(user_writes(Row("ann", 0, state.to_bytes(), features), generation=last))
        row = Row("ann", state.digest, b"", features_of(state, generation=last - 1))
        assert bench.store.write(user_writes(row, generation=last - 1)).n_superseded == 1
        assert bench.value(oracle.features_key("ann", "default")) == features

    def test_features_of_an_unknown_form_are_moved_aside(self, bench):
        state = watched("x")
        key = oracle.features_key("ann", "default")
        bench.put(key, b"SF\2 a form of next year")
        features = features_of(state)
        outcome = bench.store.write(user_writes(Row("ann", ABSENT, state.to_bytes(), features)))
        assert outcome.n_quarantined == 1
        assert bench.value(key) == features
        assert bench.value(quarantine_key(key)) == b"SF\2 a form of next year"

    def test_forgetting_deletes_the_features_of_every_variant_ever_used(self, bench):
        before = watched("x")
        for variant in ("default", "retired", "other"):
            bench.use_variant(variant)
        for variant in ("default", "retired", "other"):
            for user in ("ann", "ben"):
                bench.put(oracle.features_key(user, variant), features_of(before))
        for user in ("ann", "ben"):
            bench.put(oracle.history_key(user), before.to_bytes())
        row = forget("ann", before)
        assert bench.store.write(user_writes(row)).conflicts == {}
        assert bench.store.read_histories(["ann", "ben"]) == [row.history, before.to_bytes()]
        for variant in ("default", "retired", "other"):
            assert bench.value(oracle.features_key("ann", variant)) is None
            assert bench.value(oracle.features_key("ben", variant)) is not None

    def test_forgetting_deletes_imported_vectors_and_whatever_was_set_aside(self, bench):
        before = watched("x")
        for variant in ("default", "retired"):
            bench.use_variant(variant)
        for user in ("ann", "ben"):
            bench.put(oracle.history_key(user), before.to_bytes())
        keys = {
            user: [
                f"st:{kind}:{{{oracle.bucket(user)}}}:{variant}{user}"
                for kind, variant in [
                    ("u", "default:"),
                    ("u", "retired:"),
                    ("q:h", ""),
                    ("q:f", "default:"),
                    ("q:f", "retired:"),
                    ("q:u", "retired:"),
                ]
            ]
            for user in ("ann", "ben")
        }
        for key in keys["ann"] + keys["ben"]:
            bench.put(key, b"something")
        bench.store.write(user_writes(forget("ann", before)))
        assert [key for key in keys["ann"] if bench.value(key) is not None] == []
        assert [key for key in keys["ben"] if bench.value(key) is None] == []

    def test_of_several_forgotten_users_each_loses_their_own_features(self, bench):
        users, variants = ("ann", "ben", "cleo", "dora"), ("default", "retired")
        before = watched("x")
        for variant in variants:
            bench.use_variant(variant)
        for user in users:
            bench.put(oracle.history_key(user), before.to_bytes())
            for variant in variants:
                bench.put(oracle.features_key(user, variant), features_of(before))
        bench.put(oracle.history_key("ann"), watched("z").to_bytes())  # a conflict comes first
        rows = [forget("ann", before), Row("ben", before.digest), forget("cleo", before)]
        outcome = bench.store.write(user_writes(*rows, forget("dora", before)))
        assert set(outcome.conflicts) == {0}
        for user in users:
            for variant in variants:
                is_there = bench.value(oracle.features_key(user, variant)) is not None
                assert is_there == (user in {"ann", "ben"}), (user, variant)

    def test_a_variant_that_was_first_used_a_moment_ago_is_forgotten_too(self, bench):
        before = watched("x")
        bench.use_variant("default")
        for user in ("ann", "ben"):
            bench.put(oracle.history_key(user), before.to_bytes())
        bench.store.write(user_writes(forget("ann", before)))
        bench.use_variant("brand-new")
        bench.put(oracle.features_key("ben", "brand-new"), features_of(before))
        bench.store.write(user_writes(forget("ben", before)))
        assert bench.value(oracle.features_key("ben", "brand-new")) is None

    def test_who_is_forgotten_and_begins_anew_keeps_the_new_features_alone(self, bench):
        before = watched("x")
        bench.use_variant("retired")
        bench.put(oracle.history_key("ann"), before.to_bytes())
        for variant in ("default", "retired"):
            bench.put(oracle.features_key("ann", variant), features_of(before, generation=9))
        anew = watched("y", forgotten_before_ms=NOON_MS - 1)
        features = features_of(anew)
        row = Row("ann", before.digest, anew.to_bytes(), features, is_forgotten=True)
        outcome = bench.store.write(user_writes(row))
        assert outcome.n_superseded == 0  # what is gone supersedes nothing
        assert bench.value(oracle.features_key("ann", "default")) == features
        assert bench.value(oracle.features_key("ann", "retired")) is None

    def test_a_conflict_forgets_nothing(self, bench):
        before = watched("x")
        bench.use_variant("default")
        bench.put(oracle.history_key("ann"), watched("z").to_bytes())
        bench.put(oracle.features_key("ann", "default"), features_of(before))
        outcome = bench.store.write(user_writes(forget("ann", before)))
        assert outcome.conflicts == {0: watched("z").to_bytes()}
        assert bench.value(oracle.features_key("ann", "default")) == features_of(before)

    def test_sums_gain_with_the_histories_they_are_of_in_each_users_bucket(self, bench):
        state = watched("x")
        users = [f"viewer-{number}" for number in range(300)]
        rows = [Row(user, ABSENT, state.to_bytes()) for user in users]
        additions = [(row, MEMORY, "a/plays", 1 + row) for row in range(300)]
        additions += [(7, MEMORY, "b/thumbs_up", -2), (7, ROWS, "a/plays", 2**45)]
        bench.store.write(adding(user_writes(*rows), *sorted(additions)))
        wanted = [{} for _ in range(N_BUCKETS)]
        for row, user in enumerate(users):
            sums = wanted[int(oracle.bucket(user), 16)]
            sums["a/plays"] = sums.get("a/plays", 0) + 1 + row
        wanted[int(oracle.bucket(users[7]), 16)]["b/thumbs_up"] = -2
        assert bench.sums(MEMORY) == wanted
        assert summed(bench.sums(ROWS)) == {"a/plays": 2**45}
        assert summed(bench.sums(MEMORY._replace(start_ms=NOON_MS + 1000))) == {}

    def test_a_conflict_adds_nothing_and_what_is_written_beside_it_does(self, bench):
        state, newer = watched("x"), watched("x", "y")
        bench.put(oracle.history_key("ann"), watched("z").to_bytes())
        rows = [Row("ann", state.digest, newer.to_bytes()), Row("ben", ABSENT, newer.to_bytes())]
        additions = [(0, MEMORY, "a/plays", 1), (1, MEMORY, "a/plays", 10)]
        bench.store.write(adding(user_writes(*rows), *additions))
        assert summed(bench.sums(MEMORY)) == {"a/plays": 10}
        bench.store.write(adding(user_writes(*rows), *additions))  # as after a lost answer
        assert summed(bench.sums(MEMORY)) == {"a/plays": 10}

    def test_sums_are_forgotten_and_remembered_together_with_histories(self, bench):
        first, second = watched("x"), watched("x", "y")
        plays = [(0, MEMORY, "a/plays", 1)]
        bench.store.write(adding(user_writes(Row("ann", ABSENT, first.to_bytes())), *plays))
        forget_the_rest = bench.copy()
        again = adding(user_writes(Row("ann", first.digest, second.to_bytes())), *plays)
        bench.store.write(again)
        assert summed(bench.sums(MEMORY)) == {"a/plays": 2}
        forget_the_rest()
        with pytest.raises(StoreForgot):
            bench.store.write(again)
        assert summed(bench.sums(MEMORY)) == {"a/plays": 1}
        bench.store.write(again)
        assert summed(bench.sums(MEMORY)) == {"a/plays": 2}

    @pytest.mark.parametrize("name", BROKEN_VALUES)
    @pytest.mark.parametrize("expected", [ABSENT, 99])
    def test_a_broken_or_unknown_value_is_a_conflict_and_stays(self, bench, name, expected):
        bench.put(oracle.history_key("ann"), BROKEN_VALUES[name])
        row = Row("ann", expected, watched("x").to_bytes())
        outcome = bench.store.write(user_writes(row))
        assert outcome.conflicts == {0: BROKEN_VALUES[name]}
        assert bench.store.read_histories(["ann"]) == [BROKEN_VALUES[name]]

    def test_quarantine_moves_a_value_that_is_still_there(self, bench):
        key = oracle.history_key("ann")
        bench.put(key, b"broken")
        bench.store.quarantine("ann", b"broken")
        assert bench.value(key) is None
        assert bench.value("st:q:" + key.removeprefix("st:")) == b"broken"

    def test_quarantine_leaves_a_value_that_was_mended_meanwhile(self, bench):
        key = oracle.history_key("ann")
        bench.put(key, watched("x").to_bytes())
        bench.store.quarantine("ann", b"broken")
        bench.store.quarantine("ann", None)  # as if it had held no string
        bench.store.quarantine("ben", b"broken")
        assert bench.value(key) == watched("x").to_bytes()
        assert bench.value(quarantine_key(key)) is None

    def test_a_mark_moves_from_none_to_a_number_and_on(self, bench):
        store = bench.store
        assert store.read_marks([P0, P1]) == {P0: None, P1: None}
        assert store.move_marks({P0: MarkMove(None, Mark(5))}) == {P0: Mark(5)}
        assert store.move_marks({P0: MarkMove(Mark(5), Mark(12)), P1: MarkMove(None, Mark(0))}) == {
            P0: Mark(12),
            P1: Mark(0),
        }
        assert store.move_marks({P0: MarkMove(Mark(12), Mark(7))}) == {P0: Mark(7)}  # a rewind
        assert store.read_marks([P1, P0]) == {P1: Mark(0), P0: Mark(7)}

    def test_a_mark_that_is_not_the_expected_one_stays_and_is_returned(self, bench):
        store = bench.store
        store.move_marks({P0: MarkMove(None, Mark(5))})
        assert store.move_marks({P0: MarkMove(None, Mark(9))}) == {P0: Mark(5)}
        assert store.move_marks(
            {P0: MarkMove(Mark(4), Mark(9)), P1: MarkMove(Mark(4), Mark(9))}
        ) == {P0: Mark(5), P1: None}
        assert store.read_marks([P0, P1]) == {P0: Mark(5), P1: None}

    def test_a_mark_of_another_topic_is_another_mark(self, bench):
        store = bench.store
        old, new = Mark(5, "hQMzg5frS/WPWZwYgmbnjg"), Mark(0, "9i8Q5pPpRD6CC4gsnetk9g")
        assert store.move_marks({P0: MarkMove(None, old)}) == {P0: old}
        assert store.move_marks({P0: MarkMove(Mark(5), new)}) == {P0: old}
        assert store.move_marks({P0: MarkMove(Mark(5, new.topic_id), new)}) == {P0: old}
        assert store.move_marks({P0: MarkMove(old, new)}) == {P0: new}
        assert store.read_marks([P0]) == {P0: new}

    def test_a_mark_can_be_asked_for_without_moving_it(self, bench):
        store = bench.store
        store.move_marks({P0: MarkMove(None, Mark(5))})
        assert store.move_marks({P0: MarkMove(Mark(5), None)}) == {P0: Mark(5)}
        assert store.move_marks({P0: MarkMove(Mark(4), None), P1: MarkMove(None, None)}) == {
            P0: Mark(5),
            P1: None,
        }
        assert store.read_marks([P0, P1]) == {P0: Mark(5), P1: None}

    def test_freshness_is_kept_by_partition(self, bench):
        bench.store.write_fresh({P0: NOON_MS, P1: NOON_MS + 1})
        bench.store.write_fresh({P1: NOON_MS + 9})
        assert bench.fresh_ms() == {P0: NOON_MS, P1: NOON_MS + 9}

    def test_an_empty_batch_is_nothing_at_all(self, bench):
        outcome = bench.store.write(user_writes())
        assert outcome.conflicts == {}
        assert outcome.n_bytes == 0
        assert bench.store.move_marks({}) == {}
        assert bench.store.read_marks([]) == {}
        bench.store.write_fresh({})
        assert bench.keys() == set()

    def test_a_batch_of_2000_users_is_written_and_compared_row_by_row(self, bench):
        state = watched("x")
        users = [f"viewer-{number}" for number in range(2000)]
        history, features = state.to_bytes(), features_of(state)
        rows = [Row(user, ABSENT, history, features) for user in users]
        assert bench.store.write(user_writes(*rows)).conflicts == {}
        assert bench.store.read_histories(users) == [history] * 2000
        bench.put(oracle.history_key(users[1999]), watched("z").to_bytes())
        assert bench.store.write(
            user_writes(*(Row(user, state.digest) for user in users))
        ).conflicts == {1999: watched("z").to_bytes()}
        assert len(bench.keys()) == 4000

    def test_no_user_id_meets_another_ones_keys(self, bench):
        for user in AWKWARD_IDS:
            bench.use_variant("default")
            state = watched(user)
            row = Row(user, ABSENT, state.to_bytes(), features_of(state))
            assert bench.store.write(user_writes(row)).conflicts == {}
        histories = [watched(user).to_bytes() for user in AWKWARD_IDS]
        assert bench.store.read_histories(AWKWARD_IDS) == histories
        for user in AWKWARD_IDS:
            assert bench.value(oracle.history_key(user)) == watched(user).to_bytes()
            bench.store.write(user_writes(forget(user, watched(user))))
            assert bench.value(oracle.features_key(user, "default")) is None
        assert len(bench.keys()) == len(AWKWARD_IDS)

    def test_a_write_after_acknowledged_ones_were_lost_says_so_and_writes_nothing(self, bench):
        ann, ben, cleo, dora = neighbours(4)
        restore = bench.copy()
        state = watched("x")
        bench.store.write(user_writes(Row(ann, ABSENT, state.to_bytes())))
        restore()
        with pytest.raises(StoreForgot):
            bench.store.write(user_writes(Row(ben, ABSENT, state.to_bytes())))
        assert bench.store.read_histories([ann, ben]) == [None, None]
        # Said once: what comes next starts anew.
        bench.store.write(user_writes(Row(ben, ABSENT, state.to_bytes())))
        assert bench.store.read_histories([ann, ben]) == [None, state.to_bytes()]
        bench.store.move_marks({P0: MarkMove(None, Mark(5))})
        with_ben = bench.copy()
        bench.store.write(user_writes(Row(cleo, ABSENT, state.to_bytes())))
        with_ben()
        with pytest.raises(StoreForgot):
            bench.store.write(user_writes(Row(dora, ABSENT, state.to_bytes())))

    def test_no_mark_moves_after_acknowledged_writes_were_lost(self, bench):
        state = watched("x")
        bench.store.move_marks({P0: MarkMove(None, Mark(5))})
        bench.store.write(user_writes(Row("ann", ABSENT, state.to_bytes())))
        restore = bench.copy()
        bench.store.write(user_writes(Row("ben", ABSENT, state.to_bytes())))
        restore()
        with pytest.raises(StoreForgot):
            bench.store.move_marks({P0: MarkMove(Mark(5), Mark(9))})
        assert bench.store.read_marks([P0]) == {P0: Mark(5)}
        assert bench.store.move_marks({P0: MarkMove(Mark(5), Mark(9))}) == {P0: Mark(9)}

    def test_a_store_that_remembers_everything_never_says_otherwise(self, bench):
        state, rival = watched("x"), bench.another()
        for _ in range(3):
            for store in (bench.store, rival):
                store.write(user_writes(Row("ann", ABSENT, state.to_bytes())))
                store.move_marks({P0: MarkMove(None, Mark(5))})
                store.read_histories(["ann"])
        bench.copy()()  # as after a restart that kept everything
        bench.store.write(user_writes(Row("ann", state.digest)))
        rival.write(user_writes(Row("ann", state.digest)))


class MemoryBench:
    def __init__(self):
        self.store = MemoryStore()

    def another(self):
        return MemoryStore(self.store.state)

    def value(self, key):
        return self.store.values.get(key)

    def put(self, key, value):
        self.store.values[key] = value

    def use_variant(self, variant):
        self.store.state.variants.add(variant)

    def sums(self, book):
        return [
            self.store.state.sums.get(sums_key(bucket, book), {}) for bucket in range(N_BUCKETS)
        ]

    def fresh_ms(self):
        return self.store.fresh_ms

    def keys(self):
        return set(self.store.values)

    def copy(self):
        store = self.store
        then = store.state.copy()
        return lambda: store.state.forget(then)


class TestMemoryStore(FeatureStoreContract):
    @pytest.fixture
    def bench(self):
        return MemoryBench()


class RedisBench:
    group_id = "readers-of-the-contract"

    def __init__(self, url, timeout_seconds=5.0, expire_after_days=0.0):
        self.client = connect(url, timeout_seconds=timeout_seconds)
        self.store = RedisStore(
            self.client,
            self.group_id,
            tombstone_days=TOMBSTONE_DAYS,
            expire_after_days=expire_after_days,
        )

    def another(self):
        """Return the store of another worker on the same server."""
        return RedisStore(self.client, self.group_id, tombstone_days=TOMBSTONE_DAYS)

    def value(self, key):
        return self.client.get(key)

    def put(self, key, value):
        self.client.set(key, value)

    def use_variant(self, variant):
        self.client.sadd("st:variants", variant)

    def sums(self, book):
        return read_sums(self.client, book)

    def fresh_ms(self):
        return {
            partition: int(self.client.hget("st:fresh", f"{self.group_id}/{partition.topic}/{n}"))
            for partition in (P0, P1)
            for n in [partition.number]
        }

    def keys(self):
        keys = {key.decode() for key in self.client.scan_iter(count=10_000)}
        return {key for key in keys if key.startswith(("st:h:", "st:f:", "st:q:"))}

    def copy(self):
        """Return what makes the server forget all that comes after."""
        then = {key: self.client.dump(key) for key in self.client.scan_iter(count=10_000)}

        def restore():
            self.client.flushall()
            for key, value in then.items():
                self.client.restore(key, 0, value)

        return restore

    def n_calls(self, command):
        """How often the server has run a command since it started or CONFIG RESETSTAT."""
        return self.client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0)


class TestRedisStore(FeatureStoreContract):
    @pytest.fixture
    def bench(self, redis_url):
        bench = RedisBench(redis_url)
        yield bench
        bench.client.close()

    def test_a_batch_is_one_command(self, bench):
        state = watched("x")
        bench.store.write(user_writes(Row("warm", ABSENT, state.to_bytes())))
        bench.client.config_resetstat()
        rows = [Row(f"viewer-{number}", ABSENT, state.to_bytes()) for number in range(50)]
        bench.store.write(user_writes(*rows))
        assert bench.n_calls("evalsha") == 1
        assert bench.n_calls("eval") == 0

    def test_marks_and_freshness_are_where_the_design_says(self, bench):
        bench.store.move_marks({P0: MarkMove(None, Mark(5))})
        bench.store.write_fresh({P0: NOON_MS})
        field = f"{bench.group_id}/play-events/0".encode()
        assert MARKS == "st:mark:{00}"
        assert bench.client.hgetall(MARKS) == {field: b"5"}
        assert bench.client.hgetall("st:fresh") == {field: str(NOON_MS).encode()}

    def test_a_mark_that_is_no_number_vouches_for_nothing(self, bench):
        bench.client.hset(MARKS, f"{bench.group_id}/play-events/0", "not a number")
        assert bench.store.read_marks([P0]) == {P0: None}

    def test_a_history_under_a_key_of_another_type_is_foreign_until_it_is_moved_aside(self, bench):
        key = oracle.history_key("ann")
        bench.client.hset(key, "field", "value")
        state = watched("x")
        row = Row("ann", ABSENT, state.to_bytes(), features_of(state))
        assert bench.store.read_histories(["ann"]) == [None]
        outcome = bench.store.write(user_writes(row))
        assert outcome.conflicts == {0: None}
        assert outcome.foreign == {0}
        assert bench.value(oracle.features_key("ann", "default")) is None
        bench.store.quarantine("ann", b"a string")  # it is none: this must not move it
        assert bench.client.hgetall(key) == {b"field": b"value"}
        bench.store.quarantine("ann", None)
        assert bench.client.hgetall(quarantine_key(key)) == {b"field": b"value"}
        assert bench.store.write(user_writes(row)).conflicts == {}
        assert bench.value(key) == row.history

    def test_features_under_a_key_of_another_type_are_moved_aside(self, bench):
        key = oracle.features_key("ann", "default")
        bench.client.hset(key, "field", "value")
        state = watched("x")
        row = Row("ann", ABSENT, state.to_bytes(), features_of(state))
        outcome = bench.store.write(user_writes(row))
        assert outcome.conflicts == {}
        assert outcome.n_quarantined == 1
        assert bench.value(key) == row.features
        assert bench.client.hgetall(quarantine_key(key)) == {b"field": b"value"}

    def test_a_tombstone_expires_and_a_history_does_not(self, bench):
        before = watched("x")
        bench.store.write(user_writes(Row("ann", ABSENT, before.to_bytes(), features_of(before))))
        assert bench.client.pttl(oracle.history_key("ann")) == -1
        assert bench.client.pttl(oracle.features_key("ann", "default")) == -1
        tombstone = forget("ann", before)
        bench.store.write(user_writes(tombstone))
        left_ms = bench.client.pttl(oracle.history_key("ann"))
        assert TOMBSTONE_DAYS * DAY_MS - 60_000 < left_ms <= TOMBSTONE_DAYS * DAY_MS
        anew = watched("y", forgotten_before_ms=NOON_MS - 1)
        forgotten = watched(forgotten_before_ms=NOON_MS + DAY_MS)
        bench.store.write(user_writes(Row("ann", forgotten.digest, anew.to_bytes())))
        assert bench.client.pttl(oracle.history_key("ann")) == -1

    def test_inactive_users_expire_if_that_is_asked_for(self, redis_url):
        bench = RedisBench(redis_url, expire_after_days=2.0)
        before = watched("x")
        bench.store.write(user_writes(Row("ann", ABSENT, before.to_bytes(), features_of(before))))
        for key in (oracle.history_key("ann"), oracle.features_key("ann", "default")):
            assert 2 * DAY_MS - 60_000 < bench.client.pttl(key) <= 2 * DAY_MS
        bench.store.write(user_writes(forget("ann", before)))
        assert bench.client.pttl(oracle.history_key("ann")) > 2 * DAY_MS
        bench.client.close()

    def test_features_that_are_folded_in_again_expire_with_their_history(self, redis_url):
        """A publish is no activity of anybody."""
        bench = RedisBench(redis_url, expire_after_days=2.0)
        state = watched("x")
        row = Row("ann", ABSENT, state.to_bytes(), features_of(state))
        bench.store.write(user_writes(row))
        history, features = oracle.history_key("ann"), oracle.features_key("ann", "default")
        bench.client.pexpire(history, DAY_MS)
        again = Row("ann", state.digest, b"", features_of(state, generation=2))
        bench.store.write(user_writes(again, generation=2))
        assert bench.value(features) == again.features
        assert DAY_MS - 60_000 < bench.client.pttl(features) <= DAY_MS
        bench.client.persist(history)  # from before the setting
        bench.store.write(user_writes(again, generation=2))
        assert DAY_MS < bench.client.pttl(features) <= 2 * DAY_MS

    def test_a_script_that_the_server_has_lost_is_sent_again(self, bench):
        state = watched("x")
        for user in ("ann", "ben"):
            bench.client.script_flush()
            row = Row(user, ABSENT, state.to_bytes())
            assert bench.store.write(user_writes(row)).conflicts == {}
            bench.client.script_flush()
            bench.store.move_marks({P0: MarkMove(None, Mark(5))})
            bench.put(oracle.history_key("cleo"), b"broken")
            bench.client.script_flush()
            bench.store.quarantine("cleo", b"broken")
        assert bench.store.read_histories(["ann", "ben", "cleo"]) == [state.to_bytes()] * 2 + [None]
        assert bench.store.read_marks([P0]) == {P0: Mark(5)}

    def test_a_call_that_arrives_after_the_next_one_does_nothing(self, bench):
        """It waited in a frozen server's buffer; its writer gave up and repeated it since then."""
        sent, script = [], bench.store._scripts["write"]
        execute = script._execute
        script._execute = lambda *call: sent.append(call) or execute(*call)
        late, state = watched("x", forgotten_before_ms=NOON_MS - 1), watched("x")
        bench.store.write(user_writes(Row("ben", ABSENT, late.to_bytes())))
        bench.client.delete(oracle.history_key("ben"))  # as if the call had not arrived yet
        bench.store.write(user_writes(Row("ann", ABSENT, state.to_bytes())))
        assert bench.client.execute_command(*sent[0]) is None
        assert bench.store.read_histories(["ann", "ben"]) == [state.to_bytes(), None]
        bench.store.move_marks({P0: MarkMove(None, Mark(5))})  # and nothing looks lost


# --- a Redis that does not answer ----------------------------------------------------------------

CALLS = {
    "read_histories": lambda store: store.read_histories(["ann"]),
    "write": lambda store: store.write(user_writes(Row("ann", ABSENT, watched("x").to_bytes()))),
    "forget": lambda store: store.write(user_writes(forget("ann", watched("x")))),
    "quarantine": lambda store: store.quarantine("ann", b"broken"),
    "move_marks": lambda store: store.move_marks({P0: MarkMove(None, Mark(5))}),
    "read_marks": lambda store: store.read_marks([P0]),
    "write_fresh": lambda store: store.write_fresh({P0: NOON_MS}),
}
COMMAND_OF_CALL = {
    "read_histories": "mget",
    "write": "evalsha",
    "quarantine": "evalsha",
    "move_marks": "evalsha",
    "read_marks": "hmget",
    "write_fresh": "hset",
}


@pytest.fixture
def own_server(redis_executable, tmp_path):
    """A Redis that a test may freeze, fill and stop."""
    started = []

    def start(*arguments):
        folder = tmp_path / f"redis{len(started)}"
        folder.mkdir()
        started.append(RedisServer(folder, arguments))
        started[-1].start()
        return started[-1]

    yield start
    for server in started:
        server.stop()


@contextmanager
def frozen(server):
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def sums_key_of(user):
    return sums_key(int(oracle.bucket(user), 16), MEMORY)


def test_sums_expire_some_months_after_the_last_write_to_them(redis_url):
    bench = RedisBench(redis_url)
    state, newer = watched("x"), watched("x", "y")
    plays = [(0, MEMORY, "a/plays", 1)]
    bench.store.write(adding(user_writes(Row("ann", ABSENT, state.to_bytes())), *plays))
    key = sums_key_of("ann")
    assert 90 * DAY_MS - 60_000 < bench.client.pttl(key) <= 90 * DAY_MS
    bench.client.pexpire(key, DAY_MS)
    bench.store.write(adding(user_writes(Row("ann", state.digest, newer.to_bytes())), *plays))
    assert 90 * DAY_MS - 60_000 < bench.client.pttl(key) <= 90 * DAY_MS
    assert summed(bench.sums(MEMORY)) == {"a/plays": 2}
    bench.client.close()


@pytest.mark.parametrize("field", ["a string", "another text", "too much"])
def test_sums_that_cannot_gain_harm_no_history_and_are_left_alone(redis_url, field):
    bench = RedisBench(redis_url)
    key = sums_key_of("ann")
    foreign = {"another text": b"many", "too much": b"9223372036854775807"}.get(field)
    if foreign is None:
        bench.client.set(key, field)
    else:
        bench.client.hset(key, "a/plays", foreign)
    state = watched("x")
    writes = user_writes(Row("ann", ABSENT, state.to_bytes()))
    assert bench.store.write(adding(writes, (0, MEMORY, "a/plays", 1))).conflicts == {}
    assert bench.store.read_histories(["ann"]) == [state.to_bytes()]
    assert bench.client.pttl(key) == -1
    if foreign is None:
        assert bench.client.get(key) == field.encode()
        with pytest.raises(StoreUnavailable):
            bench.sums(MEMORY)
    else:
        assert bench.client.hget(key, "a/plays") == foreign
    bench.client.close()


@pytest.mark.parametrize("call", CALLS)
def test_a_redis_that_is_not_there_is_unavailable_at_once(call):
    bench = RedisBench(f"redis://{LOOPBACK}:{free_ports(1)[0]}/0", timeout_seconds=1.0)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        CALLS[call](bench.store)
    assert time.monotonic() - started < 1.5
    assert caught.value.kind == "connection"


def test_a_frozen_redis_is_unavailable_within_the_timeout_and_sees_each_command_once(own_server):
    server = own_server()
    bench = RedisBench(server.url, timeout_seconds=0.2)
    bench.put(oracle.history_key("ann"), b"broken")
    for call in CALLS.values():  # connected, scripts loaded
        call(bench.store)
    bench.client.flushall()
    bench.client.config_resetstat()
    with frozen(server):
        for call in COMMAND_OF_CALL:
            started = time.monotonic()
            with pytest.raises(StoreUnavailable) as caught:
                CALLS[call](bench.store)
            assert time.monotonic() - started < 0.7
            assert caught.value.kind == "timeout"
    # Each lost answer belonged to a connection that is gone: none is taken for a later one's.
    assert bench.store.read_marks([P1]) == {P1: None}
    # Only the first call had a connection; its command reached the server, once. Those that
    # could not even connect never sent theirs.
    assert bench.n_calls("mget") == 1
    assert sum(bench.n_calls(command) for command in ("evalsha", "eval", "hset")) == 0


class DroppingProxy:
    """Passes everything on, until it is told to swallow the next answer and hang up."""

    def __init__(self, port):
        self._upstream = (LOOPBACK, port)
        self._listener = socket.create_server((LOOPBACK, 0))
        self.is_dropping = False
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, socket.create_connection(self._upstream) as server, suppress(OSError):
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 20)
                    if not data:
                        return
                    if ready is server and self.is_dropping:
                        self.is_dropping = False  # whoever comes again is served again
                        return
                    (client if ready is server else server).sendall(data)


@pytest.mark.parametrize("call", COMMAND_OF_CALL)
def test_a_command_whose_answer_was_lost_is_never_sent_again(redis_server, redis_url, call):
    direct = RedisBench(redis_url)
    proxy = DroppingProxy(redis_server.port)
    bench = RedisBench(f"redis://{LOOPBACK}:{proxy.port}/0")
    try:
        for each in CALLS.values():
            each(bench.store)
        direct.client.config_resetstat()
        proxy.is_dropping = True
        with pytest.raises(StoreUnavailable) as caught:
            CALLS[call](bench.store)
        assert caught.value.kind == "connection"
        command = COMMAND_OF_CALL[call]
        eventually(lambda: direct.n_calls(command), timeout_seconds=5)
        assert direct.n_calls(command) == 1
        assert direct.n_calls("eval") == 0
        CALLS[call](bench.store)  # and the next call finds its way
    finally:
        proxy.close()
        bench.client.close()
        direct.client.close()


def test_a_full_redis_refuses_and_no_user_is_half_written(own_server):
    server = own_server("--maxmemory", "1mb")
    bench = RedisBench(server.url)
    used = bench.client.info("memory")["used_memory"]
    bench.client.config_set("maxmemory", used + 600_000)
    state = watched(*(f"title-{number}" for number in range(30)))
    history, features = state.to_bytes(), features_of(state)
    batches = [
        [Row(f"viewer-{batch}-{n}", ABSENT, history, features) for n in range(20)]
        for batch in range(400)
    ]

    def write_all():
        for n_batches, rows in enumerate(batches):
            try:
                bench.store.write(user_writes(*rows))
            except StoreUnavailable as error:
                return 20 * n_batches, rows, error
        return pytest.fail("it never filled up")

    n_users, rows, error = write_all()
    assert error.kind == "out_of_memory"
    keys = bench.keys()
    assert sum(key.startswith("st:h:") for key in keys) == n_users
    assert sum(key.startswith("st:f:") for key in keys) == n_users
    bench.client.config_set("maxmemory", 0)
    bench.store.write(user_writes(*rows))
    assert bench.store.read_histories([rows[0].user_id]) == [history]
    bench.client.close()


def test_forgetting_in_a_full_redis_deletes_nothing_without_leaving_the_tombstone(own_server):
    server = own_server()
    bench = RedisBench(server.url)
    before = watched("x")
    bench.use_variant("default")
    bench.store.write(user_writes(Row("ann", ABSENT, before.to_bytes(), features_of(before))))
    bench.client.config_set("maxmemory", "1mb")
    with suppress(redis.exceptions.OutOfMemoryError):
        bench.client.set("filler", bytes(1 << 20))
    with pytest.raises(StoreUnavailable):
        bench.store.write(user_writes(forget("ann", before)))
    assert bench.store.read_histories(["ann"]) == [before.to_bytes()]
    assert bench.value(oracle.features_key("ann", "default")) == features_of(before)
    bench.client.close()


def test_what_an_error_says_never_names_a_user(own_server):
    server = own_server("--rename-command", "MGET", "", "--rename-command", "EVALSHA", "")
    bench = RedisBench(server.url)
    for call in ("read_histories", "write"):
        with pytest.raises(StoreUnavailable) as caught:
            CALLS[call](bench.store)
        assert "ann" not in str(caught.value)
    bench.client.close()
