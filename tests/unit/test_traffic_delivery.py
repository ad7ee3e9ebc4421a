"""Pacing, back-pressure and what is counted, on a fake clock and a fake producer."""

from __future__ import annotations

import io

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamer.dev import kafka_producer
from streamer.dev.delivery import TICK_SECONDS, Clock, Watch, deliver_live, write_lines
from streamer.dev.kafka_producer import KafkaSender, KafkaTarget, connect_sender
from streamer.dev.traffic import generate
from streamer.dev.traffic_plan import Disturbances, plan_live
from streamer.errors import BrokerUnavailable, ConfigError

START_MS = 1_763_900_000_000
TARGET = KafkaTarget("broker:9092", "plays", "browsing")


class FakeTime:
    def __init__(self):
        self.seconds = 100.0

    @property
    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.seconds, sleep=self.sleep)

    def sleep(self, seconds):
        self.seconds += seconds


class FakeSender:
    """Notes when each record came; stalls and refuses on request."""

    def __init__(self, time, refusals=0, stall_at=None):
        self.time, self.refusals, self.stall_at = time, refusals, stall_at
        self.sent, self.n_failed, self.first_error = [], 0, ""
        self.drain_seconds = 0.0

    @property
    def n_delivered(self):
        return len(self.sent) - self.n_failed

    def send(self, record):
        if self.refusals:
            self.refusals -= 1
            return False
        self.sent.append((self.time.seconds - 100.0, record))
        if len(self.sent) == self.stall_at:
            self.time.seconds += 1.5
        return True

    def serve(self, timeout_seconds):
        self.time.seconds += timeout_seconds

    def drain(self, timeout_seconds):
        self.drain_seconds = timeout_seconds


def plan(n_records=3_000, rate_per_s=1_000.0, **shares):
    return plan_live(
        n_records, rate_per_s=rate_per_s, start_ms=START_MS, disturbances=Disturbances(**shares)
    )


def test_records_are_sent_within_a_tick_of_their_date_and_never_before_it():
    time = FakeTime()
    sender = FakeSender(time)
    tally = deliver_live(plan(), sender, clock=time.clock)
    for sent_at, record in sender.sent:
        assert -1e-6 <= sent_at - (record.event_time_ms - START_MS) / 1_000 <= TICK_SECONDS + 0.002
    assert tally.seconds == pytest.approx(3.0, abs=0.01)
    assert sender.drain_seconds > 30  # longer than a record may take to be given up


def test_a_producer_that_stalled_catches_up():
    time = FakeTime()
    sender = FakeSender(time, stall_at=500)
    tally = deliver_live(plan(), sender, clock=time.clock)
    assert [record for _, record in sender.sent] == list(generate(plan()))
    assert tally.seconds == pytest.approx(3.0, abs=0.01)


def test_a_full_queue_delays_a_record_and_loses_none():
    time = FakeTime()
    sender = FakeSender(time, refusals=7)
    tally = deliver_live(plan(), sender, clock=time.clock)
    assert tally.produced == len(sender.sent) == 3_000


def test_a_delivery_that_is_told_to_stop_still_waits_for_its_reports():
    time = FakeTime()
    sender = FakeSender(time)
    watch = Watch(should_stop=lambda: len(sender.sent) > 1_000)
    tally = deliver_live(plan(), sender, watch, time.clock)
    assert 1_000 < tally.produced < 1_010
    assert 0 < sender.drain_seconds <= 5


def test_a_delivery_with_a_full_queue_stops_when_told_to():
    time = FakeTime()
    sender = FakeSender(time, refusals=10**9)
    watch = Watch(should_stop=lambda: time.seconds > 102.0)
    tally = deliver_live(plan(), sender, watch, time.clock)
    assert tally.n_sent == 0
    assert tally.seconds == pytest.approx(2.0, abs=0.1)


def test_records_are_counted_by_topic_and_label():
    time = FakeTime()
    shares = {"late_share": 0.1, "duplicate_share": 0.1, "malformed_share": 0.1}
    records = list(generate(plan(**shares)))
    tally = deliver_live(plan(**shares), FakeSender(time), clock=time.clock)
    assert tally.play == sum(record.topic == "play" for record in records)
    assert tally.browse == sum(record.topic == "browse" for record in records)
    assert tally.late == sum(record.label == "late" for record in records)
    assert tally.duplicates == sum(record.label == "duplicate" for record in records)
    assert tally.malformed == sum(record.label == "malformed" for record in records)


def test_progress_is_reported_until_the_last_record():
    time, progress = FakeTime(), []
    deliver_live(plan(), FakeSender(time), Watch(on_progress=progress.append), time.clock)
    assert progress == sorted(progress)
    assert progress[-1] == 3_000


def test_lines_are_the_values_in_order():
    file = io.BytesIO()
    tally = write_lines(generate(plan()), file)
    assert file.getvalue().splitlines() == [record.value for record in generate(plan())]
    assert tally.produced == 3_000


