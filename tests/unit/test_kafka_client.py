"""What librdkafka hands out, as records; the message is a stand-in with its own manners."""

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME

from streamer.kafka.client import record_of
from streamer.pipeline.records import Partition


class StandIn:
    """A message without an error."""

    def __init__(self, headers=None, timestamp_type=TIMESTAMP_LOG_APPEND_TIME):
        self._headers = headers
        self._timestamp_type = timestamp_type
        self.n_asked_for_headers = 0

    def topic(self):
        return "play-events"

    def partition(self):
        return 3

    def offset(self):
        return 7

    def timestamp(self):
        return self._timestamp_type, 1_763_900_000_123

    def key(self):
        return b"ann"

    def value(self):
        return None

    def headers(self):
        self.n_asked_for_headers += 1
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers


def test_a_message_is_a_record():
    record = record_of(StandIn([("trace", b"abc"), ("empty", None)]))
    assert record.partition == Partition("play-events", 3)
    assert (record.offset, record.timestamp_ms) == (7, 1_763_900_000_123)
    assert (record.key, record.value) == (b"ann", None)
    assert record.headers == (("trace", b"abc"), ("empty", None))


def test_a_header_name_that_is_not_utf8_is_dropped_and_never_asked_for_again():
    """The client raises once, and hands out null pointers when it is asked a second time."""
    message = StandIn(SystemError("returned a result with an exception set"))
    assert record_of(message).headers == (("headers_dropped", b"a name is not UTF-8"),)
    assert message.n_asked_for_headers == 1


def test_only_the_brokers_own_time_is_an_append_time():
    assert record_of(StandIn()).is_append_time
    assert not record_of(StandIn(timestamp_type=TIMESTAMP_CREATE_TIME)).is_append_time
