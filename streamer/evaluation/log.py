"""The port to the event log: what a verification needs to read of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from streamer.pipeline.records import Partition, Record


class LogBounds(Protocol):
    """First offset that a partition still has, and the one after its last."""

    @property
    def low(self) -> int: ...  # noqa: D102

    @property
    def high(self) -> int: ...  # noqa: D102


class Log(Protocol):
    """The event topics. Every call may raise BrokerUnavailable."""

    def bounds(self) -> Mapping[Partition, LogBounds]:
        """Return where every partition begins and ends at this moment."""
        ...

    def read(
        self, start: Mapping[Partition, int], until: Mapping[Partition, int]
    ) -> Iterator[Record]:
        """Yield what is in [start, until) of each partition, in order by partition."""
        ...

    def gone_until_ms(self) -> int:
        """Return when the newest record that the topics no longer hold may have been written.

        0 if they reach back to their first record.
        """
        ...
