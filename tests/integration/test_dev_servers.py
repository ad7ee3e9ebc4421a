import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from streamer.dev.kafka_server import KafkaServer
from streamer.dev.mock_broker import MockBroker
from streamer.dev.redis_server import RedisServer
from streamer.errors import TransientError
from streamer.host.ports import free_ports
from streamer.kafka.topics import TopicSpec, create_topics, open_admin


def test_a_mock_broker_makes_topics_of_4_partitions_when_asked_for_them(tmp_path, unique_name):
    broker = MockBroker(tmp_path)
    broker.start()
    try:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        assert len(admin.list_topics(unique_name, timeout=10).topics[unique_name].partitions) == 4
    finally:
        broker.stop()
    assert not broker.is_running


def test_a_mock_broker_ends_when_its_stdin_closes():
    command = [sys.executable, "-m", "streamer.dev.mock_broker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        host, _, port = process.stdout.readline().decode().strip().rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        process.stdin.close()
        assert process.wait(timeout=10) == 0


def test_a_kafka_that_was_killed_comes_back_with_its_records(
    kafka_server, bootstrap_servers, unique_name
):
    create_topics(open_admin({"bootstrap.servers": bootstrap_servers}), [TopicSpec(unique_name, 1)])
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce(unique_name, b"hello")
    assert producer.flush(20) == 0
    old_pid = kafka_server.pid
    kafka_server.kill()
    assert not kafka_server.is_running
    kafka_server.start()
    assert kafka_server.pid != old_pid
    assert kafka_server.bootstrap_servers == bootstrap_servers
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": unique_name,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([unique_name])
    assert consumer.poll(20).value() == b"hello"
    consumer.close()


def test_a_kafka_that_does_not_start_shows_why(kafka_program, tmp_path):
    server = KafkaServer(kafka_program, tmp_path, {"num.io.threads": "0"})
    with pytest.raises(TransientError, match=r"(?s)prepare its folder.*num\.io\.threads"):
        server.start()
    assert not server.is_running


def test_a_redis_with_a_log_keeps_what_it_acknowledged_over_a_kill(redis_executable, tmp_path):
    server = RedisServer(tmp_path, ("--appendonly", "yes"))
    try:
        server.start()
        url = server.url
        with redis.Redis.from_url(url) as client:
            client.set("key", "value")
        server.kill()
        server.start()
        assert server.url == url
        with redis.Redis.from_url(url) as client:
            assert client.get("key") == b"value"
    finally:
        server.stop()


def test_a_redis_without_one_starts_empty_on_its_old_port(redis_executable, tmp_path):
    server = RedisServer(tmp_path)
    try:
        server.start()
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "value")
        server.restart()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("key") is None
    finally:
        server.stop()


def test_a_server_that_does_not_start_shows_the_end_of_its_log(redis_executable, tmp_path):
    server = RedisServer(tmp_path, ("--no-such-setting", "1"))
    with pytest.raises(
        TransientError, match=r"(?s)Redis has ended \(exit code 1\).*no-such-setting"
    ):
        server.start()


def test_a_frozen_server_is_stopped_without_a_kill(redis_executable, tmp_path):
    server = RedisServer(tmp_path)
    server.start()
    os.kill(server.pid, signal.SIGSTOP)
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 5
    assert "bye bye" in server.process.log_tail()


def test_ports_differ_and_are_never_ones_that_outgoing_connections_use():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < 32_768
