import pytest
from unit.test_runtime_fakes import (
    BROWSES,
    NOON_MS,
    PLAYS,
    FakeClock,
    FakeSource,
    FaultyStore,
    capture_log,
    event,
)

from streamer.errors import BrokerUnavailable, StoreUnavailable
from streamer.metrics import WorkerMetrics
from streamer.runtime.checkpoint import Checkpoints
from streamer.runtime.progress import Progress


class Bench:
    """Checkpoints with everything they talk to; partitions hold 100 records each."""

    def __init__(self, store=None):
        self.clock = FakeClock()
        self.journal = []
        self.store = store or FaultyStore(self.journal)
        self.source = FakeSource(self.clock, self.journal)
        self.metrics = WorkerMetrics(["play-events", "browse-events"], ["default"])
        self.progress = Progress(self.clock.time)
        log, self.said = capture_log()
        self.checkpoints = Checkpoints(self.store, self.source, self.progress, self.metrics, log)
        self.source.subscribe(self)
        for partition in (PLAYS, BROWSES):
            self.source.append(partition, *[event()] * 100)

    # the source's listener

    def on_assigned(self, partitions):
        self.checkpoints.assign(partitions)

    def on_revoked(self, partitions):
        self.checkpoints.save(partitions)
        self.checkpoints.drop(partitions)

    def on_lost(self, partitions):
        self.checkpoints.drop(partitions)

    # what tests do and ask

    def begin(self, *partitions, mark=None, commit=None):
        for partition in partitions:
            if mark is not None:
                self.store.marks[partition] = mark
            if commit is not None:
                self.source.committed_offsets[partition] = commit
        self.source.assign(*partitions)
        return self.checkpoints.admit()

    def apply(self, partition, next_offset, append_time_ms=NOON_MS):
        self.checkpoints.applied(partition, next_offset, append_time_ms)

    def rewinds(self):
        return {
            cause: self.metrics.registry.get_sample_value(
                "streamer_rewinds_total", {"cause": cause}
            )
            for cause in ("mark_behind", "mark_missing")
        }

    def events_said(self):
        return [entry["event"] for entry in self.said]


@pytest.fixture
def bench():
    return Bench()


def admit_until_done(bench, reports=None):
    """Admit as the loop does; return how many attempts it took."""
    for attempt in range(1, 5):
        try:
            report = bench.checkpoints.admit()
        except (StoreUnavailable, BrokerUnavailable):
            assert bench.checkpoints.is_admitting
        else:
            if reports is not None:
                reports.append(report)
        if not bench.checkpoints.is_admitting:
            return attempt
    return pytest.fail("never admitted")


NO_REWINDS = {"mark_behind": 0, "mark_missing": 0}


def test_a_partition_of_a_new_group_begins_with_the_earliest_record(bench):
    bench.source.first_offsets[PLAYS] = 40
    assert bench.begin(PLAYS) is False
    assert bench.source.positions[PLAYS] == 40
    assert PLAYS not in bench.source.paused
    assert bench.checkpoints.admitted == [PLAYS]
    assert bench.store.marks == {PLAYS: 40}  # what Redis forgets from now on is missed
    assert bench.source.stored == {}
    assert bench.source.lowered == []
    assert bench.rewinds() == NO_REWINDS
    assert bench.said == []


def test_a_partition_waits_paused_until_it_is_admitted(bench):
    bench.source.assign(PLAYS)
    assert bench.checkpoints.is_admitting
    assert bench.checkpoints.admitted == []
    assert bench.source.paused == {PLAYS}
    bench.checkpoints.admit()
    assert not bench.checkpoints.is_admitting
    assert bench.source.paused == set()


def test_a_mark_equal_to_the_commit_is_where_to_go_on(bench):
    assert bench.begin(PLAYS, mark=30, commit=30) is False
    assert bench.source.positions[PLAYS] == 30
    assert bench.source.lowered == []


