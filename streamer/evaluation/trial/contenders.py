"""Who is asked to foresee the plays, and by which vectors.

A contender has, for each target, either a vector that is multiplied with the items, or none: a
viewer who is cold to it gets the model's popularity, as a reader would serve. A learner's vectors
are served as a reader blends them, by the time since the newest interaction that is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.evaluation.trial.event_log import EventLog
from streamer.evaluation.trial.full_histories import full_vectors
from streamer.evaluation.trial.snapshots import histories_at
from streamer.evaluation.trial.targets import DAY_MS, Targets, ends_before
from streamer.factors import ItemModel, Learner, UserFactors, ask, blend
from streamer.history import HistoryBatch, event_times_ms

POPULARITY: Final = "popularity"
TRENDING: Final = "trending"
STATIC: Final = "static"
NIGHTLY: Final = "nightly"
FULL_HISTORY: Final = "full_history"
BASELINES: Final = (POPULARITY, TRENDING, STATIC, NIGHTLY, FULL_HISTORY)


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What a contender would serve at some targets.

    Attributes:
        vectors: float32, shape (n, n_factors).
        is_warm: bool, shape (n,); the others are served popularity.
    """

    vectors: NDArray[np.float32]
    is_warm: NDArray[np.bool_]

    def scores(self, rows: NDArray[np.intp] | slice, model: ItemModel) -> NDArray[np.float32]:
        """Return the score of every item at some of the targets, shape (len(rows), n_items)."""
        scores: NDArray[np.float32] = self.vectors[rows] @ model.item_factors.T
        scores[~self.is_warm[rows]] = model.popularity
        return scores


def serve(
    histories: HistoryBatch, times_ms: NDArray[np.int64], learner: Learner, model: ItemModel
) -> Served:
    """Return what a reader would serve at these times from these histories.

    A row that the learner rejects is cold: nothing new would be published for it.

    Raises:
        LearnerError: The learner failed, or its answer has another form than it should.
    """
    return blended(ask(learner, histories, model), histories.words[:, 0], times_ms, model)


def blended(
    factors: UserFactors,
    newest: NDArray[np.uint64],
    times_ms: NDArray[np.int64],
    model: ItemModel,
) -> Served:
    """Return what a reader makes of a learner's answer.

    Args:
        factors: Of n viewers.
        newest: uint64, shape (n,); the words of their newest entries.
        times_ms: int64, shape (n,); when they are read.
        model: The items.
    """
    idle_s = np.maximum(0, times_ms - event_times_ms(newest)) / 1000
    is_warm = (factors.n_solved > 0) & ~factors.is_rejected
    vectors = blend(factors.pairs, idle_s, model.params.blend_half_life_s)
    vectors[~is_warm] = 0.0  # a rejected one may be anything
    return Served(vectors, is_warm)


def histories_before(
    log: EventLog, targets: Targets, chosen: NDArray[np.intp], delay_ms: int = 0
) -> HistoryBatch:
    """Return the viewers' histories at some targets.

    Args:
        log: The log.
        targets: Its targets.
        chosen: intp, shape (n,), ascending.
        delay_ms: What happened later than so long before a target is not known yet; with 0
            everything before it is.
    """
    ends = targets.events[chosen]
    if delay_ms:
        limits_ms = targets.times_ms[chosen] - delay_ms + 1
        ends = ends_before(log, targets, chosen, limits_ms)
    return histories_at(log, targets.users[chosen], ends)


def static_vectors(
    log: EventLog,
    targets: Targets,
    chosen: NDArray[np.intp],
    first_position: int,
    learner_and_model: tuple[Learner, ItemModel],
) -> Served:
    """Return what a learner served when the targets began, and still does."""
    learner, model = learner_and_model
    viewers, places = np.unique(targets.users[chosen], return_inverse=True)
    starts, stops = log.starts[viewers], log.starts[viewers + 1]
    n_before = np.concatenate([[0], np.cumsum(log.positions < first_position)])
    ends = starts + n_before[stops] - n_before[starts]
    histories = histories_at(log, viewers, ends)
    return serve(histories.take(places), targets.times_ms[chosen], learner, model)


def nightly_vectors(
    log: EventLog, targets: Targets, chosen: NDArray[np.intp], model: ItemModel
) -> Served:
    """Return the vectors of the last midnight, UTC, of each viewer's whole past."""
    midnights_ms = targets.times_ms[chosen] // DAY_MS * DAY_MS
    ends = ends_before(log, targets, chosen, midnights_ms)
    moments = np.stack([targets.users[chosen], ends], axis=1)
    distinct, places = np.unique(moments, axis=0, return_inverse=True)
    vectors, is_warm = full_vectors(log, targets, model, distinct[:, 0], distinct[:, 1])
    places = places.reshape(-1)
    return Served(vectors[places], is_warm[places])


def full_history_vectors(
    log: EventLog, targets: Targets, chosen: NDArray[np.intp], model: ItemModel
) -> Served:
    """Return the vectors of each viewer's whole past, up to the target."""
    return Served(*full_vectors(log, targets, model, targets.users[chosen], targets.events[chosen]))
