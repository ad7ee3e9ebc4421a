import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, Producer, TopicPartition
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from streamer.errors import BrokerUnavailable, ConfigError
from streamer.kafka import topics
from streamer.kafka.topics import (
    TopicOutcome,
    TopicSpec,
    create_topics,
    missing_topics,
    open_admin,
    topic_specs,
)

STREAMER = Path(sys.executable).with_name("streamer")
DAY_MS = 86_400_000


@pytest.fixture
def admin(bootstrap_servers):
    return open_admin({"bootstrap.servers": bootstrap_servers})


@pytest.fixture
def specs(unique_name):
    names = (f"{unique_name}-play", f"{unique_name}-browse")
    return topic_specs(names, ".dlq", partitions=3, replication=1, retention_days=7)


def create_by_command(bootstrap_servers, name, *arguments):
    environment = {
        **os.environ,
        "STREAMER__KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "STREAMER__KAFKA__PLAY_TOPIC": f"{name}-play",
        "STREAMER__KAFKA__BROWSE_TOPIC": f"{name}-browse",
    }
    return subprocess.run(
        [STREAMER, "topics", "create", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def settings_of(admin, name):
    resource = ConfigResource(ResourceType.TOPIC, name)
    entries = admin.describe_configs([resource])[resource].result(timeout=10)
    return {name: entry.value for name, entry in entries.items()}


def test_dead_letters_have_one_partition_and_are_kept_longer_than_events(specs):
    play, browse, play_letters, browse_letters = specs
    assert play_letters.name == f"{play.name}.dlq"
    assert browse_letters.name == f"{browse.name}.dlq"
    assert (play.partitions, play_letters.partitions) == (3, 1)
    assert int(play.settings["retention.ms"]) == 7 * DAY_MS
    assert int(play_letters.settings["retention.ms"]) == 28 * DAY_MS


def test_dead_letters_keep_the_time_of_their_records_whatever_the_brokers_default(specs):
    for spec in specs:
        is_letters = spec.name.endswith(".dlq")
        kind = "CreateTime" if is_letters else "LogAppendTime"
        assert spec.settings["message.timestamp.type"] == kind


def test_with_three_replicas_no_write_is_acknowledged_by_one_alone():
    def insync(replication):
        spec, _ = topic_specs(
            ["t"], ".dlq", partitions=1, replication=replication, retention_days=1
        )
        return spec.settings["min.insync.replicas"]

    assert [insync(replication) for replication in (1, 2, 3)] == ["1", "1", "2"]


def test_creating_topics_twice_creates_them_once(admin, specs):
    names = [spec.name for spec in specs]
    assert missing_topics(admin, names) == names
    assert create_topics(admin, specs) == [TopicOutcome(name, "created") for name in names]
    assert missing_topics(admin, names) == []
    assert create_topics(admin, specs) == [TopicOutcome(name, "exists") for name in names]
    assert {name: len(admin.list_topics(name).topics[name].partitions) for name in names} == {
        spec.name: spec.partitions for spec in specs
    }


def test_a_record_of_an_event_topic_carries_the_brokers_time(admin, specs, bootstrap_servers):
    create_topics(admin, specs)
    name = specs[0].name
    before_ms = int(time.time() * 1000)
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce(name, b"x", partition=0, timestamp=1)
    assert producer.flush(10) == 0
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "none"})
    consumer.assign([TopicPartition(name, 0, 0)])
    record = consumer.poll(10)
    consumer.close()
    kind, time_ms = record.timestamp()
    assert kind == TIMESTAMP_LOG_APPEND_TIME
    assert before_ms - 1000 <= time_ms <= int(time.time() * 1000) + 1000


def test_an_existing_topic_that_falls_short_is_reported_and_left_alone(admin, unique_name):
    admin.create_topics([NewTopic(unique_name, 2, 1)])[unique_name].result(timeout=10)
    spec = TopicSpec(unique_name, 4, 1, {"message.timestamp.type": "LogAppendTime"})
    assert create_topics(admin, [spec]) == [
        TopicOutcome(
            unique_name,
            "differs",
            (
                "2 partitions, not 4",
                "message.timestamp.type is CreateTime, not LogAppendTime",
            ),
        )
    ]
    assert settings_of(admin, unique_name)["message.timestamp.type"] == "CreateTime"
    assert len(admin.list_topics(unique_name).topics[unique_name].partitions) == 2


def test_more_partitions_than_asked_for_are_no_difference(admin, unique_name):
    create_topics(admin, [TopicSpec(unique_name, 4)])
    assert create_topics(admin, [TopicSpec(unique_name, 3)])[0].state == "exists"


def test_a_topic_that_another_process_creates_meanwhile_exists(admin, unique_name):
    spec = TopicSpec(unique_name, 1)
    create_topics(admin, [spec])
    assert topics._create([spec], admin, time.monotonic() + 8) == set()


def test_more_replicas_than_brokers_are_the_operators_to_correct(admin, unique_name):
    with pytest.raises(ConfigError, match=rf"create topic {unique_name}: .*replication"):
        create_topics(admin, [TopicSpec(unique_name, 1, replication=3)])


def test_a_setting_that_librdkafka_does_not_know_is_the_operators_to_correct():
    with pytest.raises(ConfigError, match=r"\[kafka.client\] .*no.such"):
        open_admin({"bootstrap.servers": "127.0.0.1:1", "no.such": "1"})


def test_the_command_says_for_each_topic_what_it_did(bootstrap_servers, unique_name):
    first = create_by_command(bootstrap_servers, unique_name)
    assert (first.returncode, first.stderr) == (0, "")
    assert [line.split() for line in first.stdout.splitlines()] == [
        [f"{unique_name}-{end}", "created"] for end in ("play", "browse", "play.dlq", "browse.dlq")
    ]
    again = create_by_command(bootstrap_servers, unique_name, "--partitions", "9", "--json")
    assert again.returncode == 0
    outcomes = json.loads(again.stdout)
    assert [outcome["state"] for outcome in outcomes] == ["differs", "differs", "exists", "exists"]
    assert outcomes[0]["differences"] == ["8 partitions, not 9"]


def test_dead_letters_that_outlive_a_forgotten_users_marker_are_warned_of(
    bootstrap_servers, unique_name
):
    done = create_by_command(bootstrap_servers, unique_name, "--retention-days", "8")
    assert done.returncode == 0
    assert "32 days" in done.stderr
    assert "tombstone_days = 30" in done.stderr


def test_an_unreachable_broker_ends_the_command_with_exit_code_69_within_10_seconds(unique_name):
    started = time.monotonic()
    done = create_by_command("127.0.0.1:1", unique_name)
    assert done.returncode == 69
    assert time.monotonic() - started < 10
    assert "127.0.0.1:1" in done.stderr
    assert "Connection refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_frozen_broker_ends_the_command_with_exit_code_69_within_10_seconds(
    kafka_server, bootstrap_servers, unique_name
):
    os.kill(kafka_server.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        done = create_by_command(bootstrap_servers, unique_name)
        assert time.monotonic() - started < 10
    finally:
        os.kill(kafka_server.pid, signal.SIGCONT)
    assert done.returncode == 69
    assert bootstrap_servers in done.stderr


def test_an_unreachable_broker_is_an_error_that_may_pass(monkeypatch):
    monkeypatch.setattr(topics, "TIMEOUT_SECONDS", 0.1)
    admin = open_admin({"bootstrap.servers": "127.0.0.1:1"})
    with pytest.raises(BrokerUnavailable, match="list its topics"):
        missing_topics(admin, ["x"])
