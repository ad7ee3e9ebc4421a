"""Real servers for the tests that need them, on free ports, gone when the run ends.

Where a server cannot be had, the tests that need it are reported as not run, with the reason, in a
section of their own. ``STREAMER_REQUIRE=kafka,redis`` turns that into failures: use it wherever a
green run is taken as proof.
"""

import os
import secrets
import shutil
import time

import pytest
import redis

from streamer.dev.kafka_program import find_kafka_program
from streamer.dev.kafka_server import KafkaServer
from streamer.dev.redis_cluster import RedisCluster
from streamer.dev.redis_server import RedisServer, find_redis_executable
from streamer.errors import TransientError

NOT_RUN = "not run: "
# Whoever needs a server asks for one of these, directly or through another fixture.
MARKER_OF_FIXTURE = {"redis_executable": "redis", "kafka_program": "kafka"}


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the markers
def pytest_collection_modifyitems(items):
    for item in items:
        for fixture, marker in MARKER_OF_FIXTURE.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
        # The tests of a file share its servers, so they stay together; those of the simulation
        # have none, and are dealt to whoever is free.
        if "simulation" not in item.path.parts:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


def pytest_terminal_summary(terminalreporter):
    tests_of_reason = {}
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _, found, reason = reason.partition(NOT_RUN)
        if found:
            tests_of_reason.setdefault(reason, []).append(report.nodeid)
    if not tests_of_reason:
        return
    terminalreporter.section("not run", yellow=True)
    for reason, tests in tests_of_reason.items():
        terminalreporter.line(f"{len(tests)} tests, because: {reason}")
        for test in tests:
            terminalreporter.line(f"  {test}")


def cannot_run(server, reason):
    if server in os.environ.get("STREAMER_REQUIRE", "").split(","):
        pytest.fail(f"STREAMER_REQUIRE asks for {server}: {reason}", pytrace=False)
    pytest.skip(f"{NOT_RUN}{reason}")


@pytest.fixture(scope="session")
def redis_executable():
    """The path of a redis-server, for tests that start their own."""
    try:
        return find_redis_executable()
    except TransientError as error:
        cannot_run("redis", error)


@pytest.fixture(scope="session")
def kafka_program():
    """Apache Kafka's jars and a Java, for tests that start their own broker."""
    try:
        return find_kafka_program()
    except TransientError as error:
        cannot_run("kafka", error)


@pytest.fixture(scope="session")
def redis_server(redis_executable, tmp_path_factory):
    """A Redis shared by all tests; a test that stops or freezes it must not rely on others."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def redis_url(redis_server):
    """The address of an empty Redis."""
    if not redis_server.is_running:
        redis_server.start()
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def redis_cluster(redis_executable, tmp_path_factory):
    """Three shards shared by all tests; a test that harms them must start its own."""
    cluster = RedisCluster(tmp_path_factory.mktemp("redis-cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def cluster_url(redis_cluster):
    """The address of an empty Redis Cluster."""
    for server in redis_cluster.primaries:
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
    return redis_cluster.url


@pytest.fixture(scope="session")
def kafka_server(kafka_program, tmp_path_factory):
    """An Apache Kafka shared by all tests; take topics and groups with a `unique_name`."""
    folder = tmp_path_factory.mktemp("kafka")
    server = KafkaServer(kafka_program, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder / "data", ignore_errors=True)  # pytest keeps the rest for a while


@pytest.fixture
def bootstrap_servers(kafka_server):
    """The address of a running Apache Kafka."""
    if not kafka_server.is_running:
        kafka_server.start()
    return kafka_server.bootstrap_servers


@pytest.fixture
def unique_name():
    """A short name that no other test has: for topics, groups and the like."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
def eventually():
    """``eventually(condition)`` returns the condition's first true value, or fails in time."""

    def poll(condition, timeout_seconds=15.0, interval_seconds=0.02):
        deadline = time.monotonic() + timeout_seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_seconds:g} s: {condition}")
            time.sleep(interval_seconds)
        return value

    return poll
