"""A viewer's history: a bounded, last-writer-wins set of interactions (docs/adr/0001)."""

from streamer.history.batch import HistoryBatch, Interactions
from streamer.history.changes import Changes, changes, newest_ms
from streamer.history.codec import decode, encode
from streamer.history.digest import ABSENT_DIGEST, digests
from streamer.history.layout import (
    CAPACITIES,
    GROUPS,
    N_SLOTS,
    event_times_ms,
    item_key,
    item_keys,
    kinds,
    pack_word,
    pack_words,
    values,
)
from streamer.history.merge import Outcome, merge

__all__ = [
    "ABSENT_DIGEST",
    "CAPACITIES",
    "GROUPS",
    "N_SLOTS",
    "Changes",
    "HistoryBatch",
    "Interactions",
    "Outcome",
    "changes",
    "decode",
    "digests",
    "encode",
    "event_times_ms",
    "item_key",
    "item_keys",
    "kinds",
    "merge",
    "newest_ms",
    "pack_word",
    "pack_words",
    "values",
]
