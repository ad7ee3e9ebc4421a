"""Malformed records of every kind that a real topic has carried, each to be dead-lettered.

A worker must name what is wrong with each and go on; none of them may be learned from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import orjson

from streamer.events import MAX_VALUE_BYTES

FIFTY_YEARS_MS: Final = 50 * 365 * 86_400_000
YEAR_1999_MS: Final = 915_148_800_000


class Fault(NamedTuple):
    """One way to be malformed.

    Attributes:
        name: What is wrong, for tests and reports.
        make: (user id, event time in ms) to the record's value.
        is_line: Whether the value can stand as one line of a text file.
    """

    name: str
    make: Callable[[str, int], bytes]
    is_line: bool = True


def _stop(user_id: str, time_ms: int) -> dict[str, Any]:
    """Return a valid ``play_stop``, to be broken in one place."""
    return {
        "type": "play_stop",
        "event_id": f"malformed-{time_ms}",
        "play_id": "p-malformed",
        "user_id": user_id,
        "item_id": "title-00001",
        "event_time": time_ms,
        "watched_s": 1_800,
        "duration_s": 2_400,
    }


def _with(**changes: object) -> Callable[[str, int], bytes]:
    return lambda user_id, time_ms: orjson.dumps(_stop(user_id, time_ms) | changes)


def _without(name: str) -> Callable[[str, int], bytes]:
    def make(user_id: str, time_ms: int) -> bytes:
        event = _stop(user_id, time_ms)
        del event[name]
        return orjson.dumps(event)

    return make


def _with_raw(old: bytes, new: bytes) -> Callable[[str, int], bytes]:
    """Break what no encoder would write."""
    return lambda user_id, time_ms: orjson.dumps(_stop(user_id, time_ms)).replace(old, new)


FAULTS: Final = (
    Fault("empty value", lambda _user_id, _time_ms: b"", is_line=False),
    Fault("not JSON", lambda user_id, time_ms: orjson.dumps(_stop(user_id, time_ms))[:-20]),
    Fault("not UTF-8", _with_raw(b"title-00001", b"title-\xff\xfe"), is_line=False),
    Fault("not an object", lambda user_id, time_ms: orjson.dumps([user_id, time_ms])),
    Fault("no user id", _without("user_id")),
    Fault("empty user id", _with(user_id="")),
    Fault("user id of 129 bytes", _with(user_id="v" * 129)),
    Fault("user id is a number", _with(user_id=42)),
    Fault("control character in user id", _with(user_id="viewer\x07-000001")),
    Fault("no item id", _without("item_id")),
    Fault("item id of 130 bytes, 65 characters", _with(item_id="é" * 65)),
    Fault("line break in item id", _with(item_id="title\n00001")),
    Fault("negative watched_s", _with(watched_s=-1)),
    Fault("watched_s is not a number", _with_raw(b":1800", b":NaN")),
    Fault("watched_s is text", _with(watched_s="all of it")),
    Fault("no watched_s", _without("watched_s")),
    Fault("zero duration_s", _with(duration_s=0)),
    Fault("negative duration_s", _with(duration_s=-2_400)),
    Fault("unknown type", _with(type="play_rewound")),
    Fault("type is a list", _with(type=["play_stop"])),
    Fault("event in 1999", _with(event_time=YEAR_1999_MS)),
    Fault(
        "event far ahead",
        lambda user_id, time_ms: orjson.dumps(_stop(user_id, time_ms + FIFTY_YEARS_MS)),
    ),
    Fault("event time without offset", _with(event_time="2025-10-23T19:08:00")),
    Fault("event time is true", _with(event_time=True)),
    Fault("over 64 KiB", _with(context={"note": "x" * MAX_VALUE_BYTES})),
)

LINE_FAULTS: Final = tuple(fault for fault in FAULTS if fault.is_line)
