"""What a log says about each user and item, summed up as the learner would, for the solver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.events import Kind, Thumb
from streamer.factors import Signals, strengths
from streamer.history import kinds, values
from streamer.models.training_log import TrainingLog


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """One entry for each (user, item) pair that the log has evidence of, sorted by (user, item).

    Attributes:
        users: intp, shape (n_pairs,).
        items: intp, shape (n_pairs,).
        strengths: float64, shape (n_pairs,), w > 0.
        is_down: bool, shape (n_pairs,); a thumbs-down, whose target t is 0.
    """

    users: NDArray[np.intp]
    items: NDArray[np.intp]
    strengths: NDArray[np.float64]
    is_down: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """A log as the solver takes it: only users and items that have evidence, numbered from 0.

    Attributes:
        observed: Evidence about the known items.
        n_users: Users with any of it.
        known_items: intp, shape (n_items,), numbers in the log, ascending.
        popularity: float32, shape (n_items,).
    """

    observed: Observations
    n_users: int
    known_items: NDArray[np.intp]
    popularity: NDArray[np.float32]


def prepare(log: TrainingLog, min_uses: int, signals: Signals) -> TrainingSet:
    """Leave out the items that fewer than `min_uses` users like, and number what remains."""
    observed = observe(log, signals)
    n_uses = np.bincount(observed.items[~observed.is_down], minlength=len(log.item_ids))
    known_items = np.flatnonzero(n_uses >= min_uses)
    keep = np.isin(observed.items, known_items)
    user_numbers, users = np.unique(observed.users[keep], return_inverse=True)
    return TrainingSet(
        observed=Observations(
            users=users,
            items=np.searchsorted(known_items, observed.items[keep]),
            strengths=observed.strengths[keep],
            is_down=observed.is_down[keep],
        ),
        n_users=len(user_numbers),
        known_items=known_items,
        popularity=_n_players(log)[known_items].astype(np.float32),
    )


def _n_players(log: TrainingLog) -> NDArray[np.int64]:
    """Return how many users have played each item, int64, shape (n_item_ids,)."""
    plays = kinds(log.words) == Kind.PLAY
    n_items = len(log.item_ids)
    pairs = np.unique(log.users[plays] * n_items + log.items[plays])
    return np.bincount(pairs % n_items, minlength=n_items)


def observe(log: TrainingLog, signals: Signals) -> Observations:
    """Sum up each user's evidence about each item, as a fold-in would, without recency.

    Strengths of the kinds add up; a thumbs-down hides the item's other evidence.
    """
    last = log.last_writers()
    strength = strengths(last.words, signals.table())
    is_down = (kinds(last.words) == Kind.THUMB) & (values(last.words) == Thumb.DOWN)
    n_items = len(log.item_ids)
    pairs, pair_of = np.unique(last.users * n_items + last.items, return_inverse=True)
    down = np.zeros(len(pairs), bool)
    down[pair_of[is_down]] = True
    counted = is_down | ~down[pair_of]
    total = np.zeros(len(pairs))
    np.add.at(total, pair_of[counted], strength[counted])
    keep = total > 0
    users, items = np.divmod(pairs[keep], n_items)
    return Observations(users, items, total[keep], down[keep])
