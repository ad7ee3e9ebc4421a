"""Users' histories recomputed from the log, by the worker's own code, in one process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.history import HistoryBatch, Interactions, merge
from streamer.pipeline.records import Decoder, Record

BATCH_RECORDS: Final = 5000
FIRST_USERS: Final = 1024


class GoldenHistories:
    """Histories of all users met so far, in memory: about 1 kB each."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._row_of_user: dict[str, int] = {}
        self._histories = HistoryBatch.empty(FIRST_USERS)
        self.n_applied = 0
        self.n_rejected = 0

    @property
    def user_ids(self) -> list[str]:
        """Every user with evidence or a forget; row numbers of `histories`."""
        return list(self._row_of_user)

    def apply(self, records: Sequence[Record]) -> None:
        """Learn a batch; the order of batches does not matter."""
        decoded = self._decoder.decode(records)
        self.n_applied += len(records) - len(decoded.rejected)
        self.n_rejected += len(decoded.rejected)
        self.merge(self.rows_of(decoded.user_ids), decoded.arrived)

    def rows_of(self, user_ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the row of each user; new users get one."""
        rows = [self._row_of_user.setdefault(u, len(self._row_of_user)) for u in user_ids]
        if len(self._row_of_user) > len(self._histories):
            n_users = len(self._histories)
            while n_users < len(self._row_of_user):
                n_users *= 2
            grown = HistoryBatch.empty(n_users)
            grown.put(np.arange(len(self._histories)), self._histories)
            self._histories = grown
        return np.array(rows, np.intp)

    def merge(self, rows: NDArray[np.intp], arrived: Interactions) -> None:
        """Merge evidence of the users of these rows."""
        merged, _ = merge(self._histories.take(rows), arrived)
        self._histories.put(rows, merged)

    def histories(self, rows: NDArray[np.intp]) -> HistoryBatch:
        """Return a copy of the histories of these rows."""
        return self._histories.take(rows)

    def read(self, user_ids: Sequence[str]) -> HistoryBatch:
        """Return the histories of some users, empty for users not met; nobody gets a row."""
        found = HistoryBatch.empty(len(user_ids))
        rows = np.array([self._row_of_user.get(u, -1) for u in user_ids], np.intp)
        is_met = np.flatnonzero(rows >= 0)
        found.put(is_met, self._histories.take(rows[is_met]))
        return found

    def keep(self, user_ids: Iterable[str]) -> None:
        """Forget everybody else, and give their memory back."""
        kept = [u for u in user_ids if u in self._row_of_user]
        rows = np.array([self._row_of_user[u] for u in kept], np.intp)
        histories = self._histories.take(rows)
        self._row_of_user = {}
        self._histories = HistoryBatch.empty(FIRST_USERS)
        rows = self.rows_of(kept)  # first: it may move to a larger batch
        self._histories.put(rows, histories)


def batches(records: Iterable[Record], size: int = BATCH_RECORDS) -> Iterator[list[Record]]:
    """Cut an iterable into lists of at most `size`."""
    iterator = iter(records)
    while batch := list(islice(iterator, size)):
        yield batch
