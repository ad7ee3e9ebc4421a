"""From a record's bytes to an event, or to one of a closed set of reasons why not.

Input is hostile: its size is checked before it is parsed, and nothing of it is put into a message.
"""

from __future__ import annotations

import re
from typing import Final, TypeGuard

import orjson

from streamer.errors import RejectedRecord
from streamer.events.classify import evidence_of
from streamer.events.schema import (
    EARLIEST_EVENT_TIME_MS,
    LATEST_EVENT_TIME_MS,
    MAX_AHEAD_MS,
    MAX_ID_BYTES,
    MAX_VALUE_BYTES,
    Event,
    EventType,
    Kind,
    RejectReason,
    new_tuple,
)
from streamer.events.times import parse_event_time

_CONTROL_CHARACTER: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_FORGET: Final = EventType.FORGET
_PLAY: Final = Kind.PLAY
_TYPES: Final[dict[str, EventType]] = {str(event_type): event_type for event_type in EventType}


def decode_event(value: bytes | None, record_timestamp_ms: int) -> Event:
    """Decode and check one record's value.

    Args:
        value: The record's value; JSON, at most 64 KiB.
        record_timestamp_ms: The record's own Kafka timestamp, epoch milliseconds; the event time
            may be at most 5 minutes ahead of it. Negative: the record has none.

    Raises:
        RejectedRecord: The record belongs in the dead letters; `.reason` says why.
    """
    if not value or len(value) > MAX_VALUE_BYTES:
        raise RejectedRecord(RejectReason.TOO_LARGE if value else RejectReason.EMPTY_VALUE)
    try:
        payload = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RejectedRecord(_why_not_json(value)) from error
    if type(payload) is not dict:
        raise RejectedRecord(RejectReason.NOT_AN_OBJECT)
    get = payload.get
    event_type = get("type")
    known_type = _TYPES.get(event_type) if type(event_type) is str else None
    if known_type is None:
        raise RejectedRecord(RejectReason.UNKNOWN_TYPE)
    user_id = get("user_id")
    if not is_id(user_id):
        raise RejectedRecord(RejectReason.BAD_USER_ID)
    item_id = None
    if known_type is not _FORGET:
        item_id = get("item_id")
        if not is_id(item_id):
            raise RejectedRecord(RejectReason.BAD_ITEM_ID)
    event_time_ms = get("event_time")
    if type(event_time_ms) is not int:
        event_time_ms = parse_event_time(event_time_ms)
    latest_ms = record_timestamp_ms + MAX_AHEAD_MS
    if not (
        EARLIEST_EVENT_TIME_MS <= event_time_ms <= latest_ms
        and event_time_ms <= LATEST_EVENT_TIME_MS
        and record_timestamp_ms >= 0
    ):
        raise RejectedRecord(_why_not_then(event_time_ms, record_timestamp_ms))
    evidence = evidence_of(known_type, payload)
    is_play = evidence is not None and evidence[0] is _PLAY
    duration_s = float(payload["duration_s"]) if is_play else 0.0
    return new_tuple(Event, (known_type, user_id, item_id, event_time_ms, evidence, duration_s))


def is_id(value: object) -> TypeGuard[str]:
    """Say whether `value` is a string of 1 to 128 bytes of UTF-8 without control characters."""
    if type(value) is not str or not 0 < len(value) <= MAX_ID_BYTES:
        return False
    if value.isascii():  # the usual case: a character is a byte, and printable means no control
        return value.isprintable()
    return len(value.encode()) <= MAX_ID_BYTES and not _CONTROL_CHARACTER.search(value)


def _why_not_json(value: bytes) -> RejectReason:
    try:
        value.decode()
    except UnicodeDecodeError:
        return RejectReason.NOT_UTF8
    return RejectReason.NOT_JSON


def _why_not_then(event_time_ms: int, record_timestamp_ms: int) -> RejectReason:
    if record_timestamp_ms < 0:
        return RejectReason.NO_RECORD_TIMESTAMP
    if event_time_ms < EARLIEST_EVENT_TIME_MS:
        return RejectReason.BEFORE_2000
    return RejectReason.TOO_FAR_AHEAD
