"""Dead letters: rejected records, kept with their reason so that they can be sent again.

A letter has the original key, value, headers and time, and headers `reason`, `topic`, `partition`
and `offset`. Where key and headers are too large beside the value, the larger of them is left out,
or both, and a header says so. A value that is too large is kept as its SHA-256 and its size; so is
what the broker refuses for good, which is dated now, with its time in `timestamp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamer.errors import BrokerUnavailable, RestartNeeded
from streamer.events import MAX_VALUE_BYTES
from streamer.kafka.client import SILENT_LOGGER, broker_errors, client_settings
from streamer.pipeline.records import Partition, Record, Rejected

MAX_LETTER_BYTES: Final = 2 * MAX_VALUE_BYTES
"""Of value, key and headers together; a letter must never be too large for the broker."""
_HEADER_BYTES: Final = 8
"""What a header takes beside its name and value, at most and about."""
_DROPPED: Final = b"too large"


NEVER_TAKEN: Final = frozenset(
    {
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
    }
)
"""Verdicts on the letter itself: sending it again would hold the stream for ever.

Or on another one of its batch, which the broker refuses as a whole: so it is sent again alone.
"""


class KafkaDeadLetters:
    """A producer of dead letters; at least once, and never counted before it is safe."""

    def __init__(self, client: Mapping[str, str], bootstrap_servers: str, suffix: str) -> None:
        """Connect in the background.

        Args:
            client: Settings of librdkafka, passed through.
            bootstrap_servers: host:port, comma-separated.
            suffix: Appended to a record's topic.
        """
        self._suffix = suffix
        self._n_pending = 0
        self._n_together = 0
        """Letters on their way since the last time when there was none."""
        self._suspects: list[Rejected] = []
        """Letters whose batch the broker will never take, perhaps because of another one."""
        self._failed: list[Rejected] = []
        self._to_repeat: list[Rejected] = []
        """Letters that the next call sends again."""
        self._reduced: set[tuple[Partition, int]] = set()
        """Letters that the broker will never take whole: sent as hash and size, dated now."""
        self._last_error = ""
        self._has_failed_for_good = False
        with broker_errors("creating a producer"):
            self._producer = Producer(
                client_settings(
                    client,
                    bootstrap_servers,
                    {"acks": "all", "enable.idempotence": True, "linger.ms": 5},
                ),
                logger=SILENT_LOGGER,
            )

    def send(self, rejected: Sequence[Rejected]) -> None:
        """Hand letters to the producer."""
        for letter in rejected:
            self._send_one(letter)

    def is_delivered(self, timeout_seconds: float) -> bool:
        """Wait for delivery reports; true when every letter sent so far is safe.

        Raises:
            BrokerUnavailable: Some were refused; the next call sends them again.
            RestartNeeded: This producer will never deliver again.
        """
        again, self._to_repeat = self._to_repeat, []
        self.send(again)
        if self._suspects and not self._n_pending:
            self._send_one(self._suspects.pop())
        if self._n_pending:
            self._producer.flush(timeout_seconds)
        if self._has_failed_for_good:
            raise RestartNeeded(f"Kafka: the producer of dead letters failed: {self._last_error}")
        if self._failed or self._to_repeat:
            self._to_repeat += self._failed
            self._failed = []
            raise BrokerUnavailable(
                f"{len(self._to_repeat)} dead letters were refused: {self._last_error}",
                kind="dead_letter",
            )
        return self._n_pending == 0 and not self._suspects

    def close(self) -> None:
        """Give up what is still under way; its records are not acknowledged and come again."""
        self._producer.purge()
        self._producer.poll(0)

    def _refused(self, letter: Rejected, error: KafkaError, *, is_alone: bool) -> None:
        self._last_error = error.str()
        is_final = error.code() in NEVER_TAKEN
        if is_final and is_alone:
            self._reduced.add((letter.record.partition, letter.record.offset))
        if is_final and not is_alone:
            self._suspects.append(letter)
        else:
            self._failed.append(letter)
        self._has_failed_for_good |= error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001

    def _send_one(self, letter: Rejected) -> None:
        record = letter.record
        is_reduced = (record.partition, record.offset) in self._reduced
        key, value, headers = (None, _stand_in(record), []) if is_reduced else _kept(record)

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            self._n_pending -= 1
            if error is not None:
                self._refused(letter, error, is_alone=self._n_together == 1)
            else:
                self._reduced.discard((record.partition, record.offset))

        try:
            self._producer.produce(
                record.partition.topic + self._suffix,
                key=key,
                value=value,
                headers=[
                    *headers,
                    *_headers(letter),
                    *([("timestamp", b"%d" % record.timestamp_ms)] if is_reduced else []),
                ],
                timestamp=0 if is_reduced else max(record.timestamp_ms, 0),  # 0: the present
                on_delivery=on_delivery,
            )
        except BufferError:
            self._last_error = "the producer's queue is full"
            self._to_repeat.append(letter)
        except KafkaException as exception:
            self._refused(letter, exception.args[0], is_alone=True)
        else:
            self._n_together = self._n_together + 1 if self._n_pending else 1
            self._n_pending += 1


def _headers(letter: Rejected) -> list[tuple[str, bytes]]:
    record = letter.record
    return [
        ("reason", letter.reason.encode()),
        ("topic", record.partition.topic.encode()),
        ("partition", str(record.partition.number).encode()),
        ("offset", str(record.offset).encode()),
    ]


_Content = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def _kept(record: Record) -> _Content:
    """Return the key, value and headers that a letter has room for."""
    key, value, headers = record.key, record.value, list(record.headers)
    if len(value or b"") > MAX_VALUE_BYTES:
        return None, _stand_in(record), []
    room = MAX_LETTER_BYTES - len(value or b"")
    key_bytes, headers_bytes = len(key or b""), _size(headers)
    is_key_dropped = key_bytes + headers_bytes > room and (
        key_bytes > headers_bytes or key_bytes > room
    )
    if headers_bytes + (0 if is_key_dropped else key_bytes) > room:
        headers = [("headers_dropped", _DROPPED)]
    if is_key_dropped:
        key, headers = None, [*headers, ("key_dropped", _DROPPED)]
    return key, value, headers


def _size(headers: Sequence[tuple[str, bytes | None]]) -> int:
    return sum(len(name.encode()) + len(value or b"") + _HEADER_BYTES for name, value in headers)


def _stand_in(record: Record) -> bytes:
    value = record.value or b""
    return b'{"sha256":"%s","size":%d}' % (sha256(value).hexdigest().encode(), len(value))
