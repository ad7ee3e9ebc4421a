"""Marks, offsets, freshness, and the rewind when Redis has forgotten acknowledged writes.

The order is the argument: data, then the mark that vouches for it, then the offset. A mark that is
behind what this worker wrote means that the data it vouched for may be gone too (they share one
replication stream), so the partition is read again from the mark; merging again changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from streamer.errors import BrokerUnavailable
from streamer.metrics import WorkerMetrics
from streamer.pipeline.ports import FeatureStore, MarkMove, RecordSource
from streamer.pipeline.records import Partition
from streamer.runtime.progress import Progress

WRITES_MISSING: Final = "writes_missing"
"""The marks are as we left them, but writes after them are gone."""


class Checkpoints:
    """Where each partition of ours stands: in the loop, in Redis, in Kafka."""

    def __init__(
        self,
        store: FeatureStore,
        source: RecordSource,
        progress: Progress,
        metrics: WorkerMetrics,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._store = store
        self._source = source
        self._progress = progress
        self._metrics = metrics
        self._log = log
        self._waiting: dict[Partition, str | None] = {}
        """Partitions that deliver nothing until they are admitted; why, if they are rewound."""
        self._has_rewound = False
        self._marks: dict[Partition, int | None] = {}
        """The mark of each admitted partition, as we last saw it."""
        self._next_offsets: dict[Partition, int] = {}
        """Applied, but not yet vouched for."""

    @property
    def admitted(self) -> list[Partition]:
        """Partitions that may deliver."""
        return list(self._marks)

    @property
    def is_admitting(self) -> bool:
        """Whether any partition waits to be admitted."""
        return bool(self._waiting)

    def assign(self, partitions: Sequence[Partition]) -> None:
        """Let new partitions wait until their marks have been read."""
        self._waiting.update(dict.fromkeys(partitions))

    def drop(self, partitions: Sequence[Partition]) -> None:
        """Forget partitions that are no longer ours."""
        for partition in partitions:
            self._waiting.pop(partition, None)
            self._marks.pop(partition, None)
            self._next_offsets.pop(partition, None)
        self._progress.end(partitions)

    def applied(self, partition: Partition, next_offset: int, append_time_ms: int | None) -> None:
        """Everything of the partition before `next_offset` is in the store.

        Args:
            partition: Which.
            next_offset: What comes next.
            append_time_ms: When the last record was appended; None where its timestamp is a
                producer's, which says nothing about what else was appended before.
        """
        if partition in self._marks:
            self._next_offsets[partition] = next_offset
            self._progress.apply(partition, next_offset, append_time_ms)

    def admit(self) -> bool:
        """Start every waiting partition from what both Redis and Kafka vouch for.

        Returns:
            Whether any was rewound since the last True: cached histories may be gone from Redis.

        Raises:
            TransientError: Redis or Kafka did not answer; call again.
        """
        waiting = list(self._waiting)
        marks = self._store.read_marks(waiting)
        committed = self._source.committed(waiting)
        failure: BrokerUnavailable | None = None
        for partition in waiting:
            try:
                self._admit_one(partition, marks[partition], committed[partition])
            except BrokerUnavailable as error:
                failure = error  # one without a leader must not stop the others
        if failure is not None:
            raise failure
        has_rewound, self._has_rewound = self._has_rewound, False
        return has_rewound

    def _admit_one(self, partition: Partition, mark: int | None, commit: int | None) -> None:
        start = self._start(partition, mark, commit)
        if mark is None:
            # Before its first record is applied: what Redis forgets from now on is missed.
            mark = self._store.move_marks({partition: MarkMove(None, start)})[partition]
        self._source.seek(partition, start)
        self._source.resume([partition])
        self._marks[partition] = mark
        self._progress.begin(partition, start)
        self._count_rewind(partition, self._waiting.pop(partition), start)

    def save(self, partitions: Sequence[Partition] | None = None) -> None:
        """Move marks, then store the offsets they vouch for; find out if Redis forgot.

        Args:
            partitions: Which; None for all of ours.

        Raises:
            TransientError: Some of it is not done; call again.
            StoreForgot: No mark vouches for what was applied; `rewind` is due.
        """
        mine = self._marks if partitions is None else set(partitions) & set(self._marks)
        moves = {p: MarkMove(self._marks[p], self._next_offsets.get(p)) for p in mine}
        stored = self._store.move_marks(moves)
        vouched: dict[Partition, int] = {}
        for partition, (expected, next_offset) in moves.items():
            mark = stored[partition]
            is_ours = mark == (expected if next_offset is None else next_offset)
            if not is_ours and expected is not None and (mark is None or mark < expected):
                self._begin_rewind(partition, _cause(mark))
                continue
            self._marks[partition] = mark
            if next_offset is not None and mark is not None and mark >= next_offset:
                vouched[partition] = next_offset
        self._source.store_offsets(vouched)
        for partition in vouched:
            del self._next_offsets[partition]

    def rewind(self) -> None:
        """Read every partition again from its mark: the store forgot what came after."""
        for partition in list(self._marks):
            self._begin_rewind(partition, WRITES_MISSING)

    def publish_freshness(self) -> None:
        """Tell readers how fresh each partition is."""
        fresh_ms = self._progress.fresh_ms()
        self._store.write_fresh({p: ms for p, ms in fresh_ms.items() if p in self._marks})

    def _start(self, partition: Partition, mark: int | None, commit: int | None) -> int:
        """Return where to read from; if Redis vouches for less than Kafka, lower the commit."""
        if commit is not None and mark is not None and mark >= commit:
            return commit
        earliest = self._source.earliest(partition)
        if commit is None:
            return earliest  # Kafka has never heard of this group: everything is yet to be read
        # Remembered before anything is changed: a second attempt would see the lowered commit.
        if self._waiting[partition] in {None, WRITES_MISSING}:
            self._waiting[partition] = _cause(mark)
        start = earliest if mark is None else max(mark, earliest)
        if start > (mark or 0):
            self._log.error(
                "rewind_incomplete",
                topic=partition.topic,
                partition=partition.number,
                wanted_offset=mark or 0,
                earliest_offset=earliest,
                remedy="the topic no longer holds the records between; restore Redis from a copy",
            )
        self._source.lower_commit(partition, min(start, commit))
        return start

    def _begin_rewind(self, partition: Partition, cause: str) -> None:
        self._marks.pop(partition, None)
        self._next_offsets.pop(partition, None)
        self._waiting[partition] = cause
        # If this fails, records come that vouch for nothing, until the partition is admitted.
        self._source.pause([partition])

    def _count_rewind(self, partition: Partition, cause: str | None, next_offset: int) -> None:
        if cause is None:
            return
        self._has_rewound = True
        self._metrics.rewinds.labels(cause).inc()
        self._log.warning(
            "partition_rewound",
            topic=partition.topic,
            partition=partition.number,
            cause=cause,
            next_offset=next_offset,
        )


def _cause(mark: int | None) -> str:
    return "mark_missing" if mark is None else "mark_behind"
