"""Kafka's envelope, and what a batch of them says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.errors import RejectedRecord
from streamer.events import (
    LATEST_EVENT_TIME_MS,
    MAX_AHEAD_MS,
    EventType,
    RejectReason,
    decode_event,
)
from streamer.history import Interactions, item_key, pack_words

ORIGINAL_TIMESTAMP: Final = "original_timestamp"
"""Header of a redriven record: its timestamp in epoch milliseconds when it was rejected first."""

MAX_TIMESTAMP_DIGITS: Final = 15


class Partition(NamedTuple):
    """A topic and a partition of it."""

    topic: str
    number: int


class Record(NamedTuple):
    """One record of Kafka. A named tuple because one is made for every event.

    Attributes:
        partition: Where it is.
        offset: Its place there.
        timestamp_ms: The record's own Kafka timestamp, epoch milliseconds; -1 if it has none.
        key: As produced.
        value: As produced; None is a Kafka tombstone.
        headers: As produced.
        is_append_time: Whether the timestamp is the broker's own, of the append.
    """

    partition: Partition
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    is_append_time: bool = True


class Rejected(NamedTuple):
    """A record that belongs in the dead letters, and why."""

    record: Record
    reason: RejectReason


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a batch of records says.

    Attributes:
        user_ids: The users whose histories are touched; row numbers of `arrived`.
        arrived: Their interactions and forgets.
        applied: Number of accepted events by (topic, type), also of those without evidence.
        rejected: The others.
        event_times_ms: Event time of each accepted record, int64; -1 where it was rejected, in
            the order of the records.
    """

    user_ids: list[str]
    arrived: Interactions
    applied: Mapping[tuple[str, EventType], int]
    rejected: list[Rejected]
    event_times_ms: NDArray[np.int64]


class Decoder:
    """Turns records into interactions; remembers the keys of the items it met, nothing else."""

    def __init__(self, max_remembered_items: int = 200_000) -> None:
        self._item_keys: dict[str, int] = {}
        self._max_remembered_items = max_remembered_items

    def decode(self, records: Sequence[Record]) -> Decoded:
        """Decode a batch; a bad record harms no other."""
        row_of_user: dict[str, int] = {}
        rows: list[int] = []
        keys: list[int] = []
        times_ms: list[int] = []
        values_and_kinds: list[int] = []
        durations_s: list[float] = []
        forgotten: dict[int, int] = {}
        applied: Counter[tuple[str, EventType]] = Counter()
        rejected: list[Rejected] = []
        event_times_ms: list[int] = []
        for record in records:
            try:
                event = decode_event(record.value, record.timestamp_ms)
            except RejectedRecord as error:
                rejected.append(Rejected(record, RejectReason(error.reason)))
                event_times_ms.append(-1)
                continue
            event_type, user_id, item_id, event_time_ms, evidence, duration_s = event
            applied[record.partition.topic, event_type] += 1
            event_times_ms.append(event_time_ms)
            if evidence is not None and item_id is not None:
                rows.append(row_of_user.setdefault(user_id, len(row_of_user)))
                keys.append(self._item_keys.get(item_id) or self._new_item_key(item_id))
                times_ms.append(event_time_ms)
                kind, value = evidence
                values_and_kinds.append(value << 8 | kind)
                durations_s.append(duration_s)
            elif event_type is EventType.FORGET:
                row = row_of_user.setdefault(user_id, len(row_of_user))
                until_ms = min(_asked_at_ms(record) + MAX_AHEAD_MS, LATEST_EVENT_TIME_MS)
                forgotten[row] = max(forgotten.get(row, 0), until_ms)
        forgotten_before_ms = np.zeros(len(row_of_user), np.uint64)
        forgotten_before_ms[list(forgotten)] = list(forgotten.values())
        arrived = Interactions(
            rows=np.array(rows, np.intp),
            item_keys=np.fromiter(keys, np.uint64, len(keys)),
            words=pack_words(np.array(times_ms, np.uint64), np.array(values_and_kinds, np.uint64)),
            forgotten_before_ms=forgotten_before_ms,
            durations_s=np.array(durations_s, np.float64),
        )
        return Decoded(
            list(row_of_user), arrived, applied, rejected, np.array(event_times_ms, np.int64)
        )

    def _new_item_key(self, item_id: str) -> int:
        if len(self._item_keys) >= self._max_remembered_items:
            self._item_keys.clear()  # bounded, and the popular ones are back at once
        key = self._item_keys[item_id] = item_key(item_id)
        return key


def _asked_at_ms(record: Record) -> int:
    """Return the time from which a `forget` counts.

    A redriven one forgets what it would have forgotten at first, not all that was learned since.
    The header can only make it forget less than its record's timestamp says: no clock but the
    broker's reaches into the future.
    """
    asked_at_ms = record.timestamp_ms
    for name, value in record.headers:
        if name == ORIGINAL_TIMESTAMP and value and _is_time(value):
            asked_at_ms = min(record.timestamp_ms, int(value))
    return asked_at_ms


def _is_time(value: bytes) -> bool:
    return len(value) <= MAX_TIMESTAMP_DIGITS and value.isdigit()
