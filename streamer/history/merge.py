"""Merging evidence into histories: a last-writer-wins map with a cut, vectorised over users.

A history is the map (item_key, kind) → newest word, each group of kinds cut to its newest
entries under the total order (word, item_key), and nothing at or before ``forgotten_before_ms``.
The merge is associative, commutative and idempotent, and the cut preserves that: an entry leaves
its group only because `capacity` other keys of the group are newer, and times of keys only grow.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from streamer.history.batch import HistoryBatch, Interactions
from streamer.history.layout import (
    CAPACITIES,
    GROUP_OF_KIND,
    N_SLOTS,
    NO_GROUP,
    kinds,
)


class Outcome(IntEnum):
    """What became of one interaction in a merge."""

    NEW = 0
    """Entered under a key that the history did not hold."""
    NEWER = 1
    """Replaced an older entry of the same key."""
    KNOWN = 2
    """Already there, older than what is there, or repeated within the batch."""
    OUT_OF_WINDOW = 3
    """Older than the newest `capacity` entries of its group."""
    FORGOTTEN = 4
    """At or before the user's `forgotten_before_ms`."""


def merge(histories: HistoryBatch, arrived: Interactions) -> tuple[HistoryBatch, NDArray[np.uint8]]:
    """Return the histories with the evidence in them; the inputs stay as they were.

    Args:
        histories: n_users histories.
        arrived: Evidence for any of them; its order and repetitions do not matter.

    Returns:
        New histories in the same row order, and the `Outcome` of each interaction, shape (n,).
        Cost: two sorts of (entries of the histories + interactions).
    """
    n_users = len(histories)
    assert len(arrived.forgotten_before_ms) == n_users
    held_rows, held_slots = np.nonzero(histories.words)
    rows = np.concatenate([held_rows, arrived.rows])
    item_keys = np.concatenate([histories.item_keys[held_rows, held_slots], arrived.item_keys])
    words = np.concatenate([histories.words[held_rows, held_slots], arrived.words])
    # Which interaction an entry came from; -1 for what the history held.
    origin = np.concatenate([np.full(len(held_rows), -1), np.arange(len(arrived.rows))])
    outcomes = np.full(len(arrived.rows) + 1, Outcome.KNOWN, np.uint8)  # the last one takes -1

    forgotten_before_ms = np.maximum(histories.forgotten_before_ms, arrived.forgotten_before_ms)
    is_alive = words >> np.uint64(16) > forgotten_before_ms[rows]
    outcomes[origin[~is_alive]] = Outcome.FORGOTTEN
    alive = np.flatnonzero(is_alive)
    winners, overtook = _last_writers(rows[alive], item_keys[alive], words[alive], origin[alive])
    winners = alive[winners]
    rows, item_keys, words, origin = (
        rows[winners],
        item_keys[winners],
        words[winners],
        origin[winners],
    )
    order, has_room = _newest_of_each_group(rows, item_keys, words)
    outcomes[origin[order]] = np.where(
        has_room, np.where(overtook[order], Outcome.NEWER, Outcome.NEW), Outcome.OUT_OF_WINDOW
    )
    kept = order[has_room]
    merged = _pad(n_users, rows[kept], item_keys[kept], words[kept], forgotten_before_ms)
    return merged, outcomes[:-1]


def _last_writers(
    rows: NDArray[np.intp],
    item_keys: NDArray[np.uint64],
    words: NDArray[np.uint64],
    origin: NDArray[np.intp],
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Pick the newest entry of each (row, item_key, kind).

    Returns:
        Indices of the winners, and whether each overtook an entry that the history held. Of
        equal entries the held one wins, so that a repetition counts as known.
    """
    is_held = origin < 0
    key_kinds = kinds(words)
    order = np.lexsort((is_held, words, key_kinds, item_keys, rows))
    rows, item_keys, key_kinds = rows[order], item_keys[order], key_kinds[order]
    is_winner = np.ones(len(order), bool)
    is_winner[:-1] = (
        (rows[1:] != rows[:-1])
        | (item_keys[1:] != item_keys[:-1])
        | (key_kinds[1:] != key_kinds[:-1])
    )
    run = np.cumsum(is_winner) - is_winner
    held_in_run = np.bincount(run[is_held[order]], minlength=int(is_winner.sum())) > 0
    winners = order[is_winner]
    return winners, held_in_run & ~is_held[winners]


def _newest_of_each_group(
    rows: NDArray[np.intp], item_keys: NDArray[np.uint64], words: NDArray[np.uint64]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Sort by row and newest first, and say which entries their group still has room for.

    Returns:
        The order, and in that order whether an entry is within its group's capacity.
    """
    order = np.lexsort((~item_keys, ~words, rows))
    groups = GROUP_OF_KIND[kinds(words[order])]
    assert not (groups == NO_GROUP).any(), "a word without a kind reached the merge"
    bins = rows[order] * len(CAPACITIES) + groups
    by_bin = np.argsort(bins, kind="stable")  # stable: stays newest first within a bin
    sorted_bins = bins[by_bin]
    starts = np.searchsorted(sorted_bins, sorted_bins)
    rank = np.empty(len(order), np.int64)
    rank[by_bin] = np.arange(len(order)) - starts
    return order, rank < CAPACITIES[groups]


def _pad(
    n_users: int,
    rows: NDArray[np.intp],
    item_keys: NDArray[np.uint64],
    words: NDArray[np.uint64],
    forgotten_before_ms: NDArray[np.uint64],
) -> HistoryBatch:
    """Lay entries, sorted by row, out in padded rows."""
    counts = np.bincount(rows, minlength=n_users).astype(np.int64)
    slots = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    merged = HistoryBatch(
        item_keys=np.zeros((n_users, N_SLOTS), np.uint64),
        words=np.zeros((n_users, N_SLOTS), np.uint64),
        counts=counts,
        forgotten_before_ms=forgotten_before_ms,
    )
    merged.item_keys[rows, slots] = item_keys
    merged.words[rows, slots] = words
    return merged
