"""What the source makes of a broker's partial answers; consumer and broker are stand-ins."""

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamer.errors import BrokerUnavailable
from streamer.kafka.queries import BrokerQueries
from streamer.kafka.source import KafkaSource
from streamer.pipeline.ports import Standing
from streamer.pipeline.records import Partition

P0, P1 = Partition("play-events", 0), Partition("play-events", 1)
NOBODY = "127.0.0.1:9"


@pytest.fixture
def source():
    source = KafkaSource({}, NOBODY, "group", ["play-events"], "auto")
    source._broker = SimpleNamespace(ask_earliest=lambda partitions: lambda: {P0: 3, P1: 4})
    return source


def answer(*offsets_and_errors):
    """Return a consumer that answers so when it is asked for committed offsets."""
    found = [
        SimpleNamespace(topic="play-events", partition=number, offset=offset, error=error)
        for number, (offset, error) in enumerate(offsets_and_errors)
    ]
    return SimpleNamespace(committed=lambda partitions, timeout: found)


def test_a_partition_whose_commit_cannot_be_told_is_left_out_and_never_without_a_commit(source):
    """Without a commit it would be read from its beginning."""
    failed = KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT)
    source._consumer = answer((-1001, failed), (50, None))
    assert source.standings([P0, P1]) == {P1: Standing(50, 4)}


def test_a_partition_without_a_commit_has_none(source):
    source._consumer = answer((-1001, None), (0, None))
    assert source.standings([P0, P1]) == {P0: Standing(None, 3), P1: Standing(0, 4)}


def test_a_broker_that_does_not_answer_is_unavailable(source):
    def committed(partitions, timeout):
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    source._consumer = SimpleNamespace(committed=committed)
    with pytest.raises(BrokerUnavailable):
        source.standings([P0])


class Answered:
    """A question that has been answered."""

    def __init__(self, answer):
        self._answer = answer

    def done(self):
        return True

    def exception(self):
        return self._answer if isinstance(self._answer, Exception) else None

    def result(self):
        return self._answer


def error(code):
    return KafkaException(KafkaError(code))


@pytest.fixture
def queries():
    return BrokerQueries({}, NOBODY, ["play-events", "browse-events"])


def told(queries, **answers):
    queries._asked = {name.replace("_", "-"): Answered(each) for name, each in answers.items()}
    queries.topic_ids()
    return queries.missing


def test_topics_that_do_not_exist_are_missing_until_they_do(queries):
    there = SimpleNamespace(topic_id="dyaXjV-zRQqJqxzkBfDVWA")
    unknown = error(KafkaError.UNKNOWN_TOPIC_OR_PART)
    assert told(queries, play_events=there, browse_events=unknown) == {"browse-events"}
    # No answer is no news.
    assert told(queries, browse_events=error(KafkaError._TIMED_OUT)) == {"browse-events"}
    assert told(queries, browse_events=there) == frozenset()
    assert told(queries, play_events=error(KafkaError._TIMED_OUT)) == frozenset()
    assert told(queries, play_events=unknown) == {"play-events"}  # it was deleted


class Delivered:
    """A message of the client."""

    def __init__(self, offset):
        self._offset = offset

    def error(self):
        return None

    def topic(self):
        return "play-events"

    def partition(self):
        return 0

    def offset(self):
        return self._offset

    def timestamp(self):
        return 2, 1000 + self._offset

    def key(self):
        return None

    def value(self):
        return b"value"

    def headers(self):
        return None


class Listening:
    """Remembers what it was told."""

    def __init__(self):
        self.assigned, self.errors = [], []

    def on_assigned(self, partitions):
        self.assigned += partitions

    def on_error(self, code, *, is_fatal):
        self.errors.append((code, is_fatal))


def failing(*_):
    raise KafkaException(KafkaError(KafkaError._STATE))


def test_a_record_that_was_taken_is_kept_although_the_call_for_the_rest_fails(source):
    """The client is past it: thrown away, it would never come again."""
    rests = iter([[], failing, [Delivered(8)]])

    def consume(max_records, timeout):
        rest = next(rests)
        return rest() if callable(rest) else rest

    source._consumer = SimpleNamespace(consume=consume, poll=lambda timeout: Delivered(7))
    with pytest.raises(BrokerUnavailable):
        source.poll(100, 0.2)
    assert [record.offset for record in source.poll(100, 0.2)] == [7]
    assert [record.offset for record in source.poll(100, 0.2)] == [8]


def assigned(source, **consumer):
    source._listener = listener = Listening()
    source._consumer = SimpleNamespace(**consumer)
    place = SimpleNamespace(topic="play-events", partition=0)
    source._on_assign(source._consumer, [place])
    return listener


def test_a_partition_that_the_client_cannot_take_ends_the_process_and_raises_nothing(source):
    """Raised inside of the client's callback, it would cost the records of that call."""
    listener = assigned(source, incremental_assign=failing)
    assert listener.errors == [("_STATE", True)]
    assert listener.assigned == []
    assert source.owned == frozenset()


def test_a_partition_that_cannot_be_paused_is_told_all_the_same(source):
    listener = assigned(source, incremental_assign=lambda _: None, pause=failing)
    assert listener.assigned == [P0]
    assert listener.errors == []
