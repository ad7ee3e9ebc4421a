"""What each interaction changed, taken one at a time in the order of their events.

A merge says where a batch ends; whoever counts needs each step on the way, and the same steps
however the records were cut into batches. So a user's interactions are applied one by one, oldest
first, as if each were a batch of its own. One that the history held already, or holds something
newer of, or has cut off, changes nothing here as in the merge. So evidence that was merged before
changes nothing again: its effects are in the history, and histories only grow (ADR 0001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.history.batch import HistoryBatch, Interactions
from streamer.history.layout import event_times_ms


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """The steps of a merge.

    Attributes:
        has_changed: bool, shape (n,); whether the interaction entered the history at its turn.
        before: uint64, shape (n,); the word of the same item and kind that it replaced there, 0
            where there was none or nothing has changed.
    """

    has_changed: NDArray[np.bool_]
    before: NDArray[np.uint64]


def changes(histories: HistoryBatch, arrived: Interactions) -> Changes:
    """Return what each interaction changes at its turn.

    Args:
        histories: n_users histories, as they are before.
        arrived: Evidence for any of them, in any order, with any repetitions. What a user asked to
            forget is forgotten first.
    """
    from streamer.history import kernels  # noqa: PLC0415  takes half a second; not all need it

    n_users = len(histories)
    assert len(arrived.forgotten_before_ms) == n_users
    oldest_first = np.lexsort((arrived.item_keys, arrived.words, arrived.rows))
    has_changed, before = kernels.changes(
        histories.item_keys,
        histories.words,
        histories.counts,
        np.maximum(histories.forgotten_before_ms, arrived.forgotten_before_ms),
        np.searchsorted(arrived.rows[oldest_first], np.arange(n_users + 1)),
        arrived.item_keys[oldest_first],
        arrived.words[oldest_first],
    )
    found = Changes(np.empty(len(before), np.bool_), np.empty(len(before), np.uint64))
    found.has_changed[oldest_first] = has_changed
    found.before[oldest_first] = before
    return found


def newest_ms(histories: HistoryBatch) -> NDArray[np.int64]:
    """Return the latest time that each history tells of, int64, shape (n_users,); 0 for none.

    Of its newest entry, or of what was forgotten; it never falls, however a history grows.
    """
    forgotten: NDArray[np.int64] = histories.forgotten_before_ms.astype(np.int64)
    return np.maximum(event_times_ms(histories.words[:, 0]), forgotten)
