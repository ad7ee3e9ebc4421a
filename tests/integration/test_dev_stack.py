import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from streamer.dev.mock_broker import MockBroker
from streamer.dev.stack import LocalStack
from streamer.errors import StoreUnavailable, StreamerError
from streamer.stores import connect, ping
from streamer.stores.keys import history_key

STREAMER = Path(sys.executable).with_name("streamer")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Dev:
    """A `streamer dev` in a process of its own, with its own folder for temporary files."""

    def __init__(self, folder, arguments, environment):
        self.folder = folder
        self.errors = folder.with_suffix(".stderr")
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [STREAMER, "dev", *arguments],
                env={**os.environ, "TMPDIR": str(folder), **environment},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def read_line(self):
        return json.loads(self.process.stdout.readline())

    def children(self):
        pid = self.process.pid
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]

    def end(self, number=signal.SIGTERM):
        """Send the signal; return the exit code and what stdout still held."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=30)
        return self.process.returncode, rest


@pytest.fixture
def start_dev(redis_executable, tmp_path):
    started = []

    def start(*arguments, **environment):
        folder = tmp_path / f"dev{len(started)}"
        folder.mkdir()
        started.append(Dev(folder, arguments, environment))
        return started[-1]

    yield start
    for dev in started:
        dev.end(signal.SIGKILL)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def round_trip(bootstrap_servers, topic):
    """Write a record and read the topic's first one; clients retry by themselves until then."""
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce(topic, b"hello")
    assert producer.flush(20) == 0
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": topic,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    record = consumer.poll(20)
    consumer.close()
    return record.value()


def create_topic(bootstrap_servers, name):
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(timeout=10)


def test_dev_starts_an_apache_kafka_and_a_redis_and_says_where_they_are(
    kafka_program, start_dev, unique_name
):
    dev = start_dev("--kafka", "real")
    line = dev.read_line()
    assert set(line) == {"bootstrap_servers", "redis_url", "kafka", "redis"}
    assert line["kafka"] == f"apache-kafka {kafka_program.version}"
    create_topic(line["bootstrap_servers"], unique_name)
    assert round_trip(line["bootstrap_servers"], unique_name) == b"hello"
    with redis.Redis.from_url(line["redis_url"]) as client:
        assert client.ping()
        assert client.info("server")["redis_version"] == line["redis"]
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert dev.end() == (0, "")


@needs_linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_dev_with_exit_code_0_and_leaves_no_process_and_no_folder(start_dev, number):
    dev = start_dev("--kafka", "mock")
    dev.read_line()
    children = dev.children()
    assert len(children) == 2
    assert len(list(dev.folder.iterdir())) == 1
    assert dev.end(number) == (0, "")
    assert not any(map(is_alive, children))
    assert list(dev.folder.iterdir()) == []


@needs_linux
def test_no_server_survives_a_dev_that_was_killed(kafka_program, start_dev, eventually):
    dev = start_dev("--kafka", "real")
    dev.read_line()
    children = dev.children()
    assert len(children) == 2
    dev.end(signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, children)))


@needs_linux
def test_a_signal_during_the_start_ends_dev_too(kafka_program, start_dev, eventually):
    dev = start_dev("--kafka", "real")
    children = eventually(lambda: len(dev.children()) == 2 and dev.children())
    assert dev.end() == (0, "")
    assert not any(map(is_alive, children))
    assert list(dev.folder.iterdir()) == []


@needs_linux
def test_dev_fails_and_says_so_when_a_server_dies(start_dev):
    dev = start_dev("--kafka", "mock")
    dev.read_line()
    victim, survivor = dev.children()
    os.kill(victim, signal.SIGKILL)
    assert dev.process.wait(timeout=10) == 1
    assert "streamer: Redis has ended (killed by signal 9)" in dev.errors.read_text()
    assert not is_alive(survivor)


@pytest.fixture
def without_java(redis_executable, tmp_path):
    """An environment in which Redis can be found, but no Java."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "redis-server").symlink_to(redis_executable)
    return {"PATH": str(programs), "JAVA_HOME": ""}


def test_without_java_dev_takes_the_mock_and_says_why(start_dev, without_java, unique_name):
    dev = start_dev(**without_java)
    line = dev.read_line()
    assert line["kafka"] == "librdkafka-mock"
    assert round_trip(line["bootstrap_servers"], unique_name) == b"hello"
    said = dev.errors.read_text()
    assert "mock broker instead of Apache Kafka: no java" in said
    assert dev.end() == (0, "")


def test_without_java_a_real_kafka_is_refused_with_what_to_install(start_dev, without_java):
    dev = start_dev("--kafka", "real", **without_java)
    assert dev.process.wait(timeout=30) == 69
    assert dev.process.stdout.read() == ""
    assert "apt install openjdk-17-jre-headless maven" in dev.errors.read_text()


@needs_linux
def test_dev_starts_a_redis_cluster_if_that_is_asked_for(start_dev):
    dev = start_dev("--kafka", "mock", "--redis-cluster")
    line = dev.read_line()
    children = dev.children()
    assert len(children) == 4
    with connect(line["redis_url"], timeout_seconds=5) as client:
        ping(client)
        for user in range(20):
            client.execute_command("SET", history_key(f"viewer-{user}"), b"x")
    assert dev.end() == (0, "")
    assert not any(map(is_alive, children))
    assert list(dev.folder.iterdir()) == []


def test_a_cluster_that_runs_already_is_used(redis_cluster):
    with LocalStack.start("mock", redis_url=redis_cluster.url) as stack:
        assert stack.redis is None
        assert stack.redis_version == redis_cluster.version


@needs_linux
def test_servers_that_run_already_are_used_and_outlive_dev(
    start_dev, redis_server, redis_url, tmp_path
):
    broker = MockBroker(tmp_path)
    broker.start()
    try:
        dev = start_dev("--bootstrap", broker.bootstrap_servers, "--redis-url", redis_url)
        assert dev.read_line() == {
            "bootstrap_servers": broker.bootstrap_servers,
            "redis_url": redis_url,
            "kafka": "external",
            "redis": redis_server.version,
        }
        assert dev.children() == []
        assert dev.end() == (0, "")
        assert redis_server.is_running
        assert broker.is_running
    finally:
        broker.stop()


def test_a_redis_that_does_not_answer_is_named_without_its_password():
    with (
        pytest.raises(StoreUnavailable, match=r"Redis at 127.0.0.1:1 did not answer") as caught,
        LocalStack.start("mock", redis_url="redis://me:hush@127.0.0.1:1/0"),
    ):
        pass
    assert "hush" not in str(caught.value)


def test_a_stack_can_be_used_from_python(redis_executable, unique_name):
    with LocalStack.start("mock") as stack:
        assert round_trip(stack.bootstrap_servers, unique_name) == b"hello"
        with redis.Redis.from_url(stack.redis_url) as client:
            assert client.ping()
        stack.ensure_running()
        stack.redis.kill()
        with pytest.raises(StreamerError, match="Redis has ended"):
            stack.ensure_running()
    assert not stack.kafka.is_running
