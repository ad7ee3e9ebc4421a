import numpy as np
import pytest
from own_learners import Constant
from verify_world import World, damage
from worlds import NOW_MS, PLAYS, event, live_model

from streamer.errors import LearnerError
from streamer.evaluation.expected import Expected
from streamer.evaluation.golden import GoldenHistories
from streamer.evaluation.judgement import Verdict
from streamer.evaluation.letter_offsets import LetterOffsets
from streamer.evaluation.selection import HASH_END, HashRange, Sample
from streamer.events import MAX_AHEAD_MS
from streamer.factors import BUILT_INS, load_learner
from streamer.pipeline.records import Partition
from streamer.pipeline.step import LiveModel
from streamer.stores.keys import features_key, history_key

BROWSE = Partition("browse-events", 3)
DAY_MS = 86_400_000


@pytest.fixture
def world():
    world = World()
    for value in (
        event("ann", "title-1", NOW_MS),
        event("ann", "title-2", NOW_MS + 1000),
        b"not json",
        event("cat", "title-4", NOW_MS),
        event("cat", None, NOW_MS, "forget"),
    ):
        world.log.append(PLAYS, value)
    world.log.append(BROWSE, event("bob", "title-3", NOW_MS, "detail_view"))
    world.apply_everything()
    return world


def many(world, n_users=1000):
    for number in range(n_users):
        world.log.append(PLAYS, event(f"u-{number}", f"title-{number % 40}", NOW_MS + number))
    return [record for record in world.log.records[PLAYS] if b'"u-' in record.value]


def test_nobody_is_surely_only_behind_where_no_mark_vouches_for_anything():
    """A wrong group, or a flushed Redis that no worker fills: everybody looks as if under way."""
    world = World()
    world.log.append(PLAYS, event("ann", "title-1", NOW_MS))
    world.log.append(BROWSE, event("bob", "title-3", NOW_MS, "detail_view"))
    result = world.verify()
    assert (result.n_behind, result.n_different, result.n_unvouched) == (2, 0, 2)
    assert not result.is_conclusive
    world.marks.update({PLAYS: 0, BROWSE: 0})
    result = world.verify()
    assert (result.n_behind, result.n_unvouched) == (2, 0)
    assert result.is_conclusive


# --- a system at rest ----------------------------------------------------------------------------


def test_what_the_worker_wrote_is_equal(world):
    result = world.verify()
    assert result.verdicts == {Verdict.EQUAL: 3}
    assert (result.n_records, result.n_applied, result.n_rejected) == (6, 5, 1)
    assert 0 < result.worst_error < 1e-3
    assert (result.n_passes, result.is_log_cut, result.has_rewound) == (1, False, False)


def test_an_event_that_was_dropped_is_found(world):
    dropped = world.log.append(PLAYS, event("ann", "title-9", NOW_MS + 9))
    world.apply_everything(but=[dropped])
    result = world.verify()
    assert result.listed == {"ann": Verdict.HISTORY_DIFFERS}
    assert (result.n_equal, result.n_behind, result.n_different) == (2, 0, 1)


def test_a_dropped_hundredth_of_the_events_is_found_and_nobody_else_is_accused(world):
    records = many(world)
    dropped = records[7::100]
    world.apply_everything(but=dropped)
    result = world.verify()
    assert result.listed == dict.fromkeys(
        [f"u-{number}" for number in range(7, 1000, 100)], Verdict.HISTORY_MISSING
    )
    assert result.n_equal == 3 + 1000 - 10


def test_a_lost_viewer_is_found(world):
    del world.store.values[history_key("bob")]
    assert world.verify().listed == {"bob": Verdict.HISTORY_MISSING}


def test_evidence_that_is_in_no_record_is_found(world):
    stray = many(World(), 1)  # of a log that is not this one
    bad = [stray[0]._replace(value=event("bob", "title-30", NOW_MS + 5))]
    world.apply(bad)
    assert world.verify().listed == {"bob": Verdict.HISTORY_DIFFERS}


def test_a_history_that_cannot_be_read_is_found(world):
    key = history_key("ann")
    world.store.values[key] = b"SH\1\0" + b"\1" * 60
    assert world.verify().listed == {"ann": Verdict.HISTORY_BROKEN}


def test_bytes_that_no_writer_writes_are_found(world):
    key = history_key("ann")
    value = bytearray(world.store.values[key])
    value[6] = 1  # reserved
    world.store.values[key] = bytes(value)
    assert world.verify().listed == {"ann": Verdict.HISTORY_BROKEN}


def test_missing_features_are_found(world):
    del world.store.values[features_key("default", "ann")]
    assert world.verify().listed == {"ann": Verdict.FEATURES_MISSING}


