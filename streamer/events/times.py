"""Event times: integer epoch milliseconds, or RFC 3339 with an offset."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from streamer.errors import RejectedRecord
from streamer.events.schema import RejectReason

_RFC_3339: Final = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?"
    r"(?:[Zz]|([+-])(\d{2}):(\d{2}))",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def parse_event_time(value: object) -> int:
    """Return epoch milliseconds; digits finer than that are cut off.

    Raises:
        RejectedRecord: `bad_event_time`; neither an integer nor RFC 3339 with an offset.
    """
    if type(value) is int:
        return value
    if isinstance(value, str) and (match := _RFC_3339.fullmatch(value)):
        return _from_rfc_3339(match)
    raise RejectedRecord(RejectReason.BAD_EVENT_TIME)


def _from_rfc_3339(match: re.Match[str]) -> int:
    year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
    milliseconds = int((match[7] or "0")[:3].ljust(3, "0"))
    offset_hours, offset_minutes = int(match[9] or 0), int(match[10] or 0)
    if offset_hours > 23 or offset_minutes > 59:
        raise RejectedRecord(RejectReason.BAD_EVENT_TIME)
    offset = timedelta(hours=offset_hours, minutes=offset_minutes)
    leap = second == 60  # a leap second is the instant after second 59, as in POSIX time
    try:
        local = datetime(year, month, day, hour, minute, second - leap, tzinfo=UTC)
    except ValueError as error:
        raise RejectedRecord(RejectReason.BAD_EVENT_TIME) from error
    since_epoch = local - _EPOCH - (-offset if match[8] == "-" else offset)
    return since_epoch // _MILLISECOND + 1000 * leap + milliseconds
