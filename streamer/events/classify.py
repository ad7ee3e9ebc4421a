"""What an event is evidence of: a plain (kind, value), without a judgement of its weight."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
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

_NUMBERS: Final = frozenset({int, float})
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
# Made once: a viewing has one of 201 values.
_PLAYS: Final = [Evidence(Kind.PLAY, value) for value in range(FULL_COMPLETION + 1)]
_BRIEF_PLAYS: Final = [Evidence(Kind.BRIEF_PLAY, value) for value in range(FULL_COMPLETION + 1)]


def evidence_of(event_type: EventType, payload: Mapping[str, Any]) -> Evidence | None:
    """Return what the event adds to a history, or None.

    Raises:
        RejectedRecord: `bad_number`; a viewing without a finite `watched_s` >= 0 and
            `duration_s` > 0.
    """
    if event_type in _FIXED:
        return _FIXED[event_type]
    watched_s, duration_s = payload.get("watched_s"), payload.get("duration_s")
    # Exact types, because True is an int too; NaN is below nothing.
    if (
        type(watched_s) not in _NUMBERS
        or type(duration_s) not in _NUMBERS
        or not (0 <= watched_s < inf and 0 < duration_s < inf)  # type: ignore[operator]
    ):
        raise RejectedRecord(RejectReason.BAD_NUMBER)
    completion = min(1.0, float(watched_s) / float(duration_s))  # type: ignore[arg-type]
    value = int(FULL_COMPLETION * completion + 0.5)  # never negative, so this is floor
    if watched_s >= LEAST_PLAY_S and completion >= LEAST_COMPLETION:  # type: ignore[operator]
        return _PLAYS[value]
    # A heartbeat of a viewing that has only begun says nothing yet; its stop does.
    return _BRIEF_PLAYS[value] if event_type is EventType.PLAY_STOP else None
