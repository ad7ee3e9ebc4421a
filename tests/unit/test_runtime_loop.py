from collections import Counter
from random import Random

import oracle
import pytest
from own_learners import BAD_ITEM, ShyOfOneItem
from unit.test_runtime_fakes import (
    BROWSES,
    NOON_MS,
    PLAYS,
    FakeClock,
    FakeDeadLetters,
    FakeSource,
    FaultyStore,
    capture_log,
    event,
    history_values,
    live_model,
    random_events,
    records_of,
    rejected_of,
    states_of,
)

from streamer.errors import BrokerUnavailable, RestartNeeded, StoreUnavailable
from streamer.factors import FeatureDtype
from streamer.metrics import WorkerMetrics
from streamer.runtime.cache import HistoryCache
from streamer.runtime.checkpoint import Checkpoints
from streamer.runtime.health import health_of
from streamer.runtime.loop import LoopParts, LoopSettings, WorkerLoop
from streamer.runtime.observer import LoopObserver
from streamer.runtime.progress import Progress
from streamer.runtime.sweeper import Sweeper
from streamer.runtime.updater import Updater
from streamer.stores import MemoryScan

DOWN = StoreUnavailable("it is down", kind="connection")
BROKER_DOWN = BrokerUnavailable("it is down")
DRAIN_SECONDS = 10.0


class JudgedStore(FaultyStore):
    """At the moment a mark moves, everything before it must be in the store."""

    def __init__(self, bench):
        super().__init__(bench.journal)
        self._bench = bench

    def move_marks(self, moves):
        for partition, move in moves.items():
            if move.wanted is not None and self.marks.get(partition) == move.expected:
                self._bench.ensure_safe(partition, move.wanted.next_offset)
        return super().move_marks(moves)


class Bench:
    """A worker loop on fakes; every second topic-partition is `PLAYS`."""

    def __init__(self, monkeypatch, batch_records=10, store=JudgedStore):
        self.clock = FakeClock()
        monkeypatch.setattr("streamer.runtime.loop.time", self.clock)
        monkeypatch.setattr("streamer.runtime.retrying.time", self.clock)
        monkeypatch.setattr("streamer.runtime.sweeper.time", self.clock)
        self.journal = []
        self.store = store(self)
        self.source = FakeSource(self.clock, self.journal)
        self.letters = FakeDeadLetters(self.clock, self.journal)
        self.metrics = WorkerMetrics(["play-events", "browse-events"], ["default"])
        log, self.said = capture_log()
        self.observer = LoopObserver(self.metrics, log)
        self.progress = Progress(self.clock.time)
        self.updater = Updater(
            self.store,
            HistoryCache(100),
            FeatureDtype.F32,
            self.clock.time,
            self.clock.sleep,
            Random(7),
        )
        self.live = None
        self.loop = WorkerLoop(
            LoopParts(
                self.source,
                self.letters,
                self.updater,
                Sweeper(MemoryScan(self.store.state), self.updater.fold_in, 0.1, Random(7)),
                Checkpoints(self.store, self.source, self.progress, self.metrics, log),
                lambda: [] if self.live is None else [self.live],
                self.take_out,
                self.observer,
                Random(7),
            ),
            LoopSettings(batch_records, 0.2, 1.0, DRAIN_SECONDS),
            log,
        )

    def take_out(self, failure):
        """Do what the follower of the live model does."""
        assert failure.live is self.live
        self.live = None

    def join(self, *partitions):
        """Join the group; the partitions come with the first poll."""
        self.source.subscribe(self.loop)
        self.source.scheduled.append(lambda: self.source.assign(*partitions))

    def turn(self, n_turns=1):
        for _ in range(n_turns):
            self.loop.turn()

    def turn_until(self, condition, max_turns=500):
        for _ in range(max_turns):
            if condition():
                return
            self.loop.turn()
        pytest.fail("the loop turned and turned")

    def is_done(self):
        """Everything was read, and its offsets are stored."""
        return all(
            self.source.stored.get(partition, self.source.committed_offsets.get(partition))
            == self.source.first_offsets[partition] + len(records)
            for partition, records in self.source.log.items()
            if records
        )

    def finish(self):
        self.turn_until(self.is_done)

    def run_then_stop(self, condition):
        """Run as the worker does; ask it to stop as soon as the condition holds in a poll."""
        poll, wait = self.source.poll, self.source.wait

        def stopping(call):
            def called(*arguments):
                if condition():
                    self.loop.stop()
                return call(*arguments)

            return called

        self.source.poll, self.source.wait = stopping(poll), stopping(wait)
        self.loop.run()

    def ensure_safe(self, partition, next_offset):
        before = [r for r in self.source.log[partition] if r.offset < next_offset]
        for user, state in states_of(before).items():
            value = self.store.values.get(oracle.history_key(user))
            assert value is not None, f"{partition} {next_offset}: a history is missing"
            stored = oracle.read_history(value)
            assert stored.merged(state).to_bytes() == value, f"{partition} {next_offset}"
        delivered = {(r.record.partition, r.record.offset) for r in self.letters.delivered}
        for record in rejected_of(before):
            assert (record.partition, record.offset) in delivered

    def total(self, name):
        """The sum of a counter over all its labels."""
        return sum(
            sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == f"streamer_{name}_total"
        )

    def counts(self):
        return {
            name: int(self.total(name))
            for name in (
                "records_consumed",
                "events_applied",
                "records_dead_lettered",
                "records_abandoned",
            )
        }

    def ensure_counts_add_up(self):
        counts = self.counts()
        consumed = counts.pop("records_consumed")
        assert consumed == sum(counts.values())
        assert consumed > 0

    def ensure_learned(self):
        """The store holds exactly what the design says of everything in the topics."""
        assert self.store.histories() == history_values(states_of(self.source.all_records()))

    def events_said(self):
        return [entry["event"] for entry in self.said]


