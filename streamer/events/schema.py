"""The closed sets of the wire format: event types, limits, and reasons to reject a record."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

MAX_VALUE_BYTES: Final = 65_536
MAX_ID_BYTES: Final = 128
EARLIEST_EVENT_TIME_MS: Final = 946_684_800_000
"""2000-01-01T00:00:00Z; anything before is a clock that was never set."""
LATEST_EVENT_TIME_MS: Final = (1 << 48) - 1
"""What a history entry has room for."""
MAX_AHEAD_MS: Final = 5 * 60 * 1000
"""How far an event time may be ahead of its record's Kafka timestamp."""

LEAST_PLAY_S: Final = 30
LEAST_COMPLETION: Final = 0.05
"""A viewing below either of these is a brief play."""


new_tuple: Final = tuple.__new__
"""``new_tuple(Event, (a, b))`` is ``Event(a, b)`` in a third of the time, for what is made once a
record: a named tuple's own constructor is a Python function with arguments to sort."""


class EventType(StrEnum):
    """What a producer may send."""

    PLAY_START = "play_start"
    PLAY_PROGRESS = "play_progress"
    PLAY_STOP = "play_stop"
    DETAIL_VIEW = "detail_view"
    TRAILER_VIEW = "trailer_view"
    MY_LIST_ADD = "my_list_add"
    MY_LIST_REMOVE = "my_list_remove"
    THUMB_UP = "thumb_up"
    THUMB_DOWN = "thumb_down"
    THUMB_CLEAR = "thumb_clear"
    IMPRESSION = "impression"
    FORGET = "forget"


class RejectReason(StrEnum):
    """Why a record went to the dead letters; a label of metrics and a header of the letter."""

    EMPTY_VALUE = "empty_value"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    UNKNOWN_TYPE = "unknown_type"
    BAD_USER_ID = "bad_user_id"
    BAD_ITEM_ID = "bad_item_id"
    BAD_EVENT_TIME = "bad_event_time"
    BEFORE_2000 = "before_2000"
    TOO_FAR_AHEAD = "too_far_ahead"
    BAD_NUMBER = "bad_number"
    NO_RECORD_TIMESTAMP = "no_record_timestamp"


class Kind(IntEnum):
    """What a viewer did to a title. Numbers are part of the stored format and never reused."""

    PLAY = 1
    BRIEF_PLAY = 2
    DETAIL_VIEW = 3
    TRAILER_VIEW = 4
    MY_LIST = 5
    THUMB = 6


class Thumb(IntEnum):
    """Values of the kind THUMB."""

    CLEARED = 0
    DOWN = 1
    UP = 2


class MyList(IntEnum):
    """Values of the kind MY_LIST."""

    REMOVED = 0
    ADDED = 1


FULL_COMPLETION: Final = 200
"""The value of a PLAY that was watched to the end; one step is half a percent."""


class Evidence(NamedTuple):
    """The policy-free part of an interaction; 0 <= value < 256."""

    kind: Kind
    value: int


class Event(NamedTuple):
    """A decoded, valid event. A named tuple because one is made for every record.

    Attributes:
        type: What happened.
        user_id: Who; 1 to 128 bytes of UTF-8 without control characters.
        item_id: The title, in the same form; None for a `forget`.
        event_time_ms: When, in epoch milliseconds.
        evidence: What enters the history, or None where the event carries no evidence.
        duration_s: Length of the title, of a qualifying play; else 0.
    """

    type: EventType
    user_id: str
    item_id: str | None
    event_time_ms: int
    evidence: Evidence | None
    duration_s: float
