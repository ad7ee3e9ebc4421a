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
from streamer.pipeline.ports import Mark
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
                self.store.vouch(mark, partition)
            if commit is not None:
                self.source.committed_offsets[partition] = commit
        self.source.assign(*partitions)
        return self.checkpoints.admit()

    def begin_in_two(self, *partitions, **standing):
        """Begin although the first attempt to admit the partitions fails."""
        with pytest.raises(BrokerUnavailable):
            self.begin(*partitions, **standing)
        return self.checkpoints.admit()

    def apply(self, partition, next_offset, append_time_ms=NOON_MS):
        epoch = self.checkpoints.epochs().get(partition)
        self.checkpoints.applied(partition, epoch, next_offset, append_time_ms)

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
    assert bench.store.vouched == {PLAYS: 40}  # what Redis forgets from now on is missed
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
    assert bench.store.vouched[PLAYS] == 40
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
    assert bench.source.stored == bench.store.vouched == {PLAYS: 10, BROWSES: 20}


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
    bench.store.vouch(10, PLAYS)  # the move arrived, its answer did not
    bench.checkpoints.save()
    assert bench.source.stored == {PLAYS: 10}
    assert bench.rewinds() == NO_REWINDS


def test_a_worker_that_applied_nothing_stores_nothing(bench):
    bench.begin(PLAYS, mark=30, commit=30)
    bench.checkpoints.save()
    assert bench.source.stored == {}
    assert bench.store.vouched == {PLAYS: 30}


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
        bench.store.vouch(mark, PLAYS)
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


@pytest.mark.parametrize("mark", [None, 5])
def test_a_mark_that_goes_back_is_missed_also_while_nothing_comes(bench, mark):
    bench.begin(PLAYS, mark=10, commit=10)
    del bench.store.marks[PLAYS]
    if mark is not None:
        bench.store.vouch(mark, PLAYS)
    bench.checkpoints.save()
    assert bench.checkpoints.is_admitting
    bench.checkpoints.admit()
    assert bench.source.positions[PLAYS] == (mark or 0)


def test_no_partition_vouches_after_a_rewind_began_although_none_could_be_paused(bench):
    bench.begin(PLAYS, BROWSES)
    epochs = bench.checkpoints.epochs()
    bench.source.faults.plan("pause", *[BrokerUnavailable("down")] * 2)
    with pytest.raises(BrokerUnavailable):
        bench.checkpoints.rewind()
    for partition in (PLAYS, BROWSES):
        bench.checkpoints.applied(partition, epochs[partition], 10, NOON_MS)
    bench.checkpoints.save()
    assert bench.store.vouched == {PLAYS: 0, BROWSES: 0}
    assert bench.checkpoints.admitted == []
    bench.checkpoints.admit()
    assert bench.source.positions == {PLAYS: 0, BROWSES: 0}


def test_no_partition_vouches_after_marks_went_back_although_none_could_be_paused(bench):
    bench.begin(PLAYS, BROWSES, mark=10, commit=10)
    bench.store.vouch(5, PLAYS, BROWSES)
    bench.source.faults.plan("pause", BrokerUnavailable("down"))
    with pytest.raises(BrokerUnavailable):
        bench.checkpoints.save()
    assert bench.checkpoints.admitted == []


def test_after_a_rewind_offsets_grow_again_from_the_lowered_one(bench):
    bench.begin(PLAYS, commit=50)
    bench.apply(PLAYS, 10)
    bench.checkpoints.save()
    bench.source.commit()
    assert bench.store.vouched[PLAYS] == 10
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
    assert other.begin(PLAYS, mark=bench.store.vouched[PLAYS], commit=50) is True
    assert other.source.positions[PLAYS] == 10


def test_a_mark_that_a_zombie_moved_ahead_of_ours_vouches_for_ours_too(bench):
    bench.begin(PLAYS)
    bench.apply(PLAYS, 10)
    bench.store.vouch(25, PLAYS)
    bench.checkpoints.save()
    assert bench.source.stored == {PLAYS: 10}
    assert bench.rewinds() == NO_REWINDS


def test_a_mark_that_a_zombie_moved_only_part_of_the_way_vouches_with_the_next_save(bench):
    bench.begin(PLAYS, mark=5, commit=5)
    bench.apply(PLAYS, 30)
    bench.store.vouch(20, PLAYS)
    bench.checkpoints.save()
    assert bench.source.stored == {}
    bench.checkpoints.save()
    assert bench.source.stored == {PLAYS: 30}
    assert bench.store.vouched[PLAYS] == 30
    assert bench.rewinds() == NO_REWINDS


