from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException
from unit.test_runtime_fakes import FakeClock, capture_log

from streamer.errors import BrokerUnavailable, ConfigError, StoreUnavailable
from streamer.metrics import WorkerMetrics
from streamer.runtime.observer import LoopObserver
from streamer.runtime.startup import Startup, ensure_topics


class Bench:
    def __init__(self, monkeypatch):
        self.clock = FakeClock()
        monkeypatch.setattr("streamer.runtime.startup.time", self.clock)
        self.log, self.said = capture_log()
        self.observer = LoopObserver(WorkerMetrics(["play-events"], ["default"]), self.log)
        self.is_stopping = False

    def startup(self, timeout_seconds):
        return Startup(timeout_seconds, lambda: self.is_stopping, self.observer, self.log)


@pytest.fixture
def bench(monkeypatch):
    return Bench(monkeypatch)


def failing(n_times, error=StoreUnavailable, then=None):
    """Return a check that fails so often, and the list of its calls."""
    calls = []

    def check():
        calls.append(len(calls))
        if len(calls) <= n_times:
            raise error("not yet")
        if then is not None:
            then()

    return check, calls


def test_what_is_there_is_asked_once(bench):
    check, calls = failing(0)
    bench.startup(8.0).wait_for(check)
    assert len(calls) == 1
    assert bench.clock.slept == []
    assert bench.said == []


def test_what_comes_in_time_is_waited_for(bench):
    check, calls = failing(5)
    bench.startup(8.0).wait_for(check)
    assert len(calls) == 6
    assert [entry["event"] for entry in bench.said] == ["retrying"]


def test_what_does_not_come_in_time_is_unavailable(bench):
    check, _ = failing(10_000)
    with pytest.raises(StoreUnavailable, match="not yet"):
        bench.startup(8.0).wait_for(check)
    assert 8.0 <= bench.clock.now - 1000.0 <= 8.5


def test_the_time_is_of_all_waits_together(bench):
    startup = bench.startup(8.0)
    startup.wait_for(failing(10)[0])
    with pytest.raises(BrokerUnavailable):
        startup.wait_for(failing(10_000, BrokerUnavailable)[0])
    assert 8.0 <= bench.clock.now - 1000.0 <= 8.5


def test_without_a_limit_it_waits_as_long_as_it_takes(bench):
    check, calls = failing(5000)
    bench.startup(None).wait_for(check)
    assert len(calls) == 5001


def test_a_process_that_is_asked_to_stop_waits_no_longer(bench):
    check, calls = failing(10_000)

    def third_time_stopping():
        bench.is_stopping = len(calls) == 2
        check()

    bench.startup(None).wait_for(third_time_stopping)
    assert len(calls) == 3


def test_a_mistake_in_the_configuration_is_not_waited_for(bench):
    check, calls = failing(10_000, ConfigError)
    with pytest.raises(ConfigError):
        bench.startup(None).wait_for(check)
    assert len(calls) == 1


class FakeAdmin:
    """A broker that has all topics, and answers so often before it goes away."""

    def __init__(self, n_answers, topics=("play", "browse", "play.dlq", "browse.dlq")):
        self.n_answers = n_answers
        self.topics = dict.fromkeys(topics)

    def list_topics(self, timeout):
        if self.n_answers == 0:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        self.n_answers -= 1
        return SimpleNamespace(topics=self.topics, brokers={1: None})

    def poll(self, timeout):
        return 0


def test_a_broker_that_has_all_topics_is_asked_to_create_none(bench):
    assert ensure_topics(FakeAdmin(2), ["play", "browse"], ".dlq", bench.log) == frozenset()
    assert bench.said == []


def test_event_topics_that_do_not_exist_are_said_and_returned(bench):
    admin = FakeAdmin(2, ["play", "play.dlq", "browse.dlq"])
    assert ensure_topics(admin, ["play", "browse"], ".dlq", bench.log) == {"browse"}
    assert [(entry["event"], entry["topics"]) for entry in bench.said] == [
        ("topics_missing", ["browse"])
    ]


@pytest.mark.parametrize("n_answers", [0, 1])
def test_a_broker_that_goes_away_at_any_moment_is_unavailable(bench, n_answers):
    admin = FakeAdmin(n_answers, ["play", "browse"])
    with pytest.raises(BrokerUnavailable):
        ensure_topics(admin, ["play", "browse"], ".dlq", bench.log)
