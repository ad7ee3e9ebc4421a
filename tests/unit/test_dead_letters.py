import json
from hashlib import sha256

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamer.errors import BrokerUnavailable, StreamerError
from streamer.events import MAX_VALUE_BYTES, RejectReason
from streamer.kafka import dead_letters
from streamer.kafka.dead_letters import KafkaDeadLetters
from streamer.pipeline.records import Partition, Record, Rejected

PLAYS = Partition("play-events", 3)
REFUSED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)


class FakeProducer:
    """Takes letters, and reports on them when it is flushed.

    Attributes:
        sent: Arguments of every accepted letter, in order.
        fates: What the next reports say; None and the end of the list are a success.
        raises: What the next calls of `produce` raise; None accepts.
        is_stuck: Reports do not come.
        reports_a_flush: At most so many reports come with one flush.
    """

    def __init__(self, settings, **_):
        self.settings = settings
        self.sent, self.fates, self.raises, self.waiting = [], [], [], []
        self.is_stuck = False
        self.reports_a_flush = 1000

    def produce(self, topic, *, on_delivery, **letter):
        error = self.raises.pop(0) if self.raises else None
        if error is not None:
            raise error
        self.sent.append({"topic": topic, **letter})
        self.waiting.append(on_delivery)

    def flush(self, timeout):
        if self.is_stuck:
            return len(self.waiting)
        waiting = self.waiting[: self.reports_a_flush]
        self.waiting = self.waiting[self.reports_a_flush :]
        for on_delivery in waiting:
            on_delivery(self.fates.pop(0) if self.fates else None, None)
        return len(self.waiting)

    def purge(self):
        purged = KafkaError(KafkaError._PURGE_QUEUE)
        waiting, self.waiting = self.waiting, []
        for on_delivery in waiting:
            on_delivery(purged, None)

    def poll(self, timeout):
        return 0


@pytest.fixture
def letters(monkeypatch):
    monkeypatch.setattr(dead_letters, "Producer", FakeProducer)
    return KafkaDeadLetters({"client.id": "me"}, "localhost:1", ".dlq")


def rejected(value=b"bad", offset=7, **more):
    record = Record(PLAYS, offset, 1_763_900_000_123, b"viewer", value, ())
    return Rejected(record._replace(**more), RejectReason.NOT_JSON)


def headers_of(sent):
    return dict(sent["headers"])


def test_a_letter_is_the_record_with_its_reason_and_its_place(letters):
    letters.send([rejected(headers=(("trace", b"abc"), ("empty", None)))])
    assert letters.is_delivered(0.1)
    (sent,) = letters._producer.sent
    assert sent["topic"] == "play-events.dlq"
    assert (sent["key"], sent["value"]) == (b"viewer", b"bad")
    assert sent["timestamp"] == 1_763_900_000_123
    assert sent["headers"] == [
        ("trace", b"abc"),
        ("empty", None),
        ("reason", b"not_json"),
        ("topic", b"play-events"),
        ("partition", b"3"),
        ("offset", b"7"),
    ]


def test_a_record_without_key_value_or_time_is_kept_as_it_is(letters):
    letters.send([rejected(None, key=None, timestamp_ms=-1)])
    assert letters.is_delivered(0.1)
    (sent,) = letters._producer.sent
    assert (sent["key"], sent["value"], sent["timestamp"]) == (None, None, 0)


def test_letters_are_acknowledged_by_all_replicas_and_never_doubled_by_the_client(letters):
    settings = letters._producer.settings
    assert settings["acks"] == "all"
    assert settings["enable.idempotence"] is True
    assert settings["client.id"] == "me"


def test_a_value_that_is_too_large_is_kept_as_hash_and_size(letters):
    letter = rejected(b"x" * (MAX_VALUE_BYTES + 1), headers=(("trace", b"abc"),))
    letters.send([letter])
    (sent,) = letters._producer.sent
    assert json.loads(sent["value"]) == {
        "sha256": sha256(letter.record.value).hexdigest(),
        "size": len(letter.record.value),
    }
    assert sent["key"] is None
    assert headers_of(sent).keys() == {"reason", "topic", "partition", "offset"}


LARGE, HUGE = b"x" * MAX_VALUE_BYTES, b"x" * (2 * MAX_VALUE_BYTES)
OURS = ["reason", "topic", "partition", "offset"]


@pytest.mark.parametrize(
    ("key", "headers", "kept_key", "kept_names"),
    [
        (HUGE, [("h", b"1")], None, ["h", "key_dropped"]),
        (b"k", [("h", HUGE)], b"k", ["headers_dropped"]),
        (HUGE, [("h", HUGE)], None, ["headers_dropped", "key_dropped"]),
        (LARGE, [("h", LARGE)], LARGE, ["headers_dropped"]),
        (LARGE + b"x" * 40, [("h", LARGE[:-20])], None, ["h", "key_dropped"]),
        (None, [("", None)] * 20_000, None, ["headers_dropped"]),
        (None, [("é" * MAX_VALUE_BYTES, None)], None, ["headers_dropped"]),
    ],
    ids=["key", "headers", "each", "both", "key is the larger", "many", "characters"],
)
def test_key_or_headers_that_are_too_large_do_not_cost_the_value(
    letters, key, headers, kept_key, kept_names
):
    letters.send([rejected(b"bad", key=key, headers=headers)])
    (sent,) = letters._producer.sent
    assert (sent["key"], sent["value"]) == (kept_key, b"bad")
    assert [name for name, _ in sent["headers"]] == kept_names + OURS


