"""Which plays are to be foreseen, what is known before each, and among which titles it is ranked.

A target is a qualifying play (kind `play`) of a title that the model knows and that its viewer has
never touched before: no evidence of any kind in the log. It is ranked among all titles of the model
that the viewer has not touched, the same ones for every contender. Where viewers open a title's
page before they play it, few plays are left; then first contacts are the better question.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.evaluation.trial.event_log import EventLog
from streamer.events import Kind
from streamer.factors import UNKNOWN_ROW, ItemModel
from streamer.history import kinds

DAY_MS: Final = 86_400_000


class TargetKind(StrEnum):
    """What is to be foreseen."""

    PLAYS = "plays"
    """First plays of titles that were never touched."""
    CONTACTS = "contacts"
    """The first time that a title is played, left at once, opened, or its trailer is watched."""


_KINDS: Final = {
    TargetKind.PLAYS: [Kind.PLAY],
    TargetKind.CONTACTS: [Kind.PLAY, Kind.BRIEF_PLAY, Kind.DETAIL_VIEW, Kind.TRAILER_VIEW],
}


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What is to be foreseen, sorted by (viewer, time).

    Attributes:
        events: intp, shape (n_targets,); which interactions of the log they are.
        users: intp, shape (n_targets,).
        item_rows: intp, shape (n_targets,); rows in the model.
        times_ms: int64, shape (n_targets,).
        seen_rows: intp; rows in the model of every viewer's touched titles, in order of time.
        seen_starts: intp, shape (n_targets,); titles touched before target j are
            seen_rows[seen_starts[j] : seen_ends[j]].
        seen_ends: intp, shape (n_targets,).
        rows_of_events: intp, shape (n,); the model's row of every interaction of the log.
        n_touched: Interactions of the same kinds that are no targets because their titles, which
            the model knows, were touched before.
        n_unknown: Those that would be targets if the model knew their titles.
    """

    events: NDArray[np.intp]
    users: NDArray[np.intp]
    item_rows: NDArray[np.intp]
    times_ms: NDArray[np.int64]
    seen_rows: NDArray[np.intp]
    seen_starts: NDArray[np.intp]
    seen_ends: NDArray[np.intp]
    rows_of_events: NDArray[np.intp]
    n_touched: int
    n_unknown: int

    def __len__(self) -> int:
        return len(self.events)

    def seen(self, chosen: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return what was touched before some targets: their places in `chosen`, and item rows."""
        starts, ends = self.seen_starts[chosen], self.seen_ends[chosen]
        places, steps = ragged(ends - starts)
        return places, self.seen_rows[starts[places] + steps]

    def n_seen(self) -> NDArray[np.intp]:
        """Return how many known titles were touched before each target."""
        return self.seen_ends - self.seen_starts


def find_targets(
    log: EventLog,
    model: ItemModel,
    first_position: int,
    target_kind: TargetKind = TargetKind.PLAYS,
) -> Targets:
    """Return the targets among the interactions from a place in the log on.

    Args:
        log: The log.
        model: The items.
        first_position: Interactions before it only fill histories.
        target_kind: What is to be foreseen.
    """
    item_rows = model.rows_of(log.item_keys)
    is_first = _is_first_of_its_pair(log)
    is_asked = np.isin(kinds(log.words), _KINDS[target_kind])
    is_asked &= log.positions >= first_position
    is_known = item_rows != UNKNOWN_ROW
    firsts = np.flatnonzero(is_first & is_known)
    events = np.flatnonzero(is_asked & is_first & is_known)
    users = log.users[events]
    return Targets(
        events=events,
        users=users,
        item_rows=item_rows[events],
        times_ms=log.times_ms[events],
        seen_rows=item_rows[firsts],
        seen_starts=np.searchsorted(firsts, log.starts[users]),
        seen_ends=np.searchsorted(firsts, events),
        rows_of_events=item_rows,
        n_touched=int(np.count_nonzero(is_asked & ~is_first & is_known)),
        n_unknown=int(np.count_nonzero(is_asked & is_first & ~is_known)),
    )


def _is_first_of_its_pair(log: EventLog) -> NDArray[np.bool_]:
    """Say which interactions are the first of their viewer with their title."""
    order = np.lexsort((log.item_keys, log.users))  # stable: in order of time within a pair
    users, item_keys = log.users[order], log.item_keys[order]
    is_first = np.ones(len(order), bool)
    is_first[order[1:]] = (users[1:] != users[:-1]) | (item_keys[1:] != item_keys[:-1])
    return is_first


def ends_before(
    log: EventLog, targets: Targets, chosen: NDArray[np.intp], limits_ms: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Return, for each chosen target, where its viewer's interactions at or after a time begin.

    Args:
        log: The log.
        targets: Its targets.
        chosen: intp, shape (n,); which targets.
        limits_ms: int64, shape (n,).

    Returns:
        intp, shape (n,): the end, exclusive, of what happened before both the time and the target.
    """
    times_ms = log.times_ms
    low, high = log.starts[targets.users[chosen]], targets.events[chosen]
    while (low < high).any():  # a binary search in each viewer's stretch at once
        middle = (low + high) // 2
        is_open = low < high
        # A closed stretch may stand at the end of the log.
        is_before = times_ms[np.minimum(middle, len(log) - 1)] < limits_ms
        low = np.where(is_open & is_before, middle + 1, low)
        high = np.where(is_open & ~is_before, middle, high)
    return low


def ragged(lengths: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return, for lengths 2, 0, 3, the rows 0 0 2 2 2 and the steps 0 1 0 1 2."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
