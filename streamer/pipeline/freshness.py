"""How fresh a partition is: what is surely readable, and how far behind that is.

Remember when the broker said which high watermark. Everything appended before the last time at
which the watermark had not yet passed `next_offset` is applied, whatever has happened since; and
with a broker that no longer answers, that time stops, as it should.
"""

from __future__ import annotations

from collections import deque
from typing import Final

MAX_SAMPLES: Final = 2048
"""Beyond these, every other sample is dropped: a long backlog needs no more resolution."""


class PartitionProgress:
    """One partition's watermarks, and what was applied of it."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque()
        self._fresh_ms: int | None = None
        self._high_watermark: int | None = None

    def observe_watermark(self, asked_at_ms: int, high_watermark: int) -> None:
        """Remember what the broker answered to a question of `asked_at_ms`."""
        self._high_watermark = high_watermark
        self._samples.append((asked_at_ms, high_watermark))
        if len(self._samples) > MAX_SAMPLES:
            self._samples = deque(list(self._samples)[::2])

    def observe_applied(self, append_time_ms: int) -> None:
        """Remember the append time of an applied record: all before it is applied too."""
        self._fresh_ms = max(append_time_ms, self._fresh_ms or 0)

    def fresh_ms(self, next_offset: int) -> int | None:
        """Return the time before which everything appended is applied, None while unknown."""
        while self._samples and self._samples[0][1] <= next_offset:
            asked_at_ms, _ = self._samples.popleft()
            self._fresh_ms = max(asked_at_ms, self._fresh_ms or 0)
        return self._fresh_ms

    def lag_records(self, next_offset: int) -> int | None:
        """Return the number of records not yet applied, None while unknown."""
        if self._high_watermark is None:
            return None
        return max(0, self._high_watermark - next_offset)
