"""A mark as Redis stores it."""

from __future__ import annotations

import re
from typing import Final

from streamer.pipeline.ports import Mark

MARK: Final = re.compile(rb"(\d{1,18})(?: ([!-~]{1,64}))?")


def encode_mark(mark: Mark | None) -> str:
    """Return ``OFFSET TOPIC_ID``, or ``OFFSET`` alone without an id; empty for no mark."""
    return "" if mark is None else f"{mark.next_offset} {mark.topic_id}".rstrip()


def decode_mark(stored: bytes | None) -> Mark | None:
    """Return the mark that is stored; a foreign value vouches for nothing."""
    found = None if stored is None else MARK.fullmatch(stored)
    return None if found is None else Mark(int(found[1]), (found[2] or b"").decode())