@pytest.fixture
def bench(monkeypatch):
    return Bench(monkeypatch)


def filled(bench, seed=1, n_events=60, bad_share=0.1):
    values = random_events(Random(seed), n_events, bad_share=bad_share)
    bench.source.append(PLAYS, *values[::2])
    bench.source.append(BROWSES, *values[1::2])
    bench.join(PLAYS, BROWSES)
    return bench


def good(bench, n_events=30):
    """The same without a bad record, in one partition."""
    values = [event(user=f"v{n % 3}", item=f"title-{n}", time_ms=NOON_MS + n) for n in range(30)]
    bench.source.append(PLAYS, *values[:n_events])
    bench.join(PLAYS)
    return bench


# --- the healthy loop ----------------------------------------------------------------------------


def test_every_record_is_learned_or_dead_lettered(bench):
    filled(bench)
    bench.finish()
    bench.ensure_learned()
    rejected = rejected_of(bench.source.all_records())
    assert sorted(letter.record for letter in bench.letters.delivered) == sorted(rejected)
    assert len(rejected) > 0
    counts = bench.counts()
    assert counts["records_consumed"] == 60
    assert counts["records_dead_lettered"] == len(rejected)
    assert counts["events_applied"] == 60 - len(rejected)
    assert counts["records_abandoned"] == 0


def test_data_then_letters_then_marks_then_offsets(bench):
    bench.join(PLAYS)
    bench.turn(2)
    bench.source.append(PLAYS, event(), b"bad")
    bench.journal.clear()
    bench.finish()
    assert bench.journal == [
        ("write", 1),
        ("delivered", PLAYS, 1),
        ("mark", PLAYS, 2),
        ("store", PLAYS, 2),
    ]


def test_a_batch_is_never_larger_than_asked_for_and_a_backlog_drops_nothing(bench):
    filled(bench, n_events=200)
    bench.finish()
    histogram = {
        sample.labels["le"]: sample.value
        for family in bench.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "streamer_batch_records_bucket"
    }
    assert histogram["10.0"] == histogram["+Inf"] >= 20
    bench.ensure_learned()


def test_marks_are_written_once_a_second_and_not_with_every_batch(bench):
    filled(bench, n_events=200)
    bench.finish()
    assert bench.store.n_writes >= 20
    assert sum(entry[0] == "mark" for entry in bench.journal) <= 6


def test_an_idle_loop_is_ready_and_says_nothing(bench):
    good(bench)
    bench.finish()
    bench.turn(20)
    assert health_of(bench.observer).state == "idle"
    assert health_of(bench.observer).is_ready
    assert bench.events_said() == ["partitions_assigned"]


