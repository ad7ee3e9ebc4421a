"""Writing a single event, and knowing where it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from streamer.errors import BrokerUnavailable
from streamer.kafka.client import SILENT_LOGGER, broker_errors, client_settings
from streamer.pipeline.records import Partition

DELIVERY_SECONDS: Final = 10


class Written(NamedTuple):
    """Where an event is, and its record's timestamp in epoch milliseconds."""

    partition: Partition
    offset: int
    timestamp_ms: int


def write_event(
    client: Mapping[str, str], bootstrap_servers: str, topic: str, key: bytes, value: bytes
) -> Written:
    """Write one event; all replicas in sync have it when this returns.

    After an error the event may be there or not.

    Raises:
        BrokerUnavailable: It was not acknowledged within 10 s, or was refused.
    """
    written: list[Written] = []
    failed: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failed.append(error)
            return
        number, offset = message.partition(), message.offset()
        assert number is not None
        assert offset is not None
        written.append(Written(Partition(topic, number), offset, message.timestamp()[1]))

    with broker_errors("writing an event"):
        producer = Producer(
            client_settings(
                client,
                bootstrap_servers,
                {
                    "acks": "all",
                    "enable.idempotence": True,
                    "message.timeout.ms": DELIVERY_SECONDS * 1000,
                    "allow.auto.create.topics": False,
                },
            ),
            logger=SILENT_LOGGER,
        )
        producer.produce(topic, key=key, value=value, on_delivery=on_delivery)
    deadline = time.monotonic() + 2 * DELIVERY_SECONDS
    while producer.flush(0.1):
        if time.monotonic() > deadline:  # an operator's own time-out may be longer
            producer.purge()
    if failed:
        raise BrokerUnavailable(f"writing an event: {failed[0].str()}", kind=failed[0].name())
    return written[0]
