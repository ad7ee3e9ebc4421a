import json
import socket
import time

import pytest
from integration.worker_process import deployed, some_traffic
from waiting import eventually

from streamer.dev.kafka_server import KafkaServer
from streamer.dev.redis_server import RedisServer
from streamer.host.ports import free_ports
from streamer.kafka.topics import missing_topics


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        yield deployment


class Hopeless:
    """Workers whose Kafka or Redis is not there. They live beside the other tests of this file."""

    def __init__(self, deployment):
        nobody = f"127.0.0.1:{free_ports(1)[0]}"
        without_kafka = {"kafka__bootstrap_servers": nobody}
        without_redis = {"redis__url": f"redis://{nobody}/0"}
        briefly = {"worker__start_timeout_seconds": 1, "metrics__port": 0}
        self.patient = {
            "Kafka": deployment.start_worker(**without_kafka, metrics__port=free_ports(1)[0]),
            "Redis": deployment.start_worker(**without_redis, metrics__port=free_ports(1)[0]),
        }
        for worker in self.patient.values():
            eventually(lambda worker=worker: worker.status("/livez") == 200)
        self.impatient = [
            deployment.start_worker(**without_kafka, **briefly),
            deployment.start_worker(**without_redis, **briefly),
        ]


@pytest.fixture(scope="module")
def hopeless(kafka_server, redis_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hopeless")
    with deployed(
        kafka_server.bootstrap_servers, redis_server.url, "hopeless", folder
    ) as deployment:
        yield Hopeless(deployment)


def test_a_worker_whose_kafka_or_redis_is_not_there_is_alive_and_not_ready(hopeless):
    for worker in hopeless.patient.values():
        assert worker.status("/livez") == 200
        assert worker.status("/readyz") == 503


def test_a_mistake_in_the_configuration_is_exit_code_78_with_one_line(deployment, tmp_path):
    wrong_file = tmp_path / "worker.toml"
    wrong_file.write_text("[kafka]\ngroup = 'workers'\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        workers = {
            "STREAMER__KAFKA__GROUPID": deployment.start_worker(kafka__groupid="workers"),
            "STREAMER__WORKER__BATCH_RECORDS": deployment.start_worker(worker__batch_records=0),
            "[kafka] group": deployment.start_worker("--config", str(wrong_file)),
            "[kafka]": deployment.start_worker(kafka__client__no_such_setting="1"),
            "[redis] url": deployment.start_worker(redis__url="redis://127.0.0.1:port/0"),
            f"cannot listen on 127.0.0.1:{port}": deployment.start_worker(metrics__port=port),
        }
        for words, worker in workers.items():
            assert worker.wait(10) == 78, worker.output
            assert words in worker.output
            assert worker.output.startswith("streamer: ")
            assert worker.output.count("\n") == 1


def test_event_topics_may_come_later_than_the_worker(deployment):
    worker = deployment.start_worker()
    missing = eventually(lambda: worker.said("topics_missing"))
    assert missing[0]["topics"] == sorted(deployment.topics.values())
    letters = [f"{topic}.dlq" for topic in deployment.topics.values()]
    eventually(lambda: missing_topics(deployment.admin, letters) == [])
    created = eventually(lambda: worker.said("dead_letter_topics_created"))
    assert created[0]["topics"] == letters
    wanted = sorted(deployment.topics.values())
    eventually(lambda: json.loads(worker.get("/readyz")[1])["missing_topics"] == wanted)
    assert worker.status("/readyz") == 503
    assert worker.status("/livez") == 200
    deployment.create_topics()
    eventually(lambda: worker.status("/readyz") == 200)
    deployment.produce(some_traffic(41, 300, bad_share=0.1))
    deployment.wait_until_counted(worker)
    assert deployment.histories() == deployment.expected_histories()
    assert worker.terminate() == 0


def test_a_worker_that_still_waits_for_kafka_can_be_stopped(deployment):
    worker = deployment.start_worker(
        "--wait",
        kafka__bootstrap_servers=f"127.0.0.1:{free_ports(1)[0]}",
        metrics__port=free_ports(1)[0],
    )
    eventually(lambda: worker.status("/livez") == 200)
    has_waited_since = time.monotonic()
    eventually(lambda: time.monotonic() > has_waited_since + 0.5)
    since = time.monotonic()
    assert worker.terminate(15) == 0
    assert time.monotonic() - since < 7


# --- a broker without the `consumer` group protocol ----------------------------------------------


@pytest.fixture(scope="module")
def old_broker(kafka_program, tmp_path_factory):
    """A Kafka that knows only the classic protocol; a test starts it."""
    properties = {"group.coordinator.rebalance.protocols": "classic"}
    server = KafkaServer(kafka_program, tmp_path_factory.mktemp("old-kafka"), properties)
    yield server
    server.stop()


def test_a_worker_waits_if_told_so_and_falls_back_to_the_protocol_that_the_broker_knows(
    old_broker, redis_executable, unique_name, tmp_path
):
    old_broker.stop()
    folder = tmp_path / "redis"
    folder.mkdir()
    redis_server = RedisServer(folder)
    with deployed(
        old_broker.bootstrap_servers, redis_server.url, unique_name, tmp_path
    ) as deployment:
        worker = deployment.start_worker("--wait", metrics__port=free_ports(1)[0])
        eventually(lambda: worker.status("/livez") == 200)
        assert worker.status("/readyz") == 503
        eventually(lambda: worker.said("retrying"))
        try:
            redis_server.start()
            old_broker.start()
            deployment.create_topics()
            deployment.produce(some_traffic(42, 300, bad_share=0.1))
            deployment.wait_until_counted(worker)
            assert deployment.histories() == deployment.expected_histories()
            assert worker.status("/readyz") == 200
            assert worker.terminate() == 0
            assert deployment.committed() == deployment.ends()
        finally:
            redis_server.stop()


def test_a_worker_that_must_use_the_new_protocol_ends_where_there_is_none(
    old_broker, redis_url, unique_name, tmp_path
):
    if not old_broker.is_running:
        old_broker.start()
    with deployed(old_broker.bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        worker = deployment.start_worker(kafka__group_protocol="consumer")
        assert worker.wait(15) == 75


# --- the end of those without Kafka or Redis -----------------------------------------------------


def test_a_kafka_or_a_redis_that_is_not_there_is_exit_code_69_within_10_seconds(hopeless):
    for name, worker in hopeless.patient.items():
        eventually(lambda worker=worker: worker.seconds)
        assert worker.process.returncode == 69
        assert worker.seconds < 10
        last_line = worker.output.strip().splitlines()[-1]
        assert last_line.startswith("streamer: ")
        assert name in last_line


def test_the_wait_for_what_is_not_there_is_as_long_as_configured(hopeless):
    for worker in hopeless.impatient:
        eventually(lambda worker=worker: worker.seconds)
        assert worker.process.returncode == 69
        assert worker.seconds < 7.5  # of which 1 s is configured; the rest is a busy machine
