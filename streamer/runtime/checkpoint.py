"""Marks, offsets, freshness, and the rewind when Redis has forgotten acknowledged writes.

The order is the argument: data, then the mark that vouches for it, then the offset. A mark that is
behind what this worker wrote means that the data it vouched for may be gone too (they share one
replication stream), so the partition is read again from the mark; merging again changes nothing.

A mark names the id of the topic that it counts in. Where the broker tells another id, the topic
was deleted and made anew: neither mark nor commit means anything in it, and it is read from its
earliest record. An id that is not known yet is taken to be the same; a later answer shows if not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from streamer.errors import BrokerUnavailable
from streamer.metrics import WorkerMetrics
from streamer.pipeline.ports import FeatureStore, Mark, MarkMove, RecordSource, Standing
from streamer.pipeline.records import Partition
from streamer.runtime.marks import MARK_BEHIND, MARK_MISSING, is_behind, is_same_id, start_of
from streamer.runtime.progress import Progress

WRITES_MISSING: Final = "writes_missing"
"""The marks are as we left them, but writes after them are gone."""
TOPIC_RECREATED: Final = "topic_recreated"


@dataclass(slots=True)
class _Assigned:
    """A partition of ours.

    Attributes:
        epoch: Of this assignment, or of the rewind since: a batch vouches for no later one.
        topic_id: Of the topic that its offsets count in; empty while unknown.
        is_admitted: Whether it may deliver; before, its mark must be read.
        rewound_for: Why it is read again, once that is known.
        mark: As we last saw it.
        next_offset: Applied, but not yet vouched for.
        has_said_gap: Whether it was said that the topic no longer holds what should be read.
    """

    epoch: int
    topic_id: str = ""
    is_admitted: bool = False
    rewound_for: str | None = None
    mark: Mark | None = None
    next_offset: int | None = None
    has_said_gap: bool = False

    def is_vouched_by(self, mark: Mark) -> bool:
        """Whether there is something new, and a mark covers it in the same topic."""
        is_covered = self.next_offset is not None and self.next_offset <= mark.next_offset
        return is_covered and mark.topic_id == self.topic_id


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
        self._assigned: dict[Partition, _Assigned] = {}
        self._n_epochs = 0
        self._has_rewound = False

    @property
    def admitted(self) -> list[Partition]:
        """Partitions that may deliver."""
        return [p for p, assigned in self._assigned.items() if assigned.is_admitted]

    @property
    def is_admitting(self) -> bool:
        """Whether any partition waits to be admitted."""
        return not all(assigned.is_admitted for assigned in self._assigned.values())

    def epochs(self) -> dict[Partition, int]:
        """Return what a batch that is polled now may vouch for, for `applied`."""
        return {partition: self._assigned[partition].epoch for partition in self.admitted}

    def assign(self, partitions: Sequence[Partition]) -> None:
        """Let new partitions wait until their marks have been read."""
        for partition in partitions:
            self._assigned[partition] = _Assigned(self._next_epoch())

    def drop(self, partitions: Sequence[Partition]) -> None:
        """Forget partitions that are no longer ours."""
        for partition in partitions:
            self._assigned.pop(partition, None)
        self._progress.end(partitions)

    def applied(
        self, partition: Partition, epoch: int | None, next_offset: int, append_time_ms: int | None
    ) -> None:
        """Everything of the partition before `next_offset` is in the store.

        Args:
            partition: Which.
            epoch: Of the partition when the batch was polled; it vouches for no later one.
            next_offset: What comes next.
            append_time_ms: When the last record was appended; None where its timestamp is a
                producer's, which says nothing about what else was appended before.
        """
        assigned = self._assigned.get(partition)
        if assigned is not None and assigned.epoch == epoch:
            assigned.next_offset = next_offset
            self._progress.apply(partition, next_offset, append_time_ms)

    def admit(self) -> bool:
        """Start every waiting partition from what both Redis and Kafka vouch for.

        Returns:
            Whether any was rewound since the last True: cached histories may be gone from Redis.

        Raises:
            TransientError: Redis or Kafka did not answer; call again.
            StoreForgot: Writes are missing; `rewind` is due.
        """
        waiting = [p for p, assigned in self._assigned.items() if not assigned.is_admitted]
        marks = self._store.read_marks(waiting)
        standings = self._source.standings(waiting)
        topic_ids = self._source.topic_ids()
        failure: BrokerUnavailable | None = None
        for partition in waiting:
            if partition not in standings:
                failure = BrokerUnavailable(
                    "Kafka does not tell where {}/{} stands".format(*partition)
                )
                continue
            told = topic_ids.get(partition.topic, "")
            try:
                self._admit_one(partition, marks[partition], standings[partition], told)
            except BrokerUnavailable as error:
                failure = error  # one without a leader must not stop the others
        if failure is not None:
            raise failure
        has_rewound, self._has_rewound = self._has_rewound, False
        return has_rewound

    def save(self, partitions: Iterable[Partition] | None = None) -> None:
        """Move marks, then store the offsets they vouch for; find out if Redis forgot.

        Args:
            partitions: Which; None for all of ours.

        Raises:
            TransientError: Some of it is not done; call again.
            StoreForgot: No mark vouches for what was applied; `rewind` is due.
        """
        mine = set(self.admitted if partitions is None else partitions) & set(self.admitted)
        topic_ids = self._source.topic_ids()
        made_anew = {
            partition: TOPIC_RECREATED
            for partition in sorted(mine)
            if not self._is_topic_the_same(partition, topic_ids.get(partition.topic, ""))
        }
        self._stop_vouching(made_anew)
        still_mine = sorted(mine - made_anew.keys())
        moves = {partition: self._move(self._assigned[partition]) for partition in still_mine}
        stored = self._store.move_marks(moves)
        behind = {
            partition: MARK_MISSING if stored[partition] is None else MARK_BEHIND
            for partition, move in moves.items()
            if is_behind(stored[partition], move)
        }
        self._stop_vouching(behind)
        vouched: dict[Partition, int] = {}
        for partition in [p for p in moves if p not in behind]:
            assigned, mark = self._assigned[partition], stored[partition]
            assigned.mark = mark
            if mark is not None and assigned.is_vouched_by(mark):
                vouched[partition] = assigned.next_offset or 0
        self._source.store_offsets(vouched)
        for partition in vouched:
            self._assigned[partition].next_offset = None
        self._hold([*made_anew, *behind])

    def rewind(self) -> None:
        """Read every partition again from its mark: the store forgot what came after."""
        partitions = self.admitted
        self._stop_vouching(dict.fromkeys(partitions, WRITES_MISSING))
        self._hold(partitions)

    def publish_freshness(self) -> None:
        """Tell readers how fresh each partition is."""
        fresh_ms = self._progress.fresh_ms()
        admitted = set(self.admitted)
        self._store.write_fresh({p: ms for p, ms in fresh_ms.items() if p in admitted})

    def _admit_one(
        self, partition: Partition, mark: Mark | None, standing: Standing, told: str
    ) -> None:
        assigned = self._assigned[partition]
        assigned.topic_id = told or (mark.topic_id if mark else "")
        is_same_topic = mark is None or is_same_id(mark.topic_id, told)
        vouched = mark.next_offset if mark is not None and is_same_topic else None
        start, cause = start_of(vouched, standing)
        if not is_same_topic:
            start, cause = standing.earliest, TOPIC_RECREATED
        if cause is not None and assigned.rewound_for in {None, WRITES_MISSING}:
            # Remembered before anything is changed: a second attempt would see a lowered commit.
            assigned.rewound_for = cause
        self._say_gap(partition, vouched, standing)
        is_lower = standing.committed is not None and start < standing.committed
        if is_lower or assigned.rewound_for == TOPIC_RECREATED:
            self._source.lower_commit(partition, start)
        if vouched is None:
            # Before its first record is applied: what Redis forgets from now on is missed.
            wanted = MarkMove(mark, Mark(start, assigned.topic_id))
            mark = self._store.move_marks({partition: wanted})[partition]
        self._source.seek(partition, start)
        self._source.resume([partition])
        assigned.mark, assigned.is_admitted = mark, True
        self._progress.begin(partition, start)
        self._count_rewind(partition, assigned, start)

    def _is_topic_the_same(self, partition: Partition, told: str) -> bool:
        """Compare what the broker tells with what we know, and learn it where we do not."""
        assigned = self._assigned[partition]
        if not is_same_id(assigned.topic_id, told):
            return False
        assigned.topic_id = assigned.topic_id or told
        return True

    def _move(self, assigned: _Assigned) -> MarkMove:
        mark, next_offset = assigned.mark, assigned.next_offset
        is_nameless = mark is not None and not mark.topic_id and assigned.topic_id
        if next_offset is None and mark is not None and is_nameless:
            next_offset = mark.next_offset  # while nothing comes, it learns which topic it is of
        if next_offset is None:
            return MarkMove(mark, None)
        return MarkMove(mark, Mark(next_offset, assigned.topic_id))

    def _stop_vouching(self, causes: Mapping[Partition, str]) -> None:
        """Begin to rewind partitions; what is applied of them from now on vouches for nothing.

        All of them, before anything that may fail: one that is left out would vouch for what is
        gone.
        """
        for partition, cause in causes.items():
            self._assigned[partition] = _Assigned(self._next_epoch(), rewound_for=cause)

    def _hold(self, partitions: Sequence[Partition]) -> None:
        """Let them deliver nothing until they are admitted; where that fails, it is in vain."""
        if partitions:
            self._source.pause(partitions)

    def _next_epoch(self) -> int:
        self._n_epochs += 1
        return self._n_epochs

    def _say_gap(self, partition: Partition, vouched: int | None, standing: Standing) -> None:
        """Say loudly that the topic no longer holds records that should be read now."""
        assigned = self._assigned[partition]
        cause = assigned.rewound_for
        if cause == TOPIC_RECREATED:
            return  # of the new topic nothing has been read yet
        wanted = standing.committed if cause is None else vouched or 0
        if wanted is None or wanted >= standing.earliest or assigned.has_said_gap:
            return
        assigned.has_said_gap = True
        self._metrics.records_expired.labels(partition.topic).inc(standing.earliest - wanted)
        self._log.error(
            "records_expired" if cause is None else "rewind_incomplete",
            topic=partition.topic,
            partition=partition.number,
            wanted_offset=wanted,
            earliest_offset=standing.earliest,
            remedy="the topic no longer holds the records between; "
            + ("keep them longer" if cause is None else "restore Redis from a copy"),
        )

    def _count_rewind(self, partition: Partition, assigned: _Assigned, next_offset: int) -> None:
        cause, assigned.rewound_for = assigned.rewound_for, None
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
