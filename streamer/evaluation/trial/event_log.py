"""A recorded log as columns: every viewer's interactions in the order of their event times.

The worker's own decoder reads the records. The event time is taken for the time of arrival, so a
log can be replayed from any source, also from a topic that was filled in an hour. What a `forget`
erases is left out altogether: nobody is judged by what a viewer wanted forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.evaluation.golden import batches
from streamer.events import RejectReason
from streamer.history import event_times_ms
from streamer.pipeline.records import Decoded, Decoder, Record


@dataclass(frozen=True, slots=True, eq=False)
class EventLog:
    """Interactions sorted by (viewer, event time, place in the log).

    Attributes:
        user_ids: In ascending order; a viewer's number is its index; n_users.
        starts: intp, shape (n_users + 1,); interactions of viewer u are starts[u] : starts[u + 1].
        users: intp, shape (n,).
        item_keys: uint64, shape (n,).
        words: uint64, shape (n,), as in a history: time, value and kind.
        times_ms: int64, shape (n,), the event times in `words`.
        positions: intp, shape (n,); the place among all interactions in order of time.
        forgotten_before_ms: uint64, shape (n_users,).
        n_events: Valid events, also those without evidence.
        rejected: Number of invalid records by reason.
    """

    user_ids: list[str]
    starts: NDArray[np.intp]
    users: NDArray[np.intp]
    item_keys: NDArray[np.uint64]
    words: NDArray[np.uint64]
    times_ms: NDArray[np.int64]
    positions: NDArray[np.intp]
    forgotten_before_ms: NDArray[np.uint64]
    n_events: int
    rejected: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.words)

    def position_after(self, time_ms: int) -> int:
        """Return how many interactions are not later than a time."""
        return int(np.count_nonzero(self.times_ms <= time_ms))


def collect_events(
    records: Iterable[Record], on_batch: Callable[[int], None] = lambda _: None
) -> EventLog:
    """Decode records into a log; bad ones are counted and skipped.

    Args:
        records: In any order; of equal event times the earlier one comes first.
        on_batch: Told the number of records after every few thousand.
    """
    collector = _Collector()
    decoder = Decoder()
    n_records = 0
    for batch in batches(records):
        collector.add(decoder.decode(batch))
        n_records += len(batch)
        on_batch(n_records)
    return collector.log()


class _Collector:
    """Columns that grow by a batch at a time."""

    def __init__(self) -> None:
        self._row_of_user: dict[str, int] = {}
        self._users: list[NDArray[np.intp]] = []
        self._item_keys: list[NDArray[np.uint64]] = []
        self._words: list[NDArray[np.uint64]] = []
        self._forgotten: dict[int, int] = {}
        self._rejected: Counter[str] = Counter()
        self._n_events = 0

    def add(self, decoded: Decoded) -> None:
        """Take a batch."""
        known = self._row_of_user
        rows = np.array([known.setdefault(u, len(known)) for u in decoded.user_ids], np.intp)
        arrived = decoded.arrived
        self._users.append(rows[arrived.rows])
        self._item_keys.append(arrived.item_keys)
        self._words.append(arrived.words)
        for row in np.flatnonzero(arrived.forgotten_before_ms).tolist():
            user, until_ms = int(rows[row]), int(arrived.forgotten_before_ms[row])
            self._forgotten[user] = max(self._forgotten.get(user, 0), until_ms)
        self._n_events += sum(decoded.applied.values())
        self._rejected.update(RejectReason(letter.reason).value for letter in decoded.rejected)

    def log(self) -> EventLog:
        """Return what was taken, without what was forgotten."""
        n_users = len(self._row_of_user)
        # In the order of their ids: the same events give the same report from any source.
        user_ids = sorted(self._row_of_user)
        number_of_row = np.empty(n_users, np.intp)
        number_of_row[[self._row_of_user[user_id] for user_id in user_ids]] = np.arange(n_users)
        users = number_of_row[np.concatenate([np.empty(0, np.intp), *self._users])]
        words = np.concatenate([np.empty(0, np.uint64), *self._words])
        item_keys = np.concatenate([np.empty(0, np.uint64), *self._item_keys])
        forgotten_before_ms = np.zeros(n_users, np.uint64)
        forgotten = number_of_row[list(self._forgotten)]
        forgotten_before_ms[forgotten] = list(self._forgotten.values())
        is_alive = words >> np.uint64(16) > forgotten_before_ms[users]
        in_time = np.argsort(words >> np.uint64(16), kind="stable")
        in_time = in_time[is_alive[in_time]]
        by_user = np.argsort(users[in_time], kind="stable")
        order = in_time[by_user]
        return EventLog(
            user_ids=user_ids,
            starts=np.searchsorted(users[order], np.arange(n_users + 1)),
            users=users[order],
            item_keys=item_keys[order],
            words=words[order],
            times_ms=event_times_ms(words[order]),
            positions=by_user,
            forgotten_before_ms=forgotten_before_ms,
            n_events=self._n_events,
            rejected=dict(self._rejected.most_common()),
        )
