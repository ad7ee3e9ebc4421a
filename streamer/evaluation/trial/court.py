"""The trial of learners beside the baselines, play by play: score first, then learn.

Viewers do not depend on each other once the items are fixed, so they are taken one after the other
and each one's plays in order of time; only `trending` looks at all of them at once. Of each
contender the place of every played title is kept, and of some targets the best k titles; everything
that a report says is computed from these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.evaluation.trial.capacities import contender_name, serve_capacity
from streamer.evaluation.trial.contenders import (
    BASELINES,
    FULL_HISTORY,
    NIGHTLY,
    POPULARITY,
    STATIC,
    TRENDING,
    Served,
    full_history_vectors,
    histories_before,
    nightly_vectors,
    serve,
    static_vectors,
)
from streamer.evaluation.trial.event_log import EventLog
from streamer.evaluation.trial.ranking import Block, best, block_length, ranks
from streamer.evaluation.trial.targets import Targets
from streamer.evaluation.trial.trends import trending_scores
from streamer.factors import ItemModel, Learner
from streamer.history import HistoryBatch, event_times_ms

OnProgress = Callable[[str, int, int], None]
"""Told about a stage, what is done of it and what there is; 0 if nobody knows."""

TARGETS_AT_ONCE: Final = 4_096
DELAYS_MS: Final = (0, 300_000, 3_600_000, 86_400_000)
MAX_DELAYED_TARGETS: Final = 10_000
"""Spread evenly over the targets; delays are measured on them alone."""
MAX_LISTED_TARGETS: Final = 2_000
"""Likewise; coverage and calibration look at their best k titles."""
NO_PAUSE: Final = -1
"""Of a viewer without a history."""


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """What one contender did.

    Attributes:
        ranks: int32, shape (n_targets,); candidates before the played title.
        is_warm: bool, shape (n_targets,); the others were served popularity for want of a vector.
        best_rows: int32, shape (n_listed, k); the best titles, -1 where there are no more.
        best_scores: float32, shape (n_listed, k).
    """

    ranks: NDArray[np.int32]
    is_warm: NDArray[np.bool_]
    best_rows: NDArray[np.int32]
    best_scores: NDArray[np.float32]

    @classmethod
    def empty(cls, n_targets: int, n_listed: int, k: int) -> Board:
        """Return a board on which nothing is written yet."""
        return cls(
            np.zeros(n_targets, np.int32),
            np.ones(n_targets, bool),
            np.zeros((n_listed, k), np.int32),
            np.zeros((n_listed, k), np.float32),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Everything that was found.

    Attributes:
        k: The cut-off.
        targets: The plays.
        boards: By contender: the learners first, then the baselines.
        n_learners: How many of them are learners.
        history_lengths: int64, shape (n_targets,); entries of the history just before.
        long_lengths: The same by name of a capacity that was tried.
        pauses_ms: int64, shape (n_targets,); time since the newest of them, NO_PAUSE without any.
        listed: intp, shape (n_listed,); targets whose best titles were kept.
        delayed: intp, shape (n_delayed,); targets that were asked again with delays.
        delayed_ranks: By learner and delay, int32, shape (n_delayed,).
    """

    k: int
    targets: Targets
    boards: Mapping[str, Board]
    n_learners: int
    history_lengths: NDArray[np.int64]
    long_lengths: Mapping[str, NDArray[np.int64]]
    pauses_ms: NDArray[np.int64]
    listed: NDArray[np.intp]
    delayed: NDArray[np.intp]
    delayed_ranks: Mapping[str, Mapping[int, NDArray[np.int32]]]