def test_the_live_model_may_change_between_two_batches(bench):
    good(bench)
    key = oracle.features_key("v0", "default")
    bench.turn_until(lambda: bench.total("events_applied") >= 10)
    assert key not in bench.store.values
    bench.live = live_model(generation=1)
    bench.turn()
    assert oracle.read_features(bench.store.values[key]).generation == 1
    bench.live = live_model(generation=2, seed=2)
    bench.turn()
    features = oracle.read_features(bench.store.values[key])
    assert (features.generation, features.model_id) == (2, 2)


def test_a_learner_that_fails_takes_its_variant_out_and_never_the_stream(bench):
    """The third record is the one that it cannot bear; one batch later nobody asks it any more."""
    items = ["title-1", "title-2", BAD_ITEM, *(f"title-{number}" for number in range(3, 40))]
    values = [event(user=f"v{n}", item=item) for n, item in enumerate(items)]
    bench.source.log[PLAYS] = records_of(PLAYS, values)
    bench.live = live_model(learner=ShyOfOneItem())
    bench.join(PLAYS)
    bench.finish()
    assert bench.total("events_applied") == len(values)
    assert bench.live is None
    assert bench.total("learner_failures") == 1
    assert not any(key.startswith("st:f:") for key in bench.store.values)
    bench.live = live_model(generation=2)  # the users that are cached are folded in
    bench.turn(2)
    features = oracle.read_features(bench.store.values[oracle.features_key("v2", "default")])
    assert features.generation == 2


def test_a_learner_that_fails_while_users_are_folded_in_again_goes_out_too(bench):
    bench.source.log[PLAYS] = records_of(PLAYS, [event(user="ann", item=BAD_ITEM)])
    bench.join(PLAYS)
    bench.finish()
    bench.live = live_model(learner=ShyOfOneItem())
    bench.turn()
    assert bench.live is None
    assert bench.total("learner_failures") == 1


def test_a_partition_that_is_caught_up_is_fresh_as_of_the_last_question(bench):
    good(bench)
    bench.finish()
    asked_at_ms = NOON_MS + 3_600_000
    bench.progress.observe_watermarks(asked_at_ms, {PLAYS: 30})
    bench.turn(6)
    assert bench.store.fresh_ms == {PLAYS: asked_at_ms}
    bench.progress.observe_watermarks(asked_at_ms + 1000, {PLAYS: 31})
    bench.turn(6)
    assert bench.store.fresh_ms == {PLAYS: asked_at_ms}


def test_a_partition_that_is_behind_is_as_fresh_as_its_last_applied_record(bench):
    good(bench)
    bench.progress.begin(PLAYS, 0)
    bench.turn_until(lambda: bench.total("events_applied") >= 10)
    bench.clock.now += 1
    bench.turn()
    applied = bench.source.log[PLAYS][int(bench.total("events_applied")) - 1]
    assert bench.store.fresh_ms == {PLAYS: applied.timestamp_ms}


# --- a store that is down ------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["read_histories", "write", "answer"])
def test_while_the_store_is_down_partitions_are_paused_and_the_membership_is_kept(bench, call):
    good(bench)
    bench.turn_until(lambda: bench.total("events_applied") == 10)
    stored_before = dict(bench.source.stored)
    consumed_before = bench.total("records_consumed")
    seen = []

    def look_then_heal():
        assert bench.source.stored == stored_before
        seen.append((set(bench.source.paused), health_of(bench.observer)))
        if len(seen) == 20:
            bench.store.come_back()
        else:
            bench.source.scheduled.append(look_then_heal)

    bench.store.faults.always(call, DOWN)
    bench.updater.forget_cache()
    bench.source.scheduled.append(lambda: None)  # the poll that brings the batch
    bench.source.scheduled.append(look_then_heal)
    bench.turn()
    assert len(seen) == 20
    assert all(paused == {PLAYS} for paused, _ in seen)
    assert not any(health.is_ready for _, health in seen)
    assert all(health.is_live and health.state == "held" for _, health in seen)
    assert bench.total("records_consumed") == consumed_before + 10  # one batch, kept in hand
    assert bench.source.paused == set()
    assert health_of(bench.observer).is_ready
    bench.finish()
    bench.ensure_learned()
    bench.ensure_counts_add_up()
    assert bench.counts()["records_abandoned"] == 0


