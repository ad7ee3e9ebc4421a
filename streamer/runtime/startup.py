"""Before the loop turns: are Kafka and Redis there, and is there a place for dead letters?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from confluent_kafka.admin import AdminClient

from streamer.errors import BrokerUnavailable, ConfigError, TransientError
from streamer.kafka.topics import (
    create_topics,
    missing_topics,
    n_brokers,
    retention_days,
    topic_specs,
)
from streamer.runtime.observer import LoopObserver

RETRY_SECONDS: Final = 0.25
ATTEMPT_SECONDS: Final = 1.0
"""Of one question to Kafka; short, because signals are handled only between questions."""
MAX_REPLICATION: Final = 3
DEAD_LETTER_RETENTION_DAYS: Final = 7.0
"""Of the event topics; a dead-letter topic that we create keeps four times as long."""


class Startup:
    """Waits for the other side, for a bounded time or as long as it takes."""

    def __init__(
        self,
        timeout_seconds: float | None,
        is_stopping: Callable[[], bool],
        observer: LoopObserver,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Start the clock.

        Args:
            timeout_seconds: Of all waits together; None waits as long as it takes.
            is_stopping: Whether the process was asked to stop meanwhile.
            observer: Told that the process is alive.
            log: Told of what it waits for.
        """
        self._give_up_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._is_stopping = is_stopping
        self._observer = observer
        self._log = log

    def wait_for(self, check: Callable[[], None]) -> None:
        """Call `check` until it succeeds or the process is asked to stop.

        Raises:
            TransientError: What `check` raised last, when time is up.
        """
        while not self._is_stopping():
            self._observer.turned()
            try:
                check()
            except TransientError as error:
                if self._give_up_at is not None and time.monotonic() >= self._give_up_at:
                    raise
                self._observer.failed(error, 1)
                time.sleep(RETRY_SECONDS)
            else:
                return


def ensure_topics(
    admin: AdminClient,
    topics: Sequence[str],
    dead_letter_suffix: str,
    log: structlog.stdlib.BoundLogger,
) -> frozenset[str]:
    """Create missing dead-letter topics; say so if an event topic does not exist yet.

    Returns:
        The event topics that do not exist.

    Raises:
        BrokerUnavailable: Kafka did not answer, or refuses to create a dead-letter topic.
    """
    letters = [topic + dead_letter_suffix for topic in topics]
    missing = set(missing_topics(admin, [*topics, *letters], ATTEMPT_SECONDS))
    if missing & set(topics):
        log.warning(
            "topics_missing",
            topics=sorted(missing & set(topics)),
            remedy="waiting for them; `streamer topics create` makes them",
        )
    if not missing & set(letters):
        return frozenset(missing & set(topics))
    specs = topic_specs(
        topics,
        dead_letter_suffix,
        partitions=1,
        replication=min(MAX_REPLICATION, n_brokers(admin, ATTEMPT_SECONDS)),
        retention_days=DEAD_LETTER_RETENTION_DAYS,
    )
    wanted = [spec for spec in specs if spec.name in missing & set(letters)]
    try:
        create_topics(admin, wanted)
    except ConfigError as error:
        raise BrokerUnavailable(
            f"{error}; without a dead-letter topic one bad record would stop the stream: "
            "create it, or allow this worker to",
            kind="dead_letter_topic",
        ) from error
    log.info("dead_letter_topics_created", topics=[spec.name for spec in wanted])
    return frozenset(missing & set(topics))


def ensure_expiry(admin: AdminClient, topics: Sequence[str], expire_after_days: float) -> None:
    """Refuse an expiry shorter than the log: a replay would bring back old taste alone.

    Raises:
        ConfigError: Users would expire while the log still holds their events.
        BrokerUnavailable: Kafka did not answer.
    """
    there = set(topics) - set(missing_topics(admin, topics, ATTEMPT_SECONDS))
    longest = max(retention_days(admin, sorted(there)).values(), default=0.0)
    if expire_after_days < longest:
        raise ConfigError(
            f"[redis] expire_after_days = {expire_after_days:g} is shorter than the topics' "
            f"retention of {longest:g} days; make it longer, or 0 to keep users"
        )
