"""Settings that every client of ours shares, and what Kafka's errors mean to us."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from streamer.errors import BrokerUnavailable, ConfigError
from streamer.events import new_tuple
from streamer.pipeline.records import Partition, Record

SILENT_LOGGER: Final = logging.getLogger("streamer.kafka.librdkafka")
"""Takes librdkafka's own log lines, which repeat themselves for as long as a broker is away.

What matters of them also comes as errors, which the worker counts and reports once.
"""
SILENT_LOGGER.addHandler(logging.NullHandler())
SILENT_LOGGER.propagate = False

YOUNG_METADATA: Final = {"metadata.max.age.ms": 1000}
"""For who asks about offsets as long as a worker lives. Who leads a partition, and in which epoch,
is otherwise believed for 15 minutes: after a broker was frozen for longer than its session, every
such question was refused for so long (FENCED_LEADER_EPOCH)."""

_WRONG_SETTINGS: Final = frozenset(
    {
        KafkaError._INVALID_ARG,  # noqa: SLF001  confluent-kafka names librdkafka's own codes so
        KafkaError._CONFLICT,  # noqa: SLF001
        KafkaError._AUTHENTICATION,  # noqa: SLF001
    }
)


@contextmanager
def broker_errors(doing: str) -> Iterator[None]:
    """Translate confluent-kafka's exceptions into BrokerUnavailable or ConfigError."""
    try:
        yield
    except KafkaException as exception:
        error = exception.args[0] if exception.args else None
        if not isinstance(error, KafkaError):
            raise BrokerUnavailable(f"{doing}: {exception}") from exception
        if error.code() in _WRONG_SETTINGS:
            raise ConfigError(f"[kafka]: {doing}: {error.str()}") from exception
        raise BrokerUnavailable(f"{doing}: {error.str()}", kind=error.name()) from exception


def client_settings(
    client: Mapping[str, str], bootstrap_servers: str, ours: Mapping[str, str | int | bool]
) -> dict[str, str | int | float | bool]:
    """Return librdkafka settings: `ours` below what the operator passes through in `client`."""
    return {
        "log.connection.close": False,
        **ours,
        **client,
        "bootstrap.servers": bootstrap_servers,
    }


def topic_partition(partition: Partition, offset: int | None = None) -> TopicPartition:
    """Return confluent-kafka's name of a partition, with an offset where one is given."""
    if offset is None:
        return TopicPartition(partition.topic, partition.number)
    return TopicPartition(partition.topic, partition.number, offset)


def record_of(message: Message) -> Record:
    """Return a message without an error as a record."""
    topic, number, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None, "a message without an error has a place"
    assert number is not None
    assert offset is not None
    timestamp_type, timestamp_ms = message.timestamp()
    return new_tuple(
        Record,
        (
            _partition(topic, number),
            offset,
            timestamp_ms,
            _bytes(message.key()),
            _bytes(message.value()),
            _headers(message),
            timestamp_type == TIMESTAMP_LOG_APPEND_TIME,
        ),
    )


_partition = lru_cache(maxsize=4096)(Partition)


def _headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    """Return the headers, or one that says that they could not be read.

    The client raises where a name is not UTF-8, and asked again it would hand out null pointers:
    so it is asked once.
    """
    try:
        headers = message.headers()
    except (SystemError, UnicodeDecodeError):
        return (("headers_dropped", b"a name is not UTF-8"),)
    if not headers:
        return ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return tuple((name, _bytes(value)) for name, value in pairs)


def _bytes(raw: bytes | str | None) -> bytes | None:
    """Without a deserializer the client hands out bytes; its types cannot say so."""
    assert raw is None or isinstance(raw, bytes)
    return raw
