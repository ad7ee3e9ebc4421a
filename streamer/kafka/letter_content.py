"""What can still be read in a dead letter's value, which by its nature is no valid event."""

from __future__ import annotations

from typing import Any, Final, Literal

import orjson

from streamer.errors import RejectedRecord
from streamer.events import EARLIEST_EVENT_TIME_MS, EventType
from streamer.events.times import parse_event_time
from streamer.kafka.letters import Letter

Match = Literal["key", "user_id", "text"]
"""Where a letter names a user: in its key, in its field, or as a JSON string somewhere else."""

_MAX_PARSED_BYTES: Final = 1_000_000
"""A value beyond the limit of events is never parsed; only a foreign hand can have put it there."""


def content_of(value: bytes | None) -> dict[str, Any]:
    """Return the fields of a value; none if it is no JSON object."""
    if not value or len(value) > _MAX_PARSED_BYTES:
        return {}
    try:
        content = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def oldest_evidence_ms(letter: Letter) -> int | None:
    """Return the time that a marker of a forgotten user must still cover.

    That is the event's own time, where there is a plausible one, and the record's otherwise. None
    for a `forget`, which brings nobody back.
    """
    content = content_of(letter.record.value)
    if content.get("type") == EventType.FORGET:
        return None
    try:
        event_time_ms = parse_event_time(content.get("event_time"))
    except RejectedRecord:
        return letter.timestamp_ms
    if event_time_ms < EARLIEST_EVENT_TIME_MS:
        return letter.timestamp_ms
    return min(event_time_ms, letter.timestamp_ms)


def find_user(letter: Letter, user_id: str) -> Match | None:
    """Say where the letter names a user, None if it does not or only its hash was kept."""
    if letter.is_reduced:
        return None
    if letter.record.key == user_id.encode():
        return "key"
    if content_of(letter.record.value).get("user_id") == user_id:
        return "user_id"
    return "text" if orjson.dumps(user_id) in (letter.record.value or b"") else None
