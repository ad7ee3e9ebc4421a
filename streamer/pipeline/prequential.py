"""Score first, then learn: where each variant ranked a title just before its viewer played it.

**What is asked.** The first qualifying play of a title that the history does not hold as played,
nor hidden by a thumb. The vectors are folded in from the history as it was before the batch, and
blended for the time of the play, as a reader would have served them. The title is ranked among
*all* titles of the variant's model that the history does not hold as played or hidden; a tie counts
against it. So `hit` is whether it was in the top 20, and the reciprocal rank is 1 / place.

**Which plays.** A share of all, chosen by a hash of title and time, so that a play that comes again
is chosen again. Every variant must know the title and the viewer (`n_solved` > 0), so that all are
asked the same questions and their answers can be compared pair by pair.

A sample of candidates would be cheaper, but ranks among samples order models otherwise than ranks
among all (Krichene and Rendle 2020); here fewer plays are asked instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.events import Kind, Thumb
from streamer.factors import UNKNOWN_ROW, ask
from streamer.factors.blend import blend
from streamer.history import (
    Changes,
    HistoryBatch,
    Interactions,
    event_times_ms,
    kinds,
    newest_ms,
    values,
)
from streamer.pipeline.step import LiveModel

HIT_AT: Final = 20
MAX_SCORES_AT_ONCE: Final = 2_000_000
"""Of all variants, so that a batch is delayed by milliseconds only."""
MIN_PLAYS_AT_ONCE: Final = 1

Bools = NDArray[np.bool_]
Rows = NDArray[np.intp]
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True, eq=False)
class Foreseen:
    """Plays that were to be foreseen, and at which place each variant had their titles.

    Attributes:
        rows: intp, shape (n,); whose plays, rows of the batch.
        event_times_ms: int64, shape (n,).
        places: By variant, int64, shape (n,); 1 is best.
    """

    rows: Rows
    event_times_ms: NDArray[np.int64]
    places: dict[str, NDArray[np.int64]]


def choose_plays(
    histories: HistoryBatch, arrived: Interactions, changed: Changes, share: float, max_plays: int
) -> tuple[Rows, int]:
    """Return which interactions are asked about, and how many others would have been.

    Args:
        histories: As they are before the batch.
        arrived: The batch.
        changed: What each of it changes.
        share: Of all first plays, 0 to 1.
        max_plays: At most so many; those with the smallest hashes.
    """
    is_first = changed.has_changed & (changed.before == 0) & (kinds(arrived.words) == Kind.PLAY)
    plays = np.flatnonzero(is_first)
    numbers = hashes(arrived.item_keys[plays], arrived.words[plays])
    is_chosen = numbers < np.uint64(min(share, 1.0) * (2**64 - 2048))
    plays, numbers = plays[is_chosen], numbers[is_chosen]
    if len(plays):
        left_out = _left_out(histories.take(arrived.rows[plays]))
        keys = histories.item_keys[arrived.rows[plays]]
        is_hidden = (left_out & (keys == arrived.item_keys[plays][:, None])).any(axis=1)
        plays, numbers = plays[~is_hidden], numbers[~is_hidden]
    kept = np.argsort(numbers, kind="stable")[:max_plays]
    return plays[kept], len(plays) - len(kept)


def foresee(
    histories: HistoryBatch, arrived: Interactions, plays: Rows, lives: Sequence[LiveModel]
) -> Foreseen:
    """Rank the titles of some plays by every variant.

    Args:
        histories: Of the batch's users, as they are before it.
        arrived: The batch.
        plays: Of `choose_plays`.
        lives: The variants in service.

    Raises:
        LearnerError: A learner failed.
    """
    for model in {id(live.model): live.model for live in lives}.values():
        plays = plays[model.rows_of(arrived.item_keys[plays]) != UNKNOWN_ROW]
    times_ms = event_times_ms(arrived.words[plays])
    before = histories.take(arrived.rows[plays])
    idle_s = (times_ms - newest_ms(before)) / 1000
    is_known = before.counts > 0
    vectors: dict[str, NDArray[np.float32]] = {}
    for live in lives if is_known.any() else ():
        factors = ask(live.learner, before, live.model)
        is_known &= (factors.n_solved > 0) & ~factors.is_rejected
        # What is not known is not asked; it must not warn either.
        pairs = np.where(is_known[:, None, None], factors.pairs, np.float32(0))
        vectors[live.variant] = blend(pairs, idle_s, live.model.params.blend_half_life_s)
    asked = np.flatnonzero(is_known)
    before, plays = before.take(asked), plays[asked]
    places = {
        live.variant: _places(vectors[live.variant][asked], before, arrived.item_keys[plays], live)
        for live in (lives if len(asked) else ())
    }
    return Foreseen(arrived.rows[plays], times_ms[asked], places)


def hashes(item_keys: NDArray[np.uint64], words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a number of each interaction, evenly spread over 64 bits: splitmix64's finaliser."""
    numbers: NDArray[np.uint64] = item_keys + _mixed(words)
    return _mixed(numbers)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _MIX[0]
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _MIX[1]
    mixed: NDArray[np.uint64] = numbers ^ (numbers >> np.uint64(31))
    return mixed


def _left_out(histories: HistoryBatch) -> Bools:
    """Say which entries' titles readers leave out: played or hidden; (n_users, n_slots)."""
    words = histories.words
    is_hidden = (kinds(words) == Kind.THUMB) & (values(words) == Thumb.DOWN)
    left_out: Bools = (kinds(words) == Kind.PLAY) | is_hidden
    return left_out


def _places(
    vectors: NDArray[np.float32],
    histories: HistoryBatch,
    item_keys: NDArray[np.uint64],
    live: LiveModel,
) -> NDArray[np.int64]:
    """Return the place of each title among those that are not left out, int64, (n,); 1 is best."""
    model = live.model
    scores = vectors @ model.item_factors.T
    wanted = model.rows_of(item_keys)
    everybody = np.arange(len(wanted))
    mine = scores[everybody, wanted]
    places, slots = np.nonzero(_left_out(histories))
    rows = model.rows_of(histories.item_keys[places, slots])
    is_known = rows != UNKNOWN_ROW
    scores[places[is_known], rows[is_known]] = -np.inf
    scores[everybody, wanted] = mine
    found: NDArray[np.int64] = np.count_nonzero(scores >= mine[:, None], axis=1).astype(np.int64)
    return found
