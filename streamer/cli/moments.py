"""Moments on the command line: `10m` ago, or a date and time with an offset."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Final

import click

from streamer.errors import RejectedRecord
from streamer.events.times import parse_event_time

UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_AGO: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", re.ASCII)


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """A duration before now, or a time with an offset; becomes epoch milliseconds."""

    name = "moment"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return epoch milliseconds, or fail as click does."""
        if isinstance(value, int):
            return value
        if match := _AGO.fullmatch(value):
            ago_ms = int(float(match[1]) * UNIT_MS[match[2]])
            return max(0, time.time_ns() // 1_000_000 - ago_ms)
        try:
            return parse_event_time(value)
        except RejectedRecord:
            self.fail(
                f"{value!r} is neither a duration such as 90s, 10m, 2h or 1d, nor a time with an "
                "offset such as 2025-11-23T12:00:00Z",
                param,
                ctx,
            )


def in_utc(time_ms: int) -> str:
    """Return a moment for people, to the second."""
    try:
        moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):  # 48 bits of milliseconds reach past year 9999
        return f"{time_ms} ms"
    return f"{moment:%Y-%m-%d %H:%M:%S}"