def test_records_that_were_on_their_way_when_the_store_went_down_are_kept(bench):
    good(bench)
    bench.source.pause = lambda partitions: None  # the client delivers a few more
    bench.store.faults.plan("write", *[DOWN] * 6)
    bench.finish()
    bench.ensure_learned()
    assert bench.total("records_consumed") == 30


def test_partitions_that_could_not_be_resumed_are_resumed_although_nothing_comes(bench):
    good(bench)
    bench.store.faults.plan("write", DOWN)
    bench.source.faults.plan("resume", None, *[BrokerUnavailable("down")] * 3)
    bench.finish()
    bench.ensure_learned()
    assert bench.source.paused == set()


def test_the_loop_backs_off_and_says_so_once(bench):
    good(bench)
    bench.store.faults.plan("write", *[DOWN] * 12)
    before = bench.clock.now
    bench.turn_until(lambda: bench.total("events_applied") == 10)
    assert 5 < bench.clock.now - before < 25
    assert bench.events_said().count("retrying") == 1
    assert bench.events_said().count("resumed") == 1
    assert bench.total("redis_errors") == 12


def test_a_store_that_is_down_at_assignment_lets_no_record_in_until_marks_were_read(bench):
    good(bench)
    bench.store.go_down()
    bench.turn(5)
    assert bench.source.paused == {PLAYS}
    assert bench.total("records_consumed") == 0
    assert not health_of(bench.observer).is_ready
    bench.store.come_back()
    bench.finish()
    bench.ensure_learned()


def test_partitions_that_come_while_a_batch_is_held_stay_paused(bench):
    good(bench)
    bench.source.append(BROWSES, event(user="late", item="title-5"))
    bench.turn()
    seen = []

    def look():
        seen.append(set(bench.source.paused))
        bench.store.come_back()

    bench.store.faults.always("write", DOWN)
    bench.source.scheduled.extend(
        [lambda: None, lambda: bench.source.assign(BROWSES), lambda: None, look]
    )
    bench.turn()
    assert seen == [{PLAYS, BROWSES}]
    assert bench.source.paused == {BROWSES}  # until it is admitted
    bench.finish()
    bench.ensure_learned()


def test_a_loop_without_work_notices_that_the_store_is_down(bench):
    good(bench)
    bench.finish()
    bench.store.go_down()
    bench.turn(12)
    assert bench.total("redis_errors") >= 1
    assert not health_of(bench.observer).is_ready
    bench.store.come_back()
    bench.turn(12)
    assert health_of(bench.observer).is_ready


# --- dead letters that cannot be delivered -------------------------------------------------------


def test_offsets_wait_for_dead_letters(bench):
    bench.source.append(PLAYS, event(), b"bad", event(item="title-2"))
    bench.join(PLAYS)
    bench.letters.faults.plan("is_delivered", *[BROKER_DOWN] * 8)
    bench.turn()
    bench.turn()
    delivered = bench.journal.index(("delivered", PLAYS, 1))
    bench.finish()
    assert bench.journal.index(("mark", PLAYS, 3)) > delivered
    assert bench.counts()["records_dead_lettered"] == 1
    bench.ensure_counts_add_up()
    assert bench.source.paused == set()


def test_slow_dead_letters_are_waited_for_within_the_group(bench):
    bench.source.append(PLAYS, b"bad")
    bench.join(PLAYS)
    is_delivered, answers = bench.letters.is_delivered, [False, False, False]
    bench.letters.is_delivered = lambda timeout: answers.pop() if answers else is_delivered(timeout)
    bench.finish()
    assert bench.source.n_waits >= 3
    assert [letter.record.value for letter in bench.letters.delivered] == [b"bad"]


# --- rebalances ----------------------------------------------------------------------------------


def hold_and(bench, *happenings):
    """Let a batch be held, and things happen meanwhile; then the store comes back."""
    bench.store.faults.always("write", DOWN)
    bench.source.scheduled.extend([lambda: None, *happenings, bench.store.come_back])
    bench.turn()


def test_a_batch_that_is_held_while_its_partition_is_revoked_vouches_for_nothing(bench):
    good(bench)
    bench.turn_until(lambda: bench.total("events_applied") == 10)
    bench.clock.now += 1
    bench.loop._save()
    hold_and(bench, lambda: bench.source.revoke(PLAYS))
    bench.clock.now += 2
    bench.turn(3)
    assert bench.source.committed_offsets == {PLAYS: 10}
    assert bench.store.vouched == {PLAYS: 10}
    assert bench.source.stored == {}
    bench.ensure_counts_add_up()  # the batch was written all the same: that is never wrong
    bench.source.scheduled.append(lambda: bench.source.assign(PLAYS))
    bench.finish()
    bench.ensure_learned()