class Court:
    """Holds a trial: who stands in it, and what is asked of them."""

    def __init__(
        self,
        log: EventLog,
        model: ItemModel,
        learners: Mapping[str, Learner],
        capacities: Sequence[int],
        first_position: int,
    ) -> None:
        self.log = log
        self.model = model
        self.learners = learners
        self.capacities = {contender_name(each): each for each in capacities}
        self.first_position = first_position

    def try_all(self, targets: Targets, k: int, on_progress: OnProgress) -> Trial:
        """Ask every contender about every target.

        Args:
            targets: Of the log, from `first_position` on.
            k: The cut-off.
            on_progress: Told about `trending` and `scoring`, in targets.
        """
        n_targets = len(targets)
        names = [*self.learners, *self.capacities, *BASELINES]
        listed, delayed = (
            _spread(targets, MAX_LISTED_TARGETS),
            _spread(targets, MAX_DELAYED_TARGETS),
        )
        trial = Trial(
            k=k,
            targets=targets,
            boards={name: Board.empty(n_targets, len(listed), k) for name in names},
            n_learners=len(self.learners),
            history_lengths=np.zeros(n_targets, np.int64),
            long_lengths={name: np.zeros(n_targets, np.int64) for name in self.capacities},
            pauses_ms=np.zeros(n_targets, np.int64),
            listed=listed,
            delayed=delayed,
            delayed_ranks={
                name: {delay_ms: np.zeros(len(delayed), np.int32) for delay_ms in DELAYS_MS}
                for name in self.learners
            },
        )
        done = 0
        for block, scores in trending_scores(self.log, targets, self.model):
            _write(trial, TRENDING, block, scores)
            done += len(block)
            on_progress("trending", done, n_targets)
        for start in range(0, n_targets, TARGETS_AT_ONCE):
            stop = min(start + TARGETS_AT_ONCE, n_targets)
            self._try(trial, np.arange(start, stop))
            on_progress("scoring", stop, n_targets)
        return trial

    def _try(self, trial: Trial, chosen: NDArray[np.intp]) -> None:
        """Ask about some targets in a row."""
        log, targets, model = self.log, trial.targets, self.model
        times_ms = targets.times_ms[chosen]
        histories = histories_before(log, targets, chosen)
        trial.history_lengths[chosen] = histories.counts
        trial.pauses_ms[chosen] = _pauses_ms(histories, times_ms)
        first_learner = next(iter(self.learners.values()))
        served = {
            name: serve(histories, times_ms, learner, model)
            for name, learner in self.learners.items()
        }
        served[STATIC] = static_vectors(
            log, targets, chosen, self.first_position, (first_learner, model)
        )
        served[NIGHTLY] = nightly_vectors(log, targets, chosen, model)
        served[FULL_HISTORY] = full_history_vectors(log, targets, chosen, model)
        for name, capacity in self.capacities.items():
            served[name], lengths = serve_capacity(log, targets, chosen, model, capacity)
            trial.long_lengths[name][chosen] = lengths
        for name, each in served.items():
            trial.boards[name].is_warm[chosen] = each.is_warm
        popular = np.broadcast_to(model.popularity, (len(chosen), model.n_items))
        step = block_length(model.n_items)
        for start in range(0, len(chosen), step):
            rows = slice(start, start + step)
            block = Block.of(targets, chosen[rows])
            _write(trial, POPULARITY, block, popular[rows])
            for name, each in served.items():
                _write(trial, name, block, each.scores(rows, model))
        self._delay(trial, chosen)

    def _delay(self, trial: Trial, chosen: NDArray[np.intp]) -> None:
        """Ask the learners again about some of the targets, as if events had come later."""
        places = np.flatnonzero(np.isin(trial.delayed, chosen))
        asked = trial.delayed[places]
        times_ms = trial.targets.times_ms[asked]
        for delay_ms in DELAYS_MS:
            if not delay_ms:
                for name in self.learners:
                    trial.delayed_ranks[name][0][places] = trial.boards[name].ranks[asked]
                continue
            histories = histories_before(self.log, trial.targets, asked, delay_ms)
            for name, learner in self.learners.items():
                served = serve(histories, times_ms, learner, self.model)
                trial.delayed_ranks[name][delay_ms][places] = self._ranks(served, trial, asked)

    def _ranks(self, served: Served, trial: Trial, chosen: NDArray[np.intp]) -> NDArray[np.int32]:
        found = np.zeros(len(chosen), np.int32)
        step = block_length(self.model.n_items)
        for start in range(0, len(chosen), step):
            rows = slice(start, start + step)
            block = Block.of(trial.targets, chosen[rows])
            found[rows] = ranks(served.scores(rows, self.model), block)
        return found


def _write(trial: Trial, name: str, block: Block, scores: NDArray[np.float32]) -> None:
    """Write a block onto a contender's board."""
    board = trial.boards[name]
    board.ranks[block.targets] = ranks(scores, block)
    is_listed = np.isin(block.targets, trial.listed)
    if is_listed.any():
        places = np.flatnonzero(is_listed)
        at = np.searchsorted(trial.listed, block.targets[places])
        board.best_rows[at], board.best_scores[at] = best(scores, block, places, trial.k)


def _pauses_ms(histories: HistoryBatch, times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    pauses_ms = times_ms - event_times_ms(histories.words[:, 0])
    return np.where(histories.counts > 0, pauses_ms, NO_PAUSE)


def _spread(targets: Targets, most: int) -> NDArray[np.intp]:
    """Return at most so many targets, spread evenly over viewers and each viewer's time."""
    n_targets = len(targets)
    if n_targets <= most:
        return np.arange(n_targets)
    return np.linspace(0, n_targets - 1, most).astype(np.intp)
