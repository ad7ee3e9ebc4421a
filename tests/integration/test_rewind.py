"""`streamer rewind`: what Redis lost without its marks is read again, by hand."""

import json
import subprocess
import time

import pytest
from confluent_kafka import TopicPartition
from integration.worker_process import STREAMER, deployed, some_traffic
from waiting import eventually


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        yield deployment


def rewind(deployment, *arguments):
    return subprocess.run(
        [STREAMER, "rewind", *arguments],
        env=deployment.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def lose_histories(deployment):
    """Delete every history; what nobody does who knows what he does."""
    keys = list(deployment.redis.scan_iter("st:h:*", count=10_000))
    assert keys
    deployment.redis.delete(*keys)


def test_what_was_lost_by_hand_is_read_again_by_hand(deployment):
    worker = deployment.start_worker(worker__cache_users=1)
    deployment.produce(some_traffic(41, 600))
    deployment.wait_until_caught_up(worker)
    eventually(lambda: deployment.committed() == deployment.ends())
    lose_histories(deployment)

    dry = rewind(deployment, "--since", "1h", "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    assert sum(each["records"] for each in json.loads(dry.stdout)) == 600
    assert deployment.histories() == {}

    done = rewind(deployment, "--since", "1h")
    assert done.returncode == 0, done.stderr
    assert "600 records will be read again" in done.stdout
    deployment.wait_until_learned()
    assert worker.total("rewinds_total", cause="mark_behind") == 4
    eventually(lambda: deployment.committed() == deployment.ends())

    assert worker.terminate() == 0  # and while nobody runs
    lose_histories(deployment)
    assert rewind(deployment, "--since", "1h").returncode == 0
    deployment.start_worker()
    deployment.wait_until_learned()


def test_only_what_came_since_then_is_read_again_and_a_topic_that_begins_later_is_said(deployment):
    worker = deployment.start_worker()
    deployment.produce(some_traffic(42, 200))
    deployment.wait_until_caught_up(worker)
    between = time.time()
    eventually(lambda: time.time() > between + 0.01)
    deployment.produce(some_traffic(43, 100))
    deployment.wait_until_caught_up(worker)
    eventually(lambda: deployment.committed() == deployment.ends())
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(between))
    since = f"{moment}.{int(between % 1 * 1000) + 1:03d}Z"
    found = json.loads(rewind(deployment, "--since", since, "--json").stdout)
    assert sum(each["records"] for each in found) == 100
    assert all(each["reaches_back"] for each in found)

    topic = deployment.topics["play"]
    gone = {TopicPartition(topic, 0, 5): 5}
    for answer in deployment.admin.delete_records(list(gone)).values():
        answer.result(10)
    eventually(lambda: deployment.committed() == deployment.ends())
    done = rewind(deployment, "--since", "1h")
    assert done.returncode == 0
    assert f"{topic}/0 begins at offset 5" in done.stderr


@pytest.mark.parametrize("since", ["10", "ten minutes", "2026-11-23T19:08:00", "-5m", "5w"])
def test_a_time_that_cannot_be_understood_is_refused_with_what_would_be_right(since):
    done = subprocess.run(
        [STREAMER, "rewind", f"--since={since}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "10m" in done.stderr