def test_features_of_a_forgotten_viewer_are_found(world):
    values = world.store.values
    values[features_key("default", "cat")] = values[features_key("default", "ann")]
    assert world.verify().listed == {"cat": Verdict.FEATURES_UNWANTED}


def test_features_of_another_history_are_found(world):
    values = world.store.values
    values[features_key("default", "bob")] = values[features_key("default", "ann")]
    assert world.verify().listed == {"bob": Verdict.FEATURES_OF_ANOTHER_HISTORY}


def test_features_of_an_older_generation_are_behind_until_the_viewer_is_touched(world):
    result = world.verify(live=live_model(generation=2))
    assert result.verdicts == {Verdict.FEATURES_BEHIND: 2, Verdict.EQUAL: 1}
    assert (result.n_behind, result.n_different) == (2, 0)


def test_features_of_another_learner_are_behind_until_the_viewer_is_touched(world):
    live = world.live
    flat = LiveModel("default", live.generation, live.model, load_learner("flat_fold_in"))
    result = world.verify(live=flat)
    assert result.verdicts == {Verdict.FEATURES_OF_ANOTHER_LEARNER: 2, Verdict.EQUAL: 1}
    assert (result.n_behind, result.n_different) == (2, 0)


@pytest.mark.parametrize("name", BUILT_INS)
def test_whatever_the_learner_what_was_written_is_what_the_log_says(name):
    model = live_model().model
    world = World(LiveModel("default", 1, model, load_learner(name)))
    many(world, 100)
    world.apply_everything()
    assert world.verify().verdicts == {Verdict.EQUAL: 100}
    key = features_key("default", "u-7")
    world.store.values[key] = damage(world.store.values[key])
    assert world.verify().listed == {"u-7": Verdict.VECTORS_DIFFER}


def test_a_learner_that_fails_ends_the_verification_with_its_name(world):
    world.live = LiveModel("default", 1, world.live.model, Constant(np.nan))
    with pytest.raises(LearnerError, match="learner 'constant' answered NaN or infinity"):
        world.verify()


def test_a_wrong_vector_is_found(world):
    key = features_key("default", "ann")
    world.store.values[key] = damage(world.store.values[key])
    assert world.verify().listed == {"ann": Verdict.VECTORS_DIFFER}


def test_without_a_model_histories_alone_are_compared(world):
    del world.store.values[features_key("default", "ann")]
    world.live = None
    assert world.verify().n_different == 0


# --- a system that runs --------------------------------------------------------------------------


def test_a_viewer_whose_event_is_not_vouched_for_is_behind(world):
    world.log.append(PLAYS, event("ann", "title-9", NOW_MS + 9))
    result = world.verify()
    assert result.verdicts == {Verdict.EQUAL: 2, Verdict.HISTORY_BEHIND: 1}
    assert result.n_different == 0


def test_without_any_mark_everybody_who_is_missing_is_behind(world):
    world.marks.clear()
    world.store.values.clear()
    assert world.verify().verdicts == {Verdict.HISTORY_BEHIND: 3}


def test_what_arrives_while_verify_reads_becomes_equal_by_reading_on(world):
    def arrive():
        world.before_read = lambda: None
        world.apply([world.log.append(BROWSE, event("ann", "title-9", NOW_MS + 9, "thumb_up"))])

    world.before_read = arrive
    result = world.verify()
    assert result.verdicts == {Verdict.EQUAL: 3}
    assert len(world.n_reads) == 2  # everybody, then ann


def test_an_event_that_is_dropped_while_verify_runs_is_found_once_a_mark_passed_it(world):
    def drop():
        world.before_read = world.vouch  # a moment later
        world.log.append(PLAYS, event("bob", "title-9", NOW_MS + 9))
        world.apply([world.log.append(PLAYS, event("ann", "title-9", NOW_MS + 9))])

    del world.store.values[features_key("default", "bob")]  # so that he is looked at again
    world.before_read = drop
    result = world.verify()
    assert result.listed == {"bob": Verdict.HISTORY_DIFFERS}


def test_users_are_read_after_the_marks_that_vouch_for_them(world):
    def learn():
        world.apply(
            [
                world.log.append(
                    PLAYS, event("ann", "title-9", NOW_MS + len(world.log.records[PLAYS]))
                )
            ]
        )
        world.vouch()

    def arrive_once():
        world.before_read = lambda: None
        learn()

    world.before_marks = learn
    world.before_read = arrive_once
    assert world.verify().verdicts == {Verdict.EQUAL: 3}


def test_a_trouble_that_passes_is_no_difference(world):
    key = history_key("ann")
    lost = world.store.values.pop(key)
    n_reads = 0

    def come_back():
        nonlocal n_reads
        n_reads += 1
        if n_reads == 3:
            world.store.values[key] = lost

    world.before_read = come_back
    assert world.verify().verdicts == {Verdict.EQUAL: 3}


