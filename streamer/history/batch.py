"""Many users' histories as padded columns: what is merged, folded in and encoded at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.history.layout import N_SLOTS


@dataclass(frozen=True, slots=True, eq=False)
class HistoryBatch:
    """Histories of n_users users, newest entry first.

    Attributes:
        item_keys: uint64, shape (n_users, N_SLOTS); 0 beyond a user's count.
        words: uint64, shape (n_users, N_SLOTS), strictly descending in (word, item_key);
            0 beyond a user's count, and never 0 before it.
        counts: int64, shape (n_users,).
        forgotten_before_ms: uint64, shape (n_users,); entries at or before it are gone for good.
    """

    item_keys: NDArray[np.uint64]
    words: NDArray[np.uint64]
    counts: NDArray[np.int64]
    forgotten_before_ms: NDArray[np.uint64]

    def __post_init__(self) -> None:
        n_users = len(self.counts)
        assert self.item_keys.shape == self.words.shape == (n_users, N_SLOTS)
        assert self.forgotten_before_ms.shape == (n_users,)

    def __len__(self) -> int:
        return len(self.counts)

    @classmethod
    def empty(cls, n_users: int) -> HistoryBatch:
        """Return histories of users who have done nothing yet."""
        return cls(
            item_keys=np.zeros((n_users, N_SLOTS), np.uint64),
            words=np.zeros((n_users, N_SLOTS), np.uint64),
            counts=np.zeros(n_users, np.int64),
            forgotten_before_ms=np.zeros(n_users, np.uint64),
        )

    def take(self, rows: NDArray[np.intp]) -> HistoryBatch:
        """Return a copy of the given rows, in their order."""
        return HistoryBatch(
            self.item_keys[rows],
            self.words[rows],
            self.counts[rows],
            self.forgotten_before_ms[rows],
        )

    def put(self, rows: NDArray[np.intp], other: HistoryBatch) -> None:
        """Overwrite the given rows with those of `other`, in place."""
        self.item_keys[rows] = other.item_keys
        self.words[rows] = other.words
        self.counts[rows] = other.counts
        self.forgotten_before_ms[rows] = other.forgotten_before_ms


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """New evidence for some users of a batch, in any order, with any duplicates.

    Attributes:
        rows: intp, shape (n,); which user of the batch.
        item_keys: uint64, shape (n,).
        words: uint64, shape (n,).
        forgotten_before_ms: uint64, shape (n_users,); 0 for users who were not forgotten.
        durations_s: float64, shape (n,); lengths of the titles of plays, in seconds, which enter
            no history; None where nobody asks.
    """

    rows: NDArray[np.intp]
    item_keys: NDArray[np.uint64]
    words: NDArray[np.uint64]
    forgotten_before_ms: NDArray[np.uint64]
    durations_s: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        assert self.rows.shape == self.item_keys.shape == self.words.shape
        assert self.durations_s is None or self.durations_s.shape == self.rows.shape

    @classmethod
    def none(cls, n_users: int) -> Interactions:
        """Return no evidence at all, of so many users."""
        nothing = np.empty(0, np.uint64)
        return cls(np.empty(0, np.intp), nothing, nothing, np.zeros(n_users, np.uint64))

    def of_users(self, users: NDArray[np.intp]) -> Interactions:
        """Return the evidence of the given users alone; they become rows 0, 1, ..."""
        position = np.full(len(self.forgotten_before_ms), -1, np.intp)
        position[users] = np.arange(len(users))
        mine = position[self.rows] >= 0
        return Interactions(
            rows=position[self.rows[mine]],
            item_keys=self.item_keys[mine],
            words=self.words[mine],
            forgotten_before_ms=self.forgotten_before_ms[users],
            durations_s=None if self.durations_s is None else self.durations_s[mine],
        )
