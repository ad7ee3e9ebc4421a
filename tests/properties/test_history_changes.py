"""Counting steps: whatever was merged before changes nothing, and batches may be cut anywhere."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.events import Kind
from streamer.history import (
    CAPACITIES,
    HistoryBatch,
    Interactions,
    changes,
    digests,
    merge,
    newest_ms,
    pack_word,
)

MOST_TITLES = int(CAPACITIES.max()) + 10  # more than a group holds

entries = st.tuples(
    st.integers(0, 1),
    st.integers(1, MOST_TITLES),
    st.integers(1, 200),
    st.integers(0, 200),
    st.sampled_from([Kind.PLAY, Kind.PLAY, Kind.BRIEF_PLAY, Kind.THUMB, Kind.DETAIL_VIEW]),
)
batches = st.lists(entries, max_size=80)
forgets = st.tuples(*[st.one_of(st.just(0), st.integers(1, 100))] * 2)


def interactions(found, forgotten=(0, 0)):
    return Interactions(
        rows=np.array([row for row, *_ in found], np.intp),
        item_keys=np.array([item for _, item, *_ in found], np.uint64),
        words=np.array([pack_word(*rest) for _, _, *rest in found], np.uint64),
        forgotten_before_ms=np.array(forgotten, np.uint64),
    )


def steps(histories, arrived):
    """Return the histories after it, and (what changed, what it replaced) of each."""
    found = changes(histories, arrived)
    after, _ = merge(histories, arrived)
    return after, list(zip(found.has_changed.tolist(), found.before.tolist(), strict=True))


@settings(deadline=None)  # the first call compiles
@given(batches, batches, forgets)
def test_what_was_merged_before_changes_nothing(earlier, batch, forgotten):
    histories, _ = merge(HistoryBatch.empty(2), interactions(earlier))
    arrived = interactions(batch, forgotten)
    after, _ = steps(histories, arrived)
    more, _ = merge(after, interactions(earlier[::-1]))
    for state in (after, more):
        _, again = steps(state, interactions(batch + earlier, forgotten))
        assert not any(changed or before for changed, before in again)


@given(batches, batches, st.lists(st.integers(0, 80), max_size=5))
def test_the_steps_do_not_depend_on_how_records_in_order_are_cut(earlier, batch, cuts):
    histories, _ = merge(HistoryBatch.empty(2), interactions(earlier))
    batch.sort(key=lambda each: (each[2], each[3], each[4], each[1]))
    _, whole = steps(histories, interactions(batch))
    found = []
    cuts = sorted({0, len(batch), *(cut for cut in cuts if cut < len(batch))})
    for start, end in pairwise(cuts):
        histories, some = steps(histories, interactions(batch[start:end]))
        found += some
    assert found == whole


@given(batches, st.permutations(range(12)), forgets)
def test_the_order_within_a_batch_does_not_matter(batch, order, forgotten):
    """Of equal ones it is open which one counts, so all are different here."""
    batch = list(dict.fromkeys(batch))[:12]
    order = [place for place in order if place < len(batch)]
    _, straight = steps(HistoryBatch.empty(2), interactions(batch, forgotten))
    _, turned = steps(HistoryBatch.empty(2), interactions([batch[i] for i in order], forgotten))
    assert turned == [straight[i] for i in order]


@given(batches, batches, forgets)
def test_a_step_is_taken_only_where_the_history_becomes_another(earlier, batch, forgotten):
    """So sums that are written with a changed history are never written without one."""
    histories, _ = merge(HistoryBatch.empty(2), interactions(earlier))
    arrived = interactions(batch, forgotten)
    after, found = steps(histories, arrived)
    stepped = {row for row, (changed, _) in zip(arrived.rows, found, strict=True) if changed}
    is_new = digests(after) != digests(histories)
    assert all(is_new[row] for row in stepped)
    if not any(forgotten):
        assert stepped == set(np.flatnonzero(is_new))
    assert (newest_ms(after) >= newest_ms(histories)).all()
