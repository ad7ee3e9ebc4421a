"""What the loop says of itself: facts become metrics here, and log lines where it matters."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from streamer.errors import StoreUnavailable, TransientError
from streamer.history import Outcome
from streamer.metrics import Stage, WorkerMetrics, WorkerState
from streamer.pipeline.records import Decoded, Partition, Record, Rejected
from streamer.pipeline.sweep import CURSOR_OF_ENDS
from streamer.runtime.sweeper import Swept
from streamer.runtime.updater import Report

_topic: Final = attrgetter("partition.topic")
_timestamp_ms: Final = attrgetter("timestamp_ms")

REPEAT_SECONDS: Final = 30.0
"""The same trouble is logged again only after this time."""


class LoopObserver:
    """Counts per batch, and keeps quiet about what is healthy."""

    def __init__(
        self,
        metrics: WorkerMetrics,
        log: structlog.stdlib.BoundLogger,
        delay_trace: Path | None = None,
    ) -> None:
        self._metrics = metrics
        self._log = log
        self._delay_trace = delay_trace
        self._state = WorkerState.STARTING
        self._said_at: dict[str, float] = {}
        self._n_owned = 0
        self.turned_at = time.monotonic()

    @property
    def present_state(self) -> WorkerState:
        """What the loop is doing."""
        return self._state

    @property
    def n_owned(self) -> int:
        """How many partitions are ours."""
        return self._n_owned

    def turned(self) -> None:
        """The loop is alive."""
        self.turned_at = time.monotonic()
        self._metrics.loop_heartbeat.set_to_current_time()

    def state(self, state: WorkerState) -> None:
        """The loop does something else now."""
        if state is not self._state:
            self._state = state
            self._metrics.set_state(state)
            is_held = state is WorkerState.HELD
            self._metrics.partitions_paused.set(self._n_owned if is_held else 0)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Count the time spent inside."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._metrics.loop_seconds.labels(stage).inc(time.monotonic() - started)

    def consumed(self, records: Sequence[Record]) -> None:
        """A batch is in hand."""
        self._metrics.batch_records.observe(len(records))
        for topic, n_records in _by_topic(records).items():
            self._metrics.records_consumed.labels(topic).inc(n_records)

    def abandoned(self, records: Sequence[Record]) -> None:
        """A batch was dropped unacknowledged."""
        for topic, n_records in _by_topic(records).items():
            self._metrics.records_abandoned.labels(topic).inc(n_records)

    def learned(self, records: Sequence[Record], decoded: Decoded, report: Report) -> None:
        """The good part of a batch is in the store, readable from this moment on."""
        now = time.time()
        metrics = self._metrics
        for (topic, event_type), n_events in decoded.applied.items():
            metrics.events_applied.labels(topic, event_type).inc(n_events)
        self._measure_delays(records, decoded.event_times_ms, now)
        self._count(report)

    def refolded(self, report: Report) -> None:
        """Some users were folded in again with a new model."""
        self._count(report)

    def swept(self, swept: Swept) -> None:
        """A page of the sweep was folded in."""
        metrics, variant, after = self._metrics, swept.live.variant, swept.after
        metrics.sweep_users.labels(variant).inc(swept.n_seen)
        metrics.sweep_behind.labels(variant).inc(swept.n_behind)
        metrics.sweep_progress.labels(variant).set(swept.progress)
        self._count(replace(swept.report, seconds={}))  # its time is a stage of its own
        generation = after.generation
        if swept.begins:
            self._log.info(
                "sweep_started",
                variant=variant,
                generation=generation,
                n_users_expected=after.n_expected,
            )
        if after.cursor != CURSOR_OF_ENDS:
            return
        metrics.sweep_passes.labels(variant).inc()
        if after.is_done:
            self._log.info(
                "sweep_finished",
                variant=variant,
                generation=generation,
                n_users=after.n_seen,
                n_passes=after.number,
                n_found_behind=after.n_found,
                n_left_behind=after.n_behind,
                seconds=(after.finished_ms - after.started_ms) / 1000,
            )

    def sweep_done(self, variant: str, *, is_done: bool) -> None:
        """Whether the sweep of a variant has nothing left to do."""
        self._metrics.sweep_done.labels(variant).set(is_done)

    def _count(self, report: Report) -> None:
        metrics = self._metrics
        for outcome in Outcome:
            metrics.interactions_merged.labels(outcome.name.lower()).inc(
                int(report.outcomes[outcome])
            )
        metrics.unknown_item_interactions.inc(report.n_unknown_items)
        metrics.cache_hits.inc(report.hits)
        metrics.cache_misses.inc(report.misses)
        metrics.redis_conflicts.inc(report.n_conflicts)
        metrics.redis_bytes_written.inc(report.n_bytes)
        metrics.features_superseded.inc(report.n_superseded)
        for variant, n_users in report.folded.items():
            metrics.folds.labels(variant).inc(n_users)
        for variant, n_users in report.fold_rejected.items():
            metrics.fold_rejected.labels(variant, "bound").inc(n_users)
            self._say("fold_rejected", variant=variant, n_users=n_users)
        for failure in report.failures:
            metrics.learner_failures.labels(failure.live.variant, failure.error.reason).inc()
        for stage, seconds in report.seconds.items():
            metrics.loop_seconds.labels(stage).inc(seconds)
        if report.n_quarantined:
            metrics.histories_quarantined.inc(report.n_quarantined)
            self._log.error("values_quarantined", n_values=report.n_quarantined, keys="st:q:*")

    def dead_lettered(self, rejected: Sequence[Rejected]) -> None:
        """The bad part of a batch is safe in the dead letters."""
        reasons = Counter((letter.record.partition.topic, letter.reason) for letter in rejected)
        for (topic, reason), n_records in reasons.items():
            self._metrics.records_dead_lettered.labels(topic, reason).inc(n_records)

    def failed(self, error: TransientError, attempt: int) -> None:
        """Something did not answer; it is tried again."""
        if isinstance(error, StoreUnavailable):
            self._metrics.redis_errors.labels(error.kind).inc()
            self._metrics.redis_retries.inc()
        else:
            self._metrics.kafka_retries.inc()
        self._say("retrying", key=type(error).__name__, error=str(error), attempt=attempt)

    def kafka_error(self, code: str) -> None:
        """The client of Kafka reports an error; it goes on by itself."""
        self._metrics.kafka_errors.labels(code).inc()
        self._say("kafka_error_reported", key=code, code=code)

    def rebalanced(
        self, kind: str, partitions: Sequence[Partition], owned: frozenset[Partition]
    ) -> None:
        """Partitions came or went."""
        self._n_owned = len(owned)
        self._metrics.rebalances.labels(kind).inc()
        self._metrics.partitions_assigned.set(len(owned))
        self._log.info("partitions_" + kind, n_partitions=len(partitions), n_owned=len(owned))

    def _measure_delays(
        self, records: Sequence[Record], event_times_ms: NDArray[np.int64], now: float
    ) -> None:
        appended = np.fromiter(map(_timestamp_ms, records), np.int64, len(records))
        topics = [*map(_topic, records)]
        is_applied = event_times_ms >= 0
        delays = np.maximum(now - appended / 1000, 0.0)
        ages = np.maximum(now - event_times_ms / 1000, 0.0)
        for topic in set(topics):
            is_of_topic = np.fromiter(map(topic.__eq__, topics), np.bool_, len(topics))
            mine = is_applied & is_of_topic
            self._metrics.pipeline_delay.observe(topic, delays[mine])
            self._metrics.event_age.observe(topic, ages[mine])
        if self._delay_trace is not None:
            with self._delay_trace.open("ab") as trace:
                trace.write(delays[is_applied].astype("<f8").tobytes())

    def _say(self, event: str, *, key: str = "", **facts: object) -> None:
        """Warn, but not more often than every half minute about the same."""
        now = time.monotonic()
        name = f"{event}/{key}"
        if now - self._said_at.get(name, -REPEAT_SECONDS) >= REPEAT_SECONDS:
            self._said_at[name] = now
            self._log.warning(event, **facts)


def _by_topic(records: Sequence[Record]) -> Counter[str]:
    return Counter(map(_topic, records))
