"""Play and browse events: the wire format, its limits, and what each is evidence of."""

from streamer.events.codec import decode_event, is_id
from streamer.events.schema import (
    EARLIEST_EVENT_TIME_MS,
    FULL_COMPLETION,
    LATEST_EVENT_TIME_MS,
    MAX_AHEAD_MS,
    MAX_ID_BYTES,
    MAX_VALUE_BYTES,
    Event,
    EventType,
    Evidence,
    Kind,
    MyList,
    RejectReason,
    Thumb,
    new_tuple,
)

__all__ = [
    "EARLIEST_EVENT_TIME_MS",
    "FULL_COMPLETION",
    "LATEST_EVENT_TIME_MS",
    "MAX_AHEAD_MS",
    "MAX_ID_BYTES",
    "MAX_VALUE_BYTES",
    "Event",
    "EventType",
    "Evidence",
    "Kind",
    "MyList",
    "RejectReason",
    "Thumb",
    "decode_event",
    "is_id",
    "new_tuple",
]
