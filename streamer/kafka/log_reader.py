"""Reading whole topics once, from the earliest record to the end as it is now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer

from streamer.errors import BrokerUnavailable
from streamer.kafka.client import (
    SILENT_LOGGER,
    broker_errors,
    client_settings,
    record_of,
    topic_partition,
)
from streamer.pipeline.records import Partition, Record

BATCH_RECORDS: Final = 1000
QUERY_SECONDS: Final = 10.0
MAX_SILENCE_SECONDS: Final = 30.0


def read_log(
    client: Mapping[str, str], bootstrap_servers: str, topics: Sequence[str]
) -> Iterator[Record]:
    """Yield every record of the topics up to their present end, in order by partition.

    No group is joined and nothing is committed.

    Raises:
        BrokerUnavailable: A topic is missing, or the broker stopped answering.
    """
    with _reading(client, bootstrap_servers) as consumer:
        yield from _read_until(consumer, _ends(consumer, topics))


def read_record(
    client: Mapping[str, str], bootstrap_servers: str, partition: Partition, offset: int
) -> Record | None:
    """Return one record; None if the topic does not hold it: not yet, or no more.

    Raises:
        BrokerUnavailable: The topic is missing, or the broker stopped answering.
    """
    with _reading(client, bootstrap_servers) as consumer:
        end = _ends(consumer, [partition.topic]).get(partition, 0)
        if offset >= end:
            return None
        # From there to the next one: where it is no more, that one has a higher offset.
        consumer.assign([topic_partition(partition, offset)])
        deadline = time.monotonic() + MAX_SILENCE_SECONDS
        while time.monotonic() < deadline:
            with broker_errors("reading a record"):
                message = consumer.poll(MAX_SILENCE_SECONDS / 100)
            if message is None:
                if _position(consumer, partition) >= end:
                    return None
            elif (error := message.error()) is not None:
                raise BrokerUnavailable(f"reading a record: {error.str()}", kind=error.name())
            else:
                record = record_of(message)
                return record if record.offset == offset else None
    raise BrokerUnavailable(f"reading a record: no answer within {MAX_SILENCE_SECONDS:g} s")


@contextmanager
def _reading(client: Mapping[str, str], bootstrap_servers: str) -> Iterator[Consumer]:
    """Open a consumer that is a member of no group and commits nothing."""
    settings = client_settings(
        client,
        bootstrap_servers,
        {
            "group.id": f"streamer-read-{uuid4().hex}",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": False,
        },
    )
    with broker_errors("creating a consumer"):
        consumer = Consumer(settings, logger=SILENT_LOGGER)
    try:
        yield consumer
    finally:
        consumer.close()


def _position(consumer: Consumer, partition: Partition) -> int:
    (tp,) = consumer.position([topic_partition(partition)])
    return int(tp.offset)


def _ends(consumer: Consumer, topics: Sequence[str]) -> dict[Partition, int]:
    """Return the high watermark of every partition that holds a record."""
    ends: dict[Partition, int] = {}
    with broker_errors("reading watermarks"):
        metadata = consumer.list_topics(timeout=QUERY_SECONDS)
        for topic in topics:
            if topic not in metadata.topics:
                raise BrokerUnavailable(f"topic {topic} does not exist", kind="missing_topic")
            for number in metadata.topics[topic].partitions:
                partition = Partition(topic, number)
                low, high = consumer.get_watermark_offsets(
                    topic_partition(partition), timeout=QUERY_SECONDS
                )
                if high > low:
                    ends[partition] = high
    return ends


def _read_until(consumer: Consumer, ends: dict[Partition, int]) -> Iterator[Record]:
    remaining = dict(ends)
    consumer.assign([topic_partition(partition, OFFSET_BEGINNING) for partition in remaining])
    while remaining:
        with broker_errors("reading the log"):
            messages = consumer.consume(BATCH_RECORDS, MAX_SILENCE_SECONDS / 100)
        for message in messages:
            error = message.error()
            if error is not None:
                raise BrokerUnavailable(f"reading the log: {error.str()}", kind=error.name())
            record = record_of(message)
            if record.offset < ends.get(record.partition, 0):
                yield record
        for tp in consumer.position([topic_partition(partition) for partition in remaining]):
            partition = Partition(tp.topic, tp.partition)
            if tp.offset >= ends[partition]:
                del remaining[partition]
