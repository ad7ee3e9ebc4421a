"""Verify against systems that never stand still: nobody is accused wrongly, nothing is missed."""

import random

from hypothesis import given
from hypothesis import strategies as st
from strategies import examples, seeds
from verify_world import World
from worlds import NOW_MS, event

from streamer.evaluation.golden import GoldenHistories
from streamer.evaluation.judgement import Verdict
from streamer.evaluation.lattice import covers
from streamer.events import MAX_AHEAD_MS
from streamer.history import decode
from streamer.pipeline.records import Partition

PARTITIONS = [Partition("play-events", 0), Partition("play-events", 1), Partition("browse", 0)]
TYPES = ["play_stop", "detail_view", "thumb_up", "thumb_clear", "my_list_add", "impression"]
USERS = [f"u-{number}" for number in range(5)]
LIVE = World().live


class RunningSystem(World):
    """A log that grows and a worker that applies each partition in order, in random steps."""

    def __init__(self, seed, drop_share=0.0, letter_share=0.0):
        super().__init__(LIVE)
        self.rolls = random.Random(seed)
        self.drop_share, self.letter_share = drop_share, letter_share
        self.applied = dict.fromkeys(PARTITIONS, 0)
        self.dropped, self.lettered = [], []
        self.n_titles = self.rolls.choice([3, 40])
        self.is_frozen = True
        self.before_read = self.before_marks = self.log.before = self.move
        for _ in range(self.rolls.choice([5, 60, 300])):
            self.append()
        for _ in range(self.rolls.choice([0, 10, 80])):
            self.step()

    def append(self):
        rolls = self.rolls
        time_ms = NOW_MS + rolls.randrange(1000)
        user_id, title = rolls.choice(USERS), f"title-{rolls.randrange(self.n_titles)}"
        if rolls.random() < 0.03:
            value = event(user_id, None, time_ms, "forget")
        else:
            value = event(user_id, title, time_ms, rolls.choice(TYPES))
        # A forget reaches 5 minutes beyond its own time: into the middle of the others.
        self.log.append(rolls.choice(PARTITIONS), value, time_ms - MAX_AHEAD_MS)

    def step(self):
        """Apply some more of a partition, or vouch for what is applied."""
        partition = self.rolls.choice(PARTITIONS)
        mine = self.log.records.get(partition, [])
        start = self.applied[partition]
        if self.rolls.random() < 0.4:
            self.marks[partition] = start
            return
        batch = []
        for record in mine[start : start + self.rolls.randrange(1, 20)]:
            roll = self.rolls.random()
            if roll < self.drop_share:
                self.dropped.append(record)
            elif roll < self.drop_share + self.letter_share:
                self.places.append((partition, record.offset))
                self.lettered.append(record)
            else:
                batch.append(record)
            self.applied[partition] += 1
        if self.lettered and self.rolls.random() < 0.2:
            batch.append(self.rolls.choice(self.lettered))  # read again, by a newer version
        self.apply(batch)

    def move(self):
        if self.is_frozen:
            return
        for _ in range(self.rolls.randrange(4)):
            self.append()
        for _ in range(self.rolls.randrange(4)):
            self.step()

    def finish(self):
        self.is_frozen = True
        while self.applied != {p: len(self.log.records.get(p, [])) for p in PARTITIONS}:
            self.step()
        self.marks = dict(self.applied)

    def golden(self, *, but=()):
        left_out = set(map(id, but))
        golden = GoldenHistories()
        every = [r for mine in self.log.records.values() for r in mine if id(r) not in left_out]
        golden.apply(every)
        return golden


@given(seeds, st.sampled_from([0.0, 0.1]), st.sampled_from([2, 100]))
@examples(30)
def test_whatever_prefix_of_each_partition_is_applied_nobody_is_different(
    seed, letter_share, max_users
):
    system = RunningSystem(seed, letter_share=letter_share)
    system.is_frozen = False
    result = system.verify(max_users=max_users)
    assert result.n_different == result.n_beyond_log == 0
    system.finish()
    result = system.verify(max_users=max_users)
    assert result.verdicts.keys() <= {Verdict.EQUAL}
    assert result.n_users == len(system.golden().user_ids)


@given(seeds, st.sampled_from([0.01, 0.3]), st.sampled_from([0.0, 0.1]))
@examples(30)
def test_below_the_marks_whoever_lost_an_event_that_matters_is_different_and_nobody_else(
    seed, drop_share, letter_share
):
    system = RunningSystem(seed, drop_share, letter_share)
    system.finish()
    whole = system.golden(but=system.lettered)
    users = system.golden().user_ids
    stored = [history for history, _ in system.read(users)]
    lacks = ~covers(decode(stored)[0], whole.read(users))
    result = system.verify()
    assert result.listed.keys() == {u for u, lack in zip(users, lacks, strict=True) if lack}
    assert result.n_behind == 0


@given(seeds, st.sampled_from([0.02, 0.3]))
@examples(30)
def test_a_loss_is_found_while_everything_moves(seed, drop_share):
    system = RunningSystem(seed, drop_share)
    before = {p: system.marks.get(p, 0) for p in PARTITIONS}
    vouched = GoldenHistories()
    for partition, mark in before.items():
        vouched.apply(system.log.records.get(partition, [])[:mark])
    system.is_frozen = False
    result = system.verify()
    system.is_frozen = True
    users = vouched.user_ids
    # Histories only grow: who lacks it now has lacked it all the time.
    stored = [history for history, _ in system.read(users)]
    lacks = ~covers(decode(stored)[0], vouched.read(users))
    assert {u for u, lack in zip(users, lacks, strict=True) if lack} <= result.listed.keys()
    losers = GoldenHistories()
    losers.apply(system.dropped)
    assert result.listed.keys() <= set(losers.user_ids)
