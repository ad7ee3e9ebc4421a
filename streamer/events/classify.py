"""What an event is evidence of: a plain (kind, value), without a judgement of its weight."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, isfinite
from typing import Any, Final

from streamer.errors import RejectedRecord
from streamer.events.schema import (
    FULL_COMPLETION,
    LEAST_COMPLETION,
    LEAST_PLAY_S,
    EventType,
    Evidence,
    Kind,
    MyList,
    RejectReason,
    Thumb,
)

_FIXED: Final[dict[EventType, Evidence | None]] = {
    EventType.PLAY_START: None,
    EventType.IMPRESSION: None,
    EventType.FORGET: None,
    EventType.DETAIL_VIEW: Evidence(Kind.DETAIL_VIEW, 0),
    EventType.TRAILER_VIEW: Evidence(Kind.TRAILER_VIEW, 0),
    EventType.MY_LIST_ADD: Evidence(Kind.MY_LIST, MyList.ADDED),
    EventType.MY_LIST_REMOVE: Evidence(Kind.MY_LIST, MyList.REMOVED),
    EventType.THUMB_UP: Evidence(Kind.THUMB, Thumb.UP),
    EventType.THUMB_DOWN: Evidence(Kind.THUMB, Thumb.DOWN),
    EventType.THUMB_CLEAR: Evidence(Kind.THUMB, Thumb.CLEARED),
}


def evidence_of(event_type: EventType, payload: Mapping[str, Any]) -> Evidence | None:
    """Return what the event adds to a history, or None.

    Raises:
        RejectedRecord: `bad_number`; a viewing without a finite `watched_s` >= 0 and
            `duration_s` > 0.
    """
    if event_type in _FIXED:
        return _FIXED[event_type]
    watched_s = _number(payload.get("watched_s"))
    duration_s = _number(payload.get("duration_s"))
    if watched_s < 0 or duration_s <= 0:
        raise RejectedRecord(RejectReason.BAD_NUMBER)
    completion = min(1.0, watched_s / duration_s)
    value = floor(FULL_COMPLETION * completion + 0.5)
    if watched_s >= LEAST_PLAY_S and completion >= LEAST_COMPLETION:
        return Evidence(Kind.PLAY, value)
    # A heartbeat of a viewing that has only begun says nothing yet; its stop does.
    return Evidence(Kind.BRIEF_PLAY, value) if event_type is EventType.PLAY_STOP else None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise RejectedRecord(RejectReason.BAD_NUMBER)
    return float(value)