def test_a_mark_ahead_of_the_commit_means_that_records_are_only_repeated(bench):
    assert bench.begin(PLAYS, mark=50, commit=30) is False
    assert bench.source.positions[PLAYS] == 30
    assert bench.source.lowered == []
    assert bench.rewinds() == NO_REWINDS
    bench.apply(PLAYS, 40)  # still behind the old mark: the mark goes back with us
    bench.checkpoints.save()
    assert bench.store.marks[PLAYS] == 40
    assert bench.source.stored[PLAYS] == 40


def test_a_mark_without_a_commit_begins_with_the_earliest_record(bench):
    assert bench.begin(PLAYS, mark=50) is False
    assert bench.source.positions[PLAYS] == 0
    assert bench.rewinds() == NO_REWINDS


def test_a_mark_behind_the_commit_means_that_redis_forgot(bench):
    assert bench.begin(PLAYS, mark=20, commit=50) is True
    assert bench.source.positions[PLAYS] == 20
    assert bench.source.lowered == [(PLAYS, 20)]
    assert bench.rewinds() == {"mark_behind": 1, "mark_missing": 0}
    assert bench.said[0]["event"] == "partition_rewound"
    assert bench.said[0]["cause"] == "mark_behind"


def test_a_missing_mark_with_a_commit_means_that_redis_forgot_everything(bench):
    assert bench.begin(PLAYS, BROWSES, commit=50) is True
    assert bench.source.positions == {PLAYS: 0, BROWSES: 0}
    assert bench.source.lowered == [(PLAYS, 0), (BROWSES, 0)]
    assert bench.rewinds() == {"mark_behind": 0, "mark_missing": 2}
    assert "rewind_incomplete" not in bench.events_said()


@pytest.mark.parametrize("mark", [20, None])
def test_a_topic_that_no_longer_reaches_back_so_far_is_said_loudly(bench, mark):
    bench.source.first_offsets[PLAYS] = 30
    assert bench.begin(PLAYS, mark=mark, commit=50) is True
    assert bench.source.positions[PLAYS] == 30
    assert bench.source.lowered == [(PLAYS, 30)]
    loud = bench.said[0]
    assert (loud["event"], loud["log_level"]) == ("rewind_incomplete", "error")
    assert (loud["wanted_offset"], loud["earliest_offset"]) == (mark or 0, 30)


def test_marks_move_before_the_offsets_they_vouch_for_are_stored(bench):
    bench.begin(PLAYS, BROWSES)
    bench.apply(PLAYS, 10)
    bench.apply(BROWSES, 20)
    bench.journal.clear()
    bench.checkpoints.save()
    names = [entry[0] for entry in bench.journal]
    assert names == ["mark", "mark", "store", "store"]
    assert bench.source.stored == bench.store.marks == {PLAYS: 10, BROWSES: 20}


def test_nothing_is_stored_while_marks_cannot_move_and_all_of_it_later(bench):
    bench.begin(PLAYS)
    bench.apply(PLAYS, 10)
    bench.store.faults.plan("move_marks", StoreUnavailable("down"))
    with pytest.raises(StoreUnavailable):
        bench.checkpoints.save()
    assert bench.source.stored == {}
    bench.checkpoints.save()
    assert bench.source.stored == {PLAYS: 10}


def test_a_mark_whose_answer_was_lost_is_no_rewind(bench):
    bench.begin(PLAYS)
    bench.apply(PLAYS, 10)
    bench.store.marks[PLAYS] = 10  # the move arrived, its answer did not
    bench.checkpoints.save()
    assert bench.source.stored == {PLAYS: 10}
    assert bench.rewinds() == NO_REWINDS


def test_a_worker_that_applied_nothing_stores_nothing(bench):
    bench.begin(PLAYS, mark=30, commit=30)
    bench.checkpoints.save()
    assert bench.source.stored == {}
    assert bench.store.marks == {PLAYS: 30}


def test_an_offset_is_stored_once(bench):
    bench.begin(PLAYS)
    bench.apply(PLAYS, 10)
    bench.checkpoints.save()
    bench.journal.clear()
    bench.checkpoints.save()
    assert bench.journal == []