def test_a_revoked_partition_is_vouched_for_and_then_forgotten(bench):
    bench.begin(PLAYS, BROWSES)
    bench.apply(PLAYS, 10)
    bench.apply(BROWSES, 20)
    bench.source.revoke(PLAYS)
    assert bench.source.committed_offsets == {PLAYS: 10}
    assert bench.store.vouched == {PLAYS: 10, BROWSES: 0}
    bench.apply(PLAYS, 30)  # a batch that was in hand
    bench.checkpoints.save()
    assert bench.store.vouched == {PLAYS: 10, BROWSES: 20}
    assert bench.checkpoints.admitted == [BROWSES]


def test_a_lost_partition_stores_nothing(bench):
    bench.begin(PLAYS)
    bench.apply(PLAYS, 10)
    bench.source.lose(PLAYS)
    bench.checkpoints.save()
    bench.checkpoints.publish_freshness()
    assert bench.source.stored == {}
    assert bench.store.vouched == {PLAYS: 0}
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
        ("standings", BrokerUnavailable("down")),
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
    bench.store.vouch(20, PLAYS, BROWSES)
    bench.source.assign(PLAYS, BROWSES)
    assert admit_until_done(bench) == 1 + (nth == 0 or call not in {"read_marks", "standings"})
    assert bench.source.paused == set()
    assert bench.source.positions == {PLAYS: 20, BROWSES: 20}
    assert bench.source.committed_offsets == {PLAYS: 20, BROWSES: 20}
    bench.apply(PLAYS, 30)
    bench.apply(BROWSES, 40)
    bench.checkpoints.save()
    assert bench.source.stored == {PLAYS: 30, BROWSES: 40}


@pytest.mark.parametrize("call", ["lower_commit", "seek", "resume"])
@pytest.mark.parametrize("nth", [0, 1])
@pytest.mark.parametrize(("mark", "cause"), [(None, "mark_missing"), (20, "mark_behind")])
def test_a_rewind_is_counted_once_and_reported_however_often_the_admission_failed(
    bench, call, nth, mark, cause
):
    bench.source.faults.plan(call, *[None] * nth, BrokerUnavailable("down"))
    bench.source.committed_offsets.update({PLAYS: 50, BROWSES: 50})
    if mark is not None:
        bench.store.vouch(mark, PLAYS, BROWSES)
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


OLD, NEW = "hQMzg5frS/WPWZwYgmbnjg", "9i8Q5pPpRD6CC4gsnetk9g"
RECREATED = "topic_recreated"


def running(bench, told=OLD):
    """Apply and vouch for ten plays and ten browses under the ids that the broker tells."""
    bench.source.ids = dict.fromkeys(["play-events", "browse-events"], told) if told else {}
    bench.begin(PLAYS, BROWSES)
    bench.apply(PLAYS, 10)
    bench.apply(BROWSES, 10)
    bench.checkpoints.save()
    bench.source.commit()
    return bench


def test_a_mark_names_the_topic_it_counts_in(bench):
    running(bench)
    assert bench.store.marks == {PLAYS: Mark(10, OLD), BROWSES: Mark(10, OLD)}


def test_a_topic_made_anew_under_a_running_worker_is_read_from_its_earliest_record(bench):
    running(bench)
    bench.apply(PLAYS, 20)
    bench.apply(BROWSES, 20)
    bench.source.ids = {"play-events": NEW, "browse-events": OLD}
    bench.source.first_offsets[PLAYS] = 3
    bench.checkpoints.save()
    assert bench.store.marks == {PLAYS: Mark(10, OLD), BROWSES: Mark(20, OLD)}
    assert bench.source.stored == {PLAYS: 10, BROWSES: 20}
    assert PLAYS in bench.source.paused
    assert bench.checkpoints.admit() is True
    assert bench.source.positions[PLAYS] == 3
    assert bench.source.lowered == [(PLAYS, 3)]
    assert bench.store.marks[PLAYS] == Mark(3, NEW)
    assert [entry["cause"] for entry in bench.said] == [RECREATED]
    bench.apply(PLAYS, 5)
    bench.checkpoints.save()
    assert bench.store.marks[PLAYS] == Mark(5, NEW)
    assert bench.source.stored[PLAYS] == 5


@pytest.mark.parametrize("commit", [None, 4, 50])
def test_a_topic_made_anew_while_nobody_ran_is_read_from_its_earliest_record(bench, commit):
    bench.source.ids = {"play-events": NEW}
    bench.store.marks[PLAYS] = Mark(40, OLD)
    assert bench.begin(PLAYS, commit=commit) is True
    assert bench.source.positions[PLAYS] == 0
    assert bench.source.lowered == [(PLAYS, 0)]
    assert bench.store.marks == {PLAYS: Mark(0, NEW)}
    assert [(e["event"], e["cause"]) for e in bench.said] == [("partition_rewound", RECREATED)]