def test_a_value_of_exactly_64_kib_is_kept_whole(letters):
    value = b"x" * MAX_VALUE_BYTES
    letters.send([rejected(value)])
    assert letters._producer.sent[0]["value"] == value


def test_nothing_sent_is_delivered_at_once(letters):
    letters._producer.is_stuck = True
    assert letters.is_delivered(0.0)


def test_a_letter_without_a_report_is_not_delivered(letters):
    letters._producer.is_stuck = True
    letters.send([rejected()])
    assert not letters.is_delivered(0.1)
    assert not letters.is_delivered(0.1)
    letters._producer.is_stuck = False
    assert letters.is_delivered(0.1)


def test_letters_are_delivered_when_the_last_report_has_come(letters):
    letters._producer.reports_a_flush = 2
    letters.send([rejected(offset=offset) for offset in (1, 2, 3)])
    assert not letters.is_delivered(0.1)
    assert letters.is_delivered(0.1)


def test_refused_letters_are_said_and_sent_again_until_all_are_safe(letters):
    letters._producer.fates = [None, REFUSED, REFUSED]
    letters.send([rejected(offset=offset) for offset in (1, 2, 3)])
    with pytest.raises(BrokerUnavailable, match="2 dead letters were refused") as caught:
        letters.is_delivered(0.1)
    assert caught.value.kind == "dead_letter"
    letters._producer.fates = [REFUSED, None]
    with pytest.raises(BrokerUnavailable, match="1 dead letters were refused"):
        letters.is_delivered(0.1)
    assert letters.is_delivered(0.1)
    offsets = [headers_of(sent)["offset"] for sent in letters._producer.sent]
    assert offsets == [b"1", b"2", b"3", b"2", b"3", b"2"]


def deliver(letters):
    """Ask until everything is delivered; return what was said meanwhile."""
    said = []
    for _ in range(5):
        try:
            if letters.is_delivered(0.1):
                return said
        except BrokerUnavailable as error:
            said.append(str(error))
    return pytest.fail(f"never delivered: {said}")


def test_letters_that_the_full_queue_did_not_take_are_sent_again_until_it_does(letters):
    letters._producer.raises = [BufferError("queue full"), None, BufferError("queue full")]
    letters.send([rejected(offset=1), rejected(offset=2)])
    said = deliver(letters)
    assert all("queue is full" in each for each in said)
    offsets = [headers_of(sent)["offset"] for sent in letters._producer.sent]
    assert offsets == [b"2", b"1"]


@pytest.mark.parametrize("code", [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._UNKNOWN_TOPIC])
def test_a_letter_that_the_client_will_not_take_is_refused_and_sent_again(letters, code):
    letters._producer.raises = [KafkaException(KafkaError(code))] * 3
    letters.send([rejected(offset=1), rejected(offset=2)])
    said = deliver(letters)
    assert said
    assert all("dead letters were refused" in each for each in said)
    offsets = [headers_of(sent)["offset"] for sent in letters._producer.sent]
    assert sorted(offsets) == [b"1", b"2"]


def test_a_producer_that_has_failed_for_good_is_an_error_of_ours(letters):
    letters._producer.raises = [KafkaException(KafkaError(KafkaError._FATAL))] * 2

    def bury():
        letters.send([rejected()])
        letters.is_delivered(0.1)

    with pytest.raises(StreamerError):
        bury()


def test_what_an_error_says_names_neither_key_nor_value(letters):
    letters._producer.fates = [REFUSED]
    letters.send([rejected(b"the value")])
    with pytest.raises(BrokerUnavailable) as caught:
        letters.is_delivered(0.1)
    assert "viewer" not in str(caught.value)
    assert "the value" not in str(caught.value)


def test_closing_gives_up_what_is_under_way(letters):
    letters._producer.is_stuck = True
    letters.send([rejected()])
    letters.close()
    assert letters._producer.waiting == []


@pytest.mark.parametrize(
    "code", [KafkaError.INVALID_TIMESTAMP, KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD]
)
def test_a_letter_that_the_broker_never_takes_is_sent_as_hash_and_size_dated_now(letters, code):
    letters._producer.fates = [KafkaError(code)]
    letters.send([rejected()])
    with pytest.raises(BrokerUnavailable):
        letters.is_delivered(0.1)
    assert letters.is_delivered(0.1)
    whole, reduced = letters._producer.sent
    assert (whole["value"], whole["timestamp"]) == (b"bad", 1_763_900_000_123)
    assert json.loads(reduced["value"]) == {"sha256": sha256(b"bad").hexdigest(), "size": 3}
    assert reduced["timestamp"] == 0  # what the client takes for the present
    assert headers_of(reduced)["timestamp"] == b"1763900000123"
    letters.send([rejected()])  # nothing is remembered of it
    assert letters.is_delivered(0.1)
    assert letters._producer.sent[-1] == whole


def test_a_letter_that_was_refused_with_its_batch_is_sent_again_alone_and_kept_whole(letters):
    """A broker refuses a batch as a whole: one bad letter must not take the others' values."""
    invalid = KafkaError(KafkaError.INVALID_TIMESTAMP)
    letters._producer.fates = [invalid, invalid, invalid, None, invalid, None]
    letters.send([rejected(offset=offset) for offset in (1, 2, 3)])
    said = deliver(letters)
    assert said == ["1 dead letters were refused: Broker: Invalid timestamp"]
    kept = [(headers_of(s)["offset"], s["value"] == b"bad") for s in letters._producer.sent[3:]]
    assert kept == [(b"3", True), (b"2", True), (b"2", False), (b"1", True)]
