"""The world of the runtime's tests: a group of one, dead letters, a store with faults, a clock.

The fake source passes the contract of the real one (`tests/contracts/test_record_source.py`).
Nothing waits: whoever would, moves the fake clock.
"""

from collections import Counter, defaultdict, deque
from random import Random

import numpy as np
import oracle
import orjson
import pytest
import structlog
from structlog.testing import LogCapture

from streamer.errors import StoreUnavailable
from streamer.factors import FoldInParams, ItemModel, RecencyFoldIn
from streamer.history import Interactions
from streamer.pipeline.ports import Mark, Standing
from streamer.pipeline.records import Partition, Record
from streamer.pipeline.step import LiveModel
from streamer.stores import MemoryStore

PLAYS, BROWSES = Partition("play-events", 0), Partition("browse-events", 0)
NOON_MS = 1_763_900_000_000


# --- events and evidence -------------------------------------------------------------------------


def event(event_type="play_stop", user="ann", item="title-1", time_ms=NOON_MS, **more):
    """Return one event as bytes; a play_stop was watched to the end."""
    fields = {"type": event_type, "user_id": user, "item_id": item, "event_time": time_ms}
    if event_type in oracle.PLAYED:
        fields |= {"watched_s": 3000, "duration_s": 3000}
    return orjson.dumps(fields | more)


def records_of(partition, values, first_offset=0, timestamp_ms=NOON_MS + 60_000):
    return [
        Record(partition, first_offset + index, timestamp_ms + index, b"key", value)
        for index, value in enumerate(values)
    ]


def random_events(random, n_events, n_users=8, n_items=12, bad_share=0.1, forget_share=0.01):
    """Return values of all types, some of them bad, many of them duplicates or late."""
    values = []
    for _ in range(n_events):
        user = f"viewer-{random.randrange(n_users)}"
        item = f"title-{random.randrange(n_items)}"
        if random.random() < bad_share:
            values.append(random.choice([b"", b"{", b"[]", event("sneeze", user), event(user="")]))
        elif random.random() < forget_share:
            values.append(event("forget", user))
        elif values and random.random() < 0.1:
            values.append(random.choice(values))
        else:
            event_type = random.choice([kind for kind in oracle.TYPES if kind != "forget"])
            time_ms = NOON_MS + random.randrange(-900_000, 300_000)
            watched_s = random.choice([0, 20, 600, 3000])
            values.append(event(event_type, user, item, time_ms, watched_s=watched_s))
    return values


def states_of(records):
    """Return the oracle's state of every user of some records."""
    verdicts = (oracle.verdict(record.value, record.timestamp_ms) for record in records)
    states = oracle.replay(verdict for verdict in verdicts if verdict)
    return {user: state for user, state in states.items() if is_stored(state)}


def is_stored(state):
    return bool(state.entries or state.forgotten_before_ms)


def rejected_of(records):
    return [r for r in records if oracle.verdict(r.value, r.timestamp_ms) is None]


def evidence(entries_of_user, forgotten=()):
    """Return (user ids, `Interactions`) from {user: [oracle.Interaction, ...]}."""
    user_ids = list(entries_of_user)
    rows, keys, words = [], [], []
    for row, user in enumerate(user_ids):
        for entry in entries_of_user[user]:
            rows.append(row)
            keys.append(entry.item_key)
            words.append(entry.word)
    forgotten_before_ms = [dict(forgotten).get(user, 0) for user in user_ids]
    return user_ids, Interactions(
        np.array(rows, np.intp),
        np.array(keys, np.uint64),
        np.array(words, np.uint64),
        np.array(forgotten_before_ms, np.uint64),
    )


def play(item, second=0, value=200):
    return oracle.Interaction(oracle.item_key(item), oracle.PLAY, NOON_MS + 1000 * second, value)


def item_model(seed=1, n_items=12, n_factors=4):
    rng = np.random.default_rng(seed)
    return ItemModel.of(
        seed,
        FoldInParams(alpha=2.0, regularization=0.5),
        [f"title-{number}" for number in range(n_items)],
        rng.normal(size=(n_items, n_factors)).astype(np.float32),
        np.ones(n_items, np.float32),
    )


def live_model(generation=1, learner=None, seed=1):
    return LiveModel("default", generation, item_model(seed), learner or RecencyFoldIn())


# --- the world -----------------------------------------------------------------------------------


