"""Synthetic records to Kafka: idempotent, acknowledged by all replicas, keyed by user id."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamer.dev.traffic import TrafficRecord
from streamer.errors import BrokerUnavailable, ConfigError

CONNECT_TIMEOUT_SECONDS: Final = 8.0
RECORD_TIMEOUT_MS: Final = 30_000
# Short, because Python runs signal handlers only between calls of the client.
DRAIN_STEP_SECONDS: Final = 0.2
NEW_TOPIC_WAIT_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class KafkaTarget:
    """Where to produce.

    Attributes:
        bootstrap_servers: ``host:port``, comma-separated.
        play_topic: For play events.
        browse_topic: For browse events.
        client: Further settings of librdkafka, such as SASL and TLS.
    """

    bootstrap_servers: str
    play_topic: str
    browse_topic: str
    client: Mapping[str, str] = field(default_factory=dict)


class KafkaSender:
    """A `streamer.dev.delivery.Sender` over a connected producer."""

    def __init__(self, producer: Producer, target: KafkaTarget) -> None:
        self.n_delivered = 0
        self.n_failed = 0
        self.first_error = ""
        self._producer = producer
        self._topics = {"play": target.play_topic, "browse": target.browse_topic}

    def send(self, record: TrafficRecord) -> bool:
        """Queue a record; False when the client's queue is full.

        Raises:
            BrokerUnavailable: The client cannot go on, for example after a fatal error.
        """
        try:
            self._producer.produce(
                self._topics[record.topic],
                value=record.value,
                key=record.key,
                on_delivery=self._on_delivery,
            )
        except BufferError:
            return False
        except KafkaException as error:
            raise BrokerUnavailable(f"Kafka takes no more records: {error.args[0]}") from error
        return True

    def serve(self, timeout_seconds: float) -> None:
        """Process delivery reports, waiting for the first one at most `timeout_seconds`."""
        self._producer.poll(timeout_seconds)

    def drain(self, timeout_seconds: float) -> None:
        """Wait for all reports; what is left after `timeout_seconds` counts as failed."""
        deadline = time.monotonic() + timeout_seconds
        n_left = self._producer.flush(DRAIN_STEP_SECONDS)
        while n_left and time.monotonic() < deadline:
            n_left = self._producer.flush(DRAIN_STEP_SECONDS)
        if n_left:
            self.n_failed += n_left
            self.first_error = (
                self.first_error or f"no delivery report within {timeout_seconds:g} s"
            )

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self.n_delivered += 1
        else:
            self.n_failed += 1
            self.first_error = self.first_error or error.str()


def connect_sender(target: KafkaTarget) -> KafkaSender:
    """Return a sender whose broker answered and whose topics exist; at most 8 seconds.

    Raises:
        BrokerUnavailable: No broker answered in time, or a topic does not exist.
        ConfigError: librdkafka refused a setting.
    """
    defaults = {
        "acks": "all",
        "enable.idempotence": "true",
        "message.timeout.ms": str(RECORD_TIMEOUT_MS),
        # The client prints its connection attempts to stderr; our own one line says enough.
        "log_level": "2",
    }
    settings = {**defaults, **target.client, "bootstrap.servers": target.bootstrap_servers}
    try:
        producer = Producer(settings)
    except (KafkaException, ValueError, TypeError) as error:
        raise ConfigError(f"[kafka.client] is refused by the Kafka client: {error}") from error
    _ensure_topics(producer, target)
    return KafkaSender(producer, target)


def _ensure_topics(producer: Producer, target: KafkaTarget) -> None:
    deadline = time.monotonic() + CONNECT_TIMEOUT_SECONDS
    for topic in (target.play_topic, target.browse_topic):
        error = _topic_error(producer, topic, target, deadline)
        # A broker that creates topics on demand has just begun to do so.
        while error and error.code() == KafkaError.LEADER_NOT_AVAILABLE:
            time.sleep(NEW_TOPIC_WAIT_SECONDS)
            error = _topic_error(producer, topic, target, deadline)
        if error:
            raise BrokerUnavailable(
                f"topic {topic} cannot be produced to at {target.bootstrap_servers} "
                f"({error.str()}); `streamer topics create` makes it"
            )


def _topic_error(
    producer: Producer, topic: str, target: KafkaTarget, deadline: float
) -> KafkaError | None:
    """Ask for one topic until `deadline`; None means that it can be produced to."""
    timeout_seconds = max(deadline - time.monotonic(), 0.0)
    try:
        metadata = producer.list_topics(topic, timeout=timeout_seconds)
    except KafkaException as error:
        raise BrokerUnavailable(
            f"no Kafka broker answered at {target.bootstrap_servers} within "
            f"{CONNECT_TIMEOUT_SECONDS:g} s; start one or set [kafka] bootstrap_servers"
        ) from error
    topic_error: KafkaError | None = metadata.topics[topic].error
    return topic_error