def test_the_number_of_rounds_is_bounded_and_they_wait_for_each_other(world):
    del world.store.values[history_key("ann")]
    before = world.seconds
    world.verify(rounds=4, pause_seconds=1.0)
    assert [n for _, n in world.n_reads] == [3, 1, 1, 1, 1]
    assert world.seconds - before == pytest.approx(3.0)


def test_marks_that_go_down_meanwhile_accuse_nobody(world):
    def fail_over():
        world.marks[PLAYS] = 0
        world.store.values.pop(history_key("ann"), None)
        world.store.values.pop(features_key("default", "ann"), None)

    world.before_read = fail_over
    result = world.verify()
    assert result.has_rewound
    assert result.verdicts == {Verdict.EQUAL: 2, Verdict.HISTORY_BEHIND: 1}


def test_a_model_that_is_published_meanwhile_is_loaded(world):
    older, newer = world.live, live_model(generation=2, model_id=0xB2, seed=4)
    n_reads = 0

    def publish():
        nonlocal n_reads
        n_reads += 1
        if n_reads == 1:
            ours = world.log.append(PLAYS, event("ann", "title-9", NOW_MS + 9))
            world.apply([ours], live=newer)
            world.live = newer

    world.before_read = publish
    assert older.generation == 1
    result = world.verify()
    assert result.n_different == 0
    assert result.verdicts[Verdict.EQUAL] >= 1


# --- dead letters --------------------------------------------------------------------------------


def test_a_record_with_a_letter_is_not_expected_even_if_it_is_accepted_today(world):
    rejected = world.log.append(PLAYS, event("ann", "title-9", NOW_MS + 9))
    world.places.append((PLAYS, rejected.offset))
    world.vouch()
    result = world.verify()
    assert result.verdicts == {Verdict.EQUAL: 3}
    assert (result.n_applied, result.n_rejected, result.n_letters) == (5, 2, 1)


def test_a_letter_of_another_partition_or_offset_excuses_nothing(world):
    dropped = world.log.append(PLAYS, event("ann", "title-9", NOW_MS + 9))
    world.places += [(PLAYS, dropped.offset - 1), (PLAYS._replace(number=7), dropped.offset)]
    world.vouch()
    assert "ann" in world.verify().listed


def test_a_redriven_record_counts(world):
    rejected = world.log.append(PLAYS, event("ann", "title-9", NOW_MS + 9))
    world.places.append((PLAYS, rejected.offset))
    world.log.append(PLAYS, rejected.value, NOW_MS + 20)
    world.vouch()
    assert world.verify().listed == {"ann": Verdict.HISTORY_DIFFERS}
    world.apply_everything()
    assert world.verify().verdicts == {Verdict.EQUAL: 3}


def test_a_record_with_a_letter_may_be_there_after_all_when_a_newer_version_read_it_again(world):
    rejected = world.log.append(PLAYS, event("ann", "title-9", NOW_MS + 9))
    world.places.append((PLAYS, rejected.offset))
    world.apply_everything()
    assert world.verify().verdicts == {Verdict.EQUAL: 3}


def test_a_letter_that_comes_while_verify_runs_is_known_before_anybody_is_accused(world):
    def reject():
        world.before_read = lambda: None
        rejected = world.log.append(PLAYS, event("ann", "title-9", NOW_MS + 9))
        world.places.append((PLAYS, rejected.offset))
        world.apply([world.log.append(PLAYS, event("ann", "title-10", NOW_MS + 10))])
        world.vouch()

    world.before_read = reject
    assert world.verify().verdicts == {Verdict.EQUAL: 3}


def test_letters_are_read_after_the_marks_that_passed_their_records(world):
    def reject():
        world.before_marks = lambda: None
        rejected = world.log.append(PLAYS, event("ann", "title-9", NOW_MS + 9))
        world.places.append((PLAYS, rejected.offset))
        world.vouch()

    world.before_marks = reject
    assert world.verify().verdicts == {Verdict.EQUAL: 3}


# --- a log or a store that has lost its oldest part -----------------------------------------------


def test_evidence_older_than_the_log_is_compared_in_one_direction_and_said(world):
    old = world.log.append(PLAYS, event("ann", "title-9", NOW_MS - DAY_MS), NOW_MS - DAY_MS)
    world.log.records[PLAYS].insert(0, world.log.records[PLAYS].pop())
    world.apply([old])
    world.log.delete_before(PLAYS, 1)
    result = world.verify()
    assert result.is_log_cut
    assert result.verdicts == {Verdict.EQUAL: 2, Verdict.BEYOND_LOG: 1}
    assert (result.n_equal, result.n_beyond_log, result.n_different) == (2, 1, 0)


