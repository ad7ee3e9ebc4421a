"""The worker's loop: poll, learn, dead-letter, vouch. One thread, one order, visible in `turn`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, TypeVar

import structlog

from streamer.errors import (
    BrokerUnavailable,
    StoreForgot,
    StoreUnavailable,
    TransientError,
)
from streamer.history import Interactions
from streamer.metrics import WorkerState
from streamer.pipeline.ports import DeadLetters, RecordSource
from streamer.pipeline.records import Decoder, Partition, Record, Rejected
from streamer.pipeline.step import LearnerFailure, LiveModel
from streamer.runtime.checkpoint import Checkpoints
from streamer.runtime.observer import LoopObserver
from streamer.runtime.retrying import Abandoned, Retrying
from streamer.runtime.sweeper import Sweeper
from streamer.runtime.updater import Report, Updater

T = TypeVar("T")

ADMISSION_RETRY_SECONDS: Final = 0.5
REFOLD_USERS: Final = 250
"""Between two batches, so that a new model delays no event by more than some milliseconds."""
DELIVERY_SLICE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the loop turns.

    Attributes:
        batch_records: At most so many records a batch.
        poll_timeout_seconds: Longest wait for a record.
        checkpoint_interval_seconds: Between marks, stored offsets and freshness.
        drain_timeout_seconds: How long a stopping loop tries to finish the batch in hand.
    """

    batch_records: int
    poll_timeout_seconds: float
    checkpoint_interval_seconds: float
    drain_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class LoopParts:
    """What the loop is made of."""

    source: RecordSource
    dead_letters: DeadLetters
    updater: Updater
    sweeper: Sweeper
    checkpoints: Checkpoints
    live_models: Callable[[], Sequence[LiveModel]]
    take_out: Callable[[LearnerFailure], None]
    observer: LoopObserver
    jitter: Random


