"""What freshness is worth: score first, then learn, on the same events.

At every first contact of a viewer with a title (a play, a trailer, a detail page), would that
title have been among the k best of all titles new to the viewer? Asked of the vectors as they were
a moment before, and of the vectors as they were when the stream began.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import RejectedRecord
from streamer.evaluation.golden import GoldenHistories
from streamer.events import Event, Kind, decode_event
from streamer.factors import UNKNOWN_ROW, ItemModel, Learner, ask, blend
from streamer.history import HistoryBatch, Interactions, event_times_ms, item_key, pack_word
from streamer.pipeline.records import Record

MAX_CHUNK_EVENTS: Final = 256
CONTACTS: Final = frozenset({Kind.PLAY, Kind.BRIEF_PLAY, Kind.DETAIL_VIEW, Kind.TRAILER_VIEW})


@dataclass(frozen=True, slots=True)
class HitRates:
    """Share of first contacts whose title was among the k best.

    Attributes:
        k: The cut-off.
        n_targets: How many first contacts were scored.
        fresh: With the vectors of a moment before.
        frozen: With the vectors of the beginning.
    """

    k: int
    n_targets: int
    fresh: float
    frozen: float


def hit_rates(
    past: GoldenHistories,
    records: Sequence[Record],
    model: ItemModel,
    learner: Learner,
    k: int = 20,
) -> HitRates:
    """Score the records one after another, learning each after it was scored.

    Args:
        past: What is known when the stream begins; it is learned into.
        records: The stream, in the order of its append times.
        model: The items.
        learner: Folds viewers in.
        k: The cut-off.

    Returns:
        The hit rates over all first contacts with titles that the model knows.
    """
    events = [event for event in map(_decoded, records) if event is not None]
    rows = past.rows_of([event.user_id for event in events])
    frozen = past.histories(np.arange(len(past.user_ids)))
    n_targets = 0
    hits = np.zeros(2, np.int64)
    for chunk in _chunks(rows):
        chunk_events = [events[index] for index in chunk.tolist()]
        users = rows[chunk]
        keys = np.array([item_key(event.item_id or "") for event in chunk_events], np.uint64)
        fresh = past.histories(users)
        item_rows = model.rows_of(keys)
        is_contact = np.array([_is_contact(event) for event in chunk_events], bool)
        is_new = ~(fresh.item_keys == keys[:, None]).any(axis=1)
        targets = np.flatnonzero(is_contact & is_new & (item_rows != UNKNOWN_ROW))
        if len(targets):
            now_ms = np.array([chunk_events[row].event_time_ms for row in targets.tolist()])
            seen = model.rows_of(fresh.item_keys[targets])
            for column, histories in enumerate((fresh, frozen.take(users))):
                scores = _scores(histories.take(targets), now_ms, model, learner)
                hits[column] += _count_hits(scores, item_rows[targets], seen, k)
            n_targets += len(targets)
        past.merge(users, _evidence(chunk_events, keys))
    fresh_rate, frozen_rate = (hits / max(1, n_targets)).tolist()
    return HitRates(k, n_targets, fresh_rate, frozen_rate)


def _decoded(record: Record) -> Event | None:
    try:
        event = decode_event(record.value, record.timestamp_ms)
    except RejectedRecord:
        return None
    return event if event.evidence is not None else None


def _is_contact(event: Event) -> bool:
    return event.evidence is not None and event.evidence.kind in CONTACTS


def _chunks(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Cut the stream so that no user is twice in a chunk: then its order does not matter."""
    start = 0
    met: set[int] = set()
    for index, row in enumerate(rows.tolist()):
        if row in met or index - start >= MAX_CHUNK_EVENTS:
            yield np.arange(start, index)
            start = index
            met.clear()
        met.add(row)
    if start < len(rows):
        yield np.arange(start, len(rows))


def _evidence(events: Sequence[Event], keys: NDArray[np.uint64]) -> Interactions:
    words = [
        pack_word(event.event_time_ms, event.evidence.value, event.evidence.kind)
        for event in events
        if event.evidence is not None
    ]
    return Interactions(
        rows=np.arange(len(events)),
        item_keys=keys,
        words=np.array(words, np.uint64),
        forgotten_before_ms=np.zeros(len(events), np.uint64),
    )


def _scores(
    histories: HistoryBatch, now_ms: NDArray[np.int64], model: ItemModel, learner: Learner
) -> NDArray[np.float32]:
    """Return the score of every item, shape (n_users, n_items); popularity for the cold."""
    factors = ask(learner, histories, model)
    idle_s = np.maximum(0.0, (now_ms - event_times_ms(histories.words[:, 0])) / 1000)
    vectors = blend(factors.pairs, idle_s, model.params.blend_half_life_s)
    scores: NDArray[np.float32] = vectors.astype(np.float32) @ model.item_factors.T
    scores[factors.n_solved == 0] = model.popularity
    return scores


def _count_hits(
    scores: NDArray[np.float32],
    target_rows: NDArray[np.intp],
    seen_rows: NDArray[np.intp],
    k: int,
) -> int:
    """Count targets that fewer than k unseen items beat or tie."""
    users = np.arange(len(scores))
    target_scores = scores[users, target_rows]
    is_item = seen_rows != UNKNOWN_ROW
    scores[np.nonzero(is_item)[0], seen_rows[is_item]] = -np.inf
    scores[users, target_rows] = -np.inf
    return int(np.count_nonzero((scores >= target_scores[:, None]).sum(axis=1) < k))