class FakeClock:
    """Stands in for the `time` module; only waiting makes time pass."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def monotonic(self):
        return self.now

    def time(self):
        return NOON_MS / 1000 + self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


class Faults:
    """Errors that calls are to raise, by the name of the call; None lets one call pass."""

    def __init__(self):
        self._planned = defaultdict(deque)
        self._always = {}

    def plan(self, call, *errors):
        self._planned[call].extend(errors)

    def always(self, call, error):
        self._always[call] = error

    def heal(self):
        self._always.clear()
        self._planned.clear()

    def strike(self, call):
        error = self._planned[call].popleft() if self._planned[call] else self._always.get(call)
        if error is not None:
            raise type(error)(str(error), error.kind)  # a new one: raising adds to a traceback


class FakeSource:
    """A group of one member: topics in memory, and rebalances where a test puts them.

    Attributes:
        log: Every record, by partition; offsets start at `first_offsets`.
        committed_offsets: As the broker has them.
        stored: Offsets that the background commit will take with it.
        lowered: Explicit commits of lower offsets, in order.
        leaderless: Partitions of which the broker tells nothing.
        ids: Topic ids, as the broker told them last.
        scheduled: Run inside the next `poll` or `wait`, one each.
        journal: What happened, in order; shared with the store and the dead letters.
    """

    def __init__(self, clock=None, journal=None):
        self.clock = clock or FakeClock()
        self.journal = journal if journal is not None else []
        self.faults = Faults()
        self.log = defaultdict(list)
        self.first_offsets = Counter()
        self.committed_offsets = {}
        self.stored = {}
        self.lowered = []
        self.scheduled = deque()
        self.paused = set()
        self.leaderless = set()
        self.ids = {}
        self.positions = {}
        self.is_closed = False
        self.n_waits = 0
        self._owned = set()
        self._backlog = []
        self._listener = None

    # what a test does

    def append(self, partition, *values):
        first = self.first_offsets[partition] + len(self.log[partition])
        self.log[partition] += records_of(partition, values, first)

    def all_records(self):
        return [record for records in self.log.values() for record in records]

    def assign(self, *partitions):
        for partition in partitions:
            self.positions[partition] = self.committed_offsets.get(
                partition, self.first_offsets[partition]
            )
        self._owned |= set(partitions)
        self.paused |= set(partitions)
        self._listener.on_assigned(partitions)

    def revoke(self, *partitions):
        self._listener.on_revoked(partitions)
        self.commit()
        self._forget(partitions)

    def lose(self, *partitions):
        self._forget(partitions)
        self._listener.on_lost(partitions)

    def fail(self, code="_FATAL", *, is_fatal=True):
        self._listener.on_error(code, is_fatal=is_fatal)

    def commit(self):
        """The background commit, which never lowers an offset."""
        for partition, next_offset in self.stored.items():
            before = self.committed_offsets.get(partition, -1)
            self.committed_offsets[partition] = max(before, next_offset)

    # the port

    @property
    def owned(self):
        return frozenset(self._owned)

    def subscribe(self, listener):
        self.faults.strike("subscribe")
        self._listener = listener

    def poll(self, max_records, timeout_seconds):
        self._serve("poll")
        if self._backlog:
            records, self._backlog = self._backlog[:max_records], self._backlog[max_records:]
        else:
            records = self._take(max_records)
        if not records:
            self.clock.now += timeout_seconds
        return records

    def wait(self, timeout_seconds):
        self.n_waits += 1
        self.journal.append(("wait",))
        self._serve("wait")
        self._backlog += self._take(1)
        self.clock.now += timeout_seconds

    def pause(self, partitions):
        self.faults.strike("pause")
        self.paused |= set(partitions)

    def resume(self, partitions):
        self.faults.strike("resume")
        self.paused -= set(partitions)

    def standings(self, partitions):
        self.faults.strike("standings")
        return {
            partition: Standing(
                self.committed_offsets.get(partition), self.first_offsets[partition]
            )
            for partition in partitions
            if partition not in self.leaderless
        }

    def topic_ids(self):
        return self.ids

    def seek(self, partition, next_offset):
        self.faults.strike("seek")
        first = self.first_offsets[partition]
        end = first + len(self.log[partition])
        wanted = first if next_offset is None else next_offset
        # Out of range means auto.offset.reset, which is the earliest.
        self.positions[partition] = wanted if first <= wanted <= end else first
        self._drop_backlog({partition})

    def lower_commit(self, partition, next_offset):
        self.faults.strike("lower_commit")
        self.journal.append(("lower", partition, next_offset))
        self.lowered.append((partition, next_offset))
        self.stored[partition] = self.committed_offsets[partition] = next_offset

    def store_offsets(self, next_offsets):
        self.faults.strike("store_offsets")
        for partition, next_offset in next_offsets.items():
            if partition in self._owned:
                self.journal.append(("store", partition, next_offset))
                self.stored[partition] = next_offset

    def close(self):
        if not self.is_closed:
            self.commit()
        self.is_closed = True

    def _serve(self, call):
        assert not self.is_closed, f"{call} after close"
        self.faults.strike(call)
        if self.scheduled:
            self.scheduled.popleft()()

    def _take(self, max_records):
        """Take records from all partitions in turn, as a consumer does."""
        records = []
        while len(records) < max_records:
            n_before = len(records)
            for partition in sorted(self._owned - self.paused):
                place = self.positions[partition] - self.first_offsets[partition]
                if place < len(self.log[partition]) and len(records) < max_records:
                    records.append(self.log[partition][place])
                    self.positions[partition] += 1
            if len(records) == n_before:
                break
        return records

    def _forget(self, partitions):
        gone = set(partitions)
        self._owned -= gone
        self.paused -= gone
        self._drop_backlog(gone)
        for partition in gone:
            self.stored.pop(partition, None)

    def _drop_backlog(self, partitions):
        self._backlog = [record for record in self._backlog if record.partition not in partitions]


class FakeDeadLetters:
    """Delivers what was sent one call of `is_delivered` later, unless a fault is planned."""

    def __init__(self, clock=None, journal=None):
        self.clock = clock or FakeClock()
        self.journal = journal if journal is not None else []
        self.faults = Faults()
        self.delivered = []
        self._pending = []

    def send(self, rejected):
        self._pending += rejected

    def is_delivered(self, timeout_seconds):
        self.clock.now += timeout_seconds
        self.faults.strike("is_delivered")
        for letter in self._pending:
            self.journal.append(("delivered", letter.record.partition, letter.record.offset))
        self.delivered += self._pending
        self._pending = []
        return True


class FaultyStore(MemoryStore):
    """A memory store that can be down, can lose an answer, and can forget what it acknowledged."""

    def __init__(self, journal=None):
        super().__init__()
        self.journal = journal if journal is not None else []
        self.faults = Faults()
        self.n_writes = 0

    def go_down(self):
        for call in ("read_histories", "write", "move_marks", "read_marks", "write_fresh"):
            self.faults.always(call, StoreUnavailable("it is down", kind="connection"))

    def come_back(self):
        self.faults.heal()

    def flush(self):
        self.state.forget()

    def snapshot(self):
        """Return what makes the store forget everything that comes after."""
        then = self.state.copy()
        return lambda: self.state.forget(then)

    def read_histories(self, user_ids):
        self.faults.strike("read_histories")
        return super().read_histories(user_ids)

    def write(self, writes):
        self.faults.strike("write")
        self.n_writes += 1
        outcome = super().write(writes)
        self.journal.append(("write", len(writes.user_ids)))
        self.faults.strike("answer")
        return outcome

    def move_marks(self, moves):
        self.faults.strike("move_marks")
        stored = super().move_marks(moves)
        for partition, move in moves.items():
            if move.wanted is not None and stored[partition] == move.wanted:
                self.journal.append(("mark", partition, move.wanted.next_offset))
        return stored

    def read_marks(self, partitions):
        self.faults.strike("read_marks")
        return super().read_marks(partitions)

    def write_fresh(self, fresh_ms):
        self.faults.strike("write_fresh")
        super().write_fresh(fresh_ms)

    @property
    def vouched(self):
        """Return the offsets of the marks."""
        return {partition: mark.next_offset for partition, mark in self.marks.items()}

    def vouch(self, next_offset, *partitions):
        """Set marks by hand."""
        self.marks.update(dict.fromkeys(partitions, Mark(next_offset)))

    def histories(self):
        """Return the stored histories by key."""
        return {key: value for key, value in self.values.items() if key.startswith("st:h:")}


def history_values(states):
    return {oracle.history_key(user): state.to_bytes() for user, state in states.items()}


def capture_log():
    """Return a logger, and what it will have been told."""
    capture = LogCapture()
    return structlog.wrap_logger(None, processors=[capture]), capture.entries


# --- and that it is what it says -----------------------------------------------------------------


def test_a_fault_strikes_as_often_as_it_was_planned():
    store = FaultyStore()
    store.faults.plan("read_marks", None, StoreUnavailable("now"))
    assert store.read_marks([PLAYS]) == {PLAYS: None}
    with pytest.raises(StoreUnavailable, match="now"):
        store.read_marks([PLAYS])
    assert store.read_marks([PLAYS]) == {PLAYS: None}


def test_random_events_are_of_every_type_and_some_are_bad():
    values = random_events(Random(1), 2000)
    verdicts = [oracle.verdict(value, NOON_MS + 60_000) for value in values]
    assert {verdict.type for verdict in verdicts if verdict} == set(oracle.TYPES)
    assert 100 < sum(verdict is None for verdict in verdicts) < 400