def test_an_id_that_is_told_late_is_learned_and_compared_from_then_on(bench):
    running(bench, told="")
    assert bench.store.marks[PLAYS] == Mark(10)
    bench.source.ids = {"play-events": OLD}
    bench.apply(PLAYS, 11)
    bench.checkpoints.save()
    assert bench.store.marks[PLAYS] == Mark(11, OLD)
    bench.source.ids = {}  # the topic was deleted, or the broker does not answer
    bench.apply(PLAYS, 12)
    bench.checkpoints.save()
    assert bench.store.marks[PLAYS] == Mark(12, OLD)
    assert bench.checkpoints.admitted == [PLAYS, BROWSES]
    bench.source.ids = {"play-events": NEW}
    bench.checkpoints.save()
    assert bench.checkpoints.admitted == [BROWSES]


def test_a_mark_learns_which_topic_it_is_of_also_while_nothing_comes(bench):
    bench.begin(PLAYS, mark=10, commit=10)
    bench.source.ids = {"play-events": OLD}
    bench.checkpoints.save()
    assert bench.store.marks == {PLAYS: Mark(10, OLD)}
    assert bench.source.stored == {}  # nothing was applied, so there is nothing to commit
    assert bench.said == []


def test_an_id_that_is_known_from_the_mark_alone_is_compared_once_the_broker_tells_one(bench):
    bench.store.marks[PLAYS] = Mark(40, OLD)
    assert bench.begin(PLAYS, commit=40) is False
    bench.apply(PLAYS, 45)
    bench.source.ids = {"play-events": NEW}
    bench.checkpoints.save()
    assert bench.store.marks[PLAYS] == Mark(40, OLD)
    bench.checkpoints.admit()
    assert bench.source.positions[PLAYS] == 0


def test_a_mark_of_the_old_topic_that_a_zombie_put_back_neither_vouches_nor_rewinds(bench):
    running(bench, told=NEW)
    bench.apply(PLAYS, 20)
    bench.store.marks[PLAYS] = Mark(5, OLD)
    bench.checkpoints.save()
    assert bench.source.stored[PLAYS] == 10
    bench.checkpoints.save()
    assert bench.store.marks[PLAYS] == Mark(20, NEW)
    assert bench.source.stored[PLAYS] == 20
    assert bench.said == []


def test_a_partition_without_a_leader_does_not_keep_the_others_waiting(bench):
    bench.source.leaderless = {PLAYS}
    bench.source.assign(PLAYS, BROWSES)
    with pytest.raises(BrokerUnavailable, match="play-events/0"):
        bench.checkpoints.admit()
    assert bench.checkpoints.admitted == [BROWSES]
    bench.source.leaderless.clear()
    bench.checkpoints.admit()
    assert sorted(bench.checkpoints.admitted) == [BROWSES, PLAYS]


def test_a_partition_that_cannot_be_sought_does_not_keep_the_others_waiting(bench):
    bench.source.faults.plan("seek", BrokerUnavailable("no leader"))
    bench.source.assign(PLAYS, BROWSES)
    with pytest.raises(BrokerUnavailable, match="no leader"):
        bench.checkpoints.admit()
    assert bench.checkpoints.admitted == [BROWSES]
    bench.checkpoints.admit()
    assert sorted(bench.checkpoints.admitted) == [BROWSES, PLAYS]


def expired(bench):
    return bench.metrics.registry.get_sample_value(
        "streamer_records_expired_total", {"topic": "play-events"}
    )


def test_records_that_retention_took_before_they_were_read_are_said_loudly_and_counted(bench):
    bench.source.first_offsets[PLAYS] = 70
    bench.source.faults.plan("seek", BrokerUnavailable("down"))
    bench.begin_in_two(PLAYS, mark=50, commit=50)
    assert bench.source.positions[PLAYS] == 70
    (loud,) = bench.said
    assert (loud["event"], loud["log_level"]) == ("records_expired", "error")
    assert (loud["wanted_offset"], loud["earliest_offset"]) == (50, 70)
    assert expired(bench) == 20
    assert bench.rewinds() == NO_REWINDS


def test_a_new_group_has_lost_nothing_of_what_was_gone_before_it(bench):
    bench.source.first_offsets[PLAYS] = 70
    bench.begin(PLAYS)
    assert bench.said == []
    assert expired(bench) == 0
