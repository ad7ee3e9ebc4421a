"""The log that a model is trained on, as columns: who did what to which title, and when.

The same events give the same log in whatever order they arrive, and however often: users and items
are numbered in the order of their ids, interactions are sorted, and repetitions are one.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ModelError, RejectedRecord
from streamer.events import (
    LATEST_EVENT_TIME_MS,
    MAX_AHEAD_MS,
    MAX_VALUE_BYTES,
    Event,
    EventType,
    RejectReason,
    decode_event,
)
from streamer.history import item_keys, kinds, pack_word

_LINE_BYTES: Final = MAX_VALUE_BYTES + 2
"""The longest acceptable line, with its line end."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingLog:
    """Interactions in ascending order of time, with what was read to get them.

    Attributes:
        user_ids: In ascending order; a user's number is its index.
        item_ids: Likewise.
        item_keys: uint64, shape (n_item_ids,).
        users: intp, shape (n,).
        items: intp, shape (n,).
        words: uint64, shape (n,), as in a history: time, value and kind.
        n_events: Valid events, also those without evidence.
        newest_ms: Newest event time among them.
        rejected: Number of invalid records by reason.
    """

    user_ids: list[str]
    item_ids: list[str]
    item_keys: NDArray[np.uint64]
    users: NDArray[np.intp]
    items: NDArray[np.intp]
    words: NDArray[np.uint64]
    n_events: int
    newest_ms: int
    rejected: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.words)

    def take(self, chosen: NDArray[np.intp] | slice) -> TrainingLog:
        """Return some of the interactions; users and items keep their numbers."""
        return replace(
            self, users=self.users[chosen], items=self.items[chosen], words=self.words[chosen]
        )

    def last_writers(self) -> TrainingLog:
        """Return the newest interaction of each (user, item, kind): what a history would keep."""
        key_kinds = kinds(self.words)
        order = np.lexsort((self.words, key_kinds, self.items, self.users))
        columns = (self.users[order], self.items[order], key_kinds[order])
        is_last = np.ones(len(order), bool)
        is_last[:-1] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
        return self.take(np.sort(order[is_last]))


def read_lines(path: Path) -> Iterator[tuple[bytes, None]]:
    """Yield the lines of a file as `collect_log` takes them; blank ones are left out.

    Of a line that is too long for an event only the beginning is yielded, still too long.

    Raises:
        ModelError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            while line := file.readline(_LINE_BYTES):
                rest = line
                while not rest.endswith(b"\n") and rest:
                    rest = file.readline(_LINE_BYTES)
                if not line.isspace():
                    yield line.rstrip(b"\r\n"), None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def collect_log(records: Iterable[tuple[bytes | None, int | None]]) -> TrainingLog:
    """Decode records into a log; bad ones are counted and skipped.

    Args:
        records: Each record's value and its Kafka timestamp. A file has no timestamps (None): its
            events cannot be found to be ahead of their record, and the cut-off of a `forget`
            counts from its own event time.

    Raises:
        ModelError: There is no valid event at all.
    """
    collector = _Collector()
    rejected: Counter[str] = Counter()
    for value, timestamp_ms in records:
        try:
            event = decode_event(
                value, LATEST_EVENT_TIME_MS if timestamp_ms is None else timestamp_ms
            )
        except RejectedRecord as error:
            rejected[RejectReason(error.reason).value] += 1
            continue
        collector.add(event, event.event_time_ms if timestamp_ms is None else timestamp_ms)
    if not collector.n_events:
        found = ", ".join(f"{count} {reason}" for reason, count in rejected.most_common())
        raise ModelError(f"no valid event to train on; rejected: {found or 'nothing'}")
    return collector.log(dict(rejected.most_common()))


class _Collector:
    """Columns that grow by one interaction at a time: 16 bytes each, not a Python object."""

    def __init__(self) -> None:
        self.n_events = 0
        self._newest_ms = 0
        self._user_numbers: dict[str, int] = {}
        self._item_numbers: dict[str, int] = {}
        self._users = array("i")
        self._items = array("i")
        self._words = array("Q")
        self._forgotten: dict[int, int] = {}

    def add(self, event: Event, record_timestamp_ms: int) -> None:
        """Take one event."""
        self.n_events += 1
        self._newest_ms = max(self._newest_ms, event.event_time_ms)
        if event.evidence is not None and event.item_id is not None:
            self._users.append(self._user(event.user_id))
            numbers = self._item_numbers
            self._items.append(numbers.setdefault(event.item_id, len(numbers)))
            kind, value = event.evidence
            self._words.append(pack_word(event.event_time_ms, value, kind))
        elif event.type is EventType.FORGET:
            user, before_ms = self._user(event.user_id), record_timestamp_ms + MAX_AHEAD_MS
            self._forgotten[user] = max(before_ms, self._forgotten.get(user, 0))

    def log(self, rejected: Mapping[str, int]) -> TrainingLog:
        """Return what was taken, without what was forgotten."""
        user_ids, new_users = _in_order_of_ids(self._user_numbers)
        item_ids, new_items = _in_order_of_ids(self._item_numbers)
        arrived_users = np.frombuffer(self._users, np.int32).astype(np.intp)
        words = np.frombuffer(self._words, np.uint64).copy()
        forgotten_before_ms = np.zeros(len(user_ids), np.uint64)
        for user, before_ms in self._forgotten.items():
            forgotten_before_ms[user] = before_ms
        is_alive = words >> np.uint64(16) > forgotten_before_ms[arrived_users]
        users = new_users[arrived_users]
        items = new_items[np.frombuffer(self._items, np.int32)]
        order = np.lexsort((items, users, words))
        order = order[is_alive[order]]
        return TrainingLog(
            user_ids=user_ids,
            item_ids=item_ids,
            item_keys=item_keys(item_ids),
            users=users[order],
            items=items[order],
            words=words[order],
            n_events=self.n_events,
            newest_ms=self._newest_ms,
            rejected=rejected,
        )

    def _user(self, user_id: str) -> int:
        return self._user_numbers.setdefault(user_id, len(self._user_numbers))


def _in_order_of_ids(numbers: Mapping[str, int]) -> tuple[list[str], NDArray[np.intp]]:
    """Return the ids in ascending order, and the new number of each old one."""
    ids = sorted(numbers)
    renumbered = np.empty(len(ids), np.intp)
    renumbered[[numbers[an_id] for an_id in ids]] = np.arange(len(ids))
    return ids, renumbered