@pytest.mark.parametrize("how", ["revoke", "lose"])
def test_a_batch_of_an_earlier_assignment_vouches_for_nothing_of_the_next(bench, how):
    good(bench)
    bench.turn_until(lambda: bench.total("events_applied") == 10)
    bench.source.commit()
    leave = getattr(bench.source, how)
    committed = []

    def look():
        committed.append(dict(bench.source.committed_offsets))

    hold_and(bench, lambda: leave(PLAYS), lambda: bench.source.assign(PLAYS), look)
    bench.turn()
    assert ("store", PLAYS, 20) not in bench.journal
    assert bench.source.positions[PLAYS] <= 20
    bench.finish()
    bench.ensure_learned()
    bench.ensure_counts_add_up()


def test_a_revoked_partition_takes_its_offsets_with_it(bench):
    filled(bench, bad_share=0)
    bench.turn_until(lambda: bench.total("events_applied") >= 40)
    bench.source.scheduled.append(lambda: bench.source.revoke(PLAYS))
    bench.turn()
    n_applied = bench.source.committed_offsets[PLAYS]
    assert n_applied > 0
    bench.ensure_safe(PLAYS, n_applied)
    assert bench.store.vouched[PLAYS] == n_applied


def test_a_lost_partition_commits_nothing_more(bench):
    good(bench)
    bench.turn_until(lambda: bench.total("events_applied") == 10)
    bench.source.scheduled.append(lambda: bench.source.lose(PLAYS))
    bench.turn()
    bench.clock.now += 2
    bench.turn(3)
    assert bench.source.committed_offsets == {}
    assert bench.store.vouched == {PLAYS: 0}
    rebalances = bench.metrics.registry.get_sample_value(
        "streamer_rebalances_total", {"kind": "lost"}
    )
    assert rebalances == 1


# --- stopping ------------------------------------------------------------------------------------


def test_a_stop_vouches_for_everything_that_was_applied(bench):
    filled(bench)
    bench.run_then_stop(lambda: bench.total("events_applied") >= 20)
    assert set(bench.source.stored) == {PLAYS, BROWSES}
    assert sum(bench.source.stored.values()) == bench.total("records_consumed")
    for partition, next_offset in bench.source.stored.items():
        bench.ensure_safe(partition, next_offset)
    bench.ensure_counts_add_up()
    assert bench.loop.is_stopping


def test_a_stop_with_the_store_down_gives_up_in_time_and_counts_what_it_abandons(bench):
    good(bench)
    bench.turn_until(lambda: bench.total("events_applied") == 10)
    bench.store.go_down()
    before = bench.clock.now
    bench.run_then_stop(lambda: bench.clock.now > before + 3)
    assert bench.clock.now - before < 3 + DRAIN_SECONDS + 1
    assert bench.clock.now - before >= 3 + DRAIN_SECONDS - 1
    assert bench.source.stored == {}
    assert bench.counts()["records_abandoned"] == 10
    bench.ensure_counts_add_up()
    assert bench.events_said()[-1] == "batch_abandoned"


def test_a_stop_while_the_store_comes_back_in_time_abandons_nothing(bench):
    good(bench)
    bench.turn_until(lambda: bench.total("events_applied") == 10)
    bench.store.faults.plan("write", *[DOWN] * 6)
    bench.run_then_stop(lambda: bench.source.n_waits >= 2)
    assert bench.counts()["records_abandoned"] == 0
    assert bench.source.stored == {PLAYS: 20}
    bench.ensure_safe(PLAYS, 20)
    bench.ensure_counts_add_up()


def test_a_stop_with_dead_letters_down_abandons_the_letters_alone(bench):
    bench.source.append(PLAYS, event(), b"bad", event(item="title-2"), b"worse")
    bench.join(PLAYS)
    bench.letters.faults.always("is_delivered", BROKER_DOWN)
    bench.run_then_stop(lambda: bench.source.n_waits >= 3)
    assert bench.counts() == {
        "records_consumed": 4,
        "events_applied": 2,
        "records_dead_lettered": 0,
        "records_abandoned": 2,
    }
    assert bench.source.stored == {}
    assert bench.store.vouched == {PLAYS: 0}