def test_a_missing_event_is_found_also_where_the_log_is_cut(world):
    world.log.delete_before(PLAYS, 1)
    dropped = world.log.append(PLAYS, event("ann", "title-9", NOW_MS + 9))
    world.apply_everything(but=[dropped])
    assert world.verify().listed == {"ann": Verdict.HISTORY_DIFFERS}


def test_evidence_too_young_for_the_lost_part_of_the_log_is_found(world):
    world.log.delete_before(PLAYS, 1)
    late_ms = NOW_MS + MAX_AHEAD_MS + 60_000
    stray = world.log.append(PLAYS, event("bob", "title-9", late_ms), late_ms)
    world.log.records[PLAYS].pop()
    world.apply([stray])
    assert world.verify().listed == {"bob": Verdict.HISTORY_DIFFERS}


def test_a_viewer_who_expired_is_not_missing(world):
    del world.store.values[history_key("bob")]
    world.seconds += 8 * 86_400
    assert world.verify(expire_after_days=9.0).listed == {"bob": Verdict.HISTORY_MISSING}
    result = world.verify(expire_after_days=7.0)
    assert result.verdicts[Verdict.EXPIRED] == 1
    assert (result.n_equal, result.n_different) == (3, 0)


def test_the_marker_of_a_forgotten_viewer_may_expire(world):
    del world.store.values[history_key("cat")]
    world.seconds += 8 * 86_400
    assert world.verify(tombstone_days=9.0).n_different == 1
    assert world.verify(tombstone_days=7.0).verdicts[Verdict.EXPIRED] == 1


# --- who, how much at once, how fast ------------------------------------------------------------


def test_more_users_than_fit_into_memory_are_verified_in_several_passes(world):
    dropped = many(world)[::100]
    world.apply_everything(but=dropped)
    seen = []
    result = world.verify(seen.append, max_users=200)
    assert result.n_users == 1003
    assert result.n_different == 10
    assert result.n_passes == max(at.pass_number for at in seen) >= 6
    assert (result.n_records, result.n_rejected) == (1006, 1)
    assert max(at.n_total for at in seen if at.stage == "comparing") <= 200
    assert {at.stage for at in seen} == {"reading", "comparing", "settling"}


def test_users_beyond_those_that_fit_are_not_kept_in_memory(world):
    expected = Expected(HashRange(0, HASH_END, None, max_users=100), LetterOffsets())
    for record in many(world):
        expected.apply([record], {PLAYS: 500})
    assert 0 < len(expected.user_ids) <= 100
    held = [set(golden.user_ids) for golden in (expected._vouched, expected._tail)]
    assert set.union(*held) == set(expected.user_ids)


def test_a_sample_is_the_same_in_every_run_and_whoever_is_in_it_is_judged(world):
    many(world)
    world.apply_everything()
    part = world.verify(sample=Sample.parse("10%"))
    assert 60 < part.n_users < 140
    assert world.verify(sample=Sample.parse("10%")).n_users == part.n_users
    world.store.values.clear()
    some = world.verify(sample=Sample.parse("50")).listed
    assert len(some) == 50
    assert world.verify(sample=Sample.parse("50")).listed == some
    more = world.verify(sample=Sample.parse("300"), max_users=90)
    assert some.keys() < more.listed.keys()
    assert len(more.listed) == more.n_users == 300
    assert more.n_passes >= 4


@pytest.mark.parametrize("text", ["0%", "101%", "nan%", "-1", "0", "1.5", "all", "%", ""])
def test_a_sample_is_a_share_or_a_positive_number(text):
    assert Sample.parse(" 0.5 % ") == Sample(share=0.005)
    assert Sample.parse("5000") == Sample(n_users=5000)
    with pytest.raises(ValueError, match=r"."):
        Sample.parse(text)


def test_redis_is_read_no_faster_than_asked(world):
    many(world)
    world.apply_everything()
    world.n_reads.clear()
    world.verify(users_per_second=500.0)
    (begin, _), *_, (end, _) = world.n_reads
    assert end - begin >= (1003 - 100) / 500
    assert max(n for _, n in world.n_reads) == 100


def test_the_log_is_read_no_faster_than_asked(world):
    many(world, 12_000)
    begin = world.seconds
    world.verify(records_per_second=5000.0, rounds=1)
    assert world.seconds - begin >= 2.0


def test_golden_histories_grow_with_the_number_of_users_and_shrink_to_those_that_are_kept(world):
    golden = GoldenHistories()
    golden.apply(many(world, 3000))
    histories = golden.histories(golden.rows_of(golden.user_ids))
    assert len(histories) == 3000
    assert (histories.counts == 1).all()
    word = golden.read(["u-2999"]).words[0, 0]
    golden.keep(["u-2999", "nobody"])
    assert golden.user_ids == ["u-2999"]
    assert golden.read(["u-2998", "u-2999"]).words[:, 0].tolist() == [0, word]
