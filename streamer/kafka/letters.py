"""What a record of a dead-letter topic says: docs/reference/events.md, dead letters.

A **letter** is a rejected record with four more headers at the end: `reason`, `topic`, `partition`,
`offset`. A **marker** says which letters before it, in its own partition, were redriven. Whatever
else is in such a topic is neither. A redriven record, and its letter if it is rejected again, has
three headers behind its original ones: where it was first, its first timestamp, and how often it
was redriven.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import orjson

from streamer.pipeline.records import ORIGINAL_TIMESTAMP, Partition, Record

PLACE_HEADERS: Final = ("reason", "topic", "partition", "offset")
TIMESTAMP_HEADER: Final = "timestamp"
"""After them where the broker refused the whole letter: the stand-in is dated later."""

REDRIVE_HEADERS: Final = ("redriven_from", ORIGINAL_TIMESTAMP, "redrive_attempt")
"""Added by a redrive; `redriven_from` is TOPIC/PARTITION/OFFSET of the first rejection."""

MARKER_HEADER: Final = "redriven"

_REASON: Final = re.compile(r"[a-z0-9_]{1,40}")
_NUMBER: Final = re.compile(r"\d{1,18}", re.ASCII)
_STAND_IN: Final = re.compile(rb'\{"sha256":"[0-9a-f]{64}","size":\d{1,18}\}')

Headers = tuple[tuple[str, bytes | None], ...]


class Redriven(NamedTuple):
    """What a record that came out of the dead letters says of itself.

    Attributes:
        place: Where the record was when it was rejected first.
        offset: Its offset there.
        timestamp_ms: Its timestamp there.
        n_attempts: How often it was redriven, this time included; 1 or more.
    """

    place: Partition
    offset: int
    timestamp_ms: int
    n_attempts: int


class Letter(NamedTuple):
    """One dead letter.

    Attributes:
        place: Topic and partition of the rejected record.
        offset: The rejected record's offset there.
        reason: Why it was rejected; usually a `streamer.events.RejectReason`.
        record: The letter itself: where it is, with the key and the value that were kept.
        is_reduced: Whether it holds hash and size only; it cannot be sent again.
        timestamp_ms: Of the rejected record, epoch milliseconds.
        headers: Of the rejected record, without those of the letter and of a redrive.
        redriven: What it says of an earlier redrive; None if this is its first rejection.
    """

    place: Partition
    offset: int
    reason: str
    record: Record
    is_reduced: bool
    timestamp_ms: int
    headers: Headers
    redriven: Redriven | None


def letter_of(record: Record) -> Letter | None:
    """Return what a record of a dead-letter topic says; None if it is no letter.

    The last headers count: an original one may have the same name.
    """
    headers = tuple(record.headers)
    timestamp_ms, is_reduced = record.timestamp_ms, False
    if headers and headers[-1][0] == TIMESTAMP_HEADER:
        written_ms = _number(headers[-1][1])
        if written_ms is None:
            return None
        headers, timestamp_ms, is_reduced = headers[:-1], written_ms, True
    original, block = headers[:-4], headers[-4:]
    if tuple(name for name, _ in block) != PLACE_HEADERS:
        return None
    reason, topic = _text(block[0][1]), _text(block[1][1])
    number, offset = _number(block[2][1]), _number(block[3][1])
    if not (reason and _REASON.fullmatch(reason) and topic) or number is None or offset is None:
        return None
    is_reduced |= _is_stand_in(record, original)
    original, redriven = split_redriven(original)
    return Letter(
        Partition(topic, number),
        offset,
        reason,
        record,
        is_reduced,
        timestamp_ms,
        original,
        redriven,
    )


def split_redriven(headers: Headers) -> tuple[Headers, Redriven | None]:
    """Return a record's own headers, and what a redrive has added to them."""
    original, block = headers[:-3], headers[-3:]
    if tuple(name for name, _ in block) != REDRIVE_HEADERS:
        return headers, None
    topic, _, place = (_text(block[0][1]) or "").partition("/")
    number, _, offset = place.partition("/")
    numbers = [_number(text.encode()) for text in (number, offset)]
    numbers += [_number(block[1][1]), _number(block[2][1])]
    if not topic or None in numbers:
        return headers, None
    in_partition, at, timestamp_ms, n_attempts = (each or 0 for each in numbers)
    return original, Redriven(Partition(topic, in_partition), at, timestamp_ms, n_attempts)


def redriven_headers(redriven: Redriven) -> Headers:
    """Return the headers that a redrive adds."""
    place = f"{redriven.place.topic}/{redriven.place.number}/{redriven.offset}"
    values = (place, redriven.timestamp_ms, redriven.n_attempts)
    return tuple(
        (name, str(value).encode()) for name, value in zip(REDRIVE_HEADERS, values, strict=True)
    )


def next_redrive(letter: Letter) -> Redriven:
    """Return what the letter's record says of itself when it is sent again."""
    before = letter.redriven
    if before is None:
        return Redriven(letter.place, letter.offset, letter.timestamp_ms, 1)
    return before._replace(n_attempts=before.n_attempts + 1)


def marker(offsets: Sequence[int]) -> tuple[Headers, bytes]:
    """Return headers and value of a marker: these letters of its partition were redriven.

    Args:
        offsets: Of the letters, ascending.
    """
    ranges: list[list[int]] = []
    for offset in offsets:
        if ranges and ranges[-1][1] == offset - 1:
            ranges[-1][1] = offset
        else:
            ranges.append([offset, offset])
    return ((MARKER_HEADER, b"%d" % len(offsets)),), orjson.dumps(ranges)


def marked_by(record: Record) -> list[tuple[int, int]] | None:
    """Return (first, last) offsets of the letters that a marker marks; None if it is no marker.

    A marker speaks of what stands before it in its own partition, of nothing else.
    """
    if [name for name, _ in record.headers] != [MARKER_HEADER]:
        return None
    try:
        ranges = orjson.loads(record.value or b"")
        return [(int(first), min(int(last), record.offset - 1)) for first, last in ranges]
    except (ValueError, TypeError):
        return None


def _is_stand_in(record: Record, original: Headers) -> bool:
    """Say whether the value is what a worker keeps of a record that is too large."""
    is_bare = record.key is None and not original
    return is_bare and _STAND_IN.fullmatch(record.value or b"") is not None


def _text(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


def _number(raw: bytes | None) -> int | None:
    text = _text(raw)
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None