def test_a_stop_of_an_idle_loop_with_the_store_down_returns_at_once(bench):
    good(bench)
    bench.finish()
    bench.store.go_down()
    before = bench.clock.now
    bench.run_then_stop(lambda: True)
    assert bench.clock.now - before < 2
    assert bench.counts()["records_abandoned"] == 0


def test_a_stop_while_partitions_wait_to_be_admitted_returns_at_once(bench):
    good(bench)
    bench.store.go_down()
    before = bench.clock.now
    bench.run_then_stop(lambda: bench.clock.now > before + 3)
    assert bench.clock.now - before < 5
    assert bench.source.stored == {}


# --- a store that forgets ------------------------------------------------------------------------


def rewinds(bench, cause):
    return bench.metrics.registry.get_sample_value("streamer_rewinds_total", {"cause": cause})


def test_a_store_that_was_flushed_is_filled_again_from_the_earliest_record(bench):
    filled(bench, n_events=120)
    bench.turn_until(lambda: bool(bench.source.stored) and bench.total("events_applied") >= 60)
    bench.source.commit()
    bench.store.flush()
    bench.clock.now += 1
    bench.turn_until(lambda: rewinds(bench, "mark_missing") == 2)
    assert bench.source.lowered == [(PLAYS, 0), (BROWSES, 0)]
    bench.finish()
    bench.ensure_learned()
    bench.ensure_counts_add_up()
    assert rewinds(bench, "mark_behind") == 0


def test_a_store_that_went_back_in_time_is_filled_again_from_the_mark(bench):
    filled(bench, n_events=200)
    bench.turn_until(lambda: bool(bench.source.stored))
    restore = bench.store.snapshot()
    marks = dict(bench.store.vouched)
    bench.turn_until(lambda: bench.store.vouched != marks)
    bench.source.commit()
    restore()
    bench.clock.now += 1
    bench.turn_until(lambda: rewinds(bench, "mark_behind") == 2)
    assert dict(bench.source.lowered) == marks
    bench.finish()
    bench.ensure_learned()
    assert rewinds(bench, "mark_missing") == 0


def test_a_rewind_empties_the_cache(bench):
    good(bench)
    bench.finish()
    assert bench.updater.n_cached_users == 3
    bench.store.flush()
    bench.clock.now += 1
    bench.turn()
    assert bench.loop._checkpoints.is_admitting
    bench.loop._admit()
    assert bench.updater.n_cached_users == 0


def test_a_store_that_restarts_empty_in_the_middle_of_a_batch_loses_nothing(bench):
    filled(bench, n_events=120)
    bench.turn_until(lambda: bool(bench.source.stored))
    bench.store.faults.plan("write", *[DOWN] * 4)
    bench.source.scheduled.extend([lambda: None, lambda: None, bench.store.flush])
    bench.finish()
    bench.clock.now += 1
    bench.turn(2)
    bench.finish()
    bench.ensure_learned()


def test_a_store_that_comes_back_without_what_it_acknowledged_since_the_last_mark(monkeypatch):
    """A fail-over to a replica that was a little behind: the mark is there, newer data is not."""
    bench = good(Bench(monkeypatch, store=lambda bench: FaultyStore(bench.journal)))
    bench.turn()
    bench.loop._save()
    bench.turn()
    bench.loop._save()
    restore = bench.store.snapshot()  # everything until the mark
    bench.turn()  # acknowledged after the mark
    assert bench.total("events_applied") > sum(bench.store.vouched.values())
    bench.store.faults.plan("write", DOWN, DOWN)
    bench.source.scheduled.extend([lambda: None, restore])
    bench.finish()
    bench.ensure_learned()


def test_a_store_that_was_flushed_before_the_first_offset_was_stored_loses_nothing(bench):
    good(bench)
    bench.turn_until(lambda: bench.total("events_applied") == 10)
    assert bench.source.stored == {}
    bench.store.flush()
    bench.finish()
    bench.ensure_learned()


# --- a broker that is away, a client that has failed ---------------------------------------------


def test_a_poll_that_fails_is_repeated(bench):
    good(bench)
    bench.source.faults.plan("poll", *[BROKER_DOWN] * 5)
    bench.source.faults.plan("wait", *[BROKER_DOWN] * 5)
    bench.finish()
    bench.ensure_learned()


