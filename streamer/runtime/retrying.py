"""Trying again for as long as it takes: partitions are held, the membership stays.

While the store or the dead letters do not answer, nothing is dropped: the batch in hand waits,
every partition is paused, and polling goes on, so that the group does not move the partitions to
a member that could do no better. Only a worker that is stopping gives up, and that is safe too.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import structlog

from streamer.errors import BrokerUnavailable, RestartNeeded, StoreForgot, TransientError
from streamer.metrics import WorkerState
from streamer.pipeline.ports import RecordSource
from streamer.pipeline.records import Partition
from streamer.runtime.observer import LoopObserver

T = TypeVar("T")

FIRST_BACK_OFF_SECONDS: Final = 0.1
MAX_DOUBLINGS: Final = 4
"""Of the first back-off: 1.6 s, drawn from its upper half. The client may take another second to
deliver again from partitions that were held, and work is to resume within 5 s."""
WAIT_SLICE_SECONDS: Final = 0.1


class Abandoned(Exception):
    """The worker is stopping and the batch in hand could not be finished in time."""


class Retrying:
    """How the loop waits, and when it gives up."""

    def __init__(
        self,
        source: RecordSource,
        admitted: Callable[[], Sequence[Partition]],
        observer: LoopObserver,
        drain_timeout_seconds: float,
        jitter: random.Random,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Keep the parts.

        Args:
            source: Whose partitions are held, and in whose group to stay.
            admitted: Which partitions may deliver when all is well.
            observer: Told of every failure, and that the loop is alive.
            drain_timeout_seconds: How long a stopping worker goes on trying.
            jitter: Spreads the retries of many workers.
            log: Told when things are well again.
        """
        self._source = source
        self._admitted = admitted
        self._observer = observer
        self._drain_timeout_seconds = drain_timeout_seconds
        self._log = log
        self._jitter = jitter
        self._give_up_at: float | None = None
        self._held_since: float | None = None
        self._fatal_code: str | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._give_up_at is not None

    def stop(self) -> None:
        """Give up in a while; may be called from a signal handler."""
        if self._give_up_at is None:
            self._give_up_at = time.monotonic() + self._drain_timeout_seconds

    def fail_for_good(self, code: str) -> None:
        """The client of Kafka will never deliver again; `be_alive` raises from now on."""
        self._fatal_code = code

    def be_alive(self) -> None:
        """Show that the loop turns.

        Raises:
            RestartNeeded: It turns in vain.
        """
        if self._fatal_code is not None:
            raise RestartNeeded(f"Kafka: the client has failed for good: {self._fatal_code}")
        self._observer.turned()

    def until_done(
        self,
        call: Callable[[], T],
        on_forgotten: Callable[[], None],
        *,
        releases: bool = True,
    ) -> T:
        """Call until it succeeds.

        Args:
            call: May be repeated after a TransientError or StoreForgot.
            on_forgotten: Called when the store forgot acknowledged writes, before the next try.
            releases: Whether partitions that are held may then deliver again.

        Raises:
            Abandoned: The worker is stopping and time is up.
        """
        attempt = 0
        while True:
            try:
                result = call()
            except StoreForgot:
                on_forgotten()
            except TransientError as error:
                attempt += 1
                self._observer.failed(error, attempt)
                self.hold()
                bound = FIRST_BACK_OFF_SECONDS * 2 ** min(attempt - 1, MAX_DOUBLINGS)
                self.stay(self._jitter.uniform(bound / 2, bound))
            else:
                if releases:
                    self.release()
                return result

    def stay(self, seconds: float) -> None:
        """Wait, as a member of the group.

        Raises:
            Abandoned: The worker is stopping and time is up.
        """
        until = time.monotonic() + seconds
        with self._observer.stage("backpressure"):
            while True:
                self.be_alive()
                if self._give_up_at is not None and time.monotonic() >= self._give_up_at:
                    raise Abandoned
                left = until - time.monotonic()
                slice_seconds = max(0.0, min(left, WAIT_SLICE_SECONDS))
                try:
                    self._source.wait(slice_seconds)
                except BrokerUnavailable as error:
                    self._observer.failed(error, 1)
                    time.sleep(slice_seconds)
                if left <= 0:
                    return

    def hold(self) -> None:
        """Let no partition deliver until something succeeds; may be called again."""
        if self._held_since is not None:
            return
        self._held_since = time.monotonic()
        self._observer.state(WorkerState.HELD)
        try:
            self._source.pause(self._admitted())
        except BrokerUnavailable as error:
            self._observer.failed(error, 1)  # records that come meanwhile wait in the backlog

    def release(self) -> None:
        """Let them deliver again; where that fails, it must be called again."""
        if self._held_since is None:
            return
        try:
            self._source.resume(self._admitted())
        except BrokerUnavailable as error:
            self._observer.failed(error, 1)
            return
        self._log.info("resumed", held_seconds=round(time.monotonic() - self._held_since, 3))
        self._held_since = None
        self._observer.state(WorkerState.RUNNING)
