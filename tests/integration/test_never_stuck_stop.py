"""SIGTERM while Kafka, Redis or both do not answer: at the start, in a rebalance, at work."""

import signal
import time
from contextlib import ExitStack

import pytest
from integration.worker_process import deployed, frozen, some_traffic
from waiting import eventually

from streamer.dev.redis_server import RedisServer

DRAIN_SECONDS = 1.0
CLOSE_SECONDS = 5.0  # to leave the group; streamer/runtime/guards.py
SLACK_SECONDS = 10.0  # a busy machine; without the deadline it is more than a minute
START_SECONDS = 90.0

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def own_redis(redis_executable, tmp_path):
    """A Redis that the test may freeze."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def deployment(bootstrap_servers, own_redis, unique_name, tmp_path):
    with deployed(bootstrap_servers, own_redis.url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        yield deployment


def start(deployment, *arguments, **settings):
    return deployment.start_worker(
        *arguments,
        worker__drain_timeout_seconds=DRAIN_SECONDS,
        worker__batch_records=50,
        **settings,
    )


@pytest.mark.parametrize("names", [["redis"], ["kafka"], ["kafka", "redis"]])
def test_a_stop_ends_every_worker_in_time_whoever_is_frozen(
    deployment, kafka_server, own_redis, names
):
    servers = {"kafka": kafka_server, "redis": own_redis}
    # Of a group of its own, so that it works while the other group rebalances.
    at_work = start(deployment, kafka__group_id=f"{deployment.name}-other")
    settled = start(deployment)
    eventually(lambda: at_work.reads(4) and settled.reads(4), START_SECONDS)
    deployment.produce(some_traffic(71, 3000))
    joining = start(deployment)
    eventually(lambda: joining.said("worker_started"), START_SECONDS, 0.005)
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(frozen(servers[name].pid))
        starting = start(deployment, "--wait")
        eventually(lambda: starting.said("retrying"), START_SECONDS)
        workers = {
            "at work": at_work,
            "settled": settled,
            "joining": joining,
            "starting": starting,
        }
        assert all(worker.process.poll() is None for worker in workers.values())
        since = time.monotonic()
        for worker in workers.values():
            worker.process.send_signal(signal.SIGTERM)
        codes = {name: worker.wait(60) for name, worker in workers.items()}
        assert time.monotonic() - since < DRAIN_SECONDS + CLOSE_SECONDS + SLACK_SECONDS
    # 143: leaving the group took longer than that.
    assert set(codes.values()) <= {0, 128 + signal.SIGTERM}
    assert codes["starting"] == 0
    assert "kafka" in names or set(codes.values()) == {0}
