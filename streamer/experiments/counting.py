"""What a batch adds to the sums of experiments: outcomes by cell, from how histories changed.

Everything here is a function of a history, of what arrived for it, and of the file of experiments;
no arrival counts that changed no history. Sums that are written together with the history
therefore count each interaction once, whatever comes again (ADR 0008).

**A viewing** is a play of a title, for as long as what was watched of it does not fall: its
heartbeats, its stop and its resumes are one; playing the title again from its beginning is another.
What counts of a step from `before` to `after`, in steps of half a percent of the title::

    is_continued = before is of the experiment's time, and value(after) >= value(before)
    plays      + 0 if is_continued else 1
    completion + value(after) - value(before) if is_continued else value(after)
    watched_ms + completion · duration_s · 5

A thumb counts as long as it stands: taking it back, or turning it, takes it from the sum. A user
counts when their history first tells of a time after the experiment's start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.events import Kind, Thumb
from streamer.experiments.allocation import UNALLOCATED, Experiment, slot_table, slots_of
from streamer.experiments.catalog import Catalog
from streamer.history import Changes, Interactions, event_times_ms, kinds, values

MS_PER_STEP: Final = 5.0
"""Of a title of one second, a step of half a percent."""
MAX_DURATION_S: Final = 86_400.0
"""A longer title counts as this long: no event may outweigh a cell."""

Ints = NDArray[np.int64]
Rows = NDArray[np.intp]


class Sum(StrEnum):
    """What is summed by cell, all whole numbers."""

    USERS = "users"
    PLAYS = "plays"
    COMPLETION = "completion"
    WATCHED_MS = "watched_ms"
    THUMBS_UP = "thumbs_up"
    THUMBS_DOWN = "thumbs_down"


class Score(StrEnum):
    """What is summed by cell and variant of plays that were scored before they were learned."""

    SCORED = "scored"
    HITS = "hits"
    RECIPROCAL_RANK = "rr_millionths"


MILLION: Final = 1_000_000
OF_INTERACTIONS: Final = tuple(each for each in Sum if each is not Sum.USERS)


class Book(NamedTuple):
    """One experiment's sums since one start: what a key in Redis names."""

    experiment: str
    start_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class Additions:
    """What sums gain by users' writes, as columns: there are several for every event.

    Attributes:
        rows: intp, shape (n,); whose, rows of the batch.
        books: The experiments.
        book_of: int64, shape (n,); which of `books`.
        fields: Names, ``CELL/SUM`` or ``CELL/VARIANT/SCORE``.
        field_of: int64, shape (n,); which of `fields`.
        amounts: int64, shape (n,); whole numbers, also negative.
    """

    rows: Rows
    books: tuple[Book, ...]
    book_of: Ints
    fields: tuple[str, ...]
    field_of: Ints
    amounts: Ints

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def none(cls) -> Additions:
        """Return nothing."""
        nothing = np.zeros(0, np.int64)
        return cls(np.zeros(0, np.intp), (), nothing, (), nothing, nothing)

    @classmethod
    def joined(cls, parts: Sequence[Additions]) -> Additions:
        """Return all of several."""
        some = [part for part in parts if len(part)]
        if not some:
            return cls.none()
        if len(some) == 1:
            return some[0]
        first_books = np.cumsum([0, *(len(part.books) for part in some)]).tolist()
        first_fields = np.cumsum([0, *(len(part.fields) for part in some)]).tolist()
        return cls(
            np.concatenate([part.rows for part in some]),
            tuple(book for part in some for book in part.books),
            np.concatenate([p.book_of + n for p, n in zip(some, first_books, strict=False)]),
            tuple(field for part in some for field in part.fields),
            np.concatenate([p.field_of + n for p, n in zip(some, first_fields, strict=False)]),
            np.concatenate([part.amounts for part in some]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """What happened to the histories of a batch's users.

    Attributes:
        user_ids: n_users ids.
        arrived: The evidence.
        changes: What each of it changed at its turn.
        newest_before_ms: int64, shape (n_users,); latest time that each history told of.
        newest_after_ms: The same, once all has been merged.
    """

    user_ids: Sequence[str]
    arrived: Interactions
    changes: Changes
    newest_before_ms: Ints
    newest_after_ms: Ints


class CellTable:
    """The cells of one experiment's users, and the names of its sums."""

    def __init__(self, experiment: Experiment) -> None:
        assert experiment.start_ms is not None
        self.book = Book(experiment.name, experiment.start_ms)
        self.salt = experiment.salt
        self.cells = slot_table(experiment)
        self.names = tuple(cell.name for cell in experiment.cells)

    def cells_of(self, user_ids: Sequence[str]) -> Ints:
        """Return the index of each user's cell, shape (n_users,), or UNALLOCATED."""
        found: Ints = self.cells[slots_of(user_ids, self.salt)]
        return found


class Counting:
    """Turns arrivals into additions, for every experiment that has a start."""

    def __init__(self, catalog: Catalog) -> None:
        """Build each experiment's table of slots, some 80 kB each."""
        self.tables = [CellTable(each) for each in catalog.experiments if each.start_ms is not None]

    def additions(self, arrival: Arrival) -> Additions:
        """Return what the users' writes add to outcomes."""
        found: list[Additions] = []
        for table in self.tables:
            gains = gains_since(table.book.start_ms, arrival)
            touched = np.flatnonzero(gains.any(axis=1))
            if not len(touched):
                continue
            cells = table.cells_of([arrival.user_ids[row] for row in touched.tolist()])
            is_in = cells != UNALLOCATED
            rows = touched[is_in]
            found.append(_named(table, rows, cells[is_in], gains[rows], tuple(Sum)))
        return Additions.joined(found)

    def scores(
        self, user_ids: Sequence[str], rows: Rows, times_ms: Ints, scores: Mapping[str, Ints]
    ) -> Additions:
        """Return what plays that were scored before they were learned add.

        Args:
            user_ids: Of the batch.
            rows: Whose plays, rows of the batch, shape (n,).
            times_ms: Of the plays, shape (n,).
            scores: By variant, shape (n, n_scores), in the order of `Score`.
        """
        found: list[Additions] = []
        for table in self.tables:
            cells = table.cells_of([user_ids[row] for row in rows.tolist()])
            is_in = (cells != UNALLOCATED) & (times_ms >= table.book.start_ms)
            for variant, gains in scores.items():
                sums = [f"{variant}/{each}" for each in Score]
                found.append(_named(table, rows[is_in], cells[is_in], gains[is_in], sums))
        return Additions.joined(found)


def score_gains(places: Ints, hit_at: int) -> Ints:
    """Return what plays add whose titles were at these places, shape (n, n_scores).

    Args:
        places: 1 is best, shape (n,).
        hit_at: The last place that is a hit.
    """
    reciprocal = np.floor(MILLION / places + 0.5).astype(np.int64)
    return np.stack([np.ones_like(places), (places <= hit_at).astype(np.int64), reciprocal], axis=1)


def gains_since(start_ms: int, arrival: Arrival) -> Ints:
    """Return what each user adds to each `Sum` from a time on, shape (n_users, n_sums)."""
    n_users = len(arrival.user_ids)
    gains = np.zeros((n_users, len(Sum)), np.int64)
    gains[:, 0] = (arrival.newest_before_ms < start_ms) & (arrival.newest_after_ms >= start_ms)
    words, before = arrival.arrived.words, arrival.changes.before
    steps = np.flatnonzero(arrival.changes.has_changed & (event_times_ms(words) >= start_ms))
    words, before = words[steps], before[steps]
    before = np.where(event_times_ms(before) >= start_ms, before, np.uint64(0))
    durations_s = arrival.arrived.durations_s
    lengths_s = np.zeros(len(steps)) if durations_s is None else durations_s[steps]
    rows = arrival.arrived.rows[steps]
    of_steps = step_gains(words, before, np.minimum(lengths_s, MAX_DURATION_S))
    for column, gained in enumerate(of_steps, 1):
        gains[:, column] = np.bincount(rows, gained, n_users)  # exact below 2^53
    return gains


def step_gains(
    words: NDArray[np.uint64], before: NDArray[np.uint64], durations_s: NDArray[np.float64]
) -> tuple[Ints, ...]:
    """Return what each step adds to the sums but `users`, in the order of `OF_INTERACTIONS`.

    Args:
        words: Of what entered, shape (n,).
        before: What it replaced, of the same kind, shape (n,); 0 for none.
        durations_s: Of the titles, shape (n,), at most a day.
    """
    is_play, is_thumb = kinds(words) == Kind.PLAY, kinds(words) == Kind.THUMB
    after_value, before_value = (each.astype(np.int64) for each in (values(words), values(before)))
    had = before != 0
    is_continued = had & (after_value >= before_value)
    progress = np.where(is_play, after_value - np.where(is_continued, before_value, 0), 0)
    watched_ms = np.floor(progress * durations_s * MS_PER_STEP + 0.5).astype(np.int64)
    plays = (is_play & ~is_continued).astype(np.int64)
    thumbs = [
        np.where(is_thumb, _is(after_value, thumb) - (had & (before_value == thumb)), 0)
        for thumb in (Thumb.UP, Thumb.DOWN)
    ]
    return plays, progress, watched_ms, *thumbs


def _is(found: Ints, value: int) -> Ints:
    is_value: Ints = (found == value).astype(np.int64)
    return is_value


def _named(
    table: CellTable, rows: Rows, cells: Ints, gains: Ints, sums: Sequence[str]
) -> Additions:
    """Return the additions of some users of one experiment, those that are not 0."""
    places, columns = np.nonzero(gains)
    return Additions(
        rows[places],
        (table.book,),
        np.zeros(len(places), np.int64),
        tuple(f"{cell}/{each}" for cell in table.names for each in sums),
        cells[places] * len(sums) + columns,
        gains[places, columns],
    )