class WorkerLoop:
    """Turns until it is told to stop; safe to kill between any two statements."""

    def __init__(
        self, parts: LoopParts, settings: LoopSettings, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._source = parts.source
        self._dead_letters = parts.dead_letters
        self._updater = parts.updater
        self._sweeper = parts.sweeper
        self._checkpoints = parts.checkpoints
        self._live_models = parts.live_models
        self._take_out = parts.take_out
        self._observer = parts.observer
        self._settings = settings
        self._log = log
        self._decoder = Decoder()
        self._next_checkpoint_at = 0.0
        self._next_admission_at = 0.0
        self._is_store_down = False
        self._retrying = Retrying(
            parts.source,
            lambda: parts.checkpoints.admitted,
            parts.observer,
            settings.drain_timeout_seconds,
            parts.jitter,
            log,
        )

    def stop(self) -> None:
        """Finish the batch in hand and return from `run`; may be called from a signal handler."""
        self._retrying.stop()

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._retrying.is_stopping

    def run(self) -> None:
        """Turn until `stop`; the last checkpoint is made, the group is not yet left."""
        self._source.subscribe(self)
        try:
            while not self.is_stopping:
                self.turn()
            self._observer.state(WorkerState.DRAINING)
            self._save()
        except Abandoned:
            self._log.warning("batch_abandoned", remedy="none needed: its records come again")

    def turn(self) -> None:
        """One round: admit partitions, learn one batch, vouch for what is done."""
        self._retrying.be_alive()
        self._retrying.release()  # where that failed, nothing would ever come to try it again
        if self._checkpoints.is_admitting and time.monotonic() >= self._next_admission_at:
            self._admit()
        records = self._poll()
        if records:
            self._observer.state(WorkerState.RUNNING)
            self._observer.consumed(records)
            self._learn(records)
        elif self._is_store_down:
            self._observer.state(WorkerState.HELD)
        elif not self._checkpoints.is_admitting:
            self._observer.state(WorkerState.IDLE)
        if not self._is_store_down and not self._refold():
            has_backlog = len(records) >= self._settings.batch_records
            if not has_backlog:
                self._sweep()
        for live in self._live_models():
            self._observer.sweep_done(live.variant, is_done=self._sweeper.is_done(live))
        if time.monotonic() >= self._next_checkpoint_at:
            self._save()

    def _refold(self) -> bool:
        """Fold some of the users that we know in again, if a new model is live; say if any were."""
        lives = self._live_models()
        user_ids = self._updater.take_refolds(lives, REFOLD_USERS)
        if user_ids:
            nothing_new = Interactions.none(len(user_ids))
            report = self._until_done(lambda: self._updater.apply(user_ids, nothing_new, lives))
            self._observer.refolded(report)
            self._heed(report)
        return bool(user_ids)

    def _sweep(self) -> None:
        """Fold some of the users in that nobody touches; what fails is for the next pass."""
        with self._observer.stage("sweep"):
            try:
                swept = self._sweeper.turn(self._live_models())
            except StoreForgot:
                self._rewind()
                return
            except StoreUnavailable as error:
                self._observer.failed(error, 1)
                return
        if swept is not None:
            self._observer.swept(swept)
            self._heed(swept.report)

    def _learn(self, records: Sequence[Record]) -> None:
        """Bring one batch into the store; every step may be repeated, none is skipped."""
        epochs = self._checkpoints.epochs()
        with self._observer.stage("decode"):
            decoded = self._decoder.decode(records)
        unfinished = records
        try:
            report = self._until_done(
                lambda: self._updater.apply(decoded.user_ids, decoded.arrived, self._live_models())
            )
            self._observer.learned(records, decoded, report)
            self._heed(report)
            unfinished = [letter.record for letter in decoded.rejected]
            if decoded.rejected:
                self._bury(decoded.rejected)
        except Abandoned:
            self._observer.abandoned(unfinished)
            raise
        for record in _last_of_each_partition(records):
            self._checkpoints.applied(
                record.partition,
                epochs.get(record.partition),
                record.offset + 1,
                record.timestamp_ms if record.is_append_time else None,
            )

    def _heed(self, report: Report) -> None:
        """Go on without the variants whose learner failed: the stream is everybody's."""
        for failure in report.failures:
            self._take_out(failure)

    def _bury(self, rejected: Sequence[Rejected]) -> None:
        """Return when every dead letter is safe."""
        with self._observer.stage("dead_letter"):
            self._dead_letters.send(rejected)
            while not self._retrying.until_done(
                lambda: self._dead_letters.is_delivered(DELIVERY_SLICE_SECONDS),
                self._rewind,
                releases=False,
            ):
                self._retrying.hold()
                self._retrying.stay(0.0)
            self._retrying.release()
        self._observer.dead_lettered(rejected)

    def _until_done(self, call: Callable[[], T]) -> T:
        return self._retrying.until_done(call, self._rewind)

    def _rewind(self) -> None:
        """Read everything since the marks again; the batch in hand vouches for nothing."""
        self._updater.forget_cache()
        try:
            self._checkpoints.rewind()
        except BrokerUnavailable as error:
            self._observer.failed(error, 1)  # not paused: its records vouch for nothing either

    def _poll(self) -> list[Record]:
        timeout_seconds = self._settings.poll_timeout_seconds
        if self._updater.has_refolds and not self._is_store_down:
            timeout_seconds = 0.0
        elif not self._is_store_down:  # else nobody is swept, and we would turn in vain
            due_in_seconds = self._sweeper.due_in_seconds(self._live_models())
            timeout_seconds = min(timeout_seconds, due_in_seconds)
        with self._observer.stage("poll"):
            try:
                return self._source.poll(self._settings.batch_records, timeout_seconds)
            except BrokerUnavailable as error:
                self._observer.failed(error, 1)
        self._retrying.stay(self._settings.poll_timeout_seconds)
        return []

    def _admit(self) -> None:
        try:
            if self._checkpoints.admit():
                self._updater.forget_cache()
        except StoreForgot:
            self._rewind()
        except TransientError as error:
            self._observer.failed(error, 1)
            self._next_admission_at = time.monotonic() + ADMISSION_RETRY_SECONDS
            if not self._checkpoints.admitted:
                self._observer.state(WorkerState.HELD)
                self._retrying.stay(self._settings.poll_timeout_seconds)

    def _save(self, partitions: Sequence[Partition] | None = None) -> None:
        """Checkpoint; a failure is tried again with the next one, nothing depends on it."""
        self._next_checkpoint_at = time.monotonic() + self._settings.checkpoint_interval_seconds
        with self._observer.stage("checkpoint"):
            try:
                self._checkpoints.save(partitions)
                self._checkpoints.publish_freshness()
            except StoreForgot:
                self._rewind()
            except TransientError as error:
                self._observer.failed(error, 1)
                self._is_store_down = isinstance(error, StoreUnavailable)
            else:
                self._is_store_down = False

    # --- what the source tells us, from inside poll and wait -----------------------------------

    def on_assigned(self, partitions: Sequence[Partition]) -> None:
        """New partitions stay paused until their marks have been read."""
        self._checkpoints.assign(partitions)
        self._observer.rebalanced("assigned", partitions, self._source.owned)

    def on_revoked(self, partitions: Sequence[Partition]) -> None:
        """Vouch for what is done; a batch in hand will be written, but vouch for nothing."""
        self._save(partitions)
        self._leave("revoked", partitions)

    def on_lost(self, partitions: Sequence[Partition]) -> None:
        """Another member reads them already, from the last committed offset."""
        self._leave("lost", partitions)

    def on_error(self, code: str, *, is_fatal: bool) -> None:
        """Count; a fatal one ends the process at the next turn."""
        self._observer.kafka_error(code)
        if is_fatal:
            self._retrying.fail_for_good(code)

    def _leave(self, kind: str, partitions: Sequence[Partition]) -> None:
        self._checkpoints.drop(partitions)
        owned = self._source.owned - set(partitions)
        self._observer.rebalanced(kind, partitions, owned)


def _last_of_each_partition(records: Sequence[Record]) -> list[Record]:
    return list({record.partition: record for record in records}.values())