def test_writing_lines_stops_when_told_to():
    file = io.BytesIO()
    tally = write_lines(generate(plan()), file, Watch(should_stop=lambda: file.tell() > 0))
    assert tally.produced == 1_000 == file.getvalue().count(b"\n")


class FakeProducer:
    """Stands for confluent_kafka.Producer: reports what `poll` or `flush` is called for."""

    def __init__(self, settings=None, error=None, stuck=0):
        self.settings, self.error, self.stuck = settings, error, stuck
        self.produced, self.reports, self.raises = [], [], None

    def produce(self, topic, *, value, key, on_delivery):
        if self.raises:
            raise self.raises
        self.produced.append((topic, key, value))
        self.reports.append(on_delivery)

    def poll(self, timeout):
        while self.reports:
            self.reports.pop(0)(self.error, None)

    def flush(self, timeout):
        self.poll(timeout)
        return self.stuck


def test_records_go_to_the_topic_of_their_kind_under_their_key():
    producer = FakeProducer()
    sender = KafkaSender(producer, TARGET)
    records = list(generate(plan(200)))
    assert all(sender.send(record) for record in records)
    topics = {"play": "plays", "browse": "browsing"}
    assert producer.produced == [(topics[r.topic], r.key, r.value) for r in records]
    sender.serve(0.0)
    assert (sender.n_delivered, sender.n_failed) == (200, 0)


def test_a_failed_delivery_is_counted_with_its_reason():
    sender = KafkaSender(FakeProducer(error=KafkaError(KafkaError._MSG_TIMED_OUT)), TARGET)
    for record in generate(plan(3)):
        sender.send(record)
    sender.drain(1.0)
    assert (sender.n_delivered, sender.n_failed) == (0, 3)
    assert "timed out" in sender.first_error


def test_records_without_a_report_count_as_failed():
    sender = KafkaSender(FakeProducer(stuck=5), TARGET)
    sender.drain(0.0)
    assert sender.n_failed == 5
    assert "no delivery report" in sender.first_error


def test_a_full_client_queue_is_told_apart_from_a_broken_client():
    producer = FakeProducer()
    sender = KafkaSender(producer, TARGET)
    record = next(generate(plan(1)))
    producer.raises = BufferError("Local: Queue full")
    assert not sender.send(record)
    producer.raises = KafkaException(KafkaError(KafkaError._FATAL))
    with pytest.raises(BrokerUnavailable, match="takes no more records"):
        sender.send(record)


class Topic:
    def __init__(self, error):
        self.error = error


def connectable(monkeypatch, answers):
    """Let `connect_sender` find a broker that answers each question for a topic in turn."""
    producers = []

    class Connecting(FakeProducer):
        def list_topics(self, topic, timeout):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            error = None if answer is None else KafkaError(answer)
            return type("Metadata", (), {"topics": {topic: Topic(error)}})()

    def create(settings):
        producers.append(Connecting(settings))
        return producers[-1]

    monkeypatch.setattr(kafka_producer, "Producer", create)
    monkeypatch.setattr(kafka_producer, "NEW_TOPIC_WAIT_SECONDS", 0.0)
    return producers


def test_records_are_produced_idempotently_unless_the_operator_says_otherwise(monkeypatch):
    producers = connectable(monkeypatch, [None] * 4)
    connect_sender(TARGET)
    assert producers[0].settings["acks"] == "all"
    assert producers[0].settings["enable.idempotence"] == "true"
    client = {"enable.idempotence": "false", "bootstrap.servers": "elsewhere:1"}
    connect_sender(KafkaTarget("broker:9092", "plays", "browsing", client))
    assert producers[1].settings["enable.idempotence"] == "false"
    assert producers[1].settings["bootstrap.servers"] == "broker:9092"


def test_a_topic_that_is_just_being_created_is_waited_for(monkeypatch):
    answers = [KafkaError.LEADER_NOT_AVAILABLE, None, None]
    connectable(monkeypatch, answers)
    connect_sender(TARGET)
    assert answers == []


def test_a_missing_topic_is_named_with_the_command_that_makes_it(monkeypatch):
    connectable(monkeypatch, [None, KafkaError.UNKNOWN_TOPIC_OR_PART])
    with pytest.raises(BrokerUnavailable, match=r"topic browsing .*streamer topics create"):
        connect_sender(TARGET)


def test_a_broker_that_does_not_answer_is_named(monkeypatch):
    connectable(monkeypatch, [KafkaException(KafkaError(KafkaError._TRANSPORT))])
    with pytest.raises(BrokerUnavailable, match="broker:9092"):
        connect_sender(TARGET)


def test_a_setting_that_the_client_does_not_know_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"no\.such\.setting"):
        connect_sender(KafkaTarget("broker:9092", "plays", "browsing", {"no.such.setting": "1"}))
