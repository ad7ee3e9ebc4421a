"""What was applied of each partition, as the loop, the monitor thread and a scrape see it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from streamer.metrics.worker import PartitionGauges
from streamer.pipeline.freshness import PartitionProgress
from streamer.pipeline.records import Partition

SAMPLE_GRACE_SECONDS: Final = 5.0
"""A watermark of this age still counts as the present one."""


class Progress:
    """Next offsets and freshness of our partitions; safe to use from several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._partitions: dict[Partition, PartitionProgress] = {}
        self._next_offsets: dict[Partition, int] = {}

    def begin(self, partition: Partition, next_offset: int | None) -> None:
        """Start over with a partition, from `next_offset` if that is known."""
        with self._lock:
            self._partitions[partition] = PartitionProgress()
            self._next_offsets.pop(partition, None)
            if next_offset is not None:
                self._next_offsets[partition] = next_offset

    def end(self, partitions: Sequence[Partition]) -> None:
        """Forget partitions that are no longer ours."""
        with self._lock:
            for partition in partitions:
                self._partitions.pop(partition, None)
                self._next_offsets.pop(partition, None)

    def apply(self, partition: Partition, next_offset: int, append_time_ms: int | None) -> None:
        """Everything before `next_offset` is applied; its last record was appended then."""
        with self._lock:
            if partition in self._partitions:
                self._next_offsets[partition] = next_offset
                if append_time_ms is not None:
                    now_ms = int(self._clock() * 1000)  # the broker's clock may be ahead of ours
                    self._partitions[partition].observe_applied(min(append_time_ms, now_ms))

    def observe_watermarks(self, asked_at_ms: int, watermarks: Mapping[Partition, int]) -> None:
        """Remember what the broker answered to a question of `asked_at_ms`."""
        with self._lock:
            for partition, high_watermark in watermarks.items():
                if partition in self._partitions:
                    self._partitions[partition].observe_watermark(asked_at_ms, high_watermark)

    def partitions(self) -> frozenset[Partition]:
        """Return the partitions that are ours."""
        with self._lock:
            return frozenset(self._partitions)

    def fresh_ms(self) -> dict[Partition, int]:
        """Return, by partition, the time before which everything appended is readable."""
        with self._lock:
            found = {
                partition: self._partitions[partition].fresh_ms(next_offset)
                for partition, next_offset in self._next_offsets.items()
            }
        return {partition: fresh for partition, fresh in found.items() if fresh is not None}

    def gauges(self) -> PartitionGauges:
        """Return the per-partition gauges as they are at this moment."""
        fresh_ms = self.fresh_ms()
        now = self._clock()
        with self._lock:
            next_offsets = dict(self._next_offsets)
            lags = {
                partition: self._partitions[partition].lag_records(next_offset)
                for partition, next_offset in next_offsets.items()
            }
        known = {partition: lag for partition, lag in lags.items() if lag is not None}
        return {
            "streamer_partition_next_offset": next_offsets,
            "streamer_partition_lag_records": known,
            "streamer_partition_lag_seconds": {
                partition: _lag_seconds(now - fresh / 1000, known.get(partition))
                for partition, fresh in fresh_ms.items()
            },
        }


def _lag_seconds(age_seconds: float, lag_records: int | None) -> float:
    """Return the age of the oldest record that may be unapplied; 0 when surely caught up."""
    is_caught_up = lag_records == 0 and age_seconds < SAMPLE_GRACE_SECONDS
    return 0.0 if is_caught_up else max(0.0, age_seconds)
