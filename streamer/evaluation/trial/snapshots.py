"""Histories as they were at any moment, by the worker's own merge.

A viewer's moments are taken one after the other, those of all viewers at once: in round r every
viewer's history moves on to their r-th moment, by one merge of what happened since.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.evaluation.trial.event_log import EventLog
from streamer.evaluation.trial.targets import ragged
from streamer.history import HistoryBatch, Interactions, merge


def histories_at(log: EventLog, users: NDArray[np.intp], ends: NDArray[np.intp]) -> HistoryBatch:
    """Return what the history of a viewer was before an interaction of the log.

    Args:
        log: The log.
        users: intp, shape (n,), ascending; a viewer may come many times.
        ends: intp, shape (n,), ascending for each viewer; interactions of the viewer from here on
            are not known yet.

    Returns:
        n histories, in the order of the arguments. Cost: one merge for the greatest number of
        moments of a viewer, 1 kB each.
    """
    found = HistoryBatch.empty(len(users))
    viewers, first_moments, n_moments = np.unique(users, return_index=True, return_counts=True)
    held = HistoryBatch.empty(len(viewers))
    held.forgotten_before_ms[:] = log.forgotten_before_ms[viewers]
    reached = log.starts[viewers]
    for round_number in range(int(n_moments.max(initial=0))):
        rows = np.flatnonzero(n_moments > round_number)
        moments = first_moments[rows] + round_number
        lengths = ends[moments] - reached[rows]
        places, steps = ragged(lengths)
        arrived = reached[rows][places] + steps
        moved, _ = merge(
            held.take(rows),
            Interactions(
                places,
                log.item_keys[arrived],
                log.words[arrived],
                np.zeros(len(rows), np.uint64),
            ),
        )
        held.put(rows, moved)
        found.put(moments, moved)
        reached[rows] = ends[moments]
    return found
