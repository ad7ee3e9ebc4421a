"""A loop that hangs, or that failed and cannot leave, on real processes."""

import sys
import time
from pathlib import Path

import pytest
from integration import worker_process
from integration.worker_process import deployed, frozen, some_traffic
from waiting import eventually

START_SECONDS = 90.0
WATCHDOG_SECONDS = 6.0
CHECK_SECONDS = 1.0  # how often the watchdog looks
DRAIN_SECONDS = 1.0
CLOSE_SECONDS = 5.0
SLACK_SECONDS = 10.0  # a busy machine
FAULTY_WORKER = Path(__file__).with_name("faulty_worker.py")

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMER_TEST_FAULT", str(tmp_path / "fault"))
    monkeypatch.setattr(worker_process, "PROGRAM", [sys.executable, str(FAULTY_WORKER)])
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        yield deployment


def break_poll(deployment, how):
    draft = deployment.folder / "draft"
    draft.write_text(how)
    draft.rename(deployment.folder / "fault")
    return time.monotonic()


def heartbeat(worker):
    assert worker.process.poll() is None, "it ended before its heartbeat was seen to stand still"
    return worker.total("loop_heartbeat_timestamp_seconds")


def test_the_heartbeat_of_a_loop_that_hangs_stands_still_and_the_watchdog_ends_it(deployment):
    worker = deployment.start_worker(worker__watchdog_timeout_seconds=WATCHDOG_SECONDS)
    eventually(lambda: worker.reads(4), START_SECONDS)
    deployment.produce(some_traffic(81, 200))
    deployment.wait_until_counted(worker)
    last = heartbeat(worker)
    eventually(lambda: heartbeat(worker) > last)

    since = break_poll(deployment, "hang")
    eventually(lambda: time.time() > heartbeat(worker) + 1.0)
    last = heartbeat(worker)
    eventually(lambda: time.time() > last + 2.0)
    assert heartbeat(worker) == last

    assert worker.wait(60) == 70
    assert time.monotonic() - since < WATCHDOG_SECONDS + CHECK_SECONDS + SLACK_SECONDS
    assert "the loop has not turned for" in worker.output


def test_a_worker_that_failed_ends_in_time_though_it_cannot_leave_the_group(
    deployment, kafka_server
):
    worker = deployment.start_worker(worker__drain_timeout_seconds=DRAIN_SECONDS)
    eventually(lambda: worker.reads(4), START_SECONDS)
    deployment.produce(some_traffic(82, 200))
    deployment.wait_until_counted(worker)
    with frozen(kafka_server.pid):
        since = break_poll(deployment, "fail")
        assert worker.wait(60) == 75
        lasted = time.monotonic() - since
    assert (
        DRAIN_SECONDS + CLOSE_SECONDS - 1 < lasted < DRAIN_SECONDS + CLOSE_SECONDS + SLACK_SECONDS
    )
    assert "the shutdown took too long" in worker.output
