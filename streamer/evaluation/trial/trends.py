"""The baseline `trending`: how many viewers began to play each title lately.

``S_i(t) = Σ 2^(-(t - t_e) / H)`` over each viewer's first play of title i before t. All sums decay
alike, so only their order at a time matters, and an event adds ``2^((t_e - t_0) / H)`` once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.evaluation.trial.event_log import EventLog
from streamer.evaluation.trial.ranking import Block, block_length
from streamer.evaluation.trial.targets import DAY_MS, Targets
from streamer.events import Kind
from streamer.factors import UNKNOWN_ROW, ItemModel
from streamer.history import kinds

HALF_LIFE_MS: Final = 7 * DAY_MS
MAX_EXPONENT: Final = 60.0
"""Then the sums are scaled down. In float32 an older play is nothing beside a newer one by then."""


def trending_scores(
    log: EventLog, targets: Targets, model: ItemModel
) -> Iterator[tuple[Block, NDArray[np.float32]]]:
    """Yield the scores of all items at every target, in blocks in order of time."""
    events, item_rows = _counted_plays(log, targets, model)
    positions = log.positions[events]
    times_ms = log.times_ms[events]
    in_time = np.argsort(log.positions[targets.events])
    sums = np.zeros(model.n_items)
    origin_ms = float(times_ms[0]) if len(times_ms) else 0.0
    at = 0
    step = block_length(model.n_items)
    for start in range(0, len(in_time), step):
        chosen = in_time[start : start + step]
        until = np.searchsorted(positions, log.positions[targets.events[chosen]])
        scores = np.empty((len(chosen), model.n_items), np.float32)
        for place, end in enumerate(until.tolist()):
            for event in range(at, end):
                exponent = (float(times_ms[event]) - origin_ms) / HALF_LIFE_MS
                if exponent > MAX_EXPONENT:
                    sums *= 2.0**-exponent
                    origin_ms, exponent = float(times_ms[event]), 0.0
                sums[item_rows[event]] += 2.0**exponent
            at = max(at, end)
            scores[place] = sums
        yield Block.of(targets, chosen), scores


def _counted_plays(
    log: EventLog, targets: Targets, model: ItemModel
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return each viewer's first play of each known title, in order of time, and its row."""
    item_rows = targets.rows_of_events
    plays = np.flatnonzero((kinds(log.words) == Kind.PLAY) & (item_rows != UNKNOWN_ROW))
    pairs = log.users[plays] * model.n_items + item_rows[plays]
    plays = plays[np.unique(pairs, return_index=True)[1]]
    plays = plays[np.argsort(log.positions[plays])]
    return plays, item_rows[plays]
