"""The merge by example; the laws are in tests/properties."""

import numpy as np
import oracle
import pytest

from streamer.history import HistoryBatch, Interactions, Outcome, digests, encode, merge

T = 1_764_000_000_000
PLAY, BRIEF_PLAY, DETAIL_VIEW, TRAILER_VIEW, MY_LIST, THUMB = range(1, 7)


def play(item, time_ms=T, value=200):
    return oracle.Interaction(item, PLAY, time_ms, value)


def arriving(interactions, forgotten_before_ms=0):
    return Interactions(
        np.zeros(len(interactions), np.intp),
        np.array([each.item_key for each in interactions], np.uint64),
        np.array([each.word for each in interactions], np.uint64),
        np.array([forgotten_before_ms], np.uint64),
    )


def merged(*batches):
    """Merge batches one after the other; return the bytes and the last batch's outcomes."""
    histories = HistoryBatch.empty(1)
    outcomes = []
    for batch in batches:
        histories, found = merge(histories, arriving(*batch))
        outcomes = [Outcome(outcome) for outcome in found.tolist()]
    return encode(histories, digests(histories))[0], outcomes


def entries(value):
    return oracle.read_entries(value)


def test_the_last_viewing_of_a_title_wins_and_is_one_entry():
    heartbeats = [play(7, T + second, value=second) for second in range(20)]
    value, outcomes = merged((heartbeats[::-1],))
    assert entries(value) == [heartbeats[-1]]
    assert outcomes.count(Outcome.NEW) == 1
    assert outcomes.count(Outcome.KNOWN) == 19


def test_a_misclick_does_not_overwrite_a_finished_film():
    finished, misclick = play(7), oracle.Interaction(7, BRIEF_PLAY, T + 1, 1)
    value, outcomes = merged(([finished],), ([misclick],))
    assert entries(value) == [misclick, finished]
    assert outcomes == [Outcome.NEW]


def test_a_newer_entry_replaces_and_an_older_one_is_known():
    value, outcomes = merged(([play(7, T)],), ([play(7, T + 1), play(7, T - 1)],))
    assert entries(value) == [play(7, T + 1)]
    assert outcomes == [Outcome.NEWER, Outcome.KNOWN]


def test_at_equal_times_the_larger_value_wins():
    value, _ = merged(([play(7, T, 5)],), ([play(7, T, 4), play(7, T, 6)],))
    assert entries(value) == [play(7, T, 6)]


@pytest.mark.parametrize(
    ("kinds", "capacity"),
    [((PLAY, BRIEF_PLAY), 30), ((THUMB,), 10), ((MY_LIST,), 5), ((DETAIL_VIEW, TRAILER_VIEW), 10)],
)
def test_a_group_keeps_its_newest_entries(kinds, capacity):
    many = [
        oracle.Interaction(item, kinds[item % len(kinds)], T + item, 0)
        for item in range(1, capacity + 4)
    ]
    value, outcomes = merged((many,))
    assert entries(value) == many[: -capacity - 1 : -1]
    assert outcomes == [Outcome.OUT_OF_WINDOW] * 3 + [Outcome.NEW] * capacity
    _, outcomes = merged((many[3:],), (many[:3],))
    assert outcomes == [Outcome.OUT_OF_WINDOW] * 3


def test_at_equal_words_the_cut_keeps_the_larger_item_keys():
    keys = [0, 1, 2, 3, (1 << 63), (1 << 64) - 1]
    many = [oracle.Interaction(key, MY_LIST, T, 1) for key in keys]
    value, _ = merged((many,))
    assert entries(value) == many[:0:-1]


def test_a_removal_is_an_entry_and_takes_its_place_in_the_group():
    many = [oracle.Interaction(item, MY_LIST, T + item, item % 2) for item in range(5)]
    value, _ = merged((many,))
    assert len(entries(value)) == 5


def test_forgetting_drops_what_is_at_or_before_now_and_later():
    value, outcomes = merged(
        ([play(1, T - 1), play(2, T), play(3, T + 1)],), ([play(2, T), play(4, T + 2)], T)
    )
    assert entries(value) == [play(4, T + 2), play(3, T + 1)]
    assert outcomes == [Outcome.FORGOTTEN, Outcome.NEW]
    assert oracle.read_history(value).forgotten_before_ms == T


def test_an_older_forgetting_does_not_undo_a_newer_one():
    value, outcomes = merged(([], T), ([play(1, T)], T - 1))
    assert oracle.read_history(value).forgotten_before_ms == T
    assert outcomes == [Outcome.FORGOTTEN]


def test_an_entry_that_comes_back_over_a_forgotten_one_is_new():
    _, outcomes = merged(([play(1, T)],), ([play(1, T + 1)], T))
    assert outcomes == [Outcome.NEW]


def test_an_entry_of_another_user_is_another_entry():
    histories = HistoryBatch.empty(3)
    words = np.array([play(1).word] * 2, np.uint64)
    arrived = Interactions(
        np.array([2, 0]), np.array([1, 1], np.uint64), words, np.zeros(3, np.uint64)
    )
    after, outcomes = merge(histories, arrived)
    assert after.counts.tolist() == [1, 0, 1]
    assert outcomes.tolist() == [Outcome.NEW] * 2


def test_a_word_without_a_kind_is_a_bug_that_is_not_stored():
    with pytest.raises(AssertionError, match="without a kind"):
        merged(([oracle.Interaction(1, 7, T, 0)],))


def test_columns_of_different_lengths_are_a_bug():
    zeros = np.zeros(1, np.uint64)
    with pytest.raises(AssertionError):
        Interactions(np.zeros(2, np.intp), zeros, zeros, zeros)
    with pytest.raises(AssertionError):
        HistoryBatch(zeros[:, None], zeros[:, None], np.zeros(1, np.int64), zeros)
    with pytest.raises(AssertionError):
        merge(HistoryBatch.empty(2), arriving([]))
