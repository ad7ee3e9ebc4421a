"""The merge in NumPy, as it is not compiled: another way to the same histories and outcomes.

Two sorts over all entries of a batch, where the kernel goes through one user after the other.
"""

import numpy as np

from streamer.history import CAPACITIES, N_SLOTS, HistoryBatch, Outcome, kinds
from streamer.history.layout import GROUP_OF_KIND


def merge(histories, arrived):
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


def _last_writers(rows, item_keys, words, origin):
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


def _newest_of_each_group(rows, item_keys, words):
    """Sort by row and newest first, and say which entries their group still has room for.

    Returns:
        The order, and in that order whether an entry is within its group's capacity.
    """
    order = np.lexsort((~item_keys, ~words, rows))
    groups = GROUP_OF_KIND[kinds(words[order])]
    bins = rows[order] * len(CAPACITIES) + groups
    by_bin = np.argsort(bins, kind="stable")  # stable: stays newest first within a bin
    sorted_bins = bins[by_bin]
    starts = np.searchsorted(sorted_bins, sorted_bins)
    rank = np.empty(len(order), np.int64)
    rank[by_bin] = np.arange(len(order)) - starts
    return order, rank < CAPACITIES[groups]


def _pad(n_users, rows, item_keys, words, forgotten_before_ms):
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