@pytest.mark.parametrize(
    ("mark", "cause"), [(None, "mark_missing"), (5, "mark_behind"), (0, "mark_behind")]
)
def test_a_mark_that_goes_back_while_we_run_stops_the_partition_until_it_is_rewound(
    bench, mark, cause
):
    bench.begin(PLAYS, BROWSES)
    bench.apply(PLAYS, 10)
    bench.apply(BROWSES, 20)
    bench.checkpoints.save()
    bench.source.commit()
    bench.apply(PLAYS, 30)
    del bench.store.marks[PLAYS]
    if mark is not None:
        bench.store.marks[PLAYS] = mark
    bench.checkpoints.save()
    assert bench.source.stored[PLAYS] == 10  # and not 30
    assert PLAYS in bench.source.paused
    assert bench.checkpoints.admitted == [BROWSES]
    assert bench.checkpoints.is_admitting
    assert bench.checkpoints.admit() is True
    assert bench.source.positions[PLAYS] == (mark or 0)
    assert bench.source.lowered == [(PLAYS, mark or 0)]
    assert bench.source.committed_offsets[PLAYS] == (mark or 0)
    assert PLAYS not in bench.source.paused
    assert bench.rewinds()[cause] == 1
    assert sum(bench.rewinds().values()) == 1


def test_after_a_rewind_offsets_grow_again_from_the_lowered_one(bench):
    bench.begin(PLAYS, commit=50)
    bench.apply(PLAYS, 10)
    bench.checkpoints.save()
    bench.source.commit()
    assert bench.store.marks[PLAYS] == 10
    assert bench.source.stored[PLAYS] == 10
    bench.apply(PLAYS, 60)
    bench.checkpoints.save()
    bench.source.commit()
    assert bench.source.committed_offsets[PLAYS] == 60


def test_a_lower_commit_that_was_lost_is_made_good_by_whoever_comes_next(bench):
    bench.begin(PLAYS, commit=50)
    bench.source.committed_offsets[PLAYS] = 50  # it never reached the broker
    bench.source.stored.clear()
    bench.apply(PLAYS, 10)
    bench.checkpoints.save()
    other = Bench(bench.store)
    assert other.begin(PLAYS, mark=bench.store.marks[PLAYS], commit=50) is True
    assert other.source.positions[PLAYS] == 10


def test_a_mark_that_a_zombie_moved_ahead_of_ours_vouches_for_ours_too(bench):
    bench.begin(PLAYS)
    bench.apply(PLAYS, 10)
    bench.store.marks[PLAYS] = 25
    bench.checkpoints.save()
    assert bench.source.stored == {PLAYS: 10}
    assert bench.rewinds() == NO_REWINDS


def test_a_mark_that_a_zombie_moved_only_part_of_the_way_vouches_with_the_next_save(bench):
    bench.begin(PLAYS, mark=5, commit=5)
    bench.apply(PLAYS, 30)
    bench.store.marks[PLAYS] = 20
    bench.checkpoints.save()
    assert bench.source.stored == {}
    bench.checkpoints.save()
    assert bench.source.stored == {PLAYS: 30}
    assert bench.store.marks[PLAYS] == 30
    assert bench.rewinds() == NO_REWINDS


def test_a_revoked_partition_is_vouched_for_and_then_forgotten(bench):
    bench.begin(PLAYS, BROWSES)
    bench.apply(PLAYS, 10)
    bench.apply(BROWSES, 20)
    bench.source.revoke(PLAYS)
    assert bench.source.committed_offsets == {PLAYS: 10}
    assert bench.store.marks == {PLAYS: 10, BROWSES: 0}
    bench.apply(PLAYS, 30)  # a batch that was in hand
    bench.checkpoints.save()
    assert bench.store.marks == {PLAYS: 10, BROWSES: 20}
    assert bench.checkpoints.admitted == [BROWSES]


def test_a_lost_partition_stores_nothing(bench):
    bench.begin(PLAYS)
    bench.apply(PLAYS, 10)
    bench.source.lose(PLAYS)
    bench.checkpoints.save()
    bench.checkpoints.publish_freshness()
    assert bench.source.stored == {}
    assert bench.store.marks == {PLAYS: 0}
    assert bench.store.fresh_ms == {}


