"""What the loop asks the broker beside its group: where topics begin, and which ids they have.

Nothing here waits longer than a second. What need not be known now, the ids, is asked in the
background: the answer to one question is taken when the next one is due.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it is public all the same

from streamer.kafka.client import (
    SILENT_LOGGER,
    YOUNG_METADATA,
    broker_errors,
    client_settings,
    topic_partition,
)
from streamer.pipeline.records import Partition

QUERY_SECONDS: Final = 1.0
IDS_INTERVAL_SECONDS: Final = 0.5
EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # confluent-kafka has none
NO_ID: Final = "A" * 22
"""How the broker writes the id of a topic that has none, 16 zero bytes in base64."""


class BrokerQueries:
    """Questions to the broker about the event topics; not for more than one thread."""

    def __init__(
        self, client: Mapping[str, str], bootstrap_servers: str, topics: Sequence[str]
    ) -> None:
        """Connect in the background.

        Args:
            client: Settings of librdkafka, passed through.
            bootstrap_servers: host:port, comma-separated.
            topics: Whose ids are asked.
        """
        with broker_errors("creating an admin client"):
            self._admin = AdminClient(
                client_settings(client, bootstrap_servers, YOUNG_METADATA), logger=SILENT_LOGGER
            )
        self._topics = list(topics)
        self._ids: dict[str, str] = {}
        self.missing: frozenset[str] = frozenset()
        """Those that do not exist, as the broker said last; may be read from any thread."""
        self._asked: dict[str, Future[Any]] = {}
        self._ask_at = 0.0

    def ask_earliest(self, partitions: Sequence[Partition]) -> Callable[[], dict[Partition, int]]:
        """Ask for the first offset of each partition; the answer is had by calling the result.

        It holds no partition that has no leader, or of which no answer came within a second.
        """
        asked_at = time.monotonic()
        futures: Mapping[TopicPartition, Future[Any]] = {}
        with broker_errors("asking for the earliest offsets"):
            futures = self._admin.list_offsets(
                {topic_partition(partition): EARLIEST for partition in partitions},
                request_timeout=QUERY_SECONDS,
            )

        def answer() -> dict[Partition, int]:
            left = max(0.0, asked_at + QUERY_SECONDS - time.monotonic())
            done, _ = wait(futures.values(), left)
            return {
                Partition(tp.topic, tp.partition): int(future.result().offset)
                for tp, future in futures.items()
                if future in done and future.exception() is None
            }

        return answer

    def topic_ids(self) -> Mapping[str, str]:
        """Return the id of each topic, as the broker told it last; without those it did not tell.

        Never waits: it takes the answer to the question of the call before, and asks the next.
        """
        if all(future.done() for future in self._asked.values()):
            for topic, future in self._asked.items():
                self._ids.pop(topic, None)  # one that was deleted has no id
                error = future.exception()
                if error is None:
                    self.missing -= {topic}
                    self._learn(topic, str(future.result().topic_id))
                elif _is_unknown(error):
                    self.missing |= {topic}
            self._asked = {}
            self._ask_again()
        return self._ids

    def _learn(self, topic: str, topic_id: str) -> None:
        if topic_id != NO_ID:
            self._ids[topic] = topic_id

    def _ask_again(self) -> None:
        now = time.monotonic()
        if now < self._ask_at:
            return
        self._ask_at = now + IDS_INTERVAL_SECONDS
        try:
            self._asked = self._admin.describe_topics(
                TopicCollection(self._topics), request_timeout=QUERY_SECONDS
            )
        except KafkaException:
            self._asked = {}  # asked again with the next call


def _is_unknown(error: BaseException) -> bool:
    told = error.args[0] if isinstance(error, KafkaException) and error.args else None
    return isinstance(told, KafkaError) and told.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
