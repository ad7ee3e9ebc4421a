"""Merging evidence into histories: a last-writer-wins map with a cut.

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
        Of equal interactions, one is new and the others known. Cost: a sort of the interactions,
        and a pass over the histories for each of them.
    """
    from streamer.history import kernels  # noqa: PLC0415  takes half a second; not all need it

    n_users = len(histories)
    assert len(arrived.forgotten_before_ms) == n_users
    forgotten_before_ms = np.maximum(histories.forgotten_before_ms, arrived.forgotten_before_ms)
    newest_first = np.lexsort((~arrived.item_keys, ~arrived.words, arrived.rows))
    item_keys, words, counts, found = kernels.merge(
        histories.item_keys,
        histories.words,
        histories.counts,
        forgotten_before_ms,
        np.searchsorted(arrived.rows[newest_first], np.arange(n_users + 1)),
        arrived.item_keys[newest_first],
        arrived.words[newest_first],
    )
    outcomes = np.empty(len(found), np.uint8)
    outcomes[newest_first] = found
    return HistoryBatch(item_keys, words, counts, forgotten_before_ms), outcomes
