"""A Kafka of topics in memory and one consumer group, and what a worker holds of it.

The group is reconciled as the newer protocol does it: a member gives up a partition before another
may have it, unless it was expelled, and it learns of both inside its own polls.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import oracle

from streamer.errors import BrokerUnavailable
from streamer.pipeline.ports import RecordSource, Standing
from streamer.pipeline.records import Partition, Record

SESSION_SECONDS = 6.0
COMMIT_SECONDS = 1.0
QUERY_SECONDS = 1.0

verdict_of = lru_cache(100_000)(oracle.verdict)


@dataclass
class Topic:
    """A topic of one life: made anew, it has another id."""

    name: str
    topic_id: str
    logs: list = field(default_factory=list)


@dataclass(eq=False)
class Member:
    """A worker, as the group sees it; `expires_at` once it has stopped to be heard of."""

    owned: set = field(default_factory=set)
    expires_at: float = float("inf")


class Broker:
    """Topics, dead letters, and the group.

    Attributes:
        verdicts: The oracle's verdict on every record that was ever appended, in order.
        letters: (partition, offset, value) of every dead letter.
        is_down: Whether nobody is answered.
    """

    def __init__(self, scheduler, topics, n_partitions):
        self.scheduler = scheduler
        self.topics = {}
        self.committed = {}
        self.members = []
        self.verdicts = []
        self.letters = set()
        self.is_down = False
        self.ids = {}
        self._n_topics = 0
        for name in topics:
            self.create(name, n_partitions)

    def create(self, name, n_partitions):
        """Make a topic, or make it anew: its records and its commits are gone."""
        self._n_topics += 1
        self.topics[name] = Topic(name, f"id-{self._n_topics}", [[] for _ in range(n_partitions)])
        for partition in [p for p in self.committed if p.topic == name]:
            del self.committed[partition]

    def append(self, partition, value):
        log = self.log(partition)
        record = Record(partition, len(log), self.scheduler.now_ms(), None, value)
        log.append(record)
        self.verdicts.append(verdict_of(value, record.timestamp_ms))

    def log(self, partition):
        """Return the records of a partition."""
        return self.topics[partition.topic].logs[partition.number]

    @property
    def partitions(self):
        return [
            Partition(topic.name, number)
            for topic in self.topics.values()
            for number in range(len(topic.logs))
        ]

    def ends(self):
        return {partition: len(self.log(partition)) for partition in self.partitions}

    # the group

    def wanted(self, member):
        """Return what a member should own, `range` over those that are heard of."""
        self._expel()
        place = self.members.index(member)
        return {p for p in self.partitions if p.number % len(self.members) == place}

    def free(self, partitions):
        """Return those that nobody owns."""
        taken = set().union(*(member.owned for member in self.members))
        return partitions - taken

    def _expel(self):
        now = self.scheduler.now
        self.members = [member for member in self.members if member.expires_at > now]

    def is_member(self, member):
        self._expel()
        return member in self.members

    def commit(self, member, next_offsets):
        """Take commits of a member for what it owns; refuse all others."""
        if self.is_down or not self.is_member(member):
            return
        for partition, next_offset in next_offsets.items():
            if partition in member.owned:
                self.committed[partition] = next_offset


class SimSource(RecordSource):
    """One worker's membership, positions and stored offsets."""

    def __init__(self, world):
        self._world = world
        self._broker = world.broker
        self._scheduler = world.scheduler
        self._random = world.random
        self.member = None
        self._listener = None
        self._positions = {}
        self._paused = set()
        self._stored = {}
        self._known_committed = {}
        self._commit_at = 0.0
        self._backlog = []
        self._ids = {}

    @property
    def owned(self):
        return frozenset(self.member.owned) if self.member else frozenset()

    def subscribe(self, listener):
        self._listener = listener
        self._join()

    def poll(self, max_records, timeout_seconds):
        self._serve("poll")
        records = self._backlog or self._take(max_records)
        records, self._backlog = records[:max_records], records[max_records:]
        if not records:
            self._scheduler.step("idle", timeout_seconds * self._random.uniform(0.5, 1.0))
        return records

    def wait(self, timeout_seconds):
        self._serve("wait")
        self._backlog += self._take(1)
        self._scheduler.step("wait", timeout_seconds)

    def pause(self, partitions):
        self._call("pause")
        self._paused |= set(partitions) & self.owned

    def resume(self, partitions):
        self._call("resume")
        self._paused -= set(partitions)

    def standings(self, partitions):
        self._call("standings", QUERY_SECONDS)
        return {
            partition: Standing(self._broker.committed.get(partition), 0)
            for partition in partitions
            if not self._world.dice("broker")
        }

    def topic_ids(self):
        if not self._broker.is_down and self._random.random() < 0.5:
            self._ids = {topic.name: topic.topic_id for topic in self._broker.topics.values()}
        return self._ids

    def seek(self, partition, next_offset):
        self._call("seek")
        self._ensure_owned(partition)
        self._positions[partition] = next_offset or 0
        self._drop_backlog({partition})

    def lower_commit(self, partition, next_offset):
        self._call("lower_commit")
        self._ensure_owned(partition)
        self._stored[partition] = self._known_committed[partition] = next_offset
        if not self._world.dice("broker"):  # it is not waited for, and may be lost
            self._broker.commit(self.member, {partition: next_offset})

    def store_offsets(self, next_offsets):
        self._scheduler.step("store_offsets")
        for partition, next_offset in next_offsets.items():
            if partition in self.owned:
                self._world.judge.on_stored(partition, next_offset)
                self._stored[partition] = next_offset

    def close(self):
        self._scheduler.step("close")
        self._commit()
        if self._broker.is_member(self.member):
            self._broker.members.remove(self.member)

    def freeze(self, seconds):
        """Heartbeats stop, too: the group misses a member that is frozen for too long."""
        if self.member and seconds > SESSION_SECONDS:
            self.member.expires_at = self._scheduler.now + SESSION_SECONDS

    def die(self):
        """Nobody says that a killed process has left."""
        self.freeze(float("inf"))

    # inside

    def _call(self, label, seconds=0.0):
        self._scheduler.step(label)
        if self._broker.is_down or self._world.dice("broker"):
            self._scheduler.step(label + " fails", seconds)
            raise BrokerUnavailable(label)

    def _serve(self, label):
        self._scheduler.step(label)
        if self._broker.is_down:
            return
        if self._world.dice("broker"):
            raise BrokerUnavailable(label)
        if self._scheduler.now >= self._commit_at:
            self._commit()
        self._reconcile()

    def _commit(self):
        """The background commit, which never lowers an offset."""
        self._commit_at = self._scheduler.now + COMMIT_SECONDS
        higher = {
            partition: next_offset
            for partition, next_offset in self._stored.items()
            if next_offset > self._known_committed.get(partition, -1)
        }
        self._broker.commit(self.member, higher)
        self._known_committed |= higher

    def _join(self):
        self.member = Member()
        self._broker.members.append(self.member)

    def _reconcile(self):
        if not self._broker.is_member(self.member):
            lost = sorted(self.member.owned)
            self._join()
            self._forget(lost)
            if lost:
                self._listener.on_lost(lost)
            return
        wanted = self._broker.wanted(self.member)
        revoked = sorted(self.owned - wanted)
        if revoked:
            self._listener.on_revoked(revoked)
            self._commit()
            self.member.owned -= set(revoked)
            self._forget(revoked)
        assigned = sorted(self._broker.free(wanted))
        if assigned and self._broker.is_member(self.member):
            self.member.owned |= set(assigned)
            self._paused |= set(assigned)
            for partition in assigned:
                self._positions[partition] = self._broker.committed.get(partition, 0)
            self._listener.on_assigned(assigned)

    def _take(self, max_records):
        records = []
        owned = sorted(self.owned - self._paused)
        while owned and len(records) < max_records:
            partition = self._random.choice(owned)
            log = self._broker.log(partition)
            place = self._positions[partition]
            if place > len(log):
                place = 0  # out of range: auto.offset.reset
            if self._broker.is_down or place == len(log):
                owned.remove(partition)
                continue
            records.append(log[place])
            self._positions[partition] = place + 1
        return records

    def _ensure_owned(self, partition):
        if partition not in self.owned:
            raise BrokerUnavailable("not ours")

    def _forget(self, partitions):
        gone = set(partitions)
        self._paused -= gone
        self._drop_backlog(gone)
        for partition in gone:
            self._stored.pop(partition, None)
            self._known_committed.pop(partition, None)

    def _drop_backlog(self, partitions):
        self._backlog = [record for record in self._backlog if record.partition not in partitions]


class SimLetters:
    """A producer of dead letters; what is refused is sent again by the next call."""

    def __init__(self, world):
        self._world = world
        self._pending = []

    def send(self, rejected):
        self._world.scheduler.step("send letters")
        self._pending += rejected

    def is_delivered(self, timeout_seconds):
        self._world.scheduler.step("await letters", timeout_seconds)
        if self._world.broker.is_down:
            return not self._pending
        n_delivered = len(self._pending)
        if self._world.dice("letters"):
            n_delivered = self._world.random.randrange(n_delivered + 1)
        for letter in self._pending[:n_delivered]:
            record = letter.record
            self._world.broker.letters.add((record.partition, record.offset, record.value))
        self._pending = self._pending[n_delivered:]
        self._world.scheduler.step("letters answered")
        if self._pending:
            raise BrokerUnavailable("some were refused", kind="dead_letter")
        return True