def test_a_partition_that_leaves_while_it_waits_is_not_admitted(bench):
    bench.source.assign(PLAYS, BROWSES)
    bench.source.lose(PLAYS)
    bench.checkpoints.admit()
    assert bench.checkpoints.admitted == [BROWSES]
    assert not bench.checkpoints.is_admitting


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("read_marks", StoreUnavailable("down")),
        ("committed", BrokerUnavailable("down")),
        ("earliest", BrokerUnavailable("down")),
        ("lower_commit", BrokerUnavailable("down")),
        ("seek", BrokerUnavailable("down")),
        ("resume", BrokerUnavailable("down")),
    ],
)
@pytest.mark.parametrize("nth", [0, 1])
def test_an_admission_that_fails_half_way_is_finished_by_the_next(bench, call, error, nth):
    target = bench.store if call == "read_marks" else bench.source
    target.faults.plan(call, *[None] * nth, error)
    bench.source.committed_offsets.update({PLAYS: 50, BROWSES: 50})
    bench.store.marks.update({PLAYS: 20, BROWSES: 20})
    bench.source.assign(PLAYS, BROWSES)
    assert admit_until_done(bench) == 1 + (nth == 0 or call not in {"read_marks", "committed"})
    assert bench.source.paused == set()
    assert bench.source.positions == {PLAYS: 20, BROWSES: 20}
    assert bench.source.committed_offsets == {PLAYS: 20, BROWSES: 20}
    bench.apply(PLAYS, 30)
    bench.apply(BROWSES, 40)
    bench.checkpoints.save()
    assert bench.source.stored == {PLAYS: 30, BROWSES: 40}


@pytest.mark.parametrize("call", ["earliest", "lower_commit", "seek", "resume"])
@pytest.mark.parametrize("nth", [0, 1])
@pytest.mark.parametrize(("mark", "cause"), [(None, "mark_missing"), (20, "mark_behind")])
def test_a_rewind_is_counted_once_and_reported_however_often_the_admission_failed(
    bench, call, nth, mark, cause
):
    bench.source.faults.plan(call, *[None] * nth, BrokerUnavailable("down"))
    bench.source.committed_offsets.update({PLAYS: 50, BROWSES: 50})
    if mark is not None:
        bench.store.marks.update({PLAYS: mark, BROWSES: mark})
    bench.source.assign(PLAYS, BROWSES)
    reports = []
    admit_until_done(bench, reports)
    assert bench.rewinds()[cause] == 2
    assert True in reports


def test_freshness_is_published_for_partitions_that_are_ours(bench):
    bench.begin(PLAYS)
    bench.apply(PLAYS, 10, append_time_ms=NOON_MS + 5)
    bench.checkpoints.publish_freshness()
    assert bench.store.fresh_ms == {PLAYS: NOON_MS + 5}
    bench.progress.observe_watermarks(NOON_MS + 900, {PLAYS: 10, BROWSES: 0})
    bench.checkpoints.publish_freshness()
    assert bench.store.fresh_ms == {PLAYS: NOON_MS + 900}
    bench.progress.observe_watermarks(NOON_MS + 1900, {PLAYS: 11})
    bench.checkpoints.publish_freshness()
    assert bench.store.fresh_ms == {PLAYS: NOON_MS + 900}


def test_a_partition_that_never_held_a_record_is_as_fresh_as_the_brokers_answer(bench):
    bench.source.log[PLAYS].clear()
    bench.begin(PLAYS)
    bench.progress.observe_watermarks(NOON_MS + 900, {PLAYS: 0})
    bench.checkpoints.publish_freshness()
    assert bench.store.fresh_ms == {PLAYS: NOON_MS + 900}


def test_what_redis_forgot_before_the_first_mark_is_read_again(bench):
    bench.begin(PLAYS)
    bench.apply(PLAYS, 10)
    bench.store.flush()  # the effects of 0 to 9 are gone
    bench.checkpoints.save()
    assert bench.source.stored == {}
    assert bench.checkpoints.is_admitting
    bench.checkpoints.admit()
    assert bench.source.positions[PLAYS] == 0
