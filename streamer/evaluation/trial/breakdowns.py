"""For whom, and when: recall by the length of the history, by the pause before, and by delay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.evaluation.trial.court import NO_PAUSE, Trial
from streamer.evaluation.trial.scores import Ranks, recall

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

LENGTHS: Final[Sequence[tuple[str, int]]] = (
    ("0", 0),
    ("1-2", 1),
    ("3-5", 3),
    ("6-10", 6),
    ("11-20", 11),
    ("21-40", 21),
    ("41-55", 41),
)
"""Labels, and the least number of entries of each."""
PAUSES: Final[Sequence[tuple[str, int]]] = (
    ("no history", NO_PAUSE),
    ("under 5 min", 0),
    ("5-30 min", 5 * MINUTE_MS),
    ("30-60 min", 30 * MINUTE_MS),
    ("1-24 h", HOUR_MS),
    ("1-7 days", DAY_MS),
    ("over 7 days", 7 * DAY_MS),
)


@dataclass(frozen=True, slots=True)
class Group:
    """Some targets that have something in common.

    Attributes:
        label: What.
        n_targets: How many.
        recall: Of each contender, 0 to 1; NaN without a target.
    """

    label: str
    n_targets: int
    recall: Mapping[str, float]


def by_history_length(trial: Trial) -> list[Group]:
    """Return the groups by entries of the history just before the play."""
    return _groups(trial, trial.history_lengths, LENGTHS)


def by_pause(trial: Trial) -> list[Group]:
    """Return the groups by time since the newest entry of the history."""
    return _groups(trial, trial.pauses_ms, PAUSES)


def by_delay(trial: Trial) -> list[Group]:
    """Return recall of the learners on the same plays, with events as late as that."""
    delays = next(iter(trial.delayed_ranks.values()))
    return [
        Group(
            _delay_label(delay_ms),
            len(trial.delayed),
            {
                name: _recall(ranks[delay_ms], trial.k)
                for name, ranks in trial.delayed_ranks.items()
            },
        )
        for delay_ms in delays
    ]


def _groups(
    trial: Trial, amounts: NDArray[np.int64], steps: Sequence[tuple[str, int]]
) -> list[Group]:
    least = np.array([least for _, least in steps])
    places = np.searchsorted(least, amounts, side="right") - 1
    found = []
    for place, (label, _) in enumerate(steps):
        mine = places == place
        recalls = {
            name: _recall(board.ranks[mine], trial.k) for name, board in trial.boards.items()
        }
        found.append(Group(label, int(mine.sum()), recalls))
    return found


def _recall(ranks: Ranks, k: int) -> float:
    return float(recall(ranks, k).mean()) if len(ranks) else np.nan


def _delay_label(delay_ms: int) -> str:
    if delay_ms == 0:
        return "at once"
    return f"{delay_ms // MINUTE_MS} min" if delay_ms < HOUR_MS else f"{delay_ms // HOUR_MS} h"
