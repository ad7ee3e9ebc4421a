"""What the marks of all buckets amount to, and what a move expects in each."""

import pytest

from streamer.pipeline.ports import Mark, MarkMove
from streamer.stores.bucket_marks import SeenMarks, smallest

A, B = "dyaXjV-zRQqJqxzkBfDVWA", "9i8Q5pPpRD6CC4gsnetk9g"


@pytest.mark.parametrize(
    ("marks", "together"),
    [
        ([Mark(5, A), Mark(5, A)], Mark(5, A)),
        ([Mark(9, A), Mark(5, A), Mark(7, A)], Mark(5, A)),
        ([Mark(9), Mark(5)], Mark(5)),
        ([Mark(9, A), None], None),
        ([None, None], None),
        # Offsets of two topics cannot be compared, whichever is smaller.
        ([Mark(9, A), Mark(5, B)], None),
        ([Mark(0, B), Mark(5, A)], None),
        # One bucket does not name the topic yet: the next move tells it.
        ([Mark(9, A), Mark(12)], Mark(9)),
        ([Mark(9, A), Mark(5)], Mark(5)),
        ([Mark(9, A), Mark(5), Mark(3, B)], None),
    ],
)
def test_all_buckets_vouch_for_what_the_smallest_vouches_for(marks, together):
    assert smallest(marks) == together


def seen(*marks):
    partition = SeenMarks(len(marks))
    for bucket, mark in enumerate(marks):
        partition.see(bucket, mark)
    return partition


def test_a_move_from_the_smallest_expects_in_each_bucket_what_was_seen_there():
    uneven = seen(Mark(9, A), Mark(5, A), Mark(7, A))
    move = MarkMove(Mark(5, A), Mark(12, A))
    assert uneven.expected(move) == [Mark(9, A), Mark(5, A), Mark(7, A)]
    uneven.see(1, Mark(12, A))
    assert uneven.smallest() == Mark(7, A)


def test_a_move_from_no_mark_replaces_whatever_was_seen():
    for partition in (seen(Mark(9, A), None), seen(Mark(9, A), Mark(5, B))):
        move = MarkMove(None, Mark(0, B))
        assert partition.expected(move)[0] == Mark(9, A)


def test_who_expects_what_was_not_seen_gets_his_own_expectation_everywhere():
    move = MarkMove(Mark(4, A), Mark(12, A))
    assert seen(Mark(9, A), Mark(5, A)).expected(move) == [Mark(4, A)] * 2


def test_a_bucket_that_was_never_seen_may_hold_anything():
    partition = SeenMarks(2)
    partition.see(0, Mark(9, A))
    move = MarkMove(None, Mark(12, A))
    assert partition.expected(move) == [None, None]
