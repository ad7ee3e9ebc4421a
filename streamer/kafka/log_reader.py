"""Reading whole topics once, from the earliest record to the end as it is now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
        ends = _ends(consumer, topics)
        yield from _read_until(consumer, ends)
    finally:
        consumer.close()


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
