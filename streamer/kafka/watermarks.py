"""A thread that asks the broker for high watermarks, so that lag is true while the loop hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it is public all the same

from streamer.kafka.client import (
    SILENT_LOGGER,
    YOUNG_METADATA,
    client_settings,
    topic_partition,
)
from streamer.pipeline.records import Partition

REQUEST_SECONDS: Final = 2.0
LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # confluent-kafka has none


class WatermarkMonitor:
    """Asks for the watermarks of the partitions that are ours, once an interval."""

    def __init__(
        self,
        client: Mapping[str, str],
        bootstrap_servers: str,
        partitions: Callable[[], frozenset[Partition]],
        observe: Callable[[int, Mapping[Partition, int]], None],
        interval_seconds: float,
    ) -> None:
        """Connect in the background; `start` begins to ask.

        Args:
            client: Settings of librdkafka, passed through.
            bootstrap_servers: host:port, comma-separated.
            partitions: Which to ask for; called on the monitor's thread.
            observe: Told (when it was asked in epoch milliseconds, watermarks); same thread.
            interval_seconds: Between questions.
        """
        self._admin = AdminClient(
            client_settings(client, bootstrap_servers, YOUNG_METADATA), logger=SILENT_LOGGER
        )
        self._partitions = partitions
        self._observe = observe
        self._interval_seconds = interval_seconds
        self.answered_at = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watermarks", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Stop asking; returns when the thread has ended, or after one request's bound."""
        self._stopping.set()
        self._thread.join(2 * REQUEST_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            partitions = self._partitions()
            if not partitions:
                self.answered_at = time.monotonic()  # nothing was asked
            else:
                asked_at_ms = time.time_ns() // 1_000_000
                watermarks = self._ask(partitions)
                if watermarks:
                    self.answered_at = time.monotonic()
                    self._observe(asked_at_ms, watermarks)
            self._stopping.wait(self._interval_seconds)

    def _ask(self, partitions: frozenset[Partition]) -> dict[Partition, int]:
        """Return the watermarks that the broker told in time; none if it does not answer."""
        try:
            futures = self._admin.list_offsets(
                {topic_partition(partition): LATEST for partition in partitions},
                request_timeout=REQUEST_SECONDS,
            )
        except KafkaException:
            return {}
        done, _ = wait(futures.values(), timeout=REQUEST_SECONDS + 1)
        return {
            Partition(tp.topic, tp.partition): int(future.result().offset)
            for tp, future in futures.items()
            if future in done and future.exception() is None and future.result().offset >= 0
        }
