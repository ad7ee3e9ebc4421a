"""Deliver synthetic records: paced to Kafka, or as fast as possible to a file.

The pace is smooth, a few records every few milliseconds, and catches up after a stall. A record is
never sent before its date, so its event time is never ahead of the clock of the broker's host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Final, Protocol

from streamer.dev.traffic import TrafficRecord, generate
from streamer.dev.traffic_plan import TrafficPlan

TICK_SECONDS: Final = 0.004
FULL_QUEUE_WAIT_SECONDS: Final = 0.05
# Longer than a record may take (`kafka_producer.RECORD_TIMEOUT_MS`), so that all are accounted for.
DRAIN_TIMEOUT_SECONDS: Final = 35.0
# Whoever stopped it is waiting; what a dead broker has not taken by then counts as failed.
STOP_TIMEOUT_SECONDS: Final = 5.0
CHUNK_RECORDS: Final = 1_000


class Sender(Protocol):
    """Where records go; `streamer.dev.kafka_producer` has the one for Kafka."""

    n_delivered: int
    n_failed: int
    first_error: str

    def send(self, record: TrafficRecord) -> bool:
        """Take a record, or return False because the queue is full."""

    def serve(self, timeout_seconds: float) -> None:
        """Process delivery reports, waiting for the first one at most `timeout_seconds`."""

    def drain(self, timeout_seconds: float) -> None:
        """Wait for all reports; what is left after `timeout_seconds` counts as failed."""


@dataclass(slots=True)
class Tally:
    """What was delivered. The counts by topic and label are of the records that were sent.

    Attributes:
        produced: Acknowledged records.
        failed: Records whose delivery failed or was not reported in time.
        play: Sent to the topic of play events.
        browse: Sent to the topic of browse events.
        late: Dated before their place.
        duplicates: Sent again.
        malformed: To be dead-lettered.
        seconds: From the first record to the last report.
        first_error: Why the first failed one failed.
    """

    produced: int = 0
    failed: int = 0
    play: int = 0
    browse: int = 0
    late: int = 0
    duplicates: int = 0
    malformed: int = 0
    seconds: float = 0.0
    first_error: str = ""

    def count(self, record: TrafficRecord) -> None:
        """Count a record by topic and label."""
        if record.topic == "play":
            self.play += 1
        else:
            self.browse += 1
        if record.label == "late":
            self.late += 1
        elif record.label == "duplicate":
            self.duplicates += 1
        elif record.label == "malformed":
            self.malformed += 1

    @property
    def n_sent(self) -> int:
        """Records handed over so far."""
        return self.play + self.browse


@dataclass(frozen=True, slots=True)
class Watch:
    """How a caller follows and stops a delivery."""

    should_stop: Callable[[], bool] = lambda: False
    on_progress: Callable[[int], object] = lambda _n_sent: None


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, replaceable in tests; both in seconds."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep


def deliver_live(
    plan: TrafficPlan, sender: Sender, watch: Watch = Watch(), clock: Clock = Clock()
) -> Tally:
    """Send a live plan's records, each no earlier than its date, and wait for the reports.

    Call it right after planning: the plan's ``start_ms`` is taken to be now.

    Args:
        plan: Of `plan_live`.
        sender: Where to.
        watch: Asked and told every few milliseconds.
        clock: For tests.
    """
    rate_per_s = plan.n_records / plan.span_s
    records, tally = generate(plan), Tally()
    started = clock.monotonic()
    while tally.n_sent < plan.n_records and not watch.should_stop():
        n_due = min(int((clock.monotonic() - started) * rate_per_s) + 1, plan.n_records)
        # Bounded, so that a producer that fell far behind still reports and still stops.
        n_chunk = min(n_due - tally.n_sent, CHUNK_RECORDS)
        for record in islice(records, n_chunk):
            if not _send(record, sender, watch):
                break
            tally.count(record)
        sender.serve(0.0)
        watch.on_progress(tally.n_sent)
        if tally.n_sent == n_due:
            clock.sleep(TICK_SECONDS)
    sender.drain(STOP_TIMEOUT_SECONDS if watch.should_stop() else DRAIN_TIMEOUT_SECONDS)
    tally.produced, tally.failed = sender.n_delivered, sender.n_failed
    tally.first_error = sender.first_error
    tally.seconds = clock.monotonic() - started
    return tally


def _send(record: TrafficRecord, sender: Sender, watch: Watch) -> bool:
    """Wait for a place in the queue; False when told to stop meanwhile."""
    while not sender.send(record):
        if watch.should_stop():
            return False
        sender.serve(FULL_QUEUE_WAIT_SECONDS)
    return True


def write_lines(
    records: Iterable[TrafficRecord],
    file: BinaryIO,
    watch: Watch = Watch(),
    clock: Clock = Clock(),
) -> Tally:
    """Write one value a line, as fast as possible.

    Args:
        records: Each value one line of text, as with ``Disturbances(lines_only=True)``.
        file: Open for writing bytes, buffered.
        watch: Asked and told every thousand records.
        clock: For tests.
    """
    tally, started = Tally(), clock.monotonic()
    remaining = iter(records)
    while not watch.should_stop():
        chunk = list(islice(remaining, CHUNK_RECORDS))
        if not chunk:
            break
        for record in chunk:
            tally.count(record)
        file.write(b"".join(record.value + b"\n" for record in chunk))
        watch.on_progress(tally.n_sent)
    tally.produced = tally.n_sent
    tally.seconds = clock.monotonic() - started
    return tally
