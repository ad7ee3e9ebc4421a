"""How old what readers see may be: the oldest ``st:fresh`` field of the group, kept at hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from streamer.errors import StoreUnavailable

_TIME: Final = re.compile(rb"[0-9]{1,19}")
"""Epoch milliseconds; a longer number has no age that a float could hold."""


class Freshness:
    """Remembers what the workers vouch for, as it is told beside the requests.

    While Redis does not answer, the last answer stays and its age grows, as it should.
    """

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id
        self._oldest_ms: int | None = None

    def look(self, read_fresh: Callable[[], Mapping[bytes, bytes]]) -> None:
        """Ask once; no answer changes nothing."""
        with suppress(StoreUnavailable):
            self.take(read_fresh())

    def take(self, fields: Mapping[bytes, bytes]) -> None:
        """Take what ``st:fresh`` holds."""
        self._oldest_ms = oldest_fresh_ms(fields, self._group_id)

    def age_seconds(self, now_ms: int) -> float | None:
        """Return how long ago everything appended was readable; None if nobody vouches for it."""
        oldest_ms = self._oldest_ms
        return None if oldest_ms is None else max(0.0, (now_ms - oldest_ms) / 1000)


def oldest_fresh_ms(fields: Mapping[bytes, bytes], group_id: str) -> int | None:
    """Return the time before which everything appended to *any* partition is readable.

    None if the group has no field, or one that is no time: then nobody vouches for anything.
    """
    prefix = f"{group_id}/".encode()
    values = [value for field, value in fields.items() if field.startswith(prefix)]
    if not all(map(_TIME.fullmatch, values)):
        return None
    return min(map(int, values), default=None)