@pytest.mark.parametrize("call", ["store_offsets", "pause", "resume", "standings", "seek"])
@pytest.mark.parametrize("n_times", [1, 4])
def test_a_call_to_the_broker_that_fails_is_repeated(bench, call, n_times):
    good(bench)
    bench.turn()
    bench.source.faults.plan(call, *[BROKER_DOWN] * n_times)
    bench.store.faults.plan("write", DOWN)
    bench.finish()
    bench.ensure_learned()
    assert bench.source.paused == set()


@pytest.mark.parametrize("call", ["pause", "seek", "resume", "standings", "lower_commit"])
def test_a_call_to_the_broker_that_fails_during_a_rewind_is_repeated(bench, call):
    good(bench)
    bench.finish()
    bench.source.commit()
    bench.store.flush()
    bench.source.faults.plan(call, BROKER_DOWN)
    bench.clock.now += 1
    bench.turn(10)
    bench.finish()
    bench.ensure_learned()
    assert bench.source.paused == set()


def test_a_fatal_error_of_the_client_ends_the_process(bench):
    good(bench)
    bench.finish()
    bench.source.scheduled.append(bench.source.fail)
    with pytest.raises(RestartNeeded, match="_FATAL"):
        bench.turn(2)


def test_a_fatal_error_ends_the_process_also_while_a_batch_is_held(bench):
    good(bench)
    bench.turn_until(lambda: bench.total("events_applied") == 10)
    bench.store.go_down()
    bench.source.scheduled.extend([lambda: None, bench.source.fail])
    with pytest.raises(RestartNeeded):
        bench.turn()
    assert bench.source.stored == {}


def test_an_error_that_is_not_fatal_is_counted_and_life_goes_on(bench):
    good(bench)
    bench.source.scheduled.append(lambda: bench.source.fail("_TRANSPORT", is_fatal=False))
    bench.finish()
    bench.ensure_learned()
    errors = bench.metrics.registry.get_sample_value(
        "streamer_kafka_errors_total", {"code": "_TRANSPORT"}
    )
    assert errors == 1


def test_a_group_that_cannot_be_joined_is_said_to_be_unavailable(bench):
    bench.source.faults.plan("subscribe", BROKER_DOWN)
    with pytest.raises(BrokerUnavailable):
        bench.loop.run()


# --- everything at once --------------------------------------------------------------------------

STORE_CALLS = ("read_histories", "write", "answer", "move_marks", "read_marks", "write_fresh")


@pytest.mark.parametrize("seed", range(25))
def test_whatever_fails_the_end_is_the_same_and_no_offset_is_ahead_of_its_effects(
    monkeypatch, seed
):
    random = Random(seed)
    bench = filled(Bench(monkeypatch, batch_records=random.randrange(1, 30)), seed, 150)
    bench.live = live_model()

    def disturb():
        fate = random.random()
        if fate < 0.25:
            call = random.choice(STORE_CALLS)
            bench.store.faults.plan(call, *[DOWN] * random.randrange(1, 4))
        elif fate < 0.4:
            bench.letters.faults.plan("is_delivered", *[BROKER_DOWN] * random.randrange(1, 4))
        elif fate < 0.5:
            partition = random.choice([PLAYS, BROWSES])
            if partition in bench.source.owned:
                leave = random.choice([bench.source.revoke, bench.source.lose])
                leave(partition)
            else:
                bench.source.assign(partition)
        elif fate < 0.55:
            bench.source.commit()
        elif fate < 0.6:
            bench.clock.now += 1

    for _ in range(120):
        bench.source.scheduled.append(disturb)
        bench.turn()
    bench.store.come_back()
    bench.letters.faults.heal()
    bench.source.scheduled.clear()
    missing = [p for p in (PLAYS, BROWSES) if p not in bench.source.owned]
    bench.source.scheduled.append(lambda: bench.source.assign(*missing))
    bench.turn(2)
    bench.finish()
    bench.ensure_learned()
    bench.ensure_counts_add_up()
    for partition, next_offset in bench.source.committed_offsets.items():
        bench.ensure_safe(partition, next_offset)
    letters = Counter((r.record.partition, r.record.offset) for r in bench.letters.delivered)
    wanted = {(r.partition, r.offset) for r in rejected_of(bench.source.all_records())}
    assert set(letters) == wanted
