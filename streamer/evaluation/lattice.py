"""Comparing histories as what they are: elements of a join-semilattice (docs/adr/0001).

``one ≥ other`` means that merging `other` into `one` changes nothing: everything that `other`
knows is in `one`, or was overtaken there. Two histories between which both directions hold are
equal, byte for byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.history import HistoryBatch, Interactions, merge


def join(one: HistoryBatch, other: HistoryBatch) -> HistoryBatch:
    """Return the histories that know what either knows; row by row, same number of users."""
    rows, slots = np.nonzero(other.words)
    arrived = Interactions(
        rows=rows,
        item_keys=other.item_keys[rows, slots],
        words=other.words[rows, slots],
        forgotten_before_ms=other.forgotten_before_ms,
    )
    joined, _ = merge(one, arrived)
    return joined


def same(one: HistoryBatch, other: HistoryBatch) -> NDArray[np.bool_]:
    """Say which rows are equal in every entry and in what is forgotten; shape (n_users,)."""
    equal: NDArray[np.bool_] = (
        (one.words == other.words).all(axis=1)
        & (one.item_keys == other.item_keys).all(axis=1)
        & (one.forgotten_before_ms == other.forgotten_before_ms)
    )
    return equal


def covers(one: HistoryBatch, other: HistoryBatch) -> NDArray[np.bool_]:
    """Say in which rows ``one ≥ other``; shape (n_users,)."""
    return same(join(one, other), one)


def younger_than(
    histories: HistoryBatch, entries_ms: int, forgets_ms: int | None = None
) -> HistoryBatch:
    """Return the histories without their old evidence.

    Args:
        histories: n_users histories; they stay as they were.
        entries_ms: Entries at or before this event time go.
        forgets_ms: A `forgotten_before_ms` at or below this goes; None: the same as entries.
    """
    bound = np.uint64(max(entries_ms, 0))
    rows, slots = np.nonzero(histories.words >> np.uint64(16) > bound)
    forgotten = histories.forgotten_before_ms
    oldest_forget = np.uint64(max(entries_ms if forgets_ms is None else forgets_ms, 0))
    young = Interactions(
        rows=rows,
        item_keys=histories.item_keys[rows, slots],
        words=histories.words[rows, slots],
        forgotten_before_ms=np.where(forgotten > oldest_forget, forgotten, np.uint64(0)),
    )
    left, _ = merge(HistoryBatch.empty(len(histories)), young)
    return left
