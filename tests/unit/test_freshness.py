"""Freshness is a promise: everything appended before that time is readable."""

import random

import pytest

from streamer.pipeline.freshness import MAX_SAMPLES, PartitionProgress


def test_nothing_is_known_before_the_broker_has_answered():
    progress = PartitionProgress()
    assert progress.fresh_ms(10) is None
    assert progress.lag_records(10) is None


def test_a_partition_that_is_caught_up_is_fresh_as_of_the_question():
    progress = PartitionProgress()
    progress.observe_watermark(1000, 10)
    assert progress.fresh_ms(9) is None
    assert progress.fresh_ms(10) == 1000
    progress.observe_watermark(2000, 10)
    assert progress.fresh_ms(10) == 2000


def test_what_was_appended_after_the_last_passed_watermark_is_not_promised():
    progress = PartitionProgress()
    for asked_at_ms, high_watermark in ((1000, 10), (2000, 20), (3000, 30)):
        progress.observe_watermark(asked_at_ms, high_watermark)
    assert progress.fresh_ms(25) == 2000
    assert progress.fresh_ms(29) == 2000
    assert progress.fresh_ms(30) == 3000


def test_with_a_silent_broker_freshness_stops():
    progress = PartitionProgress()
    progress.observe_watermark(1000, 10)
    assert [progress.fresh_ms(next_offset) for next_offset in (10, 11, 500)] == [1000] * 3


def test_an_applied_record_vouches_for_all_before_it():
    progress = PartitionProgress()
    progress.observe_applied(500)
    assert progress.fresh_ms(1) == 500
    progress.observe_applied(400)  # clocks of brokers may step back; the promise does not
    assert progress.fresh_ms(1) == 500
    progress.observe_watermark(300, 1)
    assert progress.fresh_ms(1) == 500


def test_the_records_that_are_missing_are_counted():
    progress = PartitionProgress()
    progress.observe_watermark(1000, 10)
    assert progress.lag_records(4) == 6
    assert progress.lag_records(10) == progress.lag_records(12) == 0
    progress.observe_watermark(1001, 14)
    assert progress.lag_records(10) == 4


def test_a_long_backlog_is_remembered_in_bounded_space_and_never_flattered():
    progress = PartitionProgress()
    n_samples = 10 * MAX_SAMPLES
    for second in range(n_samples):
        progress.observe_watermark(second, second + 1)
        assert len(progress._samples) <= MAX_SAMPLES
    newest = n_samples - MAX_SAMPLES // 4
    for next_offset in range(1, newest, 997):
        assert progress.fresh_ms(next_offset) < next_offset
    for next_offset in range(newest, n_samples + 1):
        assert progress.fresh_ms(next_offset) == next_offset - 1  # the newest ones are all there


@pytest.mark.parametrize("seed", range(20))
def test_a_promise_is_never_broken_whatever_the_order_of_things(seed):
    """A log of append times, questions whose answers may be late, and a worker behind it."""
    rolls = random.Random(seed)
    progress = PartitionProgress()
    appended_ms, next_offset, now_ms, promised = [], 0, 0, 0
    for _ in range(400):
        now_ms += rolls.randrange(3)
        match rolls.randrange(4):
            case 0:
                appended_ms += [now_ms] * rolls.randrange(4)
            case 1:
                asked_at_ms = now_ms - rolls.randrange(3)
                progress.observe_watermark(asked_at_ms, len(appended_ms))
            case 2:
                next_offset = min(len(appended_ms), next_offset + rolls.randrange(5))
                if next_offset and rolls.random() < 0.5:
                    progress.observe_applied(appended_ms[next_offset - 1])
            case 3:
                fresh_ms = progress.fresh_ms(next_offset)
                assert fresh_ms is None or fresh_ms >= promised
                promised = fresh_ms or promised
                # Strictly before: a record of that very millisecond may be missing.
                assert all(appended >= promised for appended in appended_ms[next_offset:])
