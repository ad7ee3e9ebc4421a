import http.client
import json
import socket
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry, Counter
from unit.test_runtime_fakes import PLAYS, FakeClock, capture_log
from waiting import eventually

from streamer.errors import ConfigError
from streamer.metrics import WorkerMetrics, WorkerState
from streamer.runtime.health import (
    LIVE_SECONDS,
    MAX_CLIENTS,
    SILENCE_SECONDS,
    STILL_SECONDS,
    Health,
    HealthServer,
    health_of,
)
from streamer.runtime.observer import LoopObserver

HOST = "127.0.0.1"
WELL = Health(True, True, "running", 0.1, 4)


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr("streamer.runtime.health.time", clock)
    monkeypatch.setattr("streamer.runtime.observer.time", clock)
    return clock


@pytest.fixture
def observer(clock):
    return LoopObserver(WorkerMetrics(["play-events"], ["default"]), capture_log()[0])


@pytest.mark.parametrize(
    ("state", "is_ready"),
    [
        (WorkerState.STARTING, False),
        (WorkerState.IDLE, True),
        (WorkerState.RUNNING, True),
        (WorkerState.HELD, False),
        (WorkerState.DRAINING, False),
    ],
)
def test_a_worker_is_ready_while_it_moves_or_has_nothing_to_do(observer, state, is_ready):
    observer.state(state)
    health = health_of(observer)
    assert health.is_live
    assert health.is_ready is is_ready
    assert health.state == state


def test_a_worker_is_alive_as_long_as_its_loop_turns(observer, clock):
    observer.state(WorkerState.RUNNING)
    observer.turned()
    clock.now += LIVE_SECONDS - 1
    assert health_of(observer).is_live
    clock.now += 1.5
    health = health_of(observer)
    assert not health.is_live
    assert not health.is_ready
    assert health.heartbeat_age_seconds == LIVE_SECONDS + 0.5
    observer.turned()
    assert health_of(observer).is_ready


def test_a_worker_that_waits_for_redis_is_alive_and_not_ready(observer, clock):
    observer.state(WorkerState.HELD)
    for _ in range(600):
        observer.turned()
        clock.now += 1
    assert health_of(observer).is_live
    assert not health_of(observer).is_ready


def test_health_says_how_many_partitions_are_ours(observer):
    observer.rebalanced("assigned", [PLAYS], frozenset({PLAYS}))
    assert health_of(observer).partitions == 1


def test_a_variant_out_of_service_is_told_and_the_worker_is_ready_for_the_stream(observer):
    observer.state(WorkerState.RUNNING)
    health = health_of(observer, out_of_service=lambda: frozenset({"b", "a"}))
    assert health.is_ready
    assert health.variants_out_of_service == ["a", "b"]


@pytest.fixture
def serve():
    servers = []

    def start(health=lambda: WELL):
        registry = CollectorRegistry()
        Counter("streamer_tests", "Tests.", registry=registry).inc()
        servers.append(HealthServer(HOST, 0, registry, health))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def get(server, path):
    connection = http.client.HTTPConnection(HOST, server.port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_one_port_serves_metrics_and_both_probes(serve):
    server = serve()
    assert server.port > 0
    status, body = get(server, "/metrics")
    assert status == 200
    assert b"streamer_tests_total 1.0" in body
    for path in ("/livez", "/readyz"):
        status, body = get(server, path)
        assert status == 200
        assert json.loads(body) == {
            "is_live": True,
            "is_ready": True,
            "state": "running",
            "heartbeat_age_seconds": 0.1,
            "partitions": 4,
            "missing_topics": [],
            "variants_out_of_service": [],
        }


def test_a_probe_that_fails_is_a_503_with_the_reason(serve):
    server = serve(lambda: Health(True, False, "held", 0.2, 4))
    status, body = get(server, "/readyz")
    assert status == 503
    assert json.loads(body)["state"] == "held"
    assert get(server, "/livez")[0] == 200


def test_a_worker_that_is_not_alive_fails_its_liveness_probe(serve):
    server = serve(lambda: Health(False, False, "running", 99.0, 4))
    assert get(server, "/livez")[0] == 503


def test_other_paths_say_what_there_is(serve):
    status, body = get(serve(), "/")
    assert status == 404
    assert b"/metrics, /livez or /readyz" in body


def test_a_client_that_says_nothing_holds_up_nobody(serve):
    server = serve()
    with socket.create_connection((HOST, server.port), timeout=5):
        assert get(server, "/livez")[0] == 200


def test_more_clients_than_there_are_places_are_turned_away(serve):
    server = serve()
    with ExitStack() as held:
        for _ in range(MAX_CLIENTS):
            held.enter_context(socket.create_connection((HOST, server.port), timeout=5))
        late = held.enter_context(socket.create_connection((HOST, server.port), timeout=5))
        assert late.recv(1) == b""  # hung up at once, without a thread of its own
    eventually(lambda: answers(server), 5)


def answers(server):
    try:
        return get(server, "/livez")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_a_client_that_drips_is_hung_up_on(serve, monkeypatch):
    monkeypatch.setattr("streamer.runtime.health.CLIENT_SECONDS", 0.2)
    server = serve()
    with socket.create_connection((HOST, server.port), timeout=5) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        assert client.recv(1) == b""


def test_a_worker_whose_kafka_is_silent_is_not_ready(observer, clock):
    observer.state(WorkerState.IDLE)
    observer.rebalanced("assigned", [PLAYS], frozenset([PLAYS]))
    observer.turned()
    answered_at = clock.now
    clock.now += SILENCE_SECONDS - 1
    observer.turned()
    assert health_of(observer, lambda: answered_at).is_ready
    clock.now += 2
    observer.turned()
    found = health_of(observer, lambda: answered_at)
    assert found.is_live
    assert not found.is_ready


def test_a_worker_one_of_whose_topics_does_not_exist_is_not_ready_and_says_which(observer):
    observer.state(WorkerState.IDLE)
    found = health_of(observer, missing_topics=lambda: {"play-events", "browse-events"})
    assert found.is_live
    assert not found.is_ready
    assert found.missing_topics == ["browse-events", "play-events"]
    assert health_of(observer, missing_topics=frozenset).is_ready


def test_a_loop_that_stands_still_is_not_ready_long_before_it_is_not_alive(observer, clock):
    observer.state(WorkerState.RUNNING)
    observer.turned()
    clock.now += STILL_SECONDS - 1
    assert health_of(observer).is_ready
    clock.now += 1
    assert not health_of(observer).is_ready
    assert health_of(observer).is_live


def test_a_port_that_is_taken_is_a_configuration_error(serve):
    server = serve()
    with pytest.raises(ConfigError, match=rf"\[metrics\] port.*{server.port}"):
        HealthServer(HOST, server.port, CollectorRegistry(), lambda: WELL)


def test_a_stopped_server_frees_its_port():
    first = HealthServer(HOST, 0, CollectorRegistry(), lambda: WELL)
    first.start()
    first.stop()
    second = HealthServer(HOST, first.port, CollectorRegistry(), lambda: WELL)
    second.start()
    assert get(second, "/livez")[0] == 200
    second.stop()
