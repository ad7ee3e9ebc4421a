"""Questions to a broker that has lost and taken back its partitions."""

import os
import signal
import time

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from streamer.kafka.queries import BrokerQueries
from streamer.kafka.watermarks import WatermarkMonitor
from streamer.pipeline.records import Partition

FROZEN_SECONDS = 5.0
"""Beyond the broker's session of 3 s: its partitions lose their leader, and get a new epoch."""
RESUME_SECONDS = 10.0


@pytest.fixture
def partitions(bootstrap_servers, unique_name):
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(unique_name, 4, 1)])[unique_name].result(10)
    return [Partition(unique_name, number) for number in range(4)]


def test_who_asks_for_offsets_gets_them_after_a_broker_was_frozen_beyond_its_session(
    kafka_server, bootstrap_servers, partitions, eventually
):
    topic = partitions[0].topic
    queries = BrokerQueries({}, bootstrap_servers, [topic])
    told = []
    monitor = WatermarkMonitor(
        {},
        bootstrap_servers,
        lambda: frozenset(partitions),
        lambda asked_at_ms, watermarks: told.append((asked_at_ms, watermarks)),
        0.1,
    )
    monitor.start()
    try:
        eventually(lambda: told and told[-1][1] == dict.fromkeys(partitions, 0))
        assert queries.ask_earliest(partitions)() == dict.fromkeys(partitions, 0)
        os.kill(kafka_server.pid, signal.SIGSTOP)
        time.sleep(FROZEN_SECONDS)
        os.kill(kafka_server.pid, signal.SIGCONT)
        # The first questions may still meet the old epoch, which the broker is about to leave.
        until = time.monotonic() + RESUME_SECONDS
        while time.monotonic() < until - RESUME_SECONDS / 2:
            queries.ask_earliest(partitions)()
        eventually(lambda: len(queries.ask_earliest(partitions)()) == 4, RESUME_SECONDS / 2)
        now_ms = time.time_ns() // 1_000_000
        eventually(lambda: told[-1][0] > now_ms and len(told[-1][1]) == 4, RESUME_SECONDS / 2)
    finally:
        monitor.stop()
