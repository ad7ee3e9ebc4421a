"""Reading topics without a group: any range of every partition, as often as wanted.

Nothing is joined, committed or stored.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import closing
from typing import Final, NamedTuple
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, Message, TopicCollection
from confluent_kafka.admin import AdminClient

from streamer.errors import BrokerUnavailable
from streamer.events import LATEST_EVENT_TIME_MS
from streamer.kafka.client import (
    SILENT_LOGGER,
    broker_errors,
    client_settings,
    record_of,
    topic_partition,
)
from streamer.kafka.queries import NO_ID
from streamer.pipeline.records import Partition, Record

BATCH_RECORDS: Final = 1000
POLL_SECONDS: Final = 0.3
QUERY_SECONDS: Final = 10.0
MAX_SILENCE_SECONDS: Final = 30.0
PREFETCHED_KILOBYTES: Final = 16_384


class LogBounds(NamedTuple):
    """Where a partition begins and ends.

    Attributes:
        low: First offset that it still has.
        high: The offset after its last.
    """

    low: int
    high: int


class KafkaLog:
    """Some topics, read from outside. Every call raises BrokerUnavailable, and may be repeated.

    One consumer for all calls: a new one each time left 3 MB of fragments behind. Not for more than
    one thread, nor for two reads at a time.
    """

    def __init__(
        self,
        client: Mapping[str, str],
        bootstrap_servers: str,
        topics: Sequence[str],
        *,
        may_be_missing: bool = False,
    ) -> None:
        """Remember where; nothing is connected yet.

        Args:
            client: Settings of librdkafka, passed through.
            bootstrap_servers: host:port, comma-separated.
            topics: Which.
            may_be_missing: A topic that does not exist is as an empty one.
        """
        self._topics = list(topics)
        self._may_be_missing = may_be_missing
        self._consumer_in_use: Consumer | None = None
        self._admin_settings = client_settings(client, bootstrap_servers, {})
        self._settings = client_settings(
            {"queued.max.messages.kbytes": str(PREFETCHED_KILOBYTES), **client},
            bootstrap_servers,
            {
                "group.id": f"streamer-read-{uuid4().hex}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            },
        )

    def bounds(self) -> dict[Partition, LogBounds]:
        """Return where every partition begins and ends at this moment."""
        with broker_errors("reading watermarks"):
            return self._bounds(self._consumer())

    def _bounds(self, consumer: Consumer) -> dict[Partition, LogBounds]:
        found: dict[Partition, LogBounds] = {}
        metadata = consumer.list_topics(timeout=QUERY_SECONDS)
        for topic in self._topics:
            if topic not in metadata.topics and self._may_be_missing:
                continue
            if topic not in metadata.topics:
                raise BrokerUnavailable(f"topic {topic} does not exist", kind="missing_topic")
            for number in metadata.topics[topic].partitions:
                partition = Partition(topic, number)
                found[partition] = LogBounds(
                    *consumer.get_watermark_offsets(
                        topic_partition(partition), timeout=QUERY_SECONDS
                    )
                )
        return found

    def read(
        self, start: Mapping[Partition, int], until: Mapping[Partition, int]
    ) -> Generator[Record, None, None]:
        """Yield what there is in [start, until) of each partition, in order by partition.

        Args:
            start: First offsets; what the topic no longer has is left out.
            until: The offsets after the last ones, at most the present ends.
        """
        remaining = {p: end for p, end in until.items() if start[p] < end}
        if not remaining:
            return
        consumer = self._consumer()
        with broker_errors("reading the log"):
            bounds = self._bounds(consumer)
            remaining = {p: end for p, end in remaining.items() if bounds[p].low < end}
            first = {p: max(start[p], bounds[p].low) for p in remaining}
            consumer.assign([topic_partition(p, offset) for p, offset in first.items()])
            try:
                yield from _read_until(consumer, remaining)
            finally:  # or it would go on fetching; and a pause may outlast an assignment
                consumer.resume([topic_partition(p) for p in first])
                consumer.unassign()

    def topic_ids(self) -> dict[str, str]:
        """Return the id of each topic, without those that the broker does not tell."""
        with broker_errors("asking for the topics' ids"):
            admin = AdminClient(self._admin_settings, logger=SILENT_LOGGER)
            answers = admin.describe_topics(
                TopicCollection(self._topics), request_timeout=QUERY_SECONDS
            )
        done, _ = wait(answers.values(), QUERY_SECONDS + 1)
        ids = {
            topic: str(answer.result().topic_id)
            for topic, answer in answers.items()
            if answer in done and answer.exception() is None
        }
        return {topic: topic_id for topic, topic_id in ids.items() if topic_id != NO_ID}

    def gone_until_ms(self) -> int:
        """Return when the newest record that is no longer there may have been written.

        Epoch milliseconds, 0 if the topics reach back to their first records. With producers'
        timestamps nobody can know: the latest time there is.
        """
        cut = {p: bound for p, bound in self.bounds().items() if bound.low > 0}
        return max((self._first_written_ms(p, bound) for p, bound in cut.items()), default=0)

    def _first_written_ms(self, partition: Partition, bound: LogBounds) -> int:
        """Return the time of the first record that is left; the first offset may hold none."""
        with closing(self.read({partition: bound.low}, {partition: bound.high})) as records:
            first = next(records, None)
        if first is None:
            return time.time_ns() // 1_000_000
        return first.timestamp_ms if first.is_append_time else LATEST_EVENT_TIME_MS

    def close(self) -> None:
        """Disconnect; another call connects again."""
        if self._consumer_in_use is not None:
            self._consumer_in_use.close()
            self._consumer_in_use = None

    def _consumer(self) -> Consumer:
        if self._consumer_in_use is None:
            with broker_errors("creating a consumer"):
                self._consumer_in_use = Consumer(self._settings, logger=SILENT_LOGGER)
        return self._consumer_in_use


def read_log(
    client: Mapping[str, str], bootstrap_servers: str, topics: Sequence[str]
) -> Iterator[Record]:
    """Yield every record of the topics up to their present end, in order by partition.

    Raises:
        BrokerUnavailable: A topic is missing, or the broker stopped answering.
    """
    with closing(KafkaLog(client, bootstrap_servers, topics)) as log:
        bounds = log.bounds()
        start = {partition: bound.low for partition, bound in bounds.items()}
        yield from log.read(start, {partition: bound.high for partition, bound in bounds.items()})


def read_record(
    client: Mapping[str, str], bootstrap_servers: str, partition: Partition, offset: int
) -> Record | None:
    """Return one record; None if the topic does not hold it: not yet, or no more.

    Raises:
        BrokerUnavailable: The topic is missing, or the broker stopped answering.
    """
    with closing(KafkaLog(client, bootstrap_servers, [partition.topic])) as log:
        bounds = log.bounds().get(partition)
        if bounds is None or not bounds.low <= offset < bounds.high:
            return None
        return next(log.read({partition: offset}, {partition: offset + 1}), None)


def _read_until(consumer: Consumer, until: Mapping[Partition, int]) -> Iterator[Record]:
    remaining = dict(until)
    heard_at = time.monotonic()
    while remaining:
        messages = consumer.consume(BATCH_RECORDS, POLL_SECONDS)
        for message in messages:
            error = message.error()
            if error is None:
                record = record_of(message)
                partition, offset = record.partition, record.offset
                if offset < until[partition]:
                    yield record
                next_offset = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  its public name
                # Also where the last offsets hold no record: a transaction's marker, say.
                partition, next_offset = _end(message)
            else:
                raise BrokerUnavailable(f"reading the log: {error.str()}", kind=error.name())
            if partition in remaining and next_offset >= until[partition]:
                del remaining[partition]
                consumer.pause([topic_partition(partition)])
        if messages:
            heard_at = time.monotonic()  # now: whoever takes the records may take its time
        elif time.monotonic() - heard_at > MAX_SILENCE_SECONDS:
            raise BrokerUnavailable(
                f"reading the log: nothing came for {MAX_SILENCE_SECONDS:g} s", kind="timeout"
            )


def _end(message: Message) -> tuple[Partition, int]:
    topic, number, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None, "the end of a partition has a place"
    assert number is not None
    assert offset is not None
    return Partition(topic, number), offset
