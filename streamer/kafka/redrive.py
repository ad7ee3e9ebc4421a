"""Sending dead letters back to where they came from, and marking those that are there.

A batch of events is delivered first, then a marker beside the letters says so. Killed between the
two, a redrive sends some of them once more, which changes nothing: they are the same evidence.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamer.errors import BrokerUnavailable
from streamer.kafka.client import SILENT_LOGGER, broker_errors, client_settings
from streamer.kafka.dead_letters import NEVER_TAKEN
from streamer.kafka.letters import Letter, marker, next_redrive, redriven_headers
from streamer.pipeline.records import Partition

BATCH_LETTERS: Final = 500
DELIVERY_SECONDS: Final = 20
QUERY_SECONDS: Final = 10.0
ANY_PARTITION: Final = -1


@dataclass(slots=True)
class Outcome:
    """What became of a batch.

    Attributes:
        n_redriven: Letters whose events are safe in their topic, and marked.
        refused: Letters that the topic will not take, by what the broker said.
    """

    n_redriven: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Redriver:
    """A producer of redriven events and of markers; every delivery is waited for."""

    def __init__(
        self, client: Mapping[str, str], bootstrap_servers: str, topics: Sequence[str]
    ) -> None:
        """Connect, and ask how many partitions the topics have.

        Args:
            client: Settings of librdkafka, passed through.
            bootstrap_servers: host:port, comma-separated.
            topics: Where letters may go back to.

        Raises:
            BrokerUnavailable: There is no answer, or a topic is missing.
        """
        self._delivered: set[tuple[Partition, int]] = set()
        self._refused: dict[tuple[Partition, int], str] = {}
        self._failed: KafkaError | None = None
        with broker_errors("creating a producer"):
            self._producer = Producer(
                client_settings(
                    client,
                    bootstrap_servers,
                    {
                        "acks": "all",
                        "enable.idempotence": True,
                        "linger.ms": 5,
                        "message.timeout.ms": DELIVERY_SECONDS * 1000,
                    },
                ),
                logger=SILENT_LOGGER,
            )
            found = self._producer.list_topics(timeout=QUERY_SECONDS).topics
        for topic in topics:
            if topic not in found or found[topic].error is not None:
                raise BrokerUnavailable(f"topic {topic} does not exist", kind="missing_topic")
        self._n_partitions = {topic: len(found[topic].partitions) for topic in topics}

    def redrive(self, letters: Sequence[Letter]) -> Outcome:
        """Send a batch back, wait until it is there, and mark it.

        Each record goes to the partition where it was, with key, value and headers that it had.

        Raises:
            BrokerUnavailable: Not everything was delivered in time. What was, is marked.
        """
        self._delivered.clear()
        self._refused.clear()
        self._failed = None
        for letter in letters:
            self._send(letter)
        self._flush()
        # A broker refuses a batch for one record of it: each of them gets a batch of its own.
        suspects = [letter for letter in letters if _place(letter) in self._refused]
        self._refused.clear()
        for letter in suspects:
            self._send(letter)
            self._flush()
        redriven = [letter for letter in letters if _place(letter) in self._delivered]
        self._mark(redriven)
        if self._failed is not None:
            raise BrokerUnavailable(
                f"redriving: {self._failed.str()}; repeat it", kind=self._failed.name()
            )
        return Outcome(len(redriven), Counter(self._refused.values()))

    def _send(self, letter: Letter) -> None:
        redriven = next_redrive(letter)
        n_partitions = self._n_partitions[letter.place.topic]
        place = _place(letter)

        def on_delivery(error: KafkaError | None, _: Message | None) -> None:
            if error is None:
                self._delivered.add(place)
            elif error.code() in NEVER_TAKEN:
                self._refused[place] = error.str()
            else:
                self._failed = error

        while True:
            try:
                self._producer.produce(
                    letter.place.topic,
                    key=letter.record.key,
                    value=letter.record.value,
                    # Where the viewer's other events are, whatever partitioner put them there.
                    partition=(
                        letter.place.number if letter.place.number < n_partitions else ANY_PARTITION
                    ),
                    headers=[*letter.headers, *redriven_headers(redriven)],
                    timestamp=max(redriven.timestamp_ms, 0),  # 0: the present
                    on_delivery=on_delivery,
                )
            except BufferError:
                self._producer.poll(0.1)  # this ends: no message stays longer than its time-out
            except KafkaException as exception:
                on_delivery(exception.args[0], None)
                return
            else:
                return

    def _mark(self, letters: Sequence[Letter]) -> None:
        """Say beside the letters that they were redriven."""
        offsets: dict[Partition, list[int]] = {}
        for letter in letters:
            offsets.setdefault(letter.record.partition, []).append(letter.record.offset)

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            self._failed = self._failed or error

        for partition, of_partition in offsets.items():
            headers, value = marker(of_partition)
            with broker_errors("marking redriven letters"):
                self._producer.produce(
                    partition.topic,
                    partition=partition.number,
                    value=value,
                    headers=list(headers),
                    on_delivery=on_delivery,
                )
        self._flush()

    def _flush(self) -> None:
        """Wait for every report; what has none in time is given up, which is reported too."""
        deadline = time.monotonic() + 2 * DELIVERY_SECONDS
        while self._producer.flush(1.0):
            if time.monotonic() > deadline:
                self._producer.purge()


def _place(letter: Letter) -> tuple[Partition, int]:
    return letter.record.partition, letter.record.offset
