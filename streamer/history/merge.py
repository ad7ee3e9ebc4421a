"""Merging evidence into histories: a last-writer-wins map with a cut, vectorised over users.

A history is the map (item_key, kind) → newest word, each group of kinds cut to its newest
entries under the total order (word, item_key), and nothing at or before ``forgotten_before_ms``.
The merge is associative, commutative and idempotent, and the cut preserves that: an entry leaves
its group only because `capacity` other keys of the group are newer, and times of keys only grow.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class MergeCounts:
    """What became of the interactions of one merge; their sum is the number of interactions.

    Attributes:
        new: Entered under a key that the history did not hold.
        newer: Replaced an older entry of the same key.
        known: Already there, or older than what is there, or repeated within the batch.
        out_of_window: Older than the newest `capacity` entries of its group.
        forgotten: At or before the user's `forgotten_before_ms`.
    """

    new: int = 0
    newer: int = 0
    known: int = 0
    out_of_window: int = 0
    forgotten: int = 0

    def __add__(self, other: MergeCounts) -> MergeCounts:
        return MergeCounts(
            self.new + other.new,
            self.newer + other.newer,
            self.known + other.known,
            self.out_of_window + other.out_of_window,
            self.forgotten + other.forgotten,
        )


def merge(histories: HistoryBatch, arrived: Interactions) -> tuple[HistoryBatch, MergeCounts]:
    """Return the histories with the evidence in them; the inputs stay as they were.

    Args:
        histories: n_users histories.
        arrived: Evidence for any of them; its order and repetitions do not matter.

    Returns:
        New histories in the same row order, and what became of each interaction.
        Cost: two sorts of (entries of the histories + interactions).
    """
    n_users = len(histories)
    assert len(arrived.forgotten_before_ms) == n_users
    held_rows, held_slots = np.nonzero(histories.words)
    rows = np.concatenate([held_rows, arrived.rows])
    item_keys = np.concatenate([histories.item_keys[held_rows, held_slots], arrived.item_keys])
    words = np.concatenate([histories.words[held_rows, held_slots], arrived.words])
    is_held = np.zeros(len(rows), bool)
    is_held[: len(held_rows)] = True

    forgotten_before_ms = np.maximum(histories.forgotten_before_ms, arrived.forgotten_before_ms)
    is_alive = words >> np.uint64(16) > forgotten_before_ms[rows]
    n_forgotten = int(np.count_nonzero(~is_alive & ~is_held))
    rows, item_keys, words, is_held = (
        rows[is_alive],
        item_keys[is_alive],
        words[is_alive],
        is_held[is_alive],
    )

    winners, overtaken = _last_writers(rows, item_keys, words, is_held)
    n_arrived = int(np.count_nonzero(~is_held))
    rows, item_keys, words, is_held = (
        rows[winners],
        item_keys[winners],
        words[winners],
        is_held[winners],
    )

    order, keep = _newest_of_each_group(rows, item_keys, words)
    kept, cut = order[keep], order[~keep]
    merged = _pad(n_users, rows[kept], item_keys[kept], words[kept], forgotten_before_ms)

    entered = kept[~is_held[kept]]
    n_newer = int(np.count_nonzero(overtaken[entered]))
    n_out = int(np.count_nonzero(~is_held[cut]))
    counts = MergeCounts(
        new=len(entered) - n_newer,
        newer=n_newer,
        known=n_arrived - len(entered) - n_out,
        out_of_window=n_out,
        forgotten=n_forgotten,
    )
    return merged, counts


def _last_writers(
    rows: NDArray[np.intp],
    item_keys: NDArray[np.uint64],
    words: NDArray[np.uint64],
    is_held: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Pick the newest entry of each (row, item_key, kind).

    Returns:
        Indices of the winners, and for each winner whether it overtook a held entry. Of equal
        entries the held one wins, so that a repetition counts as known.
    """
    key_kinds = kinds(words)
    order = np.lexsort((is_held, words, key_kinds, item_keys, rows))
    rows, item_keys, key_kinds = rows[order], item_keys[order], key_kinds[order]
    same_as_next = (
        (rows[1:] == rows[:-1])
        & (item_keys[1:] == item_keys[:-1])
        & (key_kinds[1:] == key_kinds[:-1])
    )
    is_winner = np.ones(len(order), bool)
    is_winner[:-1] = ~same_as_next
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
